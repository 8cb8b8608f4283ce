"""How a loop survives a stop: it can be left after each update, and resumes from the last checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
from typing_extensions import override

from memory_rl.errors import RunDirectoryError
from memory_rl.runs.checkpoint import Checkpoints
from memory_rl.runs.interruption import SignalsWait
from memory_rl.state import State, Stateful


class Continuation:
    """A loop that starts from nothing and is left by an exception alone."""

    def resume(self, **parts: Stateful) -> State | None:
        """Restores the parts of the loop and returns what it then gave to `pause`; None if it is to start."""
        return None

    def pause(self, **place: Any) -> None:
        """Called between two updates with the place of the loop: arrays and what JSON can hold."""


FROM_SCRATCH = Continuation()


class FromCheckpoints(Continuation):
    """Resumes from the last checkpoint of a directory, if there is one, and writes the next.

    Args:
        checkpoints: where they are.
        signals: those that wait for the end of an update, and for a checkpoint.

    Raises:
        RunDirectoryError: if the last checkpoint is damaged.
    """

    def __init__(self, checkpoints: Checkpoints, signals: SignalsWait) -> None:
        self._checkpoints, self._signals = checkpoints, signals
        self.parts: dict[str, Stateful] = {}
        """What is saved; those of the loop are added by `resume`."""
        self._state = checkpoints.read()

    @property
    def measured(self) -> pl.DataFrame | None:
        """What the checkpoint had measured (`METRICS_SCHEMA`); None without one, or after `resume`."""
        frame: pl.DataFrame | None = None if self._state is None else self._state["tables"]["metrics"]
        return frame

    @override
    def resume(self, **parts: Stateful) -> State | None:
        """Raises a RunDirectoryError if the checkpoint is not one of these parts."""
        self.parts |= parts
        state, self._state = self._state, None
        if state is None:
            return None
        try:
            for name, part in self.parts.items():
                part.restore(state[name])
            place: State = state["loop"]
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            path = self._checkpoints.path
            raise RunDirectoryError(
                f"{path} is not of this experiment or version ({error}): remove it to start over there, "
                "or give another log_path."
            ) from error
        return place

    @override
    def pause(self, **place: Any) -> None:
        """A signal that came during the update takes effect here."""
        if self._checkpoints.due or self._signals.pending is not None:
            self._checkpoints.write(lambda: self._whole(place))
        self._signals.deliver()

    def _whole(self, place: Mapping[str, Any]) -> State:
        return {"loop": dict(place), **{name: part.state() for name, part in self.parts.items()}}
