"""What a user's own learner keeps: whether a checkpoint holds it, and whether that is all it needs.

docs/own_learner.md says what may be kept.
"""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np

from memory_rl.errors import ConfigError, one_line
from memory_rl.learning.batch import Batch
from memory_rl.state import Stateful

if TYPE_CHECKING:
    from memory_rl.learning.learners import Learner

_LARGEST_ITEM = 8  # bytes of a number in safetensors
_INSTEAD: dict[type, str] = {
    tuple: "a list",
    set: "a list",
    frozenset: "a list",
    dict: "text without / or a leading $ as its keys",
    list: "a list of such things",
}
_ANYTHING = "an array of numbers, a number, text, None, a random generator, or a list or dict of these"


class Notes:
    """A policy that only notes how it was to be moved.

    Attributes:
        moves: advantages and beliefs, in turn.
        largest: of all advantages; infinite once a belief was given.
    """

    def __init__(self) -> None:
        self.moves: list[np.ndarray] = []
        self.largest = 0.0

    def update(self, batch: Batch, advantages: np.ndarray, learner: Learner) -> None:
        """Notes the advantages."""
        self.moves.append(np.array(advantages))
        self.largest = max(self.largest, float(np.abs(advantages).max(initial=0.0)))

    def distil(self, runs: np.ndarray, prompts: np.ndarray, beliefs: Any, epochs: int) -> None:
        """Notes the beliefs."""
        self.moves.append(np.array(beliefs, dtype=np.float64))
        self.largest = np.inf


def check_names_kept(learner: Learner, name: str) -> None:
    """Refuses a `kept` that is no tuple of names.

    Raises:
        ConfigError: one sentence.
    """
    kept = learner.kept
    if not isinstance(kept, tuple) or not all(isinstance(one, str) and one for one in kept):
        example = kept if isinstance(kept, str) and kept else "mean"
        raise ConfigError(f'{name} has kept={kept!r}: use a tuple of names, as in kept = ("{example}",).')
    short = [one.lstrip("_") for one in kept]
    for one in kept:
        if short.count(one.lstrip("_")) > 1:
            raise ConfigError(
                f"{name} keeps two attributes called {one.lstrip('_')} but for leading underscores "
                "or keeps it twice: name each once, and differently."
            )


def check_memory(started: Learner, batches: list[Batch], name: str) -> None:
    """Checks that a learner comes back from a checkpoint, at its start and after learning.

    Args:
        started: as it stands before its first update; it is not changed.
        batches: of its first updates, two or more.
        name: what was typed.

    Raises:
        ConfigError: one sentence about the first attribute that is not as it was, or about a learner that
            learns otherwise once it is resumed.
    """
    for attribute in started.kept:
        if not hasattr(started, attribute):
            raise ConfigError(
                f"{name} keeps {attribute}, which it does not have once it is started: "
                f"set self.{attribute} in start."
            )
    _resumed(started, started, name)
    going = deepcopy(started)
    for batch in batches[:-1]:
        if _moves_of(going, batch) is None:
            return
    resumed = _resumed(going, started, name)
    changed = [one for one in vars(going) if not _same(vars(going)[one], vars(started).get(one))]
    again, after = _moves_of(going, batches[-1]), _moves_of(resumed, batches[-1])
    if not _same(again, after):
        missing = ", ".join(one for one in changed if one not in started.kept) or "what its learn changes"
        raise ConfigError(
            f"{name} would learn otherwise once it is resumed, since it does not keep {missing}: "
            "name in kept what later updates need."
        )


def _moves_of(learner: Learner, batch: Batch) -> list[np.ndarray] | None:
    """How it would move a policy; None if it needs more of one than notes can give."""
    notes = Notes()
    try:
        learner.learn(notes, deepcopy(batch))
    except (Exception, SystemExit):
        return None
    return notes.moves


def _resumed(learner: Learner, started: Learner, name: str) -> Learner:
    """One that was started alike and has been restored from what the learner keeps."""
    resumed = deepcopy(started)
    for attribute in learner.kept:
        value = getattr(learner, attribute)
        unfit = _unfit(value)
        if unfit is not None:
            raise ConfigError(
                f"{name} keeps {attribute} with {_shown(unfit)}, which no checkpoint holds: "
                f"use {_INSTEAD.get(type(unfit), _ANYTHING)}."
            )
    try:
        resumed.restore(_read(deepcopy(learner.state())))
    except Exception as error:
        raise ConfigError(
            f"{name} cannot be restored from what it keeps ({one_line(f'{type(error).__name__}: {error}')}): "
            f"keep {_ANYTHING}, each of the shape and kind that start gives it."
        ) from error
    for attribute in learner.kept:
        if not _same(getattr(resumed, attribute), getattr(learner, attribute)):
            raise ConfigError(
                f"{name} keeps {attribute}, which does not come back from a checkpoint as it was: "
                "let start give it the kind and type of number that it has later."
            )
    return resumed


def _shown(value: Any) -> str:
    return "keys that are not plain text" if isinstance(value, dict) else _kind(value)


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}"
    return f"a {'NumPy ' * isinstance(value, np.generic)}{type(value).__name__}"


def _unfit(value: Any) -> Any:
    """The first part of a value that a checkpoint cannot hold; None if it can hold all."""
    if isinstance(value, Stateful | np.random.Generator) or hasattr(value, "detach"):
        return None
    if isinstance(value, np.ndarray):
        plain = value.dtype.kind in "fiub" and value.dtype.isnative and value.itemsize <= _LARGEST_ITEM
        return None if plain else value
    if type(value) is dict:
        if not all(type(one) is str and "/" not in one and not one.startswith("$") for one in value):
            return value
        return next((bad for part in value.values() if (bad := _unfit(part)) is not None), None)
    if type(value) is list:
        return next((bad for part in value if (bad := _unfit(part)) is not None), None)
    return None if type(value) in (bool, int, float, str, type(None)) else value


def _read(state: Any) -> Any:
    """A state as a checkpoint gives it back."""
    if isinstance(state, dict):
        return {name: _read(part) for name, part in state.items()}
    if isinstance(state, list):
        return [_read(part) for part in state]
    return state if isinstance(state, np.ndarray) else json.loads(json.dumps(state))


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal, and of the same kind down to their numbers."""
    if type(one) is not type(other):
        return False
    if hasattr(one, "detach"):
        return one.dtype == other.dtype and _same(one.detach().cpu().numpy(), other.detach().cpu().numpy())
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, Stateful):
        return _same(one.state(), other.state())
    if isinstance(one, np.random.Generator):
        return _same(one.bit_generator.state, other.bit_generator.state)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other or one != one)
