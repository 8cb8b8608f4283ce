"""When the first success comes, at pass rates that are known: rollouts, steps, and episodes with a chance."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import xlog1py

from memory_rl.information.reward_laws import equal_chance


def rollouts_to_hit(points: np.ndarray, weights: np.ndarray, size: int) -> float:
    """Expected rollouts up to the first hit, group after group, each of one prompt that is drawn anew.

    That is the sum over n of the chance that n rollouts are no hit: with q = 1 - p it is
    E[(1 - q^G) / p] / (1 - E[q^G]), and 1 / p where all prompts have one pass rate; infinite
    where no prompt ever passes.

    Args:
        points: (P,) pass rates.
        weights: (P,) how often each is met.
        size: G.
    """
    hit = -np.expm1(xlog1py(size, -points))
    of_group = np.divide(hit, points, out=np.full(points.shape, float(size)), where=points > 0)
    chance = float(weights @ hit)
    return float(weights @ of_group) / chance if chance > 0 else math.inf


def steps_to_hit(points: np.ndarray, weights: np.ndarray, size: int, groups: int) -> float:
    """Expected steps up to the first with a hit, each of so many groups: 1 / (1 - E[(1 - p)^G]^groups)."""
    missed = float(equal_chance(1 - points, weights, size))
    chance = -math.expm1(groups * math.log(missed)) if missed > 0 else 1.0
    return 1 / chance if chance > 0 else math.inf


def episodes_to_hit(rate: float, chance: float) -> int:
    """The fewest episodes of which one hits with this chance: 1 - (1 - rate)^n is at least that.

    Args:
        rate: of hits, in (0, 1).
        chance: in (0, 1).
    """
    return max(1, math.ceil(math.log1p(-chance) / math.log1p(-rate) - 1e-9))
