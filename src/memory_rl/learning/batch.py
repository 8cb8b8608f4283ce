"""The episodes between two updates of some runs, as policy, world, learner and meter share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

UNLISTED = -2
"""In place of an answer: some answers other than S, which were not drawn one by one."""


@dataclass(frozen=True)
class SilentEpisodes:
    """The skipped episodes of one run in silent updates.

    In a noiseless channel equal answers share one row, at the first of them.

    Attributes:
        run: the run.
        update: the optimiser steps that it had made.
        episode: (T,) the number of each row's first episode, from 1.
        answers: (T,) `INVALID` where there was none, `UNLISTED` where they were not drawn.
        rewards: (T,).
        counts: (T,) how many episodes each row stands for.
        panel: (Q,) log-probabilities in nats of a ledger's panel of answers in case of a miss, if they were
            asked for.
    """

    run: int
    update: int
    episode: np.ndarray
    answers: np.ndarray
    rewards: np.ndarray
    counts: np.ndarray
    panel: np.ndarray | None = None


@dataclass(frozen=True)
class Batch:
    """The episodes of some runs that lead to their next update.

    Axes: R runs, B equal blocks of a run's episodes, each about one of its secrets, E episodes, G of a group,
    K steps, L tokens. With one secret there is one block.

    Attributes:
        runs: (R,) which runs these are.
        prompts: (R, B) the secret (from 0) that each block is about.
        choices: (R, E, K) what each turn answered, -1 for an invalid turn and those that it forfeits.
        path: (R, E, L) the policy's own record of the tokens that it chose, -1 for padding.
        updates: (R,) optimiser steps that the runs had made when they answered.
        rewards: (R, E, K), or None where answers were shown and not rewarded.
        returns: (R, groups, G, K) what each step is credited with, group by group.
        beliefs: (R, B, N) of the ideal observer of the run's own episodes, for learners that want them.
        taught: what a teacher would answer, a `policies.teaching.Opinion`, for learners that have one.
        active: (A,) all runs that the batch moves on; those without an update in it have spent their budget.
        episodes: (A,) how many episodes each of them has had after it.
        skipped: silent episodes before it.
        before: (R, E, L) log-probabilities in nats of the chosen tokens when they were chosen, 0 at the
            padding, where a learner has kept them; None: those of the first of its steps.
    """

    runs: np.ndarray
    prompts: np.ndarray
    choices: np.ndarray
    path: np.ndarray
    updates: np.ndarray
    rewards: np.ndarray | None = None
    returns: np.ndarray | None = None
    beliefs: np.ndarray | None = None
    taught: Any = None
    active: np.ndarray | None = None
    episodes: np.ndarray | None = None
    skipped: Sequence[SilentEpisodes] = ()
    before: np.ndarray | None = None

    @property
    def asked(self) -> np.ndarray:
        """The secret (from 0) that each episode is about: (R, E)."""
        return np.repeat(self.prompts, self.choices.shape[1] // self.prompts.shape[1], axis=1)

    @property
    def num_tokens(self) -> int:
        """Tokens that the policies chose, over all runs and episodes."""
        return int((self.path >= 0).sum())
