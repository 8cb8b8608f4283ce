"""memory-rl: how many bits does reinforcement learning put into a model per episode?"""

from memory_rl.api import bounds, generate_sft_data, ledger_from_episodes, load, sft, train
from memory_rl.errors import (
    ConfigError,
    DataError,
    LawBreachWarning,
    MemoryRLError,
    ModelError,
    RunDirectoryError,
)
from memory_rl.result import Outcome, Result

__all__ = [
    "ConfigError",
    "DataError",
    "LawBreachWarning",
    "MemoryRLError",
    "ModelError",
    "Outcome",
    "Result",
    "RunDirectoryError",
    "bounds",
    "generate_sft_data",
    "ledger_from_episodes",
    "load",
    "sft",
    "train",
]
