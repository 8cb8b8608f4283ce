"""The first groups of a policy that knows nothing: how likely their rewards differ, by exact counting."""

from __future__ import annotations

from collections.abc import Iterator
from math import comb

import numpy as np

from memory_rl.limits import MAX_TABULATED_N
from memory_rl.task import Environment, MultiStep


def chance_of_signal(environment: Environment, credit: str, size: int) -> float | None:
    """The chance that a group carries a signal whose answers are uniform over all valid ones.

    The rewards of a group are independent given S, so that it is 1 - the mean over S of the sum over levels
    of q^G. None for N beyond `MAX_TABULATED_N`, unless a reward only shows whether an answer is S.

    Args:
        environment: its world.
        credit: what a step is credited with.
        size: G.
    """
    if isinstance(environment, MultiStep):
        return _of_turns(environment.num_steps, credit, size)
    channel, N = environment.channel, environment.space.N
    if channel.kind != "hit" and N > MAX_TABULATED_N:
        return None
    laws = np.array([*_shares(environment)])
    if channel.outcomes is not None:
        laws = laws @ channel.outcomes
    return 1 - float((laws**size).sum(axis=1).mean())


def _shares(environment: Environment) -> Iterator[np.ndarray]:
    """For each secret, or one where all are alike: the share of answers in each class."""
    channel, N = environment.channel, environment.space.N
    if channel.kind == "hit":
        yield np.array([N - 1, 1]) / N
        return
    answers = np.arange(N)
    for secret in range(N):
        yield np.bincount(channel.class_of(answers, np.array(secret)), minlength=channel.num_classes) / N


def _of_turns(turns: int, credit: str, size: int) -> float:
    """Each bit is right half of the time, whatever S is, and told wrongly as often as rightly.

    A group is silent if its rewards agree in each turn, or in their sums where an episode has one credit.
    """
    if credit != "episode":
        return 1 - 0.5 ** (turns * (size - 1))
    return 1 - sum((comb(turns, right) / 2**turns) ** size for right in range(turns + 1))
