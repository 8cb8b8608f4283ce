"""The film of one run: what its policy and the ideal observer make of every answer over time."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from typing_extensions import override

from memory_rl.information.ledger import Ledger
from memory_rl.policies.base import first_prompt
from memory_rl.runs.columns import FILM_SCHEMA
from memory_rl.state import State, Stateful

MAX_PICTURES = 200

_NOTHING = 1e-30  # whether single precision holds a number near 1e-38 depends on the thread that rounds it


class Film(Stateful):
    """Pictures of one run at every 2^j-th of its evaluations, and at the last.

    j grows so that there are never more than `MAX_PICTURES`.

    Args:
        N: the size of the secret space.
    """

    kept = ("_stride", "_seen")
    run = 0

    def __init__(self, N: int) -> None:
        self._N = N
        self._stride, self._seen = 1, 0
        self._pictures: list[tuple[int, int, np.ndarray]] = []
        """(evaluation from 0, episode, beliefs (2, N) of policy and observer)."""

    def expose(self, policy: Any, ledger: Ledger, episode: int, last: bool) -> None:
        """Takes in an evaluation of the run after this many episodes; needs no further pass of the model."""
        if last or self._seen % self._stride == 0:
            run = np.array([self.run])
            of_policy = np.exp(policy.log_probs(run, first_prompt(run))[0, 0, : self._N])
            beliefs = np.stack([of_policy, ledger.observer.posterior(run)[0]])
            self._pictures.append((self._seen, episode, beliefs))
            self._thin_out()
        self._seen += 1

    def _thin_out(self) -> None:
        while len(self._pictures) > MAX_PICTURES:
            self._stride *= 2
            self._pictures = [
                picture
                for picture in self._pictures
                if picture[0] % self._stride == 0 or picture[0] == self._seen
            ]

    @property
    def frame(self) -> pl.DataFrame:
        """All pictures, as `memory_rl.runs.columns.FILM_SCHEMA` has them."""
        beliefs, N = self._stacked, self._N
        beliefs[beliefs < _NOTHING] = 0.0
        columns = {
            "run": np.full(len(beliefs) * N, self.run),
            "episode": np.repeat(np.array(self._column(1), dtype=np.int64), N),
            "answer": np.tile(np.arange(N), len(beliefs)),
            "policy": beliefs[:, 0].ravel(),
            "observer": beliefs[:, 1].ravel(),
        }
        return pl.DataFrame(columns).cast(FILM_SCHEMA)  # type: ignore[arg-type]

    def _column(self, place: int) -> list[Any]:
        return [picture[place] for picture in self._pictures]

    @property
    def _stacked(self) -> np.ndarray:
        """(pictures, 2, N)."""
        return np.array(self._column(2)).reshape(-1, 2, self._N)

    @override
    def state(self) -> State:
        more = {"which": self._column(0), "episode": self._column(1), "beliefs": self._stacked}
        return super().state() | more

    @override
    def restore(self, state: State) -> None:
        super().restore(state)
        columns = (state[name] for name in ("which", "episode", "beliefs"))
        self._pictures = list(zip(*columns, strict=True))
