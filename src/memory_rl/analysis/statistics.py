"""Point estimates and 95 % intervals over runs, with scipy. A run, never an episode, is what is resampled.

All runs of a population have the same budget, so that a run which never memorised is right-censored at the end of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.stats

_RESAMPLES = 9999
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
    low, high = _bootstrap((episodes,), lambda sample, axis: np.quantile(sample, 0.5, axis=axis, method="inverted_cdf"))
    return Estimate(float(reached[0]) if len(reached) else None, *(None if end == beyond else _finite(end) for end in (low, high)))


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

    def rate(memorised: np.ndarray, episodes: np.ndarray, axis: int) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.asarray(information * memorised.sum(axis=axis) / episodes.sum(axis=axis))

    low, high = _bootstrap((times.memorised.astype(float), times.episodes.astype(float)), rate)
    return Estimate(information * float(times.memorised.sum()) / spent, _finite(low), _finite(high))


def bootstrap_mean(values: np.ndarray) -> Estimate:
    """Mean over runs with its percentile bootstrap interval: values (R,)."""
    low, high = _bootstrap((values,), lambda sample, axis: sample.mean(axis=axis))
    return Estimate(float(values.mean()), _finite(low), _finite(high))


def mean_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over runs with its percentile bootstrap interval: (R, T) to mean, low and high, each (T,). With one run the interval is empty (NaN)."""
    low, high = _bootstrap((values,), lambda sample, axis: sample.mean(axis=axis), resamples=999)
    return values.mean(axis=0), low, high


def _bootstrap(samples: tuple[np.ndarray, ...], statistic: Callable[..., np.ndarray], resamples: int = _RESAMPLES) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval over axis 0; the resamples are the same for the same number of runs, so that a summary can be made again to the byte."""
    if len(samples[0]) == 1:
        unknown = np.full(samples[0].shape[1:], np.nan)
        return unknown, unknown
    drawn = scipy.stats.bootstrap(
        samples, statistic, paired=len(samples) > 1, n_resamples=resamples, method="percentile", rng=np.random.default_rng(0)
    ).bootstrap_distribution
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=-1, method="inverted_cdf")  # no interpolation with a censored run
    return low, high


def _finite(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None
