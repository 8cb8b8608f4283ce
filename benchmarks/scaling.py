"""Cost against N, binary reward, where only the secret and some samples are scored.

From the warm base to P(S) >= 0.5 and 0.9, for N from 2^4 to 2^20.

    python benchmarks/scaling.py            (some 3 minutes, and once 10 more for the base models)

All N are interleaved, one thread, one run at a time. What is not timed: finding and warming up the base
model, and tokenising the N answers, which a start pays once (`start_s`). Writes scaling.csv, scaling.md and
cost_against_N.png and .svg.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import altair as alt
import numpy as np
import polars as pl
import scipy.stats
import torch
from engine import adapters_of, timed
from problem import THRESHOLDS, Problem, Trace
from rich.console import Console

from memory_rl.policies.paths import PathPolicy

SIZES = tuple(2**power for power in range(4, 21, 2))
FROM, SLOPE_TARGET, RATIO_TARGET = 2**8, 0.15, 4.0


def run_paths(problem: Problem, seed: int, ledger: bool) -> Trace:
    """One run."""
    experiment = problem.configured(seed, ledger=ledger)
    policy = PathPolicy(
        problem.base_model(),
        problem.trie,
        num_runs=1,
        lora=adapters_of(experiment),
        learning_rate=experiment.step_size,
        seed=seed,
    )
    return timed(experiment, policy)[0]


def measure(repeats: int, console: Console) -> pl.DataFrame:
    """A row a run and threshold: seconds, episodes and updates until then."""
    problems, start = {}, {}
    for size in SIZES:
        began = time.perf_counter()
        problems[size] = Problem(N=size, scoring="paths", stop_at=max(THRESHOLDS), max_episodes=200 * size)
        start[size] = time.perf_counter() - began
        console.print(f"N = {size}: ready after {start[size]:.1f} s")
    rows = []
    for repeat in range(-1, repeats):  # the first round warms the machine up and does not count
        for size, problem in problems.items():
            for ledger in (False, True):
                trace = run_paths(problem, seed=1 + repeat, ledger=ledger)
                for threshold in THRESHOLDS:
                    at = trace.first(threshold)
                    reached = (
                        {
                            "wall_s": trace.wall[at],
                            "cpu_s": trace.cpu[at],
                            "episodes": trace.episodes[at],
                            "updates": at,
                        }
                        if at is not None
                        else {}
                    )
                    rows.append(
                        {
                            "N": size,
                            "repeat": repeat,
                            "ledger": ledger,
                            "threshold": threshold,
                            "start_s": start[size],
                            **reached,
                        }
                    )
        console.print(f"round {repeat + 2} of {repeats + 1}")
    return pl.DataFrame(rows, infer_schema_length=None).filter(pl.col("repeat") >= 0)


def slope(runs: pl.DataFrame, column: str) -> tuple[float, float]:
    """Of log(column) against log N from 2^8 on, over all runs, and its standard error."""
    large = runs.filter(pl.col("N") >= FROM).drop_nulls(column)
    fit = scipy.stats.linregress(np.log(large["N"].to_numpy()), np.log(large[column].to_numpy()))
    return fit.slope, fit.stderr


def ratio(runs: pl.DataFrame) -> tuple[float, float, float]:
    """Median CPU seconds at the largest N by those at 2^8, with a 95 % bootstrap interval over repeats."""
    few, many = (
        runs.filter(N=size).sort("repeat")["cpu_s"].drop_nulls().to_numpy() for size in (FROM, SIZES[-1])
    )
    drawn = scipy.stats.bootstrap(
        (many, few),
        lambda a, b, axis: np.median(a, axis=axis) / np.median(b, axis=axis),
        rng=np.random.default_rng(0),
        method="percentile",
    )
    return float(np.median(many) / np.median(few)), *drawn.confidence_interval


def as_markdown(runs: pl.DataFrame) -> str:
    """A table for each threshold, and what the fits say."""
    parts = []
    for (threshold, ledger), part in runs.group_by("threshold", "ledger", maintain_order=True):
        table = part.group_by("N", maintain_order=True).agg(
            pl.col("start_s").first().round(1),
            pl.col("wall_s").median().round(2),
            pl.col("cpu_s").median().round(2),
            pl.col("cpu_s").min().round(2).alias("min"),
            pl.col("cpu_s").max().round(2).alias("max"),
            pl.col("updates").median(),
            pl.col("episodes").median(),
            pl.col("cpu_s").is_null().sum().alias("never"),
        )
        lines = [
            "| " + " | ".join(table.columns) + " |",
            "|" + "---|" * table.width,
            *("| " + " | ".join(map(str, row)) + " |" for row in table.rows()),
        ]
        (cost, error), (episodes, of_episodes), (factor, low, high) = (
            slope(part, "cpu_s"),
            slope(part, "episodes"),
            ratio(part),
        )
        parts.append(
            f"To P(S) >= {threshold}, ledger {'on' if ledger else 'off'}; "
            f"medians over {part['repeat'].n_unique()} repeats:\n\n" + "\n".join(lines) + "\n\n"
            f"From N = {FROM} on: CPU seconds grow with exponent {cost:.3f} (standard error {error:.3f}; "
            f"target at most {SLOPE_TARGET}), "
            f"episodes with {episodes:.3f} ({of_episodes:.3f}). N = {SIZES[-1]} takes {factor:.2f} "
            f"[{low:.2f}, {high:.2f}] times N = {FROM} "
            f"(target at most {RATIO_TARGET:g}).\n"
        )
    return "\n".join(parts)


def plot(runs: pl.DataFrame, others: pl.DataFrame | None) -> alt.LayerChart:
    """CPU seconds against N, beside TRL's as benchmarks/run.py measured them.

    Beyond what was measured: 4 times the N, 4 times the time.
    """
    own = (
        runs.filter(threshold=THRESHOLDS[0], ledger=False)
        .drop_nulls("cpu_s")
        .select("N", s="cpu_s")
        .with_columns(side=pl.lit("engine, paths scored"), kind=pl.lit("measured"))
    )
    frames = [own]
    if others is not None:
        trl = others.filter(side="TRL", condition="binary", threshold=THRESHOLDS[0]).filter(
            pl.col("cpu_s_per_memorised").is_finite()
        )
        measured = trl.select("N", s="cpu_s_per_memorised").sort("N")
        last = measured.row(-1, named=True)
        beyond = pl.DataFrame(
            [{"N": size, "s": last["s"] * size / last["N"]} for size in SIZES if size >= last["N"]]
        )
        for frame, kind in ((measured, "measured"), (beyond, "extrapolated")):
            frames.append(
                frame.with_columns(
                    pl.col("N").cast(pl.Int64),
                    pl.col("s").cast(pl.Float64),
                    side=pl.lit("TRL"),
                    kind=pl.lit(kind),
                )
            )
    data = pl.concat(frames, how="diagonal")
    x = alt.X(
        "N:Q",
        scale=alt.Scale(type="log", base=2),
        axis=alt.Axis(values=list(SIZES), labelExpr="'2^' + round(log(datum.value) / log(2))"),
    )
    seconds = {"scale": alt.Scale(type="log"), "title": "CPU seconds to memorise one secret"}
    y = alt.Y("median(s):Q", **seconds)
    color = alt.Color(
        "side:N",
        title=None,
        scale=alt.Scale(domain=["engine, paths scored", "TRL"], range=["#1f6feb", "#d1242f"]),
    )
    base = alt.Chart(data).encode(x, y, color)
    dash = alt.StrokeDash("kind:N", title=None, sort=["measured", "extrapolated"])
    layers = [
        base.mark_line(strokeWidth=2).encode(strokeDash=dash),
        base.mark_point(filled=True, size=60, opacity=1).transform_filter("datum.kind == 'measured'"),
        alt.Chart(own).mark_point(size=12, opacity=0.5).encode(x, alt.Y("s:Q", **seconds), color),
    ]
    subtitle = [
        "binary reward, one CPU thread; lines through medians",
        "dashed: not measured but extrapolated (same time an episode, episodes in proportion to N)",
    ]
    return alt.LayerChart(layer=layers).properties(
        width=560, height=340, title=alt.Title(f"Time to P(S) >= {THRESHOLDS[0]}", subtitle=subtitle)
    )


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    console = Console()
    runs = measure(options.repeats, console)
    options.out.mkdir(parents=True, exist_ok=True)
    runs.write_csv(options.out / "scaling.csv", float_precision=4)
    text = as_markdown(runs)
    (options.out / "scaling.md").write_text(text, encoding="utf-8")
    console.print(text, markup=False, highlight=False)
    before = options.out / "summary.csv"
    chart = plot(runs, pl.read_csv(before) if before.exists() else None)
    chart.save(str(options.out / "cost_against_N.svg"))
    chart.save(str(options.out / "cost_against_N.png"), scale_factor=2)


if __name__ == "__main__":
    main()
