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
from memory_rl.analysis.statistics import Estimate, nested_share, telling_runs
from memory_rl.analysis.survival import MemorisationTimes, Normal, bits_per_episode, log_rate, pool
from memory_rl.catalogue import KEEP
from memory_rl.config import BUILT_IN, TINY
from memory_rl.files import Json

BOOKKEEPING = (KEEP - {"role"}) | {"seed", "num_runs", "base_seed"}
"""Keys in which the runs of one sample may differ: they say who, where and how, not what was measured.

Runs are nested in bases (`base_seed`), and bases in recipes (`model_name`), which are never pooled. Nor are
the roles that a sweep gives the cells of a condition.
"""


@dataclass(frozen=True)
class Sample:
    """The runs of several cells.

    For a verdict the cells differ in nothing but seed and base; for a capacity they had as much to learn.
    Intervals reach as far as the sample does: over runs of one base they are for this base alone.
    """

    cells: tuple[Cell, ...]

    @property
    def first(self) -> Cell:
        """One of its cells, for what all share."""
        return self.cells[0]

    @cached_property
    def times(self) -> MemorisationTimes:
        """Of all runs, whose units are the bases if there are several."""
        return replace(pool([cell.times for cell in self.cells]), units=self.units)

    @cached_property
    def bases(self) -> list[int | None]:
        """The bases of its runs, ascending; None where there is no base of a seed."""
        return sorted({base_of(cell) for cell in self.cells}, key=str)

    @property
    def shares_secrets(self) -> bool:
        """Whether some of its bases have the seed of others, and so their secrets and random numbers."""
        return len({cell.config["seed"] for cell in self.cells}) < len(self.bases)

    @cached_property
    def units(self) -> np.ndarray:
        """The name of each run's independent unit: its base, or where there is one, itself: (R,)."""
        over_bases = len(self.bases) > 1
        names = [
            f"base_seed={base_of(cell)}" + ("" if over_bases else f" seed={cell.config['seed']} run={run}")
            for cell in self.cells
            for run in range(len(cell.times.episodes))
        ]
        return np.array(names)

    @property
    def budget(self) -> int | None:
        """The most episodes that a run had which did not memorise; None if all did."""
        times = self.times
        return None if times.memorised.all() else int(times.episodes[~times.memorised].max())

    @cached_property
    def stuck(self) -> Estimate:
        """The share of runs that did not memorise within the budget."""
        return nested_share(~self.times.memorised, self.times.units if len(self.bases) > 1 else None)

    @property
    def telling_runs(self) -> float:
        """How many independent runs would tell as much about the share that is stuck."""
        return telling_runs(~self.times.memorised, self.times.units if len(self.bases) > 1 else None)

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
    def rate_of_memorised(self) -> Estimate:
        """Bits per episode of the runs that memorised, without those that are stuck."""
        return bits_per_episode(self.times.of_memorised, self.first.information)

    @cached_property
    def log_rate(self) -> Normal:
        """The logarithm of the bits per episode, over all episodes of all runs.

        Where no run memorised, half a run is taken to have, with the standard error sqrt(2) of its logarithm.
        """
        if not self.memorised:
            spent, events = float(self.times.episodes.sum()), 0.5
            return Normal(math.log(self.first.information * events / spent), events**-0.5, self.runs - 1.0)
        return log_rate(self.times).plus(math.log(self.first.information))

    @cached_property
    def of_memorised(self) -> Normal | None:
        """The logarithm of the bits per episode of the runs that memorised; None if too few did."""
        return self._rate_of(self.times.of_memorised)

    @cached_property
    def observed(self) -> Normal | None:
        """The same of the ideal observers of these runs; None without a ledger."""
        observers = [cell.observer for cell in self.cells]
        known = [times for times in observers if times is not None]
        if len(known) < len(self.cells):
            return None
        return self._rate_of(replace(pool(known), units=self.units).where(self.times.memorised))

    def _rate_of(self, times: MemorisationTimes) -> Normal | None:
        return log_rate(times).plus(math.log(self.first.information)) if times.tells_a_rate else None

    @property
    def reach(self) -> str:
        """What its intervals are about."""
        if len(self.bases) > 1:
            which = ", and too narrow for other secrets, since these share theirs"
            return f"over {len(self.bases)} base models{which if self.shares_secrets else ''}"
        return "over runs" if self.first.settings.get("backend") == "tabular" else "for one base model"

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


def base_of(cell: Cell) -> int | None:
    """The seed of a cell's base; None where it is not made from a seed, as no model of a hub or a file is."""
    made = cell.settings.get("model_name", TINY) in BUILT_IN
    return cell.settings.get("base_seed") if made else None


def gather(cells: Iterable[Cell]) -> list[Sample]:
    """Cells of equal settings as one sample, see `counted_once`."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        settings = {key: value for key, value in cell.settings.items() if key not in BOOKKEEPING}
        groups.setdefault(json.dumps(settings, sort_keys=True, default=str), []).append(cell)
    return [Sample(counted_once(same)) for same in groups.values()]


def counted_once(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Of cells of equal settings the largest of each base and seed: its runs are those of the others, too."""
    largest: dict[tuple[int | None, int], Cell] = {}
    for cell in cells:
        seed = base_of(cell), cell.config["seed"]
        if seed not in largest or largest[seed].config["num_runs"] < cell.config["num_runs"]:
            largest[seed] = cell
    return tuple(largest.values())


def comparable_log_rates(samples: Sequence[Sample]) -> list[Normal]:
    """Log rates of samples of one condition, for a comparison between them.

    If runs of some are stuck, those of the others may get stuck, too, and just did not: of 16 runs with a
    chance of 10 % none is in 19 % of all cases. So a sample of one base without a censored run is given the
    error that it would have with one more run, censored at the largest budget of the others (as Agresti and
    Coull add observations to a proportion). Its estimate stays.
    """
    budget = max((sample.budget for sample in samples if sample.budget is not None), default=None)
    if budget is None:
        return [sample.log_rate for sample in samples]
    stuck = MemorisationTimes(np.array([float(budget)]), np.zeros(1, bool))
    return [
        replace(sample.log_rate, error=log_rate(pool([sample.times, stuck])).error, influence={})
        if sample.budget is None and len(sample.bases) == 1
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
