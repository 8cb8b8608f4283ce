"""The tables of a run directory: kept in memory as rows come, written at checkpoints and at the end."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import numpy as np
import polars as pl
from typing_extensions import override

from memory_rl.learning.batch import UNLISTED
from memory_rl.runs.store import (
    EPISODES,
    EPISODES_SCHEMA,
    FILM,
    METRICS,
    METRICS_SCHEMA,
    OF_SEVERAL_SECRETS,
    PROMPT,
    SECRETS,
    SECRETS_SCHEMA,
    TIMING,
    TIMING_SCHEMA,
    RunDirectory,
)
from memory_rl.state import State, Stateful
from memory_rl.task import INVALID
from memory_rl.training.film import Film
from memory_rl.training.meter import Rows

_CONSTANT = ("secret", "seed", "learning_rate")
"""Columns of the metrics that do not change during a run."""


class Tables(Stateful):
    """A sink that writes Parquet.

    Args:
        directory: where they are written.
        secrets: (R, M).
        seed: of the experiment.
        learning_rate: in use.
        film: also to be written; None for none.
    """

    def __init__(
        self,
        directory: RunDirectory,
        secrets: np.ndarray,
        seed: int,
        learning_rate: float,
        film: Film | None = None,
    ) -> None:
        self.directory, self._secrets, self._film = directory, secrets, film
        self._constant = {"seed": pl.lit(seed, pl.Int64), "learning_rate": pl.lit(learning_rate, pl.Float64)}
        several = secrets.shape[1] > 1
        self._schemas: dict[str, dict[str, Any]] = {
            "metrics": METRICS_SCHEMA | (OF_SEVERAL_SECRETS if several else {}),
            "episodes": EPISODES_SCHEMA | ({PROMPT: pl.Int32} if several else {}),
            "secrets": SECRETS_SCHEMA,
        }
        self._rows: defaultdict[str, list[Rows]] = defaultdict(list)
        self._timing: list[tuple[int, float]] = []
        self._started = time.monotonic()

    def take(self, table: str, rows: Rows) -> None:
        """Takes rows; those of metrics get the time at which they came."""
        self._rows[table].append(rows)
        if table == "metrics":
            self._timing.append((int(rows["episode"].min()), self.seconds))

    @property
    def seconds(self) -> float:
        """Since the start of training."""
        return time.monotonic() - self._started

    @property
    def metrics(self) -> pl.DataFrame:
        """All evaluations so far, as `memory_rl.runs.store.METRICS_SCHEMA` has them."""
        frame = self._frame("metrics", _CONSTANT)
        secret = pl.lit(None, pl.Int64)
        if self._secrets.shape[1] == 1:
            secret = pl.Series(self._secrets[frame["run"].to_numpy(), 0], dtype=pl.Int64)  # type: ignore[assignment]
        return frame.with_columns(secret=secret, **self._constant).select(*self._schemas["metrics"])

    @property
    def episodes(self) -> pl.DataFrame:
        """All episodes so far, as `memory_rl.runs.store.EPISODES_SCHEMA` has them."""
        answer = pl.col("answer")
        given = pl.when((answer >= 0) | (answer == UNLISTED)).then(answer).alias("answer")
        return self._frame("episodes").with_columns(given, pl.col("reward").fill_nan(None))

    def write(self) -> None:
        """Writes everything so far, if there is anything."""
        if not self._rows:
            return
        self.directory.write_frame(METRICS, self.metrics)
        self.directory.write_frame(EPISODES, self.episodes)
        self.directory.write_frame(TIMING, pl.DataFrame(self._timing, schema=TIMING_SCHEMA, orient="row"))
        if self._secrets.shape[1] > 1:
            self.directory.write_frame(SECRETS, self._frame("secrets"))
        if self._film is not None:
            self.directory.write_frame(FILM, self._film.frame)

    def _frame(self, table: str, leave_out: tuple[str, ...] = ()) -> pl.DataFrame:
        wanted = {name: kind for name, kind in self._schemas[table].items() if name not in leave_out}
        self._rows[table] = parts = [_joined(self._rows[table])] if self._rows[table] else []
        columns = {name: parts[0][name] if parts else np.array([]) for name in wanted}
        return pl.DataFrame(columns, nan_to_null=True).cast(wanted)  # type: ignore[arg-type]

    @override
    def state(self) -> State:
        """All tables; they are also written, for those who want to look at them meanwhile."""
        self.write()
        frames = {"metrics": self.metrics, "episodes": self.episodes, "secrets": self._frame("secrets")}
        timing = pl.DataFrame(self._timing, schema=TIMING_SCHEMA, orient="row")
        return {**frames, "timing": timing, "seconds": self.seconds}

    @override
    def restore(self, state: State) -> None:
        episodes = state["episodes"].with_columns(pl.col("answer").fill_null(INVALID))
        tables = {
            "metrics": state["metrics"].drop(_CONSTANT),
            "episodes": episodes,
            "secrets": state["secrets"],
        }
        self._rows.update({name: [_columns(frame)] for name, frame in tables.items() if len(frame)})
        self._timing = state["timing"].rows()
        self._started = time.monotonic() - state["seconds"]


def _joined(parts: list[Rows]) -> Rows:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _columns(frame: pl.DataFrame) -> Rows:
    """A frame as columns again: null becomes NaN."""
    return {
        name: (frame[name].fill_null(np.nan) if frame[name].dtype.is_float() else frame[name]).to_numpy()
        for name in frame.columns
    }
