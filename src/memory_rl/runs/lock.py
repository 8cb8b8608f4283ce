"""A lock that a process holds on a directory, and that the system takes from it however it ends."""

from __future__ import annotations

import errno
import fcntl
import warnings
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from memory_rl.errors import LockWarning

LOCK = ".lock"

_SECONDS = 0.1  # someone who only looks holds it for a moment
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class Lock:
    """A lock file, locked. On a file system without locks it warns and keeps nobody out.

    Args:
        path: of the file; its folder must exist.

    Raises:
        BlockingIOError: if another process, or another part of this one, holds it.
        OSError: if the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = FileLock(path, timeout=_SECONDS, fallback_to_soft=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise BlockingIOError(f"{path} is held") from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            warnings.warn(
                f"{path.parent} is on a file system without locks, which keep a second process out: "
                "see to it that none is started there.",
                LockWarning,
                stacklevel=2,
            )

    def release(self) -> None:
        """Gives it up, and leaves no file."""
        with suppress(OSError):
            self._path.unlink()
        with suppress(OSError):  # what the lock kept is written, and the process's end frees it at the latest
            self._lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a process is at work in the folder; looking needs no right to write, and changes nothing."""
    try:
        with (folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file, or a file system without locks
        pass
    return False
