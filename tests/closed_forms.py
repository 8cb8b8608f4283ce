"""Closed forms of exact softmax policy gradient in the limit of small steps, which its tests compare with.

`memory_rl.information.closed_forms` has the derivation, and the form for any step size.
"""

from __future__ import annotations

import math


def potential(p: float) -> float:
    """F(p) = -1/p + 1/(1-p) + 2 ln(p / (1-p)), the integral of 1 / (p^2 (1-p)^2)."""
    return -1 / p + 1 / (1 - p) + 2 * math.log(p / (1 - p))


def binary_episodes_small_step(N: int, step_size: float, target: float) -> float:
    """The limit of `binary_episodes` for small steps: (N - 1) / (N eta) [F(p*) - F(1/N)]."""
    return (N - 1) / (N * step_size) * (potential(target) - potential(1 / N))


def dense_episodes(num_bits: int, step_size: float, target: float) -> float:
    """Expected episodes for small steps with reward +-1 for each of k bits: [F(q) - F(1/2)] / (4 eta).

    Here q = p*^(1/k), and each bit is credited with its own reward. The policy has two logits per bit; all
    bits move alike, and P(S) is the product of their probabilities.
    """
    return (potential(target ** (1 / num_bits)) - potential(0.5)) / (4 * step_size)


def signal_fraction(level_probabilities: list[float], group_size: int) -> float:
    """Probability that a group of G episodes is not silent: 1 - sum over levels of q^G."""
    return 1 - sum(q**group_size for q in level_probabilities)
