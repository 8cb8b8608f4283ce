"""Samples conversations token by token from a model that cannot score all of them at once.

What was asked is remembered, and so are the keys and values: each pass takes the tokens alone that no form
and no sample came to before, of each of them once. Where only one token can follow, the next decision is
asked for in the same pass. And where a sample must wait for the model, the rest of it is guessed (each
decision to fall like that of the form at the same place, by the sample's own random numbers) and asked for at
once; it is drawn from what the model then says, which mostly is what was guessed. So a draw of many turns
takes two or three passes.

Axes: B rows (a run and one of its prompts each), Q forms, E samples, L edges of a path, C of a decision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers.cache_utils import DynamicCache

from memory_rl.policies.answer_trie import NONE, AnswerTrie
from memory_rl.policies.packed import ask, attention_mask, decision_log_probs, kept_places, ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from memory_rl.policies.lean import LeanLlama


@dataclass(frozen=True)
class PathSamples:
    """Some forms, and samples. All probabilities are logs, in nats.

    Attributes:
        of_forms: (B, Q) the forms' own.
        paths: (B, E, L) edge ids of the samples, padded with -1.
        of_staying: (B, E) that none of the exits along the way is taken, on a path of valid tokens; NaN where
            there is no sample.
        of_valid_path: (B, E) of the valid answer at the end of that path.
        valid_paths: (B, E, L) that path: the sample, led on as if it had not taken its exit.
    """

    of_forms: np.ndarray
    paths: np.ndarray
    of_staying: np.ndarray
    of_valid_path: np.ndarray
    valid_paths: np.ndarray


def draw(
    model: PreTrainedModel | LeanLlama,
    trie: AnswerTrie,
    prompts: np.ndarray,
    forms: np.ndarray,
    uniforms: np.ndarray,
    *,
    avoid: bool,
) -> PathSamples:
    """Samples from the policy, or from what is left of it without the first form of each row.

    Token by token: at a decision on that form's path, the edge along it weighs what may still come after it
    and is not the form.

    Args:
        model: a model whose batch axis is the row.
        trie: the tree.
        prompts: (B,) which prompt each row begins with.
        forms: (B, Q).
        uniforms: (B, E, L, 2) numbers in [0, 1): which valid token, and whether the exit is taken instead.
            NaN where a row has fewer samples.
        avoid: whether they must not be that form.
    """
    drawing = _Drawing(Asker(model, trie, prompts, forms), uniforms, avoid)
    while len(where := np.argwhere(drawing.decision != NONE)):
        drawing.choose(*where.T)
    return drawing.drawn()


class _Drawing:
    """The samples so far."""

    def __init__(self, asker: Asker, uniforms: np.ndarray, avoid: bool) -> None:
        self._trie, self._asker, self._uniforms = asker.trie, asker, uniforms
        paths = self._trie.form_edges[asker.forms]
        self._on_paths = asker.values(paths)
        shape, nothing = uniforms.shape[:2], np.full((len(uniforms), self._trie.max_edges), NONE)
        self._avoided = paths[:, 0] if avoid else nothing  # (B, L)
        on_path = self._on_paths[:, 0] if avoid else np.zeros(nothing.shape)
        # (B, L + 1) of the form from each of its decisions on
        self._rest = np.pad(np.minimum(np.cumsum(on_path[:, ::-1], axis=1)[:, ::-1], 0.0), ((0, 0), (0, 1)))
        # (B, L, C) how each decision of a sample may fall: like that of the form at the same place.
        self._guess = np.ones((*nothing.shape, self._trie.decision_edges.shape[1]))
        if asker.forms.shape[1]:
            on, place = np.nonzero(paths[:, 0] != NONE)
            of_form = asker.scores(on, self._trie.edge_decision[paths[on, 0, place]])
            self._guess[on, place] = np.exp(of_form)
        self._paths, self._valid_paths = np.full((2, *uniforms.shape[:3]), NONE)
        wanted = ~np.isnan(uniforms[:, :, 0, 0])
        self._staying, self._valid_path = np.where(wanted, 0.0, np.nan), np.zeros(shape)
        self._inside, self._avoiding = np.full(shape, True), np.full(shape, avoid)
        self._place = np.zeros(shape, dtype=np.int64)
        self.decision = np.where(wanted, 0, NONE)
        """(B, E) where each sample stands; -1 where it has ended, or no valid token can follow."""

    def choose(self, row: np.ndarray, sample: np.ndarray) -> None:
        """Takes an edge where each of these samples stands."""
        where, place = (row, sample), self._place[row, sample]
        decision = self.decision[where]
        scores = self._asker.scores(row, decision, lambda: self._ahead(row, sample))
        edges, every = self._trie.decision_edges[decision], np.arange(len(row))
        along = self._avoiding[where][:, None] & (edges == self._avoided[row, place, None])
        weights = np.exp(scores) * np.where(along, -np.expm1(self._rest[row, place + 1])[:, None], 1.0)
        is_exit = self._trie.is_exit[edges] & (edges != NONE)
        valid = np.where(is_exit, 0.0, weights)
        with np.errstate(divide="ignore", invalid="ignore"):
            leaving = np.where(valid.sum(axis=1) > 0, 1 - valid.sum(axis=1) / weights.sum(axis=1), 1.0)
            self._staying[where] += np.log1p(-leaving)
        uniforms = self._uniforms[row, sample, place]
        pick = _pick(valid, uniforms[:, 0])
        chosen = edges[every, pick]
        self._valid_path[where] += scores[every, pick]
        leaves = uniforms[:, 1] < leaving
        taken = np.where(leaves, edges[is_exit], chosen)
        self._paths[row, sample, place] = np.where(self._inside[where], taken, NONE)
        self._valid_paths[row, sample, place] = chosen
        self._inside[where] &= ~leaves
        self._avoiding[where] &= along.any(axis=1) & (chosen == self._avoided[row, place])
        self._place[where] += 1
        self.decision[where] = np.where(leaving < 1, self._trie.edge_next[chosen], NONE)

    def _ahead(self, row: np.ndarray, sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The decisions that these samples come to if each falls like the form's at the same place."""
        decision, place, found = self.decision[row, sample], self._place[row, sample], []
        while len(decision):
            found.append((row, decision))
            edges = self._trie.decision_edges[decision]
            valid = np.where((edges == NONE) | self._trie.is_exit[edges], 0.0, self._guess[row, place])
            pick = _pick(valid, self._uniforms[row, sample, place, 0])
            after = self._trie.edge_next[edges[np.arange(len(row)), pick]]
            row, sample, place, decision = (part[after != NONE] for part in (row, sample, place + 1, after))
        rows, decisions = map(np.concatenate, zip(*found, strict=True))
        return rows, decisions

    def drawn(self) -> PathSamples:
        """All of them, once they have ended."""
        reached = np.where(np.isfinite(self._staying), self._valid_path, -np.inf)
        of_forms = self._on_paths.sum(axis=2)
        return PathSamples(of_forms, self._paths, self._staying, reached, self._valid_paths)


def _pick(weights: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """A column of each row, with chances in proportion to weights: (n, C), (n,) to (n,)."""
    cumulative = weights.cumsum(axis=1)
    pick = (uniforms[:, None] * cumulative[:, -1:] >= cumulative).sum(axis=1)
    return np.minimum(pick, weights.shape[1] - 1)


class _Numbered:
    """Numbers of things of rows, such as the place of a node among its row's tokens."""

    def __init__(self, num_things: int) -> None:
        self._size = num_things + 1  # -1 is a thing, too
        # What is searched for is found before the last key, which is none.
        self._keys, self._numbers = np.array([np.iinfo(np.int64).max]), np.array([NONE])

    def find(self, rows: np.ndarray, things: np.ndarray) -> np.ndarray:
        """Their numbers; -1 where they have none."""
        keys = self._key(rows, things)
        place = np.searchsorted(self._keys, keys)
        return np.where(self._keys[place] == keys, self._numbers[place], NONE)

    def missing(self, rows: np.ndarray, things: np.ndarray) -> np.ndarray:
        """The keys of those without a number, each once, in order of rows and of things within them."""
        return np.unique(self._key(rows, things)[self.find(rows, things) == NONE])

    def split(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows and things of keys."""
        rows, things = np.divmod(keys, self._size)
        return rows, things - 1

    def add(self, rows: np.ndarray, things: np.ndarray, numbers: np.ndarray) -> None:
        """Gives them numbers."""
        keys, numbers = np.append(self._keys, self._key(rows, things)), np.append(self._numbers, numbers)
        order = keys.argsort()
        self._keys, self._numbers = keys[order], numbers[order]

    def _key(self, rows: np.ndarray, things: np.ndarray) -> np.ndarray:
        return rows * self._size + things + 1


class Asker:
    """Asks the model for decisions, of B rows at once, and remembers the answers.

    Attributes:
        trie: the tree.
        forms: (B, Q) whose decisions are asked for in the first pass.
    """

    def __init__(
        self, model: PreTrainedModel | LeanLlama, trie: AnswerTrie, prompts: np.ndarray, forms: np.ndarray
    ) -> None:
        self.trie, self.forms = trie, forms
        self._model, self._cache, self._begin = model, DynamicCache(), trie.prompts[prompts]
        self._slots, self._asked = _Numbered(trie.num_nodes), _Numbered(len(trie.decision_node))
        self._values = np.zeros((0, trie.decision_edges.shape[1]))  # of all that was asked for
        self._sees = np.zeros((len(forms), 0, 0), dtype=bool)  # the tokens of its row that a token attends to
        every = np.arange(len(forms))
        self._slots.add(every, np.full_like(every, NONE), np.full_like(every, len(trie.prompt) - 1))
        paths = trie.form_edges[forms]
        where = np.nonzero(paths != NONE)
        on_paths = trie.edge_decision[paths[where]]
        self._ask(np.append(every, where[0]), np.append(np.zeros_like(every), on_paths))

    def scores(
        self,
        rows: np.ndarray,
        decisions: np.ndarray,
        ahead: Callable[[], tuple[np.ndarray, np.ndarray]] | None = None,
    ) -> np.ndarray:
        """The log-probability in nats of each edge of decisions (n,) of rows (n,): (n, C).

        Where a pass is needed, it takes in what `ahead` returns: these rows and decisions, and others.
        """
        numbers = self._asked.find(rows, decisions)
        if (numbers == NONE).any():
            self._ask(*((rows, decisions) if ahead is None else ahead()))
            numbers = self._asked.find(rows, decisions)
        return self._values[numbers]

    def values(self, paths: np.ndarray) -> np.ndarray:
        """The log-probability of each edge of paths (B, E, L) that were asked for; 0 at the padding."""
        rows = np.arange(len(paths))[:, None, None]
        numbers = self._asked.find(rows, self.trie.edge_decision[paths])
        return np.where(paths == NONE, 0.0, self._values[numbers, self.trie.column(paths)])

    def _ask(self, rows: np.ndarray, decisions: np.ndarray) -> None:
        """One pass for decisions that were not asked for, and for what can only follow them."""
        rows, decisions = self._asked.split(self._asked.missing(*self._with_followers(rows, decisions)))
        logits = self._logits(rows, self.trie.decision_node[decisions])
        scores = decision_log_probs(self.trie, decisions, logits).cpu().double().numpy()
        self._asked.add(rows, decisions, len(self._values) + np.arange(len(rows)))
        self._values = np.concatenate([self._values, scores])

    def _with_followers(self, rows: np.ndarray, decisions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """These decisions, and those after them to which only valid edges without a choice lead.

        Also the others after them, as long as there are so few that they take no time.
        """
        found, room = [(rows, decisions)], getattr(self._model, "spare_tokens", 0)
        while len(decisions):
            ways = self.trie.decision_edges[decisions]
            valid = (ways != NONE) & ~self.trie.is_exit[ways]
            after = np.where(valid, self.trie.edge_next[ways], NONE)
            tokens = np.where(after == NONE, 0, self._depth(after) - self._depth(decisions)[:, None])
            # Rows of one pass are of one length.
            room -= np.bincount(rows, tokens.sum(axis=1), len(self.forms)).max() * len(self.forms)
            if room < 0:
                after = np.where(valid.sum(axis=1, keepdims=True) == 1, after, NONE)
            way = np.nonzero(after != NONE)
            rows, decisions = rows[way[0]], after[way]
            found.append((rows, decisions))
        every_row, every_decision = map(np.concatenate, zip(*found, strict=True))
        return every_row, every_decision

    def _depth(self, decisions: np.ndarray) -> np.ndarray:
        """How many tokens stand between the prompt and these decisions."""
        node = self.trie.decision_node[decisions]
        return np.where(node == NONE, 0, self.trie.node_depth[node] + 1)

    def _logits(self, rows: np.ndarray, nodes: np.ndarray) -> torch.Tensor:
        """The logits (n, V) at nodes of rows, by a pass over the tokens that were not in one before."""
        trie, start, row, node = self.trie, self._sees.shape[1], *self._new_nodes(rows, nodes)
        begin = self._begin[:, start:]  # the prompts in the first pass, and nothing later
        length, every = begin.shape[1], len(begin)
        place = length + ranks(row, every)
        tokens = np.full((every, int(place.max(initial=length - 1)) + 1), trie.prompt[-1])
        positions = np.zeros_like(tokens)
        tokens[:, :length], positions[:, :length] = begin, np.arange(length)
        tokens[row, place] = trie.node_token[node]
        positions[row, place] = len(trie.prompt) + trie.node_depth[node]
        self._slots.add(row, node, start + place)
        self._look_back(row, node, length, start + tokens.shape[1])
        keep, which = kept_places(self._model, rows, self._slots.find(rows, nodes) - start, every)
        sees = torch.from_numpy(self._sees[:, None, start:])
        mask = torch.zeros(sees.shape).masked_fill_(~sees, torch.finfo(torch.float32).min)
        given = torch.from_numpy(tokens), torch.from_numpy(positions), attention_mask(self._model, mask)
        return ask(self._model, *given, keep, self._cache)[rows, which]

    def _new_nodes(self, rows: np.ndarray, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of these nodes and of their ancestors that were in no pass, parents before children."""
        found = np.zeros(0, dtype=np.int64)
        while len(nodes):
            new = np.setdiff1d(self._slots.missing(rows, nodes), found)
            found = np.union1d(found, new)
            rows, nodes = self._slots.split(new)
            nodes = self.trie.node_parent[nodes]
        return self._slots.split(found)

    def _look_back(self, row: np.ndarray, node: np.ndarray, length: int, size: int) -> None:
        """Lets new nodes of rows see what their parents see, and themselves; and a prompt what is behind."""
        before = self._sees
        start = before.shape[1]
        self._sees = np.zeros((len(before), size, size), dtype=bool)
        self._sees[:, :start, :start] = before
        self._sees[:, :length, :length] |= np.tri(length, dtype=bool)
        slot, parent = self._slots.find(row, node), self._slots.find(row, self.trie.node_parent[node])
        depth = self.trie.node_depth[node]
        for level in np.unique(depth):
            at = depth == level
            self._sees[row[at], slot[at]] = self._sees[row[at], parent[at]]
            self._sees[row[at], slot[at], slot[at]] = True


def step_by_step(
    model: PreTrainedModel | LeanLlama, trie: AnswerTrie, prompt: int, forms: np.ndarray
) -> np.ndarray:
    """Log-probability in nats of a form, and of others as samples are asked: (E,), the first form first."""
    asker, paths = Asker(model, trie, np.array([prompt]), forms[None, :1]), trie.form_edges[forms]
    for edges in paths.T:
        going = edges[edges != NONE]
        asker.scores(np.zeros_like(going), trie.edge_decision[going])
    return asker.values(paths[None])[0].sum(axis=1)
