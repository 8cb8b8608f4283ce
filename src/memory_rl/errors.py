"""The errors that users may see: each message is one sentence with the key, the value and what to type.

The command line turns every `MemoryRLError` into that sentence and exit code 2; anything else is a bug and
keeps its traceback.
"""

from __future__ import annotations

import difflib
import importlib.util
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

UNPRINTABLE = re.compile(r"[\0-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, line breaks among them, and bytes that are no text."""

_VERY_LONG = 2000  # characters of a sentence


class MemoryRLError(Exception):
    """Bad input or a bad place to write, found before any work, or what stopped an experiment afterwards."""

    def __str__(self) -> str:
        """The sentence on one line, whatever it quotes; the middle of a very long one is left out."""
        text = UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], super().__str__())
        return text if len(text) <= _VERY_LONG else f"{text[: _VERY_LONG // 2]}...{text[-_VERY_LONG // 2 :]}"


class ConfigError(MemoryRLError, ValueError):
    """A configuration key or value that cannot be run."""


class MissingLibraryError(ConfigError, ModuleNotFoundError):
    """An optional library that is not installed."""


class DataError(MemoryRLError, ValueError):
    """Supervised data that is missing, malformed or made for another experiment."""


class ModelError(MemoryRLError, ValueError):
    """A model or tokenizer that cannot be found or cannot write the answers."""


class RunDirectoryError(MemoryRLError, OSError):
    """A run directory that cannot be read, or that would be overwritten."""


class ServiceError(MemoryRLError, OSError):
    """A service that refuses, does not answer or fails."""


class DivergedError(MemoryRLError, ArithmeticError):
    """An experiment that failed because numbers of one of its runs are no longer finite."""


class NotFiniteError(Exception):
    """Numbers of a run are no longer finite, found by those who know no key; becomes a `DivergedError`.

    Args:
        run: which one; None for one of several.
        update: the optimiser step at which it was found, 0 for none.
        what: as the start of a sentence, "parameters are", "probabilities are" or "loss is".
    """

    def __init__(self, run: int | None, update: int, what: str) -> None:
        super().__init__(f"{what} not finite, of run {run} at update {update}")
        self.run, self.update, self.what = run, update, what


class TokensSpentError(Exception):
    """The next update might spend more tokens than allowed; the experiment ends cleanly before it."""


class MemoryRLWarning(RuntimeWarning):
    """One sentence about what a user should know of; the command line shows it like an error."""


class LawBreachWarning(MemoryRLWarning):
    """A measurement breaks a law of information theory: there is a bug, or the secret leaks."""


class TrackerWarning(MemoryRLWarning):
    """A tracker failed; what is measured is not affected."""


class LockWarning(MemoryRLWarning):
    """A file system has no locks, so that two processes may write to one directory."""


class DamageWarning(MemoryRLWarning):
    """A run directory is damaged; what looks at many of them leaves it out and says so."""


class CacheWarning(MemoryRLWarning):
    """A warmed-up base model cannot be cached; what is measured is not affected."""


def suggest(wrong: str, valid: Iterable[str]) -> str:
    """Ends a sentence about an unknown name: the one that was meant, or all of them if they are few."""
    names = list(valid)
    meant = [
        *(name for name in names if name.lower() == wrong.lower()),
        *_MEANT.get(wrong.lower(), "").split(),
        *(name for name in names if sorted(name) == sorted(wrong)),  # gpro is grpo, and not gspo
    ]
    meant += difflib.get_close_matches(wrong, names, n=1, cutoff=0.7)
    meant += [name for name in names if len(wrong) > 3 and (wrong in name or name in wrong)]
    close = next((name for name in meant if name in names), None)
    if close is not None:
        return f"did you mean {close}?"
    return f"use one of {', '.join(names)}." if len(names) <= _FEW else "--help lists them."


def check_name(word: str, given: Any, built_in: Iterable[str]) -> None:
    """Raises a ConfigError if a text is neither a built-in name nor a reference `file.py:Name`."""
    if isinstance(given, str) and given not in built_in and ":" not in given:
        raise ConfigError(f"{word}={given} is not a choice: {suggest(given, [*built_in, 'file.py:Name'])}")


_FEW = 16
_LONGEST = 160  # characters of somebody else's text
_MEANT = {
    "lr": "learning_rate",
    "gpu": "cuda",
    "model": "model_name",
    "rank": "lora_rank",
    "alpha": "lora_alpha",
    "optimizer": "optimiser",
    "budget": "max_episodes",
    "episodes": "max_episodes",
    "steps": "max_episodes",
    "runs": "num_runs",
    "secrets": "num_secrets",
    "secret": "fixed_secret",
    "reward": "reward_type",
    "bins": "reward_bins",
    "noise": "reward_noise",
    "epochs": "ppo_epochs",
    "clip": "ppo_clip",
    "batch": "batch_size",
    "env": "env_type",
    "output": "log_path out",
    "debug": "verbose",
}
"""What people who know other tools type, and the names that they may mean."""


def is_installed(library: str) -> bool:
    """Whether a library can be imported, which a mere folder such as wandb/ of earlier runs cannot."""
    found = importlib.util.find_spec(library)
    return found is not None and found.origin is not None


def require(library: str, extra: str, what: str) -> None:
    """Checks that an optional library is installed.

    Args:
        library: its name, as it is imported.
        extra: the extra of this package that installs it.
        what: what needs it, at the start of the sentence.

    Raises:
        MissingLibraryError: what to install.
    """
    if not is_installed(library):
        raise MissingLibraryError(
            f"{what} needs {library}, which is not installed: type pip install 'memory-rl[{extra}]'."
        )


def first_few(names: Sequence[str], most: int = 6) -> str:
    """The first few of some names and how many more there are, as words: "a, b and 3 more"."""
    more = [f"{len(names) - most} more"] if len(names) > most else []
    *before, last = [*names[:most], *more]
    return " and ".join([", ".join(before), last] if before else [last])


def one_line(text: str) -> str:
    """A text as it fits into a sentence: short, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."


@contextmanager
def hushed(library: str, level: int = logging.CRITICAL) -> Iterator[None]:
    """Keeps a library from logging below a level, such as each of its tries; what it raises is raised."""
    logger = logging.getLogger(library)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
