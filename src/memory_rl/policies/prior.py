"""The distribution of answers that a base model starts from, where it is not uniform: Zipf's law."""

from __future__ import annotations

import numpy as np

from memory_rl.seeding import generator


def zipf_weights(num_answers: int, skew: float, seed: int) -> np.ndarray:
    """N times the probability of each answer, in proportion to (1 + rank)^-skew: (N,).

    Args:
        num_answers: N.
        skew: the exponent; at 0 every weight is exactly 1.
        seed: of the ranks, a random permutation of [0, N) that depends on nothing else.
    """
    weights = (1.0 + generator(seed, "prior").permutation(num_answers)) ** -skew
    return np.asarray(weights / weights.mean())


def entropy_of(weights: np.ndarray) -> float:
    """The entropy in bits of such a distribution (N,), in which no weight is 0 unless it underflows."""
    logs = np.log2(weights, out=np.zeros(len(weights)), where=weights > 0)
    return float(np.log2(len(weights)) - np.mean(weights * logs))
