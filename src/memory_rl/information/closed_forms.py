"""How many episodes exact softmax policy gradient needs, in closed form.

For plain gradient steps without a baseline, one episode per update, from a uniform start.

Derivation. One episode's step moves the logits by eta r (e_a - p) for reward r and answer a. With reward 1
for the secret alone, only hits move anything: on each, the log-odds of S grow and the others stay equal among
themselves, so that the course of p is deterministic from hit to hit, and the wait before each is geometric
with mean 1 / p.
"""

from __future__ import annotations

import math


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
