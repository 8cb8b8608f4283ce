"""How much the trained parameters hold, as frames and as the rows of the report's tables.

The cells have several secrets per run, or adapters of several sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

from memory_rl.analysis import capacity as analysis
from memory_rl.analysis.capacity import Size, by_condition, comparable, in_blocks
from memory_rl.analysis.collect import Cell
from memory_rl.analysis.digits import short
from memory_rl.analysis.samples import Sample
from memory_rl.analysis.statistics import Estimate, bootstrap_mean, mean_interval
from memory_rl.reporting.curves import frame_of, rounded
from memory_rl.reporting.study import Study, groups_of_sizes
from memory_rl.reporting.values import WordTable, in_words, spread, word_table


def cells_of(study: Study) -> list[Cell]:
    """Those that the figures and tables of capacity compare; a study without any has none of them."""
    return comparable([entry.cell for entry in study.entries])


def points_frame(cells: Sequence[Cell]) -> pl.DataFrame:
    """What was to be learned, what was stored, and how fast: one row per condition, size and M.

    Intervals are 95 %, over runs. `rate` is null where no run memorised; `bound` is then the upper end of its
    interval. Cells that differ in their seed alone are one row.
    """
    rows = [
        _point_row(size, point) for size, group in groups_of_sizes(cells) for point in analysis.points(group)
    ]
    return rounded(frame_of(rows, *_POINT))


_RATE = spread("rate")
_STORED = ("stored", "low", "high")
_POINT = (
    *("condition", "size", "parameters", "bytes", "N", "num_secrets", "order", "runs", "memorised"),
    *("bits_to_learn", *_STORED, "late_gain", *_RATE, "bound"),
    "learning_rate",
)


def _point_row(size: Size, point: Sample) -> dict[str, Any]:
    first, rate, memorised = point.first, point.rate, point.memorised
    return {
        "condition": first.condition,
        "size": size.label,
        "parameters": first.summary.get("trained_parameters"),
        "bytes": first.summary.get("trained_bytes"),
        "N": first.N,
        "num_secrets": first.num_secrets,
        "order": "blocks" if in_blocks(first) else "mixed",
        "runs": point.runs,
        "memorised": memorised,
        "bits_to_learn": first.bits_to_learn,
        **bootstrap_mean(point.stored).as_row("stored"),
        "late_gain": float(np.mean([analysis.late_gain(cell) for cell in point.cells])),
        **(_spread(rate, "rate") if memorised else {"bound": rate.high}),
        "learning_rate": first.metrics["learning_rate"].max(),
    }


def _spread(estimate: Estimate, name: str) -> dict[str, float | None]:
    return dict(zip(spread(name), (estimate.value, estimate.low, estimate.high), strict=True))


def capacities_frame(cells: Sequence[Cell]) -> pl.DataFrame:
    """What each size holds, in all, per parameter and in secrets: one row per condition and size.

    For sizes that are not saturated they are lower bounds.
    """
    rows = [
        _capacity_row(found) for group in by_condition(cells).values() for found in analysis.capacities(group)
    ]
    return rounded(frame_of(rows, *_CAPACITY))


_ESTIMATES = ("capacity", "per_parameter", "knee")
_CAPACITY = (
    *("condition", "size", "parameters", "N", "num_secrets", "saturated"),
    *(column for name in _ESTIMATES for column in spread(name)),
)


def _capacity_row(found: analysis.Capacity) -> dict[str, Any]:
    first = found.at.first
    return {
        "condition": first.condition,
        "size": found.size.label,
        "parameters": found.size.parameters,
        "N": first.N,
        "num_secrets": first.num_secrets,
        "saturated": found.saturated,
        **_spread(found.bits, "capacity"),
        **_spread(found.per_parameter, "per_parameter"),
        **_spread(found.knee, "knee"),
    }


def interference_frame(cells: Sequence[Cell]) -> pl.DataFrame:
    """Bits known of a secret against the blocks since its own started, of cells with order=blocks.

    Means over runs with intervals. `line` tells the cells apart.
    """
    rows = [
        row
        for size, group in groups_of_sizes(cells)
        for cell in group
        if in_blocks(cell)
        for row in _interference_rows(size, cell)
    ]
    return rounded(frame_of(rows, *_KNOWN))


_KNOWN = ("condition", "size", "line", "information", "secrets", "blocks", "mean", "low", "high")


def _interference_rows(size: Size, cell: Cell) -> Iterator[dict[str, Any]]:
    found = analysis.interference(cell)
    about = {
        "condition": cell.condition,
        "size": size.label,
        "line": str(cell.path),
        "information": float(np.log2(cell.N)),
        "secrets": found.secrets,
    }
    for blocks, mean, low, high in zip(found.blocks, *mean_interval(found.known), strict=True):
        yield {**about, "blocks": blocks, "mean": mean, "low": low, "high": high}


_POINT_TABLE = {
    "condition": "condition",
    "size": "size",
    "trained parameters": "parameters",
    "bytes": "bytes",
    "M": "num_secrets",
    "order": "order",
    "bits to learn": "bits_to_learn",
    "bits stored [95 %]": _STORED,
    "bits per parameter": "per_parameter",
    "stored in the last tenth": "late_gain",
    "memorised of runs": "memorised",
    "bits per episode [95 %]": "rate",
    "learning rate": "learning_rate",
}
_CAPACITY_TABLE = {
    "condition": "condition",
    "size": "size",
    "trained parameters": "parameters",
    "saturated": "saturated",
    "capacity in bits [95 %]": "capacity",
    "at M": "num_secrets",
    "bits per parameter [95 %]": "per_parameter",
    "knee in secrets [95 %]": "knee",
}


def capacity_tables(study: Study) -> list[WordTable]:
    """What each size holds, and what was stored at each number of secrets; none without such cells."""
    cells = cells_of(study)
    if not cells:
        return []
    capacities, points = (frame.rows(named=True) for frame in (capacities_frame(cells), points_frame(cells)))
    tables = [
        word_table("capacities", map(_capacity_words, capacities), _CAPACITY_TABLE),
        word_table("points", map(_point_words, points), _POINT_TABLE),
    ]
    return [table for table in tables if table.rows]  # tables of the tabular learner have no capacity


def _point_words(row: dict[str, Any]) -> dict[str, Any]:
    bound, parameters = row["bound"], row["parameters"]
    return {
        **row,
        "per_parameter": row["stored"] / parameters if parameters else None,
        "memorised": f"{row['memorised']} of {row['runs']}",
        "rate": in_words(row, _RATE) if bound is None else f"none; at most {short(bound)}",
    }


def _capacity_words(row: dict[str, Any]) -> dict[str, Any]:
    """What is a lower bound says so."""
    words, sign = ("yes", "") if row["saturated"] else ("no: a lower bound", "\u2265 ")
    return {
        **row,
        "saturated": words,
        **{name: sign + in_words(row, spread(name)) for name in _ESTIMATES},
    }


def capacity_frame(study: Study) -> pl.DataFrame:
    """The numbers of both tables, for a CSV: one row per point, with the capacity of its size, if any."""
    cells = cells_of(study)
    found = capacities_frame(cells).drop("parameters")
    return points_frame(cells).join(
        found.rename({"num_secrets": "size_num_secrets", "saturated": "size_saturated"}),
        on=["condition", "size", "N"],
        how="left",
        maintain_order="left",
    )


def sizes_of(cells: Sequence[Cell]) -> list[str]:
    """The labels of all sizes, the smallest first: the same colours in every panel and figure."""
    found = sorted(
        {size for size, _ in groups_of_sizes(cells)}, key=lambda size: (size.parameters or 0, size.label)
    )
    return list(dict.fromkeys(size.label for size in found))
