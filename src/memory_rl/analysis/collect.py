"""Run directories as the cells of a study: what was run, what came out of it, and lazily its frames."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from memory_rl.analysis.survival import MemorisationTimes, memorisation_times
from memory_rl.errors import RunDirectoryError
from memory_rl.experiment import Experiment
from memory_rl.files import Json, as_path, is_leftover
from memory_rl.parts import secrets_to_memorise
from memory_rl.runs.columns import EPISODES_SCHEMA, FILM_SCHEMA, METRICS_SCHEMA, SECRETS_SCHEMA
from memory_rl.runs.lock import LOCK, is_locked
from memory_rl.runs.shape import LEDGER, problem
from memory_rl.runs.shape import SUMMARY as SHAPE
from memory_rl.runs.store import (
    EPISODES,
    FILM,
    MANIFEST,
    METRICS,
    SECRETS,
    SUMMARY,
    TIMING,
    RunDirectory,
    experiment_of,
)

_NEVER_NULL = ("run", "episode")  # of metrics; nor is what is known, unless it was not measured

SWEEP = "sweep.json"
_MEASURED = {MANIFEST, METRICS, EPISODES, TIMING, SUMMARY, "checkpoint"}

SET_APART = ("tuning", "discarded")
"""Folders that are not searched: what they hold is not part of the reported results."""


@dataclass(frozen=True)
class Cell:
    """One run directory: the runs of one experiment, all of one condition.

    Attributes:
        path: the run directory.
        manifest: what was run, by which code, and its status.
        summary: of its one condition, as in summary.json; empty if the experiment did not end.
    """

    path: Path
    manifest: Json = field(repr=False)
    summary: Json = field(repr=False)

    @property
    def kind(self) -> str:
        """The command that made it: "train" or "sft"."""
        return str(self.manifest["kind"])

    @property
    def condition(self) -> str:
        """The name of the condition."""
        return str(self.manifest["condition"])

    @property
    def config(self) -> Json:
        """The keys of its configuration."""
        return dict(self.manifest["config"])

    @cached_property
    def experiment(self) -> Experiment:
        """What was run."""
        return experiment_of(self.path, self.manifest)

    @cached_property
    def settings(self) -> Json:
        """What sets it apart: command (`kind`), condition, and all that determines what is measured.

        That is its keys, the hashes of the files that it read, if any (`inputs`), and its `role` in a sweep
        that measures conditions both by default and tuned.
        Keys without a value are left out. Selections, samples and labels of sizes go by these alone; so cells
        of version 0.1, whose manifests leave defaults open, are compared with those of today.
        """
        resolved = self.manifest.get("resolved") or self.experiment.resolved()
        given = {key: value for key, value in resolved.items() if value is not None}
        read = {"inputs": self.manifest["inputs"]} if self.manifest.get("inputs") else {}
        role = {"role": self.config["role"]} if self.config.get("role") else {}
        return {"kind": self.kind, "condition": self.condition, **given, **read, **role}

    @property
    def N(self) -> int:
        """The size of the secret space."""
        return int(self.config["N"])

    @property
    def num_secrets(self) -> int:
        """M, the secrets of a run."""
        return int(self.config.get("num_secrets", 1))

    @property
    def secrets_to_memorise(self) -> int:
        """How many of them a run must have memorised to count as memorised."""
        return secrets_to_memorise(self.num_secrets, self.config.get("memorised_share", 1.0))

    @property
    def information(self) -> float:
        """What a run has learned once it counts as memorised: log2 N bits for each secret that must be."""
        return self.secrets_to_memorise * float(np.log2(self.N))

    @property
    def bits_to_learn(self) -> float:
        """M log2 N."""
        return self.num_secrets * float(np.log2(self.N))

    @property
    def measured(self) -> bool:
        """Whether what the policy knows was measured: not of an agent that gives no probabilities."""
        return bool(self.manifest.get("trainer", {}).get("measured", True))

    @property
    def completed(self) -> bool:
        """Whether the experiment was completed."""
        return self.manifest["status"] == "completed"

    @property
    def ended(self) -> str:
        """Its status and, where it failed, why."""
        status, why = self.manifest["status"], self.manifest.get("why")
        return f"{status}: {str(why).rstrip('.')}" if status == "failed" and why else str(status)

    @cached_property
    def metrics(self) -> pl.DataFrame:
        """One row per run and evaluation; see `memory_rl.runs.columns.METRICS_SCHEMA`."""
        full = (*_NEVER_NULL, "bits_known") if self.measured else _NEVER_NULL
        return RunDirectory(self.path).read_frame(METRICS, METRICS_SCHEMA, full)

    @cached_property
    def episodes(self) -> pl.DataFrame:
        """One row per run, episode and step; see `memory_rl.runs.columns.EPISODES_SCHEMA`."""
        return RunDirectory(self.path).read_frame(EPISODES, EPISODES_SCHEMA)

    @cached_property
    def of_secrets(self) -> pl.DataFrame:
        """One row per run, evaluation and secret; `memory_rl.runs.columns.SECRETS_SCHEMA` has its columns."""
        return RunDirectory(self.path).read_frame(SECRETS, SECRETS_SCHEMA)

    @cached_property
    def stored(self) -> np.ndarray:
        """Bits known at the last evaluation of each run, summed over its secrets: (R,)."""
        self.check_measured()
        return last_rows(self.metrics)["bits_known"].to_numpy()

    @cached_property
    def times(self) -> MemorisationTimes:
        """Episodes to memorise of its runs.

        Raises:
            RunDirectoryError: if what they know was not measured.
        """
        self.check_measured()
        return memorisation_times(
            self.metrics, float(np.log2(self.N)), self.config["memorised_at"], self.secrets_to_memorise
        )

    @cached_property
    def observer(self) -> MemorisationTimes | None:
        """When the ideal observers of its runs knew S, or the last episode of those that never did.

        None without a ledger, of what was not measured, and of runs of version 0.1.
        """
        known = self.summary.get("episodes_to_know")
        if not self.measured or known is None:
            return None
        at, last = np.array(known), last_rows(self.metrics)["episode"].to_numpy()
        return MemorisationTimes(np.where(at > 0, at, last), at > 0)

    @property
    def why_unmeasured(self) -> str:
        """The sentence about a run that is not `measured`."""
        return (
            f"{self.path} holds no bits known, since its agent gave no probabilities: read what its episodes "
            "told with memory_rl.load(path).ledger."
        )

    def check_measured(self) -> None:
        """Raises a RunDirectoryError if what the policy knows was not measured."""
        if not self.measured:
            raise RunDirectoryError(self.why_unmeasured)


def last_rows(metrics: pl.DataFrame) -> pl.DataFrame:
    """The last row of each run, ordered by run."""
    return metrics.sort("run", "episode").group_by("run", maintain_order=True).last()


@dataclass(frozen=True)
class Damage:
    """A folder that was to be a run directory and cannot be read, or not for what was asked.

    Attributes:
        path: of the folder.
        why: a sentence.
        how: it is, in a word or two.
    """

    path: Path
    why: str
    how: str = "damaged"


@dataclass(frozen=True)
class Survey:
    """What lies at or below some paths, sorted by path: run directories, and those that are damaged."""

    cells: list[Cell]
    damages: list[Damage]


def find_cells(paths: Sequence[str | Path]) -> list[Cell]:
    """All run directories at or below the paths, sorted by path.

    Folders named "tuning" or "discarded" are not searched, unless they are given themselves.

    Args:
        paths: run directories, or folders that hold some.

    Raises:
        RunDirectoryError: if a path is missing or holds no run directory, or one of them is damaged.
    """
    folders = find_folders(paths)
    whole = [folder for folder, why in folders if why is None]
    if not whole:
        raise RunDirectoryError(str(folders[0][1]))
    return [read_cell(folder) for folder in whole]


def survey(paths: Sequence[str | Path], *, tables: bool = False, footers: bool = False) -> Survey:
    """As `find_cells`, but a run directory that is damaged is named and stops nothing.

    Named are also folders in which a run was begun or measured and no manifest is left.

    Args:
        paths: as of `find_cells`.
        tables: whether to read the tables of completed runs, too; else only their JSON files.
        footers: whether to read where these tables end, which says what columns they have.

    Raises:
        RunDirectoryError: if a path is missing or holds nothing of a run.
    """
    found = Survey([], [])
    for folder, why in find_folders(paths):
        try:
            if why is not None:
                raise RunDirectoryError(why)
            cell = read_cell(folder)
            if tables and cell.completed and not cell.measured:
                found.damages.append(Damage(folder, cell.why_unmeasured, "without bits known"))
                continue
            if tables and cell.completed:
                _read_tables(cell)
            if footers and cell.completed:
                _look_at_tables(cell)
            found.cells.append(cell)
        except RunDirectoryError as error:
            found.damages.append(Damage(folder, str(error)))
    return found


def _read_tables(cell: Cell) -> None:
    """Reads all that a report shows of a completed cell.

    Raises:
        RunDirectoryError: about the first that cannot be read.
    """
    directory = RunDirectory(cell.path)
    cell.settings, cell.experiment, cell.times  # noqa: B018  # each is read and kept
    if cell.num_secrets > 1:
        cell.of_secrets  # noqa: B018
    if (cell.path / FILM).exists():
        directory.read_frame(FILM, FILM_SCHEMA)


def _look_at_tables(cell: Cell) -> None:
    """Looks whether all that a completed cell measured is there, without reading it.

    Raises:
        RunDirectoryError: about the first table that is missing, cut off or garbage.
    """
    directory, schemas = RunDirectory(cell.path), {METRICS: METRICS_SCHEMA, EPISODES: EPISODES_SCHEMA}
    for name, schema in (schemas | ({SECRETS: SECRETS_SCHEMA} if cell.num_secrets > 1 else {})).items():
        directory.check_footer(name, schema)


def find_folders(paths: Sequence[str | Path]) -> list[tuple[Path, str | None]]:
    """The run directories at or below the paths, sorted, each with what is wrong with it at first sight.

    Raises:
        RunDirectoryError: if a path is missing or holds nothing of a run.
    """
    found: dict[Path, tuple[Path, str | None]] = {}  # by where they are: one that is given twice is one run
    for path in map(as_path, paths):
        if not path.is_dir():
            raise RunDirectoryError(
                f"{path} is not a folder: give the path of a run directory or of a folder that holds some."
            )
        folders = {folder.resolve(): (folder, why) for folder, why in _folders(path)}
        if not folders:
            raise RunDirectoryError(
                f"{path} holds no run directory (no {MANIFEST} in it or below it): "
                "give the path of one or of a folder that holds some."
            )
        found |= folders
    return sorted(found.values())


def _folders(path: Path) -> Iterator[tuple[Path, str | None]]:
    """The run directories at or below a folder, and why one is none any more; none lies within another."""
    unreadable: list[OSError] = []
    for root, folders, files in os.walk(path, onerror=unreadable.append):
        here = Path(root)
        why = None if MANIFEST in files else _why_wrecked(here, folders, files)
        if MANIFEST in files or why is not None:
            folders.clear()
            yield here, why
        else:
            folders[:] = [folder for folder in folders if folder not in SET_APART]
    for error in unreadable:
        yield Path(error.filename), f"{error.filename} cannot be read ({error.strerror}): see to its rights."


def _why_wrecked(path: Path, folders: Sequence[str], files: Sequence[str]) -> str | None:
    """Why a folder without a manifest was to be a run directory; None if it was not, or is just beginning."""
    names = {name for name in (*folders, *files) if name != LOCK and not is_leftover(name)}
    if not names and _beside_runs(path) and not is_locked(path):
        return f"{path} is empty: nothing was measured there, and it can be removed."
    if names & _MEASURED and not names & {SWEEP, "cells"}:
        return f"{path / MANIFEST} cannot be read, since it is missing: restore it, or run it again."
    return None


def _beside_runs(path: Path) -> bool:
    return any((folder / MANIFEST).is_file() for folder in path.parent.iterdir())


def read_cell(path: Path) -> Cell:
    """Reads a run directory; its tables are read when they are asked for.

    Raises:
        RunDirectoryError: if manifest or summary are missing or damaged, or lack what is read of them.
    """
    directory = RunDirectory(path)
    manifest = directory.read_manifest()
    if manifest["status"] != "completed":
        return Cell(path, manifest, {})
    conditions, condition = directory.read_json(SUMMARY).get("conditions"), manifest["condition"]
    summary = conditions.get(condition) if isinstance(conditions, dict) else None
    if summary is None:
        raise RunDirectoryError(
            f"{path / SUMMARY} does not hold the condition {condition}: restore it, or run it again."
        )
    wrong = problem(summary, SHAPE if "rates" not in summary else SHAPE | LEDGER)
    if wrong:
        raise RunDirectoryError(
            f"{path / SUMMARY} is damaged, since {wrong}: restore it, or run the experiment again."
        )
    return Cell(path, manifest, summary)
