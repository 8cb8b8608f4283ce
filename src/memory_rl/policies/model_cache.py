"""Base models that were made here, kept in the user's cache: used when whole, never required."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load, save

from memory_rl.errors import CacheWarning, one_line
from memory_rl.files import read_json

_WEIGHTS = "model.safetensors"
Report = TypeVar("Report")


def cache_directory() -> Path:
    """Where base models are kept: MEMORY_RL_CACHE, or the user's cache directory."""
    import platformdirs  # here, since only those who warm a model up through the cache need it

    try:
        of_user = platformdirs.user_cache_dir("memory-rl", appauthor=False)
    except RuntimeError:  # of a user without a home, as in some containers
        of_user = "~/.cache/memory-rl"
    return Path(os.environ.get("MEMORY_RL_CACHE") or of_user)


def read_cache(
    folder: Path, made_by: str, report_of: Callable[..., Report]
) -> tuple[Report, dict[str, torch.Tensor]] | None:
    """What `write_cache` left there; None if that is missing, damaged or foreign.

    Args:
        folder: of one model.
        made_by: what made it, such as "warmup", which names the file of the report.
        report_of: makes the report from its values.
    """
    try:
        folder = folder.expanduser()
        weights, about = folder / _WEIGHTS, folder / f"{made_by}.json"
        if not (weights.is_file() and about.is_file()):  # a pipe would be waited for
            return None
        record = read_json(about)
        size = weights.stat().st_size
        if size != record.get("bytes", size):  # more than there is memory for, perhaps
            return None
        content = weights.read_bytes()
        if hashlib.sha256(content).hexdigest() != record["sha256"]:
            return None
        return report_of(**record["report"]), load(content)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError):
        return None  # missing, damaged or foreign: rebuilt


def write_cache(
    tensors: Mapping[str, torch.Tensor], folder: Path, made_by: str, report: Mapping[str, Any]
) -> None:
    """Each file appears whole or not at all; the record comes last. What cannot be written is a warning."""
    content = save(dict(tensors))
    digest = hashlib.sha256(content).hexdigest()
    record = {"sha256": digest, "bytes": len(content), "report": dict(report)}
    try:
        folder = folder.expanduser()  # of a user without a home a RuntimeError
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            for name, written in ((_WEIGHTS, content), (f"{made_by}.json", json.dumps(record).encode())):
                (Path(scratch) / name).write_bytes(written)
                os.replace(Path(scratch) / name, folder / name)
    except (OSError, RuntimeError) as error:
        warnings.warn(
            f"the base model cannot be cached in {folder} ({one_line(str(error))}) and will be "
            "made anew next time: set MEMORY_RL_CACHE to a folder that can be written.",
            CacheWarning,
            stacklevel=3,
        )


@contextmanager
def made_once(folder: Path) -> Iterator[None]:
    """Within, no other process makes the same model; where there can be no lock, each makes its own."""
    lock = None
    try:
        place = folder.expanduser()
        place.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place / ".lock", fallback_to_soft=False)
        lock.acquire()
    except (OSError, RuntimeError):  # read-only, of a user without a home, or without locks
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
