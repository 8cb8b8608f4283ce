"""Gymnasium: `memory_rl/SecretInteger-v0` and `memory_rl/SecretBits-v0`.

An episode is one answer in the first, and k bits in the second. Importing this module registers both:

    import gymnasium
    import memory_rl.integrations.gymnasium
    env = gymnasium.make("memory_rl/SecretInteger-v0", N=64, reward_type="log_distance")

The secret lasts for the environment's life, not for an episode, as in an experiment, where a run has one
secret and learns it over its episodes:

- `secret=` at construction, or `reset(options={"secret": 5})`, gives it;
- otherwise the first `reset` draws it, and a later `reset()` keeps it;
- `reset(seed=s)` makes the environment what a new one with this seed would be, so that it draws again: the
  secret of run 0 of an experiment with `seed=s`. A secret that was given stays;
- `reset(options={"secret": None})` draws a new one.

No observation and no info holds it. Reward noise comes from `np_random`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from memory_rl.errors import ConfigError, require
from memory_rl.integrations.worlds import AskedWorld, make_world
from memory_rl.task import secrets_of_run

require("gymnasium", "gymnasium", "memory_rl.integrations.gymnasium")

import gymnasium  # noqa: E402  # its absence is said first
from gymnasium import spaces  # noqa: E402

UNSAID = 2
"""In an observation of `SecretBits`: a bit that has not been said yet."""


class _Secretive(gymnasium.Env[Any, Any]):
    """An environment that keeps its secret over its episodes."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, secret: int | None, **keys: Any) -> None:
        self._world: AskedWorld = make_world(**keys)
        self._given = secret is not None
        self._secret: int | None = _checked(secret, self._world.environment.space.N) if self._given else None
        self._choices: list[int] = []
        self._over = True

    @property
    def world(self) -> AskedWorld:
        """What is asked, and how it is rewarded."""
        return self._world

    @property
    def secret(self) -> int | None:
        """S, for those who keep account of an agent; None before it is drawn."""
        return self._secret

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode; the module's description says what becomes of the secret."""
        super().reset(seed=seed)
        self._settle_secret(seed, options or {})
        self._choices, self._over = [], False
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Takes an answer, or the next bit of one.

        Raises:
            gymnasium.error.ResetNeeded: before the first `reset`, and after the end of an episode.
            gymnasium.error.InvalidAction: if it is not in the action space.
        """
        if self._over or self._secret is None:
            raise gymnasium.error.ResetNeeded("the episode is over: call reset() first.")
        if not self.action_space.contains(action):
            raise gymnasium.error.InvalidAction(
                f"{action!r} is not in {self.action_space}: "
                f"use an integer from 0 to {self.action_space.n - 1}."
            )
        reward = self._world.score_step(int(action), len(self._choices), self._secret, self.np_random)
        self._choices.append(int(action))
        self._over = len(self._choices) == self._world.num_steps
        return self._observation(), reward, self._over, False, self._info()

    def _settle_secret(self, seed: int | None, options: dict[str, Any]) -> None:
        space = self._world.environment.space
        if "secret" in options:
            self._given = options["secret"] is not None
            self._secret = _checked(options["secret"], space.N) if self._given else space.draw(self.np_random)
        elif seed is not None and not self._given:
            self._secret = secrets_of_run(replace(self._world.world, seed=seed))[0]
        elif self._secret is None:
            self._secret = space.draw(self.np_random)

    def _observation(self) -> Any:
        raise NotImplementedError

    def _info(self) -> dict[str, Any]:
        """The step, the bits to learn, and what a language model would be asked next (None at the end)."""
        step = len(self._choices)
        environment = self._world.environment
        return {
            "step": step,
            "bits": environment.space.information,
            "prompt": None if self._over else environment.prompt(step),
        }


class SecretInteger(_Secretive):
    """Answer with the secret integer: `Discrete(N)`, one step per episode.

    There is nothing to observe: `Discrete(1)`.

    Args:
        N: the secret is uniform on [0, N).
        reward_type: binary, log_distance, binned_log_distance, or a reward of your own.
        reward_bins: B of binned_log_distance.
        reward_noise: the probability of a different level.
        secret: None to have it drawn.
    """

    def __init__(
        self,
        N: int = 64,
        reward_type: Any = None,
        reward_bins: int | None = None,
        reward_noise: float = 0.0,
        secret: int | None = None,
    ) -> None:
        super().__init__(
            secret, N=N, reward_type=reward_type, reward_bins=reward_bins, reward_noise=reward_noise
        )
        self.action_space = spaces.Discrete(N)
        self.observation_space = spaces.Discrete(1)

    def _observation(self) -> np.int64:
        return np.int64(0)


class SecretBits(_Secretive):
    """Answer bit by bit, most significant first: `Discrete(2)`, k = ceil(log2 N) steps per episode.

    Each correct bit earns 1. An observation holds the k bits of the answer as far as it was given, `UNSAID`
    for those to come: `MultiDiscrete([3] * k)`.

    Args:
        N: the secret is uniform on [0, N).
        reward_noise: the probability that a reward is flipped.
        secret: None to have it drawn.
    """

    def __init__(self, N: int = 64, reward_noise: float = 0.0, secret: int | None = None) -> None:
        super().__init__(secret, env_type="multi_step", N=N, reward_noise=reward_noise)
        self.action_space = spaces.Discrete(2)
        self.observation_space = spaces.MultiDiscrete([3] * self._world.num_steps)

    def _observation(self) -> np.ndarray:
        observation = np.full(self._world.num_steps, UNSAID)
        observation[: len(self._choices)] = self._choices
        return observation


def _checked(secret: Any, N: int) -> int:
    if isinstance(secret, bool) or not isinstance(secret, int | np.integer) or not 0 <= secret < N:
        raise ConfigError(f"secret={secret} is not in [0, {N}): use an integer from 0 to {N - 1}.")
    return int(secret)


gymnasium.register("memory_rl/SecretInteger-v0", entry_point=f"{__name__}:SecretInteger")
gymnasium.register("memory_rl/SecretBits-v0", entry_point=f"{__name__}:SecretBits")
