"""The one reinforcement loop: answer, be rewarded, move the parameters, measure. All runs of a population take each step together."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np

from memory_rl.config import TrainConfig
from memory_rl.information.observer import Observer
from memory_rl.learning.advantages import estimate_advantages
from memory_rl.learning.objectives import ClippedRatio, Objective, PolicyGradient
from memory_rl.policies.base import Policy, Rollout, ScoresAll
from memory_rl.task import Environment
from memory_rl.training.questions import make_questions
from memory_rl.training.recorder import Batch, Recorder
from memory_rl.training.sampling import make_sampling

Learner = Callable[[Rollout, np.ndarray], np.ndarray | None]
"""Moves the policies after their episodes were rewarded (R, E, K); returns the fraction of groups without signal (R,), if groups have a meaning."""


def train_by_reward(config: TrainConfig, environment: Environment, policy: Policy, recorder: Recorder) -> None:
    """Trains every run until it knows its secret or has spent its budget.

    Axes: R active runs, E = B G episodes (B groups of G), K steps.
    """
    sampling = make_sampling(config, environment, policy, recorder.secrets)
    learn = towards_posterior(config, environment, cast(ScoresAll, policy)) if config.algorithm == "posterior" else by_gradient(config, policy)
    runs = recorder.evaluate(policy, np.arange(config.num_runs), episode=0)

    while len(runs):
        update = sampling.next_update(runs)  # rollout, and rewards (R, E, K)
        updates_before = policy.updates[update.rollout.runs].copy()
        silent = learn(update.rollout, update.rewards)
        going_on = recorder.evaluate(policy, runs, update.episode, Batch(update.rollout, updates_before, update.rewards, silent, update.skipped))
        budget_left = runs[update.episode + config.episodes_per_update <= config.budget]
        runs = np.intersect1d(going_on, budget_left)


def by_gradient(config: TrainConfig, policy: Policy) -> Learner:
    """Policy gradient: each step's advantage over its group, then the objective's optimiser steps."""
    objective = make_objective(config)

    def learn(rollout: Rollout, rewards: np.ndarray) -> np.ndarray:
        grouped = rewards.reshape(len(rewards), config.batch_size, config.group_size, rewards.shape[2])
        advantages = estimate_advantages(grouped, config.algorithm, config.credit, config.baseline)  # (R, B, G, K)
        policy.update(rollout, advantages.reshape(rewards.shape), objective)
        return (~advantages.any(axis=(2, 3))).mean(axis=1)

    return learn


def towards_posterior(config: TrainConfig, environment: Environment, policy: ScoresAll) -> Learner:
    """What the channel would allow: the policy is trained towards the belief of an ideal observer of its own episodes."""
    questions = make_questions(config, environment)
    observer = Observer(config.num_runs, config.N)

    def learn(rollout: Rollout, rewards: np.ndarray) -> None:
        questions.observe(observer, rollout.runs, rollout.choices, rewards)
        policy.distil(rollout.runs, observer.posterior(rollout.runs), config.posterior_epochs)

    return learn


def make_objective(config: TrainConfig) -> Objective:
    """The loss of the algorithm; reinforce, grpo and rloo differ in their advantages alone."""
    if config.algorithm == "ppo":
        return ClippedRatio(config.ppo_clip, config.ppo_epochs)
    return PolicyGradient()
