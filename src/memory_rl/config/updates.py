"""How parameters move. What belongs to one learner alone is declared by its class in learning/."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from memory_rl.keys import key, name_or_path
from memory_rl.limits import SIZES, STEP_SIZES, STEPS

LEARNERS: dict[str, type[Any]] = {}
"""The built-in learners by the name of the algorithm; filled by `memory_rl.learning`."""

LOADERS: dict[str, Callable[[Any], Any]] = {}
"""How other learners are made: `own`, `example` (supervised), `teacher`; `memory_rl.learning` fills it."""


@dataclass(frozen=True, kw_only=True)
class Updates:
    """How parameters move: the algorithm, and the episodes of each update."""

    algorithm: Any = name_or_path(
        "reinforce",
        "How parameters move: reinforce subtracts the group's mean, grpo standardises, ppo clips the ratio; "
        "docs/learners.md has them all. Your own as file.py:Name.",
        needs="signal=reward",
    )
    group_size: int = key(4, "Episodes that share a baseline.", SIZES, needs="signal=reward,teacher")
    batch_size: int = key(1, "Groups an update; in supervised learning examples.", SIZES)
    optimiser: Literal["adam", "sgd"] = key(
        "adam", "adam, or sgd: plain gradient steps.", needs="backend=local,tabular"
    )
    learning_rate: float | None = key(
        None,
        "The optimiser's step size. Default: "
        + ", ".join(
            f"{size:g} ({which} {name})" for which, of in STEP_SIZES.items() for name, size in of.items()
        )
        + ".",
        STEPS,
    )
    entropy_bonus: float = key(
        0.0,
        "Times the entropy of each decision on the way, which any learner then seeks, too.",
        (0, 1000),
        needs="signal=reward backend=local,tabular",
    )
    kl_to_base: float = key(
        0.0,
        "Times an estimate (k3) of the divergence from the base, which any learner then avoids, too.",
        (0, 1000),
        needs="signal=reward backend=local,tabular",
    )
    skip_ahead: bool | None = key(
        None,
        "Draw the silent updates from their exact law instead of one by one, where that is exact. "
        "Default: on the transformer alone.",
        needs="signal=reward backend=local,tabular",
    )

    @property
    def penalised(self) -> bool:
        """Whether the loss has terms that also move a policy whose rewards are all equal."""
        return self.entropy_bonus != 0 or self.kl_to_base != 0
