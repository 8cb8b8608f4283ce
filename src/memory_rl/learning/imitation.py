"""On-policy distillation: the policy answers, and is drawn towards a teacher's distribution at each token.

Axes: R runs, E episodes, L tokens, C choices of a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import override

from memory_rl.config import LOADERS
from memory_rl.learning.batch import Batch
from memory_rl.learning.learners import Learner

if TYPE_CHECKING:
    import torch

    from memory_rl.config import Signal

FLOOR = 1e-6
"""The least probability whose logarithm is taken, so that what a teacher rules out costs 13.8 nats."""


@dataclass(frozen=True, kw_only=True)
class Imitation(Learner):
    """Moves the policy towards a teacher, at the tokens that it has sampled itself.

    sampled: the advantage of each token is log q - log p, q the teacher's probability and p its own (Lu and
    Thinking Machines Lab 2025, On-Policy Distillation; the Tinker cookbook). It is an unbiased estimate of
    minus the gradient of KL(policy || teacher) at that token.

    whole: that divergence itself (SDFT, arXiv:2601.19897), or the forward one, KL(teacher || policy); GKD
    (arXiv:2306.13649) and SDPO (arXiv:2601.20802) have both, and what lies between. No gradient passes
    through the sampling.

    top_k: the same between coarser distributions, in which all tokens but the teacher's k likeliest are one
    (SDPO's tail; its k are the policy's, and the teacher's where that is on a server, as in TRL).

    Attributes:
        told: "sampled", "top_k" or "whole".
        k: of top_k.
        divergence: "reverse" or "forward"; sampled has none but the reverse.
        wants_beliefs: whether the teacher is the ideal observer.
    """

    told: Literal["sampled", "top_k", "whole"] = "whole"
    k: int = 1
    divergence: Literal["reverse", "forward"] = "reverse"
    wants_beliefs: bool = False
    baseline = "none"  # each answer moves the policy
    samples_suffice = True

    @override
    def learn(self, policy: Any, batch: Batch) -> None:
        policy.imitate(batch, self)

    def tokens_loss(
        self, log_probs: torch.Tensor, chosen: torch.Tensor, taught: torch.Tensor, judged: torch.Tensor
    ) -> torch.Tensor:
        """The loss: a sum over the tokens of an episode, a mean over a run's episodes, a sum over runs.

        Args:
            log_probs: (R, E, L, C) of all choices at each token, in nats, with their graph; -inf where there
                is no such choice.
            chosen: (R, E, L) the choice that was sampled.
            taught: (R, E, L, C) what the teacher gives to them.
            judged: (R, E, L) bool: the tokens that the teacher speaks about.
        """
        log_probs = log_probs.clamp(min=-1e4)  # so that nothing times -inf is 0, and so is its gradient
        if self.told == "sampled":
            own, wanted = (values.gather(3, chosen[..., None])[..., 0] for values in (log_probs, taught))
            each = -(_log(wanted) - own.detach()) * own
        else:
            pair = _coarser(log_probs, taught, self.k) if self.told == "top_k" else (log_probs, taught)
            each = _divergence(*pair, self.divergence)
        return (each * judged).sum(dim=2).mean(dim=1).sum()


def _log(probabilities: torch.Tensor) -> torch.Tensor:
    return probabilities.clamp(min=FLOOR).log()


def _divergence(log_probs: torch.Tensor, taught: torch.Tensor, which: str) -> torch.Tensor:
    """Of distributions along the last axis, in nats."""
    surplus = log_probs - _log(taught)
    return (log_probs.exp() * surplus if which == "reverse" else -taught * surplus).sum(dim=-1)


def _coarser(log_probs: torch.Tensor, taught: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The teacher's k likeliest choices, and all others as one: (..., C) to (..., k + 1), or the same."""
    import torch

    if k >= taught.shape[-1]:
        return log_probs, taught
    order = taught.argsort(dim=-1, descending=True, stable=True)
    log_probs, taught = log_probs.gather(-1, order), taught.gather(-1, order)
    rest, taught_rest = log_probs[..., k:].logsumexp(-1, keepdim=True), taught[..., k:].sum(-1, keepdim=True)
    return torch.cat([log_probs[..., :k], rest], -1), torch.cat([taught[..., :k], taught_rest], -1)


def _imitation(signal: Signal) -> Imitation:
    return Imitation(
        told=signal.told, k=signal.teacher_top_k, divergence=signal.divergence, wants_beliefs=signal.observed
    )


LOADERS["teacher"] = _imitation
