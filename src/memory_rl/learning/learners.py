"""How parameters move: a learner is one class.

The first built-in ones are at the end; others are in estimators.py (advantages), ratios.py (losses),
replay.py and evolution.py. docs/learners.md has all of them, docs/own_learner.md how to write your own.

Axes: R runs, B groups, G episodes of a group, K steps, E = B G episodes, L tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from typing_extensions import override

from memory_rl.config import LEARNERS, LOADERS
from memory_rl.keys import key
from memory_rl.learning.batch import Batch
from memory_rl.limits import SIZES
from memory_rl.state import Stateful

if TYPE_CHECKING:
    import torch


class Learner(Stateful):
    """Moves the policies after their episodes. Override `advantages`, `loss`, `epochs`, or all of `learn`.

    Attributes:
        epochs: optimiser steps on the same episodes.
        silent_if_equal: whether a group whose credited rewards are equal moves nothing; skip-ahead relies on
            it.
        wants_beliefs: whether `learn` needs the ideal observer's belief, as `batch.beliefs`.
        fewest_episodes: of an update; with fewer it can never move anything.
        follows_loss: whether it moves policies down `loss`, to which an entropy bonus can be added.
        not_hosted: what it does that a hosted policy cannot, as a sentence's verb and object.
        samples_suffice: whether it needs no more of a policy than samples and their probabilities, which is
            all there is with scoring=paths. A class with a `learn` of its own says so itself.
    """

    epochs = 1
    grows = True
    baseline = "group"
    wants_beliefs = False
    fewest_episodes = 1
    follows_loss = True
    not_hosted: ClassVar[str | None] = None
    samples_suffice = True

    def __init_subclass__(cls, name: str | None = None, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "learn" in vars(cls):
            cls.samples_suffice = bool(vars(cls).get("samples_suffice", False))
        if name is not None:
            LEARNERS[name] = cls

    @property
    def silent_if_equal(self) -> bool:
        """Whether equal rewards move nothing; without a baseline they carry a signal."""
        return self.baseline == "group"

    def advantages(self, returns: np.ndarray) -> np.ndarray:
        """The advantage of each step, from what it is credited with: (R, B, G, K) to the same.

        By default: the return minus the group's mean at the same step, or, without a baseline, the return
        itself.
        """
        return returns - returns.mean(axis=2, keepdims=True) if self.baseline == "group" else returns

    def loss(self, log_probs: torch.Tensor, before: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        """The loss to minimise, a scalar: a sum over the runs, whose parameters are disjoint.

        By default: the score-function estimator (Williams 1992), minus advantage times log-probability,
        summed over the tokens of an episode and averaged over a run's episodes. Its gradient is an unbiased
        policy gradient whatever the length of an answer (no division by length).

        Args:
            log_probs: (R, E, L) of the chosen tokens, in nats, with their graph.
            before: (R, E, L) the same when the episodes were sampled.
            advantages: (R, E, L) of each token's step, zero for padding.
        """
        return over_runs(-(advantages * log_probs))

    def moves(self, advantages: np.ndarray) -> np.ndarray:
        """Which runs (R,) take optimiser steps on these advantages (R, E, K); the others stand still."""
        return np.asarray(advantages.any(axis=(1, 2)))

    def start(self, seed: int, num_runs: int) -> None:
        """Called once before the first episode, for learners that draw random numbers or remember a run.

        Args:
            seed: of the experiment; `RunStreams` of it give each run numbers of its own.
            num_runs: R of the population.
        """

    def sample(self, policy: Any, runs: np.ndarray, prompts: np.ndarray, num_episodes: int) -> Batch:
        """The next episodes of these runs (R,), in blocks to these prompts (R, B): by default the policy's.

        Only asked where `silent_if_equal` is False; else the silent updates may be drawn from their law.
        """
        batch: Batch = policy.sample(runs, prompts, num_episodes)
        return batch

    def learn(self, policy: Any, batch: Batch) -> np.ndarray | None:
        """Moves the policies of a batch's runs.

        Returns:
            (R,) the fraction of groups without a signal; None where groups have no meaning.
        """
        assert batch.returns is not None  # noqa: S101  # rewarded
        advantages = self.advantages(batch.returns)
        if self.silent_if_equal:  # rounding must not make a signal out of equal rewards
            equal = np.ptp(batch.returns, axis=2, keepdims=True) == 0
            advantages = np.where(equal, 0.0, advantages)
        return self._move(policy, batch, advantages)

    def _move(self, policy: Any, batch: Batch, advantages: np.ndarray) -> np.ndarray:
        """Moves by advantages (R, B, G, K), and returns what `learn` does."""
        policy.update(batch, advantages.reshape(batch.choices.shape), self)
        return np.asarray((~advantages.any(axis=(2, 3))).mean(axis=1))


def over_runs(of_tokens: torch.Tensor) -> torch.Tensor:
    """Summed over the tokens of an episode, averaged over a run's episodes, summed over runs: (R, E, L)."""
    return of_tokens.sum(dim=2).mean(dim=1).sum()


def epochs_key() -> Any:
    """Passes over the same episodes, of learners whose loss says more in the second than in the first."""
    return key(4, "Optimiser steps on the same episodes.", SIZES, word="ppo_epochs")


@dataclass(frozen=True, kw_only=True)
class Reinforce(Learner, name="reinforce"):
    """Policy gradient with the group's mean as baseline, or with none.

    With the baseline it is Dr. GRPO (Liu et al. 2025, arXiv:2503.20783).
    """

    baseline: Literal["group", "none"] = key(
        "group", "What a return is compared with: its group, or nothing."
    )


class GRPO(Learner, name="grpo"):
    """Also divides by the group's standard deviation over G (Shao et al. 2024, arXiv:2402.03300)."""

    @override
    def advantages(self, returns: np.ndarray) -> np.ndarray:
        deviation = returns.std(axis=2, keepdims=True)
        return super().advantages(returns) / np.where(deviation > 0, deviation, 1.0)


class RLOO(Learner, name="rloo"):
    """Subtracts the mean of the other G - 1 (Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740)."""

    @override
    def advantages(self, returns: np.ndarray) -> np.ndarray:
        others = (returns.sum(axis=2, keepdims=True) - returns) / (returns.shape[2] - 1)
        return returns - others


@dataclass(frozen=True, kw_only=True)
class Posterior(Learner, name="posterior"):
    """Trains towards the belief of an ideal observer of the run's own episodes: all the channel allows."""

    epochs: int = key(16, "Optimiser steps towards the same belief.", SIZES, word="posterior_epochs")
    baseline = "none"  # it learns from every group, whatever its rewards
    wants_beliefs = True
    follows_loss = False
    not_hosted = "trains on every answer at once"

    @override
    def learn(self, policy: Any, batch: Batch) -> None:
        policy.distil(batch.runs, batch.prompts, batch.beliefs, self.epochs)


class Supervised(Learner):
    """Maximum likelihood of the answers that were shown: advantage 1 for each of their tokens."""

    @override
    def learn(self, policy: Any, batch: Batch) -> None:
        policy.update(batch, np.ones(batch.choices.shape), self)


LOADERS["example"] = lambda _: Supervised()


@dataclass(frozen=True, kw_only=True)
class LearnerKeys:
    """The settings of all algorithms under their keys, for type checkers."""

    baseline: Literal["group", "none"] = "group"
    plus_plus_baseline: Literal["batch", "group"] = "batch"
    corpo_threshold: float = 1.0
    positive_weight: float = 0.0
    negative_weight: float = 1.0
    average_decay: float = 0.95
    pairs_beta: float = 0.1
    ppo_clip: float = 0.2
    ppo_clip_high: float | None = None
    ppo_epochs: int = 4
    gspo_clip: float = 3e-4
    gspo_clip_high: float = 4e-4
    cispo_clip: float = 5.0
    dppo_clip: float = 0.2
    dppo_pull: float = 1e-3
    sapo_positive: float = 1.0
    sapo_negative: float = 1.05
    replay_choice: Literal["best", "recent", "random"] = "best"
    replay_episodes: int = 4
    replay_memory: int = 64
    replay_truncation: float = 2.0
    evolution_sigma: float | None = None
    posterior_epochs: int = 16
