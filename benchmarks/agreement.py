"""Do all sides learn the same? Episodes to memorise over many more runs than run.py has time for.

Nothing is timed.

`python benchmarks/agreement.py` takes some 8 minutes and writes results/agreement.csv.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import scipy.stats
import torch
from problem import Problem, Trace
from rich.console import Console
from run import BINNED, ENGINE_16, NAIVE, SIDES, TRL, TRL_SKIP

RUNS, ENGINE_SEEDS = 48, range(1, 13)  # 12 x 16 runs of the engine
CASES = (
    ({"N": 64, "max_episodes": 1500}, (NAIVE, TRL_SKIP, TRL)),
    ({"N": 64, "env_type": "multi_step", "max_episodes": 400}, (NAIVE,)),
    ({"N": 64, "max_episodes": 600, **BINNED}, (NAIVE, TRL_SKIP)),
)


def episodes(traces: list[Trace], threshold: float = 0.5) -> np.ndarray:
    """Episodes until P(S) >= threshold; infinite where it never was."""
    first = [trace.first(threshold) for trace in traces]
    return np.array(
        [np.inf if at is None else trace.episodes[at] for trace, at in zip(traces, first, strict=True)]
    )


def main() -> None:
    """Prints and writes a row for each case and side: quartiles, and the Mann-Whitney p against the engine.

    A run that never memorised comes last.
    """
    torch.set_num_threads(1)
    rows = []
    for settings, sides in CASES:
        problem = Problem(stop_at=0.5, **settings)
        engine = episodes([trace for seed in ENGINE_SEEDS for trace in SIDES[ENGINE_16](problem, seed)])
        found = {"engine": engine} | {
            side: episodes([trace for seed in range(101, 101 + RUNS) for trace in SIDES[side](problem, seed)])
            for side in sides
        }
        for side, values in found.items():
            row = {
                "condition": problem.experiment.condition,
                "side": side,
                "runs": len(values),
                "memorised": int(np.isfinite(values).sum()),
            }
            row |= {
                f"q{percent}": float(np.quantile(values, percent / 100, method="inverted_cdf"))
                for percent in (25, 50, 75)
            }
            rows.append({**row, "p_same_as_engine": float(scipy.stats.mannwhitneyu(values, engine).pvalue)})
            Console().print(rows[-1])
    out = Path(__file__).parent / "results"
    out.mkdir(exist_ok=True)
    pl.DataFrame(rows).write_csv(out / "agreement.csv", float_precision=4)


if __name__ == "__main__":
    main()
