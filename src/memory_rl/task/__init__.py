"""The world: secrets, reward channels and environments. It knows neither the learner nor the meter."""

from memory_rl.task.demonstrations import TEST, TRAIN, examples_directory, read_examples, write_examples
from memory_rl.task.environment import Environment, Message, Turn, chat
from memory_rl.task.making import make_environment, secrets_of_run, table_of_signal
from memory_rl.task.multi_step import MultiStep
from memory_rl.task.own_reward import as_reward, from_table, load_reward, table_of, tabulate
from memory_rl.task.rewards import CHANNELS, INVALID, RewardChannel, credit_rewards, make_channel, with_noise
from memory_rl.task.secret_space import SecretSpace
from memory_rl.task.single_step import SingleStep
from memory_rl.task.table import EpisodeTable, episode_table

__all__ = [
    "CHANNELS",
    "INVALID",
    "TEST",
    "TRAIN",
    "Environment",
    "EpisodeTable",
    "Message",
    "MultiStep",
    "RewardChannel",
    "SecretSpace",
    "SingleStep",
    "Turn",
    "as_reward",
    "chat",
    "credit_rewards",
    "episode_table",
    "examples_directory",
    "from_table",
    "load_reward",
    "make_channel",
    "make_environment",
    "read_examples",
    "secrets_of_run",
    "table_of",
    "table_of_signal",
    "tabulate",
    "with_noise",
    "write_examples",
]
