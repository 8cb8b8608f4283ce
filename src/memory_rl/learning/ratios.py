"""Learners that differ in the loss: what is made of rho, a token's probability over that before the update.

Each takes several steps on the same episodes: in the first one rho is 1, and all but `Pairs` go down the same
policy gradient. The advantages are those of `Reinforce`; losses are summed over the tokens of an episode, as
everywhere, where their sources mostly divide by a length.

Axes: R runs, E episodes, L tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from memory_rl.keys import key
from memory_rl.learning.batch import Batch
from memory_rl.learning.learners import Learner, Reinforce, epochs_key, over_runs
from memory_rl.limits import FACTORS

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Ratio(Reinforce):
    """Several steps on the same episodes."""

    epochs: int = epochs_key()


@dataclass(frozen=True, kw_only=True)
class PPO(Ratio, name="ppo"):
    """The clipped surrogate of each token (Schulman et al. 2017, arXiv:1707.06347, eq. 7).

    With a higher upper clip it is DAPO's (Yu et al. 2025, arXiv:2503.14476): ppo_clip_high=0.28.
    """

    clip: float = key(0.2, "The ratio is clipped to 1 +- this.", FACTORS, word="ppo_clip")
    clip_high: float | None = key(
        None,
        "The ratio is clipped to 1 + this above. Default: ppo_clip.",
        FACTORS,
        word="ppo_clip_high",
    )

    @property
    def upper(self) -> float:
        """How far above 1 the ratio is clipped."""
        return self.clip if self.clip_high is None else self.clip_high

    @override
    def loss(self, log_probs: torch.Tensor, before: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        return over_runs(-surrogate((log_probs - before).exp(), advantages, self.clip, self.upper))


def surrogate(ratio: torch.Tensor, advantages: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """The lesser of ratio times advantage, clipped to [1 - low, 1 + high] and not."""
    return (ratio * advantages).minimum(ratio.clamp(1 - low, 1 + high) * advantages)


@dataclass(frozen=True, kw_only=True)
class GSPO(Ratio, name="gspo"):
    """The same with one ratio an answer: exp of the mean of log rho (Zheng et al. 2025, arXiv:2507.18071).

    Its form for tokens (eq. 13 and 14), which keeps the advantage of each; averaged over the tokens of an
    answer as there. A token counts unless its advantage is 0 and it was and is sure.
    """

    clip: float = key(3e-4, "An answer's ratio is clipped to 1 less this.", FACTORS, word="gspo_clip")
    clip_high: float = key(
        4e-4, "An answer's ratio is clipped to 1 and this.", FACTORS, word="gspo_clip_high"
    )

    @override
    def loss(self, log_probs: torch.Tensor, before: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        is_token = (advantages != 0) | (log_probs != 0) | (before != 0)
        length = is_token.sum(dim=2, keepdim=True).clamp(min=1)
        of_answer = (log_probs - before).sum(dim=2, keepdim=True) / length
        ratio = (of_answer.detach() + log_probs - log_probs.detach()).exp()
        return over_runs(-surrogate(ratio, advantages, self.clip, self.clip_high) / length)


@dataclass(frozen=True, kw_only=True)
class CISPO(Ratio, name="cispo"):
    """The policy gradient, weighted with the ratio up to a clip (MiniMax 2025, arXiv:2506.13585).

    With no clip below. The default is that of ScaleRL (arXiv:2510.13786) and TRL; Tinker's is 4.
    """

    clip: float = key(5.0, "The most that a ratio weighs.", FACTORS, word="cispo_clip")

    @override
    def loss(self, log_probs: torch.Tensor, before: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        weight = (log_probs - before).exp().clamp(max=self.clip).detach()
        return over_runs(-(weight * advantages * log_probs))


@dataclass(frozen=True, kw_only=True)
class DPPO(Ratio, name="dppo"):
    """Leaves out tokens whose probability has moved too far (Qi et al. 2026, arXiv:2602.04879, binary TV).

    Too far in the direction of their advantage. With prime-rl's pull back, times log^2 rho, of tokens that
    have an advantage.
    """

    clip: float = key(
        0.2,
        "A token counts no more once its probability has moved by this with its advantage.",
        (1e-6, 1),
        word="dppo_clip",
    )
    pull: float = key(1e-3, "Times the square of log ratios.", (0, FACTORS[1]), word="dppo_pull")

    @override
    def loss(self, log_probs: torch.Tensor, before: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        log_ratio = log_probs - before
        moved = (log_probs.exp() - before.exp()).detach() * advantages.sign()
        surrogates = (log_ratio.exp() * advantages).where(moved <= self.clip, 0.0)
        return over_runs(self.pull * log_ratio.square() * (advantages != 0) - surrogates)


@dataclass(frozen=True, kw_only=True)
class SAPO(Ratio, name="sapo"):
    """A soft gate in place of the clip: (4 / tau) sigmoid(tau (rho - 1)) (Gao et al., arXiv:2511.20347)."""

    positive: float = key(1.0, "tau where the advantage is above 0.", FACTORS, word="sapo_positive")
    negative: float = key(1.05, "tau where it is not.", FACTORS, word="sapo_negative")

    @override
    def loss(self, log_probs: torch.Tensor, before: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        tau = advantages.new_full((), self.positive).where(advantages > 0, self.negative)
        gate = (tau * ((log_probs - before).exp() - 1)).sigmoid() * 4 / tau
        return over_runs(-(gate * advantages))


@dataclass(kw_only=True)
class Pairs(Learner, name="pairs"):
    """All pairs of a group with different returns, as preferences (DPO, Rafailov et al., arXiv:2305.18290).

    -log sigma(beta (d_better - d_worse)) with d the log-probability of an answer less that before the update:
    the reference is the policy that gave the answers. Averaged over the pairs of a group, then over groups.
    An answer is judged by the sum of what its steps are credited with.
    """

    beta: float = key(0.1, "Of the preference loss.", FACTORS, word="pairs_beta")
    epochs: int = epochs_key()
    samples_suffice = True
    _num_groups = 1

    @override
    def advantages(self, returns: np.ndarray) -> np.ndarray:
        """Of each answer, how many others of its group are worse less how many are better."""
        total = returns.sum(axis=3)
        better = total[:, :, :, None] > total[:, :, None, :]
        order = better.sum(axis=3) - better.sum(axis=2)
        return np.broadcast_to(order[:, :, :, None], returns.shape).astype(np.float64)

    @override
    def loss(self, log_probs: torch.Tensor, before: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        by_group = len(log_probs), self._num_groups, -1
        moved = (log_probs - before).sum(dim=2).view(by_group)
        order = advantages[:, :, 0].reshape(by_group)  # its first token is never padding
        better = order[:, :, :, None] > order[:, :, None, :]
        margin = self.beta * (moved[:, :, :, None] - moved[:, :, None, :])
        each = (-margin).logaddexp(margin.new_zeros(())) * better  # -log sigma(margin)
        of_groups = each.sum(dim=(2, 3)) / better.sum(dim=(2, 3)).clamp(min=1)
        return of_groups.mean(dim=1).sum()

    @override
    def learn(self, policy: Any, batch: Batch) -> np.ndarray:
        assert batch.returns is not None  # noqa: S101  # rewarded
        self._num_groups = batch.returns.shape[1]
        return self._move(policy, batch, self.advantages(batch.returns))
