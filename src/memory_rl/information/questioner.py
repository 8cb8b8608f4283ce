"""The ideal questioner: how many episodes a learner needs that knows the channel, forgets nothing and chooses its answers well.

Deterministic channels only: `levels[a, s]` is the level that answer a earns when the secret is s. After some answers the questioner knows a set of
candidates, all equally likely. It *knows* S when one candidate is left, and *hits* S when it answers S; both counts include the episode in
which it happens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from memory_rl.information.entropy import entropy


@dataclass(frozen=True)
class Episodes:
    """Expected episodes to know S and to hit S, over uniform secrets."""

    to_know: float
    to_hit: float


def binary(N: int) -> Episodes:
    """The questioner of the binary channel tries one candidate after the other.

    It hits S after (N + 1) / 2 episodes on average. It knows S then, too, but for the last two candidates: one episode decides between both, so that the
    mean is (N - 1)(N + 2) / (2 N).
    """
    return Episodes((N - 1) * (N + 2) / (2 * N), (N + 1) / 2)


def distance(N: int) -> Episodes:
    """Told |answer - S|, the questioner answers an end point and knows S; with probability 1 / N it hit it, else the next episode does."""
    return Episodes(1.0, 2.0 - 1.0 / N)


def per_bit(N: int) -> Episodes:
    """Told for each bit whether it was right, the questioner knows S after one episode, as with a distance."""
    return distance(N)


def example() -> Episodes:
    """Shown S once, the learner knows it; its next answer hits."""
    return Episodes(1.0, 2.0)


def greedy(levels: np.ndarray) -> Episodes:
    """The questioner that always gives the answer whose reward has the highest entropy; of several, the smallest that may be S, else the smallest.

    Args:
        levels: (A, N) integers, A >= N: the first N answers are the secrets.

    Raises:
        ValueError: if no answer tells some candidates apart, so that S is never known.
    """
    num_secrets = levels.shape[1]
    to_know, to_hit = _greedy_sums(levels, np.arange(num_secrets), frozenset())
    return Episodes(to_know / num_secrets, to_hit / num_secrets)


def _greedy_sums(levels: np.ndarray, candidates: np.ndarray, tried: frozenset[int]) -> tuple[int, int]:
    """Episodes from now on to know and to hit, summed over the candidates; those that were tried have been hit, even if others share their level."""
    untried = len(set(candidates.tolist()) - tried)
    if len(candidates) == 1:
        return 0, untried
    answer = _most_informative(levels, candidates)
    rewards = levels[answer, candidates]
    to_know, to_hit = len(candidates), untried
    for level in np.unique(rewards):
        group = candidates[rewards == level]
        if len(group) == len(candidates):
            raise ValueError(f"no answer tells the secrets {group.tolist()} apart")
        more_to_know, more_to_hit = _greedy_sums(levels, group, tried | {answer})
        to_know += more_to_know
        to_hit += more_to_hit
    return to_know, to_hit


def _most_informative(levels: np.ndarray, candidates: np.ndarray) -> int:
    rewards = levels[:, candidates]  # (A, C)
    counts = np.stack([(rewards == level).sum(axis=1) for level in range(levels.max() + 1)], axis=1)  # (A, L)
    information = entropy(counts / len(candidates))
    best = np.nonzero(information >= information.max() - 1e-12)[0]
    possible = best[np.isin(best, candidates)]
    return int(possible[0] if len(possible) else best[0])


def optimal_episodes_to_know(levels: np.ndarray) -> float:
    """The least expected episodes to know S of any questioner, by dynamic programming over sets of candidates.

    Args:
        levels: (A, N) integers; the cost grows like 2^N, so N up to about 16.

    Raises:
        ValueError: if some candidates can never be told apart.
    """
    num_secrets = levels.shape[1]
    masks = [[sum(1 << s for s in range(num_secrets) if row[s] == level) for level in np.unique(row)] for row in levels.tolist()]

    @cache
    def least(candidates: int) -> float:
        size = candidates.bit_count()
        if size == 1:
            return 0.0
        splits = ([part for mask in answer if (part := candidates & mask)] for answer in masks)
        costs = [sum(part.bit_count() * least(part) for part in parts) / size for parts in splits if len(parts) > 1]
        if not costs:
            raise ValueError("some secrets can never be told apart")
        return 1.0 + min(costs)

    return least((1 << num_secrets) - 1)
