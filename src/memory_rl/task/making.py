"""The environment of a configuration: for the experiments, and for the adapters to other libraries alike."""

from __future__ import annotations

from memory_rl.config import ChannelConfig, LearnerConfig, WorldConfig, name_of
from memory_rl.task.environment import Environment
from memory_rl.task.multi_step import MultiStep
from memory_rl.task.own_reward import as_reward, load_reward, tabulate
from memory_rl.task.rewards import RewardChannel, make_channel, with_noise
from memory_rl.task.secret_space import SecretSpace
from memory_rl.task.single_step import SingleStep


def make_environment(config: WorldConfig) -> Environment:
    """The environment of a configuration; one that has no reward channel gets the noiseless default, which
    nobody then asks.

    Raises:
        ConfigError: if the reward is the user's own and cannot be used.
    """
    space, num_secrets = SecretSpace(config.N), config.num_secrets if isinstance(config, LearnerConfig) else 1
    if config.env_type == "multi_step":
        noise = config.reward_noise if isinstance(config, ChannelConfig) else 0.0
        return MultiStep.with_noise(space, noise, num_secrets=num_secrets, wording=config.wording_in_use)
    channel = _channel(config) if isinstance(config, ChannelConfig) else make_channel("binary", config.N)
    return SingleStep(space, channel, num_secrets, config.wording_in_use)


def _channel(config: ChannelConfig) -> RewardChannel:
    if not config.own_reward:
        return make_channel(config.channel_name, config.N, config.reward_bins, config.reward_noise)
    given, name = config.reward_type, name_of(config.reward_type)
    reward = as_reward(load_reward(given) if isinstance(given, str) else given, config.N, name)
    return with_noise(tabulate(reward, config.N, name), config.reward_noise)
