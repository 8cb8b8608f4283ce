"""Format warm-up: before reinforcement begins, the base model is taught to answer, and to know nothing.

Supervised training on uniformly random answers. Its expected loss, the mean over all N answers of -log
P(answer), is computed exactly from the answer trie, so that each step is one forward pass and carries no
sampling noise. At its minimum every answer has probability 1/N: the mean number of bits known is 0 and all
mass lies on valid answers. What it costs is reported apart from the experiment's episodes.

Where the trie is too large for a pass, each step takes the paths of some random answers. What the model
should say at each decision on them is known, the share of the answers that go on with each token, so that the
loss, KL(uniform || policy) decision by decision, still has no noise but that of the paths.

A random model is warmed up from its head downwards: the head alone as far as it goes, then all parameters.
Trained together from the start, the body learns the easy way, to look the same wherever the same answer is
wanted, and the adapters later find no features to tell the turns apart by.

With several prompts the body is first kept from preferring any answer, and the head keeps what it tells
answers apart by: see answer_directions.py.

A pretrained model is warmed up through a LoRA adapter, which is then added to its weights: that takes little
memory, and little room in the cache.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from memory_rl.errors import ModelError
from memory_rl.policies.answer_directions import open_answers
from memory_rl.policies.answer_trie import NONE, AnswerTrie
from memory_rl.policies.lora import LoRASettings, StackedAdapters
from memory_rl.policies.packed import (
    all_edge_log_probs,
    decision_log_probs,
    decision_states,
    edge_log_probs,
    forward,
    pack_all,
    pack_nodes,
    tensor_beside,
)

_ANSWERS_A_PASS = 2**11  # more are taught path by path
_TOKENS_A_PASS = 2**12  # of several prompts
_ROWS, _ANSWERS_A_ROW = 8, 16  # of a step on some paths
_RECENT_STEPS = 100  # over which the divergence is averaged where it is sampled
_MOST_ROUNDED = (
    0.05  # bits from uniform that are put up with after an adapter was added to weights of half precision
)


@dataclass(frozen=True)
class WarmupSettings:
    """How to warm up.

    Attributes:
        head_steps: at most this many steps of the output head alone come first; 0 for a pretrained model,
            whose head may be its embedding.
        head_learning_rate: of Adam in those steps.
        learning_rate: of Adam when all parameters are trained. Both rates fall along a half cosine.
        tolerance: KL(uniform || policy) in bits at which to stop. It bounds minus the log2 of the mass on
            valid answers, too.
        sampled_tolerance: the same where only some answers are taught at a time.
        max_steps: of all parameters, in one fall of the rate.
        falls: how often the rate falls before giving up.
        adapter_rank: rank of the adapter that is trained in place of all parameters; 0 for none.
    """

    head_steps: int = 0
    head_learning_rate: float = 1e-2
    learning_rate: float = 3e-4
    tolerance: float = 0.005
    sampled_tolerance: float = 0.04
    max_steps: int = 3000
    falls: int = 3
    adapter_rank: int = 0


@dataclass(frozen=True)
class WarmupReport:
    """How a warm-up ended.

    Attributes:
        head_steps: optimiser steps of the head.
        steps: optimiser steps of all parameters, or of the adapter.
        divergence: KL(uniform || policy) in bits, minus the mean bits known.
        divergence_error: its standard error, 0 where it was computed from all answers.
        tokens: that went through the model, the steps of the head apart.
        seconds: that it took when it was made.
    """

    head_steps: int
    steps: int
    divergence: float
    divergence_error: float = 0.0
    tokens: int = 0
    seconds: float = 0.0


def warm_up(
    model: PreTrainedModel, trie: AnswerTrie, num_answers: int, settings: WarmupSettings
) -> WarmupReport:
    """Trains the model, in place, until its answers are uniform on [0, num_answers).

    Args:
        model: the base model.
        trie: the valid conversations; the first `num_answers` forms are the answers.
        num_answers: N.
        settings: learning rates and when to stop.

    Raises:
        ModelError: if the tolerance is not reached.
    """
    started, lesson = time.monotonic(), _lesson(model, trie, num_answers)
    tolerance, head_steps, divergence = settings.tolerance, 0, math.inf
    if isinstance(lesson, _AllAnswers):
        if settings.head_steps:
            head = model.get_output_embeddings()
            after_step = open_answers(model, trie) if trie.num_prompts > 1 else None
            descent = _Descent(settings.head_learning_rate, settings.head_steps, tolerance)
            head_steps, divergence = descent.run(lesson.of_head(head), head.parameters(), after_step)
    else:  # no head alone: on some answers it grows huge weights, and reinforcement then takes three times the updates
        tolerance = settings.sampled_tolerance
    steps = 0 if divergence < tolerance else _descend(settings, tolerance, lesson, model.parameters())
    return WarmupReport(head_steps, steps, *lesson.divergence(), lesson.tokens, time.monotonic() - started)


def warm_up_by_adapter(
    model: PreTrainedModel, trie: AnswerTrie, num_answers: int, settings: WarmupSettings
) -> tuple[WarmupReport, dict[str, torch.Tensor]]:
    """As `warm_up`, through an adapter that is then added to the weights; no other parameter changes.

    Returns:
        The report, and the adapter for `merge`.

    Raises:
        ModelError: if the tolerance is not reached, or the sum, rounded to the type of the weights, is far
            from it.
    """
    started, lesson = time.monotonic(), _lesson(model, trie, num_answers)
    tolerance = settings.tolerance if isinstance(lesson, _AllAnswers) else settings.sampled_tolerance
    adapters = StackedAdapters(model, LoRASettings(settings.adapter_rank), [0])

    def loss() -> tuple[torch.Tensor, float]:
        adapters.activate([0])
        return lesson()

    try:
        steps = _descend(settings, tolerance, loss, adapters.vectors)
    finally:
        scale = _remove(model, adapters)
    changes = {
        f"{name}.{part}": matrix.cpu().contiguous()
        for name, (down, up) in adapters.matrices(0).items()
        for part, matrix in _parts(down, scale * up)
    }
    merge(model, changes)
    divergence, error = lesson.divergence()
    if divergence > tolerance + _MOST_ROUNDED:
        raise ModelError(
            f"the format warm-up ends {divergence:.3f} bits from uniform once it is rounded to {model.dtype}: use dtype=float32."
        )
    return WarmupReport(0, steps, divergence, error, lesson.tokens, time.monotonic() - started), changes


def merge(model: PreTrainedModel, changes: Mapping[str, torch.Tensor]) -> bool:
    """Adds the adapter of `warm_up_by_adapter` to the weights of the model it was made for; returns whether
    it fits.
    """
    names = sorted({name.rpartition(".")[0] for name in changes})
    try:
        pairs = [
            (model.get_parameter(f"{name}.weight"), changes[f"{name}.up"] @ changes[f"{name}.down"])
            for name in names
        ]
    except (AttributeError, KeyError, RuntimeError):
        return False
    if not pairs or any(weight.shape != change.shape for weight, change in pairs):
        return False
    with torch.no_grad():
        for weight, change in pairs:
            weight.copy_(weight.float() + change.to(weight.device))
    return True


def _parts(down: torch.Tensor, up: torch.Tensor) -> tuple[tuple[str, torch.Tensor], ...]:
    return ("down", down), ("up", up)


def _remove(model: PreTrainedModel, adapters: StackedAdapters) -> float:
    """Puts the plain layers back; returns what the adapters are scaled by."""
    for name in adapters.matrices(0):
        layer, (parent, _, child) = model.get_submodule(name), name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.base)
    return float(layer.scale)


def _descend(
    settings: WarmupSettings, tolerance: float, loss: Loss, parameters: Iterable[torch.nn.Parameter]
) -> int:
    """As many falls of the rate as it takes; returns the steps."""
    trained, steps = list(parameters), 0
    for _ in range(settings.falls):
        more, divergence = _Descent(settings.learning_rate, settings.max_steps, tolerance).run(loss, trained)
        steps += more
        if divergence < tolerance:
            return steps
    raise ModelError(
        f"the format warm-up stopped {divergence:.3f} bits from uniform after {steps} steps: use another model_name or N."
    )


def _lesson(model: PreTrainedModel, trie: AnswerTrie, num_answers: int) -> _AllAnswers | _SomeAnswers:
    return (_AllAnswers if num_answers <= _ANSWERS_A_PASS else _SomeAnswers)(model, trie, num_answers)


Loss = Callable[[], tuple[torch.Tensor, float]]
"""Gives the loss of a step with its graph, and KL(uniform || policy) in bits as far as it is known."""


class _AllAnswers:
    """The exact loss, from the whole trie in one pass; where there are many prompts, some of them in turn."""

    def __init__(self, model: PreTrainedModel, trie: AnswerTrie, num_answers: int) -> None:
        self._model, self._trie, self._num_answers = model, trie, num_answers
        self._pack = pack_all(trie)
        self._paths = torch.from_numpy(trie.form_edges[:num_answers]).to(model.device)
        self._prompts = np.arange(trie.num_prompts)
        passes = math.ceil(trie.num_prompts * self._pack.tokens.numel() / _TOKENS_A_PASS)
        self._passes = [self._prompts[first::passes] for first in range(min(passes, trie.num_prompts))]
        self._recent: deque[float] = deque(maxlen=len(self._passes))
        self.tokens = 0

    def __call__(self) -> tuple[torch.Tensor, float]:
        loss, divergence = self._of_prompts(self._passes[0])
        self._passes.append(self._passes.pop(0))
        self._recent.append(divergence)
        return loss, float(np.mean(self._recent)) if len(self._recent) == len(self._passes) else math.inf

    def of_head(self, head: torch.nn.Module) -> Loss:
        states = decision_states(self._model, self._trie, self._pack, self._prompts)
        return lambda: self._loss(edge_log_probs(self._trie, head(states)))

    def divergence(self) -> tuple[float, float]:
        with torch.no_grad():
            return float(
                np.average(
                    [self._of_prompts(some)[1] for some in self._passes],
                    weights=[len(some) for some in self._passes],
                )
            ), 0.0

    def _of_prompts(self, prompts: np.ndarray) -> tuple[torch.Tensor, float]:
        self.tokens += self._pack.tokens.numel() * len(prompts)
        which = prompts if len(self._prompts) > 1 else None
        return self._loss(all_edge_log_probs(self._model, self._trie, self._pack, len(prompts), which))

    def _loss(self, log_probs: torch.Tensor) -> tuple[torch.Tensor, float]:
        padded = torch.cat(
            [log_probs, log_probs.new_zeros(len(log_probs), 1)], dim=1
        )  # the padding of a path is its last entry, -1
        loss = -padded[:, self._paths].sum(dim=2).mean()
        return loss, loss.item() / math.log(2) - math.log2(self._num_answers)


class _SomeAnswers:
    """The loss on the paths of random answers: rows of several answers each, that share their prompt."""

    def __init__(self, model: PreTrainedModel, trie: AnswerTrie, num_answers: int) -> None:
        self._model, self._trie, self._num_answers = model, trie, num_answers
        self._random = np.random.default_rng(0)
        self._recent: deque[float] = deque(maxlen=_RECENT_STEPS)
        self.tokens = 0

    def __call__(self) -> tuple[torch.Tensor, float]:
        row, path, decision = self._draw()
        pack = pack_nodes(self._trie, row, self._trie.decision_node[decision], _ROWS)
        keep, place = np.unique(pack.slots(row, self._trie.decision_node[decision]), return_inverse=True)
        self.tokens += pack.tokens.numel()
        logits = forward(self._model, pack, 1, torch.from_numpy(keep))
        return self._loss(path, decision, logits[tensor_beside(logits, row), tensor_beside(logits, place)])

    def divergence(self) -> tuple[float, float]:
        with torch.no_grad():
            steps = np.array([self()[0].item() for _ in range(_RECENT_STEPS)]) / math.log(2)
        return float(steps.mean()), float(steps.std(ddof=1) / math.sqrt(len(steps)))

    def _draw(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Random answers: the row, the answer and the decision of each token on their paths."""
        edges = self._trie.form_edges[self._random.integers(self._num_answers, size=(_ROWS, _ANSWERS_A_ROW))]
        row, answer, place = np.nonzero(edges != NONE)
        return row, row * _ANSWERS_A_ROW + answer, self._trie.edge_decision[edges[row, answer, place]]

    def _loss(
        self, path: np.ndarray, decision: np.ndarray, logits: torch.Tensor
    ) -> tuple[torch.Tensor, float]:
        """KL(uniform || policy) in nats, from the logits at the decisions on the paths of random answers."""
        edges = self._trie.decision_edges[decision]
        share = tensor_beside(logits, np.where(edges == NONE, 0.0, self._trie.edge_share[edges])).float()
        log_probs = decision_log_probs(self._trie, decision, logits)
        divergence = torch.where(share > 0, share * (share.log() - log_probs), 0.0).sum() / (
            int(path.max()) + 1
        )
        self._recent.append(divergence.item() / math.log(2))
        return divergence, float(np.mean(self._recent)) if len(self._recent) == _RECENT_STEPS else math.inf


@dataclass(frozen=True)
class _Descent:
    """Adam with a rate that falls along a half cosine, until a tolerance or a number of steps is reached."""

    learning_rate: float
    max_steps: int
    tolerance: float

    def run(
        self,
        loss: Loss,
        parameters: Iterable[torch.nn.Parameter],
        after_step: Callable[[], None] | None = None,
    ) -> tuple[int, float]:
        """Minimises a loss; returns the steps made and KL(uniform || policy) in bits.

        Args:
            loss: see `Loss`.
            parameters: what is trained.
            after_step: called when the parameters were changed.
        """
        trained = list(parameters)
        optimiser = torch.optim.Adam(trained, lr=self.learning_rate, fused=True)
        for step in range(self.max_steps + 1):
            value, divergence = loss()
            if divergence < self.tolerance or step == self.max_steps:
                break
            optimiser.param_groups[0]["lr"] = self.learning_rate * (
                0.5 + 0.5 * math.cos(math.pi * step / self.max_steps)
            )
            optimiser.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            if after_step is not None:
                after_step()
        return step, divergence
