"""Episodes that were not sampled one by one, because nothing could change before they were over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNLISTED = -2
"""In place of an answer: some answers that were not S, which were not drawn one by one."""


@dataclass(frozen=True)
class SilentEpisodes:
    """Episodes of one run that were skipped, in silent updates. In a channel without chance, equal answers
    are one row, where the first of them stands.

    Attributes:
        run: whose.
        update: the optimiser steps it had made.
        episode: (T,) the number of each row's first episode, from 1.
        answers: (T,) `INVALID` where there was none.
        rewards: (T,).
        counts: (T,) how many episodes each row stands for.
        panel: (Q,) log-probabilities in nats of a ledger's panel of answers, given a miss, if the policy was
            asked for them.
    """

    run: int
    update: int
    episode: np.ndarray
    answers: np.ndarray
    rewards: np.ndarray
    counts: np.ndarray
    panel: np.ndarray | None = None
