"""What is known of the cells of a sweep so far: how they ended, and when their runs memorised."""

from __future__ import annotations

import tempfile
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from memory_rl.analysis.collect import Cell, read_cell
from memory_rl.analysis.study_table import TABLE, from_table
from memory_rl.analysis.survival import MemorisationTimes, pool
from memory_rl.errors import ConfigError
from memory_rl.experiments.grid import GridCell
from memory_rl.experiments.store import CELLS, TUNING, SweepDirectory
from memory_rl.files import Json, read_frame
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


def read_known(paths: str | None) -> dict[str, MemorisationTimes]:
    """When the runs memorised of cells that were measured elsewhere, by the ids of the cells.

    Args:
        paths: of tables with the columns of `memory_rl.analysis.study_table.TABLE`, with commas between them.

    Raises:
        ConfigError: if one is no such table.
    """
    known = dict[str, MemorisationTimes]()
    for path in [] if paths is None else paths.split(","):
        try:
            table = read_frame(Path(path).expanduser()).select(
                pl.col(name).cast(of) for name, of in TABLE.items()
            )
            known |= {cell.path.name: cell.times for cell in from_table(table)}
        except (OSError, ValueError, pl.exceptions.PolarsError) as error:
            raise ConfigError(
                f"known={path} is no table of measured cells: give one as studies/answer.parquet is, which "
                "python studies/ship_answer.py makes."
            ) from error
    return known


def unknown(cells: Sequence[GridCell], known: Container[str], tuned: bool) -> list[GridCell]:
    """The cells of a plan that no table has; of those that are `tuned` nobody knows until all is chosen.

    Raises:
        ConfigError: if there is none.
    """
    left = [cell for cell in cells if (tuned and cell.tuned) or cell.id not in known]
    if cells and not left:
        raise ConfigError("known has every cell of this sweep already: leave it out to run them again.")
    return left


@dataclass
class Found:
    """What a tuning knows of its candidates.

    Attributes:
        directory: of the sweep.
        whys: why cells failed, by id.
        diverged: the ids of those that failed because a run diverged.
        known: when the runs memorised of cells that were measured elsewhere, by id.
    """

    directory: SweepDirectory
    whys: Mapping[str, str] = field(default_factory=dict)
    diverged: set[str] = field(default_factory=set)
    known: Mapping[str, MemorisationTimes] = field(default_factory=dict)
    _times: dict[str, MemorisationTimes] = field(default_factory=dict)

    def summary(self, cell: GridCell) -> Json:
        """The summary of a candidate; nothing if it is not complete."""
        return self.directory.summary(f"{TUNING}/{cell.id}") or {}

    def times(self, cell: GridCell) -> MemorisationTimes | None:
        """When the runs of a candidate memorised; None if it is neither complete nor known."""
        if cell.id in self.known:
            return self.known[cell.id]
        if cell.id not in self._times and self.summary(cell):
            with reading(self.directory, [cell.id], TUNING) as cells:
                self._times[cell.id] = cells[0].times
        return self._times.get(cell.id)

    def pooled(self, cells: Sequence[GridCell]) -> MemorisationTimes:
        """The runs of complete candidates together."""
        return pool([times for times in map(self.times, cells) if times is not None])
