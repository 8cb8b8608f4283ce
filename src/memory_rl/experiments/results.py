"""What came out of a sweep: one row per cell, in a table, results.csv and summary.json; tuning is apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from rich.table import Table

from memory_rl.catalogue import KEEP
from memory_rl.experiments.grid import GridCell
from memory_rl.experiments.store import CELLS, SweepDirectory
from memory_rl.experiments.tuning import Choice
from memory_rl.files import Json, to_csv
from memory_rl.reporting.terminal import make_table
from memory_rl.reporting.values import MEDIAN, RATE, measured, number, table_rows
from memory_rl.runs.store import MANIFEST

_IN_ROWS = ("N", "seed", "learning_rate")
_IN_CONDITIONS = ("signal", "env_type", "reward_type", "reward_bins", "reward_noise")

FIELDS = (
    *("id", "command", "condition", "N", "seed", "learning_rate", "status", "why"),
    *("runs", "memorised", "censored", *MEDIAN, "restricted_mean_episodes", *RATE),
    *("capacity", "laws", "seconds"),
)
"""The columns of results.csv; after them come the keys in which the cells differ.

Episodes to memorise and bits per episode have 95 % intervals, and are empty where they lie beyond the budget.
laws: whether both hold, as far as they were checked.
"""


def _make_row(cell: GridCell, directory: SweepDirectory, whys: Mapping[str, str]) -> Json:
    folder = f"{CELLS}/{cell.id}"
    manifest, summary = directory.read_json(f"{folder}/{MANIFEST}") or {}, directory.summary(folder)
    row = {
        **dict.fromkeys(FIELDS),
        **cell.about,
        "status": manifest.get("status", "failed" if cell.id in whys else "not run"),
        "why": whys.get(cell.id) or manifest.get("why"),
    }
    if summary is not None:
        laws = {check["status"] for check in summary.get("checks", {}).values()}
        row |= {name: value for name, value in measured(summary).items() if name in FIELDS}
        row |= {
            "why": None,
            "laws": ", ".join(sorted(laws)) or None,
            "seconds": manifest.get("seconds"),
        }
    return row


def varying_keys(cells: Sequence[GridCell]) -> list[str]:
    """The keys, besides those that each row shows, in which cells of the same condition differ."""
    values: dict[tuple[str, str], set[str]] = {}
    for cell in cells:
        for key in cell.values.keys() - KEEP.union(_IN_ROWS, _IN_CONDITIONS):
            values.setdefault((cell.experiment.condition, key), set()).add(repr(cell.values[key]))
    return sorted({key for (_, key), found in values.items() if len(found) > 1})


def make_rows(cells: Sequence[GridCell], directory: SweepDirectory, whys: Mapping[str, str]) -> list[Json]:
    """One row per reported cell, with the keys in which they differ.

    Args:
        cells: to be reported.
        directory: of the sweep.
        whys: why cells failed that left no manifest, by id.
    """
    keys = varying_keys(cells)
    return [
        {**_make_row(cell, directory, whys), **{key: cell.values.get(key) for key in keys}} for cell in cells
    ]


class SweepSummary(dict[str, Any]):
    """What a sweep measured, as in its summary.json."""

    @property
    def frame(self) -> pl.DataFrame:
        """One row per cell, as in results.csv: its keys, and what came out with 95 % intervals."""
        return as_frame(self["cells"])

    def _repr_html_(self) -> str:
        from memory_rl.reporting.notebook import frame_html

        cells = self["cells"]
        done = sum(row.get("status") == "completed" for row in cells)
        sentence = (
            f"{done} of {len(cells)} cells are complete." if "status" in self else "What it would take."
        )
        frame = self.frame
        return frame_html(sentence, frame[[one.name for one in frame if one.null_count() < len(one)]])


def as_frame(rows: Sequence[Json]) -> pl.DataFrame:
    """Rows as a frame."""
    return pl.DataFrame(rows, infer_schema_length=None, strict=False)


def as_csv(rows: Sequence[Json]) -> bytes:
    """Rows as the content of a CSV file."""
    return to_csv(as_frame(rows)).encode()


def results_table(rows: Sequence[Json], location: str) -> Table:
    """The table that ends a sweep: one row per cell."""
    more = [key for key in (rows[0] if rows else {}) if key not in FIELDS]
    seed = ["seed"] if len({row["seed"] for row in rows}) > 1 else []
    columns = {
        **{name: (name,) for name in ("condition", "N", *more, *seed)},
        "rate": ("learning_rate",),
        **{name: (name,) for name in ("runs", "memorised", "censored")},
        "median [95 % CI]": MEDIAN,
        "bits per episode [95 % CI]": RATE,
        "status": ("status",),
    }
    caption = f"sweep directory: {location}"
    words = table_rows(rows, columns)
    return make_table(columns, words, left=("condition", "status"), caption=caption, caption_justify="left")


def choices_table(choices: Sequence[Choice]) -> Table:
    """The rate of each condition, and whether a better one may lie beyond the candidates."""
    keys = list(dict.fromkeys(key for choice in choices for key in choice.settings))
    headings = (
        *("condition", "N", *keys, "rate", "bits per episode", "at the default rate", "of the candidates"),
        "note",
    )
    rows = []
    for choice in choices:
        found = {score.learning_rate: score.bits_per_episode for score in choice.scores}
        numbers = map(number, (choice.learning_rate, found[choice.learning_rate], found.get(choice.untuned)))
        rates = f"{number(choice.scores[0].learning_rate)} to {number(choice.scores[-1].learning_rate)}"
        apart = (str(choice.settings.get(key, "")) for key in keys)
        rows.append([choice.condition, number(choice.N), *apart, *numbers, rates, _note(choice)])
    title = "learning rates, chosen on the tuning secrets"
    return make_table(headings, rows, left=("condition", "note"), title=title, title_justify="left")


def _note(choice: Choice) -> str:
    if not choice.decided:
        return "all candidates did the same: the least was taken"
    return "at the edge: a better rate may lie beyond" if choice.at_edge else ""
