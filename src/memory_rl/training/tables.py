"""The tables of a run directory: kept in memory as rows come, written at checkpoints and at the end."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import numpy as np
import polars as pl
from typing_extensions import override

from memory_rl.learning.batch import UNLISTED
from memory_rl.runs.columns import (
    EPISODES_SCHEMA,
    METRICS_SCHEMA,
    OF_SEVERAL_SECRETS,
    PROMPT,
    SECRETS_SCHEMA,
    TIMING_SCHEMA,
)
from memory_rl.runs.store import EPISODES, FILM, METRICS, SECRETS, TIMING, RunDirectory
from memory_rl.state import State, Stateful
from memory_rl.task import INVALID
from memory_rl.training.film import Film
from memory_rl.training.meter import Rows


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
        self.directory, self._film, several = directory, film, secrets.shape[1] > 1
        self._seed, self._learning_rate = seed, learning_rate
        self._secret = np.full(len(secrets), np.nan) if several else secrets[:, 0]
        self._schemas: dict[str, dict[str, Any]] = {
            "metrics": METRICS_SCHEMA | (OF_SEVERAL_SECRETS if several else {}),
            "episodes": EPISODES_SCHEMA | ({PROMPT: pl.Int32} if several else {}),
            "secrets": SECRETS_SCHEMA,
            "timing": TIMING_SCHEMA,
        }
        self._rows: defaultdict[str, list[Rows]] = defaultdict(list)
        self._started = time.monotonic()

    def take(self, table: str, rows: Rows) -> None:
        """Takes rows; those of metrics get what stays the same during a run, and the time when they came."""
        if table == "metrics":
            now = {"episode": rows["episode"].min(), "seconds": self.seconds}
            self._rows["timing"].append({name: np.array([value]) for name, value in now.items()})
            run, constant = rows["run"], {"seed": self._seed, "learning_rate": self._learning_rate}
            rows = rows | {name: np.full(len(run), value) for name, value in constant.items()}
            rows["secret"] = self._secret[run]
        self._rows[table].append(rows)

    @property
    def seconds(self) -> float:
        """Since the start of training."""
        return time.monotonic() - self._started

    @property
    def metrics(self) -> pl.DataFrame:
        """All evaluations so far, as `memory_rl.runs.columns.METRICS_SCHEMA` has them."""
        return self._frame("metrics")

    @property
    def episodes(self) -> pl.DataFrame:
        """All episodes so far, as `memory_rl.runs.columns.EPISODES_SCHEMA` has them."""
        answer = pl.col("answer")
        given = pl.when((answer >= 0) | (answer == UNLISTED)).then(answer).alias("answer")
        return self._frame("episodes").with_columns(given, pl.col("reward").fill_nan(None))

    def write(self) -> None:
        """Writes everything so far, if there is anything."""
        if not self._rows:
            return
        self.directory.write_frame(METRICS, self.metrics)
        self.directory.write_frame(EPISODES, self.episodes)
        self.directory.write_frame(TIMING, self._frame("timing"))
        if self._rows["secrets"]:
            self.directory.write_frame(SECRETS, self._frame("secrets"))
        if self._film is not None:
            self.directory.write_frame(FILM, self._film.frame)

    def _frame(self, table: str) -> pl.DataFrame:
        schema = self._schemas[table]
        self._rows[table] = parts = [_joined(self._rows[table])] if self._rows[table] else []
        columns = {name: parts[0][name] if parts else np.array([]) for name in schema}
        return pl.DataFrame(columns, nan_to_null=True).cast(schema)  # type: ignore[arg-type]

    @override
    def state(self) -> State:
        """All tables; they are also written, for those who want to look at them meanwhile."""
        self.write()
        frames = {table: self._frame(table) for table in self._schemas}
        return {**frames, "episodes": self.episodes, "seconds": self.seconds}

    @override
    def restore(self, state: State) -> None:
        answer = pl.col("answer").fill_null(INVALID)
        frames = {table: state[table] for table in self._schemas}
        frames["episodes"] = frames["episodes"].with_columns(answer)
        self._rows.update({table: [_columns(frame)] for table, frame in frames.items() if len(frame)})
        self._started = time.monotonic() - state["seconds"]


def _joined(parts: list[Rows]) -> Rows:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _columns(frame: pl.DataFrame) -> Rows:
    """A frame as columns again: null becomes NaN."""
    return {
        name: (frame[name].fill_null(np.nan) if frame[name].dtype.is_float() else frame[name]).to_numpy()
        for name in frame.columns
    }
