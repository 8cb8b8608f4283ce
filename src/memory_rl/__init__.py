"""memory-rl: how many bits does reinforcement learning put into a model per episode?"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from memory_rl.learning.learners import GRPO, RLOO, Learner, Posterior, Reinforce  # makes algorithm= known

from memory_rl.learning.ratios import PPO  # isort: skip
from memory_rl.api import (
    audit,
    bounds,
    compare,
    generate_sft_data,
    list_runs,
    plan,
    report,
    run,
    sft,
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
    from memory_rl.experiments.sweep import sweep
    from memory_rl.reporting.audit import Audit
    from memory_rl.reporting.comparison import RateComparison
    from memory_rl.reporting.group_plan import GroupPlan
    from memory_rl.reporting.planning import RunPlan
    from memory_rl.result import Outcome, Result, load
    from memory_rl.training.recompute import ledger_from_episodes

    __version__: str

__all__ = [
    "GRPO",
    "PPO",
    "RLOO",
    "Audit",
    "ConfigError",
    "DataError",
    "Experiment",
    "GroupPlan",
    "Keep",
    "LawBreachWarning",
    "Learner",
    "MemoryRLError",
    "ModelError",
    "Outcome",
    "PolicySettings",
    "Posterior",
    "RateComparison",
    "Reinforce",
    "Result",
    "RunDirectoryError",
    "RunPlan",
    "Secrets",
    "Signal",
    "Stop",
    "Updates",
    "World",
    "__version__",
    "audit",
    "bounds",
    "compare",
    "generate_sft_data",
    "ledger_from_episodes",
    "list_runs",
    "load",
    "plan",
    "report",
    "run",
    "sft",
    "sweep",
    "train",
]


_LATER = {
    "Audit": "reporting.audit",
    "GroupPlan": "reporting.group_plan",
    "Outcome": "result",
    "RateComparison": "reporting.comparison",
    "Result": "result",
    "RunPlan": "reporting.planning",
    "ledger_from_episodes": "training.recompute",
    "load": "result",
    "sweep": "experiments.sweep",
}
"""What takes a moment to import, and so is imported only when it is asked for, with its module."""


def __dir__() -> list[str]:
    """What a completion offers: what is public, also where it is not imported yet."""
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING", "Any", "import_module"})


def __getattr__(name: str) -> Any:
    """Imports what is in `_LATER`."""
    if name == "__version__":
        from importlib.metadata import version

        return version("memory-rl")
    if name in _LATER:
        return getattr(import_module(f"memory_rl.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
