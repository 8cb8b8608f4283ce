"""The learner when there are too many answers to score them all: N up to a million.

The cost grows with the length of an answer, not with N.

What is needed of the policy is the probability of the secret, and samples that are not the secret: both come
from one pass over the prompt and the secret's tokens, whose keys and values serve the sampled tokens after
it. The mass on valid answers is estimated from the same samples: of each, not whether it came out valid, but
the probability that it would have, which hardly varies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache
from typing_extensions import override

from memory_rl.policies.answer_trie import NONE, AnswerTrie
from memory_rl.policies.base import Assessment, first_prompt
from memory_rl.policies.packed import (
    ask,
    attention_mask,
    chosen_log_probs,
    decision_log_probs,
    pack_nodes,
)
from memory_rl.policies.transformer import AdaptedTransformer
from memory_rl.state import State

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from memory_rl.learning.batch import Batch

_SAMPLES = 8  # drawn of each run after each update, for the estimate and for the next episodes


class PathPolicy(AdaptedTransformer):
    """Implements `ScoresPaths` for conversations of one turn.

    A run is asked about one form throughout: its secret.
    """

    kept = (*AdaptedTransformer.kept, "_assessed")

    def __init__(self, model: PreTrainedModel, trie: AnswerTrie, **settings: Any) -> None:
        super().__init__(model, trie, **settings)
        self._assessed = np.full((3, self.num_runs), np.nan)  # of_form, of_valid and of_best of each run
        # Samples of each run that were not given out yet.
        self._others = [np.zeros((0, trie.max_edges), dtype=np.int64)] * self.num_runs

    @override
    def assess(self, runs: np.ndarray, forms: np.ndarray, num_answers: int) -> Assessment:
        """Exact for the form; the mass on all answers is estimated from samples, see `Policy`."""
        moved = self._stale[runs, 0]
        self._look(runs[moved], forms[moved, 0], _SAMPLES)
        return Assessment(*self._assessed[:, runs, None])

    def sample_others(self, runs: np.ndarray, forms: np.ndarray, num_episodes: int) -> Batch:
        """Gives out samples, and draws more where they do not suffice, see `ScoresPaths`."""
        lacking = self._stale[runs, 0] | (self._num_others[runs] < num_episodes)
        self._look(runs[lacking], forms[lacking], max(_SAMPLES, num_episodes))
        path = np.stack([self._others[run][:num_episodes] for run in runs])
        for run in runs:
            self._others[run] = self._others[run][num_episodes:]
        return self._of_path(runs, first_prompt(runs), path)

    def log_probs_of(self, runs: np.ndarray, forms: np.ndarray) -> np.ndarray:
        """One pass over the tokens of the forms, see `ScoresPaths`."""
        log_probs, edges = np.empty(forms.shape), self.trie.form_edges[forms]
        with torch.inference_mode():
            for chunk in self._chunks(len(runs), 1, len(self.trie.prompt) + edges[0].size):
                self.adapters.activate(runs[chunk])
                of_tokens = chosen_log_probs(self.model, self.trie, edges[chunk])
                log_probs[chunk] = of_tokens.cpu().double().sum(dim=2).numpy()
        return log_probs

    @property
    def _num_others(self) -> np.ndarray:
        return np.array([len(paths) for paths in self._others])

    @override
    def state(self) -> State:
        return {**super().state(), "others": np.concatenate(self._others), "num_others": self._num_others}

    @override
    def restore(self, state: State) -> None:
        super().restore(state)
        self._others = np.split(state["others"], np.cumsum(state["num_others"])[:-1])

    def _look(self, runs: np.ndarray, forms: np.ndarray, num_samples: int) -> None:
        """Assesses these runs as they are now, and draws samples of each."""
        length = len(self.trie.prompt) + (num_samples + 1) * self.trie.max_edges
        with torch.inference_mode():
            for chunk in self._chunks(len(runs), 1, length):
                here = runs[chunk]
                self.adapters.activate(here)
                uniforms = self._streams.random(here, num_samples, self.trie.max_edges, 2)
                seen = draw_others(self.model, self.trie, forms[chunk], uniforms)
                best = np.maximum(seen.of_form, seen.of_valid_path.max(axis=1))
                self._assessed[:, here] = seen.of_form, seen.of_valid(), best
                for run, path in zip(here, seen.paths, strict=True):
                    self._others[run] = path
        self._stale[runs] = False


@dataclass(frozen=True)
class Others:
    """Samples that are not a form. All probabilities are logs, in nats.

    Attributes:
        of_form: (R,) the form's own.
        paths: (R, E, L) edge ids of the samples, padded with -1.
        of_staying: (R, E) that none of the exits along the way is taken, on a path of valid tokens.
        of_valid_path: (R, E) of the valid answer at the end of that path.
    """

    of_form: np.ndarray
    paths: np.ndarray
    of_staying: np.ndarray
    of_valid_path: np.ndarray

    def of_valid(self) -> np.ndarray:
        """The mass on all valid answers: (R,).

        P(form) + (1 - P(form)) times the mean probability of staying, an unbiased estimate.
        """
        form = np.exp(self.of_form)
        return np.log(form + (1 - form) * np.exp(self.of_staying).mean(axis=1))


def draw_others(model: PreTrainedModel, trie: AnswerTrie, forms: np.ndarray, uniforms: np.ndarray) -> Others:
    """Samples answers from the policy, given that they are not a form.

    Token by token: at a decision on the form's path, the edge along it weighs what may still come after it
    and is not the form.

    Args:
        model: a model whose batch axis is the run.
        trie: of conversations of one turn.
        forms: (R,) the form of each run.
        uniforms: (R, E, L, 2) numbers in [0, 1): which valid token, and whether the exit is taken instead.
    """
    avoided, shape = trie.form_edges[forms], uniforms.shape[:2]
    asker = _Asker(model, trie, avoided)
    # (R, L) of the form from each of its decisions on
    rest = np.minimum(np.cumsum(asker.on_path[:, ::-1], axis=1)[:, ::-1], 0.0)
    rest_after = np.pad(rest[:, 1:], ((0, 0), (0, 1)))
    paths, staying, valid_path = np.full(uniforms.shape[:3], NONE), np.zeros(shape), np.zeros(shape)
    inside, avoiding = np.full(shape, True), np.full(shape, True)
    decision = np.zeros(shape, dtype=np.int64)  # of each sample, -1 where it has ended
    scores = np.repeat(asker.first[:, None], shape[1], axis=1)
    for place in range(trie.max_edges):
        going = decision != NONE
        edges = trie.decision_edges[np.where(going, decision, 0)]
        along = avoiding[:, :, None] & (edges == avoided[:, None, None, place])
        weights = np.exp(scores) * np.where(along, -np.expm1(rest_after[:, None, None, place]), 1.0)
        is_exit = trie.is_exit[edges] & (edges != NONE)
        valid = np.where(is_exit, 0.0, weights)
        with np.errstate(divide="ignore", invalid="ignore"):
            leaving = np.where(valid.sum(axis=2) > 0, 1 - valid.sum(axis=2) / weights.sum(axis=2), 1.0)
            staying += np.where(going, np.log1p(-leaving), 0.0)
        pick = _pick(valid, uniforms[:, :, place, 0])
        chosen = np.take_along_axis(edges, pick, axis=2)[:, :, 0]
        valid_path += np.where(going, np.take_along_axis(scores, pick, axis=2)[:, :, 0], 0.0)
        leaves = uniforms[:, :, place, 1] < leaving
        taken = np.where(leaves, edges[is_exit].reshape(shape), chosen)
        paths[:, :, place] = np.where(inside & going, taken, NONE)
        inside &= ~leaves
        avoiding &= along.any(axis=2) & (chosen == avoided[:, None, place])
        decision = np.where(going & (leaving < 1), trie.edge_next[chosen], NONE)
        if (decision == NONE).all():
            break
        scores = asker.ask(decision, trie.edge_token[chosen], place)
    return Others(rest[:, 0], paths, staying, np.where(np.isfinite(staying), valid_path, -np.inf))


def step_by_step(model: PreTrainedModel, trie: AnswerTrie, forms: np.ndarray) -> np.ndarray:
    """Log-probability in nats of a form, and of others as samples that avoid it are asked: (E,)."""
    paths = trie.form_edges[forms]
    asker = _Asker(model, trie, paths[:1])
    decision, scores = np.zeros_like(forms), np.repeat(asker.first, len(forms), axis=0)
    log_probs = np.zeros(len(forms))
    for place, edges in enumerate(paths.T):
        going = decision != NONE
        along = trie.decision_edges[decision[going]] == edges[going, None]
        log_probs[going] += scores[going][along]
        decision = np.where(edges == NONE, NONE, trie.edge_next[edges])
        if (decision == NONE).all():
            break
        scores = asker.ask(decision[None], trie.edge_token[edges][None], place)[0]
    log_probs[0] = asker.on_path.sum()
    return log_probs


def _pick(weights: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """A column of each row, with chances in proportion to weights: (R, E, C), (R, E) to (R, E, 1)."""
    cumulative = weights.cumsum(axis=2)
    pick = (uniforms[:, :, None] * cumulative[:, :, -1:] >= cumulative).sum(axis=2, keepdims=True)
    return np.minimum(pick, weights.shape[2] - 1)


class _Asker:
    """Asks the model for the next tokens of a form and then of samples, R runs and E samples at once.

    The keys and values of what came before are kept.

    Attributes:
        on_path: (R, L) log-probability of each edge of the form, 0 at the padding.
        first: (R, C) log-probability of each edge of the first decision.
    """

    def __init__(self, model: PreTrainedModel, trie: AnswerTrie, avoided: np.ndarray) -> None:
        self._model, self._trie, self._cache = model, trie, DynamicCache()
        row, place = np.nonzero(avoided != NONE)
        edge = avoided[row, place]
        decision = trie.edge_decision[edge]
        pack = pack_nodes(trie, row, trie.decision_node[decision], len(avoided))
        keep, kept = pack.kept(row, trie.decision_node[decision])
        logits = self._forward(pack.tokens, pack.positions, pack.mask, keep)
        scores = self._scores(decision, logits[row, kept])
        self.on_path = np.zeros(avoided.shape)
        self.on_path[row, place] = scores[trie.decision_edges[decision] == edge[:, None]]
        self.first = scores[place == 0]
        self._unseen = pack.tokens.shape[1] - len(trie.prompt)

    def ask(self, decision: np.ndarray, chosen: np.ndarray, place: int) -> np.ndarray:
        """The log-probabilities (R, E, C) of the edges of a decision of each sample (R, E), -1 at the end.

        Each sample attends to the prompt and to its own tokens, the last of which is given.
        """
        runs, samples = decision.shape
        length = len(self._trie.prompt)
        token = np.where(decision == NONE, self._trie.prompt[-1], chosen)
        seen = torch.zeros(samples, length + self._unseen, dtype=torch.bool)
        seen[:, :length] = True
        seen = torch.cat([seen, torch.eye(samples, dtype=torch.bool).repeat(1, place + 1)], dim=1)
        mask = torch.zeros(seen.shape).masked_fill_(~seen, torch.finfo(torch.float32).min)
        positions = torch.full((runs, samples), length + place)
        logits = self._forward(
            torch.from_numpy(token), positions, mask.expand(runs, 1, -1, -1), torch.arange(samples)
        )
        scores = self._scores(np.where(decision == NONE, 0, decision).ravel(), logits.flatten(0, 1))
        return scores.reshape(runs, samples, -1)

    def _scores(self, decision: np.ndarray, logits: torch.Tensor) -> np.ndarray:
        return decision_log_probs(self._trie, decision, logits).cpu().double().numpy()

    def _forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor, keep: torch.Tensor
    ) -> torch.Tensor:
        return ask(self._model, tokens, positions, attention_mask(self._model, mask), keep, self._cache)
