"""The world of a configuration: its environment, its secrets and its labelled examples."""

from __future__ import annotations

import numpy as np

from memory_rl.config import ChannelConfig, LearnerConfig, SFTConfig, WorldConfig, name_of
from memory_rl.seeding import generator
from memory_rl.task import (
    TEST,
    TRAIN,
    Environment,
    MultiStep,
    RewardChannel,
    SecretSpace,
    SingleStep,
    as_reward,
    examples_directory,
    load_reward,
    make_channel,
    read_examples,
    tabulate,
    with_noise,
)


def make_environment(config: WorldConfig) -> Environment:
    """The environment of a configuration; one that has no reward channel gets the noiseless default, which nobody then asks.

    Raises:
        ConfigError: if the reward is the user's own and cannot be used.
    """
    space = SecretSpace(config.N)
    if config.env_type == "multi_step":
        return MultiStep.with_noise(space, config.reward_noise if isinstance(config, ChannelConfig) else 0.0)
    return SingleStep(space, _channel(config) if isinstance(config, ChannelConfig) else make_channel("binary", config.N))


def _channel(config: ChannelConfig) -> RewardChannel:
    if not config.own_reward:
        return make_channel(config.channel_name, config.N, config.reward_bins, config.reward_noise)
    given, name = config.reward_type, name_of(config.reward_type)
    reward = as_reward(load_reward(given) if isinstance(given, str) else given, config.N, name)
    return with_noise(tabulate(reward, config.N, name), config.reward_noise)


def draw_secrets(config: LearnerConfig) -> np.ndarray:
    """The secret of each run: `fixed_secret` for all, or one drawn from the seed for each. Shape (R,)."""
    if config.fixed_secret is not None:
        return np.full(config.num_runs, config.fixed_secret)
    space = SecretSpace(config.N)
    return np.array([space.draw(generator(config.seed, "secrets", run)) for run in range(config.num_runs)])


def read_answers(config: SFTConfig) -> np.ndarray | None:
    """The answers of the training examples of `fixed_secret`, shape (D,); None without one, when each run is shown its own secret.

    The test examples are read and checked too. They hold the same conversation, so that their likelihood is P(S), which every evaluation measures.

    Raises:
        DataError: if a file is missing, malformed or made for another experiment.
    """
    if config.fixed_secret is None:
        return None
    environment = make_environment(config)
    folder = examples_directory(config.data_dir, environment, config.fixed_secret)
    read_examples(folder / TEST, environment, config.fixed_secret)
    return read_examples(folder / TRAIN, environment, config.fixed_secret)
