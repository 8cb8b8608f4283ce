"""Makes the three pictures of the README: bits known against episodes at N = 64 for binary, continuous and per-bit reward.

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
    "log_distance": {"env_type": "single_step", "reward_type": "log_distance"},
    "multi_step": {"env_type": "multi_step"},
}


def main() -> None:
    """Runs the three conditions with their defaults and keeps the figures."""
    FIGURES.mkdir(exist_ok=True)
    for name, settings in CONDITIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            result = memory_rl.train(N=64, log_path=f"{folder}/run", **settings)
            shutil.copy(result.path / "figures/bits_known.svg", FIGURES / f"{name}.svg")
        print(result)


if __name__ == "__main__":
    main()
