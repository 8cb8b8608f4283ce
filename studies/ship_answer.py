"""Makes the files of the study that docs/results.md is made from, from finished sweeps or run directories.

python sweep.py protocol=answer executor=processes workers=2 log_path=sweeps/answer
python studies/ship_answer.py sweeps/answer
python docs/make_results.py

They are answer.parquet, a row per run; answer_choices.json, what the contests chose; and answer.csv, a row
per condition, N, recipe and role. A place may be a sweep, a run directory, or a folder of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
from rich.console import Console

from memory_rl.analysis.collect import Cell, find_cells
from memory_rl.analysis.study_numbers import DEFAULT, StudyNumbers, recipe_of
from memory_rl.analysis.study_table import from_table, to_table
from memory_rl.errors import MemoryRLError
from memory_rl.files import Json, to_csv

FOLDER = Path(__file__).parent
OF_CHOICE = (
    *("condition", "N", "settings", "learner", "group_size", "learning_rate", "factor", "untuned"),
    *("candidates", "rounds", "runs", "stuck", "median", "taken_from", "widened", "at_edge", "decided"),
)
"""What is kept of a choice, where it has it."""


def ship(places: Sequence[Path], folder: Path = FOLDER) -> StudyNumbers:
    """Writes the three files, and returns the numbers that they give."""
    table = without_places(to_table(map(with_role, find_cells(places))))
    numbers = StudyNumbers.of(from_table(table))
    chosen = json.dumps(choices(places), indent=1, sort_keys=True) + "\n"
    table.write_parquet(folder / "answer.parquet", compression="zstd")
    (folder / "answer_choices.json").write_text(chosen, encoding="utf-8")
    (folder / "answer.csv").write_text(to_csv(as_frame(numbers)), encoding="utf-8")
    return numbers


def with_role(cell: Cell) -> Cell:
    """The cell, as one of the default learner if no sweep gave it a role."""
    if cell.config.get("role"):
        return cell
    return replace(cell, manifest={**cell.manifest, "config": {**cell.config, "role": DEFAULT}})


def as_frame(numbers: StudyNumbers) -> pl.DataFrame:
    """One row per sample; numbers to six digits, which do not depend on the machine."""
    frame = pl.DataFrame(numbers.rows(), infer_schema_length=None)
    return frame.with_columns(pl.selectors.float().round_sig_figs(6))


def without_places(table: pl.DataFrame) -> pl.DataFrame:
    """The table with names of models in place of the folders where they lay."""
    folders = {str(cell.settings["model_name"]): recipe_of(cell) for cell in from_table(table) if _lies(cell)}
    for folder, name in folders.items():
        named = pl.col("manifest").str.replace_all(json.dumps(folder), json.dumps(name), literal=True)
        table = table.with_columns(named)
    return table


def _lies(cell: object) -> bool:
    return Path(str(cell.settings.get("model_name", ""))).is_absolute()


def choices(places: Sequence[Path]) -> list[Json]:
    """What the contests of these sweeps chose."""
    found = (json.loads((place / "summary.json").read_text()) for place in places if _is_sweep(place))
    return [
        {name: one[name] for name in OF_CHOICE if name in one}
        for summary in found
        for one in summary.get("tuning") or []
    ]


def _is_sweep(place: Path) -> bool:
    return (place / "sweep.json").is_file() and (place / "summary.json").is_file()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("which sweeps? type python studies/ship_answer.py sweeps/answer")
    try:
        shipped = ship([*map(Path, sys.argv[1:])])
    except MemoryRLError as error:
        Console(stderr=True).print(str(error), soft_wrap=True)
        sys.exit(2)
    runs = sum(sample.runs for sample in shipped.samples.values())
    Console().print(f"{runs} runs of {len(shipped.samples)} samples, for python docs/make_results.py")
