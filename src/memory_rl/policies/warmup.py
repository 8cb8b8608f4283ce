"""Format warm-up: before reinforcement begins, the base model is taught to answer, and to know nothing.

Supervised training on uniformly random answers. Its expected loss, the mean over all N answers of -log
P(answer), is computed exactly from the answer trie, so that each step is one forward pass and carries no
sampling noise. At its minimum every answer has probability 1/N: the mean number of bits known is 0 and all
mass lies on valid answers. What it costs is reported apart from the experiment's episodes.

With a prior that is not uniform, answers are weighted by it, in the loss or in how they are drawn: that is
then the target.

Where the trie is too large for a pass, each step takes the paths of some random answers. What the model
should say at each decision on them is known, the share of the answers that go on with each token, so that the
loss, KL(target || policy) decision by decision, still has no noise but that of the paths.

A random model is warmed up from its head downwards: the head alone as far as it goes, then all parameters.
Trained together from the start, the body learns the easy way, to look the same wherever the same answer is
wanted, and the adapters later find no features to tell the turns apart by.

With several prompts the body is first kept from preferring any answer, and the head keeps what it tells
answers apart by: see answer_directions.py.

A pretrained model is warmed up through an adapter first: see pretrained_warmup.py.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from typing_extensions import override

from memory_rl.policies.answer_directions import open_answers
from memory_rl.policies.answer_trie import NONE, AnswerTrie
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
from memory_rl.policies.prior import entropy_of
from memory_rl.policies.warmup_report import WarmupReport

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ANSWERS_A_PASS = 2**11  # more are taught path by path
_TOKENS_A_PASS = 2**12  # of several prompts
_ROWS, _ANSWERS_A_ROW, _EDGES_A_ROW = 8, 16, 128  # at most, of a step on some paths
_ROWS_OF_HEAD = 256  # on whose paths the head alone is fitted
_RECENT_STEPS = 100  # over which the divergence is averaged where it is sampled
_PATIENCE = 5  # a fall ends early if in this part of its steps the divergence has not sunk by
_LEAST_GAIN = 0.01  # this share

Watch = Callable[[int, float], object]
"""Is told the steps so far and the bits from the target, infinity while they are not known."""


@dataclass(frozen=True)
class WarmupSettings:
    """How to warm up.

    Attributes:
        head_steps: at most this many steps of the output head alone come first; 0 for a pretrained model,
            whose head may be its embedding.
        head_learning_rate: of Adam in those steps.
        learning_rate: of Adam when all parameters are trained. Both rates fall along a half cosine.
        tolerance: KL(target || policy) in bits at which to stop. It bounds minus the log2 of the mass on
            valid answers, too.
        sampled_tolerance: the same where only some answers are taught at a time.
        max_steps: of all parameters, in one fall of the rate.
        falls: how often the rate falls before giving up, unless nothing improves before.
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

    def within(self, accepted: float | None) -> WarmupSettings:
        """These settings, with tolerances that are no looser than what is accepted."""
        if accepted is None:
            return self
        tolerance, sampled = min(self.tolerance, accepted), min(self.sampled_tolerance, accepted)
        return replace(self, tolerance=tolerance, sampled_tolerance=sampled)


def warm_up(
    model: PreTrainedModel,
    trie: AnswerTrie,
    num_answers: int,
    settings: WarmupSettings,
    watch: Watch | None = None,
    prior: np.ndarray | None = None,
) -> WarmupReport:
    """Trains the model, in place, until its answers are uniform on [0, num_answers) or nothing improves.

    Args:
        model: the base model.
        trie: the valid conversations; the first `num_answers` forms are the answers.
        num_answers: N.
        settings: learning rates and when to stop.
        watch: is told of each step.
        prior: (N,) N times the probability that each answer is to have, if that is not uniform.
    """
    started, lesson = time.monotonic(), make_lesson(model, trie, num_answers, settings, watch, prior)
    head_steps, divergence = 0, math.inf
    # On some answers of one turn the head alone grows huge weights, and reinforcement then takes three times
    # the updates. On the turns of some conversations it does not: each decision is there many times.
    if settings.head_steps and (isinstance(lesson, _AllAnswers) or trie.num_steps > 1):
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
    steps, reached = 0, divergence < lesson.tolerance
    if not reached:
        steps, reached = learn(settings, lesson, lesson, model.parameters())
    return lesson.report(head_steps, steps, time.monotonic() - started, reached=reached)


def learn(
    settings: WarmupSettings, lesson: Lesson, loss: Loss, parameters: Iterable[torch.nn.Parameter]
) -> tuple[int, bool]:
    """As many falls of the rate as it takes; of a pretrained model, while anything improves.

    The built-in model may stand still at a high rate and get there as the rate falls (N = 512 does).

    Returns:
        The steps, and whether the tolerance was reached.
    """
    trained, steps = list(parameters), 0
    for _ in range(settings.falls):
        plateau = (
            _Plateau(settings.max_steps // _PATIENCE, lesson.tolerance) if settings.adapter_rank else None
        )
        more, divergence = _descend(
            loss, trained, settings.learning_rate, settings.max_steps, lesson.tolerance, plateau=plateau
        )
        steps += more
        if divergence < lesson.tolerance or (plateau is not None and plateau.reached):
            break
    return steps, divergence < lesson.tolerance


class _Plateau:
    """Whether a divergence has stopped sinking; within twice the tolerance it gets the benefit of the doubt.

    Attributes:
        reached: whether it has.
    """

    def __init__(self, patience: int, tolerance: float) -> None:
        self._patience, self._near, self._best, self._since = patience, 2 * tolerance, math.inf, 0
        self.reached = False

    def sees(self, divergence: float) -> bool:
        """Takes the divergence of one more step."""
        if divergence < max(self._best * (1 - _LEAST_GAIN), self._near) or math.isinf(divergence):
            self._best, self._since = divergence, 0
        else:
            self._since += 1
        self.reached = self._since > self._patience
        return self.reached


def _descend(
    loss: Loss,
    trained: Sequence[torch.nn.Parameter],
    learning_rate: float,
    max_steps: int,
    tolerance: float,
    after_step: Callable[[], None] | None = None,
    plateau: _Plateau | None = None,
) -> tuple[int, float]:
    """Adam with a rate that falls along a half cosine, until a tolerance, a plateau or a number of steps.

    Returns:
        The steps made, and KL(target || policy) in bits.
    """
    optimiser = torch.optim.Adam(trained, lr=learning_rate, fused=True)
    for step in range(max_steps + 1):
        value, divergence = loss()
        if divergence < tolerance or step == max_steps or (plateau is not None and plateau.sees(divergence)):
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
"""Gives the loss of a step with its graph, and KL(target || policy) in bits as far as it is known."""


class Lesson:
    """A `Loss`, and when it is good enough.

    Attributes:
        tolerance: KL(target || policy) in bits at which to stop.
        tokens: that went through the model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        trie: AnswerTrie,
        num_answers: int,
        tolerance: float,
        watch: Watch | None = None,
        prior: np.ndarray | None = None,
    ) -> None:
        self._model, self._trie, self._num_answers, self.tolerance = model, trie, num_answers, tolerance
        self._weights = np.ones(num_answers) if prior is None else prior
        self.tokens, self._calls, self._watch = 0, 0, watch
        self._recent: deque[float] = deque(maxlen=_RECENT_STEPS)

    def __call__(self) -> tuple[torch.Tensor, float]:
        """See `Loss`; the divergence is the mean of the last steps, infinity until there are enough."""
        loss, divergence = self._step()
        self._recent.append(divergence)
        enough = len(self._recent) == self._recent.maxlen
        known = float(np.mean(self._recent)) if enough else math.inf
        if self._watch is not None:
            self._watch(self._calls, known)
        self._calls += 1
        return loss, known

    def report(self, head_steps: int, steps: int, seconds: float, **more: Any) -> WarmupReport:
        """The report of a warm-up that is over."""
        return WarmupReport(head_steps, steps, *self.divergence(), self.tokens, seconds, **more)

    @abstractmethod
    def _step(self) -> tuple[torch.Tensor, float]:
        """The loss with its graph, and the divergence in bits, of what this step is about."""

    @abstractmethod
    def divergence(self) -> tuple[float, float]:
        """KL(target || policy) in bits as the model is now, and its standard error."""


def make_lesson(
    model: PreTrainedModel,
    trie: AnswerTrie,
    num_answers: int,
    settings: WarmupSettings,
    watch: Watch | None,
    prior: np.ndarray | None = None,
) -> _AllAnswers | _SomeAnswers:
    """What a warm-up learns: all answers at each step, or some where they are too many for a pass."""
    if num_answers <= _ANSWERS_A_PASS:
        return _AllAnswers(model, trie, num_answers, settings.tolerance, watch, prior)
    return _SomeAnswers(model, trie, num_answers, settings.sampled_tolerance, watch, prior)


class _AllAnswers(Lesson):
    """The exact loss, from the whole trie in one pass; where there are many prompts, some of them in turn."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._pack, num_prompts = pack_all(self._trie), self._trie.num_prompts
        passes = min(num_prompts, math.ceil(num_prompts * self._pack.tokens.numel() / _TOKENS_A_PASS))
        self._passes = [np.arange(first, num_prompts, passes) for first in range(passes)]
        self._entropy = entropy_of(self._weights)
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
        answers = form_log_probs(self._trie, log_probs, self._num_answers)
        loss = -(tensor_beside(answers, self._weights).to(answers.dtype) * answers).mean()
        return loss, loss.item() / math.log(2) - self._entropy


class _SomeAnswers(Lesson):
    """The loss on the paths of random answers: rows of several answers each, that share their prompt."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._random = np.random.default_rng(0)
        # no distribution at all for a uniform one: the same answers, drawn the quick way
        self._prior = None if (self._weights == 1).all() else self._weights / self._weights.sum()
        self._share = self._trie.edge_share(self._weights)

    @override
    def _step(self) -> tuple[torch.Tensor, float]:
        """KL(target || policy) in nats, decision by decision on the paths of random answers."""
        decision, logits, _, answers = self._some()
        return self._loss(decision, logits, answers)

    def of_head(self, head: torch.nn.Module) -> Loss:
        """The loss as a function of the head alone, on paths that stay the same."""
        seen = list[torch.Tensor]()
        with torch.no_grad(), head.register_forward_pre_hook(lambda _, given: seen.append(given[0])):
            drawn = [self._some() for _ in range(_ROWS_OF_HEAD // _ROWS)]
        states = torch.cat([each[where] for each, (_, _, where, _) in zip(seen, drawn, strict=True)])
        decision = np.concatenate([one for one, *_ in drawn])
        answers = sum(number for *_, number in drawn)
        return lambda: self._loss(decision, head(states), answers)

    def _some(self) -> tuple[np.ndarray, torch.Tensor, tuple[np.ndarray, np.ndarray], int]:
        """The decisions on some paths, their logits and where these are, and the number of paths."""
        a_row = max(1, min(_ANSWERS_A_ROW, _EDGES_A_ROW // self._trie.max_edges))
        draws = self._random.choice(self._num_answers, size=(_ROWS, a_row), p=self._prior)
        paths = self._trie.form_edges[draws]
        row, *_ = where = np.nonzero(paths != NONE)
        decision = self._trie.edge_decision[paths[where]]
        nodes = self._trie.decision_node[decision]
        pack = pack_nodes(self._trie, row, nodes, _ROWS)
        keep, place = pack.kept(row, nodes)
        self.tokens += pack.tokens.numel()
        logits = forward(self._model, pack, keep, self._trie.prompt)[row, place]
        return decision, logits, (row, place), draws.size

    def _loss(self, decision: np.ndarray, logits: torch.Tensor, answers: int) -> tuple[torch.Tensor, float]:
        edges = self._trie.decision_edges[decision]
        share = tensor_beside(logits, np.where(edges == NONE, 0.0, self._share[edges])).float()
        log_probs = decision_log_probs(self._trie, decision, logits)
        divergence = torch.where(share > 0, share * (share.log() - log_probs), 0.0).sum() / answers
        return divergence, divergence.item() / math.log(2)

    @override
    def divergence(self) -> tuple[float, float]:
        with torch.no_grad():
            steps = [self._step()[1] for _ in range(_RECENT_STEPS)]
        return float(np.mean(steps)), float(np.std(steps, ddof=1) / math.sqrt(len(steps)))
