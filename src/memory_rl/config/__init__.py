"""The parts of an experiment, and every key that can be set, with its type, default, range and meaning.

A key belongs to one part. `needs` names the other keys without which it has no meaning. How keys are read is
in keys.py, what an experiment is as a whole in experiment.py.
"""

from typing import Literal

from memory_rl.config.keep import Keep
from memory_rl.config.policy import BUILT_IN, HOSTED_MODEL, TINY, TINY_TEXT, Backend, PolicySettings
from memory_rl.config.signal import REWARD_TYPES, TEACHERS, Signal
from memory_rl.config.stop import Stop, Threshold, with_threshold
from memory_rl.config.updates import LEARNERS, LOADERS, Updates
from memory_rl.config.world import EnvType, Secrets, Wording, World

Command = Literal["train", "sft"]

__all__ = [
    "BUILT_IN",
    "HOSTED_MODEL",
    "LEARNERS",
    "LOADERS",
    "REWARD_TYPES",
    "TEACHERS",
    "TINY",
    "TINY_TEXT",
    "Backend",
    "Command",
    "EnvType",
    "Keep",
    "PolicySettings",
    "Secrets",
    "Signal",
    "Stop",
    "Threshold",
    "Updates",
    "Wording",
    "World",
    "with_threshold",
]
