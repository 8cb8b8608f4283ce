"""What a worker does: runs the cells of one task, each to its end, and tells how it ended. It never
raises.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from signal import SIGINT, Signals
from typing import Any, Literal

from memory_rl.config import as_values
from memory_rl.errors import MemoryRLError
from memory_rl.experiments.grid import KINDS, Cell
from memory_rl.experiments.store import SweepDirectory
from memory_rl.runs.checkpoint import CHECKPOINT
from memory_rl.runs.manifest import first_difference
from memory_rl.runs.store import MANIFEST

LOCKSTEP = False
"""Whether `run_group` runs its cells together. While it does not, each cell is a task of its own, so that
less is lost with a worker."""


@dataclass(frozen=True)
class Task:
    """Cells that one worker runs together.

    Attributes:
        folder: cells or tuning.
        cells: what to run.
        location: the sweep's directory, if the worker shares its disk and works in it; None if it works in a
            scratch directory and hands the files back.
        begun: by cell, the files of an unfinished run directory to go on with; for workers that share no
            disk.
    """

    folder: str
    cells: Sequence[Cell]
    location: str | None
    begun: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Outcome:
    """How a cell ended.

    Attributes:
        id: the cell's.
        status: as in a manifest; "interrupted" if the worker was told to stop.
        why: what stopped it.
        seconds: that this worker spent on it.
        files: of its run directory, where the worker shares no disk.
        signal: that interrupted it.
    """

    id: str
    status: Literal["completed", "interrupted", "failed"]
    why: str | None = None
    seconds: float = 0.0
    files: Mapping[str, bytes] | None = field(default=None, repr=False)
    signal: int = SIGINT


class StoppedError(KeyboardInterrupt):
    """A signal stopped the work; a KeyboardInterrupt, so that the run at work notes on disk that it was
    interrupted.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {Signals(number).name}")
        self.signal = number


def can_resume(cell: Cell, directory: SweepDirectory, folder: str) -> bool:
    """Whether what lies in its folder can be gone on with: it had come to a checkpoint, and nothing differs
    that could change what is measured.
    """
    manifest = directory.read_json(f"{folder}/{MANIFEST}")
    if manifest is None or CHECKPOINT not in directory.names(folder):
        return False
    return first_difference(manifest, {"kind": cell.command, "config": as_values(cell.config)}) is None


def run_task(task: Task) -> list[Outcome]:
    """Runs the cells of a task that are not complete yet."""
    if task.location is not None:
        return run_group(task.cells, SweepDirectory(task.location), task.folder)
    with tempfile.TemporaryDirectory(prefix="memory-rl-") as scratch:
        directory = SweepDirectory(scratch)
        for name, files in task.begun.items():
            directory.commit(f"{task.folder}/{name}", files)
        outcomes = run_group(task.cells, directory, task.folder)
        return [
            replace(outcome, files=directory.files(f"{task.folder}/{outcome.id}")) for outcome in outcomes
        ]


def run_group(cells: Sequence[Cell], directory: SweepDirectory, folder: str) -> list[Outcome]:
    """Runs cells that one population could hold, for now one after another; ends with the first that is
    interrupted.
    """
    outcomes: list[Outcome] = []
    for cell in cells:
        outcomes.append(run_cell(cell, directory, f"{folder}/{cell.id}"))
        if outcomes[-1].status == "interrupted":
            break
    return outcomes


def run_cell(cell: Cell, directory: SweepDirectory, folder: str) -> Outcome:
    """Runs one cell in its folder, unless it is complete there; goes on with an unfinished one if it can, and
    else sets that aside.
    """
    started = time.monotonic()
    try:
        _run(cell, directory, folder)
    except MemoryRLError as error:
        return Outcome(cell.id, "failed", str(error), time.monotonic() - started)
    except Exception as error:  # whatever it is, the other cells go on
        return Outcome(cell.id, "failed", f"{type(error).__name__}: {error}", time.monotonic() - started)
    except BaseException as error:  # KeyboardInterrupt, or whatever else a signal was turned into
        number = getattr(error, "signal", SIGINT)
        return Outcome(
            cell.id, "interrupted", str(error) or "interrupted", time.monotonic() - started, signal=number
        )
    return Outcome(cell.id, "completed", None, time.monotonic() - started)


def _run(cell: Cell, directory: SweepDirectory, folder: str) -> None:
    from memory_rl.api import (
        run_experiment,
    )  # so that a process which only hands out cells need not wait for PyTorch
    from memory_rl.config import make_config

    assert directory.local is not None  # noqa: S101  # workers get a path
    state = directory.state(folder)
    if state == "completed":
        return
    settings: dict[str, Any] = {**cell.values, "log_path": str(directory.local / folder), "quiet": True}
    if state == "unfinished":
        if can_resume(cell, directory, folder):
            settings["resume"] = True
        else:
            directory.set_aside(folder)
    run_experiment(make_config(KINDS[cell.command], settings))
