"""memory-rl: how many bits does reinforcement learning put into a model per episode?"""

from typing import TYPE_CHECKING, Any

from memory_rl.learning.own_learner import load_learner as _load_learner  # noqa: F401  # makes algorithm= known

from memory_rl.learning.learners import GRPO, PPO, RLOO, Learner, Posterior, Reinforce  # isort: skip
from memory_rl.api import (
    bounds,
    generate_sft_data,
    ledger_from_episodes,
    load,
    report,
    run,
    sft,
    sweep,
    train,
)
from memory_rl.config import Keep, PolicySettings, Secrets, Signal, Stop, Updates, World
from memory_rl.errors import (
    ConfigError,
    DataError,
    LawBreachWarning,
    MemoryRLError,
    ModelError,
    RunDirectoryError,
)
from memory_rl.experiment import Experiment

if TYPE_CHECKING:
    from memory_rl.result import Outcome, Result

    __version__: str

__all__ = [
    "GRPO",
    "PPO",
    "RLOO",
    "ConfigError",
    "DataError",
    "Experiment",
    "Keep",
    "LawBreachWarning",
    "Learner",
    "MemoryRLError",
    "ModelError",
    "Outcome",
    "PolicySettings",
    "Posterior",
    "Reinforce",
    "Result",
    "RunDirectoryError",
    "Secrets",
    "Signal",
    "Stop",
    "Updates",
    "World",
    "__version__",
    "bounds",
    "generate_sft_data",
    "ledger_from_episodes",
    "load",
    "report",
    "run",
    "sft",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    """Imports what takes a moment to import only when it is asked for."""
    if name == "__version__":
        from importlib.metadata import version

        return version("memory-rl")
    if name in ("Outcome", "Result"):
        from memory_rl import result

        return getattr(result, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
