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
from memory_rl.analysis.samples import Sample
from memory_rl.analysis.statistics import Estimate, bootstrap_mean, mean_interval
from memory_rl.reporting.curves import frame_of, rounded
from memory_rl.reporting.study import Study, groups_of_sizes
from memory_rl.reporting.values import WordTable, short, table_rows
from memory_rl.reporting.wording import wording


def cells_of(study: Study) -> list[Cell]:
    """Those that the figures and tables of capacity compare; a study without any has none of them."""
    return comparable([entry.cell for entry in study.entries])


def points_frame(cells: Sequence[Cell]) -> pl.DataFrame:
    """What was to be learned, what was stored, and how fast: one row per condition, size and M.

    Intervals are 95 %, over runs. `rate` is null where no run memorised; `bound` is then the upper end of its
    interval. Cells that differ in their seed alone are one row.
    """
    rows = [
        _point_row(condition, size, point)
        for condition, size, group in groups_of_sizes(cells)
        for point in analysis.points(group)
    ]
    return rounded(frame_of(rows, *_POINT))


_RATE = ("rate", "rate_low", "rate_high")
_POINT = (
    *("condition", "size", "parameters", "bytes", "N", "num_secrets", "order", "runs", "memorised"),
    *("bits_to_learn", "stored", "low", "high", "late_gain", *_RATE, "bound"),
    "learning_rate",
)


def _point_row(condition: str, size: Size, point: Sample) -> dict[str, Any]:
    first, rate, memorised = point.first, point.rate, point.memorised
    return {
        "condition": condition,
        "size": size.label,
        "parameters": first.summary.get("trained_parameters"),
        "bytes": first.summary.get("trained_bytes"),
        "N": first.N,
        "num_secrets": first.num_secrets,
        "order": "blocks" if in_blocks(first) else "mixed",
        "runs": point.runs,
        "memorised": memorised,
        "bits_to_learn": first.bits_to_learn,
        **_spread(bootstrap_mean(point.stored), "stored", "low", "high"),
        "late_gain": float(np.mean([analysis.late_gain(cell) for cell in point.cells])),
        **(_spread(rate, *_RATE) if memorised else {"bound": rate.high}),
        "learning_rate": first.metrics["learning_rate"].max(),
    }


def _spread(estimate: Estimate, *names: str) -> dict[str, float | None]:
    return dict(zip(names, (estimate.value, estimate.low, estimate.high), strict=True))


def capacities_frame(cells: Sequence[Cell]) -> pl.DataFrame:
    """What each size holds, in all, per parameter and in secrets: one row per condition and size.

    For sizes that are not saturated they are lower bounds.
    """
    rows = [
        _capacity_row(group[0].condition, found)
        for group in by_condition(cells).values()
        for found in analysis.capacities(group)
    ]
    return rounded(frame_of(rows, *_CAPACITY))


_ESTIMATES = {name: (name, f"{name}_low", f"{name}_high") for name in ("capacity", "per_parameter", "knee")}
_CAPACITY = (
    *("condition", "size", "parameters", "N", "num_secrets", "saturated"),
    *(column for columns in _ESTIMATES.values() for column in columns),
)


def _capacity_row(condition: str, found: analysis.Capacity) -> dict[str, Any]:
    return {
        "condition": condition,
        "size": found.size.label,
        "parameters": found.size.parameters,
        "N": found.at.first.N,
        "num_secrets": found.at.first.num_secrets,
        "saturated": found.saturated,
        **_spread(found.bits, *_ESTIMATES["capacity"]),
        **_spread(found.per_parameter, *_ESTIMATES["per_parameter"]),
        **_spread(found.knee, *_ESTIMATES["knee"]),
    }


def interference_frame(cells: Sequence[Cell]) -> pl.DataFrame:
    """Bits known of a secret against the blocks since its own started, of cells with order=blocks.

    Means over runs with intervals. `line` tells the cells apart.
    """
    rows = [
        row
        for condition, size, group in groups_of_sizes(cells)
        for cell in group
        if in_blocks(cell)
        for row in _interference_rows(condition, size, cell)
    ]
    return rounded(frame_of(rows, *_KNOWN))


_KNOWN = ("condition", "size", "line", "information", "secrets", "blocks", "mean", "low", "high")


def _interference_rows(condition: str, size: Size, cell: Cell) -> Iterator[dict[str, Any]]:
    found = analysis.interference(cell)
    about = {
        "condition": condition,
        "size": size.label,
        "line": str(cell.path),
        "information": float(np.log2(cell.N)),
        "secrets": found.secrets,
    }
    for numbers in zip(found.blocks, *mean_interval(found.known), strict=True):
        yield {**about, **dict(zip(_KNOWN[-4:], map(float, numbers), strict=True))}


_POINT_TABLE = {
    "condition": ("condition",),
    "size": ("size",),
    "trained parameters": ("parameters",),
    "bytes": ("bytes",),
    "M": ("num_secrets",),
    "order": ("order",),
    "bits to learn": ("bits_to_learn",),
    "bits stored [95 %]": ("stored", "low", "high"),
    "bits per parameter": ("per_parameter",),
    "stored in the last tenth": ("late_gain",),
    "memorised of runs": ("memorised_of_runs",),
    "bits per episode [95 %]": _RATE,
    "learning rate": ("learning_rate",),
}
_CAPACITY_TABLE = {
    "condition": ("condition",),
    "size": ("size",),
    "trained parameters": ("parameters",),
    "saturated": ("saturated",),
    "capacity in bits [95 %]": _ESTIMATES["capacity"],
    "at M": ("num_secrets",),
    "bits per parameter [95 %]": _ESTIMATES["per_parameter"],
    "knee in secrets [95 %]": _ESTIMATES["knee"],
}


def capacity_tables(study: Study) -> list[WordTable]:
    """What each size holds, and what was stored at each number of secrets; none without such cells."""
    cells = cells_of(study)
    if not cells:
        return []
    return [
        WordTable(_capacity_words(cells), list(_CAPACITY_TABLE), **wording("tables", "capacities")),
        WordTable(_point_words(cells), list(_POINT_TABLE), **wording("tables", "points")),
    ]


def _point_words(cells: Sequence[Cell]) -> list[list[str]]:
    frame = points_frame(cells).with_columns(
        per_parameter=pl.when(pl.col("parameters") > 0).then(pl.col("stored") / pl.col("parameters")),
        memorised_of_runs=pl.format("{} of {}", "memorised", "runs"),
    )
    rows, rate = table_rows(frame.rows(named=True), _POINT_TABLE), list(_POINT_TABLE.values()).index(_RATE)
    for row, bound in zip(rows, frame["bound"], strict=True):
        row[rate] = row[rate] if bound is None else f"none; at most {short(bound)}"
    return rows


def _capacity_words(cells: Sequence[Cell]) -> list[list[str]]:
    """The capacity of each row in words, which say where it is a lower bound."""
    frame = capacities_frame(cells)
    words = pl.when("saturated").then(pl.lit("yes")).otherwise(pl.lit("no: a lower bound"))
    rows = table_rows(frame.with_columns(saturated=words).rows(named=True), _CAPACITY_TABLE)
    for row, saturated in zip(rows, frame["saturated"], strict=True):
        for place, columns in enumerate(_CAPACITY_TABLE.values()):
            if columns in _ESTIMATES.values() and not saturated:
                row[place] = f"\u2265 {row[place]}"
    return rows


def capacity_frame(study: Study) -> pl.DataFrame:
    """The numbers of both tables, for a CSV: one row per point, with the capacity of its size, if any."""
    cells = cells_of(study)
    found = capacities_frame(cells).drop("parameters")
    return points_frame(cells).join(
        found.rename({column: f"size_{column}" for column in ("num_secrets", "saturated")}),
        on=["condition", "size", "N"],
        how="left",
        maintain_order="left",
    )


def sizes_of(cells: Sequence[Cell]) -> list[str]:
    """The labels of all sizes, the smallest first: the same colours in every panel and figure."""
    found = sorted(
        {size for _, size, _ in groups_of_sizes(cells)}, key=lambda size: (size.parameters or 0, size.label)
    )
    return list(dict.fromkeys(size.label for size in found))
