"""The one reinforcement loop: answer, be rewarded, move the parameters, measure. All runs of a population take each step together."""

from __future__ import annotations

import numpy as np

from memory_rl.config import TrainConfig
from memory_rl.learning.advantages import estimate_advantages
from memory_rl.learning.objectives import ClippedRatio, Objective, PolicyGradient
from memory_rl.policies.base import Policy
from memory_rl.seeding import RunStreams
from memory_rl.task import Environment
from memory_rl.training.recorder import Batch, Recorder


def train_by_reward(config: TrainConfig, environment: Environment, policy: Policy, recorder: Recorder) -> None:
    """Trains every run until it knows its secret or has spent its budget.

    Axes: R active runs, B groups, G episodes of a group, K steps.
    """
    secrets = recorder.secrets
    noise = RunStreams(config.seed, "reward noise", config.num_runs)
    objective = make_objective(config)
    runs = recorder.evaluate(policy, np.arange(config.num_runs), episode=0)

    for episode in range(config.episodes_per_update, config.budget + 1, config.episodes_per_update):
        if len(runs) == 0:
            break
        rollout = policy.sample(runs, config.episodes_per_update)
        uniforms = noise.random(runs, *rollout.choices.shape[1:]) if environment.channel.noise > 0 else None
        rewards = environment.rewards(rollout.choices, secrets[runs], uniforms)  # (R, B G, K)

        grouped = rewards.reshape(len(runs), config.batch_size, config.group_size, environment.num_steps)
        advantages = estimate_advantages(grouped, config.algorithm, config.credit)  # (R, B, G, K)
        silent = ~advantages.any(axis=(2, 3))  # (R, B)

        updates_before = policy.updates[runs].copy()
        policy.update(rollout, advantages.reshape(rewards.shape), objective)
        batch = Batch(rollout, updates_before, rewards, silent.mean(axis=1))
        runs = recorder.evaluate(policy, runs, episode, batch)


def make_objective(config: TrainConfig) -> Objective:
    """The loss of the algorithm; reinforce, grpo and rloo differ in their advantages alone."""
    if config.algorithm == "ppo":
        return ClippedRatio(config.ppo_clip, config.ppo_epochs)
    return PolicyGradient()
