"""What came out of a sweep: a row a cell, as a table, results.csv and summary.json. Tuning is told apart from
what is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from rich.table import Table

from memory_rl.experiments.grid import Cell
from memory_rl.experiments.settings import OPERATIONAL
from memory_rl.experiments.store import CELLS, RESULTS, SweepDirectory
from memory_rl.experiments.tuning import Choice
from memory_rl.runs.store import MANIFEST, SUMMARY

_IN_ROWS = ("N", "seed", "learning_rate")
_BEHIND_THE_CONDITION = ("env_type", "reward_type", "reward_bins", "reward_noise")

FIELDS: dict[str, Any] = {
    "id": pl.String,
    "command": pl.String,
    "condition": pl.String,
    "N": pl.Int64,
    "seed": pl.Int64,
    "learning_rate": pl.Float64,
    "status": pl.String,
    "why": pl.String,
    "runs": pl.Int64,
    "memorised": pl.Int64,
    "censored": pl.Int64,
    "median_episodes": pl.Float64,
    "median_low": pl.Float64,
    "median_high": pl.Float64,
    "restricted_mean_episodes": pl.Float64,
    "bits_per_episode": pl.Float64,
    "bits_per_episode_low": pl.Float64,
    "bits_per_episode_high": pl.Float64,
    "capacity": pl.Float64,
    "laws": pl.String,
    "seconds": pl.Float64,
}
"""The columns of results.csv; after them come the keys in which the cells differ. Episodes to memorise and
bits per episode with 95 % intervals, empty where they lie beyond the budget; laws: whether both hold, as far
as they were checked."""


def cell_summary(directory: SweepDirectory, folder: str) -> dict[str, Any] | None:
    """The summary of the one condition of a completed cell."""
    content = directory.read_json(f"{folder}/{SUMMARY}")
    return None if content is None else next(iter(content["conditions"].values()))


def make_row(cell: Cell, directory: SweepDirectory, whys: Mapping[str, str]) -> dict[str, Any]:
    """What is known of a reported cell.

    Args:
        cell: the cell.
        directory: of the sweep.
        whys: why cells failed that left no manifest, by id.
    """
    folder = f"{CELLS}/{cell.id}"
    manifest = directory.read_json(f"{folder}/{MANIFEST}") or {}
    config = cell.config
    row = {
        "id": cell.id,
        "command": cell.command,
        "condition": config.condition,
        "N": config.N,
        "seed": config.seed,
        "learning_rate": config.step_size,
        "status": manifest.get("status", "failed" if cell.id in whys else "not run"),
        "why": whys.get(cell.id) or manifest.get("why"),
    }
    summary = cell_summary(directory, folder) if directory.state(folder) == "completed" else None
    return {
        **dict.fromkeys(FIELDS),
        **row,
        **({} if summary is None else {**_measured(summary), "seconds": manifest.get("seconds")}),
    }


def _measured(summary: Mapping[str, Any]) -> dict[str, Any]:
    episodes, rate = summary["episodes_to_memorise"], summary["bits_per_episode"]
    checks = {check["status"] for check in summary.get("checks", {}).values()}
    return {
        "why": None,
        **{key: summary[key] for key in ("runs", "memorised", "censored")},
        "median_episodes": episodes["median"],
        "median_low": episodes["ci95"][0],
        "median_high": episodes["ci95"][1],
        "restricted_mean_episodes": episodes["restricted_mean"],
        "bits_per_episode": rate["estimate"],
        "bits_per_episode_low": rate["ci95"][0],
        "bits_per_episode_high": rate["ci95"][1],
        "capacity": summary["ceilings"]["capacity"],
        "laws": ", ".join(sorted(checks)) or None,
    }


def varying_keys(cells: Sequence[Cell]) -> list[str]:
    """The keys, beside those that each row shows, in which cells of the same command and condition differ."""
    values: dict[tuple[str, str, str], set[str]] = {}
    for cell in cells:
        for key, value in cell.values.items():
            if key not in (*OPERATIONAL, *_IN_ROWS, *_BEHIND_THE_CONDITION):
                values.setdefault((cell.command, cell.config.condition, key), set()).add(repr(value))
    return sorted({key for (_, _, key), found in values.items() if len(found) > 1})


def make_rows(
    cells: Sequence[Cell], directory: SweepDirectory, whys: Mapping[str, str]
) -> list[dict[str, Any]]:
    """A row a reported cell, with the keys in which they differ."""
    keys = varying_keys(cells)
    return [
        {**make_row(cell, directory, whys), **{key: cell.values.get(key) for key in keys}} for cell in cells
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
    more, seeds = _more(rows), len({row["seed"] for row in rows}) > 1
    table = Table(caption=f"sweep directory: {location}", caption_justify="left")
    headings = [
        "condition",
        "N",
        *more,
        *(["seed"] if seeds else []),
        "rate",
        "runs",
        "memorised",
        "censored",
        "median [95 % CI]",
    ]
    for heading in (*headings, "bits per episode [95 % CI]", "status"):
        table.add_column(
            heading,
            justify="left" if heading in ("condition", "status") else "right",
            no_wrap=heading == "condition" or "%" in heading,
        )
    for row in rows:
        own = [
            row["condition"],
            row["N"],
            *(row[key] for key in more),
            *([row["seed"]] if seeds else []),
            f"{row['learning_rate']:.3g}",
        ]
        measured = [
            *map(_count, (row["runs"], row["memorised"], row["censored"])),
            interval(row, "median", ".0f"),
            interval(row, "bits", ".3g"),
        ]
        table.add_row(*("-" if cell is None else str(cell) for cell in own), *measured, row["status"])
    return table


def choices_table(choices: Sequence[Choice]) -> Table:
    """The rate of each condition, and whether a better one may lie beyond the candidates."""
    table = Table(title="learning rates, chosen on the tuning secrets", title_justify="left")
    for heading in ("condition", "N", "rate", "bits per episode", "of the candidates", "note"):
        table.add_column(heading, justify="left" if heading in ("condition", "note") else "right")
    for choice in choices:
        best = next(score for score in choice.scores if score.learning_rate == choice.learning_rate)
        rates = f"{choice.scores[0].learning_rate:.3g} to {choice.scores[-1].learning_rate:.3g}"
        bits = "-" if best.bits_per_episode is None else f"{best.bits_per_episode:.3g}"
        table.add_row(
            choice.condition, str(choice.N), f"{choice.learning_rate:.3g}", bits, rates, _note(choice)
        )
    return table


def _note(choice: Choice) -> str:
    if not choice.decided:
        return "all candidates did the same: the least was taken"
    return "at the edge: a better rate may lie beyond" if choice.at_edge else ""


_ENDS = {
    "median": ("median_episodes", "median_low", "median_high"),
    "bits": ("bits_per_episode", "bits_per_episode_low", "bits_per_episode_high"),
}


def interval(row: Mapping[str, Any], what: str, form: str) -> str:
    """A number of a row with its 95 % interval: what is "median" or "bits"."""
    value, low, high = ("-" if row[key] is None else format(row[key], form) for key in _ENDS[what])
    return "-" if row["runs"] is None else f"{value} [{low}, {high}]"


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)
