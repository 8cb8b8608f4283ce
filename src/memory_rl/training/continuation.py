"""How a loop survives: it goes on from the last checkpoint, and after each update it can be left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from memory_rl.errors import RunDirectoryError
from memory_rl.runs.checkpoint import Checkpoints
from memory_rl.runs.interruption import SignalsWait
from memory_rl.state import State, Stateful


class Continuation:
    """That of a loop which starts from nothing and is left by an exception alone."""

    def resume(self, **parts: Stateful) -> State | None:
        """Puts the parts of the loop back to where they stood, and returns what the loop then gave to
        `pause`; None if it is to start.
        """
        return None

    def pause(self, **place: Any) -> None:
        """The loop stands between two updates, at this place: arrays and what JSON can hold."""


FROM_SCRATCH = Continuation()


class FromCheckpoints(Continuation):
    """Goes on from the last checkpoint of a directory, if there is one, and writes the next.

    Args:
        checkpoints: where they are.
        signals: that wait for the end of an update, and for a checkpoint.

    Raises:
        RunDirectoryError: if the last checkpoint is damaged.
    """

    def __init__(self, checkpoints: Checkpoints, signals: SignalsWait) -> None:
        self._checkpoints, self._signals = checkpoints, signals
        self._parts: Mapping[str, Stateful] = {}
        self._state = checkpoints.read()

    @property
    def measured(self) -> pl.DataFrame | None:
        """What had been measured by then; see `memory_rl.runs.store.METRICS_SCHEMA`. None if there is no
        checkpoint, or after `resume`.
        """
        frame: pl.DataFrame | None = None if self._state is None else self._state["recorder"]["metrics"]
        return frame

    def resume(self, **parts: Stateful) -> State | None:
        """See `Continuation`.

        Raises:
            RunDirectoryError: if the checkpoint is not one of these parts.
        """
        self._parts = parts
        state, self._state = self._state, None
        if state is None:
            return None
        try:
            for name, part in parts.items():
                part.restore(state[name])
            place: State = state["loop"]
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            path = self._checkpoints.path
            raise RunDirectoryError(
                f"{path} is not of this experiment or version ({error}): remove it to start over there, or give another log_path."
            ) from error
        return place

    def pause(self, **place: Any) -> None:
        """See `Continuation`. A signal that came during the update takes effect here."""
        if self._checkpoints.due or self._signals.pending is not None:
            self._checkpoints.write(
                lambda: {"loop": place, **{name: part.state() for name, part in self._parts.items()}}
            )
        self._signals.deliver()
