"""What is asked: the secrets and the conversation about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memory_rl.errors import ConfigError
from memory_rl.keys import key
from memory_rl.limits import ANSWERS, SEEDS, SIZES

EnvType = Literal["single_step", "multi_step"]
Wording = Literal["terse", "plain"]


@dataclass(frozen=True, kw_only=True)
class World:
    """What is asked: the secret and the conversation about it."""

    env_type: EnvType = key(
        "single_step", "single_step: one answer an episode. multi_step: k turns of one bit each."
    )
    N: int = key(64, "The secret is uniform on [0, N): log2 N bits to learn.", ANSWERS)
    fixed_secret: int | None = key(
        None,
        "Gives every run this secret. Default: each run draws its own from the seed.",
        (0, ANSWERS[1]),
        needs="num_secrets=1",
    )
    seed: int = key(0, "The seed of everything random: secrets, adapters, sampling, noise.", SEEDS)
    wording: Wording | None = key(
        None,
        "How the world asks: in a few characters, or in sentences. Default: terse for the built-in model, "
        "else plain.",
    )

    def __post_init__(self) -> None:
        if self.fixed_secret is not None and self.fixed_secret >= self.N:
            raise ConfigError(
                f"fixed_secret={self.fixed_secret} is not in [0, {self.N}): use 0 to {self.N - 1}."
            )

    @property
    def multi_step(self) -> bool:
        """Whether the answer is given bit by bit."""
        return self.env_type == "multi_step"


@dataclass(frozen=True, kw_only=True)
class Secrets(World):
    """A world with several secrets."""

    num_secrets: int = key(
        1,
        "M: each run has so many independent secrets, each with a prompt of its own: M log2 N bits to learn.",
        SIZES,
    )
    order: Literal["uniform", "cycle", "blocks"] = key(
        "uniform",
        "Which of several secrets an episode is about, group by group: drawn uniformly, "
        "each in its turn (cycle), or one after the other (blocks), each for an equal part of the budget.",
        needs="num_secrets>1",
    )
