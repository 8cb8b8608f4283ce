"""What a learner's policy must do, whatever holds its parameters. The loops in training/ use nothing else.

R policies live side by side; axis 0 of every array is the run. All log-probabilities are in nats. Where a run
has several secrets, `prompts` says which of them it is asked about; without it, the only one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from memory_rl.learning.objectives import Objective
from memory_rl.state import Stateful


@dataclass(frozen=True)
class Rollout:
    """Sampled episodes of some runs. Axes: R the sampled runs, E episodes, K steps, L tokens.

    Attributes:
        runs: (R,) which runs these are.
        choices: (R, E, K) what each turn answered, -1 for an invalid turn and the turns that it forfeits.
        path: (R, E, L) the policy's own record of the tokens it chose.
        prompts: (R, B) the secret that each of B equal blocks of a run's episodes is about; None if there is
            but one.
    """

    runs: np.ndarray
    choices: np.ndarray
    path: np.ndarray
    prompts: np.ndarray | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens that the policies chose, over all runs and episodes."""
        return int((self.path >= 0).sum())


@dataclass(frozen=True)
class Assessment:
    """What some policies make of one answer to each of their M prompts, in nats: all of shape (R, M).

    Attributes:
        of_form: log-probability of that answer.
        of_valid: log of the mass on all N answers.
        of_best: log-probability of the likeliest answer or, from a policy that cannot score all of them, of
            the likeliest that it has seen.
    """

    of_form: np.ndarray
    of_valid: np.ndarray
    of_best: np.ndarray


def assess_all(log_probs: np.ndarray, forms: np.ndarray) -> Assessment:
    """The assessment of forms (R, M) from the log-probabilities of all N answers (R, M, N)."""
    of_form = np.take_along_axis(log_probs, forms[:, :, None], axis=2)[:, :, 0]
    return Assessment(of_form, np.logaddexp.reduce(log_probs, axis=2), log_probs.max(axis=2))


def every_prompt(num_runs: int, num_prompts: int) -> np.ndarray:
    """All prompts for each of some runs: (R, M)."""
    return np.broadcast_to(np.arange(num_prompts), (num_runs, num_prompts))


class Policy(Stateful, Protocol):
    """R policies over the valid conversations of one environment."""

    num_runs: int
    updates: np.ndarray
    """(R,) optimiser steps each run has made."""

    @property
    def trained_parameters(self) -> int | None:
        """Parameters that one run trains; None if that is not told."""

    @property
    def trained_bytes(self) -> int | None:
        """Bytes of them, if that is known."""

    def demonstrate(self, runs: np.ndarray, forms: np.ndarray, prompts: np.ndarray | None = None) -> Rollout:
        """The episodes in which the model gives these answers: (R, E) forms, in blocks to these prompts (R,
        B).
        """

    def assess(self, runs: np.ndarray, forms: np.ndarray, num_answers: int) -> Assessment:
        """What each of these runs makes of its forms (R, M), one a prompt, among the first `num_answers` of
        the valid conversations.
        """

    def update(self, rollout: Rollout, advantages: np.ndarray, objective: Objective) -> None:
        """The objective's optimiser steps (one, but for ppo) of each run in the rollout, but none for a run
        whose advantages (R, E, K) are all zero.
        """


class ScoresAll(Policy, Protocol):
    """A policy that knows the probability of every answer."""

    def sample(self, runs: np.ndarray, num_episodes: int, prompts: np.ndarray | None = None) -> Rollout:
        """Samples this many episodes of each of these runs, in blocks to these prompts (R, B)."""

    def log_probs(self, runs: np.ndarray, prompts: np.ndarray | None = None) -> np.ndarray:
        """Exact teacher-forced log-probability of every valid conversation that begins with these prompts (R,
        B): (R, B, F), float64; without them, (R, F).
        """

    def invalid(self, runs: np.ndarray) -> np.ndarray:
        """Probability that an episode ends in an invalid turn: (R,), not less than 0 and 0 where that cannot
        happen.
        """

    def distil(
        self, runs: np.ndarray, targets: np.ndarray, epochs: int, prompts: np.ndarray | None = None
    ) -> None:
        """Optimiser steps (this many) of these runs towards these distributions over the first forms: (R, B,
        N), one a prompt (R, B), by cross-entropy.
        """


class ScoresPaths(Policy, Protocol):
    """A policy over too many answers to score them all. A run is asked about one form throughout, its
    secret.
    """

    def log_probs_of(self, runs: np.ndarray, forms: np.ndarray) -> np.ndarray:
        """Exact log-probability of some forms: (R, E) to (R, E), float64."""

    def sample_others(self, runs: np.ndarray, forms: np.ndarray, num_episodes: int) -> Rollout:
        """Samples this many episodes of each run, given that they are not its form (R,)."""
