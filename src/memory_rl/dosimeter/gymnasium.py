"""Gymnasium: a wrapper that records the episodes of an agent of any kind as an ordinary run directory.

import gymnasium
from memory_rl.dosimeter.gymnasium import DosimeterWrapper
env = gymnasium.make("memory_rl/SecretInteger-v0", N=64)
env = DosimeterWrapper(env, log_path="runs/agent")
...  # the agent's own loop
env.close()
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import memory_rl.integrations.gymnasium  # noqa: F401  # registers, and says if Gymnasium is missing
from memory_rl.dosimeter.recorder import RecordedEpisodes, RecordedTrainer, Recorder
from memory_rl.errors import ConfigError
from memory_rl.policies.base import Assessment, assess_all
from memory_rl.result import Result
from memory_rl.task import INVALID

import gymnasium  # isort: skip

_EVERY = 100
"""Episodes between two evaluations: each writes the tables anew."""


class DosimeterWrapper(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Records what an agent answers and how it is rewarded: what it was told, and what it knows of that.

    Nothing that the agent sees is changed. The first `reset` decides the secret; without a seed the wrapper
    draws one, so that the run can be made again. An episode that is left before its end counts: its other
    turns are forfeited.

    Args:
        env: one of those that `memory_rl.integrations.gymnasium` registers.
        log_path: the run directory; None for a new one under runs/.
        probabilities: gives the (N,) probabilities of the answers as the agent would draw them now; without
            it what the agent knows is not measured.
        agent: what the manifest calls it.
        settings: of the agent, for the manifest; agents of other settings are no sample of one population.
        figures: whether to draw the figures at the end.
        keys: evaluate_every (in episodes; 100 by default), memorised_at and the like, as `memory_rl.train`
            takes them.

    Raises:
        ConfigError: one sentence about the first unknown key or bad value, or another environment.
        RunDirectoryError: if `log_path` already holds something.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        log_path: str | None = None,
        *,
        probabilities: Callable[[], np.ndarray] | None = None,
        agent: str = "agent",
        settings: dict[str, Any] | None = None,
        figures: bool = True,
        **keys: Any,
    ) -> None:
        super().__init__(env)
        if not hasattr(env.unwrapped, "secret"):
            raise ConfigError(
                f"{env} holds no secret: use memory_rl/SecretInteger-v0 or memory_rl/SecretBits-v0."
            )
        self._of_agent, self._probabilities = (
            RecordedTrainer("gymnasium", agent, settings or {}),
            probabilities,
        )
        asked = env.unwrapped.world
        world = {"N": asked.world.N, "env_type": asked.world.env_type, "wording": "terse"}
        signal = {
            word: getattr(asked.signal, word)
            for word in ("reward_type", "reward_bins", "reward_noise")
            if getattr(asked.signal, word)
        }
        self._keys = {"evaluate_every": _EVERY, **world, **signal, **keys}
        self._how: dict[str, Any] = {"log_path": log_path, "figures": figures}
        Recorder(**self._how, **self._keys)  # a bad key is told at once
        self._recorder: Recorder | None = None
        self._choices: list[int] = []
        self._rewards: list[float] = []
        self.result: Result | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode; the first one starts the recording.

        Raises:
            ConfigError: if it changes the secret in mid-recording.
        """
        self._end_episode()
        given = self.env.unwrapped.secret is not None or (options or {}).get("secret") is not None
        if self._recorder is None and seed is None:
            seed = int(np.random.default_rng().integers(2**63))
        found = self.env.reset(seed=seed, options=options)
        if self._recorder is None:
            self._start({"fixed_secret": self.env.unwrapped.secret} if given else {"seed": seed})
        elif self.env.unwrapped.secret != self._recorder.secrets[0]:
            raise ConfigError(
                f"seed={seed} and options={options} change the secret that is recorded: close this "
                "environment, and make another for another secret."
            )
        return found

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Takes an answer, or the next bit of one, and records it."""
        found = self.env.step(action)
        self._choices.append(int(action))
        self._rewards.append(float(found[1]))
        if found[2] or found[3]:
            self._end_episode()
        return found

    def close(self) -> None:
        """Sums up; `result` has what `memory_rl.load` returns."""
        self._end_episode()
        if self._recorder is not None and self._recorder.recording:
            self.result = self._recorder.finish(self._recorder.episodes)
        super().close()

    def _start(self, secret: dict[str, Any]) -> None:
        self._recorder = Recorder(**self._how, **self._keys, **secret)
        self._recorder.start(self._of_agent, self._assess if self._probabilities else None)

    def _assess(self) -> Assessment:
        assert self._probabilities is not None  # noqa: S101  # only then it is asked
        assert self._recorder is not None  # noqa: S101  # it asks
        given = np.asarray(self._probabilities(), dtype=float)
        log_probs = np.log(
            np.maximum(given, np.finfo(float).tiny)
        )  # of what is never drawn it is finite, too
        return assess_all(log_probs[None, None], self._recorder.secrets[None])

    def _end_episode(self) -> None:
        """Records the turns that were taken, and those that are forfeited, and measures if that is due."""
        if not self._choices or self._recorder is None:
            return
        missing = self._recorder.environment.num_steps - len(self._choices)
        choices = np.array([[*self._choices, *[INVALID] * missing]])
        rewards = np.array([[*self._rewards, *[0.0] * missing]])
        self._choices, self._rewards = [], []
        recorder = self._recorder
        recorder.take(RecordedEpisodes(np.zeros(1, dtype=np.int64), choices, rewards), recorder.episodes)
        if recorder.episodes % recorder.experiment.updates_an_evaluation == 0:
            recorder.evaluate(recorder.episodes)
