"""The film of one run: what its policy and the ideal observer make of every answer, from evaluation to
evaluation.
"""

from __future__ import annotations

from itertools import compress
from typing import cast

import numpy as np
import polars as pl

from memory_rl.config import Experiment, episodes_an_update
from memory_rl.information.ledger import HitLedger, Ledger
from memory_rl.policies.base import Policy, ScoresAll
from memory_rl.runs.store import FILM_SCHEMA
from memory_rl.state import State

RUN = 0
"""The run that is filmed."""

MAX_N = 256
"""More answers cannot be told apart in a picture."""

MAX_PICTURES = 200

_NOTHING = 1e-30  # whether single precision holds a number near 1e-38 depends on the thread that rounds it, and on what that did before


class Film:
    """Pictures of one run at every 2^j-th of its evaluations, and at the last; j grows so that they never are
    more than `MAX_PICTURES`.

    Args:
        config: the experiment.
    """

    def __init__(self, config: Experiment) -> None:
        self._config = config
        self._stride, self._seen = 1, 0
        self._which: list[int] = []  # evaluations, from 0
        self._episode: list[int] = []
        self._beliefs: list[np.ndarray] = []  # (2, N) of policy and observer

    def expose(self, policy: Policy, ledger: Ledger, episode: int, bits_known: float) -> None:
        """Takes in an evaluation of the run, after this many episodes. Costs no pass of the model, which has
        been asked.
        """
        if self._seen % self._stride == 0 or self._is_last(episode, bits_known):
            run = np.array([RUN])
            of_policy = np.exp(cast(ScoresAll, policy).log_probs(run)[0, : self._config.N])
            self._which.append(self._seen)
            self._episode.append(episode)
            self._beliefs.append(np.stack([of_policy, ledger.observer.posterior(run)[0]]))
            self._thin_out()
        self._seen += 1

    def _is_last(self, episode: int, bits_known: float) -> bool:
        config = self._config
        return (
            bool(bits_known >= np.log2(config.N * config.stop_at))
            or episode + episodes_an_update(config) > config.budget
        )

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
        """All pictures; see `FILM_SCHEMA`."""
        beliefs, N = self._stacked, self._config.N
        beliefs[beliefs < _NOTHING] = 0.0
        columns = {
            "run": np.full(len(beliefs) * N, RUN),
            "episode": np.repeat(np.array(self._episode, dtype=np.int64), N),
            "answer": np.tile(np.arange(N), len(beliefs)),
            "policy": beliefs[:, 0].ravel(),
            "observer": beliefs[:, 1].ravel(),
        }
        return pl.DataFrame(columns).cast(FILM_SCHEMA)  # type: ignore[arg-type]

    @property
    def _stacked(self) -> np.ndarray:
        """(pictures, 2, N)."""
        return np.array(self._beliefs).reshape(-1, 2, self._config.N)

    def state(self) -> State:
        """See `memory_rl.state.Stateful`."""
        return {
            "stride": self._stride,
            "seen": self._seen,
            "which": self._which,
            "episode": self._episode,
            "beliefs": self._stacked,
        }

    def restore(self, state: State) -> None:
        """See `memory_rl.state.Stateful`."""
        self._stride, self._seen = state["stride"], state["seen"]
        self._which, self._episode = list(state["which"]), list(state["episode"])
        self._beliefs = list(state["beliefs"])


def make_film(config: Experiment, ledger: Ledger | HitLedger | None) -> Film | None:
    """A film, where there is a belief over all answers to be seen, and room for it."""
    return (
        Film(config)
        if isinstance(ledger, Ledger) and config.N <= MAX_N and config.num_secrets == 1 and config.scores_all
        else None
    )
