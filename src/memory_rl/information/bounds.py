"""Ceilings on what an episode can teach, whoever learns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from memory_rl.information.entropy import LN2, entropy
from memory_rl.information.outcomes import Outcomes
from memory_rl.information.questions import Questions, uniform_information

_GAP = 1e-9
_MAX_ITERATIONS = 20_000


def shannon_capacity(rows: np.ndarray) -> float:
    """Max over p(class) of I(class; level), in bits (Shannon 1948).

    By the algorithm of Blahut and Arimoto (1972), which ends when the upper bound max_c D(row c || levels)
    and the lower bound I agree to 1e-9 bits. If they do not, which may happen where the rows are nearly the
    same, the upper bound is returned: it is a ceiling all the same.

    Args:
        rows: (C, L) p(level | class).
    """
    log_rows = np.log(np.where(rows > 0, rows, 1.0))
    weights = np.full(len(rows), 1 / len(rows))
    for _ in range(_MAX_ITERATIONS):
        levels = weights @ rows
        divergence = (rows * (log_rows - np.log(np.where(levels > 0, levels, 1.0)))).sum(axis=1)  # nats
        lower = float(np.log(weights @ np.exp(divergence)))
        if divergence.max() - lower < _GAP * LN2:
            return lower / LN2
        weights = weights * np.exp(divergence - lower)
    return float(divergence.max()) / LN2


def question_capacity(questions: Questions, outcomes: Outcomes, cells: float = math.inf) -> float | None:
    """The most that any question can reveal, whatever is known before, in bits.

    That is the maximum over answers a and over p(S) of I(S; level | A = a).

    Args:
        questions: that may be asked.
        outcomes: p(level | class).
        cells: the most rows x levels, over all sets of classes that one question can bring and no other
            exceeds; where they are more it is None.
    """
    if outcomes.noisy is None:
        return math.log2(max(int((counts > 0).sum(axis=1).max()) for counts in questions.counts()))
    reached = [np.unique(np.packbits(counts > 0, axis=1), axis=0) for counts in questions.counts()]
    sets = np.unpackbits(np.unique(np.concatenate(reached), axis=0), axis=1, count=questions.num_classes)
    by_size = sorted(sets.astype(bool), key=np.sum, reverse=True)
    largest: list[np.ndarray] = []
    for candidate in by_size:
        if not any((candidate <= kept).all() for kept in largest):
            largest.append(candidate)
    if len(largest) * outcomes.noisy.size > cells:
        return None
    return max(shannon_capacity(outcomes.noisy[kept]) for kept in largest)


@dataclass(frozen=True)
class FirstEpisode:
    """I(S; R | A = a) before anything is known, in bits: of the best answer, and the mean over all."""

    best: float
    mean: float


def first_episode_information(questions: Questions, outcomes: Outcomes) -> FirstEpisode:
    """What the first episode can reveal about a uniform secret.

    Args:
        questions: that may be asked.
        outcomes: p(level | class).
    """
    information = uniform_information(questions, outcomes)
    return FirstEpisode(float(information.max()), float(information.mean()))


def binary_first_episode(N: int) -> FirstEpisode:
    """h(1 / N), for any answer: the closed form for the noiseless binary channel."""
    bits = float(entropy(np.array([1 / N, 1 - 1 / N])))
    return FirstEpisode(bits, bits)


def distance_first_episode(N: int) -> FirstEpisode:
    """The first episode where the distance |a - S| is shown: an end point reveals all.

    From answer a, m = min(a, N - 1 - a) pairs of secrets look alike, which costs 2 m / N bits.
    """
    pairs = np.minimum(np.arange(N), N - 1 - np.arange(N))
    return FirstEpisode(math.log2(N), math.log2(N) - 2 * float(pairs.mean()) / N)
