"""Learners that differ in the advantage: what a return is compared with, and which answers count.

Axes: R runs, B groups, G episodes of a group, K steps, E = B G episodes, L tokens. As everywhere, a step is
compared with the same step of other episodes; with credit=episode all steps of an episode share one return.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from typing_extensions import override

from memory_rl.errors import ConfigError
from memory_rl.keys import key
from memory_rl.learning.batch import Batch
from memory_rl.learning.learners import Learner
from memory_rl.limits import FACTORS


@dataclass(frozen=True, kw_only=True)
class ReinforcePlusPlus(Learner, name="reinforce_plus_plus"):
    """Whitened over the whole batch: mean 0, standard deviation 1 (Hu 2025, arXiv:2501.03262).

    The variant REINFORCE++-baseline subtracts the group's mean first, and then only divides.
    """

    baseline: Literal["batch", "group"] = key(
        "batch",
        "batch: REINFORCE++, compared with all groups of an update. group: REINFORCE++-baseline, compared "
        "with its own group before it is divided by the deviation of all.",
        word="plus_plus_baseline",
    )
    fewest_episodes = 2

    @override
    def advantages(self, returns: np.ndarray) -> np.ndarray:
        return whitened(super().advantages(returns), axes=(1, 2))


def whitened(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Less their mean, over their standard deviation along these axes; 0 where all are equal."""
    deviation = values.std(axis=axes, keepdims=True)
    differ = np.ptp(values, axis=axes, keepdims=True) > 0
    return (values - values.mean(axis=axes, keepdims=True)) / np.where(deviation > 0, deviation, 1.0) * differ


class MaxRL(Learner, name="maxrl"):
    """Also divides by the group's mean, 0 where that is not positive (Tajwar et al., arXiv:2602.02710)."""

    @override
    def advantages(self, returns: np.ndarray) -> np.ndarray:
        mean = returns.mean(axis=2, keepdims=True)
        return np.where(mean > 0, (returns - mean) / np.where(mean > 0, mean, 1.0), 0.0)


@dataclass(frozen=True, kw_only=True)
class CoRPO(Learner, name="corpo"):
    """Return minus the group's mean, or minus a right answer's if that is more (arXiv:2511.04439)."""

    threshold: float = key(
        1.0,
        "What a right answer earns; groups that do worse are pushed away.",
        (0, FACTORS[1]),
        word="corpo_threshold",
    )
    silent_if_equal = False  # below the threshold equal rewards still push away

    @override
    def advantages(self, returns: np.ndarray) -> np.ndarray:
        least, most = returns.min(axis=2, keepdims=True), returns.max(axis=2, keepdims=True)
        mean = returns.mean(axis=2, keepdims=True).clip(least, most)  # exact where all are equal
        return returns - mean.clip(min=self.threshold)


@dataclass(frozen=True, kw_only=True)
class Signs(Learner, name="signs"):
    """Weighs what is better than the group's mean and what is worse (Zhu et al. 2025, arXiv:2506.01347).

    By default only what is worse counts: negative sample reinforcement. With positive_weight=0.1 it is their
    Weighted-REINFORCE.
    """

    positive_weight: float = key(0.0, "Times the advantages above 0.", (0, FACTORS[1]))
    negative_weight: float = key(1.0, "Times the advantages below 0.", (0, FACTORS[1]))

    def __post_init__(self) -> None:
        if self.positive_weight == self.negative_weight == 0:
            raise ConfigError(
                "positive_weight=0 with negative_weight=0 can never carry a signal: use negative_weight=1."
            )

    @override
    def advantages(self, returns: np.ndarray) -> np.ndarray:
        centred = super().advantages(returns)
        return centred * np.where(centred > 0, self.positive_weight, self.negative_weight)


@dataclass(kw_only=True)
class MovingAverage(Learner, name="moving_average"):
    """Return minus an exponential average of the run's returns so far (RAE in SPIRAL, arXiv:2506.24119).

    Episode by episode the average first takes in the return and is then subtracted from it; it starts at 0.
    """

    decay: float = key(
        0.95,
        "What the average of a run's returns keeps of itself at each episode.",
        (0, None),
        word="average_decay",
        below=1,
    )
    baseline = "none"  # whose groups have no mean of their own
    samples_suffice = True
    kept = ("_mean",)

    def __post_init__(self) -> None:
        if self.decay == 0:
            raise ConfigError(
                "average_decay=0 can never carry a signal, since a return is compared with itself: use "
                "average_decay=0.95."
            )

    @override
    def start(self, seed: int, num_runs: int) -> None:
        self._num_runs = num_runs
        self._mean: Any = None  # (R, K), once it is known how many steps there are

    @override
    def learn(self, policy: Any, batch: Batch) -> np.ndarray:
        assert batch.returns is not None  # noqa: S101  # rewarded
        returns = batch.returns.reshape(batch.choices.shape)
        _, num_episodes, num_steps = batch.choices.shape
        means = np.zeros((self._num_runs, num_steps)) if self._mean is None else self._mean.copy()
        advantages = np.empty(returns.shape)
        for episode in range(num_episodes):
            means[batch.runs] = self.decay * means[batch.runs] + (1 - self.decay) * returns[:, episode]
            advantages[:, episode] = returns[:, episode] - means[batch.runs]
        self._mean = means
        return self._move(policy, batch, advantages.reshape(batch.returns.shape))


class RAFT(Learner, name="raft"):
    """Imitates the best of the group (Dong et al. 2023, arXiv:2304.06767; Xiong et al., arXiv:2504.11343).

    Maximum likelihood of the best answer of each group, averaged over groups; equals share.
    """

    @override
    def advantages(self, returns: np.ndarray) -> np.ndarray:
        best = returns == returns.max(axis=2, keepdims=True)
        return best * (returns.shape[2] / best.sum(axis=2, keepdims=True))


class PassAtK(Learner, name="pass_at_k"):
    """Only the best answer counts, by how much it is better than the second (Tang et al., arXiv:2503.19595).

    That leaves out one in turn from the best of G: its gradient is that of the best of G answers.
    """

    @override
    def advantages(self, returns: np.ndarray) -> np.ndarray:
        second, first = np.split(np.sort(returns, axis=2)[:, :, -2:], [1], axis=2)
        return np.where(returns == first, first - second, 0.0)
