"""Conditions compared by their bits per episode: ratios with intervals, log-rank tests, and a rank for each.

The statistics are those of the verdicts: rates and ratios on the logarithmic scale, p values adjusted by
Holm's method. Over the same bases they are compared base by base, over one base and seed run by run, else as
independent samples. The log-rank test takes all runs to be independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from memory_rl.analysis.samples import Sample, comparable_log_rates
from memory_rl.analysis.statistics import Estimate, holm
from memory_rl.analysis.survival import contrast, log_rank

ALPHA = 0.05
Reference = Literal["best", "first"]
_SAME_TASK = ("N", "num_secrets", "memorised_at", "memorised_share")


@dataclass(frozen=True)
class Compared:
    """One condition of a comparison.

    Attributes:
        name: unlike that of any other.
        sample: its runs.
        ratio: its bits per episode over the reference's, with a 95 % interval; None for the reference itself.
        log_rank_p: of the log-rank test against the reference; None for the reference itself, where one of
            them has a single run, and where they have not the same to learn.
        holm_p: the same, adjusted for all tests of the comparison.
    """

    name: str
    sample: Sample
    ratio: Estimate | None = None
    log_rank_p: float | None = None
    holm_p: float | None = None

    @property
    def apart(self) -> bool | None:
        """Whether it is told apart from the reference: by the log-rank test, or else by the ratio.

        None for the reference itself, and where nothing can tell.
        """
        if self.holm_p is not None:
            return self.holm_p < ALPHA
        return self.beyond_one

    @property
    def beyond_one(self) -> bool | None:
        """Whether the interval of its ratio leaves out 1; None without an interval."""
        if self.ratio is None or self.ratio.low is self.ratio.high is None:
            return None
        return (self.ratio.low or 0.0) > 1 or (self.ratio.high is not None and self.ratio.high < 1)

    def as_row(self) -> dict[str, Any]:
        """Its columns of the frame, but its rank."""
        ratio, others = self.ratio or Estimate(None), self.sample.rate_of_memorised
        return {
            "name": self.name,
            "condition": self.sample.first.condition,
            "N": self.sample.first.N,
            "runs": self.sample.runs,
            "memorised": self.sample.memorised,
            **dict(zip(_RATE, (self.sample.rate.value, *self.sample.rate.interval), strict=True)),
            **dict(zip(_RATIO, (ratio.value, *ratio.interval), strict=True)),
            **dict(zip(_STUCK, (self.sample.stuck.value, *self.sample.stuck.interval), strict=True)),
            "budget": self.sample.budget,
            **dict(zip(_OTHERS, (others.value, *others.interval), strict=True)),
            "log_rank_p": self.log_rank_p,
            "holm_p": self.holm_p,
            "apart": self.apart,
            "paths": [str(cell.path) for cell in self.sample.cells],
        }


_RATE = ("bits_per_episode", "bits_per_episode_low", "bits_per_episode_high")
_RATIO = ("ratio", "ratio_low", "ratio_high")
_STUCK = ("stuck", "stuck_low", "stuck_high")
_OTHERS = tuple(f"bits_per_episode_of_memorised{end}" for end in ("", "_low", "_high"))
_SCHEMA: dict[str, Any] = {
    "rank": pl.Int64,
    "name": pl.String,
    "condition": pl.String,
    **dict.fromkeys(("N", "runs", "memorised"), pl.Int64),
    **dict.fromkeys((*_RATE, *_RATIO, *_STUCK), pl.Float64),
    "budget": pl.Int64,
    **dict.fromkeys((*_OTHERS, "log_rank_p", "holm_p"), pl.Float64),
    "apart": pl.Boolean,
    "paths": pl.List(pl.String),
}


def frame_of(ranked: Sequence[Compared]) -> pl.DataFrame:
    """One row per condition, in this order."""
    rows = [{"rank": place, **one.as_row()} for place, one in enumerate(ranked, start=1)]
    return pl.DataFrame(rows, schema=_SCHEMA)


def rank_rates(samples: Mapping[str, Sample], to: Reference = "best") -> tuple[list[Compared], Compared]:
    """Ranks conditions by their bits per episode, and compares each with one of them.

    Args:
        samples: by name, two or more.
        to: what they are compared with: the fastest, or the first of them.

    Returns:
        All of them, the fastest first, and the one that the others are compared with.
    """
    names = sorted(samples, key=lambda name: _speed(samples[name]), reverse=True)
    best = names[0] if to == "best" else next(iter(samples))
    reference, tested = samples[best], dict[str, float]()
    for name in names:
        if name != best and can_be_tested(samples[name], reference):
            tested[name] = log_rank(samples[name].times, reference.times)
    adjusted = dict(zip(tested, holm([*tested.values()]), strict=True))
    ranked = [
        Compared(
            name,
            samples[name],
            None if name == best else ratio_of_rates(samples[name], reference),
            tested.get(name),
            adjusted.get(name),
        )
        for name in names
    ]
    return ranked, next(one for one in ranked if one.name == best)


def _speed(sample: Sample) -> tuple[bool, float, float]:
    """What they are ranked by: an unknown rate, as of runs that knew S before they began, comes last."""
    rate = sample.rate
    return rate.value is not None, rate.value or 0.0, rate.high or 0.0


def same_task(one: Sample, other: Sample) -> bool:
    """Whether the runs of both have the same to learn, and are timed by the same event."""
    return all(one.first.settings.get(key) == other.first.settings.get(key) for key in _SAME_TASK)


def can_be_tested(one: Sample, other: Sample) -> bool:
    """Whether a log-rank test of two conditions has a meaning."""
    return min(one.runs, other.runs) > 1 and same_task(one, other)


def ratio_of_rates(one: Sample, other: Sample) -> Estimate:
    """The bits per episode of one condition over those of another, with a 95 % interval.

    The interval is unbounded below where no run of the first memorised, and above where none of the other
    did; there is none where one of them has a single run, and no ratio where one's rate is unknown.
    """
    rate, base = one.rate.value, other.rate.value
    if rate is None or base is None or not (rate or base):
        return Estimate(None)
    if min(one.runs, other.runs) < 2:
        return Estimate(rate / base if base else None)
    alike = same_task(one, other) and one.first.condition == other.first.condition
    samples = [one, other]
    rates = comparable_log_rates(samples) if alike else [sample.log_rate for sample in samples]
    ratio = contrast(rates, [1, -1]).exp()
    if not rate:
        return Estimate(0.0, 0.0, ratio.high)
    return ratio if base else Estimate(None, ratio.low, None)
