"""Scores of runs in strata: interquartile mean, profile and probability of improvement, and their resamples.

The definitions are those of rliable (Agarwal et al. 2021, arXiv:2108.13264), which is not used itself, since
it needs arch, statsmodels, pandas, seaborn and matplotlib. Where tasks have as many runs each, as rliable
wants, values are the same; where they have not, each task weighs the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from memory_rl.analysis.statistics import Estimate, percentiles, resampled_counts

RESAMPLES = 2000
TRIMMED = 0.25
_ROUNDING = 1e-9


@dataclass(frozen=True)
class TaskScores:
    """The scores of one learner on one task (n,), and the runs of each stratum, by base and seed."""

    values: np.ndarray
    strata: dict[Any, np.ndarray]

    @classmethod
    def of(cls, frame: pl.DataFrame) -> TaskScores:
        """Those of these runs: their `score`, `base` and `seed`."""
        strata = frame.with_row_index("row").group_by("base", "seed").agg("row").sort("base", "seed")
        rows: dict[Any, np.ndarray] = {
            (base, seed): np.asarray(stratum) for base, seed, stratum in strata.iter_rows()
        }
        if min(map(len, rows.values())) == 1:  # a stratum of one run could not vary
            rows = {None: np.arange(len(frame))}
        return cls(frame["score"].to_numpy(), rows)

    def counts(self, shift: int) -> np.ndarray:
        """How often each run is in each resample: (RESAMPLES, n), as floats, for matrix products."""
        counts = np.empty((RESAMPLES, len(self.values)), np.float32)
        for place, rows in enumerate(self.strata.values()):
            counts[:, rows] = np.roll(resampled_counts(len(rows), RESAMPLES), shift + place, axis=0)
        return counts

    def variance(self, influence: np.ndarray) -> tuple[float, float]:
        """The variance of the mean of these values of the runs, and that squared over its freedom."""
        parts = [
            (len(rows) / len(influence)) ** 2 * _variance(influence[rows]) for rows in self.strata.values()
        ]
        freedom = (len(rows) - 1 for rows in self.strata.values())
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
        self._memorised = np.concatenate([frame["memorised"].to_numpy() for frame in frames])
        self._diverged = bool(own["diverged"].any())
        self._shift = place * sum(len(scores.strata) for scores in self.scores)

    @cached_property
    def least(self) -> int:
        """The runs of its smallest stratum; a cell that diverged is one observation, whatever its runs."""
        sizes = (len(rows) for scores in self.scores for rows in scores.strata.values())
        return 1 if self._diverged else min(sizes)

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

    @property
    def at_most(self) -> bool:
        """Whether a stuck run, which may be worth less than its score, stands above the lowest quarter.

        If it were worth less, it would give its place to a lower one there.
        """
        sizes = [len(one.values) for one in self.scores]
        order = np.lexsort((self._memorised, np.concatenate([one.values for one in self.scores])))
        reached = np.cumsum(
            (1 / np.repeat(sizes, sizes) / len(sizes))[order]
        )  # equal scores: stuck ones first
        above = reached > int(TRIMMED * len(order)) / len(order) + _ROUNDING
        return bool((above & ~self._memorised[order]).any())

    def profile(self, taus: np.ndarray) -> tuple[list[float], list[float], list[float]]:
        """The share of its runs that score more than each of these, with the ends of its interval, or NaN."""
        values, even, drawn = self.over_tasks()
        above = (values[:, None] > taus).astype(float)
        low, high = (
            percentiles(drawn @ above, self.least) if self.least > 1 else np.full((2, len(taus)), np.nan)
        )
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


@dataclass
class Comparison:
    """Two learners, compared task by task.

    Attributes:
        tasks: how many there are to be.
        shares: by task, that of the pairs of runs that the first wins, ties counting half.
        drawn: their mean over tasks in each resample: (RESAMPLES,).
    """

    tasks: int
    shares: list[float] = field(default_factory=list)
    drawn: np.ndarray = field(default_factory=lambda: np.zeros(RESAMPLES))
    _variance: float = 0.0
    _squared: float = 0.0  # over its freedom
    _differing: list[tuple[float, float]] = field(default_factory=list)

    def add(self, x: TaskScores, y: TaskScores, counts_x: np.ndarray, counts_y: np.ndarray) -> None:
        """One more task: the scores of both, and how often each of their runs is in each resample."""
        from scipy.special import binom

        won = wins(x, y)
        self.shares.append(float(won.mean()))
        sums = np.einsum(
            "bn,bn->b", counts_x @ won.astype(np.float32), counts_y
        )  # whole and half numbers, exact
        self.drawn += sums.astype(float) / won.size / self.tasks
        for scores, influence in ((x, won.mean(axis=1)), (y, won.mean(axis=0))):
            part, over_freedom = scores.variance(influence)
            self._variance += part / self.tasks**2
            self._squared += over_freedom / self.tasks**4
        for a, b in _matched(x, y):
            share = float(won[np.ix_(a, b)].mean())
            if share != 0.5:
                self._differing.append((share, 1 / float(binom(len(a) + len(b), len(a)))))

    @property
    def value(self) -> float:
        """The probability of improvement."""
        return float(np.mean(self.shares))

    @property
    def p(self) -> float:
        """The two-sided p value that it is a half.

        The test is Brunner and Munzel's (2000, The nonparametric Behrens-Fisher problem), which assumes no
        equal spread, with the variances of the strata added up. Where nothing varies within strata, it is
        that of Fisher's permutations within them: only strata that differ count, and they must agree on who
        is better.
        """
        from scipy.special import stdtr

        if self.value == 0.5:
            return 1.0
        if self._variance == 0:
            agree = len({share > 0.5 for share, _ in self._differing}) == 1
            return min(1.0, 2 * float(np.prod([chance for _, chance in self._differing]))) if agree else 1.0
        t = abs(self.value - 0.5) / np.sqrt(self._variance)
        return float(2 * stdtr(self._variance**2 / self._squared, -t))


def _matched(one: TaskScores, other: TaskScores) -> list[tuple[np.ndarray, np.ndarray]]:
    """The strata of both by base and seed, in pairs; all runs as one where either has others."""
    if one.strata.keys() == other.strata.keys():
        return [(rows, other.strata[key]) for key, rows in one.strata.items()]
    return [(np.arange(len(one.values)), np.arange(len(other.values)))]
