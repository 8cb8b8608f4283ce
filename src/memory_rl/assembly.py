"""Builds an experiment from its parts: world, learner, sampling and meter; populations.py builds policies.

Only this module, populations.py and execution.py read a whole `Experiment`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memory_rl.condition import Condition, make_condition
from memory_rl.experiment import Experiment
from memory_rl.limits import MAX_N_OF_FILM
from memory_rl.seeding import generator
from memory_rl.task import (
    TEST,
    TRAIN,
    Environment,
    examples_directory,
    read_examples,
)
from memory_rl.training.accounts import Accounts, Beliefs, HitAccounts
from memory_rl.training.film import Film
from memory_rl.training.meter import Meter, Sink, Watcher
from memory_rl.training.prompts import Prompts, UniformPrompts
from memory_rl.training.sampling import HitsAndMisses, Sampling, Shown, SkipAhead, StepByStep, Taught
from memory_rl.training.teachers import make_teacher

_PANEL = 64


@dataclass(frozen=True)
class Setting:
    """All of an experiment that needs no model: it is made, and so checked, before any work.

    Attributes:
        experiment: its keys.
        condition: what is asked and what is shown.
        learner: moves the policies.
        answers: (D,) of the examples of `fixed_secret` in supervised learning; else None.
    """

    experiment: Experiment
    condition: Condition
    learner: Any
    answers: np.ndarray | None

    @property
    def environment(self) -> Environment:
        """The environment of the condition."""
        return self.condition.environment


def make_setting(experiment: Experiment) -> Setting:
    """The setting of an experiment.

    Raises:
        DataError: if the examples are missing, malformed or made for another experiment.
        ConfigError: if a reward or learner of the user's own cannot be used.
    """
    experiment.check_sizes()
    condition = make_condition(
        experiment.world,
        experiment.signal,
        experiment.stop.memorised_at,
        experiment.wording,
        spelt=experiment.spelt,
    )
    return Setting(
        experiment, condition, experiment.learner, _read_answers(experiment, condition.environment)
    )


def _read_answers(experiment: Experiment, environment: Environment) -> np.ndarray | None:
    """(D,) the answers of the training examples of `fixed_secret`; None where there are no such files.

    The test examples are also read and checked. They hold the same conversation, so that their likelihood is
    P(S), which every evaluation measures.
    """
    secret = experiment.world.fixed_secret
    if not experiment.signal.shows_answer or secret is None:
        return None
    folder = examples_directory(experiment.keep.data_dir, environment, secret)
    read_examples(folder / TEST, environment, secret)
    return read_examples(folder / TRAIN, environment, secret)


def make_sampling(
    setting: Setting, policy: Any, secrets: np.ndarray, lessons: np.ndarray | None = None
) -> Sampling:
    """How the episodes of the next update come about.

    Silent updates are skipped where that was asked for and is exact.

    Args:
        setting: of the experiment.
        policy: of R runs.
        secrets: (R, M).
        lessons: (R, M, F) of teachers that were trained, see `Learners`.
    """
    experiment, world = setting.experiment, setting.experiment.world
    setting.learner.start(world.seed, experiment.stop.num_runs)
    table, wanted = setting.condition.table, setting.learner.wants_beliefs
    return _kind_of_sampling(experiment)(
        group_size=experiment.group_size,
        batch_size=experiment.updates.batch_size,
        budget=experiment.budget,
        seed=world.seed,
        policy=policy,
        learner=setting.learner,
        secrets=secrets,
        environment=setting.environment,
        prompts=prompts_of(experiment),
        credit=experiment.signal.credit,
        beliefs=Beliefs(table, secrets.shape, world.N) if wanted else None,
        teacher=make_teacher(experiment.signal, setting.environment, secrets, lessons),
        answers=setting.answers,
        panel=_panel(experiment) if experiment.stop.ledger and experiment.only_hits else None,
    )


def _kind_of_sampling(experiment: Experiment) -> type[Sampling]:
    if experiment.signal.shows_answer:
        return Shown
    if experiment.signal.teaches:
        return Taught
    if experiment.only_hits:
        return HitsAndMisses
    return SkipAhead if experiment.skips_ahead else StepByStep


def prompts_of(experiment: Experiment) -> Prompts:
    """Which of its secrets each run is asked about."""
    world, blocks, runs = experiment.world, experiment.updates.batch_size, experiment.stop.num_runs
    if world.num_secrets == 1:
        return Prompts(runs)
    if world.order == "uniform":
        return UniformPrompts(world.seed, runs, world.num_secrets, blocks)
    repeats = 1 if world.order == "cycle" else experiment.episodes_a_block // experiment.group_size
    return Prompts(runs, world.num_secrets, blocks, repeats)


def _panel(experiment: Experiment) -> np.ndarray:
    """(Q,) answers, drawn from the seed, whose probabilities show the ledger what was tried; all if few."""
    N = experiment.world.N
    return generator(experiment.world.seed, "panel").choice(N, min(N, _PANEL), replace=False)


def make_film(experiment: Experiment) -> Film | None:
    """A film, where there is a belief over all answers to show, and room for it."""
    seen = experiment.stop.ledger and experiment.scores_all and experiment.world.num_secrets == 1
    return Film(experiment.world.N) if seen and experiment.world.N <= MAX_N_OF_FILM else None


def make_meter(
    setting: Setting, secrets: np.ndarray, sinks: Sequence[Sink], watch: Watcher, film: Film | None
) -> Meter:
    """The meter of runs with these secrets (R, M)."""
    experiment = setting.experiment
    world, stop = experiment.world, experiment.stop
    accounts: Accounts | None = None
    if stop.ledger and experiment.only_hits:
        accounts = HitAccounts(secrets, world.N, _panel(experiment))
    elif stop.ledger:  # every answer is listed
        accounts = Accounts(secrets, world.N, stop.memorised_at, setting.condition.table)
    return Meter(
        secrets=secrets,
        N=world.N,
        to_memorise=experiment.secrets_to_memorise,
        memorised_at=stop.memorised_at,
        stop_at=stop.stop_at,
        every=experiment.updates_an_evaluation,
        update=experiment.episodes_an_update,
        budget=experiment.budget,
        sinks=sinks,
        watch=watch,
        accounts=accounts,
        film=film,
    )
