"""Verdicts: a protocol's hypotheses judged on the cells of a study.

Each claim says that some rates, or ratios of rates, lie in a range. Two p values are worked out for it: that
of so clear a result *for* the claim if it were false, and *against* it if it were true. A claim of several
parts is supported only by all of them (the largest p value; intersection-union), and refuted by any one (the
smallest, times their number; Bonferroni). The smaller of both, doubled because either would have been
reported, is the hypothesis's p value; those of all hypotheses are adjusted by Holm's method, and one below
the protocol's alpha is a verdict. Everything else is inconclusive. With one hypothesis of one part this is
the same as asking whether the 95 % interval lies wholly within or wholly outside the range; for a range it is
the equivalence test of two one-sided tests (Schuirmann 1987).

Rates are compared on the logarithmic scale, with `memory_rl.analysis.survival.log_rate` and Welch's degrees
of freedom. Where no run of a cell memorised, half a run is taken to have, with the standard error sqrt(2) of
its logarithm. Cells of one seed share their secrets and random streams, so that their times go up and down
together; they are compared as if they were independent, which errs on the side of inconclusive.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations, product
from typing import Any, Literal

import numpy as np

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.protocol import Hypothesis, Protocol, fits
from memory_rl.analysis.statistics import Estimate, holm
from memory_rl.analysis.survival import (
    MemorisationTimes,
    Normal,
    bits_per_episode,
    contrast,
    exponent,
    log_rank,
    log_rate,
    pool,
)

BOOKKEEPING = frozenset(
    {
        "seed",
        "num_runs",
        "log_path",
        "data_dir",
        "quiet",
        "threads",
        "resume",
        "checkpoint_every",
        "save_adapters",
        "wandb_project",
        "trackio_project",
        "tensorboard",
    }
)
"""Keys in which the runs of one population may differ: they say who, where and how, not what was measured."""

_ROUNDING = 1e-9
_LAW_CHANCE = 1e-4  # that an honest experiment breaches one of its laws; see `memory_rl.analysis.laws`

Judgement = Literal["supported", "refuted", "inconclusive"]


@dataclass(frozen=True)
class Verdict:
    """What the cells say about a hypothesis.

    Attributes:
        id: of the hypothesis.
        claim: in plain words.
        verdict: supported, refuted or inconclusive.
        reason: the numbers that say so, in a sentence or two.
        figure: the name of the report's figure that shows them.
        numbers: a table of them; a dictionary a row.
        p_value: of the verdict's direction, doubled; None if the hypothesis was not judged.
        p_holm: adjusted for all hypotheses that were judged.
    """

    id: str
    claim: str
    verdict: Judgement
    reason: str
    figure: str
    numbers: list[dict[str, Any]] = field(default_factory=list)
    p_value: float | None = None
    p_holm: float | None = None


def judge(protocol: Protocol, cells: Iterable[Cell]) -> list[Verdict]:
    """A verdict for each hypothesis of the protocol, in its order.

    Unfinished cells and those that the protocol excludes are not used.
    """
    populations = gather(
        cell
        for cell in cells
        if cell.completed and not any(_matches(cell, selection) for selection in protocol.exclusions)
    )
    findings = [_find(hypothesis, populations, protocol.minimum_runs) for hypothesis in protocol.hypotheses]
    adjusted = iter(holm([finding.p_value for finding in findings if finding.p_value is not None]))
    return [
        _verdict(hypothesis, finding, None if finding.p_value is None else next(adjusted), protocol.alpha)
        for hypothesis, finding in zip(protocol.hypotheses, findings, strict=True)
    ]


@dataclass(frozen=True)
class Population:
    """The runs of all cells that differ in nothing but their seed."""

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

    @property
    def information(self) -> float:
        """What a run has learned by when it counts as memorised, in bits: log2 N for one secret."""
        return self.first.information

    @cached_property
    def rate(self) -> Estimate:
        """Bits per episode."""
        return bits_per_episode(self.times, self.information)

    @cached_property
    def log_rate(self) -> Normal:
        """The logarithm of the bits per episode."""
        if not self.memorised:
            spent, events = float(self.times.episodes.sum()), 0.5
            return Normal(math.log(self.information * events / spent), events**-0.5, self.runs - 1.0)
        rate = log_rate(self.times)
        return Normal(rate.value + math.log(self.information), rate.error, rate.freedom)

    @property
    def capacity(self) -> float:
        """The channel's, in bits an episode."""
        return float(self.first.summary["ceilings"]["capacity"])

    @property
    def ceilings(self) -> dict[str, float]:
        """The rates that no learner of the condition should exceed: of the channel, and of the ideal
        questioner where it is known.
        """
        asker = self.first.summary["ceilings"]["ideal_questioner"]
        known = asker is not None and asker["to_reach"] > 0
        return {
            "capacity": self.capacity,
            **({"ideal questioner": math.log2(self.first.N) / asker["to_reach"]} if known else {}),
        }

    @property
    def laws(self) -> list[str]:
        """The status of each law in each of its cells."""
        return [check["status"] for cell in self.cells for check in cell.summary.get("checks", {}).values()]


def gather(cells: Iterable[Cell]) -> list[Population]:
    """Cells of equal configuration as one population. Of two with the same seed the larger one counts: its
    runs are those of the other and more.
    """
    groups: dict[str, dict[int, Cell]] = {}
    for cell in cells:
        same = groups.setdefault(_key(cell), {})
        seed = cell.config["seed"]
        if seed not in same or same[seed].config["num_runs"] < cell.config["num_runs"]:
            same[seed] = cell
    return [Population(tuple(same.values())) for same in groups.values()]


def _key(cell: Cell) -> str:
    settings = {key: value for key, value in cell.config.items() if key not in BOOKKEEPING}
    return json.dumps([cell.kind, cell.condition, settings], sort_keys=True, default=str)


def _matches(cell: Cell, selection: Mapping[str, Any]) -> bool:
    return fits({**cell.config, "kind": cell.kind, "condition": cell.condition}, selection)


def _single(selection: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each combination of a selection's axes: one cell that must be there."""
    axes = [value if isinstance(value, list) else [value] for value in selection.values()]
    for values in product(*axes):
        yield dict(zip(selection, values, strict=True))


def _comparable(populations: Sequence[Population]) -> list[Normal]:
    """Log rates of populations of one condition, for a comparison between them.

    If runs of some are stuck, those of the others may get stuck, too, and just did not: of 16 runs with a
    chance of 10 % none is in 19 % of all cases. So a population without a censored run is given the error
    that it would have with one more run, censored at the largest budget of the others (as Agresti and Coull
    add observations to a proportion). Its estimate stays.
    """
    budgets = [
        float(population.times.episodes[~population.times.memorised].max())
        for population in populations
        if population.memorised < population.runs
    ]
    if not budgets:
        return [population.log_rate for population in populations]
    stuck = MemorisationTimes(np.array([max(budgets)]), np.array([False]))
    return [
        replace(population.log_rate, error=log_rate(pool([population.times, stuck])).error)
        if population.memorised == population.runs
        else population.log_rate
        for population in populations
    ]


class CannotJudgeError(Exception):
    """Cells that are missing, too small or ambiguous; the message is a sentence."""


@dataclass(frozen=True)
class _Shelf:
    """The populations at hand, and how large they must be."""

    populations: Sequence[Population]
    minimum_runs: int

    def take(self, selections: Sequence[Mapping[str, Any]]) -> list[Population]:
        """The one population of each selection.

        Raises:
            CannotJudgeError: naming every cell that lacks runs, or one that is ambiguous.
        """
        found = [self._matching(selection) for selection in selections]
        lacking = [
            f"{_name(selection)} has {matching[0].runs if matching else 0} of {self.minimum_runs} runs"
            for selection, matching in zip(selections, found, strict=True)
            if not matching or matching[0].runs < self.minimum_runs
        ]
        if lacking:
            raise CannotJudgeError(
                f"Not judged on fewer than {self.minimum_runs} finished runs a cell: {'; '.join(lacking)}."
            )
        return [matching[0] for matching in found]

    def _matching(self, selection: Mapping[str, Any]) -> list[Population]:
        matching = [population for population in self.populations if _matches(population.first, selection)]
        if len(matching) > 1:
            one, other = (population.first.config for population in matching[:2])
            differing = sorted(
                key for key in {*one, *other} - BOOKKEEPING if one.get(key) != other.get(key)
            ) or ["kind"]
            raise CannotJudgeError(
                f"{_name(selection)} is {len(matching)} cells that differ in {', '.join(differing)}: the protocol must say which one it means."
            )
        return matching


def _name(selection: Mapping[str, Any]) -> str:
    """A selection as a reader would say it: sft, N=16, lora_rank=8."""
    return ", ".join(
        str(value) if key == "condition" else f"{key}={value}" for key, value in selection.items()
    )


@dataclass(frozen=True)
class _Part:
    """One part of a claim: the p value of the result if the part were false (`for_it`), and if it were true
    (`against`).
    """

    for_it: float
    against: float


@dataclass(frozen=True)
class _Finding:
    """What a test found out; without parts, why it could not."""

    figure: str
    reason: str
    numbers: list[dict[str, Any]] = field(default_factory=list)
    parts: Sequence[_Part] = ()

    @property
    def for_it(self) -> float:
        """If the claim were false, so would be one of its parts."""
        return max(part.for_it for part in self.parts)

    @property
    def against(self) -> float:
        """If the claim were true, so would be all its parts."""
        return min(1.0, len(self.parts) * min(part.against for part in self.parts))

    @property
    def p_value(self) -> float | None:
        """Of the direction that the result points in; doubled, since either would have been reported."""
        return min(1.0, 2 * min(self.for_it, self.against)) if self.parts else None


def _find(hypothesis: Hypothesis, populations: Sequence[Population], minimum_runs: int) -> _Finding:
    figure, test = _TESTS[hypothesis.test]
    try:
        return test(hypothesis.settings, _Shelf(populations, minimum_runs), figure)
    except CannotJudgeError as error:
        return _Finding(figure, str(error))


def _verdict(hypothesis: Hypothesis, finding: _Finding, p_holm: float | None, alpha: float) -> Verdict:
    judgement: Judgement = "inconclusive"
    if p_holm is not None and p_holm < alpha:
        judgement = "supported" if finding.for_it < finding.against else "refuted"
    return Verdict(
        hypothesis.id,
        hypothesis.claim,
        judgement,
        finding.reason,
        finding.figure,
        finding.numbers,
        finding.p_value,
        p_holm,
    )


def _below_ceiling(settings: Mapping[str, Any], shelf: _Shelf, figure: str) -> _Finding:
    """No rate is above the channel's capacity or the ideal questioner's, and no law of the ledger is
    breached.

    To support the claim a rate must be below the lower of both; to refute it, above the higher, since a
    greedy questioner is not always the best one.
    """
    selections = [single for selection in settings["cells"] for single in _single(selection)]
    populations = shelf.take(selections)
    parts = [_under(population, *population.ceilings.values()) for population in populations]
    breached = sum(population.laws.count("breached") for population in populations)
    judged = sum(status != "skipped" for population in populations for status in population.laws)
    if breached:
        parts = [_Part(1.0, _LAW_CHANCE), *parts]
    nearest = max(populations, key=_share)
    ceiling = min(nearest.ceilings, key=lambda name: nearest.ceilings[name])
    reason = (
        f"The rate of {len(populations)} cells is at most {_percent(_share(nearest))} of their ceiling (in {_name(selections[populations.index(nearest)])}: "
        f"{_range(nearest.rate)} bits an episode, {ceiling} {nearest.ceilings[ceiling]:.3g}); of {judged} checks of the ledger's laws {breached or 'none'} "
        f"{'is' if breached < 2 else 'are'} breached."
    )
    return _Finding(
        figure,
        reason,
        [
            _cell_row(selection, population)
            for selection, population in zip(selections, populations, strict=True)
        ],
        parts,
    )


def _share(population: Population) -> float:
    return math.exp(population.log_rate.value) / min(population.ceilings.values())


def _under(population: Population, *ceilings: float) -> _Part:
    """Whether a rate is below its ceilings. Without a run that memorised, the exact probability of that at
    the ceiling's rate.
    """
    if not population.memorised:
        return _Part(
            math.exp(-min(ceilings) / population.information * float(population.times.episodes.sum())), 1.0
        )
    rate = population.log_rate
    return _Part(rate.chance_below(math.log(min(ceilings))), rate.chance_above(math.log(max(ceilings))))


def _cell_row(selection: Mapping[str, Any], population: Population) -> dict[str, Any]:
    rate, statuses = population.rate, sorted(set(population.laws))
    return {
        "cell": _name(selection),
        "runs": population.runs,
        "memorised": population.memorised,
        "bits_per_episode": rate.value,
        "low": rate.low,
        "high": rate.high,
        **{name.replace(" ", "_"): ceiling for name, ceiling in population.ceilings.items()},
        "laws": ", ".join(statuses) or "no ledger",
    }


def _rate_ratio(settings: Mapping[str, Any], shelf: _Shelf, figure: str) -> _Finding:
    """At each N one condition's rate is the expected multiple of another's, within the margin."""
    sizes, margin = settings["N"], settings["margin"]
    taken = shelf.take([{**settings[side], "N": size} for side in ("of", "to") for size in sizes])
    rows: list[dict[str, Any]] = []
    parts = []
    for size, of, to in zip(sizes, taken[: len(sizes)], taken[len(sizes) :], strict=True):
        expected = math.log2(size) if settings["expected"] == "log2_N" else float(settings["expected"])
        ratio = contrast([of.log_rate, to.log_rate], [1, -1])
        parts.append(_within(ratio, expected, margin))
        rows.append(
            {
                "N": size,
                "runs": f"{of.runs}, {to.runs}",
                **_ratio_row(ratio),
                "expected": expected,
                "from": expected / margin,
                "to": expected * margin,
            }
        )
    of_name, to_name = (settings[side].get("condition", _name(settings[side])) for side in ("of", "to"))
    ratios = ", ".join(f"{_range_of(row)} (claimed: {row['expected']:.3g})" for row in rows)
    reason = f"At N = {_and(sizes)} the rate of {of_name} is {ratios} times that of {to_name}; a factor of {margin:g} either way is allowed."
    return _Finding(figure, reason + _growth(sizes, taken, of_name, to_name), rows, parts)


def _growth(sizes: Sequence[int], taken: Sequence[Population], of_name: str, to_name: str) -> str:
    """How the episodes of both conditions grow with N."""
    of, to = (
        exponent(dict(zip(sizes, (population.times for population in half), strict=True)))
        for half in (taken[: len(sizes)], taken[len(sizes) :])
    )
    if of.value is None or to.value is None:
        return ""
    return f" Episodes grow as N to the power {_range(to)} for {to_name} and {_range(of)} for {of_name}."


def _within(ratio: Normal, expected: float, margin: float) -> _Part:
    """Two one-sided tests of a ratio's logarithm against the range around the expected one, and the test that
    it lies outside.
    """
    low, high = math.log(expected / margin), math.log(expected * margin)
    return _Part(
        max(ratio.chance_above(low), ratio.chance_below(high)),
        min(ratio.chance_above(high), ratio.chance_below(low)),
    )


def _ratio_row(ratio: Normal) -> dict[str, float]:
    low, high = ratio.interval()
    return {"ratio": math.exp(ratio.value), "low": math.exp(low), "high": math.exp(high)}


def _rises_along(settings: Mapping[str, Any], shelf: _Shelf, figure: str) -> _Finding:
    """Each rate is below its channel's capacity, and rates rise along an axis: by the least-squares slope of
    log rate over log2 of the axis.

    Cells in which other answers earn as much as the secret are no part of the slope: no learner can find out
    the secret from such rewards alone.
    """
    ((axis, values),) = settings["along"].items()
    populations = dict(
        zip(values, shelf.take([{**settings["cells"], axis: value} for value in values]), strict=True)
    )
    telling = {
        value: population for value, population in populations.items() if _tells_the_secret(population)
    }
    if len(telling) < 2:
        raise CannotJudgeError(
            f"At {axis} = {_and(values)} fewer than two cells have a reward that tells the secret from other answers."
        )
    slope, boundary = _slope(telling), math.log(settings["factor"])
    trend = _Part(slope.chance_above(boundary), slope.chance_below(boundary))
    rows = [
        {**_cell_row({axis: value}, population), "in_trend": value in telling}
        for value, population in populations.items()
    ]
    rates = _and([_range(population.rate) for population in populations.values()])
    capacities = _and([_number(population.capacity) for population in populations.values()])
    tied = [value for value in values if value not in telling]
    reason = (
        f"With {axis} = {_and(values)} the runs make {rates} bits an episode under ceilings of {capacities}; a doubling of {axis} makes them "
        f"{_range_of(_ratio_row(slope))} times as fast, and more than {settings['factor']:g} is claimed."
    )
    if tied:
        reason += f" {axis} = {_and(tied)} is no part of that: other answers earn as much as the secret there, so that no learner can tell it from rewards alone."
    return _Finding(
        figure,
        reason,
        rows,
        [trend, *(_under(population, population.capacity) for population in populations.values())],
    )


def _slope(along: Mapping[float, Population]) -> Normal:
    places = np.log2(np.array(list(along), dtype=float))
    weights = (places - places.mean()) / np.sum((places - places.mean()) ** 2)
    return contrast(_comparable(list(along.values())), list(weights))


def _tells_the_secret(population: Population) -> bool:
    by_reward = population.first.summary["ceilings"].get("bits_by_reward")
    return by_reward is not None and by_reward > math.log2(population.first.N) - _ROUNDING


def _same_along(settings: Mapping[str, Any], shelf: _Shelf, figure: str) -> _Finding:
    """All rates along an axis are the same, within the margin; pair by pair, and over all values of a second
    axis, if there is one.
    """
    ((axis, values),) = settings["along"].items()
    over: Mapping[str, Any] = settings.get("over") or {}
    groups = [single for selection in settings["cells"] for single in _single({**selection, **over})]
    taken = iter(shelf.take([{**group, axis: value} for group in groups for value in values]))
    rows: list[dict[str, Any]] = []
    parts = []
    for group in groups:
        for (one, first), (other, second) in combinations([(value, next(taken)) for value in values], 2):
            ratio = contrast(_comparable([second, first]), [1, -1])
            parts.append(_within(ratio, 1.0, settings["margin"]))
            pair = {"cell": _name(group), axis: f"{other} / {one}", "runs": f"{second.runs}, {first.runs}"}
            rows.append({**pair, **_ratio_row(ratio), "log_rank_p": log_rank(first.times, second.times)})
    widest = max(rows, key=lambda row: max(row["high"], 1 / row["low"]))
    chances = holm([row["log_rank_p"] for row in rows])
    apart = sum(chance < 0.05 for chance in chances) or "none"
    reason = (
        f"Of {len(rows)} pairs the widest ratio of rates is {_range_of(widest)} ({widest['cell']}, {axis} {widest[axis]}), where a factor of "
        f"{settings['margin']:g} either way is allowed; log-rank tests tell {apart} of them apart (least p, after Holm: {min(chances):.2g})."
    )
    return _Finding(figure, reason + _range_over(settings, rows), rows, parts)


def _range_over(settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """For each of the cells, what the intervals of its pairs say at each value of the second axis."""
    if not settings.get("over"):
        return ""
    ((axis, values),) = settings["over"].items()
    told = []
    for single in (single for selection in settings["cells"] for single in _single(selection)):
        words = {
            value: _how_alike(
                [row for row in rows if row["cell"] == _name({**single, axis: value})], settings["margin"]
            )
            for value in values
        }
        alike = {
            word: [value for value in values if words[value] == word]
            for word in ("the same", "different", "not told apart")
        }
        told.append(
            f"{_name(single)}: "
            + ", ".join(f"{word} at {axis} {_and(found)}" for word, found in alike.items() if found)
        )
    return f" Within that factor they are, for {'; for '.join(told)}."


def _how_alike(rows: Sequence[Mapping[str, Any]], margin: float) -> str:
    if any(row["low"] > margin or row["high"] < 1 / margin for row in rows):
        return "different"
    return (
        "the same"
        if all(row["low"] >= 1 / margin and row["high"] <= margin for row in rows)
        else "not told apart"
    )


_TESTS: dict[str, tuple[str, Callable[[Mapping[str, Any], _Shelf, str], _Finding]]] = {
    "below_ceiling": ("waterfall", _below_ceiling),
    "rate_ratio": ("scaling", _rate_ratio),
    "rises_along": ("survival", _rises_along),
    "same_along": ("rank", _same_along),
}
"""The figure and the function of each test."""


def _range(estimate: Estimate) -> str:
    return f"{_number(estimate.value)} [{_number(estimate.low)}, {_number(estimate.high)}]"


def _range_of(row: Mapping[str, Any]) -> str:
    return f"{_number(row['ratio'])} [{_number(row['low'])}, {_number(row['high'])}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _and(values: Sequence[Any]) -> str:
    """1, 2 and 3."""
    *first, last = [f"{value:g}" if isinstance(value, int | float) else str(value) for value in values]
    return f"{', '.join(first)} and {last}" if first else last
