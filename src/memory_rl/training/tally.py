"""Means over the episodes between two evaluations of a run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memory_rl.policies.base import Rollout
from memory_rl.state import State
from memory_rl.task import INVALID
from memory_rl.training.episodes import SilentEpisodes

_NAMES = ("reward_mean", "invalid_fraction", "zero_advantage_fraction")


class Tally:
    """Sums for R runs, until they are taken.

    Args:
        num_runs: R.
    """

    def __init__(self, num_runs: int) -> None:
        self._sums, self._episodes = np.zeros((len(_NAMES), num_runs)), np.zeros(num_runs)

    def add(
        self,
        rollout: Rollout,
        rewards: np.ndarray,
        silent: np.ndarray | None,
        skipped: Sequence[SilentEpisodes],
    ) -> None:
        """Counts episodes.

        Args:
            rollout: of R' runs, E episodes of each.
            rewards: (R', E, K).
            silent: (R',) fraction of groups without signal, or None where groups have no meaning.
            skipped: episodes before them, which were not sampled; their groups had no signal.
        """
        runs, size = rollout.runs, rewards.shape[1]
        fraction = np.full(len(runs), np.nan) if silent is None else silent
        self._sums[:, runs] += [
            rewards.mean(axis=2).sum(axis=1),
            (rollout.choices < 0).any(axis=2).sum(axis=1),
            fraction * size,
        ]
        self._episodes[runs] += size
        for some in skipped:
            self._sums[:, some.run] += (
                some.rewards @ some.counts,
                (some.answers == INVALID) @ some.counts,
                some.counts.sum(),
            )
            self._episodes[some.run] += some.counts.sum()

    def take(self, runs: np.ndarray) -> dict[str, np.ndarray]:
        """The mean of each (R,) over the episodes since these runs' last were taken; NaN where there is
        nothing to average.
        """
        sums, episodes = self._sums[:, runs], self._episodes[runs]
        self._sums[:, runs], self._episodes[runs] = 0.0, 0.0
        means = np.divide(sums, episodes, out=np.full(sums.shape, np.nan), where=episodes > 0)
        return dict(zip(_NAMES, means, strict=True))

    def state(self) -> State:
        """See `memory_rl.state.Stateful`."""
        return {"sums": self._sums, "episodes": self._episodes}

    def restore(self, state: State) -> None:
        """See `memory_rl.state.Stateful`."""
        self._sums[:], self._episodes[:] = state["sums"], state["episodes"]
