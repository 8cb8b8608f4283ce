"""Makes the table of reference runs that comes with the package, from a finished sweep.

python sweep.py protocol=studies/reference.yaml executor=processes workers=2 log_path=sweeps/reference
python studies/ship_reference.py sweeps/reference
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console

from memory_rl.analysis.collect import find_cells
from memory_rl.analysis.reference import SHIPPED, curves, settings_compared
from memory_rl.analysis.samples import Sample, gather

TABLE = Path(__file__).parents[1] / "src/memory_rl/studies/reference.parquet"
POINTS = 32


def grid(sample: Sample) -> np.ndarray:
    """Episodes from the first update to the end of the last run, evenly spaced on a logarithmic scale."""
    after = [cell.metrics["episode"] for cell in sample.cells]
    first = min(int(episodes.filter(episodes > 0).min()) for episodes in after)
    last = max(int(episodes.max()) for episodes in after)
    return np.unique(np.geomspace(first, last, POINTS).round().astype(int))


def rows_of(sample: Sample) -> pl.DataFrame:
    """The runs of one estimator, with the columns of `SHIPPED`; bits to two decimals."""
    episodes = grid(sample)
    bits = curves(sample, episodes).round(2)
    columns = {
        "settings": [json.dumps(settings_compared(sample), sort_keys=True)] * len(bits),
        "episodes": [episodes.tolist()] * len(bits),
        "bits_known": bits.tolist(),
    }
    return pl.DataFrame(columns, schema=SHIPPED)


def ship(folder: Path, table: Path = TABLE) -> pl.DataFrame:
    """Writes the table, and returns it."""
    samples = sorted(gather(find_cells([folder])), key=lambda sample: str(sample.first.path))
    rows = pl.concat([rows_of(sample) for sample in samples])
    rows.write_parquet(table, compression="zstd")
    return rows


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("which sweep? type python studies/ship_reference.py sweeps/reference")
    shipped = ship(Path(sys.argv[1]))
    estimators = shipped["settings"].n_unique()
    Console().print(f"{shipped.height} runs of {estimators} estimators, {TABLE.stat().st_size:,} bytes")
