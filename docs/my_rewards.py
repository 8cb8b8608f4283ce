"""Rewards of one's own, for `reward_type=docs/my_rewards.py:NAME`; docs/own_reward.md explains them."""

from __future__ import annotations

import math
from dataclasses import dataclass


def higher_or_lower(answer: int, secret: int) -> float:
    """1 if the answer is the secret, 0.5 if it is too low, 0 if it is too high.

    Nothing earns as much as the secret.
    """
    if answer == secret:
        return 1.0
    return 0.5 if answer < secret else 0.0


def way_to_go(answer: int, secret: int) -> int:
    """The same question with the sign as its reward: +1 for go higher, -1 for go lower, 0 for the secret.

    Any lower answer earns more than the secret.
    """
    return (secret > answer) - (secret < answer)


def noisy_judge(answer: int, secret: int) -> dict[int, float]:
    """A judge who says right (1) or wrong (0) and errs one time in ten."""
    return {1: 0.9, 0: 0.1} if answer == secret else {1: 0.1, 0: 0.9}


@dataclass
class NearnessJudge:
    """A judge who likes an answer (1) the more often the nearer it is.

    Nine times in ten if it is the secret, once in ten at the far end.

    Attributes:
        N: the size of the secret space, which memory-rl gives it.
        least: how often the farthest answer is liked.
        most: how often the secret is liked.
    """

    N: int
    least: float = 0.1
    most: float = 0.9

    def reward(self, answer: int, secret: int) -> dict[int, float]:
        """The probability of each verdict."""
        nearness = 1 - math.log2(1 + abs(answer - secret)) / math.log2(self.N)
        liked = self.least + (self.most - self.least) * nearness
        return {1: liked, 0: 1 - liked}
