"""Reward channels: what the world says about an answer, as p(reward | answer, S).

To add a reward: write a function of N that returns a `RewardChannel` and name it in `CHANNELS`, and in `RewardType` in config.py for the command line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

INVALID = -1
"""The answer of an episode (or turn) whose text is not a canonical answer."""


@dataclass(frozen=True)
class RewardChannel:
    """A discrete channel from (answer, S) to a reward.

    Attributes:
        name: what tables and files call it.
        levels: the reward values that really occur at this N, ascending. Shape (L,).
        level_of: maps valid answers and secrets (integer arrays that broadcast) to indices into `levels`.
        noise: e, the probability that the reward is replaced by a different level, drawn uniformly.
    """

    name: str
    levels: np.ndarray
    level_of: Callable[[np.ndarray, np.ndarray], np.ndarray]
    noise: float = 0.0

    def noiseless_levels(self, answers: np.ndarray, secrets: np.ndarray) -> np.ndarray:
        """Indices into `levels` before noise; an invalid answer gets the lowest level. Shapes broadcast."""
        answers, secrets = np.broadcast_arrays(answers, secrets)
        valid = answers != INVALID
        return np.where(valid, self.level_of(np.where(valid, answers, secrets), secrets), 0)

    def rewards(self, answers: np.ndarray, secrets: np.ndarray, uniforms: np.ndarray | None = None) -> np.ndarray:
        """Draws rewards.

        Args:
            answers: integers, `INVALID` where the text was not an answer. Any shape.
            secrets: integers that broadcast against the answers.
            uniforms: numbers in [0, 1) of the answers' shape, which decide the noise; may be None without noise.

        Returns:
            float64 rewards of the answers' shape.
        """
        indices = self.noiseless_levels(answers, secrets)
        if self.noise > 0:
            if uniforms is None:
                raise ValueError("a noisy channel needs uniforms")
            indices = self._flip(indices, uniforms)
        return self.levels[indices]

    def _flip(self, indices: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        # Given u < e, u / e is uniform again, so that one number decides both whether and to which other level.
        others = len(self.levels) - 1
        jump = np.minimum((uniforms / self.noise * others).astype(np.int64), others - 1) + 1
        return np.where(uniforms < self.noise, (indices + jump) % len(self.levels), indices)

    def likelihoods(self, answers: np.ndarray, secrets: np.ndarray) -> np.ndarray:
        """p(level | answer, S) over all levels. Shapes broadcast; the levels are the last axis, (..., L).

        An invalid answer has the same likelihoods whatever S is.
        """
        hit = self.noiseless_levels(answers, secrets)[..., None] == np.arange(len(self.levels))
        return np.where(hit, 1.0 - self.noise, self.noise / (len(self.levels) - 1))


def _by_distance(name: str, values: np.ndarray) -> RewardChannel:
    """A channel that looks at |answer - S| alone; `values[d]` is the reward at distance d. Shape (N,)."""
    levels, level_of_distance = np.unique(values, return_inverse=True)
    return RewardChannel(name, levels, lambda answers, secrets: level_of_distance[np.abs(answers - secrets)])


def raw_log_distance(N: int) -> np.ndarray:
    """max(0, 1 - log2(1 + d) / log2 N) for each distance d in [0, N). Shape (N,)."""
    return np.maximum(0.0, 1.0 - np.log2(1.0 + np.arange(N)) / np.log2(N))


def binary(N: int) -> RewardChannel:
    """1 if the answer is S, else 0."""
    return RewardChannel("binary", np.array([0.0, 1.0]), lambda answers, secrets: (answers == secrets).astype(np.int64))


def log_distance(N: int) -> RewardChannel:
    """The log-distance to S, one of N values."""
    return _by_distance("log_distance", raw_log_distance(N))


def binned_log_distance(N: int, bins: int) -> RewardChannel:
    """The log-distance to S rounded (half to even) to one of B equally spaced values; fewer than B may occur."""
    return _by_distance("binned_log_distance", np.round(raw_log_distance(N) * (bins - 1)) / (bins - 1))


CHANNELS: dict[str, Callable[..., RewardChannel]] = {
    "binary": binary,
    "log_distance": log_distance,
    "binned_log_distance": binned_log_distance,
}


def make_channel(reward_type: str, N: int, bins: int | None = None, noise: float = 0.0) -> RewardChannel:
    """The channel of this name; `bins` is B for the binned one, `noise` the probability of a wrong level."""
    options = {} if bins is None else {"bins": bins}
    return replace(CHANNELS[reward_type](N, **options), noise=noise)
