"""What a worker does: runs one cell to its end and reports how that went; it never raises."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from signal import SIGINT
from typing import Literal

from memory_rl.errors import DivergedError, LockWarning, MemoryRLError, RunDirectoryError
from memory_rl.experiments.grid import GridCell
from memory_rl.experiments.store import CELLS, TUNING, SweepDirectory
from memory_rl.files import Json
from memory_rl.inputs import changed_input, hash_inputs
from memory_rl.runs.checkpoint import CHECKPOINT
from memory_rl.runs.manifest import first_difference
from memory_rl.runs.store import MANIFEST


@dataclass(frozen=True)
class Task:
    """A cell for one worker.

    Attributes:
        cell: what to run.
        folder: of the sweep's directory that the cell's run directory is in: cells or tuning.
        location: the sweep's directory, if the worker shares its disk and works in it; None if it works in a
            scratch directory and hands the files back.
        existing: the files of an unfinished run directory to resume; for workers that share no disk.
    """

    cell: GridCell
    folder: str
    location: str | None
    existing: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class CellOutcome:
    """How a cell ended.

    Attributes:
        id: the cell's.
        status: as in a manifest; "interrupted" if the worker was stopped.
        why: it failed.
        diverged: whether it failed because a run did, as it would again.
        seconds: that this worker spent on it.
        files: of its run directory, where the worker shares no disk.
        signal: that interrupted it.
    """

    id: str
    status: Literal["completed", "interrupted", "failed"]
    why: str | None = None
    diverged: bool = False
    seconds: float = 0.0
    files: Mapping[str, bytes] | None = field(default=None, repr=False)
    signal: int = SIGINT


def can_resume(cell: GridCell, directory: SweepDirectory, folder: str) -> bool:
    """Whether what lies in its folder has a checkpoint, and measures what the cell does."""
    manifest = directory.read_json(f"{folder}/{MANIFEST}")
    if manifest is None or CHECKPOINT not in directory.names(folder):
        return False
    experiment = cell.experiment
    now = {"kind": cell.command, "resolved": experiment.resolved(), "inputs": hash_inputs(experiment)}
    return first_difference(manifest, now) is None


def refuse_changed(directory: SweepDirectory, existing: Json) -> None:
    """Refuses to add to complete cells where a file that they read has changed since.

    Raises:
        RunDirectoryError: which cell, and what changed.
    """
    for folder, listed in ((CELLS, "cells"), (TUNING, "tuning_cells")):
        for entry in existing.get(listed, []):
            place = f"{folder}/{entry['id']}"
            if not directory.summary(place):
                continue
            read = (directory.read_json(f"{place}/{MANIFEST}") or {}).get("inputs") or {}
            changed = read and changed_input(read, hash_inputs(GridCell(entry["config"]).experiment))
            if changed:
                raise RunDirectoryError(
                    f"log_path={directory.location} holds the complete cell {entry['id']}, and "
                    f"{changed} since it was measured: restore it, or give another log_path."
                )


def run_task(task: Task) -> CellOutcome:
    """Runs the cell of a task, unless it is complete already."""
    folder = f"{task.folder}/{task.cell.id}"
    if task.location is not None:
        return _run_cell(task.cell, SweepDirectory(task.location), folder)
    with tempfile.TemporaryDirectory(prefix="memory-rl-") as scratch:
        directory = SweepDirectory(scratch)
        directory.commit(folder, task.existing)
        outcome = _run_cell(task.cell, directory, folder)
        return replace(outcome, files=directory.files(folder))


def _run_cell(cell: GridCell, directory: SweepDirectory, folder: str) -> CellOutcome:
    started, outcome = time.monotonic(), CellOutcome(cell.id, "completed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LockWarning)  # the sweep has said so of its whole directory
            _run(cell, directory, folder)
    except MemoryRLError as error:
        outcome = CellOutcome(cell.id, "failed", str(error), isinstance(error, DivergedError))
    except Exception as error:  # whatever it is, the other cells continue
        outcome = CellOutcome(cell.id, "failed", f"{type(error).__name__}: {error}")
    except BaseException as error:  # KeyboardInterrupt, or whatever else a signal was turned into
        outcome = CellOutcome(cell.id, "interrupted", signal=getattr(error, "signal", SIGINT))
    return replace(outcome, seconds=time.monotonic() - started)


def _run(cell: GridCell, directory: SweepDirectory, folder: str) -> None:
    """Resumes what lies in the folder if it can, and else sets that aside and starts."""
    # A process that only hands out cells need not wait for PyTorch.
    from memory_rl.execution import run_experiment

    assert directory.local is not None  # noqa: S101  # workers get a path
    if directory.summary(folder) is not None:
        return
    settings: Json = {"log_path": str(directory.local / folder), "quiet": True}
    if can_resume(cell, directory, folder):
        settings["resume"] = True
    else:
        directory.set_aside(folder)
    run_experiment(cell.with_values(**settings).experiment)
