"""A study as one small table, a row per run: all is computed again from it, without run directories."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.samples import gather
from memory_rl.analysis.survival import MemorisationTimes
from memory_rl.errors import ConfigError
from memory_rl.files import Json

TABLE: dict[str, Any] = {
    "cell": pl.String,
    "manifest": pl.String,
    "summary": pl.String,
    "run": pl.Int64,
    "episodes": pl.Int64,
    "memorised": pl.Boolean,
    "observer_episodes": pl.Int64,
    "observer_knew": pl.Boolean,
}
"""One row per run.

cell: the name of its run directory. manifest, summary: JSON of what is asked of them here, the same for all
runs of a cell. episodes: to memorise, or those that the run had where it has not `memorised`; the observer's
likewise, null without a ledger.
"""

_OF_MANIFEST = ("kind", "condition", "status", "config", "resolved", "inputs")
_OF_SUMMARY = ("runs", "memorised", "ceilings", "checks", "trained_parameters", "prior_skew")


def to_table(cells: Iterable[Cell]) -> pl.DataFrame:
    """The runs of completed cells, with the columns of `TABLE`; of cells that are there twice the larger one.

    Args:
        cells: from `memory_rl.analysis.collect.find_cells`.

    Raises:
        ConfigError: if two have one name.
    """
    used = [cell for sample in gather(one for one in cells if one.completed) for cell in sample.cells]
    named: dict[str, Cell] = {}
    for cell in used:
        other = named.setdefault(cell.path.name, cell)
        if other is not cell:
            raise ConfigError(f"{other.path} and {cell.path} have one name and unlike settings: rename one.")
    frames = [_rows(cell) for cell in sorted(used, key=lambda cell: cell.path.name)]
    return pl.concat(frames) if frames else pl.DataFrame(schema=TABLE)


def _rows(cell: Cell) -> pl.DataFrame:
    observer, runs = cell.observer, len(cell.times.episodes)
    laws = {name: {"status": check["status"]} for name, check in cell.summary.get("checks", {}).items()}
    summary = {**_some(cell.summary, _OF_SUMMARY), "checks": laws}
    of_runs = {
        "run": np.arange(runs),
        "episodes": cell.times.episodes,
        "memorised": cell.times.memorised,
        "observer_episodes": None if observer is None else observer.episodes,
        "observer_knew": None if observer is None else observer.memorised,
    }
    about = {"cell": cell.path.name, "manifest": _text(_of_manifest(cell)), "summary": _text(summary)}
    frame = pl.DataFrame(of_runs).with_columns(pl.lit(value).alias(name) for name, value in about.items())
    return frame.select(pl.col(name).cast(kind) for name, kind in TABLE.items())


def _of_manifest(cell: Cell) -> Json:
    config = {key: value for key, value in cell.config.items() if key != "log_path"}
    return {**_some(cell.manifest, _OF_MANIFEST), "config": config}


def _some(values: Json, names: Sequence[str]) -> Json:
    return {name: values[name] for name in names if name in values}


def _text(values: Json) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def from_table(table: pl.DataFrame) -> list[Cell]:
    """The cells of a table, for samples, comparisons and verdicts; they have no frames of their own."""
    return [_cell(frame) for frame in table.sort("cell", "run").partition_by("cell", maintain_order=True)]


def _cell(frame: pl.DataFrame) -> Cell:
    about = frame.row(0, named=True)
    cell = Cell(Path(about["cell"]), json.loads(about["manifest"]), json.loads(about["summary"]))
    times, observer = (
        MemorisationTimes(frame[episodes].to_numpy(), frame[which].to_numpy())
        for episodes, which in (("episodes", "memorised"), ("observer_episodes", "observer_knew"))
    )
    unseen = frame["observer_episodes"].null_count()
    cell.__dict__.update(times=times, observer=None if unseen else observer)  # as if its tables had been read
    return cell
