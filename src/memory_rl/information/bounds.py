"""Ceilings on what an episode can teach, whoever learns."""

from __future__ import annotations

import math

import numpy as np

from memory_rl.information.entropy import mutual_information


def naive_capacity(num_levels: int) -> float:
    """log2 of the number of levels that a reward can take, in bits an episode.

    A ceiling that need not be reached: the levels would have to be equally likely.
    """
    return math.log2(num_levels)


def first_episode_information(likelihoods: np.ndarray) -> tuple[float, float]:
    """I(S; R | A = a) before anything is known, of the best and of the mean answer, in bits.

    Args:
        likelihoods: (A, N, L) p(R | answer, S), with S uniform.

    Returns:
        max over a, mean over a.
    """
    num_answers, num_secrets, _ = likelihoods.shape
    uniform = np.full((num_answers, num_secrets), 1 / num_secrets)
    information = mutual_information(uniform, likelihoods)
    return float(information.max()), float(information.mean())
