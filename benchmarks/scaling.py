"""Cost against N of every signal, where only the secret and some samples are scored (scoring=paths).

From the warm base to P(S) >= 0.5, for N from 2^4 to 2^20: episodes, CPU seconds, and which runs got stuck.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --signals sft binary --sizes 16 64 --repeats 2 --out try
    python benchmarks/scaling.py --repeats 0      (draws scaling.csv again)

All signals and N are interleaved: one thread, one run at a time; repeat i has seed i, and for each N the same
secret for all signals. What is not timed: finding and warming up the base model, and tokenising the N
answers, which a start pays once (`start_s`). The ledger is off. Writes scaling.csv, scaling.md and
cost_against_N.png and .svg, and while it runs scaling.part.csv.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import altair as alt
import numpy as np
import polars as pl
import scipy.stats
import torch
from engine import run_engine
from problem import Problem
from rich.console import Console

from memory_rl.reporting.themes import GROUND, PALETTE, vega_config

SIZES = tuple(2**power for power in range(4, 21, 2))
SIGNALS: dict[str, dict[str, Any]] = {
    "sft": {"signal": "example"},
    "binary": {},
    "8-bins": {"reward_type": "binned_log_distance", "reward_bins": 8},
    "log-distance": {"reward_type": "log_distance"},
    "per-bit": {"env_type": "multi_step"},
    "teacher": {"signal": "teacher"},
    "teacher-per-bit": {"signal": "teacher", "env_type": "multi_step"},
}
MEMORISED, BUDGET, BUDGET_OF_BINARY = 0.5, 4000, 200
"""P(S) at which a run ends; the most episodes of one; of one with binary reward, in units of N."""

GREY = "#57606a"
FROM = 2**8
"""The exponent in N is that from here on."""

AT_MOST = {
    "binary": ("N", 0.15),
    **dict.fromkeys(("sft", "per-bit", "teacher", "teacher-per-bit"), ("log2 N", 2.0)),
}
"""In what the CPU seconds are to grow, and their exponent at most."""


def problems(size: int, signals: list[str]) -> dict[str, tuple[Problem, float]]:
    """What each signal asks, and the seconds until its world was ready; those of a world share it."""
    worlds: dict[str, tuple[Problem, float]] = {}
    found = {}
    for name in signals:
        env_type = SIGNALS[name].get("env_type", "single_step")
        if env_type not in worlds:
            began = time.perf_counter()
            world = Problem(N=size, env_type=env_type, scoring="paths", stop_at=MEMORISED)
            worlds[env_type] = world, time.perf_counter() - began
        world, start = worlds[env_type]
        budget = BUDGET_OF_BINARY * size if name == "binary" else BUDGET
        found[name] = world.told(**SIGNALS[name], max_episodes=budget), start
    return found


def one_run(problem: Problem, seed: int) -> dict[str, Any]:
    """Episodes, loop steps and seconds until P(S) was reached, or, of a stuck run, all that it took."""
    (trace,) = run_engine(problem, seed=seed, num_runs=1, scoring="paths")
    at = trace.first(MEMORISED)
    end = len(trace.episodes) - 1 if at is None else at
    return {
        "stuck": at is None,
        "episodes": trace.episodes[end],
        "steps": end,
        "cpu_s": trace.cpu[end],
        "wall_s": trace.wall[end],
    }


def measure(signals: list[str], sizes: list[int], repeats: int, path: Path, console: Console) -> None:
    """A row for each run; those so far are in scaling.part.csv, which becomes scaling.csv at the end."""
    asked = {}
    for size in sizes:
        asked[size] = problems(size, signals)
        starts = ", ".join(f"{name} {start:.1f} s" for name, (_, start) in asked[size].items())
        console.print(f"N = {size} is ready: {starts}")
    for name in signals:  # warms the machine up and does not count
        one_run(asked[sizes[0]][name][0], seed=0)
    rows, part = [], path.with_suffix(".part.csv")
    for repeat, size, name in itertools.product(range(1, repeats + 1), sizes, signals):
        problem, start = asked[size][name]
        row = {"signal": name, "N": size, "repeat": repeat, **one_run(problem, repeat), "start_s": start}
        rows.append(row)
        pl.DataFrame(rows).write_csv(part, float_precision=4)
        if (size, name) == (sizes[-1], signals[-1]):
            console.print(f"round {repeat} of {repeats}: {sum(row['cpu_s'] for row in rows):.0f} s so far")
    part.replace(path)


def summary(runs: pl.DataFrame) -> pl.DataFrame:
    """A row for each signal and N.

    Medians and quartiles are over all runs, with stuck ones at infinity; `spent` is the median of what these
    spent. The share that is stuck has Wilson's 95 % interval.
    """
    columns = []
    for name in ("episodes", "cpu_s"):
        endless = pl.when("stuck").then(np.inf).otherwise(pl.col(name))
        ends = {"": 0.5, "_low": 0.25, "_high": 0.75}
        columns += [endless.quantile(part, "midpoint").alias(name + end) for end, part in ends.items()]
        columns += [pl.col(name).filter("stuck").median().alias(f"{name}_spent")]
    kept = (pl.len().alias("runs"), pl.col("stuck").sum(), pl.col("start_s").first())
    table = runs.group_by("signal", "N", maintain_order=True).agg(*kept, *columns)
    counts = table.select("stuck", "runs").iter_rows()
    shares = [scipy.stats.binomtest(*count).proportion_ci(method="wilson") for count in counts]
    return table.with_columns(
        share=pl.col("stuck") / pl.col("runs"),
        share_low=pl.Series([share.low for share in shares]),
        share_high=pl.Series([share.high for share in shares]),
    )


def slope(runs: pl.DataFrame, column: str, of: str) -> tuple[float, float]:
    """The exponent of a column in log2 N, or in N from 2^8 on, over runs that memorised; its standard error.

    Least squares through the mean logarithm at each N: each N has a base model of its own, which all its runs
    share, so that they are no independent points. NaN where there are fewer than three N.
    """
    some = runs.filter(~pl.col("stuck") & (pl.lit(of != "N") | (pl.col("N") >= FROM)))
    means = some.group_by("N").agg(pl.col(column).log().mean())
    if len(means) < 3:
        return np.nan, np.nan
    grows = means["N"].to_numpy() if of == "N" else np.log2(means["N"].to_numpy())
    fit = scipy.stats.linregress(np.log(grows), means[column].to_numpy())
    return fit.slope, fit.stderr


def verdict(value: float, error: float, most: float) -> str:
    """Whether an exponent is at most this."""
    if np.isnan(value):
        return "too few N"
    if value <= most:
        return "met"
    return "missed" if value - 2 * error > most else "within two standard errors"


def fits(runs: pl.DataFrame) -> pl.DataFrame:
    """A row for each signal: the exponents, how many runs they rest on, and what they were to be at most."""
    rows = []
    for (name,), part in runs.group_by("signal", maintain_order=True):
        row = {"signal": name, "runs": f"{(~part['stuck']).sum()} of {len(part)}"}
        for what, column in (("episodes", "episodes"), ("CPU s", "cpu_s")):
            exponents = {of: slope(part, column, of) for of in ("log2 N", "N")}
            row |= {f"{what}, in {of}": "{:.3f} ± {:.3f}".format(*fit) for of, fit in exponents.items()}
        if name in AT_MOST:  # CPU seconds come last
            of, most = AT_MOST[name]
            row["target"] = f"{most:g} in {of}: {verdict(*exponents[of], most)}"
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def as_markdown(runs: pl.DataFrame) -> str:
    """The exponents, and a table of medians for each signal."""
    percent = [(pl.col(name) * 100).round().cast(int) for name in ("share", "share_low", "share_high")]
    columns = {
        "N": "N",
        "episodes": "episodes",
        "CPU s": pl.col("cpu_s").round(3),
        "quarter below": pl.col("cpu_s_low").round(3),
        "above": pl.col("cpu_s_high").round(3),
        "spent": pl.col("cpu_s_spent").round(3),
        "stuck": "stuck",
        "95 %": pl.format("{} % [{}, {}]", *percent),
        "start_s": pl.col("start_s").round(1),
    }
    parts = [
        f"Exponents to P(S) >= {MEMORISED} ± standard errors: least squares through the mean logarithm, at "
        f"each N, of runs that memorised; in N from {FROM} on.\n\n{_lines(fits(runs))}\n\nMedians over all "
        f"runs: stuck ones (of binary reward after {BUDGET_OF_BINARY} N episodes, of others after {BUDGET}) "
        "are infinite; `spent` is the median of their CPU seconds.\n"
    ]
    for (name,), part in summary(runs).group_by("signal", maintain_order=True):
        parts.append(f"{name}, {part['runs'].max()} runs each:\n\n{_lines(part.select(**columns))}\n")
    return "\n".join(parts)


def _lines(table: pl.DataFrame) -> str:
    rows = [table.columns, ["---"] * table.width, *table.rows()]
    words = [["-" if cell in (None, np.inf) else str(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in words)


def _panel(table: pl.DataFrame, column: str, title: str) -> alt.LayerChart:
    """Medians and quartiles; a hollow triangle where half the runs or more are stuck."""
    ends = [pl.min_horizontal(column + end, f"{column}_spent") for end in ("", "_low", "_high")]
    shown = table.with_columns(pl.col(column).is_infinite().alias("half"), *ends)
    decades = [10.0**power for power in range(-2, 9)]
    look = alt.Axis(format=",~g" if column == "cpu_s" else "~s", values=decades)
    y = alt.Y(f"{column}:Q", title=title, scale=alt.Scale(type="log"), axis=look)
    stuck = alt.Chart(shown).transform_filter("datum.half").encode(_x(), y, _color())
    triangles = stuck.mark_point(shape="triangle-up", size=80, fill=GROUND["light"], opacity=1)
    return alt.layer(*_spread(shown, y, column), triangles).properties(width=380, height=380)


def _stuck_panel(table: pl.DataFrame) -> alt.LayerChart:
    """The share of runs that are stuck, with its interval, of the signals that have any."""
    some = table.filter(pl.col("stuck").sum().over("signal") > 0)
    y = alt.Y("share:Q", title="share of runs that are stuck", axis=alt.Axis(format="%"))
    return alt.layer(*_spread(some, y.scale(domain=[0, 1]), "share")).properties(width=230, height=380)


def _spread(table: pl.DataFrame, y: alt.Y, column: str) -> list[alt.Chart]:
    """Points that are joined by lines, and vertical rules from low to high."""
    base = alt.Chart(table).encode(_x(), y, _color())
    rules = base.mark_rule(opacity=0.5).encode(alt.Y(f"{column}_low:Q"), alt.Y2(f"{column}_high:Q"))
    return [rules, base.mark_line(strokeWidth=2), base.mark_point(filled=True, size=45, opacity=1)]


def _x() -> alt.X:
    ends = alt.Scale(type="log", base=2, domain=[SIZES[0] / 1.3, SIZES[-1] * 1.3], nice=False)
    words = "'2^' + round(log(datum.value) / log(2))"
    return alt.X("N:Q", scale=ends, axis=alt.Axis(values=list(SIZES[::2]), labelExpr=words))


def _color() -> alt.Color:
    look = {"orient": "bottom", "symbolType": "stroke", "symbolOpacity": 1, "columns": len(SIGNALS)}
    colors = alt.Scale(domain=list(SIGNALS), range=list(PALETTE["light"][: len(SIGNALS)]))
    return alt.Color("signal:N", scale=colors, legend=alt.Legend(title=None, **look))


def _trl(others: pl.DataFrame) -> alt.LayerChart:
    """TRL's CPU seconds as benchmarks/run.py measured them; beyond, 4 times the N is 4 times the time."""
    trl = others.filter(side="TRL", condition="binary", threshold=MEMORISED)
    measured = trl.select("N", cpu_s="cpu_s_per_memorised").filter(pl.col("cpu_s").is_finite()).sort("N")
    last, seconds = measured.row(-1)
    beyond = [(size, seconds * size / last) for size in SIZES if size > last]
    times = pl.concat([measured, pl.DataFrame(beyond, schema=measured.schema, orient="row")])
    base = alt.Chart(times).encode(_x(), alt.Y("cpu_s:Q"))
    line = base.mark_line(strokeWidth=1.5, strokeDash=[5, 4], color=GREY)
    look = {"text": "TRL, binary; beyond 2^8 extrapolated", "align": "right", "dx": -24, "dy": -4}
    return line + base.transform_filter(f"datum.N == {SIZES[-1]}").mark_text(color=GREY, **look)


def plot(runs: pl.DataFrame, others: pl.DataFrame | None) -> alt.HConcatChart:
    """Episodes, CPU seconds and the share of stuck runs against N."""
    table = summary(runs)
    seconds = _panel(table, "cpu_s", "CPU seconds")
    panels = [
        _panel(table, "episodes", "episodes"),
        seconds if others is None else alt.layer(_trl(others), seconds),
        _stuck_panel(table),
    ]
    subtitle = [
        "Medians over runs, with quartiles; stuck runs count as infinite. Hollow triangles: half the runs or "
        "more are stuck, and this is where their budget ended.",
    ]
    title = alt.Title(f"What it takes to reach P(S) >= {MEMORISED}", subtitle=subtitle)
    look = vega_config("light", [], ground=GROUND["light"])
    return alt.hconcat(*panels, spacing=24, title=title).configure(**look)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--signals", nargs="+", choices=SIGNALS, default=[*SIGNALS])
    parser.add_argument("--sizes", nargs="+", type=int, default=[*SIZES])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    console = Console()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "scaling.csv"
    if options.repeats:
        measure(options.signals, options.sizes, options.repeats, path, console)
    runs = pl.read_csv(path)
    text = as_markdown(runs)
    (options.out / "scaling.md").write_text(text, encoding="utf-8")
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    before = Path(__file__).parent / "results" / "summary.csv"
    chart = plot(runs, pl.read_csv(before) if before.exists() else None)
    chart.save(str(options.out / "cost_against_N.svg"))
    chart.save(str(options.out / "cost_against_N.png"), scale_factor=2)


if __name__ == "__main__":
    main()
