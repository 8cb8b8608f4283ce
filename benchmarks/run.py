"""Times this engine, a hand-written Hugging Face + PEFT loop and TRL's GRPOTrainer on the same experiments.

They are interleaved in one run.

    python benchmarks/run.py             (some 5 minutes)
    python benchmarks/run.py --quick     (under a minute: 3 repeats, small N)

Needs `pip install -c constraints.txt -e .[benchmarks]`. What is timed, and what each side is not charged for:
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore", category=FutureWarning)  # of transformers about itself

import altair as alt  # noqa: E402
import numpy as np  # noqa: E402
import polars as pl  # noqa: E402
import scipy.stats  # noqa: E402
import torch  # noqa: E402
from engine import run_engine  # noqa: E402
from naive import run_naive  # noqa: E402
from problem import THRESHOLDS, Problem, Trace  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from trl_loop import run_trl  # noqa: E402

ENGINE, ENGINE_16, PATHS, PATHS_16, NAIVE, TRL, TRL_SKIP = (
    "engine R=1",
    "engine R=16",
    "engine R=1, paths",
    "engine R=16, paths",
    "HF + PEFT loop",
    "TRL",
    "TRL, no silent steps",
)
SIDES: dict[str, Callable[[Problem, int], list[Trace]]] = {
    ENGINE: lambda problem, seed: run_engine(problem, seed, 1),
    ENGINE_16: lambda problem, seed: run_engine(problem, seed, 16),
    PATHS: lambda problem, seed: run_engine(problem, seed, 1, "paths"),
    PATHS_16: lambda problem, seed: run_engine(problem, seed, 16, "paths"),
    NAIVE: lambda problem, seed: [run_naive(problem, seed)],
    TRL: lambda problem, seed: [run_trl(problem, seed)],
    TRL_SKIP: lambda problem, seed: [run_trl(problem, seed, skip_silent=True)],
}


@dataclass(frozen=True)
class Case:
    """A condition, who runs it, and in how many of the repeats at most."""

    condition: str
    settings: dict[str, Any]
    sides: tuple[str, ...] = tuple(SIDES)
    most_repeats: int = 1000


BINNED = {"reward_type": "binned_log_distance", "reward_bins": 8}
_NO_TRL = (ENGINE, ENGINE_16, PATHS, PATHS_16, NAIVE)
_QUICK = (*_NO_TRL, TRL)
CASES = (
    Case("binary", {"N": 16}),
    Case("binary", {"N": 64}),
    Case("binary", {"N": 256, "max_episodes": 4000}),
    Case("binary", {"N": 1024}, (ENGINE,), most_repeats=5),
    Case("binned_log_distance B=8", {"N": 64, "max_episodes": 1000, **BINNED}),
    Case("multi_step", {"N": 64, "env_type": "multi_step", "max_episodes": 1000}, _NO_TRL),
)
QUICK = (
    Case("binary", {"N": 16}, _QUICK),
    Case("binary", {"N": 64}, _QUICK),
    Case("binned_log_distance B=8", {"N": 64, "max_episodes": 200, **BINNED}, _QUICK),
    Case("multi_step", {"N": 64, "env_type": "multi_step", "max_episodes": 100}, _NO_TRL),
)


def measure(cases: tuple[Case, ...], repeats: int, console: Console) -> tuple[pl.DataFrame, np.ndarray]:
    """Every side of every case in turn, `repeats` times over.

    Returns:
        A row for each run and threshold, and the peak GEMM rate (repeats,) in GFLOP/s, taken between the
        rounds.
    """
    problems = [Problem(stop_at=max(THRESHOLDS), **case.settings) for case in cases]
    for case in cases:  # a rehearsal, so that nobody is charged for first calls
        for side in case.sides:
            SIDES[side](Problem(stop_at=0.9, **{**case.settings, "max_episodes": 16}), 0)
    rows: list[dict[str, Any]] = []
    gemm = []
    for repeat in range(1, repeats + 1):
        start = perf_counter()
        gemm.append(gemm_rate())
        for case, problem in zip(cases, problems, strict=True):
            if repeat > case.most_repeats:
                continue
            shift = repeat % len(case.sides)
            for side in case.sides[shift:] + case.sides[:shift]:
                about = {
                    "condition": case.condition,
                    "N": problem.experiment.world.N,
                    "side": side,
                    "repeat": repeat,
                }
                for run, trace in enumerate(SIDES[side](problem, seed=repeat)):
                    rows.extend({**about, "run": run, **row} for row in until(trace))
        console.print(f"repeat {repeat} of {repeats}: {perf_counter() - start:.0f} s")
    return pl.DataFrame(rows), np.array(gemm)


def until(trace: Trace) -> Iterator[dict[str, Any]]:
    """For each threshold: episodes and time until P(S) reached it, or until the budget was spent."""
    for threshold in THRESHOLDS:
        first = trace.first(threshold)
        at = -1 if first is None else first
        measuring = trace.measuring * (trace.episodes[at] / trace.episodes[-1])
        times = {"wall_s": trace.wall[at], "cpu_s": trace.cpu[at], "measuring_s": measuring}
        yield {
            "threshold": threshold,
            "memorised": first is not None,
            "episodes": trace.episodes[at],
            **times,
        }


def gemm_rate(size: int = 2048, times: int = 3) -> float:
    """The best of a few large float32 matrix products on one thread, in GFLOP/s."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(times):
        start = perf_counter()
        torch.mm(left, right)
        best = min(best, perf_counter() - start)
    return 2 * size**3 / best / 1e9


def summarise(runs: pl.DataFrame) -> pl.DataFrame:
    """A row for each case, threshold and side.

    `x_` are ratios to the engine with R=1 in the same repeats (above 1: slower).
    """
    rows = []
    for (condition, N, threshold), case in runs.group_by("condition", "N", "threshold", maintain_order=True):
        sides = dict(case.partition_by("side", as_dict=True, maintain_order=True, include_key=True))
        engine, reference = sides[ENGINE,], sides.get((ENGINE_16,), sides[ENGINE,])
        for side in [name for name in SIDES if (name,) in sides]:
            own = sides[side,]
            row: dict[str, Any] = {
                "condition": condition,
                "N": N,
                "threshold": threshold,
                "side": side,
                "runs": len(own),
                "memorised": own["memorised"].sum(),
            }
            row |= _spread("episodes", own.filter("memorised")["episodes"].to_numpy())
            for clock in ("wall", "cpu"):
                totals, base = _by_repeat(own, clock), _by_repeat(engine, clock)
                row |= _spread(f"{clock}_ms_per_episode", 1e3 * totals[:, 0] / totals[:, 1])
                row |= _spread(f"{clock}_s_to_memorise", own.filter("memorised")[f"{clock}_s"].to_numpy())
                row |= _interval(f"{clock}_s_per_memorised", totals)
                row |= _spread(
                    f"x_{clock}_per_episode", totals[:, 0] / totals[:, 1] / (base[:, 0] / base[:, 1])
                )
                row |= _interval(f"x_{clock}_per_memorised", totals, base)
            row |= _spread("episodes_per_s", _by_repeat(own, "wall")[:, 1] / _by_repeat(own, "wall")[:, 0])
            row["measuring_ms_per_episode"] = 1e3 * own["measuring_s"].sum() / own["episodes"].sum()
            row["p_same_episodes"] = None if side in (ENGINE, ENGINE_16) else _same_episodes(own, reference)
            rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def _by_repeat(runs: pl.DataFrame, clock: str) -> np.ndarray:
    """(repeats, 3): seconds, episodes and memorised runs of each repeat."""
    return (
        runs.group_by("repeat")
        .agg(pl.col(f"{clock}_s", "episodes", "memorised").sum())
        .sort("repeat")
        .drop("repeat")
        .to_numpy()
        .astype(float)
    )


def _spread(name: str, values: np.ndarray) -> dict[str, float | None]:
    if len(values) == 0:
        return {name: None, f"{name}_min": None, f"{name}_max": None}
    return {
        name: float(np.median(values)),
        f"{name}_min": float(values.min()),
        f"{name}_max": float(values.max()),
    }


def _interval(name: str, totals: np.ndarray, base: np.ndarray | None = None) -> dict[str, float | None]:
    """Seconds of all runs by runs that memorised, or its ratio to that of `base`.

    With a 95 % bootstrap interval over repeats.
    """

    def per_memorised(sums: np.ndarray) -> np.ndarray:
        return sums[..., 0] / np.where(sums[..., 2] > 0, sums[..., 2], np.nan)

    def estimate(rows: np.ndarray) -> np.ndarray:
        own = per_memorised(totals[rows].sum(axis=-2))
        return own if base is None else own / per_memorised(base[rows].sum(axis=-2))

    resampled = estimate(np.random.default_rng(0).integers(len(totals), size=(2000, len(totals))))
    value = float(estimate(np.arange(len(totals))))
    if not np.isfinite(value):
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}


def _same_episodes(own: pl.DataFrame, reference: pl.DataFrame) -> float:
    """Mann-Whitney p: whether episodes to memorise are distributed as the engine's.

    A run that never memorised comes last.
    """
    ranks = [
        runs.select(pl.when("memorised").then("episodes").otherwise(10**9)).to_series().to_numpy()
        for runs in (own, reference)
    ]
    return float(scipy.stats.mannwhitneyu(*ranks).pvalue)


COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "condition": lambda row: f"{row['condition']} N={row['N']}",
    "side": lambda row: row["side"],
    "memorised": lambda row: f"{row['memorised']}/{row['runs']}",
    "episodes to memorise": lambda row: _text(row, "episodes"),
    "p same": lambda row: "" if row["p_same_episodes"] is None else f"{row['p_same_episodes']:.2g}",
    "episodes/s": lambda row: _text(row, "episodes_per_s"),
    "s to memorise": lambda row: _text(row, "wall_s_to_memorise"),
    "wall/episode, x engine": lambda row: _text(row, "x_wall_per_episode"),
    "CPU/episode, x engine": lambda row: _text(row, "x_cpu_per_episode"),
    "wall/memorised, x engine": lambda row: _text(row, "x_wall_per_memorised", "low", "high"),
    "CPU/memorised, x engine": lambda row: _text(row, "x_cpu_per_memorised", "low", "high"),
}
LEGEND = (
    "Medians with [least, greatest] over runs (episodes, s) or repeats (rates, ratios per episode); "
    "`x engine` is the ratio to `engine R=1`. "
    "Per memorised run: seconds of all runs by runs that memorised, with a 95 % bootstrap interval over "
    "repeats. "
    "p same: Mann-Whitney test that the episodes are distributed as the engine's."
)


def _text(row: dict[str, Any], name: str, low: str = "min", high: str = "max") -> str:
    return (
        "-"
        if row[name] is None
        else f"{_number(row[name])} [{_number(row[f'{name}_{low}'])}, {_number(row[f'{name}_{high}'])}]"
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def as_markdown(summary: pl.DataFrame, facts: str) -> str:
    """The tables of all thresholds."""
    lines = ["# Benchmark", "", facts, "", LEGEND, ""]
    for threshold in THRESHOLDS:
        lines += [
            f"## P(S) >= {threshold}",
            "",
            "| " + " | ".join(COLUMNS) + " |",
            "|" + " --- |" * len(COLUMNS),
        ]
        lines += [
            "| " + " | ".join(write(row) for write in COLUMNS.values()) + " |"
            for row in summary.filter(threshold=threshold).to_dicts()
        ]
        lines.append("")
    return "\n".join(lines)


def print_tables(summary: pl.DataFrame, console: Console) -> None:
    """The same on the terminal."""
    for threshold in THRESHOLDS:
        table = Table(*COLUMNS, title=f"P(S) >= {threshold}")
        for row in summary.filter(threshold=threshold).to_dicts():
            table.add_row(*(write(row) for write in COLUMNS.values()))
        console.print(table)


def plot(summary: pl.DataFrame, threshold: float = THRESHOLDS[0], largest: int = 1024) -> alt.LayerChart:
    """Wall time per memorised run against N, binary reward.

    Beyond what was measured: 4 times the N, 4 times the time.
    """
    name = "wall_s_per_memorised"
    columns = {"N": "N", "side": "side", name: "s", f"{name}_low": "low", f"{name}_high": "high"}
    measured = (
        summary.filter(condition="binary", threshold=threshold)
        .filter(pl.col(name).is_finite())
        .select(*columns)
        .rename(columns)
    )
    beyond = []
    sides = [side for side in SIDES if side in measured["side"]]
    for side in (NAIVE, TRL_SKIP if TRL_SKIP in sides else TRL):
        last = measured.filter(side=side).sort("N").tail(1).to_dicts()[0]
        while last["N"] <= largest:
            beyond.append(last)
            last = {"N": 4 * last["N"], "side": side, "s": 4 * last["s"]}
    guessed = pl.DataFrame(beyond, infer_schema_length=None)
    x = alt.X(
        "N:Q", scale=alt.Scale(type="log", base=2), axis=alt.Axis(values=[4**power for power in range(2, 7)])
    )
    y = alt.Y("s:Q", scale=alt.Scale(type="log"), title="wall seconds to memorise one secret")
    color = alt.Color(
        "side:N",
        sort=sides,
        title=None,
        scale=alt.Scale(
            domain=sides, range=["#1f6feb", "#79b8ff", "#0a7d4f", "#7fd1ae", "#9aa4b2", "#f0a8a8", "#d1242f"]
        ),
    )
    solid, dashed = alt.Chart(measured).encode(x, y, color), alt.Chart(guessed).encode(x, y, color)
    first = guessed.group_by("side").agg(pl.col("N").min().alias("from"))
    layers = [
        solid.mark_line(strokeWidth=2),
        alt.Chart(measured).encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), color).mark_rule(strokeWidth=1.5),
        solid.mark_point(filled=True, size=60, opacity=1),
        dashed.mark_line(strokeWidth=2, strokeDash=[4, 4]),
        alt.Chart(guessed.join(first, on="side").filter(pl.col("N") > pl.col("from")))
        .encode(x, y, color)
        .mark_point(size=60, opacity=1, fill="white"),
    ]
    subtitle = [
        "binary reward, one CPU thread: seconds of all runs by runs that memorised, "
        "with 95 % bootstrap intervals over repeats",
        "dashed, hollow: not measured but extrapolated (same time per episode, episodes in proportion to N)",
    ]
    return alt.LayerChart(layer=layers).properties(
        width=560, height=340, title=alt.Title(f"Time to P(S) >= {threshold}", subtitle=subtitle)
    )


def main() -> None:
    """Measures, prints, and writes runs.csv, summary.csv, tables.md and time_to_memorise.png and .svg."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="3 repeats of the small cases")
    parser.add_argument("--repeats", type=int, help="default 8, or 3 with --quick")
    parser.add_argument(
        "--out", type=Path, help="where to write; default benchmarks/results, or nowhere with --quick"
    )
    options = parser.parse_args()
    out = options.out or (None if options.quick else Path(__file__).parent / "results")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # the engine sets it for the whole process; so all have it from the start
    console = Console(width=None if Console().is_terminal else 260)

    runs, gemm = measure(
        QUICK if options.quick else CASES, options.repeats or (3 if options.quick else 8), console
    )
    summary = summarise(runs)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "trl"))
    facts = (
        f"{versions}; one CPU thread; {len(gemm)} repeats, interleaved. "
        f"Large float32 matrix products ran at {np.median(gemm):.0f} GFLOP/s "
        f"[{gemm.min():.0f}, {gemm.max():.0f}]."
    )
    print_tables(summary, console)
    console.print(facts, LEGEND, sep="\n", markup=False, highlight=False)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        runs.write_csv(out / "runs.csv", float_precision=6)
        summary.write_csv(out / "summary.csv", float_precision=6)
        pl.DataFrame({"repeat": range(1, len(gemm) + 1), "gflop_per_s": gemm}).write_csv(
            out / "gemm.csv", float_precision=1
        )
        (out / "tables.md").write_text(as_markdown(summary, facts), encoding="utf-8")
        chart = plot(summary)
        chart.save(str(out / "time_to_memorise.svg"))
        chart.save(str(out / "time_to_memorise.png"), scale_factor=2)


if __name__ == "__main__":
    main()
