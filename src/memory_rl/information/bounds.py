"""Ceilings on what an episode can teach, whoever learns."""

from __future__ import annotations

import math


def naive_capacity(num_levels: int) -> float:
    """log2 of the number of levels that a reward can take, in bits an episode.

    A ceiling that need not be reached: the levels would have to be equally likely.
    """
    return math.log2(num_levels)
