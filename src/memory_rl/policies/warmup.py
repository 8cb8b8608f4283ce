"""Format warm-up: before reinforcement begins, the base model is taught to answer, and to know nothing.

Supervised training of all parameters on uniformly random answers. Its expected loss, the mean over all N answers of -log P(answer), is computed
exactly from the answer trie, so that each step is one forward pass and carries no sampling noise. At its minimum every answer has probability 1/N:
the mean number of bits known is 0 and all mass lies on valid answers. What it costs is reported apart from the experiment's episodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from memory_rl.errors import ModelError
from memory_rl.policies.answer_trie import AnswerTrie
from memory_rl.policies.packed import all_edge_log_probs, pack_all


@dataclass(frozen=True)
class WarmupSettings:
    """How to warm up.

    Attributes:
        learning_rate: of Adam at the start; it falls along a half cosine.
        tolerance: KL(uniform || policy) in bits at which to stop. It bounds minus the log2 of the mass on valid answers, too.
        max_steps: after which to give up.
    """

    learning_rate: float = 1e-3
    tolerance: float = 0.002
    max_steps: int = 3000


@dataclass(frozen=True)
class WarmupReport:
    """How a warm-up ended: optimiser steps, and KL(uniform || policy) in bits, which is minus the mean bits known."""

    steps: int
    divergence: float


def warm_up(model: PreTrainedModel, trie: AnswerTrie, num_answers: int, settings: WarmupSettings) -> WarmupReport:
    """Trains all parameters of the model, in place, until its answers are uniform on [0, num_answers).

    Args:
        model: the base model.
        trie: the valid conversations; the first `num_answers` forms are the answers.
        num_answers: N.
        settings: learning rate and when to stop.

    Raises:
        ModelError: if the tolerance is not reached.
    """
    pack = pack_all(trie)
    paths = torch.from_numpy(trie.form_edges[:num_answers])
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)
    model.train()
    for step in range(settings.max_steps):
        edges = all_edge_log_probs(model, trie, pack, 1)[0]
        padded = torch.cat([edges, edges.new_zeros(1)])  # the padding of a path is its last entry, -1
        loss = -padded[paths].sum(dim=1).mean()
        divergence = loss.item() / math.log(2) - math.log2(num_answers)
        if divergence < settings.tolerance:
            model.eval()
            return WarmupReport(step, divergence)
        optimiser.param_groups[0]["lr"] = settings.learning_rate * (0.5 + 0.5 * math.cos(math.pi * step / settings.max_steps))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    raise ModelError(f"the format warm-up stopped {divergence:.3f} bits from uniform after {settings.max_steps} steps: use another model_name or N.")
