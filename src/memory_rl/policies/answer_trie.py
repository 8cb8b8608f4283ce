"""All valid conversations of an environment as one tree of tokens, so that one forward pass gives the exact probability of every answer.

A *node* is a token that stands behind the common prompt; it attends to the prompt, to its ancestors and to itself. A *decision* is a place where
the model chooses the next token; its *edges* are the tokens that some valid conversation continues with, and one more edge, the *exit*, for all other
tokens together. Tokens of later user turns are forced: they are nodes, not edges. A conversation ends at the first exit: no canonical answer
begins like that, so the turn is invalid. Hence an answer that a parser would accept only after trimming, or in another tokenisation, counts as an exit.

Numpy only. Axes: M nodes, D decisions, C edges of a decision, E edges in all, F forms (valid conversations), L edges on a path, K steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TokenTurn = tuple[list[int], list[int]]
"""(forced tokens of the user's turn, tokens of the model's reply with its end-of-turn token)."""

NONE = -1
EXIT_TOKEN = -1


@dataclass(frozen=True)
class AnswerTrie:
    """The tree as arrays; build it with `build_trie`.

    Attributes:
        prompt: (P,) token ids that all conversations begin with; node -1 is its last token.
        node_token, node_parent, node_depth: (M,); parents come before their children; depth 0 is the first token after the prompt.
        ancestors: (M, M) bool, `ancestors[i, j]` if node i attends to node j (itself included).
        decision_node: (D,) the node whose output predicts the edge.
        decision_edges: (D, C) edge ids, the exit last, padded with -1.
        edge_decision, edge_token: (E,) where an edge starts and its token (-1 for an exit).
        edge_step: (E,) the step whose reply the token belongs to.
        edge_choice: (E,) the choice of that step once the edge is taken, -1 while the reply is unfinished or invalid.
        edge_next: (E,) the decision that follows, -1 at the end of the conversation.
        form_edges: (F, L) edge ids on the path of each form, padded with -1.
    """

    prompt: np.ndarray
    node_token: np.ndarray
    node_parent: np.ndarray
    node_depth: np.ndarray
    ancestors: np.ndarray
    decision_node: np.ndarray
    decision_edges: np.ndarray
    edge_decision: np.ndarray
    edge_token: np.ndarray
    edge_step: np.ndarray
    edge_choice: np.ndarray
    edge_next: np.ndarray
    form_edges: np.ndarray

    @property
    def num_nodes(self) -> int:
        """M."""
        return len(self.node_token)

    @property
    def max_edges(self) -> int:
        """L: the most tokens the model chooses in an episode."""
        return int(self.form_edges.shape[1])

    @property
    def is_exit(self) -> np.ndarray:
        """(E,) bool: edges that stand for every token which no valid conversation continues with."""
        return self.edge_token == EXIT_TOKEN

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

    def choices(self, edges: np.ndarray, num_steps: int) -> np.ndarray:
        """The choice of each step in each episode: edge ids (..., L) to choices (..., K), -1 from the invalid turn on."""
        flat = edges.reshape(-1, edges.shape[-1])
        choices = np.full((len(flat), num_steps), NONE)
        episode, position = np.nonzero(flat != NONE)
        taken = flat[episode, position]
        done = self.edge_choice[taken] != NONE
        choices[episode[done], self.edge_step[taken[done]]] = self.edge_choice[taken[done]]
        return choices.reshape(*edges.shape[:-1], num_steps)

    def form_log_probs(self, edge_log_probs: np.ndarray) -> np.ndarray:
        """Log-probability of each form in nats: (R, E) to (R, F)."""
        padded = np.concatenate([edge_log_probs, np.zeros((len(edge_log_probs), 1))], axis=1)
        return padded[:, self.form_edges].sum(axis=2)

    def nodes_for(self, edges: np.ndarray) -> np.ndarray:
        """The nodes that must be computed to score these edges: (..., L) edge ids to a mask (M,)."""
        ends = self.decision_node[self.edge_decision[np.unique(edges[edges != NONE])]]
        return self.ancestors[ends[ends != NONE]].any(axis=0)


class _Builder:
    """Grows the tree one conversation at a time."""

    def __init__(self) -> None:
        self.children: dict[tuple[int, int], int] = {}  # (node, token) -> node
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.decisions: dict[int, int] = {}  # node -> decision
        self.edges: dict[tuple[int, int], int] = {}  # (decision, token) -> edge
        self.step: list[int] = []
        self.choice: list[int] = []
        self.next_node: list[int] = []  # the node at which the next decision stands, if there is one

    def walk(self, node: int, token: int) -> int:
        if (node, token) not in self.children:
            self.children[node, token] = len(self.tokens)
            self.tokens.append(token)
            self.parents.append(node)
        return self.children[node, token]

    def choose(self, node: int, token: int, step: int) -> int:
        decision = self.decisions.setdefault(node, len(self.decisions))
        if (decision, token) not in self.edges:
            self.edges[decision, token] = len(self.step)
            self.step.append(step)
            self.choice.append(NONE)
            self.next_node.append(NONE)
        return self.edges[decision, token]

    def add(self, turns: Sequence[TokenTurn], choices: Sequence[int]) -> list[int]:
        """Adds one conversation (the first prompt left out) and returns the edges on its path."""
        node, path = NONE, []
        for step, (forced, reply) in enumerate(turns):
            for token in forced if step else []:
                node = self.walk(node, token)
            for position, token in enumerate(reply):
                edge = self.choose(node, token, step)
                path.append(edge)
                if position + 1 < len(reply):
                    node = self.walk(node, token)
                    self.next_node[edge] = node
            self.choice[path[-1]] = choices[step]
            if step + 1 < len(turns):
                node = self.walk(node, reply[-1])
                self.next_node[path[-1]] = self._last_forced(node, turns[step + 1][0])
        return path

    def _last_forced(self, node: int, forced: Sequence[int]) -> int:
        for token in forced:
            node = self.walk(node, token)
        return node

    def add_exits(self) -> None:
        steps = {decision: self.step[edge] for (decision, _), edge in self.edges.items()}
        for decision in self.decisions.values():
            self.edges[decision, EXIT_TOKEN] = len(self.step)
            self.step.append(steps[decision])
            self.choice.append(NONE)
            self.next_node.append(NONE)


def build_trie(conversations: Sequence[Sequence[TokenTurn]], choices: np.ndarray) -> AnswerTrie:
    """The trie of all valid conversations.

    Args:
        conversations: F tokenised conversations of K turns; the forced tokens of the first turn must be the same in all.
        choices: (F, K) what each turn of each conversation answers.

    Raises:
        ValueError: if two conversations are the same, or one ends where another goes on: then P(S) would not be the probability of one path.
    """
    builder = _Builder()
    paths = [builder.add(turns, form) for turns, form in zip(conversations, choices.tolist(), strict=True)]
    if len({tuple(path) for path in paths}) < len(paths):
        raise ValueError("two answers have the same tokens")
    if any(builder.next_node[path[-1]] != NONE for path in paths):
        raise ValueError("one answer's tokens begin another's")
    builder.add_exits()
    prompt = np.array(conversations[0][0][0])
    return _as_arrays(builder, prompt, paths)


def _as_arrays(builder: _Builder, prompt: np.ndarray, paths: list[list[int]]) -> AnswerTrie:
    parents = np.array(builder.parents, dtype=np.int64)
    ancestors = np.eye(len(parents), dtype=bool)
    depth = np.zeros(len(parents), dtype=np.int64)
    for node, parent in enumerate(parents):
        if parent != NONE:
            ancestors[node] |= ancestors[parent]
            depth[node] = depth[parent] + 1
    edges = list(builder.edges)  # in order of edge id
    by_decision: list[list[int]] = [[] for _ in builder.decisions]
    for edge, (decision, _) in enumerate(edges):
        by_decision[decision].append(edge)
    edge_next = [NONE if node == NONE else builder.decisions[node] for node in builder.next_node]
    return AnswerTrie(
        prompt=prompt,
        node_token=np.array(builder.tokens, dtype=np.int64),
        node_parent=parents,
        node_depth=depth,
        ancestors=ancestors,
        decision_node=np.array(list(builder.decisions), dtype=np.int64),
        decision_edges=_pad(by_decision),
        edge_decision=np.array([decision for decision, _ in edges]),
        edge_token=np.array([token for _, token in edges]),
        edge_step=np.array(builder.step),
        edge_choice=np.array(builder.choice),
        edge_next=np.array(edge_next),
        form_edges=_pad(paths),
    )


def _pad(rows: list[list[int]]) -> np.ndarray:
    width = max(map(len, rows))
    return np.array([row + [NONE] * (width - len(row)) for row in rows])
