"""Measures the learners of ideas.py beside policy gradient, and the ideal observer's belief as a teacher.

    python studies/ideas_measured.py DIR backend=local [tasks=8bins,binary] [learners=reinforce,Surrogate]

On each base the step size of a learner is the best of FACTORS times the default, on 8 bins, with 16 runs of
TUNING_SEED and 1,000 episodes; with it each task is measured on 32 fresh runs of SEED and 2,000 episodes.
What DIR holds is not measured again. Prints a line as soon as its runs are there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from typing_extensions import override

import memory_rl
from memory_rl import Learner

N, SEED, TUNING_SEED, FACTORS = 64, 1, 101, (0.5, 1.0, 2.0)
DEFAULTS = {"local": 5e-4, "tabular": 0.3}
BINNED = {"reward_type": "binned_log_distance", "reward_bins": 8}
TASKS: dict[str, dict[str, Any]] = {
    "8bins": BINNED,
    "distance": {"reward_type": "log_distance"},
    "binary": {"reward_type": "binary"},
    "8bins_noise05": {**BINNED, "reward_noise": 0.05},
    "8bins_noise20": {**BINNED, "reward_noise": 0.2},
    "binary_noise05": {"reward_type": "binary", "reward_noise": 0.05},
    "8bins_4secrets": {**BINNED, "num_secrets": 4},
    "sums": {"env_type": "multi_step", "credit": "episode"},
}
BUILT_IN = ("reinforce", "posterior")
IDEAS = ("Surrogate", "Arms", "Mirror", "MirrorBest", "Record", "Scout", "Explorer", "Pulled", "Contrast")


class Cut(Learner):
    """Knows that a right answer earns 1 and a wrong one less: throws all grades away."""

    @override
    def advantages(self, returns: np.ndarray) -> np.ndarray:
        return super().advantages((returns >= 1.0).astype(np.float64))


def measure(folder: Path, backend: str, learner: str, factor: float, **keys: Any) -> memory_rl.Result:
    """The runs of one cell, from the folder if they are there."""
    own: Any = Cut if learner == "Cut" else f"{Path(__file__).parent / 'ideas.py'}:{learner}"
    rate, skips = factor * DEFAULTS[backend], {"skip_ahead": False} if learner in ("reinforce", "Cut") else {}
    algorithm = learner if learner in BUILT_IN else own
    return memory_rl.train(
        N=N,
        backend=backend,
        algorithm=algorithm,
        learning_rate=rate,
        log_path=str(folder),
        resume=True,
        **skips,
        **keys,
    )


def rate_of(result: memory_rl.Result) -> float:
    """Bits per episode."""
    (summary,) = result.summary.values()
    return float(summary["bits_per_episode"]["estimate"])


def tuned(folder: Path, backend: str, learner: str) -> float:
    """The best factor on the tuning secrets."""
    settings = {**BINNED, "num_runs": 16, "seed": TUNING_SEED, "max_episodes": 1000}
    rates = [
        rate_of(
            measure(folder / f"{backend}-tuning-{learner}-{factor}", backend, learner, factor, **settings)
        )
        for factor in FACTORS
    ]
    return FACTORS[int(np.argmax(rates))]


def line(result: memory_rl.Result, *words: Any) -> str:
    """What was measured, as a row of a Markdown table."""
    (summary,) = result.summary.values()
    bits, ends = summary["bits_per_episode"], result.metrics.group_by("run").agg(pl.max("episode"))["episode"]
    low, high = (f"{end:.3g}" if end is not None else "-" for end in bits["ci95"])
    cost = 1000 * result.timing["seconds"].max() / ends.sum()
    absorption = summary.get("losses", {}).get("absorption")
    lost = "-" if absorption is None else f"{absorption:.3g}x"
    cells = [
        *words,
        f"{bits['estimate']:.3g} [{low}, {high}]",
        f"{summary['memorised']} of {summary['runs']}",
        lost,
    ]
    return "| " + " | ".join(map(str, [*cells, f"{cost:.2g} ms"])) + " |"


def main() -> None:
    """Prints a row for each task and learner."""
    folder, words = Path(sys.argv[1]), dict(word.split("=") for word in sys.argv[2:])
    backend, print_line = words.get("backend", "local"), Console(width=200, highlight=False).print
    learners = words.get("learners", ",".join([*BUILT_IN, "Cut", *IDEAS])).split(",")
    print_line("| task | learner | factor | bits per episode | memorised | absorption | time an episode |")
    for task in words.get("tasks", ",".join(TASKS)).split(","):
        for learner in learners:
            factor = tuned(folder, backend, learner)
            settings = {**TASKS[task], "num_runs": 32, "seed": SEED, "max_episodes": 2000}
            result = measure(folder / f"{backend}-{task}-{learner}", backend, learner, factor, **settings)
            print_line(line(result, task, learner, factor))


if __name__ == "__main__":
    main()
