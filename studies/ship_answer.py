"""Adds what sweeps measured to the files of the study that docs/results.md is made from.

    python sweep.py protocol=answer executor=processes workers=2 log_path=sweeps/answer
    python studies/ship_answer.py sweeps/answer
    python docs/make_results.py

They are answer.parquet, a row per reported run, and answer_tuning.parquet, the same of the contests' runs;
answer_choices.json, what these chose, and answer.csv, a row per condition, N, recipe and role, follow from
them. A place may be a sweep, a run directory, or a folder of them, and need not be finished: with
known=studies/answer.parquet,studies/answer_tuning.parquet the sweep goes on elsewhere, in a directory of its
own. To begin anew, delete the tables.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import polars as pl
from rich.console import Console

from memory_rl.analysis.collect import Cell, find_cells
from memory_rl.analysis.study_numbers import DEFAULT, StudyNumbers, recipe_of
from memory_rl.analysis.study_table import from_table, to_table
from memory_rl.errors import MemoryRLError
from memory_rl.experiments.found import Found
from memory_rl.experiments.store import CELLS, TUNING, SweepDirectory
from memory_rl.experiments.sweep import make_plan
from memory_rl.files import Json, to_csv, to_json, write_whole

FOLDER = Path(__file__).parent
PROTOCOLS = ("answer", "answer-text")
TABLE, TUNING_TABLE = "answer.parquet", "answer_tuning.parquet"
OF_CHOICE = (
    *("condition", "N", "settings", "learner", "group_size", "learning_rate", "factor", "untuned"),
    *("candidates", "rounds", "runs", "stuck", "median", "taken_from", "widened", "at_edge", "decided"),
)
"""What is kept of a choice, where it has it."""


def ship(places: Sequence[Path], folder: Path = FOLDER) -> StudyNumbers:
    """Adds the runs of these places to the tables in a folder, and returns the numbers that they give."""
    of_tuning = [found for place in places for found in place.rglob(TUNING)]
    of_cells = [place for place in places if not (place / TUNING).is_dir() or (place / CELLS).is_dir()]
    reported = with_cells(folder / TABLE, map(with_role, _cells(of_cells)))
    tuning = with_cells(folder / TUNING_TABLE, _cells(of_tuning))
    numbers = StudyNumbers.of(from_table(reported))  # raises before anything is written
    keep(reported, folder / TABLE)
    keep(tuning, folder / TUNING_TABLE)
    chosen = json.dumps(choices(folder), indent=1, sort_keys=True) + "\n"
    write_whole(folder / "answer_choices.json", chosen)
    write_whole(folder / "answer.csv", to_csv(as_frame(numbers)))
    return numbers


def with_cells(table: Path, cells: Iterable[Cell]) -> pl.DataFrame:
    """The table of a file, or an empty one, with these cells added."""
    before = from_table(pl.read_parquet(table)) if table.is_file() else []
    return to_table([*before, *from_table(without_places(to_table(cells)))])


def keep(table: pl.DataFrame, file: Path) -> None:
    """Writes a table whole or not at all."""
    write_whole(file, partial(table.write_parquet, compression="zstd"))


def _cells(places: Sequence[Path]) -> list[Cell]:
    return find_cells(places) if places else []


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


def choices(folder: Path = FOLDER) -> list[Json]:
    """What the contests chose that are over, played again from the table of their runs."""
    found = list[Json]()
    for protocol in PROTOCOLS:
        plan = make_plan([f"protocol={protocol}", "quiet=true", f"known={folder / TUNING_TABLE}"])
        plan.choose(Found(SweepDirectory(str(folder / "none")), known=plan.known))
        found += [json.loads(to_json(asdict(one))) for one in plan.choices]
    return [{name: one[name] for name in OF_CHOICE if name in one} for one in found]


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
