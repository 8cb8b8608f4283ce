"""What a learner's policy must do, whatever holds its parameters. The loops in training/ use nothing else.

R policies live side by side; axis 0 of every array is the run. All log-probabilities are in nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from memory_rl.learning.objectives import Objective


@dataclass(frozen=True)
class Rollout:
    """Sampled episodes of some runs. Axes: R the sampled runs, E episodes, K steps, L tokens.

    Attributes:
        runs: (R,) which runs these are.
        choices: (R, E, K) what each turn answered, -1 for an invalid turn and the turns that it forfeits.
        path: (R, E, L) the policy's own record of the tokens it chose.
    """

    runs: np.ndarray
    choices: np.ndarray
    path: np.ndarray

    @property
    def num_tokens(self) -> int:
        """Tokens that the policies chose, over all runs and episodes."""
        return int((self.path >= 0).sum())


class Policy(Protocol):
    """R policies over the valid conversations of one environment."""

    num_runs: int
    updates: np.ndarray
    """(R,) optimiser steps each run has made."""

    @property
    def trained_parameters(self) -> int:
        """Parameters that one run trains."""

    def sample(self, runs: np.ndarray, num_episodes: int) -> Rollout:
        """Samples this many episodes of each of these runs."""

    def demonstrate(self, runs: np.ndarray, forms: np.ndarray) -> Rollout:
        """The episodes in which the model gives these answers: (R, E) forms."""

    def log_probs(self, runs: np.ndarray) -> np.ndarray:
        """Exact teacher-forced log-probability of every valid conversation: (R, F), float64."""

    def update(self, rollout: Rollout, advantages: np.ndarray, objective: Objective) -> None:
        """The objective's optimiser steps (one, but for ppo) of each run in the rollout, but none for a run whose advantages (R, E, K) are all zero."""

    def distil(self, runs: np.ndarray, targets: np.ndarray, epochs: int) -> None:
        """Optimiser steps (this many) of these runs towards these distributions over the first forms: (R, N), by cross-entropy."""
