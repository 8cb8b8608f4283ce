"""More tests that a protocol may name: how episodes grow with N, and where a gap between rates lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args

import numpy as np
from typing_extensions import override

from memory_rl.analysis.bottleneck import PARTS, Split, closed, gap
from memory_rl.analysis.entries import Holds, Selection, list_of, within
from memory_rl.analysis.findings import Finding, Part, join, names_of, on_runs, part_within, rates_of
from memory_rl.analysis.hypotheses import Hypothesis
from memory_rl.analysis.samples import CannotJudgeError, Evidence, name_of
from memory_rl.analysis.statistics import Estimate
from memory_rl.analysis.survival import Normal, contrast, slope
from memory_rl.files import Json
from memory_rl.limits import ANSWERS, FACTORS

Sizes = Annotated[list[int], Holds(list_of(within(*ANSWERS, int)), "a list of N, such as [16, 64]")]
Variable = Literal["N", "log2_N"]


def _a_range(value: Any) -> list[float]:
    numbers = list_of(within(-FACTORS[1], FACTORS[1]), least=2)(value)
    if len(numbers) != 2 or numbers[0] >= numbers[1]:
        raise ValueError
    return numbers


def _one_of(choices: Sequence[str]) -> Any:
    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError
        return str(value)

    return read


@dataclass(frozen=True)
class EpisodesGrow(Hypothesis, test="episodes_grow", figure="scaling"):
    """Episodes to memorise grow as a power of N, or of log2 N, whose exponent lies in a range.

    The exponent is the least-squares slope of log(episodes of the runs that memorised) over log(N).
    """

    of: Selection
    N: Sizes
    exponent: Annotated[list[float], Holds(_a_range, "a range, such as [0.8, 1.2]")]
    against: Annotated[Variable, Holds(_one_of(get_args(Variable)), "N or log2_N")] = "N"

    @override
    def judge(self, evidence: Evidence) -> Finding:
        if len(self.N) < 2:
            raise CannotJudgeError(f"Not judged, since growth needs two N, and there is N = {join(self.N)}.")
        selections = [{**self.of, "N": size} for size in self.N]
        taken = evidence.take(selections)
        places = np.log(np.log2(self.N) if self.against == "log2_N" else self.N)
        episodes = [
            rate.plus(-math.log(sample.first.information))
            for rate, sample in zip(rates_of(taken), taken, strict=True)
        ]
        growth = contrast(episodes, -slope(places))
        low, high = self.exponent
        rows = [
            {"N": size, "runs": sample.runs, "episodes": _inverse(rate)}
            for size, sample, rate in zip(self.N, taken, episodes, strict=True)
        ]
        claimed, power = (
            "log2 N" if self.against == "log2_N" else "N",
            Estimate(growth.value, *growth.interval()),
        )
        reason = (
            f"At N = {join(self.N)}, runs that memorised took {join(row['episodes'] for row in rows)} "
            f"episodes: they grow as {claimed} to the power {power}; the claim is from {low:g} to {high:g}."
        )
        named = dict(zip(map(name_of, selections), taken, strict=True))
        return Finding(reason + on_runs(named), rows, [part_within(growth, low, high)])


@dataclass(frozen=True)
class GapShare(Hypothesis, test="gap_share", figure="waterfall"):
    """Of the gap between two rates, a part is at least some share at each N.

    The parts are those of `memory_rl.analysis.bottleneck.gap`, in logarithms.
    """

    of: Selection
    to: Selection
    N: Sizes
    part: Annotated[str, Holds(_one_of(PARTS), "channel, exploration or absorption")]
    at_least: Annotated[float, Holds(within(-FACTORS[1], FACTORS[1]), "a share, such as 0.5")]

    @override
    def judge(self, evidence: Evidence) -> Finding:
        sides = [{**side, "N": size} for side in (self.of, self.to) for size in self.N]
        taken = evidence.take(sides)
        splits = [gap(*pair) for pair in zip(taken[: len(self.N)], taken[len(self.N) :], strict=True)]
        rows = [
            {"N": size, "gap": str(split.value().exp()), **{part: str(split.share(part)) for part in PARTS}}
            for size, split in zip(self.N, splits, strict=True)
        ]
        names = names_of(self.of, self.to)
        reason = (
            f"At N = {join(self.N)}, {names[0]} is {join(row['gap'] for row in rows)} times as fast as "
            f"{names[1]}; of the logarithm of that, {self.part} is {join(row[self.part] for row in rows)}; "
            f"the claim is at least {self.at_least:g}."
        )
        named = dict(zip(map(name_of, sides), taken, strict=True))
        return Finding(reason + on_runs(named), rows, _parts(splits, self.part, self.at_least))


@dataclass(frozen=True)
class LossClosed(Hypothesis, test="loss_closed", figure="waterfall"):
    """Another learner closes at least some share of a condition's absorption loss, at each N.

    The share is of the loss's logarithm; see `memory_rl.analysis.bottleneck.closed`.
    """

    of: Selection
    by: Selection
    N: Sizes
    at_least: Annotated[float, Holds(within(-FACTORS[1], FACTORS[1]), "a share, such as 0.5")]

    @override
    def judge(self, evidence: Evidence) -> Finding:
        sides = [{**side, "N": size} for side in (self.of, self.by) for size in self.N]
        taken = evidence.take(sides)
        splits = [closed(*pair) for pair in zip(taken[: len(self.N)], taken[len(self.N) :], strict=True)]
        rows: list[Json] = [
            {"N": size, "absorption": str(split.value().exp()), "closed": str(split.share("closed"))}
            for size, split in zip(self.N, splits, strict=True)
        ]
        reason = (
            f"At N = {join(self.N)}, {name_of(self.of)} loses a factor of "
            f"{join(row['absorption'] for row in rows)} in absorption, of whose logarithm {name_of(self.by)} "
            f"closes {join(row['closed'] for row in rows)}; the claim is at least {self.at_least:g}."
        )
        named = dict(zip(map(name_of, sides), taken, strict=True))
        return Finding(reason + on_runs(named), rows, _parts(splits, "closed", self.at_least))


def _parts(splits: Sequence[Split], part: str, share: float) -> list[Part]:
    """For each of them that there is a whole to share, and that the part is more than that share of it."""
    beyond = [(split.beyond(part, share), split.value()) for split in splits]
    return [
        Part(max(more.chance_above(0.0), whole.chance_above(0.0)), more.chance_below(0.0))
        for more, whole in beyond
    ]


def _inverse(rate: Normal) -> str:
    """Episodes a run, from the logarithm of runs an episode."""
    return str(replace(rate, value=-rate.value).exp())
