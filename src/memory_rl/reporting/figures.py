"""One function a figure: frames in, an altair chart out."""

from __future__ import annotations

import altair as alt
import numpy as np
import polars as pl

from memory_rl.analysis.statistics import mean_interval

_THIN_LINES = 64
_GRID_POINTS = 200
_LINEAR_UP_TO = 10  # episodes; the axis is logarithmic beyond
_BLUE, _GREY, _BLACK = "#1f6feb", "#9aa4b2", "#24292f"


def bits_known(metrics: pl.DataFrame, *, N: int, title: str) -> alt.LayerChart:
    """Bits known against episodes: one thin line a run, their mean with its 95 % interval, and the log2 N line.

    A run that has ended keeps its last value in the mean.

    Args:
        metrics: see `memory_rl.runs.store.METRICS_SCHEMA`.
        N: the size of the secret space.
        title: the condition.
    """
    last = int(metrics["episode"].max() or 1)  # type: ignore[arg-type]
    grid = _grid(metrics["episode"].unique().sort().to_numpy())
    values = _on_grid(metrics, grid)  # (R, T)
    mean, low, high = mean_interval(values)
    average = pl.DataFrame({"episode": grid, "mean": mean, "low": low, "high": high}, nan_to_null=True)
    x = alt.X(
        "episode:Q",
        title="episodes",
        scale=alt.Scale(type="symlog", constant=_LINEAR_UP_TO, domain=[0, last], nice=False),
        axis=alt.Axis(values=[0, *(digit * 10**power for power in range(1, 10) for digit in (1, 2, 5) if digit * 10**power <= last)]),
    )
    y = alt.Y("bits:Q", title="bits known = log2 N + log2 P(S)")
    thin = alt.Chart(_thin_lines(metrics, values, grid)).encode(x, y, detail="run:N")
    spread = alt.Chart(average).encode(x, alt.Y("low:Q"), alt.Y2("high:Q"))
    top = alt.Chart(pl.DataFrame({"bits": [np.log2(N)], "text": [f"log2 N = {np.log2(N):.4g} bits"]})).encode(y)
    layers = [
        thin.mark_line(interpolate="step-after", strokeWidth=0.7, opacity=0.6, color=_GREY),
        spread.mark_area(interpolate="step-after", opacity=0.2, color=_BLUE),
        alt.Chart(average).encode(x, alt.Y("mean:Q")).mark_line(interpolate="step-after", strokeWidth=2.5, color=_BLUE),
        top.mark_rule(strokeDash=[6, 4], color=_BLACK),
        top.encode(text="text:N", x=alt.value(0)).mark_text(align="left", dx=4, dy=-7, color=_BLACK),
    ]
    subtitle = f"{len(values)} runs (thin lines), their mean and its 95 % bootstrap interval; a run that has ended keeps its last value"
    return alt.LayerChart(layer=layers).properties(width=640, height=360, title=alt.Title(title, subtitle=subtitle))


def _grid(episodes: np.ndarray) -> np.ndarray:
    """At most `_GRID_POINTS` of the measured episodes, evenly spread on the axis that the figure uses."""
    places = np.log1p(episodes / _LINEAR_UP_TO)
    wanted = np.linspace(places[0], places[-1], _GRID_POINTS)
    return np.asarray(episodes[np.unique(np.searchsorted(places, wanted).clip(max=len(episodes) - 1))])


def _on_grid(metrics: pl.DataFrame, grid: np.ndarray) -> np.ndarray:
    """Each run's latest value at each grid episode: (R, T)."""
    rows = []
    for _, run in metrics.sort("run", "episode").group_by("run", maintain_order=True):
        latest = np.searchsorted(run["episode"].to_numpy(), grid, side="right") - 1
        rows.append(run["bits_known"].to_numpy()[latest])
    return np.stack(rows)


def _thin_lines(metrics: pl.DataFrame, values: np.ndarray, grid: np.ndarray) -> pl.DataFrame:
    """The first runs' curves as rows of run, episode and bits, each up to the end of the run."""
    ends = metrics.group_by("run").agg(pl.col("episode").max()).sort("run")["episode"].to_numpy()
    shown = range(min(len(values), _THIN_LINES))
    kept = [(run, grid <= ends[run]) for run in shown]
    return pl.DataFrame(
        {
            "run": np.concatenate([np.full(keep.sum(), run) for run, keep in kept]),
            "episode": np.concatenate([grid[keep] for _, keep in kept]),
            "bits": np.concatenate([values[run][keep] for run, keep in kept]),
        }
    )
