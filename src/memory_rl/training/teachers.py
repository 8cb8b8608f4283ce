"""Teachers: what each of them would answer.

Axes: R runs, M secrets, B blocks of E episodes, K turns, F forms, of which the first N are answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from memory_rl.config import Signal
from memory_rl.information.bits import marginals
from memory_rl.learning.batch import Batch
from memory_rl.learning.imitation import FLOOR
from memory_rl.policies.teaching import OfForms, OfSecret, OfTurns, Opinion
from memory_rl.task import Environment, MultiStep


class Teacher:
    """One that has learned nothing since the start, or all that the batch's rewards tell an ideal observer.

    Args:
        environment: of the runs.
        opinion: what it would answer to each block of a batch.
    """

    def __init__(self, environment: Environment, opinion: Callable[[Batch], Opinion]) -> None:
        self._environment, self._opinion = environment, opinion

    def judge(self, batch: Batch) -> Batch:
        """The batch with what the teacher would answer.

        Where there are no rewards, its log-probability of each turn, in nats, takes their place; that of an
        invalid turn, and of those that it forfeits, is the least.
        """
        taught = self._opinion(batch)
        if batch.rewards is not None:
            return replace(batch, taught=taught)
        of_choices = taught.of_choices(batch.choices, self._environment.num_choices)
        return replace(batch, taught=taught, rewards=np.log(of_choices.clip(min=FLOOR)))


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
        return Teacher(environment, partial(believes, environment))
    if lessons is not None:
        return Teacher(environment, lambda batch: OfForms(lessons[batch.runs[:, None], batch.prompts]))
    return Teacher(
        environment,
        lambda batch: knows(environment, secrets[batch.runs[:, None], batch.prompts], signal.teacher_error),
    )


def knows(environment: Environment, secrets: np.ndarray, error: float) -> Opinion:
    """What one would answer who knows the secrets (R, B), but errs with this probability.

    In multi_step it errs in each turn anew, whatever was said before it.
    """
    if not isinstance(environment, MultiStep):
        return OfSecret(secrets, error, environment.num_forms)
    right = environment.choices(secrets)[..., None] == np.arange(2)
    return OfTurns(np.where(right, 1 - error, error))


def believes(environment: Environment, batch: Batch) -> Opinion:
    """What one would answer who believes what the batch says.

    In multi_step each turn by what it believes of that bit: a wrong one leaves the later ones as they were.
    """
    assert batch.beliefs is not None  # noqa: S101  # its sampling observes
    if not isinstance(environment, MultiStep):
        return OfForms(batch.beliefs)
    room = environment.num_forms - environment.space.N  # bits that spell no integer below N
    each = [marginals(np.pad(of_run, ((0, 0), (0, room)))) for of_run in batch.beliefs]
    ones = np.minimum(each, 1.0)
    return OfTurns(np.stack([1 - ones, ones], axis=-1))
