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
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from typing_extensions import override

from memory_rl.errors import ModelError
from memory_rl.policies.answer_directions import open_answers
from memory_rl.policies.answer_trie import NONE, AnswerTrie
from memory_rl.policies.lora import LoRASettings, StackedAdapters
from memory_rl.policies.packed import (
    all_edge_log_probs,
    decision_log_probs,
    decision_states,
    edge_log_probs,
    form_log_probs,
    forward,
    pack_all,
    pack_nodes,
    tensor_beside,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ANSWERS_A_PASS = 2**11  # more are taught path by path
_TOKENS_A_PASS = 2**12  # of several prompts
_ROWS, _ANSWERS_A_ROW = 8, 16  # of a step on some paths
_RECENT_STEPS = 100  # over which the divergence is averaged where it is sampled
_MOST_ROUNDED = 0.05  # bits from uniform that are accepted after rounding to the type of the weights


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
    started, lesson = time.monotonic(), _lesson(model, trie, num_answers, settings)
    head_steps, divergence = 0, math.inf
    # On some answers the head alone grows huge weights, and reinforcement then takes three times the updates.
    if isinstance(lesson, _AllAnswers) and settings.head_steps:
        head = model.get_output_embeddings()
        after_step = open_answers(model, trie) if trie.num_prompts > 1 else None
        head_steps, divergence = _descend(
            lesson.of_head(head),
            list(head.parameters()),
            settings.head_learning_rate,
            settings.head_steps,
            lesson.tolerance,
            after_step,
        )
    steps = 0 if divergence < lesson.tolerance else _learn(settings, lesson, lesson, model.parameters())
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
    started, lesson = time.monotonic(), _lesson(model, trie, num_answers, settings)
    adapters = StackedAdapters(model, LoRASettings(settings.adapter_rank), [0])

    def loss() -> tuple[torch.Tensor, float]:
        adapters.activate([0])
        return lesson()

    try:
        steps = _learn(settings, lesson, loss, adapters.vectors)
    finally:
        for name, layer in adapters.layers.items():
            model.set_submodule(name, layer.base)
    changes = {
        f"{name}.{part}": matrix.cpu().contiguous()
        for name, (down, up) in adapters.matrices(0).items()
        for part, matrix in (("down", down), ("up", adapters.layers[name].scale * up))
    }
    merge(model, changes)
    divergence, error = lesson.divergence()
    if divergence > lesson.tolerance + _MOST_ROUNDED:
        raise ModelError(
            f"the format warm-up ends {divergence:.3f} bits from uniform once it is rounded to "
            f"{model.dtype}: use dtype=float32."
        )
    return WarmupReport(0, steps, divergence, error, lesson.tokens, time.monotonic() - started), changes


def merge(model: PreTrainedModel, changes: Mapping[str, torch.Tensor]) -> None:
    """Adds the adapter of `warm_up_by_adapter` to the weights of the model that it was made for."""
    with torch.no_grad():
        for name in sorted({name.rpartition(".")[0] for name in changes}):
            weight, change = (
                model.get_parameter(f"{name}.weight"),
                changes[f"{name}.up"] @ changes[f"{name}.down"],
            )
            weight.copy_(weight.float() + change.to(weight.device))


def _learn(
    settings: WarmupSettings, lesson: _Lesson, loss: Loss, parameters: Iterable[torch.nn.Parameter]
) -> int:
    """As many falls of the rate as it takes; returns the steps."""
    trained, steps = list(parameters), 0
    for _ in range(settings.falls):
        more, divergence = _descend(
            loss, trained, settings.learning_rate, settings.max_steps, lesson.tolerance
        )
        steps += more
        if divergence < lesson.tolerance:
            return steps
    raise ModelError(
        f"the format warm-up stopped {divergence:.3f} bits from uniform after {steps} steps: "
        "use another model_name or N."
    )


def _descend(
    loss: Loss,
    trained: Sequence[torch.nn.Parameter],
    learning_rate: float,
    max_steps: int,
    tolerance: float,
    after_step: Callable[[], None] | None = None,
) -> tuple[int, float]:
    """Adam with a rate that falls along a half cosine, until a tolerance or a number of steps is reached.

    Returns:
        The steps made, and KL(uniform || policy) in bits.
    """
    optimiser = torch.optim.Adam(trained, lr=learning_rate, fused=True)
    for step in range(max_steps + 1):
        value, divergence = loss()
        if divergence < tolerance or step == max_steps:
            break
        optimiser.param_groups[0]["lr"] = learning_rate * (0.5 + 0.5 * math.cos(math.pi * step / max_steps))
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        if after_step is not None:
            after_step()
    return step, divergence


Loss = Callable[[], tuple[torch.Tensor, float]]
"""Gives the loss of a step with its graph, and KL(uniform || policy) in bits as far as it is known."""


class _Lesson:
    """A `Loss`, and when it is good enough.

    Attributes:
        tolerance: KL(uniform || policy) in bits at which to stop.
        tokens: that went through the model.
    """

    def __init__(self, model: PreTrainedModel, trie: AnswerTrie, num_answers: int, tolerance: float) -> None:
        self._model, self._trie, self._num_answers, self.tolerance = model, trie, num_answers, tolerance
        self.tokens = 0
        self._recent: deque[float] = deque(maxlen=_RECENT_STEPS)

    def __call__(self) -> tuple[torch.Tensor, float]:
        """See `Loss`; the divergence is the mean of the last steps, infinity until there are enough."""
        loss, divergence = self._step()
        self._recent.append(divergence)
        enough = len(self._recent) == self._recent.maxlen
        return loss, float(np.mean(self._recent)) if enough else math.inf

    @abstractmethod
    def _step(self) -> tuple[torch.Tensor, float]:
        """The loss with its graph, and the divergence in bits, of what this step is about."""

    @abstractmethod
    def divergence(self) -> tuple[float, float]:
        """KL(uniform || policy) in bits as the model is now, and its standard error."""


def _lesson(
    model: PreTrainedModel, trie: AnswerTrie, num_answers: int, settings: WarmupSettings
) -> _AllAnswers | _SomeAnswers:
    if num_answers <= _ANSWERS_A_PASS:
        return _AllAnswers(model, trie, num_answers, settings.tolerance)
    return _SomeAnswers(model, trie, num_answers, settings.sampled_tolerance)


class _AllAnswers(_Lesson):
    """The exact loss, from the whole trie in one pass; where there are many prompts, some of them in turn."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._pack, num_prompts = pack_all(self._trie), self._trie.num_prompts
        passes = min(num_prompts, math.ceil(num_prompts * self._pack.tokens.numel() / _TOKENS_A_PASS))
        self._passes = [np.arange(first, num_prompts, passes) for first in range(passes)]
        self._recent = deque(maxlen=passes)

    @override
    def _step(self) -> tuple[torch.Tensor, float]:
        self._passes.append(self._passes.pop(0))
        return self._of_prompts(self._passes[-1])

    def of_head(self, head: torch.nn.Module) -> Loss:
        """The loss as a function of the head alone, behind all prompts at once."""
        states = decision_states(self._model, self._trie, self._pack, range(self._trie.num_prompts))
        return lambda: self._loss(edge_log_probs(self._trie, head(states)))

    @override
    def divergence(self) -> tuple[float, float]:
        with torch.no_grad():
            each = [self._of_prompts(some)[1] for some in self._passes]
        return float(np.average(each, weights=[len(some) for some in self._passes])), 0.0

    def _of_prompts(self, prompts: np.ndarray) -> tuple[torch.Tensor, float]:
        self.tokens += self._pack.tokens.numel() * len(prompts)
        return self._loss(all_edge_log_probs(self._model, self._trie, self._pack, prompts))

    def _loss(self, log_probs: torch.Tensor) -> tuple[torch.Tensor, float]:
        loss = -form_log_probs(self._trie, log_probs, self._num_answers).mean()
        return loss, loss.item() / math.log(2) - math.log2(self._num_answers)


class _SomeAnswers(_Lesson):
    """The loss on the paths of random answers: rows of several answers each, that share their prompt."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._random = np.random.default_rng(0)

    @override
    def _step(self) -> tuple[torch.Tensor, float]:
        """KL(uniform || policy) in nats, decision by decision on the paths of random answers."""
        draws = self._random.integers(self._num_answers, size=(_ROWS, _ANSWERS_A_ROW))
        paths = self._trie.form_edges[draws]
        row, *_ = where = np.nonzero(paths != NONE)
        decision = self._trie.edge_decision[paths[where]]
        nodes = self._trie.decision_node[decision]
        pack = pack_nodes(self._trie, row, nodes, _ROWS)
        keep, place = pack.kept(row, nodes)
        self.tokens += pack.tokens.numel()
        logits = forward(self._model, pack, keep, self._trie.prompt)[row, place]
        edges = self._trie.decision_edges[decision]
        share = tensor_beside(logits, np.where(edges == NONE, 0.0, self._trie.edge_share[edges])).float()
        log_probs = decision_log_probs(self._trie, decision, logits)
        divergence = torch.where(share > 0, share * (share.log() - log_probs), 0.0).sum() / draws.size
        return divergence, divergence.item() / math.log(2)

    @override
    def divergence(self) -> tuple[float, float]:
        with torch.no_grad():
            steps = [self._step()[1] for _ in range(_RECENT_STEPS)]
        return float(np.mean(steps)), float(np.std(steps, ddof=1) / math.sqrt(len(steps)))
