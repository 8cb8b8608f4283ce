"""All valid conversations as one tree of tokens: one forward pass gives the probability of every answer.

A *node* is a token that stands behind the common prompt; it attends to the prompt, to its ancestors and to
itself. A *decision* is a place where the model chooses the next token; its *edges* are the tokens that some
valid conversation continues with, and one more edge, the *exit*, for all other tokens together. Tokens of
later user turns are forced: they are nodes, not edges. A conversation ends at the first exit: no canonical
answer begins like that, so the turn is invalid. Hence an answer that a parser would accept only after
trimming, or in another tokenisation, counts as an exit.

Numpy only. Axes: M nodes, D decisions, C edges of a decision, E edges in all, F forms (valid conversations),
T tokens of a form, L edges on a path, K steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

TokenTurn = tuple[list[int], list[int]]
"""(forced tokens of the user's turn, tokens of the model's reply with its end-of-turn token)."""

NONE = -1


@dataclass(frozen=True)
class AnswerTrie:
    """The tree as arrays; build it with `build_trie`.

    Attributes:
        prompts: (M, P) token ids that conversations begin with, one row a secret; whatever the prompt, the
            tree behind it is the same. Node -1 is its last token.
        node_token, node_parent, node_depth: (M,); parents come before their children; depth 0 is the first
            token after the prompt.
        decision_node: (D,) the node whose output predicts the edge.
        decision_edges: (D, C) edge ids, the exit last, padded with -1.
        edge_decision, edge_token: (E,) where an edge starts and its token (-1 for an exit). The last D are
            the exits, in the order of the decisions.
        edge_step: (E,) the step whose reply the token belongs to.
        edge_choice: (E,) the choice of that step once the edge is taken, -1 while the reply is unfinished or
            invalid.
        edge_next: (E,) the decision that follows, -1 at the end of the conversation.
        form_edges: (F, L) edge ids on the path of each form, padded with -1.
    """

    prompts: np.ndarray
    node_token: np.ndarray
    node_parent: np.ndarray
    node_depth: np.ndarray
    decision_node: np.ndarray
    decision_edges: np.ndarray
    edge_decision: np.ndarray
    edge_token: np.ndarray
    edge_step: np.ndarray
    edge_choice: np.ndarray
    edge_next: np.ndarray
    form_edges: np.ndarray

    @property
    def prompt(self) -> np.ndarray:
        """(P,) the first of the prompts, which is the only one unless there are several secrets."""
        return np.asarray(self.prompts[0])

    @property
    def num_prompts(self) -> int:
        """M."""
        return len(self.prompts)

    @property
    def num_nodes(self) -> int:
        """M."""
        return len(self.node_token)

    @property
    def longest(self) -> int:
        """Tokens of the longest conversation, the prompt and all but the last."""
        return len(self.prompt) + int(self.node_depth.max(initial=-1)) + 1

    @property
    def largest_token(self) -> int:
        """The largest token id."""
        return max(int(tokens.max(initial=0)) for tokens in (self.prompts, self.node_token, self.edge_token))

    def fingerprint(self) -> Iterator[np.ndarray]:
        """Arrays that are the same if and only if the conversations are."""
        yield from (self.prompts, self.node_token, self.node_parent, self.edge_token, self.form_edges)

    @property
    def max_edges(self) -> int:
        """L: the most tokens the model chooses in an episode."""
        return int(self.form_edges.shape[1])

    @cached_property
    def num_steps(self) -> int:
        """K."""
        return int(self.edge_step.max()) + 1

    @cached_property
    def is_exit(self) -> np.ndarray:
        """(E,) bool: edges that stand for every token which no valid conversation continues with."""
        return self.edge_token == NONE

    def sample(self, probabilities: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Draws conversations token by token, each from the exact distribution at its decision.

        Args:
            probabilities: (R, E) of each edge given its decision.
            uniforms: (R, G, L) numbers in [0, 1), one a token.

        Returns:
            (R, G, L) edge ids in the order chosen, padded with -1.
        """
        padded = np.concatenate([probabilities, np.zeros((len(probabilities), 1))], axis=1)
        edges = np.full(uniforms.shape, NONE)
        decision = np.zeros(uniforms.shape[:2], dtype=np.int64)
        for position in range(self.max_edges):
            run, episode = np.nonzero(decision != NONE)
            here = decision[run, episode]
            cumulative = np.cumsum(padded[run[:, None], self.decision_edges[here]], axis=1)
            pick = (uniforms[run, episode, position, None] >= cumulative / cumulative[:, -1:]).sum(axis=1)
            edges[run, episode, position] = self.decision_edges[here, pick]
            decision[run, episode] = self.edge_next[edges[run, episode, position]]
        return edges

    def choices(self, edges: np.ndarray) -> np.ndarray:
        """The choice of each step: edge ids (..., L) to (..., K), -1 from an invalid turn on."""
        choices = np.full((*edges.shape[:-1], self.num_steps), NONE)
        *episode, position = np.nonzero((edges != NONE) & (self.edge_choice[edges] != NONE))
        done = edges[*episode, position]
        choices[*episode, self.edge_step[done]] = self.edge_choice[done]
        return choices

    def per_token(self, edges: np.ndarray, advantages: np.ndarray) -> np.ndarray:
        """Each token's advantage is that of its step: (R, E, L) edge ids, (R, E, K) to (R, E, L).

        0 at the padding.
        """
        return np.where(edges == NONE, 0.0, np.take_along_axis(advantages, self.edge_step[edges], axis=2))

    def column(self, edges: np.ndarray) -> np.ndarray:
        """Where edges stand among those of their decisions: ids (...), to columns of `decision_edges` (...).

        0 at the padding.
        """
        columns = (self.decision_edges[self.edge_decision[edges]] == edges[..., None]).argmax(axis=-1)
        return np.where(edges == NONE, 0, columns)

    def exit_mass(self, edge_log_probs: np.ndarray) -> np.ndarray:
        """Probability that a conversation ends at an exit: (..., E) to (...).

        It is summed over all exits, and so exact where it is small.
        """
        led_by = np.full(len(self.decision_node), NONE)  # the edge that leads to each decision
        leading = np.nonzero(self.edge_next != NONE)[0]
        led_by[self.edge_next[leading]] = leading
        exits = np.nonzero(self.is_exit)[0]
        log_mass, before = edge_log_probs[..., exits], led_by[self.edge_decision[exits]]
        while len(there := np.nonzero(before != NONE)[0]):
            log_mass[..., there] += edge_log_probs[..., before[there]]
            before[there] = led_by[self.edge_decision[before[there]]]
        return np.exp(log_mass).sum(axis=-1)

    def form_log_probs(self, edge_log_probs: np.ndarray) -> np.ndarray:
        """Log-probability of each form in nats: (..., E) to (..., F)."""
        padding = np.zeros((*edge_log_probs.shape[:-1], 1))
        return np.concatenate([edge_log_probs, padding], axis=-1)[..., self.form_edges].sum(axis=-1)

    def behind(self, weights: np.ndarray) -> np.ndarray:
        """The weight of the forms that take each edge: (F,) to (E + 1,); the last, which -1 reads, is 0."""
        found = np.zeros(len(self.edge_token) + 1)
        for edges in self.form_edges.T:
            np.add.at(found, edges, weights)
        found[NONE] = 0.0
        return found

    @cached_property
    def num_behind(self) -> np.ndarray:
        """(E + 1,) how many forms take each edge."""
        return self.behind(np.ones(len(self.form_edges)))

    def edge_share(self, weights: np.ndarray) -> np.ndarray:
        """By weight, the share of the forms through an edge's decision that take it: (F,) to (E,).

        This is its probability if the forms are as likely as they weigh; 0 for an exit.
        """
        through = self.behind(weights)[:-1]
        return through / np.bincount(self.edge_decision, through)[self.edge_decision]

    def leads_to(self, edges: np.ndarray) -> np.ndarray:
        """The choices of its turn that each edge may lead to: ids (...) to (..., A) bool; none from -1."""
        return self._leads_to[edges]

    @cached_property
    def _leads_to(self) -> np.ndarray:
        choices, places = self.choices(self.form_edges), np.arange(len(self.form_edges))
        found = np.zeros((len(self.edge_token) + 1, int(choices.max()) + 1), dtype=bool)
        for edges in self.form_edges.T:
            found[edges, choices[places, self.edge_step[edges]]] = True
        found[NONE] = False
        return found


def build_trie(conversations: Sequence[Sequence[TokenTurn]], choices: np.ndarray) -> AnswerTrie:
    """The trie of all valid conversations.

    Nodes, decisions and edges are numbered in the order in which the conversations, one after the other,
    come to them; the exits come last.

    Args:
        conversations: F tokenised conversations of K turns; the forced tokens of the first turn must be the
            same in all.
        choices: (F, K) what each turn of each conversation answers.

    Raises:
        ValueError: if two conversations are the same, or one ends where another continues: then P(S) would
            not be the probability of one path.
    """
    token, step, chosen = _joined(conversations)
    prefix = _prefixes(token)
    node_at, edge_at = np.full((2, *token.shape), NONE)
    is_node = np.pad(token[:, 1:] != NONE, ((0, 0), (0, 1)))  # the last token of a conversation is none
    row, node_depth, node_at[is_node] = _first_places(prefix, is_node)
    edge_row, edge_place, edge_at[chosen] = _first_places(prefix, chosen)
    node_before = np.pad(node_at, ((0, 0), (1, 0)), constant_values=NONE)
    edge_token = token[edge_row, edge_place]
    paths = _flush_left(edge_at, chosen)
    _check_paths(paths)
    decision_node, first, edge_decision = _numbered(node_before[edge_row, edge_place])
    edge_step, edge_choice = np.full((2, len(edge_token)), NONE)
    edge_step[edge_at[chosen]] = step[chosen]
    replying = np.pad(np.where(chosen, step, NONE), ((0, 0), (0, 1)), constant_values=NONE)
    ends = np.nonzero(chosen & (np.diff(replying, axis=1) != 0))  # the last token of each reply
    edge_choice[edge_at[ends]] = choices[ends[0], step[ends]]
    edge_next = np.full(len(edge_token), NONE)
    edge_next[paths[:, :-1][paths[:, 1:] != NONE]] = edge_decision[paths[:, 1:][paths[:, 1:] != NONE]]
    decisions = np.arange(len(decision_node))
    exits = np.full(len(decisions), NONE)
    all_decisions = np.concatenate([edge_decision, decisions])
    return AnswerTrie(
        prompts=np.array([conversations[0][0][0]]),
        node_token=token[row, node_depth],
        node_parent=node_before[row, node_depth],
        node_depth=node_depth,
        decision_node=decision_node,
        decision_edges=_group(all_decisions),
        edge_decision=all_decisions,
        edge_token=np.concatenate([edge_token, exits]),
        edge_step=np.concatenate([edge_step, edge_step[first]]),
        edge_choice=np.concatenate([edge_choice, exits]),
        edge_next=np.concatenate([edge_next, exits]),
        form_edges=paths,
    )


def _joined(conversations: Sequence[Sequence[TokenTurn]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tokens of all conversations behind the prompt, their turns, and which are chosen: (F, T)."""
    parts = [(turn, chosen) for turn in range(len(conversations[0])) for chosen in (False, True)][1:]
    padded = [_pad([conversation[turn][chosen] for conversation in conversations]) for turn, chosen in parts]
    tokens = np.hstack(padded)
    turns, chosen = (
        np.broadcast_to(np.repeat(values, [rows.shape[1] for rows in padded]), tokens.shape)
        for values in zip(*parts, strict=True)
    )
    token, step, decides = (_flush_left(values, tokens != NONE) for values in (tokens, turns, chosen))
    return token, step, decides == 1


def _prefixes(token: np.ndarray) -> np.ndarray:
    """A number for the tokens up to each place of a conversation; equal tokens, equal numbers: (F, T)."""
    numbers, width, before = np.empty_like(token), int(token.max()) + 2, np.zeros(len(token), dtype=np.int64)
    for place, tokens in enumerate(token.T):
        before = np.unique(before * width + tokens + 1, return_inverse=True)[1]
        numbers[:, place] = place * len(token) + before
    return numbers


def _first_places(prefix: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers some of the prefixes: row and place where each first stands, and the number at every place."""
    _, first, which = _numbered(prefix[wanted])
    row, place = np.nonzero(wanted)
    return row[first], place[first], which


def _check_paths(paths: np.ndarray) -> None:
    ends = paths[np.arange(len(paths)), (paths != NONE).sum(axis=1) - 1]
    if len(np.unique(ends)) < len(paths):
        raise ValueError("two answers have the same tokens")
    if np.isin(paths[:, :-1][paths[:, 1:] != NONE], ends).any():
        raise ValueError("one answer's tokens begin another's")


def _numbered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The different values in the order in which they first come, where that is, and the number of each."""
    different, first, which = np.unique(values, return_index=True, return_inverse=True)
    order = first.argsort()
    return different[order], first[order], order.argsort()[which]


def _flush_left(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The wanted values of each row, in their order, padded with -1."""
    return _ragged(values[wanted], wanted.sum(axis=1))


def _group(groups: np.ndarray) -> np.ndarray:
    """Which entries are of each group, in order: (E,) group numbers, each used, to (D, C), padded with -1."""
    return _ragged(groups.argsort(kind="stable"), np.bincount(groups))


def _pad(rows: Sequence[Sequence[int]]) -> np.ndarray:
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    return _ragged(np.fromiter(itertools.chain.from_iterable(rows), np.int64), lengths)


def _ragged(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Rows of these lengths, one after the other in the values, padded with -1."""
    rows = np.full((len(lengths), int(lengths.max())), NONE)
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = values
    return rows
