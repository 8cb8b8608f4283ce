"""The answer trie of conversations whose turns are written alike whatever was answered before.

There are C^K conversations of K turns, a million of 20 bits, and as many paths through the tree: nodes,
decisions and edges are not listed, but worked out from their numbers when they are asked for. The tree is
made of one small trie for each turn, which stands behind each of the *histories* that lead to the turn; the
number of a node, decision or edge is that of its turn's first one, plus history times how many a turn's trie
has, plus its number there. A history is the number that the earlier choices spell.

Numpy only. Axes: K turns, C choices of a turn, F = C^K forms, L edges on a path.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from typing_extensions import override

from memory_rl.policies.answer_trie import NONE, AnswerTrie, build_trie

_BEFORE = -2  # as a parent: the end of the turn before


class Computed:
    """Reads like an array (n, ...): values of things by their numbers, worked out when they are asked for.

    -1 is the last of them, as everywhere in numpy.
    """

    def __init__(self, shape: tuple[int, ...], values: Callable[[np.ndarray], np.ndarray]) -> None:
        self.shape, self._values = shape, values

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, numbers: Any) -> np.ndarray:
        return self._values(np.asarray(numbers) % len(self))


class _Numbers:
    """The numbers of what every turn's trie has some of: nodes, decisions or edges."""

    def __init__(self, sizes: Sequence[int], num_choices: int) -> None:
        self._sizes = np.array(sizes)
        ends = np.cumsum([size * num_choices**turn for turn, size in enumerate(sizes)])
        self._first, self.total = np.append(0, ends[:-1]), int(ends[-1])

    def split(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Turn, history and number in the turn's trie."""
        turn = np.searchsorted(self._first, numbers, side="right") - 1
        history, local = np.divmod(numbers - self._first[turn], self._sizes[turn])
        return turn, history, local

    def join(self, turn: np.ndarray | int, history: np.ndarray, local: np.ndarray) -> np.ndarray:
        """The number; NONE stays NONE."""
        return np.where(local < 0, local, self._first[turn] + history * self._sizes[turn] + local)


@dataclass(frozen=True)
class _Turn:
    """A turn's own trie, the nodes with what stands before and behind it: all numbers are its own.

    Nodes: the user's tokens, then those of the replies but for their last ones, then these, one a choice.

    Attributes:
        through, beside: (E, C) the choices that an edge leads to, and those that its decision leads to.
    """

    trie: AnswerTrie
    node_token: np.ndarray
    node_parent: np.ndarray
    node_depth: np.ndarray
    decision_node: np.ndarray
    through: np.ndarray
    beside: np.ndarray

    @classmethod
    def of(cls, forced: Sequence[int], replies: Sequence[Sequence[int]], turn: int) -> _Turn:
        """Of the user's tokens, none in the first turn, whose are the prompt; and of all replies."""
        choices = np.arange(len(replies))
        trie, asked = build_trie([[([], [*reply])] for reply in replies], choices[:, None]), len(forced)
        before = asked - 1 if asked else (NONE if turn == 0 else _BEFORE)
        ends = trie.decision_node[trie.edge_decision[trie.form_edges[:, -1]]]
        behind = np.where(trie.node_parent == NONE, before, trie.node_parent + asked)
        at_end = np.where(ends == NONE, before, ends + asked)
        parents = np.concatenate([np.append(_BEFORE, np.arange(asked - 1))[:asked], behind, at_end])
        depths = [
            np.arange(asked),
            trie.node_depth + asked,
            np.full(len(replies), asked + len(replies[0]) - 1),
        ]
        through = np.zeros((len(trie.edge_token), len(replies)), dtype=bool)
        through[trie.form_edges, choices[:, None]] = True
        beside = through[trie.decision_edges].any(axis=1)[
            trie.edge_decision
        ]  # -1 is an exit, and leads nowhere
        return cls(
            trie,
            np.concatenate([forced, trie.node_token, [reply[-1] for reply in replies]]).astype(np.int64),
            parents,
            np.concatenate(depths),
            np.where(trie.decision_node == NONE, before, trie.decision_node + asked),
            through,
            beside,
        )


def _table(rows: Sequence[np.ndarray], fill: Any = NONE) -> np.ndarray:
    """Arrays of several turns as one, padded."""
    shape = np.max([row.shape for row in rows], axis=0)
    table = np.full((len(rows), *shape), fill)
    for part, row in zip(table, rows, strict=True):
        part[tuple(slice(size) for size in row.shape)] = row
    return table


@dataclass(frozen=True)
class TurnTrie(AnswerTrie):
    """An `AnswerTrie` of which nothing grows with the number of its forms; build it with `build_turn_trie`.

    Attributes:
        numbers: of its edges.
        through, beside: (K, E', C) see `_Turn`.
        later_turns, replies: of which it was built.
    """

    numbers: _Numbers
    through: np.ndarray
    beside: np.ndarray
    later_turns: tuple[list[int], ...]
    replies: tuple[list[int], ...]

    @property
    @override
    def longest(self) -> int:
        return self.prompts.shape[1] + sum(map(len, self.later_turns)) + self.max_edges - 1

    @property
    @override
    def largest_token(self) -> int:
        return max(map(int, itertools.chain(self.prompts.ravel(), *self.later_turns, *self.replies)))

    @override
    def fingerprint(self) -> Iterator[np.ndarray]:
        yield self.prompts
        yield from (np.array([len(tokens), *tokens]) for tokens in (*self.later_turns, *self.replies))

    @property
    @override
    def num_steps(self) -> int:
        return len(self.through)

    @cached_property
    @override
    def is_exit(self) -> Any:
        return Computed(self.edge_token.shape, lambda edges: self.edge_token[edges] == NONE)

    @override
    def edge_share(self, weights: np.ndarray) -> Any:
        """See `AnswerTrie`; the weights may be those of the first forms alone, and all others are 0."""
        below = np.append(0.0, np.cumsum(weights))
        return Computed(self.edge_token.shape, lambda edges: self._share(edges, below))

    @override
    def leads_to(self, edges: np.ndarray) -> np.ndarray:
        turn, _, local = self.numbers.split(np.maximum(edges, 0))
        return np.asarray(self.through[turn, local] & (edges != NONE)[..., None])

    def _share(self, edges: np.ndarray, below: np.ndarray) -> np.ndarray:
        """Of edges, from the weight of all forms below each number."""
        turn, history, local = self.numbers.split(edges)
        choices = self.through.shape[2]
        first = (history * choices)[..., None] + np.arange(choices + 1)
        forms = first * (choices ** (self.num_steps - 1 - turn))[..., None]
        mass = np.diff(below[np.minimum(forms, len(below) - 1)], axis=-1)
        return (mass * self.through[turn, local]).sum(axis=-1) / (mass * self.beside[turn, local]).sum(
            axis=-1
        )


class _Tree:
    """Reads what the tries of all turns have as that of the whole."""

    def __init__(self, turns: Sequence[_Turn], num_choices: int) -> None:
        self.turns, self.num_choices = turns, num_choices
        self.nodes, self.decisions, self.edges = (
            _Numbers(sizes, num_choices)
            for sizes in (
                [len(turn.node_token) for turn in turns],
                [len(turn.trie.decision_node) for turn in turns],
                [len(turn.trie.edge_token) for turn in turns],
            )
        )
        self._ends = np.array([len(turn.node_token) - num_choices for turn in turns])
        self._chosen, self._going, self._paths = (
            _table([getattr(turn.trie, name) for turn in turns])
            for name in ("edge_choice", "edge_next", "form_edges")
        )

    def read(self, numbers: _Numbers, values: Sequence[np.ndarray], kind: Callable[..., Any] | None) -> Any:
        """Values of things of a turn, by turn; their kind says how numbers of others become those here."""
        table = _table(values)

        def value(items: np.ndarray) -> np.ndarray:
            turn, history, local = numbers.split(items)
            found = table[turn, local]
            shape = turn.shape + (1,) * (found.ndim - turn.ndim)
            return found if kind is None else kind(turn.reshape(shape), history.reshape(shape), found)

        return Computed((numbers.total, *table.shape[2:]), value)

    def at_node(self, turn: np.ndarray, history: np.ndarray, local: np.ndarray) -> np.ndarray:
        """The number of a node; of that before a turn, which is the last one of the turn before."""
        earlier, choice = np.divmod(history, self.num_choices)
        behind = self.nodes.join(turn - 1, earlier, self._ends[turn - 1] + choice)
        return np.where(local == _BEFORE, behind, self.nodes.join(turn, history, local))

    def next_decision(self, edges: np.ndarray) -> np.ndarray:
        """The decision that follows an edge: in its turn, or the first of the next one."""
        turn, history, local = self.edges.split(edges)
        choice, after = self._chosen[turn, local], np.minimum(turn + 1, len(self.turns) - 1)
        root = self.decisions.join(after, history * self.num_choices + choice, np.zeros_like(local))
        within = self.decisions.join(turn, history, self._going[turn, local])
        return np.where((choice != NONE) & (turn < after), root, within)

    def paths(self, forms: np.ndarray) -> np.ndarray:
        """The edges of forms (...), turn after turn: (..., L)."""
        turns = np.arange(len(self.turns))
        history, choice = np.divmod(forms[..., None] // self.num_choices ** turns[::-1], self.num_choices)
        edges = self.edges.join(turns[:, None], history[..., None], self._paths[turns, choice])
        return edges.reshape(*forms.shape, edges.shape[-2] * edges.shape[-1])


def build_turn_trie(
    prompts: np.ndarray, forced: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]
) -> TurnTrie:
    """The trie of all conversations of K turns, each of which gives one of C replies.

    Args:
        prompts: (M, P) tokens that conversations begin with, the user's first turn among them.
        forced: the tokens of the user's K - 1 later turns.
        replies: C, as tokens with their end, all of one length.

    Raises:
        ValueError: if the lengths differ, or as `build_trie`.
    """
    if len({len(reply) for reply in replies}) > 1:
        raise ValueError("the replies of a turn have different lengths")
    turns = [_Turn.of(tokens, replies, turn) for turn, tokens in enumerate([[], *forced])]
    starts = np.cumsum([0, *(len(tokens) + len(replies[0]) for tokens in [[], *forced])])
    tree, num_forms = _Tree(turns, len(replies)), len(replies) ** len(turns)
    nodes, decisions, edges = tree.nodes, tree.decisions, tree.edges
    tries, depths = [turn.trie for turn in turns], zip(turns, starts, strict=False)
    step: Any = Computed((edges.total,), lambda items: edges.split(items)[0])
    going: Any = Computed((edges.total,), tree.next_decision)
    paths: Any = Computed((num_forms, len(replies[0]) * len(turns)), tree.paths)
    return TurnTrie(
        prompts=prompts,
        node_token=tree.read(nodes, [turn.node_token for turn in turns], None),
        node_parent=tree.read(nodes, [turn.node_parent for turn in turns], tree.at_node),
        node_depth=tree.read(nodes, [turn.node_depth + start for turn, start in depths], None),
        decision_node=tree.read(decisions, [turn.decision_node for turn in turns], tree.at_node),
        decision_edges=tree.read(decisions, [trie.decision_edges for trie in tries], edges.join),
        edge_decision=tree.read(edges, [trie.edge_decision for trie in tries], decisions.join),
        edge_token=tree.read(edges, [trie.edge_token for trie in tries], None),
        edge_step=step,
        edge_choice=tree.read(edges, [trie.edge_choice for trie in tries], None),
        edge_next=going,
        form_edges=paths,
        numbers=edges,
        through=_table([turn.through for turn in turns], False),
        beside=_table([turn.beside for turn in turns], False),
        later_turns=tuple(map(list, forced)),
        replies=tuple(map(list, replies)),
    )
