"""A sweep's directory: on this machine, or at any URL that fsspec can write.

    sweep.json       what was asked for: protocol, command line, cells; written before the first run
    protocol.yaml    the protocol's very bytes, where there is one
    cells/<id>/      a run directory for each cell
    tuning/<id>/     run directories of tuning, which are never reported as results
    discarded/       run directories that could not be finished, set aside
    summary.json     results.csv     ranking.csv, where there are several learners

Every file appears whole or not at all, and a run directory's manifest comes last, so that a cell which is
completed is all there.
"""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from memory_rl.errors import RunDirectoryError
from memory_rl.files import Json, from_json, to_json, write_whole
from memory_rl.runs.lock import LOCK, Lock
from memory_rl.runs.shape import SUMMARY as SHAPE
from memory_rl.runs.shape import SWEPT, problem
from memory_rl.runs.store import MANIFEST, SUMMARY

SWEEP, PROTOCOL, RESULTS, RANKING = "sweep.json", "protocol.yaml", "results.csv", "ranking.csv"
CELLS, TUNING, DISCARDED = "cells", "tuning", "discarded"


class SweepDirectory:
    """Reads and writes a sweep's directory.

    Args:
        location: a path, or a URL such as s3://bucket/sweep. Paths that lead to one folder, and their file://
            URLs, are one place.

    Attributes:
        local: the path, where it is on this machine.

    Raises:
        RunDirectoryError: if the URL's file system is unknown or not installed.
    """

    def __init__(self, location: str) -> None:
        self.location = location.rstrip("/")
        try:
            self._files, root = fsspec.url_to_fs(location)
        except (ImportError, OSError, ValueError) as error:
            raise RunDirectoryError(
                f"log_path={location} cannot be written ({error}): give a path, or a URL that fsspec knows."
            ) from error
        self._root = str(root).rstrip("/")
        self.local = Path(self._root) if isinstance(self._files, LocalFileSystem) else None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def read_bytes(self, name: str) -> bytes | None:
        """A file's content, or None if there is no such file."""
        try:
            content: bytes = self._files.cat_file(self._path(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise RunDirectoryError(
                f"{self.location}/{name} cannot be read ({error}): give another log_path."
            ) from error
        return content

    def read_json(self, name: str) -> Json | None:
        """A JSON file's content, or None if it is missing or damaged."""
        content = self.read_bytes(name)
        try:
            return None if content is None else from_json(content)
        except ValueError:
            return None

    def record(self) -> Json:
        """What sweep.json says; nothing if there is none.

        Raises:
            RunDirectoryError: if it is damaged.
        """
        if self.read_bytes(SWEEP) is None:
            return {}
        record = self.read_json(SWEEP) or {"cells": None}
        listed = [record.get(name, []) for name in ("cells", "tuning_cells")]
        if any(
            not isinstance(cells, list) or any(problem(cell, SWEPT) for cell in cells) for cells in listed
        ):
            raise RunDirectoryError(
                f"{self.location}/{SWEEP} is damaged: restore it, or give another log_path."
            )
        return record

    def write_bytes(self, name: str, content: bytes) -> None:
        """Writes a file whole."""
        try:
            if self.local is not None:
                write_whole(Path(self._path(name)), content)
            else:
                self._write_elsewhere(self._path(name), content)
        except OSError as error:
            raise RunDirectoryError(
                f"{self.location}/{name} cannot be written ({error}): make room or give another log_path."
            ) from error

    def _write_elsewhere(self, target: str, content: bytes) -> None:
        folder, _, last = target.rpartition("/")
        scratch = f"{folder}/.{last}.part"
        self._files.makedirs(folder, exist_ok=True)
        try:
            self._files.pipe_file(scratch, content)
            self._files.mv(scratch, target)
        except OSError:
            with suppress(OSError):
                self._files.rm(scratch)
            raise

    def write_json(self, name: str, content: Json) -> None:
        """Writes a JSON file whole."""
        self.write_bytes(name, (to_json(content, indent=2) + "\n").encode())

    def names(self, folder: str = "") -> list[str]:
        """What lies in a folder, sorted; nothing if there is no such folder."""
        try:
            found = self._files.ls(self._path(folder).rstrip("/"), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise RunDirectoryError(
                f"log_path={self.location} cannot be read ({error.strerror}): give another log_path."
            ) from error
        return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found)

    def summary(self, folder: str) -> Json | None:
        """The summary of the one condition of the cell in a folder, if that is complete.

        It is if its manifest says so and its summary is there.
        """
        manifest, content = (self.read_json(f"{folder}/{name}") for name in (MANIFEST, SUMMARY))
        if not (manifest and content and manifest.get("status") == "completed"):
            return None
        conditions = content.get("conditions")
        found = next(iter(conditions.values()), None) if isinstance(conditions, dict) else None
        return None if problem(found, SHAPE) else found

    def files(self, folder: str) -> dict[str, bytes]:
        """All files below a folder, by their names in it."""
        top = self._path(folder)
        found = {} if not self._files.exists(top) else self._files.find(top)
        return {str(path)[len(top) :].lstrip("/"): self._files.cat_file(path) for path in found}

    def commit(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Writes a run directory that was made elsewhere, its manifest last."""
        for name in sorted(files, key=lambda name: name == MANIFEST):
            self.write_bytes(f"{folder}/{name}", files[name])

    def set_aside(self, folder: str) -> None:
        """Moves an unfinished cell, if there is one, to discarded/: nothing that was measured is deleted."""
        if not self.names(folder):
            return
        taken, name = self.names(DISCARDED), folder.rpartition("/")[2]
        places = (f"{name}-{number}" for number in itertools.count(1))
        place = next(place for place in places if place not in taken)
        try:
            self._files.makedirs(self._path(DISCARDED), exist_ok=True)
            self._files.mv(self._path(folder), self._path(f"{DISCARDED}/{place}"), recursive=True)
        except OSError as error:
            raise RunDirectoryError(
                f"{self.location}/{folder} cannot be set aside ({error}): move it away by hand."
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other sweeps out of the directory until the block, or the process, ends.

        Raises:
            RunDirectoryError: if another sweep is in it, or it cannot be written. At a URL only the sweeps of
                this machine are kept out.
        """
        try:
            if self.local is not None:
                self.local.mkdir(parents=True, exist_ok=True)
            lock = Lock(self._lock_file())
        except BlockingIOError:
            raise RunDirectoryError(
                f"log_path={self.location} is in use by another sweep: "
                "wait for its end, or give another log_path."
            ) from None
        except OSError as error:
            raise RunDirectoryError(
                f"log_path={self.location} cannot be written ({error.strerror}): give another log_path."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _lock_file(self) -> Path:
        if self.local is not None:
            return self.local / LOCK
        place = self._files.to_json(include_password=False) + self._files.unstrip_protocol(self._root)
        name = hashlib.sha256(place.encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"memory-rl-{name}.lock"


def refuse_foreign(directory: SweepDirectory) -> None:
    """Leaves a directory alone that holds something else than a sweep.

    Raises:
        RunDirectoryError: if it does.
    """
    names = [name for name in directory.names() if not name.startswith(".")]
    if not names or SWEEP in names:
        return
    where = f"log_path={directory.location} already holds"
    if MANIFEST in names:
        raise RunDirectoryError(f"{where} a run: give the path of a sweep, or a new one.")
    raise RunDirectoryError(f"{where} other files ({names[0]}): give an empty or new log_path.")
