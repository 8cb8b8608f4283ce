"""Means over runs with 95 % intervals, and Holm's correction; times have a module of their own, `survival`.

A run, never an episode, is what is resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from memory_rl.analysis.digits import rounded
from memory_rl.files import Json

RESAMPLES, CURVE_RESAMPLES = 9999, 999
TAIL = (1 - 0.95) / 2
_CELLS_A_CHUNK = 2**22


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; `str` gives them to three significant digits.

    Attributes:
        value: None where it lies beyond the budget.
        low: None where the interval is unbounded, or there are too few runs for one.
        high: the same.
    """

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return f"{rounded(self.value)} [{rounded(self.low)}, {rounded(self.high)}]"

    @property
    def interval(self) -> list[float | None]:
        """Both ends, as JSON has them."""
        return [self.low, self.high]

    def as_dict(self) -> Json:
        """As in summary.json."""
        return {"estimate": self.value, "ci95": self.interval}

    def as_row(self, name: str) -> Json:
        """As columns of a table: the value under this name, low and high."""
        return {name: self.value, "low": self.low, "high": self.high}

    def divided_by(self, number: float) -> Estimate:
        """The same in units of a positive number."""
        parts = (self.value, self.low, self.high)
        return Estimate(*(None if part is None else part / number for part in parts))

    @classmethod
    def from_bootstrap(cls, value: float, drawn: np.ndarray, runs: int) -> Estimate:
        """With the interval of values drawn from resamples of that many runs: (resamples,); one has none."""
        if runs == 1:
            return cls(float(value))
        ends = (float(end) if np.isfinite(end) else None for end in percentiles(drawn, runs))
        return cls(float(value), *ends)


def proportion(count: float, of: float) -> Estimate:
    """A share with the exact binomial interval (Clopper and Pearson 1934); counts need not be whole."""
    from scipy.special import betaincinv

    low = float(betaincinv(count, of - count + 1, TAIL)) if count else 0.0
    high = float(betaincinv(count + 1, of - count, 1 - TAIL)) if count < of else 1.0
    return Estimate(count / of, low, high)


def nested_share(happened: np.ndarray, units: np.ndarray | None) -> Estimate:
    """A share of runs, with an interval that knows of the units that they come in.

    It is Clopper and Pearson's with the number of runs that would be as telling if they were independent
    (Korn and Graubard 1998, Confidence intervals for proportions with small expected number of positive
    counts estimated from survey data), at most as many as there are. Where it happened never or always,
    nothing is known of a spread between units, and it is the plain one.

    Args:
        happened: (R,) bool.
        units: (R,) the names of the units; None if each run is one.
    """
    if units is None or happened.all() or not happened.any():
        return proportion(int(happened.sum()), len(happened))
    effective = telling_runs(happened, units)
    return proportion(float(happened.mean()) * effective, effective)


def telling_runs(happened: np.ndarray, units: np.ndarray | None) -> float:
    """How many independent runs would tell as much about a share, see `nested_share`; at most all of them."""
    from scipy.special import stdtrit

    runs, share = len(happened), float(happened.mean())
    if units is None or share in (0.0, 1.0):
        return float(runs)
    names, place = np.unique(units, return_inverse=True)
    excess = np.bincount(place, happened - share) / runs  # of each unit; they add to 0
    variance = len(names) / (len(names) - 1) * float(np.sum(excess**2))
    alike = share * (1 - share) / variance if variance else np.inf
    effective = alike * float(stdtrit(runs - 1, 1 - TAIL) / stdtrit(len(names) - 1, 1 - TAIL)) ** 2
    return float(min(effective, runs))


def bootstrap_mean(values: np.ndarray) -> Estimate:
    """Mean over runs with its bootstrap interval: values (R,)."""
    return Estimate.from_bootstrap(values.mean(), resampled_means(values, RESAMPLES), len(values))


def mean_interval(
    values: np.ndarray, units: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over runs with its bootstrap interval: (R, T) to mean, low and high, each (T,).

    With one run the interval is empty (NaN).

    Args:
        values: (R, T).
        units: (R,) the names of the units that are drawn, with all their runs; None if each run is one.
    """
    if units is None:
        drawn, count = resampled_means(values, CURVE_RESAMPLES), len(values)
    else:
        _, place = np.unique(units, return_inverse=True)
        of_unit = np.eye(place.max() + 1)[place].T  # (U, R)
        sums, runs = of_unit @ values, of_unit.sum(axis=1)
        weights = resampled_means(runs, CURVE_RESAMPLES)[:, None]
        drawn, count = resampled_means(sums, CURVE_RESAMPLES) / weights, len(runs)
    low, high = percentiles(drawn, count)
    return values.mean(axis=0), low, high


def resampled_means(values: np.ndarray, resamples: int) -> np.ndarray:
    """Means of bootstrap resamples over axis 0: (R, ...) to (resamples, ...).

    A matrix product is a thousand times faster than indexing. The resamples are the same for the same number
    of runs, so that a summary can be made again to the byte. With one run they are NaN.
    """
    runs = len(values)
    if runs == 1:
        return np.full((resamples, *values.shape[1:]), np.nan)
    counts, step = resampled_counts(runs, resamples), max(1, _CELLS_A_CHUNK // runs)
    return np.concatenate(
        [
            counts[start : start + step].astype(np.float64) @ values / runs
            for start in range(0, resamples, step)
        ]
    )


def independent_means(samples: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Bootstrapped means of independent samples (R, ...), each (RESAMPLES, ...).

    Samples of equally many runs share their resamples; shifted against each other, these are independent.
    """
    return [
        np.roll(resampled_means(sample, RESAMPLES), shift, axis=0) for shift, sample in enumerate(samples)
    ]


@lru_cache(maxsize=2)  # one summary and its curves, or one ranking, ask for the same again and again
def resampled_counts(runs: int, resamples: int) -> np.ndarray:
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
    from scipy.special import ndtr, stdtrit  # scipy.stats would take a second to load

    if runs == 1:
        return TAIL
    return float(ndtr(-np.sqrt(runs / (runs - 1)) * stdtrit(runs - 1, 1 - TAIL)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values.

    Rejecting those below alpha is wrong anywhere with probability alpha at most, whatever the dependence. The
    smallest is multiplied by the number of hypotheses, the next by one less, and so on; none may be smaller
    than one before it (Holm 1979, A simple sequentially rejective multiple test procedure).
    """
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values, kind="stable")
    stepped = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1.0)
    return [float(value) for value in stepped[np.argsort(order)]]
