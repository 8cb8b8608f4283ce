"""Makes the pictures of the README at N = 64: bits known of three conditions, and the ledger of two.

python docs/make_figures.py       (under a minute; writes docs/figures/)
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import memory_rl

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


def main() -> None:
    """Runs the conditions with their defaults and keeps the wanted figures."""
    FIGURES.mkdir(exist_ok=True)
    for name, settings in CONDITIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            result = memory_rl.train(N=64, log_path=f"{folder}/run", **settings)
            for figure in WANTED[name]:
                shutil.copy(
                    result.path / f"figures/{figure}.svg",
                    FIGURES / (f"{name}.svg" if figure == "bits_known" else f"{name}_{figure}.svg"),
                )
        print(result)


if __name__ == "__main__":
    main()
