"""How many episodes exact softmax policy gradient needs, in closed form.

For plain gradient steps without a baseline, one episode per update, from a uniform start.

Derivation. One episode's step moves the logits by eta r (e_a - p) for reward r and answer a. With reward 1
for the secret alone, only hits move anything: on each, the log-odds of S grow and the others stay equal among
themselves, so that the course of p is deterministic from hit to hit, and the wait before each is geometric
with mean 1 / p.
"""

from __future__ import annotations

import math


def _potential(p: float) -> float:
    """F(p) = -1/p + 1/(1-p) + 2 ln(p / (1-p)), the integral of 1 / (p^2 (1-p)^2)."""
    return -1 / p + 1 / (1 - p) + 2 * math.log(p / (1 - p))


def binary_episodes(N: int, step_size: float, target: float) -> float:
    """Expected episodes until P(S) >= target with a binary reward, for any step size.

    They are the waits 1 / p_k summed over hits. At a hit the logit of S grows by eta (1 - p), and each of the
    others falls by eta (1 - p) / (N - 1).

    Args:
        N: the number of answers.
        step_size: eta > 0.
        target: p*, above 1 / N.
    """
    log_odds, episodes = -math.log(N - 1), 0.0
    while (p := 1 / (1 + math.exp(-log_odds))) < target:
        episodes += 1 / p
        log_odds += step_size * (1 - p) * (1 + 1 / (N - 1))
    return episodes


def binary_episodes_small_step(N: int, step_size: float, target: float) -> float:
    """The limit of `binary_episodes` for small steps: (N - 1) / (N eta) [F(p*) - F(1/N)]."""
    return (N - 1) / (N * step_size) * (_potential(target) - _potential(1 / N))


def dense_episodes(num_bits: int, step_size: float, target: float) -> float:
    """Expected episodes for small steps with reward +-1 for each of k bits: [F(q) - F(1/2)] / (4 eta).

    Here q = p*^(1/k), and each bit is credited with its own reward. The policy has two logits per bit; all
    bits move alike, and P(S) is the product of their probabilities.
    """
    return (_potential(target ** (1 / num_bits)) - _potential(0.5)) / (4 * step_size)


def signal_fraction(level_probabilities: list[float], group_size: int) -> float:
    """Probability that a group of G episodes is not silent: 1 - sum over levels of q^G."""
    return 1 - sum(q**group_size for q in level_probabilities)
