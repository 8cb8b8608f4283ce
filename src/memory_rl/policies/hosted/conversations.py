"""The answer trie as a service sees it: token sequences in, token sequences out.

A service is asked with the tokens of a conversation so far and answers with tokens, which walk the trie until
the turn is over or a token leaves it: the exit. Numpy only. Axes: R runs, E episodes, L tokens that the model
chose, K steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from memory_rl.policies.answer_trie import NONE, AnswerTrie

START = 0
"""The decision at which every conversation begins."""


class Conversations:
    """Reads and writes the token sequences of a trie.

    Args:
        trie: of all valid conversations.

    Attributes:
        end: the token that ends a reply.
    """

    def __init__(self, trie: AnswerTrie) -> None:
        self.trie = trie
        starts, tokens = trie.edge_decision.tolist(), trie.edge_token.tolist()
        self._edge = {start: edge for edge, start in enumerate(zip(starts, tokens, strict=True))}
        self._prompts = [tuple(tokens) for tokens in trie.prompts.tolist()]
        self._behind_prompt: dict[int, tuple[int, ...]] = {NONE: ()}  # the tokens up to each node
        for node, parent in enumerate(trie.node_parent.tolist()):
            self._behind_prompt[node] = (*self._behind_prompt[parent], int(trie.node_token[node]))
        self.end = self.write(trie.form_edges[0])[0][-1]

    def before(self, decision: int, prompt: int = 0) -> tuple[int, ...]:
        """The tokens before a decision, which the model has read when it chooses, from a prompt on."""
        return (*self._prompts[prompt], *self._behind_prompt[int(self.trie.decision_node[decision])])

    @cached_property
    def _steps(self) -> np.ndarray:
        """(F, L) the step that each edge on the path of each form belongs to, NONE at the padding."""
        return np.where(self.trie.form_edges == NONE, NONE, self.trie.edge_step[self.trie.form_edges])

    @cached_property
    def longest_reply(self) -> np.ndarray:
        """(D,) tokens from a decision to the end of its turn, at most."""
        left = np.triu(self._steps[:, :, None] == self._steps[:, None]).sum(axis=2)
        longest, known = np.zeros(len(self.trie.decision_node), dtype=np.int64), self._steps != NONE
        np.maximum.at(longest, self.trie.edge_decision[self.trie.form_edges[known]], left[known])
        return longest

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest conversation."""
        return max(len(self.before(begin)) + int(self.longest_reply[begin]) for begin in self.turns[-1])

    @cached_property
    def turns(self) -> list[np.ndarray]:
        """The decisions at which a turn begins, by step."""
        begins = np.diff(self._steps, axis=1, prepend=NONE) > 0
        edges = [self.trie.form_edges[begins & (self._steps == step)] for step in range(self.trie.num_steps)]
        return [np.unique(self.trie.edge_decision[of_step]) for of_step in edges]

    def read(self, decision: int, tokens: Sequence[int]) -> tuple[list[int], int, int] | None:
        """The turn that begins at a decision and was answered with these tokens; None if it has no end.

        What comes after its end is not looked at.

        Returns:
            The edges taken, the last of them an exit if the turn is invalid; the token that left the trie,
            NONE if none did; the decision that follows, where the next turn begins, NONE at the end of the
            conversation.
        """
        edges: list[int] = []
        for token in tokens:
            edge = self._edge.get((decision, token))
            if edge is None:
                return [*edges, self._edge[decision, NONE]], token, NONE
            edges.append(edge)
            decision = int(self.trie.edge_next[edge])
            if self.trie.edge_choice[edge] != NONE:
                return edges, NONE, decision
        return None

    def write(
        self, path: np.ndarray, exit_token: int = NONE, prompt: int = 0
    ) -> tuple[list[int], np.ndarray]:
        """A conversation as tokens, and the places (L',) in it of those that the model chose.

        Args:
            path: (L,) edge ids, padded with NONE.
            exit_token: in place of the exit, if the path ends in one.
            prompt: that it begins with.
        """
        edges = path[path != NONE]
        decisions = self.trie.edge_decision[edges].tolist()
        places = np.array([len(self.before(decision)) for decision in decisions])
        last = exit_token if self.trie.is_exit[edges[-1]] else int(self.trie.edge_token[edges[-1]])
        return [*self.before(decisions[-1], prompt), last], places
