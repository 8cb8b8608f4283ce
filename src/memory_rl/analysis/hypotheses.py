"""The tests that a protocol may name, one class each: its fields are its keys, and it judges the cells.

Each claim says that some rates, or ratios of rates, lie in a range. Two p values are computed for it: that of
such a clear result *for* the claim if it were false, and *against* it if it were true. A claim of several
parts is supported only by all of them (the largest p value; intersection-union), and refuted by any one (the
smallest, times their number; Bonferroni). With one part this is the same as asking whether the 95 % interval
lies wholly within or wholly outside the range; for a range it is the equivalence test of two one-sided tests
(Schuirmann 1987).

Rates are compared on the logarithmic scale, with `memory_rl.analysis.survival.log_rate`. Over several bases
they are compared base by base, and over one base run by run where cells have the same seed and so share their
secrets and random streams; else with Welch's degrees of freedom.

But for ceilings, the rates are of the runs that memorised: one over all runs is set by the budget as soon as
one is stuck. The share that is stuck is told beside them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations as pairs_of
from typing import Annotated, Any, ClassVar

import numpy as np
from typing_extensions import override

from memory_rl.analysis.digits import rounded
from memory_rl.analysis.entries import (
    Axis,
    Holds,
    Margin,
    Selection,
    Selections,
    Text,
    an_axis,
    list_of,
    or_none,
    within,
)
from memory_rl.analysis.findings import (
    Finding,
    Part,
    compare,
    join,
    names_of,
    on_runs,
    rates_of,
    ratio_of,
    stuck_alike,
)
from memory_rl.analysis.samples import (
    CannotJudgeError,
    Evidence,
    Sample,
    combinations,
    name_of,
)
from memory_rl.analysis.statistics import holm
from memory_rl.analysis.survival import (
    contrast,
    exponent,
    log_rank,
    slope,
)
from memory_rl.files import Json
from memory_rl.limits import ANSWERS, FACTORS

_ROUNDING = 1e-9
_LAW_CHANCE = 1e-4  # that an honest experiment breaches one of its laws; see `memory_rl.analysis.laws`


TESTS: dict[str, type[Hypothesis]] = {}
"""The tests by the names that protocols give them."""


@dataclass(frozen=True)
class Hypothesis(ABC):
    """A claim and the test that judges it; a subclass is a test.

    Attributes:
        id: its short name, such as H1.
        test: the name of the test.
        claim: in plain words.
        figure: the name of the report's figure that shows it.
    """

    id: Text
    test: Text
    claim: Text
    figure: ClassVar[str]

    def __init_subclass__(cls, test: str, figure: str) -> None:
        TESTS[test], cls.figure = cls, figure

    @abstractmethod
    def judge(self, evidence: Evidence) -> Finding:
        """What the samples say about the claim.

        Raises:
            CannotJudgeError: if cells that it needs are missing, too small or ambiguous.
        """


@dataclass(frozen=True)
class BelowCeiling(Hypothesis, test="below_ceiling", figure="waterfall"):
    """No rate is above the capacity or the ideal questioner's rate, and no law of the ledger is breached.

    To support the claim a rate must be below the lower of both; to refute it, above the higher, since a
    greedy questioner is not always the best one.
    """

    cells: Selections

    @override
    def judge(self, evidence: Evidence) -> Finding:
        selections = _each(self.cells)
        taken = list(zip(map(name_of, selections), evidence.take(selections), strict=True))
        parts = [_below(sample, *sample.ceilings.values()) for _, sample in taken]
        laws = [status for _, sample in taken for status in sample.laws]
        breached = laws.count("breached")
        if breached:
            parts.append(Part(1.0, _LAW_CHANCE))
        name, nearest = max(taken, key=lambda pair: _share(pair[1]))
        which, ceiling = min(nearest.ceilings.items(), key=lambda item: item[1])
        reason = (
            f"The cell nearest its ceiling, of {len(taken)}, reaches {rounded(100 * _share(nearest))} % "
            f"of it ({name}: {nearest.rate} bits an episode; {which}: {rounded(ceiling)}). Of "
            f"{len(laws) - laws.count('skipped')} checks of the ledger's laws, {breached or 'none'} "
            f"{'is' if breached < 2 else 'are'} breached."
        )
        return Finding(reason, [_cell_row(*pair) for pair in taken], parts)


def _a_ratio(value: Any) -> Any:
    return value if value == "log2_N" else within(*FACTORS)(value)


@dataclass(frozen=True)
class RateRatio(Hypothesis, test="rate_ratio", figure="scaling"):
    """At each N one condition's rate is the expected multiple of another's, within the margin."""

    of: Selection
    to: Selection
    N: Annotated[list[int], Holds(list_of(within(*ANSWERS, int)), "a list of N, such as [16, 64]")]
    expected: Annotated[float | str, Holds(_a_ratio, "log2_N, or a positive number such as 1")]
    margin: Margin

    @override
    def judge(self, evidence: Evidence) -> Finding:
        sides = (self.of, self.to)
        selections = [{**side, "N": size} for side in sides for size in self.N]
        taken = evidence.take(selections)
        of, to = taken[: len(self.N)], taken[len(self.N) :]
        rows, parts = [], []
        for size, one, other in zip(self.N, of, to, strict=True):
            expected = math.log2(size) if self.expected == "log2_N" else float(self.expected)
            ratio, part = compare([one, other], expected, self.margin)
            parts.append(part)
            rows.append(
                {
                    "N": size,
                    "runs": f"{one.runs}, {other.runs}",
                    **ratio,
                    "expected": expected,
                    "from": expected / self.margin,
                    "to": expected * self.margin,
                }
            )
        name, other_name = names_of(*sides)
        claimed = join(rounded(row["expected"]) for row in rows)
        reason = (
            f"At N = {join(self.N)}, the rate of {name} is {join(map(ratio_of, rows))} times that of "
            f"{other_name}; the claim is {claimed}, within a factor of {self.margin:g}."
        )
        growth, other_growth = (
            exponent({size: sample.times.of_memorised for size, sample in zip(self.N, samples, strict=True)})
            for samples in (of, to)
        )
        if None not in (growth.value, other_growth.value):
            reason += (
                f" Episodes grow as N to the power {other_growth} for {other_name} and {growth} for {name}."
            )
        return Finding(reason + on_runs(dict(zip(map(name_of, selections), taken, strict=True))), rows, parts)


@dataclass(frozen=True)
class RisesAlong(Hypothesis, test="rises_along", figure="survival"):
    """Each rate is below its channel's capacity, and rates rise along an axis.

    They rise by the least-squares slope of log rate over log2 of the axis. Cells in which other answers earn
    as much as the secret are left out of it: no learner can find the secret from such rewards alone.
    """

    cells: Selection
    along: Axis
    factor: Annotated[float, Holds(within(*FACTORS), "a positive factor a doubling, such as 1.0")] = 1.0

    @override
    def judge(self, evidence: Evidence) -> Finding:
        ((axis, values),) = self.along.items()
        taken = evidence.take([{**self.cells, axis: value} for value in values])
        along = dict(zip(values, taken, strict=True))
        telling = {value: sample for value, sample in along.items() if _tells_the_secret(sample)}
        if len(telling) < 2:
            raise CannotJudgeError(
                f"Not judged, since fewer than two cells at {axis} = {join(values)} have a reward that "
                "sets the secret apart from all other answers."
            )
        weights = slope(np.log2(np.array(list(telling))))
        trend = contrast(rates_of(list(telling.values())), weights)
        boundary = math.log(self.factor)
        parts = [Part(trend.chance_above(boundary), trend.chance_below(boundary))]
        capacities = [sample.ceilings["capacity"] for sample in taken]
        reason = (
            f"At {axis} = {join(values)}, the rates over all runs are "
            f"{join(sample.rate for sample in taken)} bits an episode, under capacities of "
            f"{join(map(rounded, capacities))}. Each doubling of {axis} multiplies the rate by "
            f"{trend.exp()}; the claim is more than {self.factor:g}."
        )
        tied = [value for value in values if value not in telling]
        if tied:
            reason += (
                f" {axis} = {join(tied)} is left out of this trend: other answers earn as much as the secret "
                "there, so that no learner can find it from the rewards alone."
            )
        rows = [
            {**_cell_row(name_of({axis: value}), sample), "in_trend": value in telling}
            for value, sample in along.items()
        ]
        by_name = {name_of({axis: value}): sample for value, sample in along.items()}
        return Finding(reason + on_runs(by_name), rows, [*parts, *map(_below, taken, capacities)])


@dataclass(frozen=True)
class SameAlong(Hypothesis, test="same_along", figure="rank"):
    """All rates along an axis are the same within the margin, pair by pair.

    They are so at every value of a second axis, if there is one. Alike must also be the shares of runs that
    are stuck, within a tenth.
    """

    cells: Selections
    along: Axis
    margin: Margin
    over: Annotated[
        dict[str, list[float]] | None,
        Holds(or_none(an_axis), "one key with two values or more, such as {num_secrets: [1, 4, 16]}"),
    ] = None

    @override
    def judge(self, evidence: Evidence) -> Finding:
        ((axis, values),) = self.along.items()
        groups = _each({**selection, **(self.over or {})} for selection in self.cells)
        selections = [{**group, axis: value} for group in groups for value in values]
        samples = dict(zip(map(name_of, selections), evidence.take(selections), strict=True))
        taken = iter(samples.values())
        rows, parts = [], []
        for group in groups:
            for (one, first), (other, second) in pairs_of([(value, next(taken)) for value in values], 2):
                ratio, part = compare([second, first], 1.0, self.margin)
                parts += [part, stuck_alike(second, first)]
                rows.append(
                    {
                        "cell": name_of(group),
                        axis: f"{other} / {one}",
                        "runs": f"{second.runs}, {first.runs}",
                        **ratio,
                        "log_rank_p": log_rank(first.times, second.times),
                    }
                )
        widest = max(rows, key=lambda row: max(row["high"], 1 / row["low"]))
        chances = holm([row["log_rank_p"] for row in rows])
        apart = sum(chance < 0.05 for chance in chances) or "none"
        reason = (
            f"Of {len(rows)} pairs, the one that may differ most has rates in the ratio "
            f"{ratio_of(widest)} ({widest['cell']}, {axis} {widest[axis]}); a factor of {self.margin:g} "
            f"either way is allowed. Log-rank tests tell {apart} of the pairs apart (smallest p after Holm: "
            f"{min(chances):.2g})."
        )
        return Finding(reason + self._alike_over(rows) + on_runs(samples), rows, parts)

    def _alike_over(self, rows: Sequence[Json]) -> str:
        """What the intervals say of the pairs of each of the cells, at each value of the second axis."""
        if not self.over:
            return ""
        ((axis, values),) = self.over.items()
        sentences = []
        for single in _each(self.cells):
            found: dict[str, list[float]] = {"the same": [], "different": [], "undecided": []}
            for value in values:
                name = name_of({**single, axis: value})
                found[self._how_alike([row for row in rows if row["cell"] == name])].append(value)
            words = (f"{word} at {axis} = {join(at)}" for word, at in found.items() if at)
            sentences.append(f"{name_of(single)} are {', '.join(words)}")
        return f" Allowing for that factor, the rates of {'; those of '.join(sentences)}."

    def _how_alike(self, rows: Sequence[Json]) -> str:
        if any(row["low"] > self.margin or row["high"] < 1 / self.margin for row in rows):
            return "different"
        within = all(row["low"] >= 1 / self.margin and row["high"] <= self.margin for row in rows)
        return "the same" if within else "undecided"


def _each(selections: Iterable[Json]) -> list[Json]:
    return [single for selection in selections for single in combinations(selection)]


def _share(sample: Sample) -> float:
    return math.exp(sample.log_rate.value) / min(sample.ceilings.values())


def _below(sample: Sample, *ceilings: float) -> Part:
    """Whether a rate is below its ceilings.

    Without a run that memorised, the exact probability of that at the ceiling's rate. A rate that is its
    ceiling in every run, but for rounding, does not exceed it.
    """
    low, high = (math.log(of(ceilings)) for of in (min, max))
    if not sample.memorised:
        expected = min(ceilings) / sample.first.information * float(sample.times.episodes.sum())
        return Part(math.exp(-expected), 1.0)
    rate = sample.log_rate.plus(-_ROUNDING)
    return Part(rate.chance_below(low), rate.chance_above(high))


def _tells_the_secret(sample: Sample) -> bool:
    by_reward = sample.first.summary["ceilings"].get("bits_by_reward")
    return by_reward is not None and by_reward > math.log2(sample.first.N) - _ROUNDING


def _cell_row(name: str, sample: Sample) -> Json:
    return {
        "cell": name,
        "runs": sample.runs,
        "memorised": sample.memorised,
        **sample.rate.as_row("bits_per_episode"),
        **{which.replace(" ", "_"): ceiling for which, ceiling in sample.ceilings.items()},
        "laws": ", ".join(sorted(set(sample.laws))) or "no ledger",
    }
