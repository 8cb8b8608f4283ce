"""Terms that are added to the loss of any learner: an entropy bonus, and a pull back to the base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Penalty:
    """What a policy adds to a learner's loss, token by token.

    Summed over the tokens of an episode, averaged over a run's episodes and summed over runs, as the loss is.

    Attributes:
        entropy_bonus: times the entropy, in nats, of each decision on the way is subtracted (Williams and
            Peng 1991). All tokens that no valid answer continues with count as one.
        kl_to_base: times Schulman's k3 estimate of KL(policy || base), r - log r - 1 with r the base's
            probability of the chosen token over the policy's, is added (Schulman 2020, Approximating KL
            divergence; as in Shao et al. 2024, arXiv:2402.03300, eq. 4).
    """

    entropy_bonus: float = 0.0
    kl_to_base: float = 0.0

    @property
    def active(self) -> bool:
        """Whether it adds anything, and so moves a policy whose rewards are all equal."""
        return self.entropy_bonus != 0 or self.kl_to_base != 0

    def loss(
        self,
        log_probs: torch.Tensor,
        decisions: torch.Tensor | None,
        base: torch.Tensor | None,
        is_token: torch.Tensor,
    ) -> torch.Tensor:
        """What is added to the loss, a scalar.

        Args:
            log_probs: (R, E, L) of the chosen tokens, in nats, with their graph.
            decisions: (R, E, L, C) of all choices at each of them, with their graph; for the bonus alone.
            base: (R, E, L) what the base gives to the chosen tokens; for the pull to it alone.
            is_token: (R, E, L) bool; false at the padding.
        """
        each = log_probs.new_zeros(log_probs.shape)
        if self.entropy_bonus:
            assert decisions is not None  # noqa: S101  # the policy asks `active`
            each = each - self.entropy_bonus * entropy(decisions)
        if self.kl_to_base:
            assert base is not None  # noqa: S101
            log_ratio = base - log_probs
            each = each + self.kl_to_base * (log_ratio.exp() - log_ratio - 1)
        return (each * is_token).sum(dim=2).mean(dim=1).sum()


def entropy(log_probs: torch.Tensor) -> torch.Tensor:
    """Of distributions along the last axis, in nats, with its graph; -inf is the probability of nothing."""
    finite = log_probs.clamp(min=-1e4)  # so that nothing times -inf is 0, and so is its gradient
    return -(finite.exp() * finite).sum(dim=-1)
