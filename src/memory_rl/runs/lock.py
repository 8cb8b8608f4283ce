"""A lock that a process holds on a run directory, and that the system takes from it however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

LOCK = ".lock"

_TRIES, _SECONDS_BETWEEN = 3, 0.05  # someone who only looks holds it for a moment


class Lock:
    """The lock of one folder. Where the file system knows none, it is held in name only.

    Args:
        folder: must exist.

    Raises:
        BlockingIOError: if another process, or another part of this one, holds it.
        OSError: if its file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        for attempt in range(_TRIES):
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if _lock(self._descriptor, fcntl.LOCK_EX) and self._is_in_place():
                return
            os.close(self._descriptor)
            if attempt + 1 < _TRIES:
                time.sleep(_SECONDS_BETWEEN)
        raise BlockingIOError(f"{self._path} is held")

    def _is_in_place(self) -> bool:
        """Whether the file was not removed, by its last holder, between opening and locking it."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Gives it up, and leaves no file."""
        with suppress(OSError):
            self._path.unlink()
        os.close(self._descriptor)


def is_locked(folder: Path) -> bool:
    """Whether a process of this machine, or of a file system that knows locks, is at work in the folder."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True
