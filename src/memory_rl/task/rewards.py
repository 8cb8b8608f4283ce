"""Reward channels: what the world says about an answer, as p(reward | answer, S).

To add a built-in reward: write a function of N that returns a `RewardChannel` and name it in `CHANNELS`, and
in `REWARD_TYPES` in config/signal.py for the command line. A user's own reward needs no change here: see
own_reward.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from memory_rl.errors import ConfigError
from memory_rl.limits import MAX_TABULATED_N

INVALID = -1
"""The answer of an episode (or turn) whose text is not a canonical answer."""


@dataclass(frozen=True)
class RewardChannel:
    """A discrete channel from (answer, S) to a reward.

    The pair falls into a class, and the class decides how likely each level is.

    Attributes:
        name: what tables and files call it.
        levels: the reward values that really occur at this N, ascending. Shape (L,).
        class_of: maps valid answers and secrets (integer arrays that broadcast) to classes. Class 0 is also
            that of an invalid answer: it earns the lowest level, except for noise.
        outcomes: (C, L) p(level | class), or None where class c always earns level c.
        kind: "hit" where class 1 is S itself and class 0 all else, so that an answer shows only whether it is
            S; "distance" where each |answer - S| is a class of its own; else empty.
        shifted: whether the class depends on S - answer alone.
    """

    name: str
    levels: np.ndarray
    class_of: Callable[[np.ndarray, np.ndarray], np.ndarray]
    outcomes: np.ndarray | None = None
    kind: str = ""
    shifted: bool = False

    @property
    def certain(self) -> bool:
        """Whether answer and secret decide the reward."""
        return self.outcomes is None

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.levels) if self.outcomes is None else len(self.outcomes)

    @property
    def mean_rewards(self) -> np.ndarray:
        """The expected reward of each class: (C,)."""
        return self.levels if self.outcomes is None else self.outcomes @ self.levels

    def classes(self, answers: np.ndarray | int, secrets: np.ndarray | int) -> np.ndarray:
        """The class of each answer and secret; an invalid answer is in class 0. Shapes broadcast."""
        answers, secrets = np.broadcast_arrays(answers, secrets)
        valid = answers != INVALID
        return np.where(valid, self.class_of(np.where(valid, answers, secrets), secrets), 0)

    def by_difference(self, N: int) -> np.ndarray:
        """(2 N - 1,) the class where S - answer is -(N - 1), ..., N - 1; of a shifted channel."""
        difference = np.arange(1 - N, N)
        return self.class_of(np.maximum(-difference, 0), np.maximum(difference, 0))

    def rewards(
        self, answers: np.ndarray, secrets: np.ndarray, uniforms: np.ndarray | None = None
    ) -> np.ndarray:
        """Draws rewards.

        Args:
            answers: integers, `INVALID` where the text was not an answer. Any shape.
            secrets: integers that broadcast against the answers.
            uniforms: numbers in [0, 1) of the answers' shape, which decide what chance decides; may be None
                if the channel is certain.

        Returns:
            float64 rewards of the answers' shape.
        """
        classes = self.classes(answers, secrets)
        if self.outcomes is None:
            return self.levels[classes]
        if uniforms is None:
            raise ValueError("a noisy channel needs uniforms")
        drawn = (uniforms[..., None] >= self.outcomes.cumsum(axis=1)[classes]).sum(axis=-1)
        return self.levels[np.minimum(drawn, len(self.levels) - 1)]

    def level_indices(self, rewards: np.ndarray) -> np.ndarray:
        """Where each reward stands in `levels`.

        Raises:
            ValueError: if a reward is not one of the levels.
        """
        indices = np.searchsorted(self.levels, rewards).clip(max=len(self.levels) - 1)
        if not np.array_equal(self.levels[indices], rewards):
            raise ValueError(f"{self.name} has no such reward")
        return indices


def credit_rewards(rewards: np.ndarray, credit: str) -> np.ndarray:
    """What each step is credited with: (..., K) to the same.

    Args:
        rewards: the reward of each step.
        credit: "step" (its own reward), "reward_to_go" (its own and all later ones) or "episode" (the sum
            over the episode: what common tools spread over all tokens).
    """
    if credit == "reward_to_go":
        return np.flip(np.cumsum(np.flip(rewards, axis=-1), axis=-1), axis=-1)
    return (
        np.broadcast_to(rewards.sum(axis=-1, keepdims=True), rewards.shape)
        if credit == "episode"
        else rewards
    )


def with_noise(channel: RewardChannel, noise: float) -> RewardChannel:
    """The channel whose rewards are replaced, with this probability, by another level, drawn uniformly.

    Raises:
        ConfigError: if there are too many levels.
    """
    if noise == 0:
        return channel
    count = len(channel.levels)
    if count > MAX_TABULATED_N:
        raise ConfigError(
            f"reward_noise={noise:g} would need a table of all {count} x {count} levels of the reward: use "
            f"N={MAX_TABULATED_N} or less, or a reward with fewer levels, such as reward_bins=8."
        )
    kept = np.eye(count)
    flips = (1 - noise) * kept + noise * (1 - kept) / (count - 1)
    return replace(channel, outcomes=flips if channel.outcomes is None else channel.outcomes @ flips)


def _by_distance(name: str, values: np.ndarray) -> RewardChannel:
    """A channel that only depends on |answer - S|; `values[d]` is the reward at distance d. Shape (N,)."""
    levels, level_of_distance = np.unique(values, return_inverse=True)
    return RewardChannel(
        name,
        levels,
        lambda answers, secrets: level_of_distance[np.abs(answers - secrets)],
        kind="distance" if len(levels) == len(values) else "",
        shifted=True,
    )


def raw_log_distance(N: int) -> np.ndarray:
    """max(0, 1 - log2(1 + d) / log2 N) for each distance d in [0, N). Shape (N,)."""
    return np.maximum(0.0, 1.0 - np.log2(1.0 + np.arange(N)) / np.log2(N))


def binary(N: int) -> RewardChannel:
    """1 if the answer is S, else 0."""
    return RewardChannel(
        "binary",
        np.array([0.0, 1.0]),
        lambda answers, secrets: (answers == secrets).astype(np.int64),
        kind="hit",
        shifted=True,
    )


def log_distance(N: int) -> RewardChannel:
    """The log-distance to S, one of N values."""
    return _by_distance("log_distance", raw_log_distance(N))


def binned_log_distance(N: int, bins: int) -> RewardChannel:
    """The log-distance to S rounded (half to even) to one of B equally spaced values.

    Fewer than B may occur.
    """
    # so that a half is a half, whatever the last bit of the logarithm says
    scaled = np.round(raw_log_distance(N) * (bins - 1), 9)
    return _by_distance("binned_log_distance", np.round(scaled) / (bins - 1))


CHANNELS: dict[str, Callable[..., RewardChannel]] = {
    "binary": binary,
    "log_distance": log_distance,
    "binned_log_distance": binned_log_distance,
}


def make_channel(reward_type: str, N: int, bins: int | None = None, noise: float = 0.0) -> RewardChannel:
    """The channel of this name; `bins` is B of the binned one, `noise` the probability of a wrong level."""
    options = {} if bins is None else {"bins": bins}
    return with_noise(CHANNELS[reward_type](N, **options), noise)
