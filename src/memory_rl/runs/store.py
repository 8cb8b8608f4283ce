"""The files of a run directory: each appears whole or not at all.

No run overwrites what another measured. metrics.parquet holds only what the configuration and the seed
determine, so that two runs of the same experiment give the same bytes; wall-clock times are kept apart, in
timing.parquet.
"""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from memory_rl.errors import ConfigError, RunDirectoryError
from memory_rl.experiment import Experiment, old_experiment
from memory_rl.files import Json, is_leftover, read_frame, read_json, to_json, write_frame, write_whole
from memory_rl.runs.checkpoint import write_tensors
from memory_rl.runs.lock import LOCK, Lock, is_locked
from memory_rl.runs.manifest import SCHEMA, first_difference
from memory_rl.runs.shape import MANIFEST as SHAPE
from memory_rl.runs.shape import check_columns, check_footer, problem
from memory_rl.state import SavedModel

T = TypeVar("T")

MANIFEST, SUMMARY = "manifest.json", "summary.json"
METRICS, EPISODES, TIMING = "metrics.parquet", "episodes.parquet", "timing.parquet"
SECRETS = "secrets.parquet"
"""What is known of each secret, where a run has several."""
USAGE = "usage.json"
"""What was asked of a service, written after each round of requests, so that no charge is forgotten."""
FILM = "film.parquet"
"""Where N is small enough to be looked at, every answer is scored, and a ledger is kept."""
CHANNEL = "channel.npz"
"""The table of a reward of the user's own: levels, classes and, if chance has a part in it, outcomes."""

KILLED = "killed"
"""What stands for "running" in a manifest that no process is at work on."""


class RunDirectory:
    """One run's directory on disk.

    Attributes:
        path: where it is.
        existing: the manifest of the run that a claimed directory already holds, to be resumed or complete.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.existing: Json | None = None
        self._lock: Lock | None = None

    @classmethod
    def claim(cls, log_path: str | None, name: str, manifest: Json, *, resume: bool = False) -> RunDirectory:
        """A directory that is this run's alone until `release`: `log_path`, or a new one under runs/.

        Args:
            log_path: None for a new directory.
            name: of the new directory.
            manifest: of the run that is about to start.
            resume: admits a run of the same configuration in `log_path`; its manifest is then in `existing`.
                A directory whose run is complete is not locked.

        Raises:
            RunDirectoryError: if `log_path` already holds another run or other files, is in use, or cannot be
                written.
        """
        directory = cls(Path(log_path) if log_path is not None else new_folder(f"runs/{name}"))
        directory._look(manifest, resume)
        if not directory.is_complete:
            directory._take()
            try:  # again: what was seen before may have changed until the lock was ours
                directory._look(manifest, resume)
            except RunDirectoryError:
                directory.release()
                raise
        return directory

    @classmethod
    def check_free(cls, log_path: str) -> None:
        """Refuses a path where a recording could not start, and touches nothing.

        Raises:
            RunDirectoryError: if there is more than an empty folder.
        """
        cls(Path(log_path))._look({"trainer": None}, resume=False)

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    @property
    def is_complete(self) -> bool:
        """Whether the run that a claimed directory holds is complete."""
        return self.existing is not None and self.existing["status"] == "completed"

    def release(self) -> None:
        """Lets others have a claimed directory."""
        if self._lock is not None:
            self._lock.release()
        self._lock = None

    def _take(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self.path / LOCK)
        except BlockingIOError:
            raise self._in_use() from None
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> RunDirectoryError:
        return RunDirectoryError(
            f"log_path={self.path} cannot be written ({error.strerror}): give another log_path."
        )

    def _in_use(self) -> RunDirectoryError:
        return RunDirectoryError(
            f"log_path={self.path} is in use by another process, which is at work on it: wait for its end, "
            "or give another log_path."
        )

    def _look(self, manifest: Json, resume: bool) -> None:
        """Refuses what is not to be touched, and touches nothing."""
        try:
            names = sorted(path.name for path in self.path.iterdir() if not _is_ours(path.name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unwritable(error) from error
        if names and MANIFEST not in names:
            raise RunDirectoryError(
                f"log_path={self.path} already holds other files ({names[0]}): give an empty or new log_path."
            )
        if names:
            self.existing = self.read_manifest()
            self._refuse_another(self.existing, manifest, resume)

    def _refuse_another(self, existing: Json, manifest: Json, resume: bool) -> None:
        if self._lock is None and is_locked(self.path):
            raise self._in_use()
        status = self.status(existing)
        if not resume:
            advice = (
                ", which is never overwritten: give another log_path."
                if status == "completed" or "trainer" in {**existing, **manifest}  # a recording ends for good
                else ": add resume=True to continue it, or give another log_path."
            )
            raise RunDirectoryError(f"log_path={self.path} already holds a run ({status}){advice}")
        difference = first_difference(existing, manifest)
        if difference:
            raise RunDirectoryError(f"log_path={self.path} holds another experiment: {difference}")

    def status(self, manifest: Json) -> str:
        """The status of its manifest, but `KILLED` if that says "running" and no process is at work on it."""
        status = str(manifest["status"])
        return KILLED if status == "running" and self._lock is None and not is_locked(self.path) else status

    def discard(self) -> None:
        """Removes a directory in which nothing was measured, because the run could not start."""
        (self.path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(self.path / "adapters", ignore_errors=True)  # a base model that was saved before
        self.release()
        with suppress(OSError):
            self.path.rmdir()

    def write(self, name: str, content: str | bytes | Callable[[Path], object]) -> None:
        """Writes a file whole: its content, or what writes it to the path that it is given.

        Raises:
            RunDirectoryError: if it cannot be written, as for all that follow.
        """
        try:
            write_whole(self.path / name, content)
        except OSError as error:
            raise RunDirectoryError(
                f"{self.path / name} cannot be written ({error}): "
                "make room or give a log_path on another disk."
            ) from error

    def write_json(self, name: str, content: Json) -> None:
        """Writes a JSON file whole."""
        self.write(name, to_json(content, indent=2) + "\n")

    def write_frame(self, name: str, frame: pl.DataFrame) -> None:
        """Writes a Parquet file whole."""
        self.write(name, partial(write_frame, frame))

    def write_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Writes a .npz file whole."""
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **arrays)
        self.write(name, content.getvalue())

    def write_adapters(self, adapters: Mapping[str, SavedModel], base: Json | None = None) -> None:
        """Writes adapters/<name>/ for each, whole, as PEFT loads it, or transformers.

        Args:
            adapters: by name.
            base: of adapters/base.json: the model that they belong to.
        """
        for name, adapter in adapters.items():
            config, tensors = adapter.files
            about = dict(adapter.config)
            if base is not None and not adapter.whole:
                about["base_model_name_or_path"] = base["base_model_name_or_path"]
            self.write_json(f"adapters/{name}/{config}", about)
            self.write(f"adapters/{name}/{tensors}", partial(write_tensors, adapter.tensors))
        if base is not None:
            self.write_json("adapters/base.json", base)

    def read_json(self, name: str) -> Json:
        """Reads a JSON file.

        Raises:
            RunDirectoryError: if it is missing or damaged, as for `read_frame` and `read_arrays`.
        """
        return self._read(name, read_json)

    def read_frame(
        self, name: str, schema: Mapping[str, Any] | None = None, full: Sequence[str] = ()
    ) -> pl.DataFrame:
        """Reads a Parquet file.

        Args:
            name: of the file.
            schema: columns that it must have; None for any.
            full: those of them that must hold a number in every row, of which there must then be one.
        """
        return self._read(name, lambda path: check_columns(read_frame(path), schema or {}, full))

    def check_footer(self, name: str, schema: Mapping[str, Any]) -> None:
        """Looks whether a Parquet file ends as it should, and has these columns; reads no more of it."""
        self._read(name, lambda path: check_footer(path, schema))

    def read_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Reads a .npz file; it may hold numbers alone."""
        return self._read(name, _load_arrays)

    def _read(self, name: str, read: Callable[[Path], T]) -> T:
        try:
            return read(self.path / name)
        except FileNotFoundError as error:
            raise RunDirectoryError(
                f"{self.path / name} cannot be read, since it is missing: restore it, or run it again."
            ) from error
        except (OSError, ValueError, pl.exceptions.PolarsError, zipfile.BadZipFile) as error:
            raise RunDirectoryError(
                f"{self.path / name} cannot be read ({error}): restore it, or run the experiment again."
            ) from error

    def read_manifest(self) -> Json:
        """Reads manifest.json.

        Raises:
            RunDirectoryError: if it is missing, damaged or of another schema.
        """
        manifest = self.read_json(MANIFEST)
        if "schema" not in manifest:
            raise RunDirectoryError(
                f"{self.path / MANIFEST} is not a manifest of memory-rl: give the path of a run directory."
            )
        if manifest["schema"] != SCHEMA:
            raise RunDirectoryError(
                f"{self.path / MANIFEST} has schema {manifest['schema']}, and this version reads {SCHEMA}: "
                "use the version of memory-rl that wrote it."
            )
        wrong = problem(manifest, SHAPE)
        if wrong:
            raise RunDirectoryError(
                f"{self.path / MANIFEST} is damaged, since {wrong}: restore it, or give another path."
            )
        return manifest


def experiment_of(path: Path, manifest: Json) -> Experiment:
    """What was run in a run directory; raises a RunDirectoryError if this version can make no sense of it."""
    try:
        return old_experiment(manifest)
    except ConfigError as error:
        raise RunDirectoryError(f"{path / MANIFEST} is of no experiment, since {error}") from error


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _is_ours(name: str) -> bool:
    """Whether it is a lock or an unfinished file, which a killed process may have left behind."""
    return name == LOCK or is_leftover(name)


def new_folder(stem: str) -> Path:
    """Makes a folder of this name and the time.

    Raises:
        RunDirectoryError: if it cannot be made.
    """
    stem = f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    for attempt in range(1, 1000):
        path = Path(stem if attempt == 1 else f"{stem}-{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RunDirectoryError(
                f"{path} cannot be made ({error.strerror}): give a log_path that can be written."
            ) from error
        return path
    raise RunDirectoryError(f"{stem} and all its neighbours are taken: give a log_path.")
