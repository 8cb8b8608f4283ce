"""One function a figure: frames in, an altair chart out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from memory_rl.reporting.curves import LINEAR_UP_TO, episode_grid, mean_curve, on_grid

_THIN_LINES = 64
_GRID_POINTS = 200
_BLUE, _RED, _GREY, _PALE, _BLACK = "#1f6feb", "#d1242f", "#9aa4b2", "#d5dae1", "#24292f"


def bits_known(metrics: pl.DataFrame, *, N: int, title: str, num_secrets: int = 1) -> alt.LayerChart:
    """Bits known against episodes: one thin line a run, their mean with its 95 % interval, and the line of
    all bits there are to learn.

    A run that has ended keeps its last value in the mean.

    Args:
        metrics: see `memory_rl.runs.store.METRICS_SCHEMA`.
        N: the size of the secret space.
        title: the condition.
        num_secrets: M, over which bits are summed.
    """
    grid = episode_grid(metrics["episode"].unique().sort().to_numpy(), _GRID_POINTS)
    values = on_grid(metrics, grid, "bits_known")  # (R, T)
    average = mean_curve(values, grid)
    x = _episodes_axis(metrics)
    y = alt.Y(
        "bits:Q",
        title="bits known = log2 N + log2 P(S)"
        + (f", summed over {num_secrets} secrets" if num_secrets > 1 else ""),
    )
    thin = alt.Chart(_thin_lines(metrics, values, grid)).encode(x, y, detail="run:N")
    spread = alt.Chart(average).encode(x, alt.Y("low:Q"), alt.Y2("high:Q"))
    bits = num_secrets * np.log2(N)
    top = alt.Chart(
        pl.DataFrame(
            {
                "bits": [bits],
                "text": [f"{f'{num_secrets} ' if num_secrets > 1 else ''}log2 N = {bits:.4g} bits"],
            }
        )
    ).encode(y)
    layers = [
        thin.mark_line(interpolate="step-after", strokeWidth=0.7, opacity=0.6, color=_GREY),
        spread.mark_area(interpolate="step-after", opacity=0.2, color=_BLUE),
        alt.Chart(average)
        .encode(x, alt.Y("mean:Q"))
        .mark_line(interpolate="step-after", strokeWidth=2.5, color=_BLUE),
        top.mark_rule(strokeDash=[6, 4], color=_BLACK),
        top.encode(text="text:N", x=alt.value(0)).mark_text(align="left", dx=4, dy=-7, color=_BLACK),
    ]
    subtitle = f"{len(values)} runs (thin lines), their mean and its 95 % bootstrap interval; a run that has ended keeps its last value"
    return alt.LayerChart(layer=layers).properties(
        width=640, height=360, title=alt.Title(title, subtitle=subtitle)
    )


def ledger(
    metrics: pl.DataFrame, summary: Mapping[str, Any], *, N: int, title: str, num_secrets: int = 1
) -> alt.VConcatChart:
    """Where the bits go: asked, observer and policy bits against episodes, above the waterfall of rates.

    Args:
        metrics: see `memory_rl.runs.store.METRICS_SCHEMA`; with a ledger.
        summary: of the condition, with `rates` and `losses`, as in summary.json.
        N: the size of the secret space.
        title: the condition.
        num_secrets: M, over which bits are summed.
    """
    return alt.vconcat(
        _ledger_curves(metrics, num_secrets * float(np.log2(N))),
        _waterfall(summary),
        title=alt.Title(title, anchor="start"),
        spacing=24,
    ).resolve_scale(color="independent")


_CURVES = {
    "asked_bits": "asked: the questions could tell",
    "observer_bits": "ideal observer knows",
    "bits_known": "policy knows",
}
_MINDS = {
    "capacity": "channel capacity",
    "questioner": "ideal questioner",
    "observer": "ideal observer",
    "policy": "policy",
}
_LOSSES = {"questioner": "alphabet", "observer": "exploration", "policy": "absorption"}


def _ledger_curves(metrics: pl.DataFrame, bits: float) -> alt.LayerChart:
    grid = episode_grid(metrics["episode"].unique().sort().to_numpy(), _GRID_POINTS)
    curves = pl.concat(
        mean_curve(on_grid(metrics, grid, column), grid).with_columns(curve=pl.lit(name))
        for column, name in _CURVES.items()
    )
    names = list(_CURVES.values())
    scale = alt.Scale(domain=names, range=[_GREY, _RED, _BLUE])
    legend = alt.Legend(
        orient="top", labelLimit=240, symbolType="stroke", symbolOpacity=1, symbolStrokeWidth=3
    )
    color = alt.Color("curve:N", title=None, sort=names, scale=scale, legend=legend)
    x = _episodes_axis(metrics)
    top = (
        alt.Chart(pl.DataFrame({"bits": [bits]}))
        .mark_rule(strokeDash=[6, 4], color=_BLACK)
        .encode(alt.Y("bits:Q"))
    )
    spread = (
        alt.Chart(curves)
        .mark_area(interpolate="step-after", opacity=0.2)
        .encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), color)
    )
    line = (
        alt.Chart(curves)
        .mark_line(interpolate="step-after", strokeWidth=2.5)
        .encode(x, alt.Y("mean:Q", title="bits"), color)
    )
    subtitle = "means over runs with 95 % bootstrap intervals; dashed: all that there is to learn; a run that has ended keeps its last value"
    return alt.LayerChart(layer=[spread, line, top]).properties(
        width=640, height=300, title=alt.Title("Bits", subtitle=subtitle)
    )


def _waterfall(summary: Mapping[str, Any]) -> alt.LayerChart:
    """One bar a mind on a logarithmic axis, with its interval and the factor that was lost above it."""
    rows = []
    for mind, name in _MINDS.items():
        rate = summary["rates"][mind]
        low, high = rate["ci95"] or (None, None)
        factor = summary["losses"].get(_LOSSES.get(mind, ""))
        label = "none in these runs" if not rate["estimate"] else f"{rate['estimate']:.3g}"
        if factor is not None:
            label += f"   ({_LOSSES[mind]} loss: {factor:.3g}x)"
        rows.append(
            {"mind": name, "rate": rate["estimate"] or None, "low": low or None, "high": high, "label": label}
        )
    frame = pl.DataFrame(
        rows,
        schema={
            "mind": pl.String,
            "rate": pl.Float64,
            "low": pl.Float64,
            "high": pl.Float64,
            "label": pl.String,
        },
    )
    known = frame.select("rate", "low", "high").unpivot()["value"].drop_nulls().to_numpy()
    floor, ceiling = (
        10.0 ** np.floor(np.log10(known.min() / 2)),
        10.0 ** (np.log10(known.max()) + 1.5),
    )  # room for the labels
    frame = frame.with_columns(floor=pl.lit(floor), place=pl.coalesce("high", "rate", pl.lit(floor)))
    y = alt.Y("mind:N", title=None, sort=list(_MINDS.values()), axis=alt.Axis(labelLimit=200))
    scale = alt.Scale(type="log", domain=[floor, ceiling], nice=False)
    title = "bits per episode = log2 N / episodes until P(S) is high"
    decades = alt.Axis(values=[10.0**power for power in range(-12, 13)], format="~g")
    base = alt.Chart(frame)
    colors = alt.Color(
        "mind:N",
        scale=alt.Scale(domain=list(_MINDS.values()), range=[_PALE, _GREY, _RED, _BLUE]),
        legend=None,
    )
    layers = [
        base.mark_bar(height=24).encode(
            alt.X("floor:Q", scale=scale, title=title, axis=decades), y, colors, x2="rate:Q"
        ),
        base.mark_rule(color=_BLACK, strokeWidth=1.5).encode(alt.X("low:Q", scale=scale), y, x2="high:Q"),
        base.mark_text(align="left", dx=6, color=_BLACK).encode(
            alt.X("place:Q", scale=scale), y, text="label:N"
        ),
    ]
    return alt.LayerChart(layer=layers).properties(
        width=640, height=150, title="Bits per episode, and the factor lost at each step"
    )


def _episodes_axis(metrics: pl.DataFrame) -> alt.X:
    """Linear at first, then logarithmic."""
    last = int(metrics["episode"].max() or 1)  # type: ignore[arg-type]
    return alt.X(
        "episode:Q",
        title="episodes",
        scale=alt.Scale(type="symlog", constant=LINEAR_UP_TO, domain=[0, last], nice=False),
        axis=alt.Axis(
            values=[
                0,
                *(
                    digit * 10**power
                    for power in range(1, 10)
                    for digit in (1, 2, 5)
                    if digit * 10**power <= last
                ),
            ]
        ),
    )


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
