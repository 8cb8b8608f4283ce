"""What a figure is made of: layers of marks in panels, as plain Vega-Lite. A panel is drawn twice: live on the
page, and for print.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from memory_rl.reporting.study import Study
from memory_rl.reporting.themes import dash_of
from memory_rl.reporting.wording import READING, TITLES

Spec = dict[str, Any]
"""Vega-Lite, or a part of it."""

SERIES = "series"
"""The column with the label of a cell. What is coloured by it has the label's colour and dashes."""

DECADES = [10.0**power for power in range(-9, 10)]
TICKS = [digit * decade for decade in DECADES for digit in (1, 2, 5)]
LEGEND = {"orient": "bottom", "symbolType": "stroke", "symbolOpacity": 1}
ROW = 84
"""Pixels a row of a panel with rows."""

_HIDDEN = "hidden"
_SWITCHED_ON = {"filter": f"indexof({_HIDDEN}, datum.{SERIES}) < 0"}
_NEAR: Spec = {
    "name": "near",
    "select": {"type": "point", "on": "pointermove", "nearest": True, "clear": "pointerout"},
}
_ZOOM: Spec = {
    "name": "zoom",
    "bind": "scales",
    "select": {
        "type": "interval",
        # With the mouse alone and with Ctrl held, so that a page can be scrolled past it by wheel and finger.
        "translate": "[mousedown, window:mouseup] > window:mousemove!",
        "zoom": "wheel![event.ctrlKey || event.metaKey]",
    },
}


@dataclass(frozen=True)
class Layer:
    """Marks for the rows of a frame.

    Attributes:
        frame: what is drawn.
        mark: its type and its look.
        encoding: from channel to a column of the frame, or to what Vega-Lite takes there.
    """

    frame: pl.DataFrame
    mark: Spec
    encoding: Mapping[str, str | Spec | list[Spec]]


@dataclass(frozen=True)
class Panel:
    """One chart of a figure.

    Attributes:
        title: above it; such as N = 64.
        layers: from the back to the front.
        channels: the axes and colours that all layers share.
        points: what the pointer finds, with a tooltip; None for charts whose marks have tooltips of their own.
        choice: panels of the same choice are shown together; None: always.
        height: in pixels.
        rows: the labels that have rows of their own, which give their height back when they are switched off.
        canvas: whether it has too many marks for an SVG on a page.
    """

    title: str
    layers: Sequence[Layer]
    channels: Mapping[str, Spec]
    points: Layer | None = None
    choice: str | None = None
    height: int = 300
    rows: tuple[str, ...] = ()
    canvas: bool = False

    @property
    def zooms(self) -> bool:
        """Whether it can be zoomed."""
        return self.points is not None


@dataclass(frozen=True)
class Figure:
    """A figure of the report; what is said about it stands in `memory_rl.reporting.wording`.

    Attributes:
        name: of its files and its link.
        panels: none if it is left out.
        missing: why it is left out.
        notes: what this one leaves out; a sentence each.
    """

    name: str
    panels: tuple[Panel, ...] = ()
    missing: str = ""
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Its heading."""
        return TITLES[self.name]

    @property
    def reading(self) -> tuple[str, ...]:
        """How to read it; a paragraph each."""
        return READING[self.name]


def marks(frame: pl.DataFrame, kind: str, encoding: Mapping[str, Any], **look: Any) -> Layer:
    """A layer of marks of one kind."""
    return Layer(frame, {"type": kind, **look}, encoding)


def intervals(
    frame: pl.DataFrame, encoding: Mapping[str, Any], low: str = "low", high: str = "high", **look: Any
) -> Layer:
    """A vertical rule from low to high for each estimate."""
    spread = {**encoding, "y": low, "y2": high}
    return marks(frame, "rule", spread, **{"strokeWidth": 1.8, "opacity": 0.7, **look})


def estimates(
    frame: pl.DataFrame, encoding: Mapping[str, Any], low: str = "low", high: str = "high"
) -> list[Layer]:
    """Points joined by lines, with their intervals."""
    return [
        intervals(frame, encoding, low, high),
        marks(frame, "line", encoding, strokeWidth=2),
        marks(frame, "point", encoding, filled=True, size=50, opacity=1),
    ]


def band(frame: pl.DataFrame, encoding: Mapping[str, Any], **look: Any) -> list[Layer]:
    """A curve in the band from low to high."""
    spread = {**encoding, "y": "low", "y2": "high"}
    return [
        marks(frame, "area", spread, fillOpacity=0.15, **look),
        marks(frame, "line", encoding, strokeWidth=2.2, **look),
    ]


def reference(frame: pl.DataFrame, kind: str, encoding: Mapping[str, Any], **look: Any) -> Layer:
    """Marks that belong to no series, in the colour of the text."""
    return marks(frame, kind, encoding, **{"style": "reference", "strokeWidth": 1.2, **look})


def note(frame: pl.DataFrame, encoding: Mapping[str, Any], **look: Any) -> Layer:
    """Words beside a reference."""
    return marks(frame, "text", encoding, style="reference-text", **{"align": "left", **look})


def with_tips(
    frame: pl.DataFrame, encoding: Mapping[str, Any], headings: Mapping[str, str], form: str = ".4~g"
) -> Layer:
    """What the pointer finds: points that show the columns of the headings, fractions in the given form."""
    lit = {"condition": {"param": "near", "empty": False, "value": 1}, "value": 0}
    found = {**encoding, "opacity": lit, "tooltip": tips(frame, headings, form)}
    return marks(frame, "point", found, filled=True, size=90)


def tips(frame: pl.DataFrame, headings: Mapping[str, str], form: str = ".4~g") -> list[Spec]:
    """A tooltip with a line a column; its heading, and numbers in a form that suits them."""
    return [
        {"field": column, "title": heading, **_form(frame.schema[column], form)}
        for column, heading in headings.items()
    ]


def _form(kind: pl.DataType, form: str) -> Spec:
    if kind == pl.String:
        return {"type": "nominal"}
    return {"type": "quantitative", "format": ",d" if kind.is_integer() else form}


def axis(title: str, domain: Sequence[float], scale: Mapping[str, Any] | None = None, **guide: Any) -> Spec:
    """An axis of numbers over a domain, which is kept as it is.

    Args:
        title: with its unit.
        domain: its ends.
        scale: what else of Vega-Lite's scale is not as usual, such as its type.
        guide: of Vega-Lite's axis, such as values and format of its ticks.
    """
    return {
        "title": title,
        "scale": {"domain": list(domain), "nice": False, **(scale or {})},
        "axis": guide,
    }


def log_axis(title: str, domain: Sequence[float], *, base: int = 10, **guide: Any) -> Spec:
    """A logarithmic axis with ticks at 1, 2 and 5, unless others are given."""
    scale = {"type": "log", "base": base}
    return axis(title, domain, scale, **{"values": TICKS, "format": "~g", **guide})


def reach(*columns: Iterable[float | None], by: float = 1.6) -> tuple[float, float]:
    """From a little below the least to a little above the greatest positive number of the columns."""
    positive = [value for column in columns for value in column if value is not None and value > 0]
    return min(positive) / by, max(positive) * by


def live(panel: Panel, study: Study, about: str) -> Spec:
    """A panel for the page: as wide as its place, with tooltips, zoom and the `hidden` parameter that the
    legend sets.
    """
    finder = [] if panel.points is None else [panel.points]
    spec = _chart(panel, [*panel.layers, *finder], study, legend=None)
    for layer in spec["layer"]:
        layer["transform"] = [_SWITCHED_ON]
    if finder:
        spec["layer"][-1]["params"] = [_NEAR, _ZOOM]
    return {
        **spec,
        "params": [{"name": _HIDDEN, "value": study.hidden}],
        "width": "container",
        "height": panel.height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "description": about,
    }


def printed(panel: Panel, study: Study, width: int = 370) -> Spec:
    """A panel for print, with a legend and what the page shows at first."""
    title = panel.title if panel.choice is None else f"{panel.choice}: {panel.title}"
    shown = [label.name for label in study.labels if not label.starts_hidden]
    chart = _chart(panel, panel.layers, study, {**LEGEND, "columns": 4, "title": None, "values": shown})
    return {**chart, "width": width, "height": panel.height, "title": title}


def sheet(figure: Figure, study: Study) -> Spec:
    """A whole figure for print: its panels beside each other."""
    title = {"text": figure.title, "fontSize": 17, "offset": 18}
    columns = 2 if any(panel.choice for panel in figure.panels) else 3
    return joined([printed(panel, study) for panel in figure.panels], title, columns, colors="shared")


def joined(panels: list[Spec], title: Spec, columns: int, *, colors: str) -> Spec:
    """Charts under one title; the same colour means the same in all if they are "shared", and not if
    "independent".
    """
    return {
        "concat": panels,
        "columns": min(columns, len(panels)),
        "spacing": 36,
        "title": title,
        "resolve": {"scale": {"color": colors}},
    }


def _chart(panel: Panel, layers: Iterable[Layer], study: Study, legend: Spec | None) -> Spec:
    """The layers as one chart. Data that several of them share stand in it once."""
    common = (panel.points or panel.layers[0]).frame
    channels = _channels(panel, study, legend)
    return {
        "data": _values(common),
        "layer": [
            {
                **({} if layer.frame is common else {"data": _values(layer.frame)}),
                "mark": {"clip": panel.zooms, **layer.mark},
                "encoding": _encoding(layer, channels),
            }
            for layer in layers
        ],
    }


def _values(frame: pl.DataFrame) -> Spec:
    return {"values": frame.fill_nan(None).to_dicts()}


def _channels(panel: Panel, study: Study, legend: Spec | None) -> dict[str, Spec]:
    """Those of the panel, with one colour and one pattern of dashes a label."""
    names = [label.name for label in study.labels]
    dashes = [dash_of(label) for label in study.labels]
    color = {"scale": {"domain": names}, "legend": legend}
    return {
        "strokeDash": {"scale": {"domain": names, "range": dashes}, "legend": None},
        **panel.channels,
        "color": {**color, **panel.channels.get("color", {})},
    }


def _encoding(layer: Layer, channels: Mapping[str, Spec]) -> Spec:
    """In Vega-Lite's words. Lines of a series have its dashes, unless they have dashes of their own."""
    by_series = layer.encoding.get("color") == SERIES and layer.mark["type"] == "line"
    dashed = {"strokeDash": SERIES} if by_series and "strokeDash" not in layer.mark else {}
    return {
        channel: _channel(layer.frame, channels.get(channel), place) if isinstance(place, str) else place
        for channel, place in {**dashed, **layer.encoding}.items()
    }


def _channel(frame: pl.DataFrame, shared: Spec | None, column: str) -> Spec:
    """A column in a channel, of a type that suits it; channels that have no scale take the column alone."""
    if shared is None:
        return {"field": column}
    kind = "nominal" if frame.schema[column] == pl.String else "quantitative"
    return {"type": kind, **shared, "field": column}
