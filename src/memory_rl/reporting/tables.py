"""The report's numbers: as a CSV with one row per cell, and as the tables of page and Markdown summary."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import polars as pl

from memory_rl.analysis.collect import Cell
from memory_rl.catalogue import KEEP
from memory_rl.errors import first_few
from memory_rl.files import printable
from memory_rl.reporting.answer import Answer, against
from memory_rl.reporting.capacity import capacity_tables
from memory_rl.reporting.claims import stuck_of_row
from memory_rl.reporting.headline import ceiling, share_of_ceiling
from memory_rl.reporting.study import Study
from memory_rl.reporting.values import MEDIAN, OTHERS, RATE, WordTable, measured, spread, word_table

_RESULTS = {
    "condition": "label",
    "N": "N",
    "bits per episode [95 %]": RATE,
    "of ceiling": "share",
    "ceiling": "ceiling",
    "ratio to the fastest [95 %]": spread("ratio"),
    "p": "p",
    "median episodes [95 %]": MEDIAN,
    "memorised": "memorised",
    "of runs": "runs",
    "stuck": "stuck_words",
    "bits per episode of the others [95 %]": OTHERS,
    "alphabet \u00f7": "alphabet_loss",
    "exploration \u00f7": spread("exploration_loss"),
    "absorption \u00f7": spread("absorption_loss"),
}


def tables(study: Study, answer: Answer) -> list[WordTable]:
    """All results, and what is stored by the cells with several secrets or other adapters than LoRA.

    A ratio and its p value are of bits per episode against the fastest condition of the same N.
    """
    compared = against(answer)
    rows = [
        {
            "label": entry.label,
            "N": entry.N,
            **(found := measured(entry.summary, entry.cell.settings.get("max_episodes"))),
            **_of_stuck(found),
            "share": share_of_ceiling(entry.summary),
            "ceiling": ceiling(entry.summary),
            **compared.get(str(entry.cell.path), {}),
        }
        for entry in study.entries
    ]
    columns = (
        _RESULTS
        if answer.some_stuck
        else {
            heading: column for heading, column in _RESULTS.items() if column not in ("stuck_words", OTHERS)
        }
    )
    table = word_table("results", rows, columns)
    reach = " ".join(filter(None, [f"In brackets: 95 %, {answer.over}.", answer.unseen]))
    return [replace(table, reading=f"{table.reading} {reach}"), *capacity_tables(study)]


def _of_stuck(row: dict[str, Any]) -> dict[str, Any]:
    """The columns about runs that are stuck, which are empty where none is."""
    stuck = stuck_of_row(row)
    if stuck and stuck.some:
        return {"stuck_words": stuck.in_a_column()}
    return {"stuck_words": None, **dict.fromkeys(OTHERS)}


def laws(study: Study) -> list[str]:
    """What the two laws that every honest experiment obeys say of these cells; a sentence an outcome."""
    told = defaultdict[str, dict[str, None]](dict)
    for entry in study.entries:
        for check in entry.summary.get("checks", {}).values():
            why = f", because {check['why']}" if check.get("why") else ""
            told[f"{check['law']}: {check['status']}{why}"][f"{entry.label} at N = {entry.N}"] = None
    cells = sum("checks" in entry.summary for entry in study.entries)
    return [
        f"{words}, in {'all' if len(names) == cells else first_few([*names])}."
        for words, names in told.items()
    ]


def about(study: Study) -> str:
    """What the report covers, in a sentence."""
    runs = sum(entry.summary["runs"] for entry in study.entries)
    conditions = {entry.label for entry in study.entries}
    counts = {"cell": len(study.cells), "run": runs, "condition": len(conditions)}
    cells, of_runs, of_conditions = (
        f"{count} {thing}{'' if count == 1 else 's'}" for thing, count in counts.items()
    )
    return f"{cells} with {of_runs} of {of_conditions} at N = {', '.join(map(str, study.sizes))}."


def cells_frame(study: Study) -> pl.DataFrame:
    """One row per cell: what came out of it, then its configuration as `config.<key>`.

    Unfinished and damaged ones have their status and nulls.
    """
    rows = [
        {
            **_about(entry.label, cell),
            **measured(cell.summary, cell.settings.get("max_episodes")),
            "tokens": cell.summary.get("tokens"),
            "seconds": cell.manifest.get("seconds"),
        }
        for entry in study.entries
        for cell in entry.sample.cells
    ]
    rows += [_about(cell.condition, cell) for cell in study.unfinished]
    rows += [{"status": damage.how, "path": printable(damage.path)} for damage in study.damages]
    names = dict.fromkeys(name for row in rows for name in row)
    ordered = sorted(names, key=lambda name: name.startswith(_CONFIG))
    return pl.DataFrame({name: _column([row.get(name) for row in rows]) for name in ordered})


_CONFIG = "config."


def _column(values: list[Any]) -> pl.Series:
    """A column of numbers if all are numbers, else of texts."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or kinds == {bool}:
        return pl.Series(values, dtype=pl.Float64 if float in kinds else None)
    return pl.Series([None if value is None else printable(value) for value in values], dtype=pl.String)


def _about(label: str, cell: Cell) -> dict[str, Any]:
    config = {_CONFIG + key: value for key, value in cell.config.items() if key not in (*KEEP, "N")}
    return {
        "label": label,
        "condition": cell.condition,
        "kind": cell.kind,
        "N": cell.N,
        "status": cell.manifest["status"],
        "path": printable(cell.path),
        **config,
    }
