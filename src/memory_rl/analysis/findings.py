"""What a test finds: p values for and against the parts of a claim, and the sentences that say so."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from memory_rl.analysis.samples import CannotJudgeError, Sample
from memory_rl.analysis.statistics import Estimate, proportion
from memory_rl.analysis.survival import Normal, contrast
from memory_rl.files import Json

ENOUGH_RUNS = 64
"""Of a side; with 5 % of runs stuck, intervals from 16 runs of a base cover 59 %, from 64 runs 92 %."""

STUCK_ALIKE = 0.1
"""Shares of stuck runs that differ by less are alike."""


@dataclass(frozen=True)
class Part:
    """One part of a claim: the p value of the result if the part were false, and if it were true."""

    if_false: float
    if_true: float


@dataclass(frozen=True)
class Finding:
    """What a test found.

    Attributes:
        reason: the numbers that say so, in a sentence or two; without parts, why it could not judge.
        numbers: a table of them, one dictionary per row.
        parts: of the claim.
    """

    reason: str
    numbers: list[Json] = field(default_factory=list)
    parts: Sequence[Part] = ()

    @property
    def if_false(self) -> float:
        """The p value if the claim were false, and so one of its parts."""
        return max(part.if_false for part in self.parts)

    @property
    def if_true(self) -> float:
        """The p value if the claim were true, and so all its parts."""
        return min(1.0, len(self.parts) * min(part.if_true for part in self.parts))

    @property
    def p_value(self) -> float | None:
        """Of the direction that the result points in, doubled, since either would have been reported."""
        return min(1.0, 2 * min(self.if_false, self.if_true)) if self.parts else None


def rates_of(samples: Sequence[Sample]) -> list[Normal]:
    """The logarithms of the bits per episode of the runs that memorised, of each sample.

    Raises:
        CannotJudgeError: about the first sample of which too few did.
    """
    found = [sample.of_memorised for sample in samples]
    for sample, rate in zip(samples, found, strict=True):
        if rate is None:
            raise CannotJudgeError(
                f"Not judged, since {sample.memorised} of {sample.runs} runs of {sample.first.condition} "
                f"memorised at N = {sample.first.N}, and a rate needs two."
            )
    return [rate for rate in found if rate is not None]


def compare(samples: Sequence[Sample], expected: float, margin: float) -> tuple[Json, Part]:
    """The ratio of the rates of two samples as a row, and whether it is near the expected one."""
    ratio = contrast(rates_of(samples), [1, -1])
    low, high = math.log(expected / margin), math.log(expected * margin)
    return ratio.exp().as_row("ratio"), part_within(ratio, low, high)


def part_within(estimate: Normal, low: float, high: float) -> Part:
    """Whether a number lies in a range.

    For it are two one-sided tests against the ends of the range, against it the test that it lies outside.
    """
    return Part(
        max(estimate.chance_above(low), estimate.chance_below(high)),
        min(estimate.chance_above(high), estimate.chance_below(low)),
    )


def stuck_alike(one: Sample, other: Sample) -> Part:
    """Whether the shares of runs that are stuck differ by a tenth at most.

    With one run stuck and one not added to each sample (Agresti and Caffo 2000, Simple and effective
    confidence intervals for proportions and differences of proportions). Over several bases a sample counts
    as so many runs as would tell as much if they were independent, see `nested_share`.
    """
    counts = [(1 - sample.memorised / sample.runs, sample.telling_runs) for sample in (one, other)]
    (p, n), (q, m) = (((share * runs + 1) / (runs + 2), runs + 2) for share, runs in counts)
    error = math.sqrt(p * (1 - p) / n + q * (1 - q) / m)
    return part_within(Normal(p - q, error, min(n, m) - 1.0), -STUCK_ALIKE, STUCK_ALIKE)


def on_runs(samples: Mapping[str, Sample]) -> str:
    """What the intervals are about, and which runs are stuck, in sentences that follow others."""
    reaches = dict.fromkeys(sample.reach for sample in samples.values())
    said, runs = f" Intervals are {' or '.join(reaches)}.", min(sample.runs for sample in samples.values())
    if runs < ENOUGH_RUNS:
        said += f" {runs} runs a side are few: where some get stuck, such intervals are too narrow."
    stuck = {name: sample for name, sample in samples.items() if sample.budget}
    if not stuck:
        most = proportion(0, runs).high or 0.0
        return (
            f"{said} No run is stuck; what happens to fewer than {100 * most:.2g} % need not have been seen."
        )
    shares = (f"{_percent(one.stuck)} of {name} by {one.budget} episodes" for name, one in stuck.items())
    return f"{said} Rates are of the runs that memorised; stuck are {join(shares)}."


def _percent(share: Estimate) -> str:
    parts = (round(100 * (part or 0.0), 2) for part in (share.value, *share.interval))
    value, *ends = (f"{float(f'{part:.2g}'):g}" for part in parts)
    return f"{value} % [{', '.join(ends)}]"


def ratio_of(row: Json) -> Estimate:
    """The ratio in a row of `compare`."""
    return Estimate(row["ratio"], row["low"], row["high"])


def join(values: Iterable[Any]) -> str:
    """Joins words as in "1, 2 and 3"."""
    *first, last = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return f"{', '.join(first)} and {last}" if first else last
