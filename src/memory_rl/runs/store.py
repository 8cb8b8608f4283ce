"""The files of a run directory. Every file appears whole or not at all, and nothing that was measured is ever overwritten by another run.

metrics.parquet holds only what the configuration and the seed determine, so that two runs of the same experiment give the same bytes; wall-clock
times are kept apart, in timing.parquet.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from memory_rl.errors import RunDirectoryError
from memory_rl.runs.manifest import SCHEMA

METRICS_SCHEMA = {
    "run": pl.Int32,
    "secret": pl.Int64,
    "seed": pl.Int64,
    "update": pl.Int64,
    "episode": pl.Int64,
    "bits_known": pl.Float64,
    "content_bits": pl.Float64,
    "format_bits": pl.Float64,
    "confidence": pl.Float64,
    "observer_bits": pl.Float64,
    "asked_bits": pl.Float64,
    "asked_variance": pl.Float64,
    "reward_mean": pl.Float64,
    "invalid_fraction": pl.Float64,
    "zero_advantage_fraction": pl.Float64,
    "learning_rate": pl.Float64,
}
"""A row a run and evaluation. update: optimiser steps so far; episode: episodes so far. confidence: the probability of the likeliest valid answer.
observer_bits, asked_bits, asked_variance: the ledger so far (see `memory_rl.information.ledger`), null if none is kept. The fractions and the mean
reward are those of the episodes since the last evaluation, null where there is none. zero_advantage_fraction: of groups."""

EPISODES_SCHEMA = {
    "run": pl.Int32,
    "update": pl.Int64,
    "episode": pl.Int64,
    "step": pl.Int32,
    "answer": pl.Int64,
    "reward": pl.Float64,
    "count": pl.Int64,
}
"""A row a run, episode and step. update: optimiser steps that the run had made when it answered; episode from 1, step from 0; answer null where it
was invalid or forfeited. count: 1; but silent episodes that were skipped have a row for each answer and reward, at the first episode that had them, with the
number of those that did before the next update; with scoring=paths the answers of one row, -2, are any that were not S."""

LEDGER_SCHEMA = {"run": pl.Int32, "episode": pl.Int64, "asked_bits": pl.Float64, "asked_variance": pl.Float64, "observer_bits": pl.Float64}
"""A row a run and episode: the ledger after it."""

TIMING_SCHEMA = {"episode": pl.Int64, "seconds": pl.Float64}
"""Seconds since the start of training at which all active runs had seen this many episodes."""

MANIFEST, METRICS, EPISODES, TIMING, SUMMARY = "manifest.json", "metrics.parquet", "episodes.parquet", "timing.parquet", "summary.json"
CHANNEL = "channel.npz"
"""The table of a reward of the user's own: levels, classes and, if chance has a part in it, outcomes."""


class RunDirectory:
    """One run's directory on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def claim(cls, log_path: str | None, name: str) -> RunDirectory:
        """A directory that is this run's alone: `log_path`, or a new one under runs/.

        Raises:
            RunDirectoryError: if `log_path` already holds a run or other files, or cannot be written.
        """
        path = Path(log_path) if log_path is not None else _new_path(name)
        try:
            path.mkdir(parents=True, exist_ok=True)
            taken = next(path.iterdir(), None)
        except OSError as error:
            raise RunDirectoryError(f"log_path={path} cannot be written ({error.strerror}): give another log_path.") from error
        if (path / MANIFEST).exists():
            status = json.loads((path / MANIFEST).read_text()).get("status")
            raise RunDirectoryError(f"log_path={path} already holds a run ({status}), which is never overwritten: give another log_path.")
        if taken is not None:
            raise RunDirectoryError(f"log_path={path} already holds other files ({taken.name}): give an empty or new log_path.")
        return cls(path)

    def discard(self) -> None:
        """Removes a directory in which nothing was measured, because the run could not start."""
        (self.path / MANIFEST).unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes a JSON file whole."""
        self._replace(name, lambda path: path.write_text(json.dumps(content, indent=2) + "\n"))

    def write_frame(self, name: str, frame: pl.DataFrame) -> None:
        """Writes a Parquet file whole."""
        self._replace(name, frame.write_parquet)

    def write_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Writes a .npz file whole."""

        def write(path: Path) -> None:
            with path.open("wb") as stream:
                np.savez_compressed(stream, allow_pickle=False, **arrays)

        self._replace(name, write)

    def read_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Reads a .npz file; it may hold numbers alone.

        Raises:
            RunDirectoryError: if it is missing or damaged.
        """
        try:
            with np.load(self.path / name, allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise RunDirectoryError(f"{self.path / name} cannot be read ({error}): give the path of a run directory.") from error

    def _replace(self, name: str, write: Callable[[Path], object]) -> None:
        target = self.path / name
        scratch = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(exist_ok=True)
            write(scratch)
            with scratch.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(scratch, target)
        except (OSError, pl.exceptions.PolarsError) as error:
            scratch.unlink(missing_ok=True)
            raise RunDirectoryError(f"{target} cannot be written ({error}): make room or give a log_path on another disk.") from error

    def write_figure(self, name: str, chart: Any) -> None:
        """Writes an altair chart as figures/<name>.png and .svg."""
        self._replace(f"figures/{name}.svg", lambda path: chart.save(str(path), format="svg"))
        self._replace(f"figures/{name}.png", lambda path: chart.save(str(path), format="png", scale_factor=2))

    def read_json(self, name: str) -> dict[str, Any]:
        """Reads a JSON file.

        Raises:
            RunDirectoryError: if it is missing or damaged.
        """
        try:
            content: dict[str, Any] = json.loads((self.path / name).read_text())
        except (OSError, ValueError) as error:
            raise RunDirectoryError(f"{self.path / name} cannot be read ({error}): give the path of a run directory.") from error
        return content

    def read_manifest(self) -> dict[str, Any]:
        """Reads manifest.json.

        Raises:
            RunDirectoryError: if it is missing, damaged or of another schema.
        """
        manifest = self.read_json(MANIFEST)
        if manifest.get("schema") != SCHEMA:
            raise RunDirectoryError(
                f"{self.path / MANIFEST} has schema {manifest.get('schema')}, and this version reads {SCHEMA}: use the version of memory-rl that wrote it."
            )
        return manifest

    def read_frame(self, name: str) -> pl.DataFrame:
        """Reads a Parquet file.

        Raises:
            RunDirectoryError: if it is missing or damaged.
        """
        try:
            return pl.read_parquet(self.path / name)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise RunDirectoryError(f"{self.path / name} cannot be read ({error}): give the path of a run directory.") from error


def _new_path(name: str) -> Path:
    stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    for attempt in range(1, 1000):
        path = Path("runs") / (stem if attempt == 1 else f"{stem}-{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RunDirectoryError(f"{path} cannot be made ({error.strerror}): give a log_path that can be written.") from error
        return path
    raise RunDirectoryError(f"runs/{stem} and all its neighbours are taken: give a log_path.")
