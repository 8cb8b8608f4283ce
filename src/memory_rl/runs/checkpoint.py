"""Checkpoints: everything that a run needs to continue to the same bytes, in files that anyone can read.

    checkpoint/<number>/
      adapters/run-<i>/     what a run of a transformer has trained, as PEFT loads it (as transformers does,
                            with adapter=full)
      state.safetensors     arrays: optimiser moments, what the observers believe, what was last measured
      state.json            the tree of the state: numbers, random streams, and where arrays and tables are
      metrics.parquet       the tables so far; also episodes, timing and, if there is one, film
      checkpoint.json       size and SHA-256 of each file; written last

A checkpoint gets its name when all its files are on disk, and the one before is removed after that. No pickle
is written or read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from memory_rl.errors import RunDirectoryError
from memory_rl.files import Json, failures, flush, parse_json, read_frame, read_json, write_frame
from memory_rl.state import SavedModel, State

CHECKPOINT = "checkpoint"

_SCHEMA = 2  # raised when a state changes its meaning
_INDEX, _ARRAYS, _TREE = "checkpoint.json", "state.safetensors", "state.json"
_SCRATCH = ".next"
_SECONDS = 60.0
_TIMES_THE_COST = 100.0


class Checkpoints:
    """The checkpoints of one run directory, of which the last one counts.

    Args:
        folder: the run directory.
        every: seconds from one to the next; 0 for one after each update. None: 60, or more where writing one
            takes more than 0.6.
    """

    def __init__(self, folder: Path, every: float | None = None) -> None:
        self.path = folder / CHECKPOINT
        self._every, self._cost = every, 0.0
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time for the next."""
        wait = max(_SECONDS, _TIMES_THE_COST * self._cost) if self._every is None else self._every
        return time.monotonic() - self._last >= wait

    def write(self, make_state: Callable[[], State]) -> None:
        """Writes a checkpoint.

        Args:
            make_state: gives the state; what that takes is part of the cost.

        Raises:
            RunDirectoryError: if it cannot be written; the one before is left as it is.
        """
        started = time.monotonic()
        number, scratch = self._newest() + 1, self.path / _SCRATCH
        try:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            _write_all(scratch, make_state())
            os.replace(scratch, self.path / str(number))
            flush(self.path)
        except failures() as error:
            shutil.rmtree(scratch, ignore_errors=True)
            raise RunDirectoryError(
                f"{self.path} cannot be written ({error}): make room, then continue with resume=True."
            ) from error
        for old in self._numbers():
            if old < number:
                shutil.rmtree(self.path / str(old), ignore_errors=True)
        self._last = time.monotonic()
        self._cost = self._last - started

    def read(self) -> State | None:
        """The state of the last checkpoint; None if there is none.

        Raises:
            RunDirectoryError: if it is damaged or of another version.
        """
        number = self._newest()
        if number == 0:
            return None
        folder = self.path / str(number)
        try:
            return _read_all(folder)
        except failures(ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunDirectoryError(
                f"{folder} is damaged or of another version ({error}): "
                f"remove {self.path} to start over there, or give another log_path."
            ) from error

    def remove(self) -> None:
        """Removes them all, when they are no longer needed."""
        with suppress(OSError):
            shutil.rmtree(self.path)

    def _newest(self) -> int:
        return max(self._numbers(), default=0)

    def _numbers(self) -> list[int]:
        names = [folder.name for folder in self.path.glob("[0-9]*")]
        return [int(name) for name in names if name.isdecimal()]


def write_tensors(tensors: Mapping[str, np.ndarray], file: Path) -> None:
    """Writes arrays as a safetensors file that PyTorch's libraries take for their own."""
    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    save_file(contiguous, file, {"format": "pt"})


def _write_all(folder: Path, state: State) -> None:
    arrays: dict[str, np.ndarray] = {}
    tree = _put(folder, state, "", arrays)
    write_tensors(arrays, folder / _ARRAYS)
    (folder / _TREE).write_text(json.dumps(tree), encoding="utf-8")
    paths = sorted(folder.rglob("*"))
    for path in paths:
        flush(path)
    files = {path.relative_to(folder).as_posix(): _fingerprint(path) for path in paths if path.is_file()}
    index = json.dumps({"schema": _SCHEMA, "files": files}, indent=2) + "\n"
    (folder / _INDEX).write_text(index, encoding="utf-8")
    flush(folder / _INDEX)
    flush(folder)


def _put(folder: Path, value: Any, place: str, arrays: dict[str, np.ndarray]) -> Any:
    """The tree as JSON can hold it, with a reference where a leaf went to a file of its own."""
    name = place.rpartition("/")[2]
    if isinstance(value, dict):
        return {key: _put(folder, part, f"{place}/{key}".lstrip("/"), arrays) for key, part in value.items()}
    if isinstance(value, list):
        return [_put(folder, part, f"{place}/{number}", arrays) for number, part in enumerate(value)]
    if isinstance(value, np.ndarray):
        arrays[place] = value
        return {"$array": place}
    if isinstance(value, pl.DataFrame):
        write_frame(value, folder / f"{name}.parquet")
        return {"$table": f"{name}.parquet"}
    if isinstance(value, SavedModel):
        config, tensors = value.files
        target = folder / "adapters" / name
        target.mkdir(parents=True)
        (target / config).write_text(json.dumps(value.config, indent=2) + "\n", encoding="utf-8")
        write_tensors(value.tensors, target / tensors)
        return {"$adapter": f"adapters/{name}", "whole": value.whole}
    return value


def _read_all(folder: Path) -> State:
    index = read_json(folder / _INDEX)
    if index["schema"] != _SCHEMA:
        raise ValueError(f"its schema is {index['schema']}, and this version reads {_SCHEMA}")
    for name, fingerprint in index["files"].items():
        if _fingerprint(folder / name) != fingerprint:
            raise ValueError(f"{name} is not as it was written")
    arrays = load_file(folder / _ARRAYS)
    text = (folder / _TREE).read_text(encoding="utf-8")
    tree: State = parse_json(text, object_hook=partial(_get, folder, arrays))
    return tree


def _get(folder: Path, arrays: Mapping[str, np.ndarray], found: Json) -> Any:
    """A leaf that went to a file of its own, from its reference; a branch as it is."""
    if "$array" in found:
        return arrays[found["$array"]]
    if "$table" in found:
        return read_frame(folder / found["$table"])
    if "$adapter" in found:
        config, tensors = (
            folder / found["$adapter"] / name for name in SavedModel({}, {}, found["whole"]).files
        )
        return SavedModel(read_json(config), load_file(tensors), found["whole"])
    return found


def _fingerprint(file: Path) -> Json:
    with file.open("rb") as stream:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
