"""Format warm-up: before reinforcement begins, the base model is taught to answer, and to know nothing.

Supervised training on uniformly random answers. Its expected loss, the mean over all N answers of -log P(answer), is computed exactly from the
answer trie, so that each step is one forward pass and carries no sampling noise. At its minimum every answer has probability 1/N: the mean number of
bits known is 0 and all mass lies on valid answers. What it costs is reported apart from the experiment's episodes.

A random model is warmed up from its head downwards: the head alone as far as it goes, then all parameters. Trained together from the start, the body
learns the easy way, to look the same wherever the same answer is wanted, and the adapters later find no features to tell the turns apart by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from memory_rl.errors import ModelError
from memory_rl.policies.answer_trie import AnswerTrie
from memory_rl.policies.packed import all_edge_log_probs, decision_states, edge_log_probs, pack_all


@dataclass(frozen=True)
class WarmupSettings:
    """How to warm up.

    Attributes:
        head_steps: at most this many steps of the output head alone come first; 0 for a pretrained model, whose head may be its embedding.
        head_learning_rate: of Adam in those steps.
        learning_rate: of Adam when all parameters are trained. Both rates fall along a half cosine.
        tolerance: KL(uniform || policy) in bits at which to stop. It bounds minus the log2 of the mass on valid answers, too.
        max_steps: of all parameters, in one fall of the rate.
        falls: how often the rate falls before giving up.
    """

    head_steps: int = 0
    head_learning_rate: float = 1e-2
    learning_rate: float = 3e-4
    tolerance: float = 0.005
    max_steps: int = 3000
    falls: int = 3


@dataclass(frozen=True)
class WarmupReport:
    """How a warm-up ended: optimiser steps of the head and of all parameters, and KL(uniform || policy) in bits, minus the mean bits known."""

    head_steps: int
    steps: int
    divergence: float


def warm_up(model: PreTrainedModel, trie: AnswerTrie, num_answers: int, settings: WarmupSettings) -> WarmupReport:
    """Trains the model, in place, until its answers are uniform on [0, num_answers).

    Args:
        model: the base model.
        trie: the valid conversations; the first `num_answers` forms are the answers.
        num_answers: N.
        settings: learning rates and when to stop.

    Raises:
        ModelError: if the tolerance is not reached.
    """
    pack = pack_all(trie)
    head_steps, steps, divergence = 0, 0, math.inf
    if settings.head_steps:
        head, states = model.get_output_embeddings(), decision_states(model, trie, pack)
        descent = _Descent(settings.head_learning_rate, settings.head_steps, settings.tolerance)
        head_steps, divergence = descent.run(lambda: edge_log_probs(trie, head(states)), head.parameters(), trie, num_answers)
    for _ in range(settings.falls):
        if divergence < settings.tolerance:
            break
        descent = _Descent(settings.learning_rate, settings.max_steps, settings.tolerance)
        more, divergence = descent.run(lambda: all_edge_log_probs(model, trie, pack, 1), model.parameters(), trie, num_answers)
        steps += more
    if divergence >= settings.tolerance:
        raise ModelError(f"the format warm-up stopped {divergence:.3f} bits from uniform after {steps} steps: use another model_name or N.")
    return WarmupReport(head_steps, steps, divergence)


@dataclass(frozen=True)
class _Descent:
    """Adam with a rate that falls along a half cosine, until a tolerance or a number of steps is reached."""

    learning_rate: float
    max_steps: int
    tolerance: float

    def run(self, edges: Callable[[], torch.Tensor], parameters: Iterable[torch.nn.Parameter], trie: AnswerTrie, num_answers: int) -> tuple[int, float]:
        """Minimises the mean of -log P(answer); returns the steps made and KL(uniform || policy) in bits.

        Args:
            edges: computes the log-probability of every edge, (1, E).
            parameters: what is trained.
            trie: the valid conversations.
            num_answers: N.
        """
        trained = list(parameters)
        optimiser = torch.optim.Adam(trained, lr=self.learning_rate, fused=True)
        paths = torch.from_numpy(trie.form_edges[:num_answers])
        for step in range(self.max_steps + 1):
            log_probs = edges()[0]
            padded = torch.cat([log_probs, log_probs.new_zeros(1)])  # the padding of a path is its last entry, -1
            loss = -padded[paths].sum(dim=1).mean()
            divergence = loss.item() / math.log(2) - math.log2(num_answers)
            if divergence < self.tolerance or step == self.max_steps:
                break
            optimiser.param_groups[0]["lr"] = self.learning_rate * (0.5 + 0.5 * math.cos(math.pi * step / self.max_steps))
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
        return step, divergence
