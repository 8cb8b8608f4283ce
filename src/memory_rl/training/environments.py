"""The world of a configuration: its environment, its labelled examples and the naive capacity of its channel."""

from __future__ import annotations

import numpy as np

from memory_rl.config import Experiment, SFTConfig, TrainConfig, WorldConfig
from memory_rl.information.bounds import naive_capacity
from memory_rl.task import TEST, TRAIN, Environment, MultiStep, SecretSpace, SingleStep, examples_directory, make_channel, read_examples


def make_environment(config: WorldConfig) -> Environment:
    """The environment of a configuration; one that has no reward channel gets the noiseless default, which nobody then asks."""
    space = SecretSpace(config.N)
    noise = config.reward_noise if isinstance(config, TrainConfig) else 0.0
    if config.env_type == "multi_step":
        return MultiStep.with_noise(space, noise)
    reward_type, bins = ("binary", None) if not isinstance(config, TrainConfig) else (config.channel_name, config.reward_bins)
    return SingleStep(space, make_channel(reward_type, config.N, bins, noise))


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


def channel_capacity(config: Experiment, environment: Environment) -> float:
    """The naive capacity of a condition in bits an episode: log2 of the distinct signals that one answer can bring.

    An example brings one of N answers. In multi_step the rewards of the k steps tell which of N secrets it is, unless credit=episode adds them up to
    one of k + 1 values.
    """
    if isinstance(config, SFTConfig):
        return naive_capacity(config.N)
    if config.env_type == "single_step":
        return naive_capacity(len(environment.channel.levels))
    return naive_capacity(environment.num_steps + 1 if config.credit == "episode" else config.N)


def ceilings(config: Experiment, environment: Environment) -> dict[str, float]:
    """What no learner of this condition can exceed.

    Returns:
        capacity: see `channel_capacity`, in bits an episode.
        bits_by_reward: what a policy knows that is spread over all answers with the top reward, in bits. Below log2 N where several answers tie: then
            reward alone does not single out S. For the worst secret.
    """
    secrets = np.arange(config.N)
    top = len(environment.channel.levels) - 1
    ties = 1
    if isinstance(config, TrainConfig) and config.env_type == "single_step":
        ties = max(int((environment.channel.noiseless_levels(secrets, np.array(secret)) == top).sum()) for secret in secrets)
    return {"capacity": channel_capacity(config, environment), "bits_by_reward": naive_capacity(config.N) - naive_capacity(ties)}
