"""Point estimates and 95 % intervals over runs, with scipy. A run, never an episode, is what is resampled.

All runs of a population have the same budget, so that a run which never memorised is right-censored at the end of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.stats

_RESAMPLES, _CURVE_RESAMPLES = 9999, 999
_CELLS_A_CHUNK = 2**22
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class MemorisationTimes:
    """Episodes to memorise of R runs.

    Attributes:
        episodes: (R,) the first episode after which the run knew its secret, or the last one it had, if it never did.
        memorised: (R,) bool; where False the run is censored.
    """

    episodes: np.ndarray
    memorised: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; None stands for a value beyond the budget."""

    value: float | None
    low: float | None
    high: float | None


def median_episodes(times: MemorisationTimes) -> Estimate:
    """The Kaplan-Meier median of the episodes to memorise, with a bootstrap interval over runs."""
    if not times.memorised.any():
        return Estimate(None, None, None)
    data = scipy.stats.CensoredData(uncensored=times.episodes[times.memorised], right=times.episodes[~times.memorised])
    survival = scipy.stats.ecdf(data).sf
    reached = survival.quantiles[survival.probabilities <= 0.5]
    # With one budget for all, the Kaplan-Meier median of a resample is the median in which a censored run counts as later than all others.
    beyond = 2 * times.episodes.max() + 1
    episodes = np.where(times.memorised, times.episodes, beyond).astype(float)
    low, high = _bootstrap_median(episodes)
    return Estimate(float(reached[0]) if len(reached) else None, *(None if end == beyond else _finite(end) for end in (low, high)))


def _bootstrap_median(episodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(episodes) == 1:
        return np.array(np.nan), np.array(np.nan)

    def median(sample: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(np.quantile(sample, 0.5, axis=axis, method="inverted_cdf"))

    random = np.random.default_rng(0)
    return _percentiles(scipy.stats.bootstrap((episodes,), median, n_resamples=_RESAMPLES, method="percentile", rng=random).bootstrap_distribution)


def restricted_mean_episodes(times: MemorisationTimes) -> float:
    """The mean of min(episodes to memorise, budget): the area under the Kaplan-Meier curve up to the budget."""
    return float(times.episodes.mean())


def bits_per_episode(times: MemorisationTimes, information: float) -> Estimate:
    """Bits memorised per episode spent: (runs that memorised) log2 N / (episodes that all runs spent until then or until the budget).

    Without censoring it is log2 N / mean(episodes to memorise). The interval is a percentile bootstrap over runs; if no run memorised, it reaches
    from 0 to the exact Poisson bound (no event in the episodes spent).

    Args:
        times: of all runs.
        information: log2 N.
    """
    spent = float(times.episodes.sum())
    if not times.memorised.any():
        return Estimate(0.0, 0.0, information * float(scipy.stats.chi2.ppf(1 - (1 - _CONFIDENCE) / 2, 2)) / 2 / spent)
    if spent == 0:  # every run knew its secret before it began
        return Estimate(None, None, None)

    means = _resampled_means(np.stack([times.memorised, times.episodes], axis=1).astype(float), _RESAMPLES)
    with np.errstate(divide="ignore"):
        low, high = _percentiles(information * means[:, 0] / means[:, 1])
    return Estimate(information * float(times.memorised.sum()) / spent, _finite(low), _finite(high))


def bootstrap_mean(values: np.ndarray) -> Estimate:
    """Mean over runs with its percentile bootstrap interval: values (R,)."""
    low, high = _percentiles(_resampled_means(values, _RESAMPLES))
    return Estimate(float(values.mean()), _finite(low), _finite(high))


def mean_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over runs with its percentile bootstrap interval: (R, T) to mean, low and high, each (T,). With one run the interval is empty (NaN)."""
    low, high = _percentiles(_resampled_means(values, _CURVE_RESAMPLES))
    return values.mean(axis=0), low, high


def _resampled_means(values: np.ndarray, resamples: int) -> np.ndarray:
    """Means of bootstrap resamples over axis 0, which is a thousand times faster as a matrix product than by indexing: (R, ...) to (resamples, ...).

    The resamples are the same for the same number of runs, so that a summary can be made again to the byte. With one run they are NaN.
    """
    runs = len(values)
    if runs == 1:
        return np.full((resamples, *values.shape[1:]), np.nan)
    counts, step = _resampled_counts(runs, resamples), max(1, _CELLS_A_CHUNK // runs)
    return np.concatenate([counts[start : start + step].astype(np.float64) @ values / runs for start in range(0, resamples, step)])


@lru_cache(maxsize=2)  # one summary and its curves ask for the same again and again
def _resampled_counts(runs: int, resamples: int) -> np.ndarray:
    """How often each run is in each resample: (resamples, runs)."""
    random, even = np.random.default_rng(0), np.full(runs, 1 / runs)
    return random.multinomial(runs, even, size=resamples).astype(np.uint16)


def _percentiles(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0, method="inverted_cdf")  # no interpolation with a censored run
    return low, high


def _finite(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None
