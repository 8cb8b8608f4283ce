"""memory-rl: how many bits does reinforcement learning put into a model per episode?"""

from memory_rl.api import generate_sft_data, load, sft, train
from memory_rl.errors import ConfigError, DataError, MemoryRLError, ModelError, RunDirectoryError
from memory_rl.result import Outcome, Result

__all__ = [
    "ConfigError",
    "DataError",
    "MemoryRLError",
    "ModelError",
    "Outcome",
    "Result",
    "RunDirectoryError",
    "generate_sft_data",
    "load",
    "sft",
    "train",
]
