"""Makes the table of measured learners that comes with the package, from finished sweeps.

    python sweep.py protocol=learners executor=processes workers=2 log_path=sweeps/learners
    python studies/ship_learners.py sweeps/learners [sweeps/learners-tabular ...]

Each sweep replaces the rows of its protocol and backend in src/memory_rl/studies/learners.parquet; the others
stay. Learners of a user's own are left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import polars as pl
from rich.console import Console

from memory_rl.analysis.collect import Cell, find_cells
from memory_rl.analysis.entrants import runs_of
from memory_rl.analysis.shipped import SHIPPED

TABLE = Path(__file__).parents[1] / "src/memory_rl/studies/learners.parquet"


def rows_of(folder: Path) -> pl.DataFrame:
    """The runs of a finished sweep of a protocol with learners, with the columns of `SHIPPED`."""
    record, summary = (json.loads((folder / name).read_text()) for name in ("sweep.json", "summary.json"))
    cells = [cell for cell in find_cells([folder]) if ":" not in cell.settings["algorithm"]]
    lacking = [row["id"] for row in summary["cells"] if row["status"] not in ("completed", "failed")]
    if lacking or record["protocol"] is None:
        sys.exit(f"{folder} is no finished sweep of a protocol: complete it with its own command.")
    frames = [
        runs_of([cell]).with_columns(
            protocol=pl.lit(record["protocol"]["name"]),
            sha256=pl.lit(record["protocol"]["sha256"]),
            backend=pl.lit(cell.config["backend"]),
            at_edge=pl.lit(_at_edge(cell, summary["tuning"] or [])),
        )
        for cell in cells
    ]
    return pl.concat(frames).select(pl.col(name).cast(kind) for name, kind in SHIPPED.items())


def _at_edge(cell: Cell, choices: list[dict]) -> bool | None:
    """Whether its learning rate was the least or the greatest of those that differ; None if not tuned."""
    for choice in choices:
        wanted = {**choice["settings"], "N": choice["N"]}
        if cell.condition == choice["condition"] and all(
            cell.config.get(key) == value for key, value in wanted.items()
        ):
            return bool(choice["at_edge"] and choice["decided"])
    return None


def ship(folders: list[Path], table: Path = TABLE) -> pl.DataFrame:
    """Writes the rows of these sweeps into the table, and returns all of it."""
    new = pl.concat([rows_of(folder) for folder in folders])
    same = ["protocol", "backend"]
    kept = pl.read_parquet(table).join(new.select(same), on=same, how="anti") if table.exists() else None
    rows = new if kept is None else pl.concat([kept, new])
    rows.write_parquet(table, compression="zstd")
    return rows


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("which sweep? type python studies/ship_learners.py sweeps/learners")
    shipped = ship([Path(word) for word in sys.argv[1:]])
    counts = shipped.group_by("protocol", "backend").agg(runs=pl.len(), learners=pl.n_unique("learner"))
    for row in counts.sort("protocol", "backend").iter_rows(named=True):
        Console().print(", ".join(f"{key}: {value}" for key, value in row.items()))
    Console().print(f"{TABLE}: {TABLE.stat().st_size:,} bytes", soft_wrap=True)
