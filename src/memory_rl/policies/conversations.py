"""The answer trie as a service sees it: token sequences in, token sequences out.

A service is asked with the tokens of a conversation so far and answers with tokens, which walk the trie until
the turn is over or a token leaves it: the exit. Numpy only. Axes: R runs, E episodes, L tokens that the model
chose, K steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from memory_rl.policies.answer_trie import NONE, AnswerTrie

START = 0
"""The decision at which every conversation begins."""


@dataclass(frozen=True)
class Reply:
    """One turn as it was answered.

    Attributes:
        edges: taken, the last of them an exit if the turn is invalid.
        exit_token: the token that left the trie, NONE if none did.
        decision: that follows, where the next turn begins; NONE at the end of the conversation.
    """

    edges: list[int]
    exit_token: int
    decision: int


class Conversations:
    """Reads and writes the token sequences of a trie.

    Args:
        trie: of all valid conversations.
    """

    def __init__(self, trie: AnswerTrie) -> None:
        self.trie = trie
        inner = np.nonzero(~trie.is_exit)[0]
        self._edge = {
            (int(trie.edge_decision[edge]), int(trie.edge_token[edge])): int(edge) for edge in inner
        }
        exits = np.nonzero(trie.is_exit)[0]
        self._exit = dict(zip(trie.edge_decision[exits].tolist(), exits.tolist(), strict=True))
        self._prompts = [tuple(tokens) for tokens in trie.prompts.tolist()]
        self._behind_prompt = lru_cache(maxsize=None)(self._find_behind_prompt)

    def before(self, decision: int, prompt: int = 0) -> tuple[int, ...]:
        """The tokens before a decision: all that the model has read when it chooses, from one of the M
        prompts on.
        """
        return (*self._prompts[prompt], *self._behind_prompt(decision))

    def _find_behind_prompt(self, decision: int) -> tuple[int, ...]:
        tokens, node = [], int(self.trie.decision_node[decision])
        while node != NONE:
            tokens.append(int(self.trie.node_token[node]))
            node = int(self.trie.node_parent[node])
        return tuple(reversed(tokens))

    @cached_property
    def longest_reply(self) -> np.ndarray:
        """(D,) tokens from a decision to the end of its turn, at most."""
        trie, longest = self.trie, np.ones(len(self.trie.decision_node), dtype=np.int64)
        within = np.nonzero((trie.edge_next != NONE) & (trie.edge_choice == NONE))[0]
        depth = np.where(trie.decision_node == NONE, NONE, trie.node_depth[trie.decision_node])
        for edge in within[np.argsort(-depth[trie.edge_decision[within]], kind="stable")]:
            here = trie.edge_decision[edge]
            longest[here] = max(longest[here], 1 + longest[trie.edge_next[edge]])
        return longest

    @cached_property
    def turns(self) -> list[list[int]]:
        """The decisions at which a turn begins, by step."""
        trie = self.trie
        begins = np.unique(trie.edge_next[(trie.edge_next != NONE) & (trie.edge_choice != NONE)])
        by_step: list[list[int]] = [[START], *([] for _ in range(trie.num_steps - 1))]
        step = dict(zip(trie.edge_decision.tolist(), trie.edge_step.tolist(), strict=True))
        for decision in begins.tolist():
            by_step[step[decision]].append(decision)
        return by_step

    def read(self, decision: int, tokens: Sequence[int]) -> Reply | None:
        """The turn that begins at a decision and was answered with these tokens; what comes after its end is
        not looked at. None if it has no end.
        """
        edges: list[int] = []
        for token in tokens:
            edge = self._edge.get((decision, token))
            if edge is None:
                return Reply([*edges, self._exit[decision]], token, NONE)
            edges.append(edge)
            decision = int(self.trie.edge_next[edge])
            if self.trie.edge_choice[edge] != NONE:
                return Reply(edges, NONE, decision)
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
