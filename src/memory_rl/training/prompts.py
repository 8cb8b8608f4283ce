"""Which of its secrets a run is asked about, block by block, whatever they are and was answered."""

from __future__ import annotations

import numpy as np
from typing_extensions import override

from memory_rl.seeding import RunStreams
from memory_rl.state import Stateful


class Prompts(Stateful):
    """Each secret in its turn, for `repeats` blocks in a row.

    Args:
        num_runs: R.
        num_secrets: M.
        num_blocks: B, in which each run asks about one secret.
        repeats: blocks in a row about the same secret.
    """

    kept = ("_blocks",)

    def __init__(self, num_runs: int, num_secrets: int = 1, num_blocks: int = 1, repeats: int = 1) -> None:
        self._num_blocks, self._num_secrets, self._repeats = num_blocks, num_secrets, repeats
        self._blocks = np.zeros(num_runs, dtype=np.int64)

    def next(self, runs: np.ndarray) -> np.ndarray:
        """The secret (from 0) that each of the next B blocks of these runs is about: (R, B)."""
        number = self._blocks[runs, None] + np.arange(self._num_blocks)
        self._blocks[runs] += self._num_blocks
        return np.asarray(number // self._repeats % self._num_secrets)


class UniformPrompts(Prompts):
    """Each block's secret is drawn, all equally likely."""

    kept = ("_streams",)

    def __init__(self, seed: int, num_runs: int, num_secrets: int, num_blocks: int) -> None:
        super().__init__(num_runs, num_secrets, num_blocks)
        self._streams = RunStreams(seed, "prompts", num_runs)

    @override
    def next(self, runs: np.ndarray) -> np.ndarray:
        return (self._streams.random(runs, self._num_blocks) * self._num_secrets).astype(np.int64)
