"""What a policy must do, whatever holds its parameters. The loop in training/ uses nothing else.

R policies live side by side; axis 0 of every array is the run. `prompts` (R, B) says which of a run's secrets
each of B equal blocks of episodes is about; with one secret it is zeros (R, 1). All log-probabilities are in
nats.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from typing_extensions import override

from memory_rl.learning.batch import Batch
from memory_rl.state import Stateful

if TYPE_CHECKING:
    from memory_rl.learning.imitation import Imitation
    from memory_rl.learning.learners import Learner


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


def every_prompt(runs: np.ndarray, num_prompts: int) -> np.ndarray:
    """All prompts for each of these runs: (R, M)."""
    return np.broadcast_to(np.arange(num_prompts), (len(runs), num_prompts))


def first_prompt(runs: np.ndarray) -> np.ndarray:
    """The only prompt of runs with one secret: zeros (R, 1)."""
    return np.zeros((len(runs), 1), dtype=np.int64)


class Policy(Stateful):
    """R policies over the valid conversations of one environment.

    Attributes:
        num_runs: R.
        updates: (R,) optimiser steps that each run has made.
        trained_parameters: parameters that one run trains; None if that is unknown.
        trained_bytes: bytes of them; None if that is unknown.
    """

    num_runs: int
    updates: np.ndarray
    trained_parameters: int | None = None
    trained_bytes: int | None = None

    @abstractmethod
    def demonstrate(self, runs: np.ndarray, prompts: np.ndarray, forms: np.ndarray) -> Batch:
        """The episodes in which the model gives these answers: (R, E) forms, in blocks to prompts (R, B)."""

    @abstractmethod
    def assess(self, runs: np.ndarray, forms: np.ndarray, num_answers: int) -> Assessment:
        """What each of these runs makes of its forms (R, M), one a prompt, among the first N forms."""

    @abstractmethod
    def update(self, batch: Batch, advantages: np.ndarray, learner: Learner) -> None:
        """The learner's optimiser steps, for the runs that it moves on advantages (R, E, K)."""

    def close(self, completed: bool) -> None:
        """Lets go of what it holds elsewhere; also of saved states, if the experiment is complete."""

    def _batch(self, runs: np.ndarray, prompts: np.ndarray, choices: np.ndarray, path: np.ndarray) -> Batch:
        """Episodes of these runs as they are now."""
        return Batch(runs, prompts, choices, path, self.updates[runs])


class Scores(Policy):
    """A policy that can be sampled from, and that knows the probability of every answer."""

    @abstractmethod
    def sample(self, runs: np.ndarray, prompts: np.ndarray, num_episodes: int) -> Batch:
        """This many episodes of each of these runs, in blocks to these prompts (R, B)."""

    @abstractmethod
    def log_probs(self, runs: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        """Exact log-probability of every valid conversation behind prompts (R, B): (R, B, F), float64."""

    @abstractmethod
    def invalid(self, runs: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        """Probability that an episode ends in an invalid turn: (R, B), at least 0, and 0 where it cannot."""

    @abstractmethod
    def log_probs_of_path(self, batch: Batch) -> np.ndarray:
        """Of the tokens that were chosen, as the policy is now: (R, E, L), 0 at the padding, float64."""

    @override
    def assess(self, runs: np.ndarray, forms: np.ndarray, num_answers: int) -> Assessment:
        return assess_all(self.log_probs(runs, every_prompt(runs, forms.shape[1]))[:, :, :num_answers], forms)


class Distils(Protocol):
    """A policy that can be trained towards distributions over all answers."""

    def distil(self, runs: np.ndarray, prompts: np.ndarray, targets: np.ndarray, epochs: int) -> None:
        """This many optimiser steps towards targets (R, B, N) over the first forms, by cross-entropy."""


class Imitates(Protocol):
    """A policy that can be drawn towards a teacher at the tokens that it has sampled."""

    def imitate(self, batch: Batch, learner: Imitation) -> None:
        """One optimiser step of each run of a batch that a teacher has judged."""


class Perturbs(Protocol):
    """A policy with noise on what it trains, and that can be moved along such noise, see `seeding.noise`.

    Attributes:
        noise: the standard deviation that suits its parameters.
    """

    noise: float

    def perturbed(self, runs: np.ndarray, seeds: np.ndarray, scale: float) -> AbstractContextManager[None]:
        """In its block, what each of these runs trains has noise of its seed (R,) times the scale on it."""

    def follow(self, runs: np.ndarray, seeds: np.ndarray, weights: np.ndarray) -> None:
        """An optimiser step of these runs down the sum of noise times weights: seeds and weights (R, E)."""


class ScoresPaths(Protocol):
    """A policy over too many answers to score them all, asked about one form a run: its secret."""

    def log_probs_of(self, runs: np.ndarray, forms: np.ndarray) -> np.ndarray:
        """Exact log-probability of some forms: (R, E) to (R, E), float64."""

    def sample_others(self, runs: np.ndarray, forms: np.ndarray, num_episodes: int) -> Batch:
        """This many episodes of each run, given that they are not its form (R,)."""
