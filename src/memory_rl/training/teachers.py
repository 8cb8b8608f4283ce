"""Teachers: what each of them would answer, as a distribution over the valid conversations.

Axes: R runs, M secrets, B blocks of E episodes, K steps, F forms, of which the first N are answers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from memory_rl.config import Signal
from memory_rl.learning.batch import Batch
from memory_rl.learning.imitation import FLOOR, conditionals
from memory_rl.task import INVALID, Environment, MultiStep


class Teacher:
    """One that has learned nothing since the start, or all that the batch's rewards tell an ideal observer.

    Args:
        environment: of the runs.
        of_secrets: (R, M, F) what it would answer; None for the observer, whose belief comes with the batch.
    """

    def __init__(self, environment: Environment, of_secrets: np.ndarray | None) -> None:
        self._environment, self._of_secrets = environment, of_secrets

    def judge(self, batch: Batch) -> Batch:
        """The batch with what the teacher would answer.

        Where there are no rewards, its log-probability of each turn, in nats, takes their place; that of an
        invalid turn, and of those that it forfeits, is the least.
        """
        if self._of_secrets is None:
            assert batch.beliefs is not None  # noqa: S101  # its sampling observes
            return replace(batch, taught=spread(self._environment, batch.beliefs))
        taught = self._of_secrets[batch.runs[:, None], batch.prompts]
        turns = conditionals(taught, batch.choices, self._environment.num_choices)
        valid = batch.choices != INVALID
        of_choice = np.take_along_axis(turns, np.where(valid, batch.choices, 0)[..., None], axis=3)[..., 0]
        return replace(batch, taught=taught, rewards=np.log(np.where(valid, of_choice, 0.0).clip(min=FLOOR)))


def make_teacher(
    signal: Signal, environment: Environment, secrets: np.ndarray, lessons: np.ndarray | None
) -> Teacher | None:
    """The teacher of runs with these secrets (R, M), if the signal has one.

    Args:
        signal: says which.
        environment: of the runs.
        secrets: (R, M).
        lessons: (R, M, F) what the policies of another run would answer, if those are it.
    """
    if not signal.teaches:
        return None
    if signal.observed:
        return Teacher(environment, None)
    return Teacher(
        environment, knows(environment, secrets, signal.teacher_error) if lessons is None else lessons
    )


def knows(environment: Environment, secrets: np.ndarray, error: float) -> np.ndarray:
    """What one would answer who knows the secrets (R, M), but errs with this probability: (R, M, F).

    In multi_step it errs in each turn anew, whatever was said before it.
    """
    every = np.arange(environment.num_forms)
    if isinstance(environment, MultiStep):
        right = environment.choices(secrets)[..., None, :] == environment.choices(every)
        return np.asarray(np.where(right, 1 - error, error).prod(axis=-1))
    return np.where(secrets[..., None] == every, 1 - error, error / (len(every) - 1))


def spread(environment: Environment, beliefs: np.ndarray) -> np.ndarray:
    """What one would answer who believes this (..., N): (..., F).

    In multi_step each turn by what it believes of that bit: a wrong one leaves the later ones as they were.
    """
    if not isinstance(environment, MultiStep):
        return beliefs
    bits = environment.choices(np.arange(environment.num_forms))  # (F, K)
    ones = np.minimum(beliefs @ bits[: beliefs.shape[-1]], 1.0)[..., None, :]
    return np.asarray(np.where(bits == 1, ones, 1 - ones).prod(axis=-1))
