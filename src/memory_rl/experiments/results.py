"""What came out of a sweep: a row a cell, as a table, results.csv and summary.json; tuning is kept apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from rich.table import Table

from memory_rl.experiment import KEEP
from memory_rl.experiments.grid import GridCell
from memory_rl.experiments.store import CELLS, RESULTS, SweepDirectory
from memory_rl.experiments.tuning import Choice
from memory_rl.runs.store import MANIFEST, SUMMARY

_IN_ROWS = ("N", "seed", "learning_rate")
_IN_CONDITIONS = ("signal", "env_type", "reward_type", "reward_bins", "reward_noise")
_TEXTS = ("id", "command", "condition", "status", "why", "laws")
_COUNTS = ("N", "seed", "runs", "memorised", "censored")

FIELDS: dict[str, Any] = {
    name: pl.String if name in _TEXTS else pl.Int64 if name in _COUNTS else pl.Float64
    for name in (
        *("id", "command", "condition", "N", "seed", "learning_rate", "status", "why"),
        *("runs", "memorised", "censored", "median_episodes", "median_low", "median_high"),
        *("restricted_mean_episodes", "bits_per_episode", "bits_per_episode_low", "bits_per_episode_high"),
        *("capacity", "laws", "seconds"),
    )
}
"""The columns of results.csv; after them come the keys in which the cells differ. Episodes to memorise and
bits per episode with 95 % intervals, empty where they lie beyond the budget; laws: whether both hold, as far
as they were checked."""


def cell_summary(directory: SweepDirectory, folder: str) -> dict[str, Any]:
    """The summary of the one condition of a completed cell."""
    content = directory.read_json(f"{folder}/{SUMMARY}") or {}
    return next(iter(content["conditions"].values()))


def _make_row(cell: GridCell, directory: SweepDirectory, whys: Mapping[str, str]) -> dict[str, Any]:
    folder = f"{CELLS}/{cell.id}"
    manifest = directory.read_json(f"{folder}/{MANIFEST}") or {}
    row = {
        **dict.fromkeys(FIELDS),
        "id": cell.id,
        "command": cell.command,
        "condition": cell.experiment.condition,
        "N": cell.experiment.world.N,
        "seed": cell.experiment.world.seed,
        "learning_rate": cell.experiment.step_size,
        "status": manifest.get("status", "failed" if cell.id in whys else "not run"),
        "why": whys.get(cell.id) or manifest.get("why"),
    }
    if directory.state(folder) == "completed":
        row |= {**_measured(cell_summary(directory, folder)), "seconds": manifest.get("seconds")}
    return row


def _measured(summary: Mapping[str, Any]) -> dict[str, Any]:
    episodes, rate = summary["episodes_to_memorise"], summary["bits_per_episode"]
    (median_low, median_high), (rate_low, rate_high) = episodes["ci95"], rate["ci95"]
    checks = {check["status"] for check in summary.get("checks", {}).values()}
    return {
        "why": None,
        **{key: summary[key] for key in ("runs", "memorised", "censored")},
        "median_episodes": episodes["median"],
        "median_low": median_low,
        "median_high": median_high,
        "restricted_mean_episodes": episodes["restricted_mean"],
        "bits_per_episode": rate["estimate"],
        "bits_per_episode_low": rate_low,
        "bits_per_episode_high": rate_high,
        "capacity": summary["ceilings"]["capacity"],
        "laws": ", ".join(sorted(checks)) or None,
    }


def varying_keys(cells: Sequence[GridCell]) -> list[str]:
    """The keys, beside those that each row shows, in which cells of the same condition differ."""
    values: dict[tuple[str, str], set[str]] = {}
    for cell in cells:
        for key in cell.values.keys() - KEEP.union(_IN_ROWS, _IN_CONDITIONS):
            values.setdefault((cell.experiment.condition, key), set()).add(repr(cell.values[key]))
    return sorted({key for (_, key), found in values.items() if len(found) > 1})


def make_rows(
    cells: Sequence[GridCell], directory: SweepDirectory, whys: Mapping[str, str]
) -> list[dict[str, Any]]:
    """A row a reported cell, with the keys in which they differ.

    Args:
        cells: to be reported.
        directory: of the sweep.
        whys: why cells failed that left no manifest, by id.
    """
    keys = varying_keys(cells)
    return [
        {**_make_row(cell, directory, whys), **{key: cell.values.get(key) for key in keys}} for cell in cells
    ]


def write_results(
    directory: SweepDirectory,
    about: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    choices: Sequence[Choice],
) -> dict[str, Any]:
    """Writes results.csv and summary.json, and returns the latter."""
    more = _more(rows)
    texts = [{**row, **{key: None if row[key] is None else str(row[key]) for key in more}} for row in rows]
    frame = pl.DataFrame(texts, schema=FIELDS | dict.fromkeys(more, pl.String))
    directory.write_bytes(RESULTS, frame.write_csv().encode())
    summary = {**about, "cells": list(rows), "tuning": [choice.as_dict() for choice in choices] or None}
    directory.write_json(SUMMARY, summary)
    return summary


def _more(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [key for key in (rows[0] if rows else {}) if key not in FIELDS]


def results_table(rows: Sequence[Mapping[str, Any]], location: str) -> Table:
    """The table that ends a sweep: a row a cell."""
    seed = ["seed"] if len({row["seed"] for row in rows}) > 1 else []
    columns = ["condition", "N", *_more(rows), *seed, "learning_rate", "runs", "memorised", "censored"]
    table = Table(caption=f"sweep directory: {location}", caption_justify="left")
    for column in columns:
        heading = "rate" if column == "learning_rate" else column
        _add_column(table, heading, no_wrap=column == "condition")
    _add_column(table, "median [95 % CI]", no_wrap=True)
    _add_column(table, "bits per episode [95 % CI]", no_wrap=True)
    _add_column(table, "status")
    for row in rows:
        table.add_row(
            *(_shown(row[column], ".3g" if column == "learning_rate" else "") for column in columns),
            _interval(row, ("median_episodes", "median_low", "median_high"), ".0f"),
            _interval(row, ("bits_per_episode", "bits_per_episode_low", "bits_per_episode_high"), ".3g"),
            row["status"],
        )
    return table


def choices_table(choices: Sequence[Choice]) -> Table:
    """The rate of each condition, and whether a better one may lie beyond the candidates."""
    table = Table(title="learning rates, chosen on the tuning secrets", title_justify="left")
    for heading in ("condition", "N", "rate", "bits per episode", "of the candidates", "note"):
        _add_column(table, heading)
    for choice in choices:
        best = next(score for score in choice.scores if score.learning_rate == choice.learning_rate)
        table.add_row(
            choice.condition,
            str(choice.N),
            f"{choice.learning_rate:.3g}",
            _shown(best.bits_per_episode, ".3g"),
            f"{choice.scores[0].learning_rate:.3g} to {choice.scores[-1].learning_rate:.3g}",
            _note(choice),
        )
    return table


def _add_column(table: Table, heading: str, *, no_wrap: bool = False) -> None:
    justify: Any = "left" if heading in ("condition", "status", "note") else "right"
    table.add_column(heading, justify=justify, no_wrap=no_wrap)


def _note(choice: Choice) -> str:
    if not choice.decided:
        return "all candidates did the same: the least was taken"
    return "at the edge: a better rate may lie beyond" if choice.at_edge else ""


def _interval(row: Mapping[str, Any], keys: Sequence[str], form: str) -> str:
    value, low, high = (_shown(row[key], form) for key in keys)
    return "-" if row["runs"] is None else f"{value} [{low}, {high}]"


def _shown(value: Any, form: str = "") -> str:
    return "-" if value is None else format(value, form)
