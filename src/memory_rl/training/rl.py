"""The one reinforcement loop: answer, be rewarded, move the parameters, measure. All runs of a population
take each step together.
"""

from __future__ import annotations

from typing import Protocol, cast

import numpy as np

from memory_rl.config import TrainConfig
from memory_rl.information.observer import Observer
from memory_rl.learning.advantages import estimate_advantages
from memory_rl.learning.objectives import ClippedRatio, Objective, PolicyGradient
from memory_rl.policies.base import Policy, Rollout, ScoresAll
from memory_rl.state import State, Stateful
from memory_rl.task import Environment
from memory_rl.training.continuation import FROM_SCRATCH, Continuation
from memory_rl.training.questions import accounts_of, by_block, make_questions
from memory_rl.training.recorder import Batch, Recorder
from memory_rl.training.sampling import make_sampling


def train_by_reward(
    config: TrainConfig,
    environment: Environment,
    policy: Policy,
    recorder: Recorder,
    continuation: Continuation = FROM_SCRATCH,
) -> None:
    """Trains every run until it knows its secret or has spent its budget.

    Axes: R active runs, E = B G episodes (B groups of G, each about one of the run's secrets), K steps.
    """
    sampling = make_sampling(config, environment, policy, recorder.secrets)
    learner = make_learner(config, environment, policy)
    place = continuation.resume(policy=policy, sampling=sampling, learner=learner, recorder=recorder)
    runs = (
        recorder.evaluate(policy, np.arange(config.num_runs), episode=0) if place is None else place["runs"]
    )

    while len(runs):
        update = sampling.next_update(runs)  # rollout, and rewards (R, E, K)
        updates_before = policy.updates[update.rollout.runs].copy()
        silent = learner.learn(update.rollout, update.rewards)
        going_on = recorder.evaluate(
            policy,
            runs,
            update.episode,
            Batch(update.rollout, updates_before, update.rewards, silent, update.skipped),
        )
        budget_left = runs[update.episode + config.episodes_per_update <= config.budget]
        runs = np.intersect1d(going_on, budget_left)
        continuation.pause(runs=runs)


class Learner(Stateful, Protocol):
    """Moves the policies after their episodes were rewarded."""

    def learn(self, rollout: Rollout, rewards: np.ndarray) -> np.ndarray | None:
        """Takes in rewards (R, E, K); returns the fraction of groups without signal (R,), if groups have a
        meaning.
        """


class ByGradient:
    """Policy gradient: each step's advantage over its group, then the objective's optimiser steps."""

    def __init__(self, config: TrainConfig, policy: Policy) -> None:
        self._config, self._policy, self._objective = config, policy, make_objective(config)

    def learn(self, rollout: Rollout, rewards: np.ndarray) -> np.ndarray:
        """See `Learner`."""
        config = self._config
        grouped = rewards.reshape(len(rewards), config.batch_size, config.group_size, rewards.shape[2])
        advantages = estimate_advantages(
            grouped, config.algorithm, config.credit, config.baseline
        )  # (R, B, G, K)
        self._policy.update(rollout, advantages.reshape(rewards.shape), self._objective)
        return (~advantages.any(axis=(2, 3))).mean(axis=1)

    def state(self) -> State:
        """None is kept."""
        return {}

    def restore(self, state: State) -> None:
        """None is kept."""


class TowardsPosterior:
    """What the channel would allow: the policy is trained towards the belief of an ideal observer of its own
    episodes.
    """

    def __init__(self, config: TrainConfig, environment: Environment, policy: ScoresAll) -> None:
        self._policy, self._epochs = policy, config.posterior_epochs
        self._questions, self._observer = (
            make_questions(config, environment),
            Observer(config.num_runs * config.num_secrets, config.N),
        )
        self._num_secrets = config.num_secrets

    def learn(self, rollout: Rollout, rewards: np.ndarray) -> None:
        """See `Learner`."""
        accounts = accounts_of(rollout, self._num_secrets)  # (R, B)
        for block, (choices, of_block) in enumerate(by_block(accounts.shape[1], rollout.choices, rewards)):
            self._questions.observe(self._observer, accounts[:, block], choices, of_block)
        beliefs = self._observer.posterior(accounts.ravel()).reshape(*accounts.shape, -1)
        self._policy.distil(rollout.runs, beliefs, self._epochs, rollout.prompts)

    def state(self) -> State:
        """See `memory_rl.state.Stateful`."""
        return self._observer.state()

    def restore(self, state: State) -> None:
        """See `memory_rl.state.Stateful`."""
        self._observer.restore(state)


def make_learner(config: TrainConfig, environment: Environment, policy: Policy) -> Learner:
    """Who moves the policies."""
    return (
        TowardsPosterior(config, environment, cast(ScoresAll, policy))
        if config.algorithm == "posterior"
        else ByGradient(config, policy)
    )


def make_objective(config: TrainConfig) -> Objective:
    """The loss of the algorithm; reinforce, grpo and rloo differ in their advantages alone."""
    if config.algorithm == "ppo":
        return ClippedRatio(config.ppo_clip, config.ppo_epochs)
    return PolicyGradient()
