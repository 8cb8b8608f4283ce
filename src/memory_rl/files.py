"""Files that appear whole or not at all, and the hashes of large ones."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
from safetensors import SafetensorError

Json = dict[str, Any]
"""What a JSON file holds, or a part of it: a manifest, a summary, a row, a configuration."""

FAILURES = (OSError, SafetensorError, pl.exceptions.PolarsError)
"""What writing and reading raise where the disk or the file is to blame."""


def parse_json(text: str | bytes, **options: Any) -> Any:
    """What JSON holds.

    Args:
        text: in JSON.
        options: of `json.loads`.

    Raises:
        ValueError: if it is none, or nested too deeply to be read.
    """
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_whole(path: Path, content: str | bytes | Callable[[Path], object]) -> None:
    """Writes a file, and its folder if that is missing; it is on disk when this returns.

    Args:
        path: of the file; what is there is replaced.
        content: of the file, or a function that writes it to a given path.

    Raises:
        OSError: if it cannot be written; nothing has changed then.
    """
    scratch = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(scratch)
        else:
            scratch.write_bytes(content.encode() if isinstance(content, str) else content)
        flush(scratch)
        os.replace(scratch, path)
    except (SafetensorError, pl.exceptions.PolarsError) as error:
        raise OSError(str(error)) from error
    finally:
        with suppress(OSError):
            scratch.unlink()


def flush(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, which is read once for each of its states: a sweep asks again and again."""
    state = path.stat()
    return _sha256(str(path), state.st_ino, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _sha256(path: str, *_state: int) -> str:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
