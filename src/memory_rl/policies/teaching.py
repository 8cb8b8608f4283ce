"""What a teacher of answers says of each token of the trie.

Numpy only. Axes: R runs, B blocks of E episodes, L tokens, C edges of a decision, F forms.
"""

from __future__ import annotations

import numpy as np

from memory_rl.policies.answer_trie import NONE, AnswerTrie


def edge_probabilities(trie: AnswerTrie, of_forms: np.ndarray) -> np.ndarray:
    """Of each edge given its decision, by distributions over forms: (..., F) to (..., edges + 1).

    That of an exit is 0: no teacher takes it. Behind tokens that all its answers rule out, the forms are
    equally likely. The last entry, which paddings of -1 read, is 0.
    """
    by_form = of_forms.reshape(-1, of_forms.shape[-1]).T
    by_edge = np.zeros((len(trie.edge_token) + 1, by_form.shape[1]))
    for edges in trie.form_edges.T:
        np.add.at(by_edge, edges, by_form)
    by_edge[-1] = 0.0
    mass = by_edge.T.reshape(*of_forms.shape[:-1], -1)
    total = mass[..., trie.decision_edges].sum(axis=-1)[..., trie.edge_decision]
    even = trie.edge_share(np.ones(len(trie.form_edges)))
    found = np.zeros_like(mass)
    found[..., :-1] = np.broadcast_to(even, total.shape)
    np.divide(mass[..., :-1], total, out=found[..., :-1], where=total > 0)
    return found


def on_path(trie: AnswerTrie, of_forms: np.ndarray, path: np.ndarray) -> np.ndarray:
    """What the teachers (R, B, F) give to all edges of each decision on sampled paths (R, E, L).

    Returns:
        (R, E, L, C), in the order of `AnswerTrie.decision_edges`; 0 where there is no edge.
    """
    runs, episodes, _ = path.shape
    probabilities = edge_probabilities(trie, of_forms)
    block = np.arange(episodes) // (episodes // of_forms.shape[1])
    edges = trie.decision_edges[trie.edge_decision[path]]
    run = np.arange(runs).reshape(-1, 1, 1, 1)
    return np.asarray(probabilities[run, block[:, None, None], edges])


def judged(trie: AnswerTrie, path: np.ndarray) -> np.ndarray:
    """Which tokens of sampled paths (R, E, L) are judged one by one: (R, E, L) bool.

    Of a turn that ends in an exit, only that: an answer that was not finished is not said to begin well.
    """
    is_token = path != NONE
    step, left = np.where(is_token, trie.edge_step[path], NONE), is_token & trie.is_exit[path]
    unfinished = left.any(axis=2, keepdims=True) & (step == step.max(axis=2, keepdims=True))
    return np.asarray(is_token & (~unfinished | left))
