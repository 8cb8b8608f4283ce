"""Where the bits go between two conditions: the gap between their rates, and what of it lies in which step.

With the rates of the ideal questioner q, the ideal observer o and the policy r, all in bits an episode,

    log(r_fast / r_slow) = log(q_fast / q_slow)                               the channel's part
                         + log(q_slow / o_slow) - log(q_fast / o_fast)        exploration
                         + log(o_slow / r_slow) - log(o_fast / r_fast)        absorption

so that the parts add to the gap. A part is negative where the slower condition does that step better. All
rates are of the runs that memorised; those of the questioner are computed, and have no error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memory_rl.analysis.samples import CannotJudgeError, Sample
from memory_rl.analysis.statistics import TAIL, Estimate
from memory_rl.analysis.survival import Normal, contrast

PARTS = ("channel", "exploration", "absorption")


@dataclass(frozen=True)
class Linear:
    """A weighted sum of the same log rates, and a number."""

    weights: tuple[float, ...]
    number: float = 0.0

    def minus(self, share: float, other: Linear) -> Linear:
        """This one without that share of another."""
        pairs = zip(self.weights, other.weights, strict=True)
        return Linear(tuple(one - share * two for one, two in pairs), self.number - share * other.number)

    def of(self, rates: Sequence[Normal]) -> Normal:
        """Its value with an error."""
        return contrast(rates, self.weights).plus(self.number)


@dataclass(frozen=True)
class Split:
    """A whole and parts of it, which are linear in the logarithms of some rates.

    Attributes:
        rates: these logarithms.
        whole: what is split.
        parts: by name.
    """

    rates: Sequence[Normal]
    whole: Linear
    parts: dict[str, Linear]

    def value(self, part: str | None = None) -> Normal:
        """Of a part, or of the whole; natural logarithms."""
        return (self.whole if part is None else self.parts[part]).of(self.rates)

    def beyond(self, part: str, share: float) -> Normal:
        """Above 0 where a part is more than that share of the whole, if the whole is positive."""
        return self.parts[part].minus(share, self.whole).of(self.rates)

    def share(self, part: str) -> Estimate:
        """A part over the whole, with Fieller's interval.

        They are the shares that a test of `beyond` does not refute: an interval as long as the whole is known
        to be positive (Fieller 1954, Some problems in interval estimation), else it is unbounded.
        """
        from scipy.special import stdtrit

        one, whole = self.value(part), self.value()
        both = self.beyond(part, 1.0)  # the error of the difference tells how both go together
        reach = float(stdtrit(both.freedom, 1 - TAIL)) ** 2
        mixed = (one.error**2 + whole.error**2 - both.error**2) / 2
        a = whole.value**2 - reach * whole.error**2
        b = one.value * whole.value - reach * mixed
        c = one.value**2 - reach * one.error**2
        if whole.value <= 0 or a <= 0:
            return Estimate(one.value / whole.value if whole.value else None)
        half = math.sqrt(max(b * b - a * c, 0.0))
        return Estimate(one.value / whole.value, (b - half) / a, (b + half) / a)


def gap(fast: Sample, slow: Sample) -> Split:
    """The gap between two conditions of one N, and its three parts.

    Raises:
        CannotJudgeError: if one has no ledger, or too few runs that memorised.
    """
    (policy, observer, ideal), (other, watching, possible) = map(_levels, (fast, slow))
    return Split(
        [policy, observer, other, watching],
        Linear((1, 0, -1, 0)),
        {
            "channel": Linear((0, 0, 0, 0), ideal - possible),
            "exploration": Linear((0, 1, 0, -1), possible - ideal),
            "absorption": Linear((1, -1, -1, 1)),
        },
    )


def closed(default: Sample, best: Sample) -> Split:
    """What another learner makes of a condition's absorption loss: the whole is that of the default learner.

    The part "closed" is what the best learner does not lose of it.

    Raises:
        CannotJudgeError: if one has no ledger, or too few runs that memorised.
    """
    (policy, observer, _), (other, watching, _) = map(_levels, (default, best))
    return Split(
        [policy, observer, other, watching],
        Linear((-1, 1, 0, 0)),
        {"closed": Linear((-1, 1, 1, -1))},
    )


def loss(sample: Sample, of: str) -> Estimate:
    """The factor lost in exploration or absorption by the runs that memorised, with a 95 % interval.

    Policy and observer are of the same runs, and compared run by run or base by base.
    """
    policy, observer, ideal = _levels(sample)
    lost = observer.plus(-ideal) if of == "exploration" else contrast([policy, observer], [1, -1])
    ends = sorted(-end for end in lost.interval())
    return Estimate(math.exp(-lost.value), *map(math.exp, ends))


def _levels(sample: Sample) -> tuple[Normal, Normal, float]:
    """The logarithms of the rates of policy, observer and ideal questioner."""
    policy, observer = sample.of_memorised, sample.observed
    name = f"{sample.first.condition} at N = {sample.first.N}"
    if policy is None or observer is None:
        lacks = "a ledger" if policy is not None else "two runs that memorised"
        raise CannotJudgeError(f"Not judged, since {name} lacks {lacks}.")
    asker = sample.ceilings.get("ideal questioner")
    if asker is None:
        raise CannotJudgeError(f"Not judged, since the ideal questioner of {name} is not known.")
    return policy, observer, float(np.log(asker))
