"""The report's numbers as a CSV (a row a cell) and as a Markdown summary."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from memory_rl.analysis.collect import Cell
from memory_rl.experiment import KEEP
from memory_rl.reporting.capacity import CAPACITY_HEADINGS, POINT_HEADINGS, capacity_rows, point_rows
from memory_rl.reporting.drawing import Figure
from memory_rl.reporting.provenance import Judgement, command_of
from memory_rl.reporting.study import Study
from memory_rl.reporting.wording import table_rows

_TABLE = {
    "condition": ("label",),
    "N": ("N",),
    "runs": ("runs",),
    "memorised": ("memorised",),
    "median episodes [95 %]": ("median_episodes", "median_low", "median_high"),
    "bits per episode [95 %]": ("bits_per_episode", "bits_per_episode_low", "bits_per_episode_high"),
    "capacity": ("capacity",),
    "alphabet": ("alphabet_loss",),
    "exploration": ("exploration_loss",),
    "absorption": ("absorption_loss",),
}
HEADINGS = tuple(_TABLE)


def cells_frame(study: Study) -> pl.DataFrame:
    """A row a cell: what came out of it, then its configuration as `config.<key>`. Unfinished cells have
    their status and nulls.
    """
    rows = [
        {
            **_about(entry.label, entry.cell),
            **measured(entry.summary),
            "tokens": entry.summary.get("tokens"),
            "seconds": entry.cell.manifest.get("seconds"),
            **_config(entry.cell),
        }
        for entry in study.entries
    ]
    rows += [{**_about(cell.condition, cell), **_config(cell)} for cell in study.unfinished]
    names = dict.fromkeys(name for row in rows for name in row)
    ordered = sorted(names, key=lambda name: name.startswith(_CONFIG))
    return pl.DataFrame({name: _column([row.get(name) for row in rows]) for name in ordered})


_CONFIG = "config."


def _column(values: list[Any]) -> pl.Series:
    """Of numbers if all are numbers, else of texts."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or kinds == {bool}:
        return pl.Series(values, dtype=pl.Float64 if float in kinds else None)
    return pl.Series([None if value is None else str(value) for value in values], dtype=pl.String)


def _about(label: str, cell: Cell) -> dict[str, Any]:
    return {
        "label": label,
        "condition": cell.condition,
        "kind": cell.kind,
        "N": cell.N,
        "status": cell.manifest["status"],
        "path": str(cell.path),
    }


def _config(cell: Cell) -> dict[str, Any]:
    return {_CONFIG + key: value for key, value in cell.config.items() if key not in (*KEEP, "N")}


def measured(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What came out of a cell, a number a column; with intervals as `_low` and `_high`."""
    episodes, rate, limits = summary["episodes_to_memorise"], summary["bits_per_episode"], summary["ceilings"]
    row = {name: summary[name] for name in ("runs", "memorised", "censored")} | {
        "median_episodes": episodes["median"],
        "median_low": episodes["ci95"][0],
        "median_high": episodes["ci95"][1],
        "restricted_mean_episodes": episodes["restricted_mean"],
        "bits_per_episode": rate["estimate"],
        "bits_per_episode_low": rate["ci95"][0],
        "bits_per_episode_high": rate["ci95"][1],
        "capacity": limits["capacity"],
        "shannon_capacity": limits["shannon_capacity"],
    }
    if "rates" in summary:
        row |= {f"{mind}_rate": summary["rates"][mind]["estimate"] for mind in ("questioner", "observer")}
        row |= {f"{step}_loss": factor for step, factor in summary["losses"].items()}
        row |= {f"law_{name}": check["status"] for name, check in summary["checks"].items()}
    return row


def result_rows(study: Study) -> list[list[str]]:
    """The table of the page and of the Markdown summary, as words; the headings are `HEADINGS`."""
    return table_rows(cells_frame(replace(study, unfinished=())), _TABLE)


def markdown(title: str, study: Study, judgements: Sequence[Judgement], figures: Sequence[Figure]) -> str:
    """The summary as Markdown; figures are linked beside it. Texts of users are escaped."""
    parts = [f"# {_plain(title)}", about(study)]
    for judgement in judgements:
        parts += _judgement_lines(judgement)
    parts += ["## Results", _table([list(HEADINGS), *result_rows(study)]), _unfinished(study)]
    for heading, names, rows in (
        ("Capacities", CAPACITY_HEADINGS, capacity_rows(study)),
        ("Sizes and secrets", POINT_HEADINGS, point_rows(study)),
    ):
        parts += [f"### {heading}", _table([list(names), *rows])] if rows else []
    for figure in figures:
        body = (
            [f"![{figure.title}](figures/{figure.name}.svg)", *figure.reading]
            if figure.panels
            else [f"Left out: {figure.missing}."]
        )
        parts += [f"## {figure.title}", *body, *figure.notes]
    commands = "\n".join(dict.fromkeys(command_of(entry.cell) for entry in study.entries))
    parts += ["## Commands", f"```sh\n{commands}\n```"]
    return "\n\n".join(part for part in parts if part) + "\n"


def about(study: Study) -> str:
    """What the report is over, in a sentence."""
    runs, conditions = (
        sum(entry.summary["runs"] for entry in study.entries),
        len({entry.cell.condition for entry in study.entries}),
    )
    counts = f"{_counted(len(study.entries), 'cell')} with {_counted(runs, 'run')} of {_counted(conditions, 'condition')}"
    return f"{counts} at N = {', '.join(map(str, study.sizes))}."


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _judgement_lines(judgement: Judgement) -> list[str]:
    protocol = judgement.protocol
    rows = [["", "claim", "verdict", "why"]]
    rows += [
        [verdict.id, verdict.claim, f"**{verdict.verdict}**", verdict.reason]
        for verdict in judgement.verdicts
    ]
    changed = " The file was changed after the sweep began." if judgement.changed else ""
    return [
        f"## Verdicts: {_plain(protocol.name)}",
        _table(rows),
        f"Protocol {_plain(protocol.name)}, SHA-256 `{protocol.sha256}`.{changed}",
    ]


def _unfinished(study: Study) -> str:
    if not study.unfinished:
        return ""
    cells = ", ".join(f"{_plain(str(cell.path))} ({cell.manifest['status']})" for cell in study.unfinished)
    return f"Not completed, and in no figure: {cells}."


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = [[cell if cell.startswith("**") else _plain(cell) for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Without meaning in Markdown or HTML."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", flat)
