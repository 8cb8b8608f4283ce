"""The world: secrets, reward channels and environments. It knows neither the learner nor the meter."""

from memory_rl.task.demonstrations import TEST, TRAIN, examples_directory, read_examples, write_examples
from memory_rl.task.environment import Environment, Message, Turn
from memory_rl.task.multi_step import MultiStep
from memory_rl.task.rewards import CHANNELS, INVALID, RewardChannel, make_channel
from memory_rl.task.secret_space import SecretSpace
from memory_rl.task.single_step import SingleStep

__all__ = [
    "CHANNELS",
    "INVALID",
    "TEST",
    "TRAIN",
    "Environment",
    "Message",
    "MultiStep",
    "RewardChannel",
    "SecretSpace",
    "SingleStep",
    "Turn",
    "examples_directory",
    "make_channel",
    "read_examples",
    "write_examples",
]
