"""Named random streams from one seed.

Each purpose (drawing secrets, sampling answers, reward noise, initial adapters) and each run has a stream of
its own. So a run draws the same numbers whatever the other runs do and however many there are, and a new
purpose does not shift the numbers of an existing one.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from memory_rl.state import Stateful


def generator(seed: int, name: str, *indices: int) -> np.random.Generator:
    """A random generator that only depends on the seed, the name of its purpose and its indices.

    An index is, for example, the run.
    """
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(name.encode()), *indices]))


def torch_seed(seed: int, name: str, *indices: int) -> int:
    """A 63-bit seed for a `torch.Generator`, from the same named streams."""
    return int(generator(seed, name, *indices).integers(2**63))


def noise(seed: int, size: int) -> np.ndarray:
    """Standard normal numbers (size,) that only depend on the seed: who needs them again asks again."""
    return np.random.default_rng(seed).standard_normal(size)


def along_noise(seeds: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """The sum over seeds (E,) of weight times `noise`: (size,)."""
    total = np.zeros(size)
    for seed, weight in zip(seeds, weights, strict=True):
        total += weight * noise(seed, size)
    return total


class RunStreams(Stateful):
    """One stream per run for one purpose; axis 0 of what it draws is the run.

    Args:
        seed: the experiment's seed.
        name: the purpose.
        num_runs: R.
    """

    kept = ("_generators",)

    def __init__(self, seed: int, name: str, num_runs: int) -> None:
        self._generators = [generator(seed, name, run) for run in range(num_runs)]

    def __getitem__(self, run: int) -> np.random.Generator:
        return self._generators[run]

    def random(self, runs: Sequence[int] | np.ndarray, *shape: int) -> np.ndarray:
        """Uniform numbers in [0, 1) for these runs, (len(runs), *shape); other streams stand still."""
        return np.stack([self._generators[run].random(shape) for run in runs])
