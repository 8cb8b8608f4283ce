"""Scores of runs in strata: interquartile mean, profile and probability of improvement, and their resamples.

The definitions are those of rliable (Agarwal et al. 2021, arXiv:2108.13264), which is not used itself, since
it needs arch, statsmodels, pandas, seaborn and matplotlib. Where tasks have as many runs each, as rliable
wants, values are the same; where they have not, each task weighs the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from memory_rl.analysis.statistics import Estimate, percentiles, resampled_counts

RESAMPLES = 2000
TRIMMED = 0.25


@dataclass(frozen=True)
class TaskScores:
    """The scores of one learner on one task (n,), and the runs of each stratum."""

    values: np.ndarray
    strata: list[np.ndarray]

    @classmethod
    def of(cls, frame: pl.DataFrame) -> TaskScores:
        """Those of these runs: their `score`, `base` and `seed`."""
        strata = frame.with_row_index("row").group_by("base", "seed", maintain_order=True).agg("row")
        rows = [np.asarray(stratum) for stratum in strata.sort("base", "seed")["row"]]
        if min(map(len, rows)) == 1:  # a stratum of one run could not vary
            rows = [np.arange(len(frame))]
        return cls(frame["score"].to_numpy(), rows)

    def counts(self, shift: int) -> np.ndarray:
        """How often each run is in each resample: (RESAMPLES, n), as floats, for matrix products."""
        counts = np.empty((RESAMPLES, len(self.values)), np.float32)
        for place, rows in enumerate(self.strata):
            counts[:, rows] = np.roll(resampled_counts(len(rows), RESAMPLES), shift + place, axis=0)
        return counts

    def variance(self, influence: np.ndarray) -> tuple[float, float]:
        """The variance of the mean of these values of the runs, and that squared over its freedom."""
        parts = [(len(rows) / len(influence)) ** 2 * _variance(influence[rows]) for rows in self.strata]
        freedom = (len(rows) - 1 for rows in self.strata)
        return sum(parts), sum(part**2 / max(free, 1) for part, free in zip(parts, freedom, strict=True))


def _variance(values: np.ndarray) -> float:
    """Of their mean; infinite where one run tells nothing of it."""
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else np.inf


class Entrant:
    """One learner's scores on the tasks that count.

    Learners share the resamples of equally many runs, but shifted, so that they are independent.
    """

    def __init__(self, name: str, place: int, runs: pl.DataFrame, tasks: Sequence[str]) -> None:
        own = runs.filter(pl.col("learner_name") == name)
        frames = [own.filter(pl.col("task_name") == task) for task in tasks]
        self.name, self.scores = name, [TaskScores.of(frame) for frame in frames]
        self.stuck = 1 - float(np.mean([frame["memorised"].to_numpy().mean() for frame in frames]))
        self._shift = place * sum(len(scores.strata) for scores in self.scores)

    @cached_property
    def least(self) -> int:
        """The runs of its smallest stratum."""
        return min(len(rows) for scores in self.scores for rows in scores.strata)

    def counts(self, task: int) -> np.ndarray:
        """How often each of its runs on a task, by its place, is in each resample: (RESAMPLES, n)."""
        return self.scores[task].counts(self._shift + sum(len(one.strata) for one in self.scores[:task]))

    def over_tasks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All scores ascending (n,), their weights (1, n), and those in each resample (RESAMPLES, n)."""
        values = np.concatenate([one.values for one in self.scores])
        sizes = [len(one.values) for one in self.scores]
        order, even = np.argsort(values, kind="stable"), 1 / np.repeat(sizes, sizes) / len(sizes)
        counts = np.concatenate([self.counts(task) for task in range(len(sizes))], axis=1)
        return values[order], even[None, order], (counts * even)[:, order]

    @cached_property
    def iqm(self) -> Estimate:
        """The interquartile mean of all its scores, with its interval."""
        values, even, drawn = self.over_tasks()
        return Estimate.from_bootstrap(
            interquartile_mean(values, even)[0], interquartile_mean(values, drawn), self.least
        )

    def profile(self, taus: np.ndarray) -> tuple[list[float], list[float], list[float]]:
        """The share of its runs that score more than each of these, with the ends of its interval."""
        values, even, drawn = self.over_tasks()
        above = (values[:, None] > taus).astype(float)
        low, high = percentiles(drawn @ above, self.least)
        return (even @ above)[0].tolist(), low.tolist(), high.tolist()


def interquartile_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean of what is left of ascending values (n,) once a quarter is cut at both ends: (T, n) to (T,).

    As `scipy.stats.trim_mean` does, no part of a run is cut where all weigh the same.
    """
    cut = int(TRIMMED * len(values)) / len(values)
    reached = np.clip(np.cumsum(weights, axis=1, dtype=float), cut, 1 - cut)
    return np.diff(reached, axis=1, prepend=cut) @ values / (1 - 2 * cut)


def wins(one: TaskScores, other: TaskScores) -> np.ndarray:
    """1 where a run of the first scores more than one of the other, a half where they tie: (n, m)."""
    x, y = one.values[:, None], other.values[None]
    return (x > y) + 0.5 * (x == y)


def _matched(one: TaskScores, other: TaskScores) -> list[tuple[np.ndarray, np.ndarray]]:
    """The strata that both have, in pairs; all runs as one where their numbers differ."""
    if len(one.strata) == len(other.strata):
        return list(zip(one.strata, other.strata, strict=True))
    return [(np.arange(len(one.values)), np.arange(len(other.values)))]


def compare(one: Entrant, other: Entrant) -> tuple[float, float]:
    """The probability of improvement, and the two-sided p value that it is a half.

    The test is Brunner and Munzel's (2000, The nonparametric Behrens-Fisher problem), which assumes no equal
    spread, with the variances of the strata added up. Where nothing varies within strata, it is that of
    Fisher's permutations within them: only strata that differ count, and they must agree on who is better.
    """
    from scipy.special import binom, stdtr

    tasks = len(one.scores)
    values, variance, squared, differing = [], 0.0, 0.0, list[tuple[float, float]]()
    for x, y in zip(one.scores, other.scores, strict=True):
        won = wins(x, y)
        values.append(float(won.mean()))
        for scores, influence in ((x, won.mean(axis=1)), (y, won.mean(axis=0))):
            part, over_freedom = scores.variance(influence)
            variance, squared = variance + part / tasks**2, squared + over_freedom / tasks**4
        for a, b in _matched(x, y):
            share = float(won[np.ix_(a, b)].mean())
            if share != 0.5:
                differing.append((share, 1 / float(binom(len(a) + len(b), len(a)))))
    value = float(np.mean(values))
    if value == 0.5 or not np.isfinite(variance):
        return value, 1.0
    if variance == 0:
        agree = len({share > 0.5 for share, _ in differing}) == 1
        return value, min(1.0, 2 * float(np.prod([chance for _, chance in differing]))) if agree else 1.0
    return value, float(2 * stdtr(variance**2 / squared, -abs(value - 0.5) / np.sqrt(variance)))
