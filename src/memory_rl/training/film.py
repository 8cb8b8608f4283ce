"""The film of one run: what its policy and the ideal observer make of every answer over time."""

from __future__ import annotations

from itertools import compress
from typing import Any

import numpy as np
import polars as pl
from typing_extensions import override

from memory_rl.information.ledger import Ledger
from memory_rl.policies.base import first_prompt
from memory_rl.runs.store import FILM_SCHEMA
from memory_rl.state import State, Stateful

MAX_N = 256
"""The largest N with a film: more answers cannot be told apart in a picture."""

MAX_PICTURES = 200

_NOTHING = 1e-30  # whether single precision holds a number near 1e-38 depends on the thread that rounds it


class Film(Stateful):
    """Pictures of one run at every 2^j-th of its evaluations, and at the last.

    j grows so that there are never more than `MAX_PICTURES`.

    Args:
        N: the size of the secret space.
    """

    kept = ("_stride", "_seen", "_which", "_episode")
    run = 0

    def __init__(self, N: int) -> None:
        self._N = N
        self._stride, self._seen = 1, 0
        self._which: list[int] = []  # evaluations, from 0
        self._episode: list[int] = []
        self._beliefs: list[np.ndarray] = []  # (2, N) of policy and observer

    def expose(self, policy: Any, ledger: Ledger, episode: int, last: bool) -> None:
        """Takes in an evaluation of the run after this many episodes; needs no further pass of the model."""
        if last or self._seen % self._stride == 0:
            run = np.array([self.run])
            of_policy = np.exp(policy.log_probs(run, first_prompt(run))[0, 0, : self._N])
            self._which.append(self._seen)
            self._episode.append(episode)
            self._beliefs.append(np.stack([of_policy, ledger.observer.posterior(run)[0]]))
            self._thin_out()
        self._seen += 1

    def _thin_out(self) -> None:
        while len(self._which) > MAX_PICTURES:
            self._stride *= 2
            kept = [which % self._stride == 0 or which == self._seen for which in self._which]
            self._which, self._episode = (
                list(compress(self._which, kept)),
                list(compress(self._episode, kept)),
            )
            self._beliefs = list(compress(self._beliefs, kept))

    @property
    def frame(self) -> pl.DataFrame:
        """All pictures, as `memory_rl.runs.store.FILM_SCHEMA` has them."""
        beliefs, N = self._stacked, self._N
        beliefs[beliefs < _NOTHING] = 0.0
        columns = {
            "run": np.full(len(beliefs) * N, self.run),
            "episode": np.repeat(np.array(self._episode, dtype=np.int64), N),
            "answer": np.tile(np.arange(N), len(beliefs)),
            "policy": beliefs[:, 0].ravel(),
            "observer": beliefs[:, 1].ravel(),
        }
        return pl.DataFrame(columns).cast(FILM_SCHEMA)  # type: ignore[arg-type]

    @property
    def _stacked(self) -> np.ndarray:
        """(pictures, 2, N)."""
        return np.array(self._beliefs).reshape(-1, 2, self._N)

    @override
    def state(self) -> State:
        return {**super().state(), "beliefs": self._stacked}

    @override
    def restore(self, state: State) -> None:
        super().restore(state)
        self._beliefs = list(state["beliefs"])
