"""What an update minimises, as a function of the log-probabilities of the tokens that were chosen.

Every objective sums over the tokens of an episode and averages over the episodes of a run, so that its
gradient is an unbiased policy gradient whatever the length of an answer (no division by length). The runs'
losses are summed, since their parameters are disjoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch


class Objective(Protocol):
    """A loss over chosen tokens."""

    @property
    def epochs(self) -> int:
        """Gradient steps on the same episodes."""

    def loss(self, log_probs: torch.Tensor, before: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        """The loss to minimise, a scalar.

        Args:
            log_probs: (R, E, L) of the chosen tokens, in nats, with their graph.
            before: (R, E, L) the same when the episodes were sampled.
            advantages: (R, E, L), zero at the padding.
        """


@dataclass(frozen=True)
class PolicyGradient:
    """The score-function estimator (Williams 1992): minus advantage times log-probability. With advantage 1
    it is maximum likelihood.
    """

    epochs: int = 1

    def loss(self, log_probs: torch.Tensor, before: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        """See `Objective`."""
        return -(advantages * log_probs).sum(dim=2).mean(dim=1).sum()


@dataclass(frozen=True)
class ClippedRatio:
    """The clipped surrogate of PPO (Schulman et al. 2017, arXiv:1707.06347, eq. 7), token by token, over
    several epochs.
    """

    clip: float = 0.2
    epochs: int = 4

    def loss(self, log_probs: torch.Tensor, before: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        """See `Objective`."""
        ratio = (log_probs - before).exp()
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        return -torch.minimum(ratio * advantages, clipped * advantages).sum(dim=2).mean(dim=1).sum()


def cross_entropy(log_probs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-sum over answers of target times log-probability, summed over the runs: both (R, F)."""
    return -(targets * log_probs).sum()
