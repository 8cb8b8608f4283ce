"""What all adapters share: an environment made from keys, its secrets, and the rewards of replies.

Secrets are drawn as an experiment draws them. Nothing of the world is decided here; task/ does that. An
adapter turns these calls into its library's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memory_rl.config import Signal, World
from memory_rl.errors import ConfigError
from memory_rl.keys import fill, keys_of, read
from memory_rl.task import INVALID, Environment, Message, chat, make_environment, secrets_of_run


@dataclass(frozen=True)
class AskedWorld:
    """An environment and how its secrets are drawn, for an adapter to ask.

    Attributes:
        world: what is asked.
        signal: how answers are rewarded.
        environment: task/'s own, which decides prompts, parsing and rewards.
    """

    world: World
    signal: Signal
    environment: Environment

    @property
    def condition(self) -> str:
        """The name of the condition."""
        return self.signal.condition(self.world)

    @property
    def num_steps(self) -> int:
        """K: turns in an episode."""
        return self.environment.num_steps

    def secret(self, run: int = 0) -> int:
        """The secret of a run: the one that an experiment with the same seed gives it, or `fixed_secret`."""
        return secrets_of_run(self.world, run)[0]

    def messages(self, replies: Sequence[str], which: int = 0) -> list[Message]:
        """The conversation about one of the secrets once these replies are given.

        It goes up to the next question that a model is to see.
        """
        ask = self.environment.prompt
        texts = [text for step, reply in enumerate(replies) for text in (ask(step, which), reply)]
        return chat([*texts, ask(len(replies), which)] if len(replies) < self.num_steps else texts)

    def read(self, replies: Sequence[str | None]) -> np.ndarray:
        """The choices of an episode's replies, (K,); None is a reply that was cut off.

        The first invalid turn forfeits those after it.
        """
        choices = np.full(self.num_steps, INVALID)
        for step, reply in enumerate(replies):
            choice = None if reply is None else self.environment.parse(reply)
            if choice is None:
                break
            choices[step] = choice
        return choices

    def score(self, choices: np.ndarray, secret: int, chance: np.random.Generator) -> np.ndarray:
        """The reward of each step of an episode, (K,), for its choices (K,).

        The noise is drawn from `chance`, one number per step.
        """
        uniforms = None if self.environment.channel.certain else chance.random((1, 1, self.num_steps))
        return self.environment.rewards(choices[None, None], np.array([secret]), uniforms)[0, 0]

    def score_step(self, choice: int, step: int, secret: int, chance: np.random.Generator) -> float:
        """The reward of one step, for adapters that are asked step by step."""
        uniform = None if self.environment.channel.certain else np.array(chance.random())
        return float(
            self.environment.channel.rewards(
                np.array(choice), self.environment.choices(secret)[step], uniform
            )
        )


def keys_of_world(settings: object) -> dict[str, Any]:
    """Those of the keys of `make_world` that attributes of these settings give."""
    names = ("env_type", "N", "reward_type", "reward_bins", "reward_noise", "seed", "fixed_secret")
    return {name: value for name in names if (value := getattr(settings, name)) is not None}


def make_world(**keys: Any) -> AskedWorld:
    """The world of these keys, which are as `memory_rl.train` takes them.

    They are env_type, N, fixed_secret, seed, reward_type, reward_bins and reward_noise.

    Raises:
        ConfigError: one sentence about the first unknown key or bad value.
    """
    if keys.get("credit", "step") != "step":
        raise ConfigError(
            f"credit={keys['credit']} has no meaning here, since it is the trainer that credits steps: "
            "leave credit out."
        )
    values = read(keys_of(World) | keys_of(Signal), keys, typed=True)
    if values.get("signal", "reward") != "reward":
        raise ConfigError(
            f"signal={values['signal']} has no meaning here, where answers are rewarded: leave signal out."
        )
    world, signal = fill(World, values), fill(Signal, values)
    return AskedWorld(world, signal, make_environment(world, signal))
