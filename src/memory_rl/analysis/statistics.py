"""Means over runs with 95 % intervals, and Holm's correction. A run, never an episode, is what is resampled.
Times have a module of their own, `survival`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.stats

RESAMPLES, CURVE_RESAMPLES = 9999, 999
CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
_CELLS_A_CHUNK = 2**22


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; None stands for a value beyond the budget, or for an interval that the
    runs are too few for.
    """

    value: float | None
    low: float | None
    high: float | None


def bootstrap_mean(values: np.ndarray) -> Estimate:
    """Mean over runs with its bootstrap interval: values (R,)."""
    low, high = percentiles(resampled_means(values, RESAMPLES), len(values))
    return Estimate(float(values.mean()), finite(low), finite(high))


def mean_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over runs with its bootstrap interval: (R, T) to mean, low and high, each (T,). With one run the
    interval is empty (NaN).
    """
    low, high = percentiles(resampled_means(values, CURVE_RESAMPLES), len(values))
    return values.mean(axis=0), low, high


def resampled_means(values: np.ndarray, resamples: int) -> np.ndarray:
    """Means of bootstrap resamples over axis 0, which is a thousand times faster as a matrix product than by
    indexing: (R, ...) to (resamples, ...).

    The resamples are the same for the same number of runs, so that a summary can be made again to the byte.
    With one run they are NaN.
    """
    runs = len(values)
    if runs == 1:
        return np.full((resamples, *values.shape[1:]), np.nan)
    counts, step = _resampled_counts(runs, resamples), max(1, _CELLS_A_CHUNK // runs)
    return np.concatenate(
        [
            counts[start : start + step].astype(np.float64) @ values / runs
            for start in range(0, resamples, step)
        ]
    )


@lru_cache(maxsize=2)  # one summary and its curves ask for the same again and again
def _resampled_counts(runs: int, resamples: int) -> np.ndarray:
    """How often each run is in each resample: (resamples, runs)."""
    random, even = np.random.default_rng(0), np.full(runs, 1 / runs)
    return random.multinomial(runs, even, size=resamples).astype(np.uint16)


def percentiles(drawn: np.ndarray, runs: int) -> tuple[np.ndarray, np.ndarray]:
    """The expanded percentile interval of bootstrapped values, over axis 0.

    Plain percentiles are too narrow for few runs, by the factor sqrt((R - 1) / R) of the resamples' spread
    and by that of the normal to Student's distribution. So the tails are taken at Phi(-sqrt(R / (R - 1)) t),
    where t is Student's 97.5 % quantile (Hesterberg 2015, What teachers should know about the bootstrap).
    """
    tail = expanded_tail(runs)
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0, method="inverted_cdf")
    return low, high


def expanded_tail(runs: int) -> float:
    """The probability in each tail of the expanded percentile interval."""
    if runs == 1:
        return TAIL
    return float(scipy.stats.norm.sf(np.sqrt(runs / (runs - 1)) * scipy.stats.t.ppf(1 - TAIL, runs - 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values: rejecting those below alpha is wrong anywhere with probability alpha at most,
    whatever the dependence.

    The smallest is multiplied by the number of hypotheses, the next by one less, and so on; none may be
    smaller than one before it (Holm 1979, A simple sequentially rejective multiple test procedure).
    """
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values, kind="stable")
    stepped = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1.0)
    adjusted = np.empty_like(stepped)
    adjusted[order] = stepped
    return [float(value) for value in adjusted]


def finite(value: np.ndarray | float) -> float | None:
    """The number, or None where it is infinite or NaN."""
    return float(value) if np.isfinite(value) else None
