"""Episodes to memorise of one condition's runs: curve, median, restricted mean, rate, and comparisons.

Runs that never memorised are censored. Which interval is used where was settled by simulation on geometric
times, with and without censoring, at 16 and 64 runs (tests/theory/test_survival.py): a percentile bootstrap
of the mean covers 88 % at 16 runs, these cover 92 to 98 %. None of them can account for an event that no run
had: where one run in twenty gets stuck, 44 % of all experiments with 16 runs have no such run, and their
intervals are too narrow. So the share of runs that are stuck is told apart, with an interval of its own, and
beside it the rate of the others.

Runs are nested in base models. What is independent is a unit: a base where there are several, or else a run.
An interval over units of 8 bases with 16 runs each covers 93 to 96 % where log rates differ between bases by
0 to 0.15, with and without 5 % of runs stuck (tests/theory/test_nested.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from memory_rl.analysis.statistics import TAIL, Estimate

_ROUNDING = 1e-9


@dataclass(frozen=True)
class MemorisationTimes:
    """Episodes to memorise of R runs.

    Attributes:
        episodes: (R,) the first episode after which the run knew its secret, or the last one it had, if it
            never did.
        memorised: (R,) bool; where False the run is censored.
        units: (R,) the name of the independent unit to which each run belongs; None if each run is one.
    """

    episodes: np.ndarray
    memorised: np.ndarray
    units: np.ndarray | None = None

    def where(self, which: np.ndarray) -> MemorisationTimes:
        """Some of the runs: which is (R,) bool."""
        units = None if self.units is None else self.units[which]
        return MemorisationTimes(self.episodes[which], self.memorised[which], units)

    @property
    def of_memorised(self) -> MemorisationTimes:
        """The runs that memorised, alone."""
        return self.where(self.memorised)

    @property
    def tells_a_rate(self) -> bool:
        """Whether a rate has an interval: of two units or more, one run of which memorised."""
        units = len(self.episodes) if self.units is None else len(np.unique(self.units))
        return units > 1 and bool(self.memorised.any() and self.episodes.any())


def memorisation_times(
    metrics: pl.DataFrame, information: float, memorised_at: float, secrets: int = 1
) -> MemorisationTimes:
    """The first episode of each run after which P(S) >= memorised_at, or its last one.

    Args:
        metrics: see `memory_rl.runs.columns.METRICS_SCHEMA`.
        information: log2 N.
        memorised_at: a probability.
        secrets: of the secrets of a run, how many it must have memorised.
    """
    has = (
        pl.col("secrets_memorised") >= secrets
        if "secrets_memorised" in metrics.columns
        else pl.col("bits_known") >= information + np.log2(memorised_at)
    )
    by_run = (
        metrics.group_by("run")
        .agg(first=pl.col("episode").filter(has).min(), last=pl.col("episode").max())
        .sort("run")
    )
    return MemorisationTimes(
        episodes=by_run.select(pl.coalesce("first", "last")).to_series().to_numpy(),
        memorised=by_run["first"].is_not_null().to_numpy(),
    )


def pool(samples: Sequence[MemorisationTimes]) -> MemorisationTimes:
    """The runs of several experiments of one condition as one, each run a unit."""
    return MemorisationTimes(
        np.concatenate([sample.episodes for sample in samples]),
        np.concatenate([sample.memorised for sample in samples]),
    )


def by_unit(values: np.ndarray, units: np.ndarray | None) -> tuple[list[str], np.ndarray]:
    """Sums of values (R, ...) over the runs of each unit: (U, ...), and the names of the units, sorted.

    Where every run is a unit they are the values themselves, without names.
    """
    if units is None:
        return [], values
    names, place = np.unique(units, return_inverse=True)
    sums = np.zeros((len(names), *values.shape[1:]))
    np.add.at(sums, place, values)
    return [str(name) for name in names], sums


def survival_curve(times: MemorisationTimes) -> pl.DataFrame:
    """The Kaplan-Meier estimate of the fraction of runs that have not memorised, with pointwise 95 % bands.

    The bands are those of Greenwood's variance on the log-log scale (Kalbfleisch and Prentice 2002, section
    1.4); they are undefined where the estimate is 1 or 0, and are the exact binomial bounds there. The same
    as `scipy.stats.ecdf`, which takes a second to load.

    Returns:
        One row per step, from episode 0: episode, surviving, low, high. The values hold from that episode to
            the next.
    """
    from scipy.special import ndtri

    runs = len(times.episodes)
    episodes, step = np.unique(times.episodes, return_inverse=True)
    ended, memorised = (np.append(0, np.bincount(step, each)) for each in (None, times.memorised))
    at_risk = runs - np.cumsum(ended) + ended
    surviving = np.cumprod((at_risk - memorised) / at_risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        greenwood = np.cumsum(memorised / (at_risk * (at_risk - memorised)))
        reach = ndtri(1 - TAIL) * np.sqrt(1 / np.log(surviving) ** 2 * greenwood)
        low, high = (np.exp(-np.exp(np.log(-np.log(surviving)) + side)) for side in (reach, -reach))
    bound, edges = TAIL ** (1 / runs), [surviving == 1, surviving == 0]
    columns = {
        "episode": np.append(0.0, episodes),
        "surviving": surviving,
        "low": np.select(edges, [bound, 0.0], low),
        "high": np.select(edges, [1.0, 1 - bound], high),
    }
    return pl.DataFrame(columns)


def median_episodes(times: MemorisationTimes) -> Estimate:
    """The Kaplan-Meier median of the episodes to memorise.

    Its interval holds the times at which the curve's band holds 0.5 (Brookmeyer and Crowley 1982).
    """
    curve = survival_curve(times)
    names = ("surviving", "low", "high") if len(times.episodes) > 1 else ("surviving",)
    halved = (curve.filter(pl.col(name) <= 0.5 + _ROUNDING)["episode"].min() for name in names)
    return Estimate(*halved)  # type: ignore[arg-type]  # episodes are numbers


def restricted_mean(times: MemorisationTimes) -> Estimate:
    """The mean of min(episodes to memorise, horizon).

    The horizon is the first episode at which a run is censored, infinite if none is. The mean is the area
    under the Kaplan-Meier curve up to it. Its interval is Student's on the scale of log(mean / (horizon -
    mean)), which is that of log(mean) where no run was censored. If no run memorised before the horizon, it
    reaches down to where that would have had a probability of 2.5 %.
    """
    from scipy.special import stdtrit

    end = float(min(times.episodes[~times.memorised], default=np.inf))
    values, runs = np.minimum(times.episodes, end).astype(float), len(times.episodes)
    mean = float(values.mean())
    if runs == 1:
        return Estimate(mean)
    if mean in (0.0, end):
        return Estimate(mean, mean * TAIL ** (1 / runs), mean)
    left = 1 - mean / end
    reach = stdtrit(runs - 1, 1 - TAIL) * values.std(ddof=1) / np.sqrt(runs) / (mean * left)
    low, high = (mean * np.exp(side) / (left + (1 - left) * np.exp(side)) for side in (-reach, reach))
    return Estimate(mean, float(low), float(high))


def bits_per_episode(times: MemorisationTimes, information: float) -> Estimate:
    """Bits memorised per episode spent.

    They are (runs that memorised) log2 N / (episodes that all runs spent until then or until the budget), and
    without censoring log2 N / mean(episodes to memorise). The interval is that of `log_rate`; if no run
    memorised, it reaches from 0 to the exact Poisson bound (no event in the episodes spent).

    Args:
        times: of all runs.
        information: log2 N.
    """
    spent = float(times.episodes.sum())
    if spent == 0:  # every run knew its secret before the first episode
        return Estimate(None)
    if not times.memorised.any():
        return Estimate(0.0, 0.0, information * -np.log(TAIL) / spent)
    rate = information * float(times.memorised.sum()) / spent
    if not times.tells_a_rate:
        return Estimate(rate)
    return Estimate(rate, *(information * float(np.exp(end)) for end in log_rate(times).interval()))


@dataclass(frozen=True)
class Normal:
    """An estimate that is nearly normal, with its standard error and the degrees of freedom of that.

    Attributes:
        value: the estimate.
        error: its standard error.
        freedom: the degrees of freedom of the error.
        influence: by unit, what it adds to the estimate, as far as that is known: the error is the standard
            error of the mean of these. Estimates of the same units are compared unit by unit.
    """

    value: float
    error: float
    freedom: float
    influence: Mapping[str, float] = field(default_factory=dict, repr=False, compare=False)

    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        from scipy.special import stdtrit

        reach = float(stdtrit(self.freedom, 1 - TAIL)) * self.error
        return self.value - reach, self.value + reach

    def plus(self, number: float) -> Normal:
        """The same with a known number added."""
        return replace(self, value=self.value + number)

    def exp(self) -> Estimate:
        """What this is the natural logarithm of, with its 95 % interval."""
        return Estimate(*map(math.exp, (self.value, *self.interval())))

    def chance_above(self, boundary: float) -> float:
        """The p value of such a large estimate, if the truth were at the boundary or below."""
        return self._chance(boundary - self.value)

    def chance_below(self, boundary: float) -> float:
        """The p value of such a small estimate, if the truth were at the boundary or above."""
        return self._chance(self.value - boundary)

    def _chance(self, excess: float) -> float:
        """The probability that an error of Student's distribution is at most this large."""
        from scipy.special import stdtr

        return float(stdtr(self.freedom, excess / self.error) if self.error else excess >= 0)


def log_rate(times: MemorisationTimes) -> Normal:
    """The natural logarithm of runs memorised per episode spent.

    The rate is a ratio of two means over runs, d_i (memorised or not) and t_i (episodes); the logarithm's
    error is that of the mean of d_i / mean(d) - t_i / mean(t), which is its linearisation. No distribution
    of the times is assumed. Over several bases the sums of a base's runs are what varies, with a degree of
    freedom for each base but one (a ratio estimate of a cluster sample: Cochran 1977, Sampling techniques,
    section 9A; Student's quantiles for few clusters: Cameron and Miller 2015).

    Raises:
        ValueError: if no run memorised, there is one unit only, or no episode was spent.
    """
    if not times.tells_a_rate:
        raise ValueError("a rate needs two runs or bases, one run that memorised, and one episode")
    memorised, episodes = times.memorised.mean(), times.episodes.mean()
    names, sums = by_unit(times.memorised / memorised - times.episodes / episodes, times.units)
    influence = sums * (len(sums) / len(times.episodes))
    error = float(influence.std(ddof=1)) / np.sqrt(len(influence))
    value = float(np.log(memorised / episodes))
    parts = dict(zip(names, influence.tolist(), strict=True)) if names else {}
    return Normal(value, error, len(influence) - 1.0, parts)


def contrast(estimates: Sequence[Normal], weights: Sequence[float] | np.ndarray) -> Normal:
    """The weighted sum of estimates.

    Those of the same units go up and down together, and are compared unit by unit; others are taken to be
    independent, with the degrees of freedom of Welch and Satterthwaite.
    """
    groups: dict[object, list[int]] = {}
    for place, each in enumerate(estimates):
        groups.setdefault(frozenset(each.influence) or place, []).append(place)
    sums = [
        _together([estimates[at] for at in group], [weights[at] for at in group]) for group in groups.values()
    ]
    if len(sums) == 1:
        return sums[0]
    errors, freedoms = np.array([(each.error, each.freedom) for each in sums]).T
    variances = errors**2
    spread, variance = np.sum(variances**2 / freedoms), variances.sum()
    return Normal(
        sum(each.value for each in sums),
        float(np.sqrt(variance)),
        float(variance**2 / spread if spread > 0 else freedoms.min()),
    )


def _together(estimates: Sequence[Normal], weights: Sequence[float]) -> Normal:
    """The weighted sum of one estimate, or of several of the same units."""
    value = float(sum(weight * each.value for weight, each in zip(weights, estimates, strict=True)))
    units, (first, *others) = estimates[0].influence.keys(), estimates
    parts = np.array([[each.influence[unit] for unit in units] for each in estimates])  # (estimates, U)
    together = np.array(weights) @ parts
    names = dict(zip(units, map(float, together), strict=True))
    if not others:
        return Normal(value, abs(weights[0]) * first.error, first.freedom, names)
    return Normal(value, float(together.std(ddof=1)) / math.sqrt(len(units)), len(units) - 1.0, names)


def log_rank(one: MemorisationTimes, other: MemorisationTimes) -> float:
    """The p value of the log-rank test that two conditions memorise by the same law.

    Without a memorised run there is nothing that sets them apart: 1.
    """
    from scipy.stats import CensoredData, logrank

    samples = (
        CensoredData(uncensored=times.episodes[times.memorised], right=times.episodes[~times.memorised])
        for times in (one, other)
    )
    with np.errstate(invalid="ignore"):
        chance = float(logrank(*samples).pvalue)
    return 1.0 if np.isnan(chance) else chance


def slope(places: np.ndarray) -> np.ndarray:
    """The weights of values at these places in their least-squares slope: (X,) to (X,)."""
    centred = places - places.mean()
    return np.asarray(centred / np.sum(centred**2))


def exponent(by_size: Mapping[int, MemorisationTimes]) -> Estimate:
    """The exponent x of episodes ~ N^x: the least-squares slope of log(episodes) over log(N).

    Episodes are those spent per run that memorised: the mean, where no run is censored; where some are, their
    episodes count and they do not, as in `bits_per_episode`.

    Args:
        by_size: the runs of each N, at two N or more.

    Returns:
        The exponent; None for all where no run of some N memorised, and no interval where some N has one run
        only.
    """
    samples = [*by_size.values()]
    if len(samples) < 2 or not all(times.memorised.any() for times in samples):
        return Estimate(None)
    weights = slope(np.log(list(by_size)))
    if not all(times.tells_a_rate for times in samples):
        spent = [float(np.log(times.episodes.mean() / times.memorised.mean())) for times in samples]
        return Estimate(float(weights @ spent))
    growth = contrast([log_rate(times) for times in samples], -weights)
    return Estimate(growth.value, *growth.interval())
