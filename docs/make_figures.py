"""Makes the figures of the pages, in docs/figures/, but for those of the study: see make_results.py.

python docs/make_figures.py       (under a minute)
    Runs four conditions at N = 64: bits known of three, and the ledger of two.
python docs/make_figures.py capacity=sweeps/capacity
    Draws what the pages show of a sweep that was run as they say:
    python sweep.py protocol=capacity log_path=sweeps/capacity     (an hour)
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import memory_rl
from memory_rl.analysis.collect import find_cells
from memory_rl.reporting.capacity_charts import capacity
from memory_rl.reporting.pictures import draw
from memory_rl.reporting.study import make_study

FIGURES = Path(__file__).parent / "figures"
CONDITIONS = {
    "binary": {"env_type": "single_step", "reward_type": "binary"},
    "binned": {"env_type": "single_step", "reward_type": "binned_log_distance", "reward_bins": 8},
    "log_distance": {"env_type": "single_step", "reward_type": "log_distance"},
    "multi_step": {"env_type": "multi_step"},
}
WANTED = {
    "binary": ("bits_known", "ledger"),
    "binned": ("ledger",),
    "log_distance": ("bits_known",),
    "multi_step": ("bits_known",),
}


SWEEPS = {"capacity": {capacity: "capacity.svg"}}
"""What the pages show of a sweep, by the name of its protocol."""


def of_sweep(name: str, folder: str | Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of the figures of one of `SWEEPS`."""
    study = make_study(find_cells([folder]))
    for make, file in SWEEPS[name].items():
        yield from ((file, content) for _, content in draw(make(study), study))


def of_conditions() -> None:
    """Runs the conditions with their defaults and keeps the wanted figures."""
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in CONDITIONS.items():
            result = memory_rl.train(N=64, log_path=f"{folder}/{name}", **settings)
            for figure in WANTED[name]:
                shutil.copy(
                    result.path / f"figures/{figure}.svg",
                    FIGURES / (f"{name}.svg" if figure == "bits_known" else f"{name}_{figure}.svg"),
                )
            print(result)


def main(words: Sequence[str]) -> None:
    """The figures of the sweeps that are named, or else those of runs of their own."""
    FIGURES.mkdir(exist_ok=True)
    for name, _, folder in (word.partition("=") for word in words):
        for file, content in of_sweep(name, folder):
            (FIGURES / file).write_bytes(content)
    if not words:
        of_conditions()


if __name__ == "__main__":
    main(sys.argv[1:])
