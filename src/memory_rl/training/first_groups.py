"""The first groups of a policy that knows nothing: how likely their rewards differ, by exact counting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb

import numpy as np

from memory_rl.limits import MAX_TABULATED_N
from memory_rl.task import Environment, MultiStep


@dataclass(frozen=True)
class LevelShares:
    """How likely a uniform answer is rewarded with each level, over all secrets.

    Attributes:
        shares: (V,) probabilities of a level under a secret, each value once.
        often: (V,) how many levels have it, on average over secrets.
    """

    shares: np.ndarray
    often: np.ndarray

    def chance_of_signal(self, size: int) -> float:
        """The chance that not all rewards of a group of G are equal: they are independent given S."""
        return 1 - float(self.often @ self.shares**size)


def level_shares(environment: Environment, credit: str) -> LevelShares | None:
    """The shares of an environment's levels, where all valid answers are equally likely.

    None for N beyond `MAX_TABULATED_N`, unless a reward only shows whether an answer is S.

    Args:
        environment: its world.
        credit: what a step is credited with.
    """
    if isinstance(environment, MultiStep):
        return _of_turns(environment.num_steps, credit)
    channel, N = environment.channel, environment.space.N
    if channel.kind != "hit" and N > MAX_TABULATED_N:
        return None
    laws = np.array([*_laws(environment)])
    laws = laws if channel.outcomes is None else laws @ channel.outcomes
    shares, often = np.unique(laws, return_counts=True)
    return LevelShares(shares, often / len(laws))


def _laws(environment: Environment) -> Iterator[np.ndarray]:
    """For each secret, or one where all are alike: the share of answers in each class."""
    channel, N = environment.channel, environment.space.N
    if channel.kind == "hit":
        yield np.array([N - 1, 1]) / N
        return
    answers = np.arange(N)
    for secret in range(N):
        yield np.bincount(channel.class_of(answers, np.array(secret)), minlength=channel.num_classes) / N


def _of_turns(turns: int, credit: str) -> LevelShares:
    """Each bit is right half of the time, whatever S is, and told wrongly as often as rightly.

    A level is what all turns are credited with, or their sum where an episode has one credit.
    """
    if credit != "episode":
        return LevelShares(np.array([0.5**turns]), np.array([2.0**turns]))
    sums = np.array([comb(turns, right) / 2**turns for right in range(turns + 1)])
    return LevelShares(sums, np.ones(turns + 1))
