"""The errors a user may meet: each message is one sentence that names the key, the value and what to type
instead.

The command line turns every `MemoryRLError` into that sentence and exit code 2; anything else is a bug and
keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MemoryRLError(Exception):
    """Bad input or a bad place to write, found before any work was done."""


class ConfigError(MemoryRLError, ValueError):
    """A configuration key or value that cannot be run."""


class DataError(MemoryRLError, ValueError):
    """Supervised data that is missing, malformed or made for another experiment."""


class ModelError(MemoryRLError, ValueError):
    """A model or tokenizer that cannot be found or cannot write the answers."""


class RunDirectoryError(MemoryRLError, OSError):
    """A run directory that cannot be read, or that would be overwritten."""


class ServiceError(MemoryRLError, OSError):
    """A service that refuses, does not answer or fails."""


class TokensSpentError(Exception):
    """The next update might spend more tokens than are allowed; the experiment ends in good order before
    it.
    """


class LawBreachWarning(RuntimeWarning):
    """A measurement breaks a law of information theory: there is a bug, or the secret leaks."""


class TrackerWarning(RuntimeWarning):
    """A tracker failed; what is measured does not suffer."""


def suggest(wrong: str, valid: Iterable[str]) -> str:
    """Ends a sentence about an unknown name: the closest valid one, or all of them."""
    names = list(valid)
    close = difflib.get_close_matches(wrong, names, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"use one of {', '.join(names)}."
