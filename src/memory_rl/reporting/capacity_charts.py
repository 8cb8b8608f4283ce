"""Figures of how much the trained parameters hold: several secrets per run, adapters of several sizes.

Colours stand for sizes or numbers of secrets. A study without such cells has none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import polars as pl

from memory_rl.analysis.capacity import interleaved
from memory_rl.analysis.collect import Cell
from memory_rl.reporting.capacity import (
    capacities_frame,
    cells_of,
    interference_frame,
    points_frame,
    sizes_of,
)
from memory_rl.reporting.drawing import (
    INTERVAL,
    Figure,
    Layer,
    Panel,
    Spec,
    axis,
    band,
    chunks,
    color_scale,
    estimates,
    extent,
    log_axis,
    marks,
    note,
    reach,
    reference,
)
from memory_rl.reporting.study import Study

KNOWN_CAPACITIES = {2.0: "2 bits per parameter", 3.6: "3.6 bits per parameter"}
"""What whole language models were found to store per parameter.

About 2 bits of facts (Allen-Zhu and Li, arXiv:2404.05405), or about 3.6 random bits (Morris et al.,
arXiv:2505.24832)."""

LEAST_BITS = 0.1
"""Means below have no place on the logarithmic axes of bits stored."""

_ABSENT = "no cell has several secrets or another adapter than LoRA"
_PARAMETERS, _STORED, _DASHES = "trained parameters", "bits stored at the end", [6, 4]
_ABOUT = {
    "condition": "condition",
    "size": "size",
    "parameters": "trained parameters",
    "num_secrets": "secrets",
}
_BITS = {**_ABOUT, "bits_to_learn": "bits to learn", "stored": "bits stored", **INTERVAL}
_RATE = {"shown": "bits per episode", **INTERVAL}
_DIAMOND = {"shape": "diamond", "opacity": 1, "strokeWidth": 1.7}
_UPRIGHT, _LEVEL = "upright: 95 % interval", "level: 95 % interval of a knee"
_KNEE = "diamond: the knee of a saturated size, at its capacity"
_HELD = "large diamond: capacity of a saturated size"
_BOUND = "triangle: upper bound, since no run memorised"
_TAUGHT, _ALL = "shaded: the block in which the secret is taught", "dashed: all is known"


def capacity(study: Study) -> Figure:
    """Bits stored at the end against bits to learn: one panel per condition, one line per size."""
    cells = cells_of(study)
    frame, plateaus = _mixed(cells), _capacities(cells).filter("saturated")
    if frame.is_empty():
        return Figure("capacity", missing=_ABSENT)
    (start, high), least = reach(frame["bits_to_learn"], plateaus["capacity"]), _least(frame)
    channels = {
        "x": log_axis("bits_to_learn", "bits to learn, M log2 N", (start, high)),
        "y": log_axis("stored", _STORED, (least, high)),
        "color": color_scale("size", sizes_of(cells), frame["size"]),
    }
    all_stored = pl.DataFrame({"bits_to_learn": [start, high], "stored": [start, high]})
    knees = _drawable(plateaus, "capacity", max(start, least))
    at = {"x": "bits_to_learn", "y": "stored"}
    diagonal = reference("line", all_stored, at, says="dashed: all is stored", strokeDash=_DASHES)

    def panel(condition: str, part: pl.DataFrame) -> Panel:
        here = knees.filter(pl.col("size").is_in(part["size"].to_list()), condition=condition)
        layers = [
            diagonal,
            *estimates(_drawable(part)),
            marks("rule", here, {"x": "low", "x2": "high", "y": "capacity"}, says=_LEVEL, strokeWidth=1.4),
            marks("point", here, {"x": "capacity", "y": "capacity"}, says=_KNEE, size=110, **_DIAMOND),
        ]
        return Panel(part, channels, layers, _BITS, condition)

    return Figure("capacity", _by_condition(frame, "size", sizes_of(cells), panel), notes=_left_out(frame))


def parameters(study: Study) -> Figure:
    """Bits stored against trained parameters: one panel per condition, one diamond per capacity."""
    cells = cells_of(study)
    frame, plateaus = _mixed(cells).filter(pl.col("parameters") > 0), _capacities(cells)
    if frame.is_empty():
        return Figure("parameters", missing=_ABSENT)
    frame = frame.with_columns(secrets=pl.col("num_secrets").cast(pl.String))
    order = frame.sort("num_secrets")["secrets"].to_list()
    least, most = _least(frame), 1.6 * max(frame["bits_to_learn"])
    width = reach(frame["parameters"])
    channels = {
        "x": log_axis("parameters", _PARAMETERS, width, format="~s"),
        "y": log_axis("stored", _STORED, (least, most)),
        "color": color_scale("secrets", order, title="secrets M"),
    }

    def panel(condition: str, part: pl.DataFrame) -> Panel:
        held = _drawable(plateaus.filter("saturated", condition=condition), "capacity", least)
        rules, _, dots = estimates(_drawable(part))
        at = {"x": "parameters"}
        layers = [
            *(layer for bits in KNOWN_CAPACITIES for layer in _known_line(bits, width, most)),
            rules,
            dots,
            reference("rule", held, {**at, "y": "low", "y2": "high"}, says=_UPRIGHT, strokeWidth=1.6),
            reference("point", held, {**at, "y": "capacity"}, says=_HELD, size=190, **_DIAMOND),
        ]
        return Panel(part, channels, layers, _BITS, condition)

    unsaturated = plateaus.filter(~pl.col("saturated"))
    why = "Not saturated, so that no capacity is drawn"
    notes = (*_left_out(frame), *_counted(why, unsaturated, plateaus, "sizes and conditions"))
    return Figure("parameters", _by_condition(frame, "secrets", order, panel), notes=notes)


def _known_line(bits: float, width: tuple[float, float], most: float) -> list[Layer]:
    """A line of so many bits per parameter with its words, left of the upper line, else right of it."""
    start, end = width[0], min(width[1], most / bits)
    place = start * (end / start) ** 0.85
    line = pl.DataFrame({"parameters": [start, end]})
    name = pl.DataFrame({"parameters": [place], "words": [KNOWN_CAPACITIES[bits]]})
    line, name = (frame.with_columns(stored=bits * pl.col("parameters")) for frame in (line, name))
    side: dict[str, Any] = (
        {"align": "right", "dx": -8, "dy": -5} if bits == max(KNOWN_CAPACITIES) else {"dx": 9, "dy": 7}
    )
    at = {"x": "parameters", "y": "stored"}
    return [reference("line", line, at, strokeDash=_DASHES), note(name, at, **side)]


def size(study: Study) -> Figure:
    """Bits per episode against trained parameters: one panel per condition, one line per M."""
    frame = (
        _mixed(cells_of(study))
        .with_columns(shown=pl.coalesce("rate", "bound"), low="rate_low", high="rate_high")
        .filter(pl.col("parameters") > 0)
        .drop_nulls("shown")
    )
    if frame.is_empty():
        return Figure("size", missing=_ABSENT)
    learned = [f"{bits:.3g} bits, M={M}" for bits, M in frame.select("bits_to_learn", "num_secrets").rows()]
    frame = frame.with_columns(learned=pl.Series(learned))
    width = reach(frame["parameters"])
    order = frame.sort("bits_to_learn")["learned"].to_list()
    color = color_scale("learned", order, title="to learn")

    def panel(condition: str, part: pl.DataFrame) -> Panel:
        bounds, rates = part.filter(pl.col("rate").is_null()), part.drop_nulls("rate")
        channels = {
            "x": log_axis("parameters", _PARAMETERS, width, format="~s"),
            "y": log_axis("shown", "bits per episode", reach(*part.select("shown", "low", "high"))),
            "color": color,
        }
        layers = [
            *estimates(_drawable(rates, "shown", 0.0)),
            marks("point", bounds, says=_BOUND, shape="triangle-down", size=90, opacity=1),
        ]
        tips = {**_ABOUT, **_RATE, "memorised": "memorised", "runs": "of runs"}
        return Panel(part, channels, layers, tips, condition)

    why = "Upper bounds, because no run memorised"
    notes = _counted(why, frame.filter(pl.col("rate").is_null()), frame)
    return Figure("size", _by_condition(frame, "learned", order, panel), notes=notes)


def interference(study: Study) -> Figure:
    """Bits known of a secret while others are learned: one panel per condition, one line per size."""
    cells = cells_of(study)
    frame = interference_frame(cells)
    if frame.is_empty():
        return Figure("interference", missing="no cell learns one secret after the other (order=blocks)")
    panel = partial(_interference_panel, color_scale("size", sizes_of(cells), frame["size"]))
    deep = not frame.filter(pl.min_horizontal("mean", "low") < -pl.col("information")).is_empty()
    words = "What lies below -log2 N is cut off; it comes into view when the figure is moved."
    return Figure(
        "interference", _by_condition(frame, "size", sizes_of(cells), panel), notes=(words,) if deep else ()
    )


def _interference_panel(color: Spec, condition: str, frame: pl.DataFrame) -> Panel:
    bits, last = max(frame["information"]), max(frame["blocks"])
    least = max(-bits, extent([0.0], *frame.select("mean", "low"))[0])
    ticks = list(range(0, int(last) + 1, max(1, round(last / 8))))
    channels = {
        "x": axis("blocks", "blocks since its own started", (0, last), values=ticks, format="d"),
        "y": axis("mean", "bits known of a secret", (least - 0.05 * bits, 1.08 * bits)),
        "color": color,
        "detail": {"field": "line"},
    }
    own, all_known = pl.DataFrame({"blocks": [0.0], "end": [1.0]}), frame.select(mean="information").unique()
    layers = [
        reference("rect", own, {"x": "blocks", "x2": "end"}, says=_TAUGHT, opacity=0.08),
        reference(
            "rule", all_known.sort("mean"), {"y": "mean"}, says=_ALL, strokeDash=_DASHES, strokeWidth=1
        ),
        *band(),
    ]
    tips = {"condition": "condition", "size": "size", "blocks": "blocks since", "mean": "bits known"}
    tips = {**tips, **INTERVAL, "secrets": "secrets averaged"}
    return Panel(frame, channels, layers, tips, condition)


CAPACITY_FIGURES: tuple[Callable[[Study], Figure], ...] = (capacity, parameters, size, interference)
"""In the order of the page."""


def _mixed(cells: Sequence[Cell]) -> pl.DataFrame:
    return points_frame(interleaved(cells))


def _capacities(cells: Sequence[Cell]) -> pl.DataFrame:
    """With the ends of their intervals under the names that intervals have in all figures."""
    return capacities_frame(cells).rename({"capacity_low": "low", "capacity_high": "high"})


def _by_condition(
    frame: pl.DataFrame, column: str, names: Iterable[str], make: Callable[[str, pl.DataFrame], Panel]
) -> list[Panel]:
    """A panel for each condition, or several where a column has more names than there are colours."""
    return [
        make(str(condition), rows)
        for (condition,), part in frame.group_by("condition", maintain_order=True)
        for some in chunks(list(dict.fromkeys(names)))
        if not (rows := part.filter(pl.col(column).is_in(some))).is_empty()
    ]


def _drawable(frame: pl.DataFrame, value: str = "stored", least: float = LEAST_BITS) -> pl.DataFrame:
    """What has a place on a logarithmic axis.

    An interval is cut at the end of the axis, and is the value alone where there is none.
    """
    return frame.filter(pl.col(value) >= least).with_columns(
        low=pl.coalesce("low", value).clip(lower_bound=least), high=pl.coalesce("high", value)
    )


def _left_out(frame: pl.DataFrame) -> tuple[str, ...]:
    why = f"Not drawn, because they lie below {LEAST_BITS:g} bits on average"
    return _counted(why, frame.filter(pl.col("stored") < LEAST_BITS), frame)


def _counted(why: str, some: pl.DataFrame, of: pl.DataFrame, what: str = "points") -> tuple[str, ...]:
    return () if some.is_empty() else (f"{why}: {some.height} of {of.height} {what}.",)


def _least(frame: pl.DataFrame) -> float:
    return max(LEAST_BITS, min(frame["stored"]) / 1.5)
