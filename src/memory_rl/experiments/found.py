"""What is known of the cells of a sweep so far: how they ended, and when their runs memorised."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from memory_rl.analysis.collect import Cell, read_cell
from memory_rl.analysis.survival import MemorisationTimes, pool
from memory_rl.experiments.grid import GridCell
from memory_rl.experiments.store import CELLS, TUNING, SweepDirectory
from memory_rl.files import Json
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


@dataclass
class Found:
    """What a tuning knows of its candidates.

    Attributes:
        directory: of the sweep.
        whys: why cells failed, by id.
        diverged: the ids of those that failed because a run diverged.
    """

    directory: SweepDirectory
    whys: Mapping[str, str]
    diverged: set[str]
    _times: dict[str, MemorisationTimes] = field(default_factory=dict)

    def summary(self, cell: GridCell) -> Json:
        """The summary of a candidate; nothing if it is not complete."""
        return self.directory.summary(f"{TUNING}/{cell.id}") or {}

    def times(self, cell: GridCell) -> MemorisationTimes | None:
        """When the runs of a candidate memorised; None if it is not complete."""
        if cell.id not in self._times and self.summary(cell):
            with reading(self.directory, [cell.id], TUNING) as cells:
                self._times[cell.id] = cells[0].times
        return self._times.get(cell.id)

    def pooled(self, cells: Sequence[GridCell]) -> MemorisationTimes:
        """The runs of complete candidates together."""
        return pool([times for times in map(self.times, cells) if times is not None])
