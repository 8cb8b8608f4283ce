"""Entropy, mutual information and the bits known by a policy, all in bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LN2 = float(np.log(2.0))


def xlog2x(probabilities: np.ndarray) -> np.ndarray:
    """P log2 p, element by element, with 0 log2 0 = 0."""
    return probabilities * np.log2(np.where(probabilities > 0, probabilities, 1.0))


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """-sum p log2 p over the last axis, with 0 log2 0 = 0: (..., L) to (...)."""
    return np.maximum(-xlog2x(probabilities).sum(axis=-1), 0.0)  # rounding must not make it negative


@dataclass(frozen=True)
class BitsKnown:
    """log2 N + log2 P(S), and its two parts; each of shape (R,), in bits.

    Attributes:
        total: 0 knows nothing, log2 N knows S for certain.
        format: log2 of the mass on the N valid answers, <= 0.
        content: log2 N + log2 P(S | the answer is valid); total = format + content.
    """

    total: np.ndarray
    format: np.ndarray
    content: np.ndarray

    @classmethod
    def of_secret(cls, log_secret: np.ndarray, log_valid: np.ndarray, num_answers: int) -> BitsKnown:
        """From log P(S) and the log of the mass on all valid answers (R,), in nats."""
        total, format_bits = np.log2(num_answers) + log_secret / LN2, log_valid / LN2
        return cls(total, format_bits, total - format_bits)
