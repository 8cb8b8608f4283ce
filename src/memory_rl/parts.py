"""The parts of an experiment side by side, and what follows from several of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from memory_rl.config import (
    LEARNERS,
    LOADERS,
    Command,
    Keep,
    PolicySettings,
    Secrets,
    Signal,
    Stop,
    Updates,
    Wording,
)
from memory_rl.limits import STEP_SIZES


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of an experiment, each described where it is defined, and what follows from several of them.

    Attributes:
        settings: of the learner that `updates.algorithm` names, by field.
    """

    world: Secrets = field(default_factory=Secrets)
    signal: Signal = field(default_factory=Signal)
    policy: PolicySettings = field(default_factory=PolicySettings)
    updates: Updates = field(default_factory=Updates)
    settings: Mapping[str, Any] = field(default_factory=dict)
    stop: Stop = field(default_factory=Stop)
    keep: Keep = field(default_factory=Keep)

    @cached_property
    def learner(self) -> Any:
        """The learner, which moves the policies.

        Raises:
            ConfigError: if it is the user's own and cannot be used.
        """
        if self.signal.signal != "reward":
            return LOADERS[self.signal.signal](self.signal)
        given = self.updates.algorithm
        return LOADERS["own"](given) if self.own_learner else LEARNERS[given](**self.settings)

    def __getstate__(self) -> dict[str, Any]:
        """What travels to another process, which makes its own learner: a user's class is none of its own."""
        return {name: value for name, value in vars(self).items() if name != "learner"}

    @property
    def silent_if_equal(self) -> bool:
        """Whether a group of equal rewards moves nothing."""
        return self.learner.silent_if_equal and not self.updates.penalised

    @property
    def own_learner(self) -> bool:
        """Whether the algorithm is the user's own."""
        return self.updates.algorithm not in [*LEARNERS]

    @property
    def command(self) -> Command:
        """The command that makes it."""
        return "sft" if self.signal.shows_answer else "train"

    @property
    def condition(self) -> str:
        """What tables and figures call it."""
        return self.signal.condition(self.world)

    @property
    def wording(self) -> Wording:
        """How the world asks."""
        return self.world.wording or self.policy.default_wording

    @property
    def spelt(self) -> bool:
        """Whether an answer of single_step is written in several tokens."""
        return self.policy.backend != "tabular"

    @property
    def bits(self) -> float:
        """The bits of a run that counts as memorised: log2 N for each secret that must be memorised."""
        return self.secrets_to_memorise * math.log2(self.world.N)

    @property
    def secrets_to_memorise(self) -> int:
        """How many of its secrets a run must have memorised to count as memorised."""
        return secrets_to_memorise(self.world.num_secrets, self.stop.memorised_share)

    @property
    def episodes_an_update(self) -> int:
        """Episodes of one run between two updates."""
        return self.group_size * self.updates.batch_size

    @property
    def group_size(self) -> int:
        """Episodes of a group; an example is a group of its own."""
        return 1 if self.signal.shows_answer else self.updates.group_size

    @property
    def episodes_a_block(self) -> int:
        """Episodes in a row about one secret with order=blocks: an equal part of the budget, in groups."""
        return max(1, self.budget // self.group_size // self.world.num_secrets) * self.group_size

    @property
    def budget(self) -> int:
        """The most episodes of one run, or examples shown to it."""
        default = 1000 if self.signal.shows_answer else max(4000, 60 * self.world.N)
        return default * self.world.num_secrets if self.stop.max_episodes is None else self.stop.max_episodes

    @property
    def updates_an_evaluation(self) -> int:
        """Updates of a run between two evaluations."""
        every = self.stop.evaluate_every
        return max(1, self.world.num_secrets // 4) if every is None else every

    @property
    def step_size(self) -> float:
        """The learning rate in use."""
        rate = self.updates.learning_rate
        return self.own_step_size if rate is None else rate

    @property
    def own_step_size(self) -> float:
        """The learning rate unless one is given."""
        sizes = STEP_SIZES.get(self.policy.adapter, STEP_SIZES[self.policy.backend])
        return sizes[self.updates.optimiser]

    @property
    def checkpoint_seconds(self) -> float | None:
        """Seconds between checkpoints; None leaves them to what one costs.

        For a hosted model it is 0 by default, since each update was paid for.
        """
        every = self.keep.checkpoint_every
        return 0.0 if every is None and self.policy.backend == "tinker" else every


def secrets_to_memorise(num_secrets: int, share: float) -> int:
    """The least number of secrets that is at least this share of them."""
    return math.ceil(share * num_secrets - 1e-9)
