"""How many runs tell two rates apart: the power of the test of their ratio, from the spread of a pilot.

The test is that of verdicts and comparisons: Student's on the logarithms of two rates. Planned is the case
that both conditions have as many runs and the same spread, so that Welch's degrees of freedom are 2 (n - 1).
Then the statistic has the noncentral t distribution with noncentrality log(ratio) / (spread sqrt(2 / n)),
and both its tails beyond Student's quantiles are the power (Cohen 1988, Statistical Power Analysis for the
Behavioral Sciences, chapter 2). Its square has the noncentral F distribution, which needs one call.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from memory_rl.analysis.statistics import TAIL
from memory_rl.analysis.survival import MemorisationTimes, log_rate, pool

FEWEST = 2
"""Runs of a condition, below which there is no spread."""
_FEWEST_FOR_INTERVAL = 4
_LARGEST_EXPONENT = 700.0  # floating-point numbers end at exp(709)


@dataclass(frozen=True)
class Demand:
    """What an experiment must be able to see.

    Attributes:
        ratio: of the faster rate to the slower one, above 1.
        power: the chance that it is seen.
        alpha: the chance that two equal rates are told apart, in either direction.
    """

    ratio: float
    power: float
    alpha: float


@dataclass(frozen=True)
class Spread:
    """The standard deviation of one run's part in the logarithm of a condition's rate.

    The standard error of the logarithm of a rate over n runs is this divided by sqrt(n). Where no run is
    stuck it is the standard deviation of the episodes to memorise, divided by their mean.

    Attributes:
        value: at least 0.
        low: the lower end of its 95 % interval; None for fewer than four runs.
        high: the upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None


def spread_of(times: MemorisationTimes) -> Spread:
    """The spread of a pilot's runs, censored ones included.

    The interval is that of Bonett (2006, Approximate confidence interval for standard deviation of nonnormal
    distributions): the usual one, from chi squared, holds for normal values alone.

    Raises:
        ValueError: if there is one run only, none memorised, or no episode was spent.
    """
    from scipy.special import ndtri

    runs, value = len(times.episodes), log_rate(times).error * math.sqrt(len(times.episodes))
    if runs < _FEWEST_FOR_INTERVAL or not value:
        return Spread(value)
    parts = (
        times.memorised / times.memorised.mean() - times.episodes / times.episodes.mean()
    )  # their mean is 0
    kurtosis = runs * np.sum((parts - _trimmed_mean(parts)) ** 4) / np.sum(parts**2) ** 2
    z = float(ndtri(1 - TAIL))
    shrunk = runs / (runs - z)
    reach = z * shrunk * math.sqrt(max(float(kurtosis) - (runs - 3) / runs, 0.0) / (runs - 1))
    low, high = (value * math.sqrt(shrunk * math.exp(side)) for side in (-reach, reach))
    return Spread(value, low, high)


def _trimmed_mean(values: np.ndarray) -> float:
    """Without the share 1 / (2 sqrt(n - 4)) of them at each end, as Bonett has it."""
    runs = len(values)
    out = int(runs / (2 * math.sqrt(runs - 4))) if runs > _FEWEST_FOR_INTERVAL else 0
    return float(np.sort(values)[out : runs - out].mean())


def with_one_more_stuck(times: MemorisationTimes, budget: float) -> MemorisationTimes:
    """The same runs and one that did not memorise within the budget, as verdicts add it."""
    return pool([times, MemorisationTimes(np.array([budget]), np.zeros(1, bool))])


def power_of(runs: int, spread: float, ratio: float, alpha: float) -> float:
    """The chance that two conditions of this ratio are told apart.

    Args:
        runs: of each condition, two or more.
        spread: of both.
        ratio: of their rates.
        alpha: of the two-sided test.
    """
    return _beyond(runs, abs(math.log(ratio)) / (spread * math.sqrt(2 / runs)), alpha) if spread else 1.0


def _beyond(runs: int, shift: float, alpha: float) -> float:
    """The probability that Student's statistic, shifted by so much, lies beyond its quantiles."""
    from scipy.special import ncfdtr

    quantile = _quantile(runs, alpha)
    missed = float(ncfdtr(1, 2 * (runs - 1), min(shift, _seen_by_any(quantile)) ** 2, quantile**2))
    return 1.0 if math.isnan(missed) else 1 - missed  # SciPy's is not a number where it falls below 1e-300


def _quantile(runs: int, alpha: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(2 * (runs - 1), 1 - alpha / 2))


def _seen_by_any(quantile: float) -> float:
    """A shift so large that the statistic lies beyond this quantile in all but 1e-16 of all cases."""
    return 10 * (quantile + 10)


def runs_needed(spread: float, demand: Demand) -> int:
    """The fewest runs a side, two or more, that meet a demand."""
    return _fewest(lambda runs: power_of(runs, spread, demand.ratio, demand.alpha) >= demand.power)


def runs_for_interval(spread: float, width: float) -> int:
    """The fewest runs, two or more, that give a rate a 95 % interval within rate / width to rate x width.

    Args:
        spread: of one run.
        width: above 1.
    """
    return _fewest(lambda runs: interval_factor(runs, spread) <= width)


def _fewest(enough: Callable[[int], bool]) -> int:
    """The fewest runs that are enough, where more of them are enough, too."""
    most = FEWEST
    while not enough(most):
        most *= 2
    return bisect_left(range(most + 1), True, lo=FEWEST, key=enough)


def ratio_seen(runs: int, spread: float, demand: Demand) -> float:
    """The smallest ratio that so many runs a side see with the power that is demanded."""
    from scipy.optimize import brentq

    most = _seen_by_any(_quantile(runs, demand.alpha))
    shift = brentq(lambda at: _beyond(runs, at, demand.alpha) - demand.power, 0.0, most)
    return _exp(shift * spread * math.sqrt(2 / runs))


def interval_factor(runs: int, spread: float) -> float:
    """What a rate over so many runs is divided by and multiplied with to give its 95 % interval."""
    from scipy.special import stdtrit

    return _exp(float(stdtrit(runs - 1, 1 - TAIL)) * spread / math.sqrt(runs))


def _exp(exponent: float) -> float:
    return math.exp(min(exponent, _LARGEST_EXPONENT))


def rarest_seen(runs: int, chance: float = 0.95) -> float:
    """The frequency of a mishap that so many runs show at least once with this chance; nearly 3 / runs.

    It is 1 - (1 - chance)^(1 / runs), the exact upper bound of a proportion of which no case was seen (Hanley
    and Lippman-Hand 1983, If nothing goes wrong, is everything all right?).
    """
    return 1 - (1 - chance) ** (1 / runs)
