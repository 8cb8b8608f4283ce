"""What teachers would answer, and what they therefore say of each token of sampled conversations.

Numpy only. Axes: R runs, B blocks of E episodes, K turns, A choices of a turn, L tokens, C edges of a
decision, F forms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from memory_rl.policies.answer_trie import NONE, AnswerTrie


class Opinion(ABC):
    """What the teachers of some runs would answer, to each block of a run's episodes."""

    def on_path(self, trie: AnswerTrie, path: np.ndarray) -> np.ndarray:
        """What they give to all edges of each decision on sampled paths (R, E, L).

        A token is as likely as the answers that begin with it, given those that begin as the path does; where
        the teacher rules all of these out, they are equally likely. No teacher takes an exit.

        Returns:
            (R, E, L, C), in the order of `AnswerTrie.decision_edges`; 0 where there is no edge.
        """
        edges = trie.decision_edges[trie.edge_decision[path]]
        mass, even = self._masses(trie, path, edges)
        total = mass.sum(axis=-1, keepdims=True)
        shares = even / even.sum(axis=-1, keepdims=True)
        return np.divide(mass, total, out=shares, where=total > 0)

    @abstractmethod
    def _masses(self, trie: AnswerTrie, path: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the answers behind edges (R, E, L, C) weigh, and what they would if all were alike."""

    @abstractmethod
    def turns(self, choices: np.ndarray, num_choices: int) -> np.ndarray:
        """How likely each choice of a turn is, after the choices (R, E, K) before it: (R, E, K, A).

        The choice is -1 for an invalid turn and those that it forfeits.
        """

    def of_choices(self, choices: np.ndarray, num_choices: int) -> np.ndarray:
        """How likely the choices (R, E, K) were, each after those before it; 0 where there is none."""
        valid = choices != NONE
        found = np.take_along_axis(
            self.turns(choices, num_choices), np.where(valid, choices, 0)[..., None], 3
        )
        return np.where(valid, found[..., 0], 0.0)


@dataclass(frozen=True)
class OfForms(Opinion):
    """Any distribution over the valid conversations: (R, B, F)."""

    weights: np.ndarray

    @override
    def _masses(self, trie: AnswerTrie, path: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        blocks, found = self.weights.shape[:2], np.empty(edges.shape)
        by_block = (len(edges), blocks[1], -1, *edges.shape[2:])
        mass, asked = found.reshape(by_block), edges.reshape(by_block)
        for block in np.ndindex(*blocks):  # one at a time: there may be a million edges
            mass[block] = trie.behind(self.weights[block])[asked[block]]
        return found, trie.num_behind[edges]

    @override
    def turns(self, choices: np.ndarray, num_choices: int) -> np.ndarray:
        run, block = np.arange(len(choices))[:, None], _blocks(choices, self.weights)
        before, found = np.zeros(choices.shape[:2], dtype=np.int64), np.empty((*choices.shape, num_choices))
        for step in range(choices.shape[2]):
            by_choice = self.weights.reshape(*self.weights.shape[:2], num_choices**step, num_choices, -1)
            here = by_choice.sum(axis=4)[run, block, before]
            total = here.sum(axis=2, keepdims=True)
            even = np.full(here.shape, 1 / num_choices)
            found[:, :, step] = np.divide(here, total, out=even, where=total > 0)
            before = before * num_choices + np.maximum(choices[:, :, step], 0)
        return found


@dataclass(frozen=True)
class OfSecret(Opinion):
    """One answer, but for an error that is spread evenly over the other answers.

    Attributes:
        forms: (R, B) the answer, in conversations of one turn.
        error: the probability of another one.
        num_forms: F.
    """

    forms: np.ndarray
    error: float
    num_forms: int

    @override
    def _masses(self, trie: AnswerTrie, path: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        right = trie.form_edges[self.forms][:, _blocks(path, self.forms), :, None]
        even, leads = trie.num_behind[edges], (edges == right) & (edges != NONE)
        return self._other * even + (1 - self.error - self._other) * leads, even

    @property
    def _other(self) -> float:
        """The probability of each other answer."""
        return self.error / (self.num_forms - 1)

    @override
    def turns(self, choices: np.ndarray, num_choices: int) -> np.ndarray:
        every = np.broadcast_to(np.arange(num_choices), (*choices.shape, num_choices))
        return self._of(every, choices)

    @override
    def of_choices(self, choices: np.ndarray, num_choices: int) -> np.ndarray:
        return np.where(choices == NONE, 0.0, self._of(choices, choices))

    def _of(self, answers: np.ndarray, choices: np.ndarray) -> np.ndarray:
        right = self.forms[:, _blocks(choices, self.forms)]
        right = right.reshape(*right.shape, *(1,) * (answers.ndim - 2))
        return np.where(answers == right, 1 - self.error, self._other)


@dataclass(frozen=True)
class OfTurns(Opinion):
    """Answers each turn in the same way, whatever was said before it: (R, B, K, A)."""

    weights: np.ndarray

    @override
    def _masses(self, trie: AnswerTrie, path: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        run = np.arange(len(path))[:, None, None]
        of_turn = self.weights[run, _blocks(path, self.weights)[:, None], trie.edge_step[path]]
        leads = trie.leads_to(edges)
        return (leads * of_turn[..., None, :]).sum(axis=-1), leads.sum(axis=-1, dtype=np.float64)

    @override
    def turns(self, choices: np.ndarray, num_choices: int) -> np.ndarray:
        return self.weights[:, _blocks(choices, self.weights)]


def _blocks(of_episodes: np.ndarray, of_blocks: np.ndarray) -> np.ndarray:
    """The block of each episode, (E,), of arrays (R, E, ...) and (R, B, ...)."""
    episodes, blocks = of_episodes.shape[1], of_blocks.shape[1]
    return np.arange(episodes) // (episodes // blocks)


def judged(trie: AnswerTrie, path: np.ndarray) -> np.ndarray:
    """Which tokens of sampled paths (R, E, L) are judged one by one: (R, E, L) bool.

    Of a turn that ends in an exit, only that: an answer that was not finished is not said to begin well.
    """
    is_token = path != NONE
    step, left = np.where(is_token, trie.edge_step[path], NONE), is_token & trie.is_exit[path]
    unfinished = left.any(axis=2, keepdims=True) & (step == step.max(axis=2, keepdims=True))
    return np.asarray(is_token & (~unfinished | left))
