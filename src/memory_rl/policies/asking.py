"""Samples conversations token by token from a model that cannot score all of them at once.

One pass over the prompt and some conversations gives the probabilities of these; its keys and values serve
the tokens that are sampled after it. Where only one token can follow, the next decision is asked for in the
same pass: a turn of one-token replies takes one pass.

Axes: B rows (a run and one of its prompts each), Q forms, E samples, L edges of a path, C of a decision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers.cache_utils import DynamicCache

from memory_rl.policies.answer_trie import NONE, AnswerTrie
from memory_rl.policies.packed import ask, attention_mask, decision_log_probs, pack_nodes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Asked = tuple[np.ndarray, np.ndarray]
"""A decision of each sample (B, E), -1 for none, and the log-probability of each of its edges (B, E, C)."""


@dataclass(frozen=True)
class Drawn:
    """Some forms, and samples. All probabilities are logs, in nats.

    Attributes:
        of_forms: (B, Q) the forms' own.
        paths: (B, E, L) edge ids of the samples, padded with -1.
        of_staying: (B, E) that none of the exits along the way is taken, on a path of valid tokens.
        of_valid_path: (B, E) of the valid answer at the end of that path.
    """

    of_forms: np.ndarray
    paths: np.ndarray
    of_staying: np.ndarray
    of_valid_path: np.ndarray


def draw(
    model: PreTrainedModel,
    trie: AnswerTrie,
    prompts: np.ndarray,
    forms: np.ndarray,
    uniforms: np.ndarray,
    *,
    avoid: bool,
) -> Drawn:
    """Samples from the policy, or from what is left of it without the first form of each row.

    Token by token: at a decision on that form's path, the edge along it weighs what may still come after it
    and is not the form.

    Args:
        model: a model whose batch axis is the row.
        trie: the tree.
        prompts: (B,) which prompt each row begins with.
        forms: (B, Q).
        uniforms: (B, E, L, 2) numbers in [0, 1): which valid token, and whether the exit is taken instead.
        avoid: whether they must not be that form.
    """
    asker = Asker(model, trie, prompts, forms)
    drawing = _Drawing(trie, asker, uniforms, trie.form_edges[forms[:, 0]] if avoid else None)
    asked = asker.first(uniforms.shape[1])
    while asked:
        for decision, scores in asked:
            drawing.choose(decision, scores)
        asked = asker.after(drawing.last)
    return drawing.drawn()


class _Drawing:
    """The samples so far."""

    def __init__(
        self, trie: AnswerTrie, asker: Asker, uniforms: np.ndarray, avoided: np.ndarray | None
    ) -> None:
        self._trie, self._asker, self._uniforms = trie, asker, uniforms
        shape = uniforms.shape[:2]
        nothing = np.full((len(uniforms), trie.max_edges), NONE)
        self._avoided = nothing if avoided is None else avoided  # (B, L)
        on_path = np.zeros(nothing.shape) if avoided is None else asker.on_path[:, 0]
        # (B, L + 1) of the form from each of its decisions on
        self._rest = np.pad(np.minimum(np.cumsum(on_path[:, ::-1], axis=1)[:, ::-1], 0.0), ((0, 0), (0, 1)))
        self._paths = np.full(uniforms.shape[:3], NONE)
        self._staying, self._valid_path = np.zeros(shape), np.zeros(shape)
        self._inside, self._avoiding = np.full(shape, True), np.full(shape, avoided is not None)
        self._place = np.zeros(shape, dtype=np.int64)
        self.last = np.zeros(shape, dtype=np.int64)
        """(B, E) the valid edge that was taken last; -1 where none can be."""

    def choose(self, decision: np.ndarray, scores: np.ndarray) -> None:
        """Takes an edge of each decision (B, E), whose log-probabilities are given (B, E, C)."""
        row, sample = np.nonzero((decision != NONE) & (self.last != NONE))
        if len(row) == 0:
            return
        where, place = (row, sample), self._place[row, sample]
        edges, scores = self._trie.decision_edges[decision[where]], scores[where]
        along = self._avoiding[where][:, None] & (edges == self._avoided[row, place, None])
        weights = np.exp(scores) * np.where(along, -np.expm1(self._rest[row, place + 1])[:, None], 1.0)
        is_exit = self._trie.is_exit[edges] & (edges != NONE)
        valid = np.where(is_exit, 0.0, weights)
        with np.errstate(divide="ignore", invalid="ignore"):
            leaving = np.where(valid.sum(axis=1) > 0, 1 - valid.sum(axis=1) / weights.sum(axis=1), 1.0)
            self._staying[where] += np.log1p(-leaving)
        uniforms = self._uniforms[row, sample, place]
        pick = _pick(valid, uniforms[:, 0])
        chosen = np.take_along_axis(edges, pick, axis=1)[:, 0]
        self._valid_path[where] += np.take_along_axis(scores, pick, axis=1)[:, 0]
        leaves = uniforms[:, 1] < leaving
        taken = np.where(leaves, edges[is_exit], chosen)
        self._paths[row, sample, place] = np.where(self._inside[where], taken, NONE)
        self._inside[where] &= ~leaves
        self._avoiding[where] &= along.any(axis=1) & (chosen == self._avoided[row, place])
        self._place[where] += 1
        self.last[where] = np.where(leaving < 1, chosen, NONE)

    def drawn(self) -> Drawn:
        """All of them, once they have ended."""
        reached = np.where(np.isfinite(self._staying), self._valid_path, -np.inf)
        return Drawn(self._asker.on_path.sum(axis=2), self._paths, self._staying, reached)


def _pick(weights: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """A column of each row, with chances in proportion to weights: (n, C), (n,) to (n, 1)."""
    cumulative = weights.cumsum(axis=1)
    pick = (uniforms[:, None] * cumulative[:, -1:] >= cumulative).sum(axis=1, keepdims=True)
    return np.minimum(pick, weights.shape[1] - 1)


class Asker:
    """Asks the model for the next tokens of forms and then of samples, B rows and E samples at once.

    The keys and values of what came before are kept.

    Attributes:
        on_path: (B, Q, L) log-probability of each edge of the forms, 0 at the padding.
    """

    def __init__(
        self, model: PreTrainedModel, trie: AnswerTrie, prompts: np.ndarray, forms: np.ndarray
    ) -> None:
        self._model, self._trie, self._cache, self._num_rows = model, trie, DynamicCache(), len(forms)
        paths = trie.form_edges[forms]
        where = np.nonzero(paths != NONE)
        every = np.arange(len(forms))
        row = np.append(every, where[0])  # of the first decision of all, and of those of the forms
        decision = np.append(np.zeros_like(every), trie.edge_decision[paths[where]])
        pack = pack_nodes(trie, row, trie.decision_node[decision], len(forms))
        keep, kept = pack.kept(row, trie.decision_node[decision])
        tokens = pack.tokens.numpy()
        tokens[:, : pack.prompt_length] = trie.prompts[prompts]
        logits = self._forward(tokens, pack.positions.numpy(), pack.mask, keep)
        scores = self._scores(decision, logits[row, kept])
        self.on_path = np.zeros(paths.shape)
        of_forms, ways = scores[len(forms) :], trie.decision_edges[decision[len(forms) :]]
        self.on_path[where] = of_forms[ways == paths[where][:, None]]
        self._root = scores[: len(forms)]
        self._seen = np.arange(tokens.shape[1]) < pack.prompt_length  # by all samples
        self._own: list[np.ndarray] = []  # (B, E, W) of each later pass: which of a sample's tokens are there
        self._at: np.ndarray = np.zeros(0)  # (B, E) the node that each sample has come to

    def first(self, num_samples: int) -> list[Asked]:
        """The first decision of so many samples."""
        self._at = np.full((self._num_rows, num_samples), NONE)
        return [(np.zeros_like(self._at), np.repeat(self._root[:, None], num_samples, axis=1))]

    def after(self, edges: np.ndarray) -> list[Asked]:
        """The decisions that follow an edge of each sample (B, E), -1 at the end, up to one with a choice.

        Each sample attends to the prompt and to its own tokens. An empty list: all have ended.
        """
        decisions = list(self._ways_on(edges))
        nodes = [self._trie.decision_node[np.maximum(decision, 0)] for decision in decisions]
        last = self._at
        for node, decision in zip(nodes, decisions, strict=True):
            last = np.where(decision == NONE, last, node)
        behind = self._between(last)
        if behind.shape[2] == 0:
            return []
        logits = self._continue(behind)
        self._at = last
        asked = []
        for node, decision in zip(nodes, decisions, strict=True):
            row, sample = np.nonzero(decision != NONE)
            slot = (behind[row, sample] == node[row, sample, None]).argmax(axis=1)
            scores = np.zeros((*decision.shape, self._trie.decision_edges.shape[1]))
            at = logits[row, sample * behind.shape[2] + slot]
            scores[row, sample] = self._scores(decision[row, sample], at)
            asked.append((decision, scores))
        return asked

    def _ways_on(self, edges: np.ndarray) -> Iterator[np.ndarray]:
        """The next decision of each sample, and the one after it where only one valid edge leads there."""
        trie, decision = self._trie, np.where(edges == NONE, NONE, self._trie.edge_next[edges])
        while (decision != NONE).any():
            yield decision
            ways = trie.decision_edges[np.maximum(decision, 0)]
            valid = (ways != NONE) & ~trie.is_exit[ways]
            only = np.take_along_axis(ways, valid.argmax(axis=2)[..., None], axis=2)[..., 0]
            alone = (decision != NONE) & (valid.sum(axis=2) == 1)
            decision = np.where(alone, trie.edge_next[only], NONE)

    def _between(self, nodes: np.ndarray) -> np.ndarray:
        """The nodes from where each sample is to these (B, E), with the last: (B, E, W), -1 before them."""
        found, here = list[np.ndarray](), nodes
        while (here != self._at).any():
            found.append(np.where(here == self._at, NONE, here))
            here = np.where(here == self._at, here, self._trie.node_parent[here])
        return np.stack(found[::-1], axis=2) if found else np.zeros((*nodes.shape, 0), dtype=np.int64)

    def _continue(self, nodes: np.ndarray) -> torch.Tensor:
        """Logits (B, E W, V) of more tokens of each sample (B, E, W), which may be missing."""
        trie, (rows, samples, width) = self._trie, nodes.shape
        there, length = nodes != NONE, len(self._trie.prompt)
        self._own.append(there)
        tokens = np.where(there, trie.node_token[nodes], trie.prompt[-1])
        positions = length + np.where(there, trie.node_depth[nodes], 0)
        same = np.eye(samples, dtype=bool)  # a sample, and whose tokens it sees
        earlier = [np.broadcast_to(self._seen, (rows, samples, len(self._seen)))]
        earlier += [(same[:, :, None] & own[:, None]).reshape(rows, samples, -1) for own in self._own[:-1]]
        before = np.concatenate(earlier, axis=2)[:, :, None]
        now = same[:, None, :, None] & there[:, None, None] & np.tri(width, dtype=bool)[:, None]
        now = now.reshape(rows, samples, width, -1)
        sees = np.concatenate([np.broadcast_to(before, (*now.shape[:3], before.shape[3])), now], axis=3)
        sees = sees.reshape(rows, 1, samples * width, -1)
        mask = torch.zeros(sees.shape).masked_fill_(~torch.from_numpy(sees), torch.finfo(torch.float32).min)
        flat = (tokens.reshape(rows, -1), positions.reshape(rows, -1))
        return self._forward(*flat, mask, torch.arange(samples * width))

    def _scores(self, decision: np.ndarray, logits: torch.Tensor) -> np.ndarray:
        return decision_log_probs(self._trie, decision, logits).cpu().double().numpy()

    def _forward(
        self, tokens: np.ndarray, positions: np.ndarray, mask: torch.Tensor, keep: torch.Tensor
    ) -> torch.Tensor:
        given = torch.from_numpy(tokens), torch.from_numpy(positions)
        return ask(self._model, *given, attention_mask(self._model, mask), keep, self._cache)


def step_by_step(model: PreTrainedModel, trie: AnswerTrie, prompt: int, forms: np.ndarray) -> np.ndarray:
    """Log-probability in nats of a form, and of others as samples are asked: (E,), the first form first."""
    asker, paths = Asker(model, trie, np.array([prompt]), forms[None, :1]), trie.form_edges[forms]
    log_probs, place = np.zeros(len(forms)), np.zeros(len(forms), dtype=np.int64)
    asked, every = asker.first(len(forms)), np.arange(len(forms))
    while asked:
        for decision, scores in asked:
            going = decision[0] != NONE
            edge = paths[every, np.minimum(place, paths.shape[1] - 1)]
            along = trie.decision_edges[np.maximum(decision[0], 0)] == edge[:, None]
            log_probs += np.where(going, np.where(along, scores[0], 0.0).sum(axis=1), 0.0)
            place += going
        asked = asker.after(np.where(place > 0, paths[every, place - 1], NONE)[None])
    log_probs[0] = asker.on_path[0, 0].sum()
    return log_probs
