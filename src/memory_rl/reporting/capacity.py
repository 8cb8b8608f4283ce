"""Figures and tables of how much the trained parameters hold: several secrets a run, adapters of several
sizes. Colours stand for sizes or numbers of secrets.

A study without such cells has none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from memory_rl.analysis import capacity as analysis
from memory_rl.analysis.capacity import Size, by_condition, by_size, comparable, in_blocks, interleaved
from memory_rl.analysis.collect import Cell
from memory_rl.analysis.samples import Sample
from memory_rl.analysis.statistics import bootstrap_mean, mean_interval
from memory_rl.reporting.charts import Figure, Panel
from memory_rl.reporting.study import Study

COLORS = (
    "#b42de1",
    "#416ae4",
    "#1d91cc",
    "#128077",
    "#179e44",
    "#527f12",
    "#a88418",
    "#b45a1a",
    "#e75959",
    "#da1f6d",
)
"""From the smallest size to the largest; each stands out from the light ground and from the dark one (WCAG
2.2, 1.4.11)."""

KNOWN_CAPACITIES = {2.0: "2 bits a parameter", 3.6: "3.6 bits a parameter"}
"""What whole language models were found to store: about 2 bits of facts a parameter (Allen-Zhu and Li,
arXiv:2404.05405), about 3.6 bits of random bits (Morris and others, arXiv:2505.24832)."""

LEAST_BITS = 0.1
"""Means below have no place on the logarithmic axes of bits stored."""

_DIGITS = 4
_ABSENT = "no cell has several secrets or another adapter than LoRA"
_TICKS = [digit * 10.0**power for power in range(-9, 10) for digit in (1, 2, 5)]


def is_shown(study: Study) -> bool:
    """Whether the study has any of these figures."""
    return bool(_cells(study))


def points_frame(cells: Sequence[Cell]) -> pl.DataFrame:
    """A row a condition, size and number of secrets: what was to be learned, what was stored, and how fast;
    95 % intervals over runs.

    `rate` is null where no run memorised; `bound` is then the upper end of its interval. Cells that differ in
    their seed alone are one row.
    """
    rows = [
        _point_row(condition, size, point)
        for condition, size, group in _groups(cells)
        for point in analysis.points(group)
    ]
    return pl.DataFrame(rows, schema=_POINT).with_columns(pl.selectors.float().round_sig_figs(_DIGITS))


_ESTIMATES = ("stored", "low", "high", "late_gain", "rate", "rate_low", "rate_high", "bound", "learning_rate")
_POINT = {
    **dict.fromkeys(("condition", "size"), pl.String),
    **dict.fromkeys(("parameters", "bytes", "N", "num_secrets"), pl.Int64),
    "order": pl.String,
    **dict.fromkeys(("runs", "memorised"), pl.Int64),
    **dict.fromkeys(("bits_to_learn", *_ESTIMATES), pl.Float64),
}


def _point_row(condition: str, size: Size, point: Sample) -> dict[str, Any]:
    first, mean, rate, memorised = point.first, bootstrap_mean(point.stored), point.rate, point.memorised
    return {
        "condition": condition,
        "size": size.label,
        "parameters": first.summary.get("trained_parameters"),
        "bytes": first.summary.get("trained_bytes"),
        "N": first.N,
        "num_secrets": first.num_secrets,
        "order": "blocks" if in_blocks(first) else "mixed",
        "runs": point.runs,
        "memorised": memorised,
        "bits_to_learn": first.bits_to_learn,
        "stored": mean.value,
        "low": mean.low,
        "high": mean.high,
        "late_gain": float(np.mean([analysis.late_gain(cell) for cell in point.cells])),
        "rate": rate.value if memorised else None,
        "rate_low": rate.low if memorised else None,
        "rate_high": rate.high if memorised else None,
        "bound": None if memorised else rate.high,
        "learning_rate": first.metrics["learning_rate"].max(),
    }


def capacities_frame(cells: Sequence[Cell]) -> pl.DataFrame:
    """A row a condition and size: its capacity, per parameter and in secrets, with intervals; for sizes that
    are not saturated they are lower bounds.
    """
    rows = [
        _capacity_row(cells[0].condition, found)
        for cells in by_condition(cells).values()
        for found in analysis.capacities(cells)
    ]
    return pl.DataFrame(rows, schema=_CAPACITY).with_columns(pl.selectors.float().round_sig_figs(_DIGITS))


_CAPACITY = {
    **dict.fromkeys(("condition", "size"), pl.String),
    **dict.fromkeys(("parameters", "N", "num_secrets"), pl.Int64),
    "saturated": pl.Boolean,
    **{
        f"{name}{end}": pl.Float64
        for name in ("capacity", "per_parameter", "knee")
        for end in ("", "_low", "_high")
    },
}


def _capacity_row(condition: str, found: analysis.Capacity) -> dict[str, Any]:
    about: dict[str, Any] = {
        "condition": condition,
        "size": found.size.label,
        "parameters": found.size.parameters,
        "N": found.at.first.N,
    }
    row: dict[str, Any] = {**about, "num_secrets": found.at.first.num_secrets, "saturated": found.saturated}
    for name, estimate in (
        ("capacity", found.bits),
        ("per_parameter", found.per_parameter),
        ("knee", found.knee),
    ):
        row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return row


def interference_frame(cells: Sequence[Cell]) -> pl.DataFrame:
    """Bits known of a secret against the blocks since its own began: mean over runs and its interval, for
    cells with order=blocks.
    """
    frames = [
        _interference(condition, size, cell)
        for condition, size, group in _groups(cells)
        for cell in group
        if in_blocks(cell)
    ]
    return pl.concat([pl.DataFrame(schema=_KNOWN), *frames]).with_columns(
        pl.selectors.float().round_sig_figs(_DIGITS)
    )


_KNOWN = {
    **dict.fromkeys(("condition", "size", "line"), pl.String),
    **dict.fromkeys(("information", "blocks", "mean", "low", "high"), pl.Float64),
    "secrets": pl.Int64,
}


def _interference(condition: str, size: Size, cell: Cell) -> pl.DataFrame:
    found = analysis.interference(cell)
    mean, low, high = mean_interval(found.known)
    about = {
        "condition": condition,
        "size": size.label,
        "line": str(cell.path),
        "information": float(np.log2(cell.N)),
        "secrets": found.secrets,
    }
    frame = pl.DataFrame({"blocks": found.blocks, "mean": mean, "low": low, "high": high}, nan_to_null=True)
    return frame.with_columns(pl.lit(value).alias(name) for name, value in about.items()).select(
        pl.col(name).cast(kind) for name, kind in _KNOWN.items()
    )


def capacity(study: Study) -> Figure:
    """Bits stored at the end against bits to learn: a panel a condition, a line a size."""
    cells = _cells(study)
    frame, plateaus = _mixed(cells), capacities_frame(cells).filter("saturated")
    if frame.is_empty():
        return Figure("capacity", missing=_ABSENT)
    start, high = _reach([*frame["bits_to_learn"], *plateaus["capacity"]])
    spread, color = (start, high, _least(frame)), _color("size", _sizes(cells), frame["size"])
    panels = [
        _capacity_panel(name, part, plateaus.filter(condition=name), color, spread)
        for name, part in _by_condition(frame)
    ]
    return Figure("capacity", tuple(panels), notes=_left_out(frame))


def _capacity_panel(
    condition: str,
    frame: pl.DataFrame,
    plateaus: pl.DataFrame,
    color: alt.Color,
    spread: tuple[float, float, float],
) -> Panel:
    start, high, least = spread
    across, up = _log(start, high), _log(least, high)
    x = alt.X("bits_to_learn:Q", title="bits to learn, M log2 N", scale=across, axis=_ticks())
    y = alt.Y("stored:Q", title="bits stored at the end", scale=up, axis=_ticks())
    plateau = alt.Y("capacity:Q", scale=up)
    diagonal = alt.Chart(pl.DataFrame({"bits_to_learn": [start, high], "stored": [start, high]}))
    base, knees = alt.Chart(_drawable(frame)), _diamonds(plateaus, max(start, least))
    layers = [
        diagonal.mark_line(style="reference", strokeDash=[6, 4], strokeWidth=1.2, clip=True).encode(x, y),
        base.mark_rule(strokeWidth=2, clip=True).encode(x, alt.Y("low:Q", scale=up), alt.Y2("high:Q"), color),
        base.mark_line(strokeWidth=2, clip=True).encode(x, y, color),
        base.mark_point(filled=True, size=50, opacity=1, clip=True).encode(x, y, color),
        knees.mark_rule(strokeWidth=1.4, clip=True).encode(
            alt.X("capacity_low:Q", scale=across), plateau, alt.X2("capacity_high:Q"), color
        ),
        knees.mark_point(shape="diamond", size=110, opacity=1, strokeWidth=1.8, clip=True).encode(
            alt.X("capacity:Q", scale=across), plateau, color
        ),
    ]
    return Panel(condition, layers, base.encode(x, y, color, tooltip=[*_ABOUT, *_STORED]))


def parameters(study: Study) -> Figure:
    """Bits stored against trained parameters: a panel a condition, a point a cell, a diamond a capacity."""
    cells = _cells(study)
    frame, plateaus = _mixed(cells).filter(pl.col("parameters") > 0), capacities_frame(cells)
    if frame.is_empty():
        return Figure("parameters", missing=_ABSENT)
    frame = frame.with_columns(secrets=pl.col("num_secrets").cast(pl.String))
    most = float(frame["bits_to_learn"].max()) * 1.6  # type: ignore[arg-type]
    spread, color = (
        (*_reach(frame["parameters"]), _least(frame), most),
        _color("secrets", frame.sort("num_secrets")["secrets"], title="secrets M"),
    )
    panels = [
        _parameters_panel(name, part, plateaus.filter("saturated", condition=name), color, spread)
        for name, part in _by_condition(frame)
    ]
    unsaturated = plateaus.filter(~pl.col("saturated")).height
    bounds = (
        (
            f"Not saturated, so that no capacity is drawn: {unsaturated} of {plateaus.height} sizes and conditions.",
        )
        if unsaturated
        else ()
    )
    return Figure("parameters", tuple(panels), notes=(*_left_out(frame), *bounds))


def _parameters_panel(
    condition: str,
    frame: pl.DataFrame,
    plateaus: pl.DataFrame,
    color: alt.Color,
    spread: tuple[float, float, float, float],
) -> Panel:
    fewest, many, least, most = spread
    up = _log(least, most)
    x = alt.X("parameters:Q", title="trained parameters", scale=_log(fewest, many), axis=_ticks("~s"))
    y = alt.Y("stored:Q", title="bits stored at the end", scale=up, axis=_ticks())
    base, diamonds = alt.Chart(_drawable(frame)), _diamonds(plateaus, least)
    layers = [
        *(
            layer
            for bits, words in KNOWN_CAPACITIES.items()
            for layer in _known_line(bits, words, spread, x, y)
        ),
        base.mark_rule(strokeWidth=1.6, clip=True, opacity=0.6).encode(
            x, alt.Y("low:Q", scale=up), alt.Y2("high:Q"), color
        ),
        base.mark_point(filled=True, size=50, opacity=1, clip=True).encode(x, y, color),
        diamonds.mark_rule(style="reference", strokeWidth=1.6, clip=True).encode(
            x, alt.Y("capacity_low:Q", scale=up), alt.Y2("capacity_high:Q")
        ),
        diamonds.mark_point(
            style="interval", shape="diamond", size=190, opacity=1, strokeWidth=1.6, clip=True
        ).encode(x, alt.Y("capacity:Q", scale=up)),
    ]
    return Panel(condition, layers, base.encode(x, y, color, tooltip=[*_ABOUT, *_STORED]))


def _known_line(
    bits: float, words: str, spread: tuple[float, float, float, float], x: alt.X, y: alt.Y
) -> list[alt.Chart]:
    """A line of so many bits a parameter with its words: the upper one's on its left, the lower one's on its
    right.
    """
    fewest, many, _, most = spread
    ends, upper = (fewest, min(many, most / bits)), bits == max(KNOWN_CAPACITIES)
    place = float(ends[0] * (ends[1] / ends[0]) ** 0.85)
    line = alt.Chart(pl.DataFrame({"parameters": ends, "stored": [bits * end for end in ends]}))
    name = alt.Chart(pl.DataFrame({"parameters": [place], "stored": [bits * place], "words": [words]}))
    side: dict[str, Any] = (
        {"align": "right", "dx": -8, "dy": -5} if upper else {"align": "left", "dx": 9, "dy": 7}
    )
    return [
        line.mark_line(style="reference", strokeDash=[6, 4], strokeWidth=1.2, clip=True).encode(x, y),
        name.mark_text(style="reference-text", clip=True, **side).encode(x, y, text="words:N"),
    ]


def size(study: Study) -> Figure:
    """Bits per episode against trained parameters: a panel a condition, a line a number of secrets."""
    frame = (
        _mixed(_cells(study))
        .with_columns(told=pl.coalesce("rate", "bound"))
        .filter(pl.col("parameters") > 0, pl.col("told").is_not_null())
    )
    if frame.is_empty():
        return Figure("size", missing=_ABSENT)
    frame = frame.with_columns(
        learned=pl.Series([_learned(*row) for row in frame.select("num_secrets", "bits_to_learn").rows()])
    )
    spread, color = (
        _reach(frame["parameters"]),
        _color("learned", frame.sort("bits_to_learn")["learned"], title="to learn"),
    )
    panels = [_size_panel(condition, part, color, spread) for condition, part in _by_condition(frame)]
    bounds = frame.filter(pl.col("rate").is_null()).height
    return Figure(
        "size",
        tuple(panels),
        notes=(f"Upper bounds, because no run memorised: {bounds} of {frame.height} points.",)
        if bounds
        else (),
    )


def _size_panel(condition: str, frame: pl.DataFrame, color: alt.Color, spread: tuple[float, float]) -> Panel:
    up, base = (
        _log(*_reach(frame.select("told", "rate_low", "rate_high").unpivot()["value"])),
        alt.Chart(frame),
    )
    x = alt.X("parameters:Q", title="trained parameters", scale=_log(*spread), axis=_ticks("~s"))
    y = alt.Y("told:Q", title="bits per episode", scale=up, axis=_ticks())
    tips = [
        _tip("told:Q", "bits per episode", ".3~g"),
        _tip("rate_low:Q", "95 % from", ".3~g"),
        _tip("rate_high:Q", "to", ".3~g"),
    ]
    rates, bounds = (
        alt.Chart(_drawable(frame.drop_nulls("rate"), "rate", "rate_low", "rate_high", 0.0)),
        alt.Chart(frame.filter(pl.col("rate").is_null())),
    )
    layers = [
        rates.mark_rule(strokeWidth=2, clip=True).encode(
            x, alt.Y("rate_low:Q", scale=up), alt.Y2("rate_high:Q"), color
        ),
        rates.mark_line(strokeWidth=2, clip=True).encode(x, y, color),
        rates.mark_point(filled=True, size=50, opacity=1, clip=True).encode(x, y, color),
        bounds.mark_point(shape="triangle-down", size=90, opacity=1, clip=True).encode(x, y, color),
    ]
    return Panel(condition, layers, base.encode(x, y, color, tooltip=[*_ABOUT, *tips, *_MEMORISED]))


def _learned(num_secrets: int, bits: float) -> str:
    return f"{bits:.3g} bits, M={num_secrets}"


def interference(study: Study) -> Figure:
    """Bits known of a secret while others are learned: a panel a condition, a line a size."""
    cells = _cells(study)
    frame = interference_frame(cells)
    if frame.is_empty():
        return Figure("interference", missing="no cell learns one secret after the other (order=blocks)")
    color = _color("size", _sizes(cells), frame["size"])
    panels = [_interference_panel(condition, part, color) for condition, part in _by_condition(frame)]
    deep = frame.filter(pl.min_horizontal("mean", "low") < -pl.col("information")).height
    return Figure(
        "interference",
        tuple(panels),
        notes=("What lies below -log2 N is cut off; it comes into view when the figure is moved.",)
        if deep
        else (),
    )


def _interference_panel(condition: str, frame: pl.DataFrame, color: alt.Color) -> Panel:
    bits, last = float(frame["information"].max()), float(frame["blocks"].max())  # type: ignore[arg-type]
    least = max(-bits, min(0.0, *frame.select("mean", "low").unpivot()["value"].drop_nulls()))
    axis = alt.Axis(values=list(range(0, int(last) + 1, max(1, round(last / 8)))), format="d")
    x = alt.X(
        "blocks:Q",
        title="blocks since its own began",
        scale=alt.Scale(domain=[0, last], nice=False),
        axis=axis,
    )
    scale = alt.Scale(domain=[least - 0.05 * bits, 1.08 * bits], nice=False)
    y, base = alt.Y("mean:Q", title="bits known of a secret", scale=scale), alt.Chart(frame)
    own = alt.Chart(pl.DataFrame({"blocks": [0.0], "end": [1.0]})).mark_rect(
        style="reference", opacity=0.08, clip=True
    )
    all_known = alt.Chart(frame.select(mean="information").unique().sort("mean"))
    tips = [
        *_ABOUT[:2],
        _tip("blocks:Q", "blocks since", ".3~g"),
        _tip("mean:Q", "bits known", ".3~g"),
        _tip("low:Q", "95 % from", ".3~g"),
    ]
    tips += [_tip("high:Q", "to", ".3~g"), _tip("secrets:Q", "secrets averaged")]
    layers = [
        own.encode(x, alt.X2("end:Q")),
        all_known.mark_rule(style="reference", strokeDash=[6, 4], strokeWidth=1).encode(y),
        base.mark_area(opacity=0.15, clip=True).encode(
            x, alt.Y("low:Q", scale=scale), alt.Y2("high:Q"), color, detail="line:N"
        ),
        base.mark_line(strokeWidth=2, clip=True).encode(x, y, color, detail="line:N"),
    ]
    return Panel(condition, layers, base.encode(x, y, color, tooltip=tips))


CAPACITY_FIGURES: tuple[Callable[[Study], Figure], ...] = (capacity, parameters, size, interference)
"""In the order of the page."""

POINT_HEADINGS = (
    *(
        "condition",
        "size",
        "trained parameters",
        "bytes",
        "M",
        "order",
        "bits to learn",
        "bits stored [95 %]",
        "bits a parameter",
    ),
    *("of them in the last tenth", "memorised of runs", "bits per episode [95 %]", "learning rate"),
)
CAPACITY_HEADINGS = (
    "condition",
    "size",
    "trained parameters",
    "saturated",
    "capacity in bits [95 %]",
    "at M",
    "bits a parameter [95 %]",
    "knee in secrets [95 %]",
)


def point_rows(study: Study) -> list[list[str]]:
    """The table of all sizes and numbers of secrets, as words; the headings are `POINT_HEADINGS`."""
    return [_point_words(row) for row in points_frame(_cells(study)).rows(named=True)]


def _point_words(row: dict[str, Any]) -> list[str]:
    rate = (
        _words(row["rate"], row["rate_low"], row["rate_high"])
        if row["bound"] is None
        else f"none; at most {row['bound']:.3g}"
    )
    numbers = [_number(row[name]) for name in ("parameters", "bytes", "num_secrets")]
    of_a_parameter = None if not row["parameters"] else row["stored"] / row["parameters"]
    stored = [
        f"{row['bits_to_learn']:.4g}",
        _words(row["stored"], row["low"], row["high"]),
        _number(of_a_parameter),
        _number(row["late_gain"]),
    ]
    return [
        row["condition"],
        row["size"],
        *numbers,
        row["order"],
        *stored,
        f"{row['memorised']} of {row['runs']}",
        rate,
        _number(row["learning_rate"]),
    ]


def capacity_rows(study: Study) -> list[list[str]]:
    """The table of capacities, as words; the headings are `CAPACITY_HEADINGS`. What is a lower bound says
    so.
    """
    return [_capacity_words(row) for row in capacities_frame(_cells(study)).rows(named=True)]


def _capacity_words(row: dict[str, Any]) -> list[str]:
    bound = "" if row["saturated"] else "\u2265 "
    values = [
        bound + _words(*(row[f"{name}{end}"] for end in ("", "_low", "_high")))
        for name in ("capacity", "per_parameter", "knee")
    ]
    saturated = "yes" if row["saturated"] else "no: a lower bound"
    return [
        row["condition"],
        row["size"],
        _number(row["parameters"]),
        saturated,
        values[0],
        str(row["num_secrets"]),
        *values[1:],
    ]


def capacity_frame(study: Study) -> pl.DataFrame:
    """The numbers of both tables, for a CSV: a row a point, with the capacity of its size where it has
    one.
    """
    cells = _cells(study)
    names = {column: f"size_{column}" for column in ("num_secrets", "saturated")}
    return points_frame(cells).join(
        capacities_frame(cells).drop("parameters").rename(names),
        on=["condition", "size", "N"],
        how="left",
        maintain_order="left",
    )


def _words(value: float | None, low: float | None, high: float | None) -> str:
    return f"{_number(value)} [{_number(low)}, {_number(high)}]"


def _number(value: float | None) -> str:
    if value is None:
        return "\u2013"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _cells(study: Study) -> list[Cell]:
    return comparable([entry.cell for entry in study.entries])


def _groups(cells: Sequence[Cell]) -> Iterator[tuple[str, Size, list[Cell]]]:
    """Condition, size and cells; those in blocks after the others."""
    for group in by_condition(cells).values():
        for part in (interleaved(group), [cell for cell in group if in_blocks(cell)]):
            yield from ((group[0].condition, size, of_size) for size, of_size in by_size(part).items())


def _mixed(cells: Sequence[Cell]) -> pl.DataFrame:
    return points_frame(interleaved(cells))


def _sizes(cells: Sequence[Cell]) -> list[str]:
    """The labels of all sizes, the smallest first: the same colours in every panel and figure."""
    found = {size for _, size, _ in _groups(cells)}
    return list(
        dict.fromkeys(
            size.label for size in sorted(found, key=lambda size: (size.parameters or 0, size.label))
        )
    )


def _by_condition(frame: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    return [(str(condition), part) for (condition,), part in frame.group_by("condition", maintain_order=True)]


def _drawable(
    frame: pl.DataFrame,
    value: str = "stored",
    low: str = "low",
    high: str = "high",
    least: float = LEAST_BITS,
) -> pl.DataFrame:
    """What has a place on a logarithmic axis; an interval is cut at its end, and is the value alone where
    there is none.
    """
    return frame.filter(pl.col(value) >= least).with_columns(
        pl.coalesce(low, value).clip(lower_bound=least).alias(low), pl.coalesce(high, value).alias(high)
    )


def _diamonds(plateaus: pl.DataFrame, least: float) -> alt.Chart:
    return alt.Chart(_drawable(plateaus, "capacity", "capacity_low", "capacity_high", least))


def _left_out(frame: pl.DataFrame) -> tuple[str, ...]:
    below = frame.filter(pl.col("stored") < LEAST_BITS).height
    return (
        (f"Below {LEAST_BITS:g} bits on average, and so not drawn: {below} of {frame.height} points.",)
        if below
        else ()
    )


def _least(frame: pl.DataFrame) -> float:
    return max(LEAST_BITS, float(frame["stored"].min()) / 1.5)  # type: ignore[arg-type]


def _reach(values: Iterable[float | None]) -> tuple[float, float]:
    """A little more than the positive ones."""
    positive = [value for value in values if value is not None and value > 0]
    return min(positive) / 1.6, max(positive) * 1.6


def _log(low: float, high: float) -> alt.Scale:
    return alt.Scale(type="log", domain=[low, high], nice=False)


def _ticks(form: str = "~g") -> alt.Axis:
    return alt.Axis(values=_TICKS, format=form)


def _color(
    field: str, domain: Iterable[str], shown: Iterable[str] | None = None, title: str | None = None
) -> alt.Color:
    """A colour for each name of the domain; the legend tells those that are shown."""
    names = list(dict.fromkeys(domain))
    places = np.linspace(0, len(COLORS) - 1, len(names)).round().astype(int)
    present = names if shown is None else [name for name in names if name in set(shown)]
    legend = alt.Legend(
        orient="bottom", columns=3, title=title, symbolType="stroke", symbolOpacity=1, values=present
    )
    return alt.Color(
        f"{field}:N", scale=alt.Scale(domain=names, range=[COLORS[place] for place in places]), legend=legend
    )


def _tip(shorthand: str, title: str, form: str | None = None) -> alt.Tooltip:
    return alt.Tooltip(shorthand, title=title, format=form) if form else alt.Tooltip(shorthand, title=title)


_ABOUT = [
    _tip("condition:N", "condition"),
    _tip("size:N", "size"),
    _tip("parameters:Q", "trained parameters", ",d"),
    _tip("num_secrets:Q", "secrets"),
]
_STORED = [
    _tip("bits_to_learn:Q", "bits to learn", ".4~g"),
    _tip("stored:Q", "bits stored", ".3~g"),
    _tip("low:Q", "95 % from", ".3~g"),
    _tip("high:Q", "to", ".3~g"),
]
_MEMORISED = [_tip("memorised:Q", "memorised"), _tip("runs:Q", "of runs")]
