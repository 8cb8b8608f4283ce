"""Which of its secrets a run is asked about, group by group. It does not depend on what the secrets are, nor
on what was answered.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from memory_rl.config import Experiment, TrainConfig, episodes_a_block
from memory_rl.seeding import RunStreams
from memory_rl.state import State, Stateful


class Prompts(Stateful, Protocol):
    """Gives each run the prompts of its next groups."""

    def next(self, runs: np.ndarray) -> np.ndarray:
        """The secret (from 0) that each of the next B groups of these runs is about: (R, B)."""


class OnePrompt:
    """There is but one secret."""

    def __init__(self, num_groups: int) -> None:
        self._num_groups = num_groups

    def next(self, runs: np.ndarray) -> np.ndarray:
        """See `Prompts`."""
        return np.zeros((len(runs), self._num_groups), dtype=np.int64)

    def state(self) -> State:
        """None is kept."""
        return {}

    def restore(self, state: State) -> None:
        """None is kept."""


class UniformPrompts:
    """Each group's is drawn, all equally likely."""

    def __init__(self, config: Experiment) -> None:
        self._shape, self._num_secrets = (config.batch_size,), config.num_secrets
        self._streams = RunStreams(config.seed, "prompts", config.num_runs)

    def next(self, runs: np.ndarray) -> np.ndarray:
        """See `Prompts`."""
        return (self._streams.random(runs, *self._shape) * self._num_secrets).astype(np.int64)

    def state(self) -> State:
        """See `memory_rl.state.Stateful`."""
        return {"streams": self._streams.state()}

    def restore(self, state: State) -> None:
        """See `memory_rl.state.Stateful`."""
        self._streams.restore(state["streams"])


class PromptsInOrder:
    """Each in its turn.

    Args:
        config: the experiment.
        repeats: groups in a row that are about the same secret.
    """

    def __init__(self, config: Experiment, repeats: int) -> None:
        self._num_groups, self._num_secrets, self._repeats = config.batch_size, config.num_secrets, repeats
        self._groups = np.zeros(config.num_runs, dtype=np.int64)

    def next(self, runs: np.ndarray) -> np.ndarray:
        """See `Prompts`."""
        number = self._groups[runs, None] + np.arange(self._num_groups)
        self._groups[runs] += self._num_groups
        return np.asarray(number // self._repeats % self._num_secrets)

    def state(self) -> State:
        """See `memory_rl.state.Stateful`."""
        return {"groups": self._groups}

    def restore(self, state: State) -> None:
        """See `memory_rl.state.Stateful`."""
        self._groups[:] = state["groups"]


def make_prompts(config: Experiment) -> Prompts:
    """The order that the configuration names. In SFT a group is one example."""
    if config.num_secrets == 1:
        return OnePrompt(config.batch_size)
    if config.order == "uniform":
        return UniformPrompts(config)
    if config.order == "cycle":
        return PromptsInOrder(config, 1)
    return PromptsInOrder(
        config, episodes_a_block(config) // (config.group_size if isinstance(config, TrainConfig) else 1)
    )
