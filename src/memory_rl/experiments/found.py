"""What is known of the cells of a sweep so far: how they ended, and when their runs memorised."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from memory_rl.analysis.collect import Cell, read_cell
from memory_rl.analysis.study_table import TABLE, from_table
from memory_rl.analysis.survival import MemorisationTimes, pool
from memory_rl.errors import ConfigError
from memory_rl.experiments.grid import GridCell
from memory_rl.experiments.store import CELLS, TUNING, SweepDirectory
from memory_rl.files import Json, read_frame
from memory_rl.inputs import changed_input, hash_inputs
from memory_rl.runs.store import MANIFEST, METRICS, SUMMARY

_READ = (MANIFEST, SUMMARY, METRICS)


@contextmanager
def reading(directory: SweepDirectory, ids: Sequence[str], folder: str = CELLS) -> Iterator[list[Cell]]:
    """The cells of a sweep, wherever its directory is."""
    with tempfile.TemporaryDirectory(prefix="memory-rl-") as scratch:
        top = directory.local or Path(scratch)
        if directory.local is None:
            here = SweepDirectory(scratch)
            for place in (f"{folder}/{name}" for name in ids):
                found = {name: directory.read_bytes(f"{place}/{name}") for name in _READ}
                here.commit(place, {name: content for name, content in found.items() if content is not None})
        folders = (top / folder / name for name in ids)
        yield [read_cell(place) for place in folders if (place / MANIFEST).is_file()]


def read_known(paths: str | None) -> dict[str, Cell]:
    """Cells that were measured elsewhere, by their ids; they have no frames of their own.

    Args:
        paths: of tables with the columns of `memory_rl.analysis.study_table.TABLE`, with commas between them.

    Raises:
        ConfigError: if one is no such table, lacks runs of a cell, or contradicts another.
    """
    known = dict[str, Cell]()
    for path in [] if paths is None else map(str.strip, paths.split(",")):
        try:
            cells = from_table(_whole(read_frame(Path(path).expanduser())))
        except (OSError, RuntimeError, TypeError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
            raise ConfigError(
                f"known={path} is no table of measured cells: give one as studies/answer.parquet is, which "
                "python studies/ship_answer.py makes."
            ) from error
        for cell in cells:
            name, other = cell.path.name, known.get(cell.path.name, cell)
            ended, runs = cell.manifest.get("status"), cell.summary.get("runs")
            if (ended, runs) != ("completed", len(cell.times.episodes)):
                raise ConfigError(
                    f"known={path} does not have all runs of {name}: give a table that is whole."
                )
            if not _same(cell.times, other.times):
                raise ConfigError(f"known={paths} has two measurements of {name}: give one of them.")
            known[name] = cell
    return known


def _whole(table: pl.DataFrame) -> pl.DataFrame:
    """A table of cells.

    Raises:
        ValueError: if something is missing, or a run is there twice.
    """
    table = table.select(pl.col(name).cast(of) for name, of in TABLE.items())
    given = table.select("cell", "manifest", "summary", "run", "episodes", "memorised")
    if given.null_count().sum_horizontal().sum() or table.select("cell", "run").is_duplicated().any():
        raise ValueError
    return table


def _same(one: MemorisationTimes, other: MemorisationTimes) -> bool:
    return np.array_equal(one.episodes, other.episodes) and np.array_equal(one.memorised, other.memorised)


def unknown(cells: Sequence[GridCell], known: Mapping[str, Cell], tuned: bool) -> list[GridCell]:
    """The cells of a plan that no table has; of those that are `tuned` nobody knows until all is chosen.

    Raises:
        ConfigError: if none is left; if all are, and no tuning could use what is known; or if a file has
            changed that one of the others read.
    """
    left = [cell for cell in cells if (tuned and cell.tuned) or not is_known(cell, known)]
    if known and not tuned and len(left) == len(cells):
        raise ConfigError(
            "known has no cell of this sweep: leave it out, or give a table of the same conditions."
        )
    if cells and not left:
        raise ConfigError("known has every cell of this sweep already: leave it out to run them again.")
    return left


def is_known(cell: GridCell, known: Mapping[str, Cell]) -> bool:
    """Whether a cell was measured elsewhere.

    Raises:
        ConfigError: if a file that it read (a model, code of your own) has changed since.
    """
    if cell.id not in known:
        return False
    read = known[cell.id].manifest.get("inputs")
    changed = read and changed_input(read, hash_inputs(cell.experiment))
    if changed:
        raise ConfigError(
            f"known has the cell {cell.id}, and {changed} since it was measured: restore it, or leave "
            "known out."
        )
    return True


@dataclass
class Found:
    """What a tuning knows of its candidates.

    Attributes:
        directory: of the sweep.
        whys: why cells failed, by id.
        diverged: the ids of those that failed because a run diverged.
        known: cells that were measured elsewhere, by id.
    """

    directory: SweepDirectory
    whys: Mapping[str, str] = field(default_factory=dict)
    diverged: set[str] = field(default_factory=set)
    known: Mapping[str, Cell] = field(default_factory=dict)
    _times: dict[str, MemorisationTimes] = field(default_factory=dict)

    def summary(self, cell: GridCell) -> Json:
        """The summary of a candidate; nothing if it is not complete."""
        return self.directory.summary(f"{TUNING}/{cell.id}") or {}

    def times(self, cell: GridCell) -> MemorisationTimes | None:
        """When the runs of a candidate memorised; None if it is neither complete nor known."""
        if cell.id not in self._times and is_known(cell, self.known):
            self._times[cell.id] = self.known[cell.id].times
        if cell.id not in self._times and self.summary(cell):
            with reading(self.directory, [cell.id], TUNING) as cells:
                self._times[cell.id] = cells[0].times
        return self._times.get(cell.id)

    def pooled(self, cells: Sequence[GridCell]) -> MemorisationTimes:
        """The runs of complete candidates together."""
        return pool([times for times in map(self.times, cells) if times is not None])
