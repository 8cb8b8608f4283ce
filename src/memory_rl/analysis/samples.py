"""Samples: the runs of several cells as one; and selections, by which a protocol names them.

A selection is of keys: {condition: binary, N: [16, 64]} means all cells with one of these values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.statistics import Estimate
from memory_rl.analysis.survival import MemorisationTimes, Normal, bits_per_episode, log_rate, pool
from memory_rl.catalogue import KEEP
from memory_rl.files import Json

BOOKKEEPING = KEEP | {"seed", "num_runs"}
"""Keys in which the runs of one sample may differ: they say who, where and how, not what was measured."""


@dataclass(frozen=True)
class Sample:
    """The runs of several cells.

    For a verdict the cells differ in nothing but their seed; for a capacity they had as much to learn.
    """

    cells: tuple[Cell, ...]

    @property
    def first(self) -> Cell:
        """One of its cells, for what all share."""
        return self.cells[0]

    @cached_property
    def times(self) -> MemorisationTimes:
        """Of all runs."""
        return pool([cell.times for cell in self.cells])

    @property
    def runs(self) -> int:
        """How many there are."""
        return len(self.times.episodes)

    @property
    def memorised(self) -> int:
        """How many memorised."""
        return int(self.times.memorised.sum())

    @cached_property
    def stored(self) -> np.ndarray:
        """Bits known at the end of each run, summed over its secrets: (R,)."""
        return np.concatenate([cell.stored for cell in self.cells])

    @cached_property
    def rate(self) -> Estimate:
        """Bits per episode."""
        return bits_per_episode(self.times, self.first.information)

    @cached_property
    def log_rate(self) -> Normal:
        """The logarithm of the bits per episode.

        Where no run memorised, half a run is taken to have, with the standard error sqrt(2) of its logarithm.
        """
        if not self.memorised:
            spent, events = float(self.times.episodes.sum()), 0.5
            return Normal(math.log(self.first.information * events / spent), events**-0.5, self.runs - 1.0)
        rate = log_rate(self.times)
        return Normal(rate.value + math.log(self.first.information), rate.error, rate.freedom)

    @property
    def ceilings(self) -> dict[str, float]:
        """The rates that no learner of the condition should exceed, in bits an episode.

        They are the channel's capacity and, where it is known, the rate of the ideal questioner.
        """
        ceilings = self.first.summary["ceilings"]
        found, asker = {"capacity": float(ceilings["capacity"])}, ceilings["ideal_questioner"]
        if asker and asker["to_reach"]:
            found["ideal questioner"] = math.log2(self.first.N) / asker["to_reach"]
        return found

    @property
    def laws(self) -> list[str]:
        """The status of each law in each of its cells."""
        return [check["status"] for cell in self.cells for check in cell.summary.get("checks", {}).values()]


def gather(cells: Iterable[Cell]) -> list[Sample]:
    """Cells of equal settings as one sample, see `counted_once`."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        settings = {key: value for key, value in cell.settings.items() if key not in BOOKKEEPING}
        groups.setdefault(json.dumps(settings, sort_keys=True, default=str), []).append(cell)
    return [Sample(counted_once(same)) for same in groups.values()]


def counted_once(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Of cells of equal settings the largest of each seed: its runs are those of the others and more."""
    largest: dict[int, Cell] = {}
    for cell in cells:
        seed = cell.config["seed"]
        if seed not in largest or largest[seed].config["num_runs"] < cell.config["num_runs"]:
            largest[seed] = cell
    return tuple(largest.values())


def comparable_log_rates(samples: Sequence[Sample]) -> list[Normal]:
    """Log rates of samples of one condition, for a comparison between them.

    If runs of some are stuck, those of the others may get stuck, too, and just did not: of 16 runs with a
    chance of 10 % none is in 19 % of all cases. So a sample without a censored run is given the error that it
    would have with one more run, censored at the largest budget of the others (as Agresti and Coull add
    observations to a proportion). Its estimate stays.
    """
    pooled = pool([sample.times for sample in samples])
    budget = np.sort(pooled.episodes[~pooled.memorised])[-1:]  # empty, if no run is censored
    stuck = MemorisationTimes(budget, np.zeros(len(budget), bool))
    return [
        replace(sample.log_rate, error=log_rate(pool([sample.times, stuck])).error)
        if sample.memorised == sample.runs
        else sample.log_rate
        for sample in samples
    ]


def fits(values: Json, selection: Json) -> bool:
    """Whether these have what a selection names: each key with its value, or one of a list of values."""
    return all(values.get(key) in _listed(wanted) for key, wanted in selection.items())


def combinations(selection: Json) -> Iterator[Json]:
    """Each combination of a selection's lists: one cell that must be there."""
    for values in product(*map(_listed, selection.values())):
        yield dict(zip(selection, values, strict=True))


def name_of(selection: Json) -> str:
    """A selection as a reader would say it: sft, N=16, lora_rank=8."""
    return ", ".join(
        str(value) if key == "condition" else f"{key}={value}" for key, value in selection.items()
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


class CannotJudgeError(Exception):
    """Cells that are missing, too small or ambiguous; the message is a sentence."""


@dataclass(frozen=True)
class Evidence:
    """The samples at hand, and how many runs a sample must have."""

    samples: Sequence[Sample]
    minimum_runs: int

    def take(self, selections: Sequence[Json]) -> list[Sample]:
        """The one sample of each selection.

        Raises:
            CannotJudgeError: naming every cell that lacks runs, or one that is ambiguous.
        """
        found = [self._matching(selection) for selection in selections]
        counts = [sample.runs if sample else 0 for sample in found]
        lacking = [
            f"{name_of(selection)} has {runs} of {self.minimum_runs} runs"
            for selection, runs in zip(selections, counts, strict=True)
            if runs < self.minimum_runs
        ]
        if lacking:
            raise CannotJudgeError(
                f"Not judged, since a cell needs at least {self.minimum_runs} finished runs: "
                f"{'; '.join(lacking)}."
            )
        return [sample for sample in found if sample]

    def _matching(self, selection: Json) -> Sample | None:
        matching = [sample for sample in self.samples if fits(sample.first.settings, selection)]
        if len(matching) > 1:
            one, other = (sample.first.settings for sample in matching[:2])
            differing = sorted(key for key in {*one, *other} - BOOKKEEPING if one.get(key) != other.get(key))
            raise CannotJudgeError(
                f"{name_of(selection)} matches {len(matching)} cells, which differ in "
                f"{', '.join(differing)}: the protocol must say which one it means."
            )
        return matching[0] if matching else None
