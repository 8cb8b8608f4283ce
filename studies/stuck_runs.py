"""Where the runs end that never memorise from a distance reward.

    python studies/stuck_runs.py          (about half a minute on one core)

For each run that has not memorised S within its budget: the answer it gives most in its last 200 episodes,
how far that is from S, its share of those answers, and the fraction of silent groups in the second half of
the budget.
"""

from __future__ import annotations

import polars as pl
from rich.console import Console
from rich.table import Table

import memory_rl

CONDITIONS = {
    "log_distance": {"reward_type": "log_distance"},
    "binned_log_distance B=8": {"reward_type": "binned_log_distance", "reward_bins": 8},
}


def stuck_runs(result: memory_rl.Result) -> pl.DataFrame:
    """A row a stuck run: run, secret, answer, share, silent, distance."""
    budget = result.metrics["episode"].max()
    secrets = result.metrics.filter(pl.col("episode") == budget, pl.col("bits_known") < 5).select(
        "run", "secret"
    )
    late = result.episodes.filter(pl.col("episode") > budget - 200).join(secrets, on="run")
    counts = (
        late.group_by("run", "secret", "answer")
        .len()
        .sort("len", descending=True)
        .group_by("run", "secret")
        .first()
    )
    silent = (
        result.metrics.filter(pl.col("episode") > budget / 2)
        .group_by("run")
        .agg(silent=pl.col("zero_advantage_fraction").mean())
    )
    return (
        counts.join(silent, on="run")
        .with_columns(share=pl.col("len") / 200, distance=(pl.col("answer") - pl.col("secret")).abs())
        .select("run", "secret", "answer", "distance", "share", "silent")
        .sort("run")
    )


def main() -> None:
    """Prints a table for each condition."""
    for name, settings in CONDITIONS.items():
        result = memory_rl.train(
            N=64, num_runs=64, seed=1, skip_ahead=False, **settings
        )  # every answer has its row
        rows = stuck_runs(result)
        table = Table(*rows.columns, title=f"{name}: {rows.height} of 64 runs stuck")
        for row in rows.iter_rows():
            table.add_row(*(f"{value:.3g}" for value in row))
        Console().print(table)


if __name__ == "__main__":
    main()
