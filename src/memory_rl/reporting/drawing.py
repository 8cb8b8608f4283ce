"""What a figure is made of: layers of marks in panels, as plain Vega-Lite.

A panel is drawn twice: live on the page, and for print.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from memory_rl.reporting.curves import LINEAR_UP_TO
from memory_rl.reporting.study import MOST, Entry, Study, batched
from memory_rl.reporting.themes import dash_at, shape_at
from memory_rl.reporting.wording import wording

Spec = dict[str, Any]
"""Vega-Lite, or a part of it."""

Encoding = Mapping[str, Any]

SERIES = "series"
"""The column with the label of a cell. What is coloured by it has the label's colour and dashes."""

DECADES = [10.0**power for power in range(-9, 10)]
TICKS = [digit * decade for decade in DECADES for digit in (1, 2, 5)]
INTERVAL = {"low": "95 % from", "high": "to"}
LEGEND = {"orient": "bottom", "symbolType": "stroke", "symbolOpacity": 1}
_SHAPED = {"symbolType": "circle", "symbolSize": 70, "symbolStrokeWidth": 1}
"""Of a legend of shapes, whose outlines are dashed as their lines are: thin, so that the shape is seen."""

LANE = 21
"""Pixels a line in a panel with rows."""

_HIDDEN = "hidden"
_SWITCHED_ON = {"filter": f"indexof({_HIDDEN}, datum.{SERIES}) < 0"}
_LIT = {"condition": {"param": "near", "empty": False, "value": 1}, "value": 0}
_NEAR: Spec = {
    "name": "near",
    "select": {"type": "point", "on": "pointermove", "nearest": True, "clear": "pointerout"},
}
_LIT_SERIES: Spec = {"name": "lit", "select": {**_NEAR["select"], "fields": [SERIES]}}
_BANDS_AT_ONCE = 3  # more of them hide each other, and are pale but for the one that is pointed at
_BAND_OF_LIT: Spec = {"condition": {"param": "lit", "empty": False, "value": 0.3}, "value": 0.05}
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
    """Marks, one for each row of a frame, or one for each series.

    Attributes:
        mark: its type and its appearance.
        encoding: from channel to a column, or to what Vega-Lite takes there; for a tooltip, from columns to
            their headings.
        frame: what is drawn; None: that of the panel.
        alone: whether it shares only the scales of the panel's channels.
        says: what it stands for, in print, where no legend and no words beside it do.
    """

    mark: Spec
    encoding: Encoding
    frame: pl.DataFrame | None = None
    alone: bool = False
    says: str = ""


@dataclass(frozen=True)
class Panel:
    """One chart of a figure.

    Attributes:
        frame: the rows that its layers draw, unless they have a frame of their own.
        channels: axes and colours, each with the column that its layers draw there, unless they name another;
            colours stand for series if nothing else is said.
        layers: from the back to the front.
        tips: headings of the columns that are shown of the point nearest to the pointer. A panel without any
            cannot be zoomed.
        title: above it; such as N = 64.
        form: of fractions in tooltips.
        choice: panels of the same choice are shown together; None: always.
        height: in pixels.
        rows: the labels that have rows of their own, which give their height back when they are switched off.
        canvas: whether it has too many marks for an SVG on a page.
    """

    frame: pl.DataFrame
    channels: Mapping[str, Spec]
    layers: Sequence[Layer]
    tips: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    form: str = ".4~g"
    choice: str | None = None
    height: int = 300
    rows: Sequence[str] = ()
    canvas: bool = False

    @property
    def series(self) -> list[str]:
        """The labels of the cells that it shows; none if colours stand for something else."""
        return self.frame[SERIES].unique().to_list() if SERIES in self.frame.columns else []

    @property
    def has_shapes(self) -> bool:
        """Whether the points of each series have a shape of their own."""
        return any(layer.mark["type"] == "point" and "shape" not in layer.mark for layer in self.layers)


@dataclass(frozen=True)
class Figure:
    """A figure of the report; what is said about it stands in templates/wording.yaml.

    Attributes:
        name: of its files and its link.
        panels: none if it is left out.
        missing: why it is left out, if it has no panels.
        notes: what its panels leave out; a sentence each.
    """

    name: str
    panels: Sequence[Panel] = ()
    missing: str = ""
    notes: Sequence[str] = ()

    @property
    def columns(self) -> int:
        """How many panels stand side by side, three at most: those of one N, if it has several."""
        starts = [panel.title.partition(":")[0] for panel in self.panels]
        same = starts.count(starts[0]) if starts else 0
        return min(len(starts), same if same in (2, 3) else 3)

    @property
    def title(self) -> str:
        """Its heading."""
        return str(wording("figures", self.name)["title"])

    @property
    def reading(self) -> list[str]:
        """How to read it; a paragraph each."""
        return list(wording("figures", self.name)["reading"])


_SPREAD = "95 % interval"


def at_each(study: Study, make: Callable[[Sequence[Entry]], Panel | None]) -> list[Panel]:
    """A panel for each N and group of labels."""
    made = (
        (f"N = {N}{name and f': {name}'}", make(part.at(N)))
        for N in study.sizes
        for name, part in study.charts()
        if part.at(N)
    )
    return [replace(panel, title=title) for title, panel in made if panel]


def marks(
    kind: str,
    frame: pl.DataFrame | None = None,
    encoding: Encoding | None = None,
    *,
    says: str = "",
    **look: Any,
) -> Layer:
    """A layer of marks of one kind."""
    return Layer({"type": kind, **look}, encoding or {}, frame, says=says)


def estimates(frame: pl.DataFrame | None = None) -> list[Layer]:
    """Vertical rules from low to high, lines that join the points, and the points."""
    return [
        marks(
            "rule",
            frame,
            {"y": "low", "y2": "high"},
            says=f"upright: {_SPREAD}",
            strokeWidth=1.8,
            opacity=0.7,
        ),
        marks("line", frame, strokeWidth=2),
        marks("point", frame, filled=True, size=50, opacity=1),
    ]


def band(**look: Any) -> list[Layer]:
    """A curve in the band from low to high."""
    ends = {"y": "low", "y2": "high"}
    spread = marks("area", encoding=ends, says=f"band: {_SPREAD}", fillOpacity=0.15, **look)
    return [spread, marks("line", strokeWidth=2.2, **look)]


def reference(kind: str, frame: pl.DataFrame, encoding: Encoding, *, says: str = "", **look: Any) -> Layer:
    """Marks that belong to no series, in the colour of the text."""
    mark = {"type": kind, "style": "reference", "strokeWidth": 1.2, **look}
    return Layer(mark, encoding, frame, alone=True, says=says)


def note(frame: pl.DataFrame, encoding: Encoding, **look: Any) -> Layer:
    """Words beside a reference; in the column `words`."""
    return reference(
        "text", frame, {**encoding, "text": "words"}, **{"style": "reference-text", "align": "left", **look}
    )


def axis(
    column: str,
    title: str | Sequence[str],
    domain: Sequence[float],
    scale: Mapping[str, Any] | None = None,
    **guide: Any,
) -> Spec:
    """An axis of numbers over a domain, which is kept as it is.

    Args:
        column: what is drawn along it.
        title: with its unit; one or several lines.
        domain: its ends.
        scale: what else of Vega-Lite's scale is not as usual, such as its type.
        guide: of Vega-Lite's axis, such as values and format of its ticks.
    """
    return {
        "field": column,
        "type": "quantitative",
        "title": title,
        "scale": {"domain": list(domain), "nice": False, **(scale or {})},
        "axis": guide,
    }


def log_axis(column: str, title: str, domain: Sequence[float], *, base: int = 10, **guide: Any) -> Spec:
    """A logarithmic axis with ticks at 1, 2 and 5, unless others are given."""
    scale = {"type": "log", "base": base}
    return axis(column, title, domain, scale, **{"values": TICKS, "format": "~g", **guide})


_THOUSANDS = "datum.value < 1000 ? format(datum.value, '~r') : format(datum.value / 1000, ',') + 'k'"
_ALL_LINEAR = 100
"""Axes of at most this many episodes are linear, so that a median of 7 can be read."""


def episodes(ends: pl.Series, column: str = "episode") -> Spec:
    """From 0 to the last of the ends; linear, or if that is far, linear at first and then logarithmic."""
    return episode_axis(max(ends), column)


def episode_axis(last: float, column: str = "episode") -> Spec:
    """From 0 to the last episode; what is neither linear nor logarithmic says so."""
    if last <= _ALL_LINEAR:
        return axis(column, "episodes", (0, last))
    ticks = [digit * 10**power for power in range(9) for digit in (1, 2, 5)]
    shown = [0, *(tick for tick in ticks if LINEAR_UP_TO / 2 <= tick <= last)]
    scale = {"type": "symlog", "constant": LINEAR_UP_TO}
    title = f"episodes (linear to {LINEAR_UP_TO}, then logarithmic)"  # as wide as a phone
    return axis(column, title, (0, last), scale, values=shown, labelExpr=_THOUSANDS)


def color_scale(
    column: str, domain: Iterable[str], shown: Iterable[str] | None = None, title: str | None = None
) -> Spec:
    """A colour, dashes and a shape for each name; the legend shows those of `shown`, or all.

    Neighbours that are no more than `MOST` have colours of their own; see `chunks`.
    """
    names = list(dict.fromkeys(domain))
    present = names if shown is None else [name for name in names if name in set(shown)]
    return {
        "field": column,
        "scale": {"domain": names, "range": "ordinal"},
        "legend": {**LEGEND, "columns": 3, "title": title, "values": present},
    }


def chunks(names: Sequence[str]) -> list[Sequence[str]]:
    """Neighbours that share a chart, as many in each, and no more than there are colours."""
    parts = max(1, -(-len(names) // MOST))
    return list(batched(names, max(1, -(-len(names) // parts))))


def extent(*columns: Iterable[float | None]) -> tuple[float, float]:
    """The least and the greatest number of the columns."""
    numbers = [number for column in columns for number in column if number is not None]
    return min(numbers), max(numbers)


def reach(*columns: Iterable[float | None], by: float = 1.6) -> tuple[float, float]:
    """From a little below the least to a little above the greatest positive number of the columns."""
    low, high = extent(number for column in columns for number in column if number and number > 0)
    return low / by, high * by


def live(panel: Panel, study: Study, about: str) -> Spec:
    """A panel for the page: as wide as its place, with tooltips, zoom, and what the legend has hidden."""
    look: dict[str, Any] = (
        {} if panel.has_shapes else {"shape": "circle"}
    )  # else the legend would be one of shapes
    finder = marks("point", encoding={"opacity": _LIT, "tooltip": panel.tips}, filled=True, size=90, **look)
    layers = [*panel.layers, finder] if panel.tips else panel.layers
    spec = chart(panel, layers, study, legend=None)
    crowded = panel.tips and len(panel.series) > _BANDS_AT_ONCE
    for layer in spec["layer"]:
        layer["transform"] = [_SWITCHED_ON]
        if crowded and layer["mark"]["type"] == "area":
            layer["encoding"]["fillOpacity"] = _BAND_OF_LIT
    if panel.tips:
        spec["layer"][-1]["params"] = [_NEAR, _ZOOM, *([_LIT_SERIES] if crowded else [])]
    return {
        **spec,
        "params": [{"name": _HIDDEN, "value": study.hidden}],
        "width": "container",
        "height": panel.height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "description": about,
    }


def chart(panel: Panel, layers: Iterable[Layer], study: Study, legend: Spec | None) -> Spec:
    """The layers as one chart; what may be zoomed is clipped to it."""
    looks = _looks(panel.channels.get("color", {}), study, legend, shaped=panel.has_shapes)
    channels = {**panel.channels, **looks}
    return {
        "data": _values(panel.frame),
        "layer": [
            {
                **({} if layer.frame is None else {"data": _values(layer.frame)}),
                "mark": {"clip": bool(panel.tips), **layer.mark},
                "encoding": _encoding(layer, panel, channels),
            }
            for layer in layers
        ],
    }


def _looks(color: Spec, study: Study, legend: Spec | None, *, shaped: bool) -> dict[str, Spec]:
    """Colours of series, or of something else, with dashes and shapes that tell the same."""
    names = [label.name for label in study.labels]
    color = {"field": SERIES, "scale": {"domain": names}, "legend": legend, **color}
    domain = color["scale"]["domain"]
    places = [label.color for label in study.labels] if color["field"] == SERIES else range(len(domain))
    dashes, shapes = map(dash_at, places), map(shape_at, places)
    told = color["legend"] and {**color["legend"], **(_SHAPED if shaped else {})}
    return {
        "color": {**color, "legend": told},
        "strokeDash": {"scale": {"domain": domain, "range": [*dashes]}, "legend": told},
        "shape": {"scale": {"domain": domain, "range": [*shapes]}, "legend": told},
    }


_TOLD_APART = {"line": "strokeDash", "point": "shape"}


def _values(frame: pl.DataFrame) -> Spec:
    return {"values": frame.fill_nan(None).to_dicts()}


def _encoding(layer: Layer, panel: Panel, channels: Mapping[str, Spec]) -> Spec:
    """In Vega-Lite's words. Lines have the dashes and points the shapes of their colours, or their own."""
    frame = panel.frame if layer.frame is None else layer.frame
    shared = {name: channel["field"] for name, channel in channels.items() if "field" in channel}
    places = layer.encoding if layer.alone else {**shared, **layer.encoding}
    by, column = _TOLD_APART.get(layer.mark["type"]), channels["color"]["field"]
    if by and by not in layer.mark and by not in places and places.get("color") == column:
        places = {**places, by: column}
    encoding = {
        channel: {**channels.get(channel, {}), "field": place} if isinstance(place, str) else place
        for channel, place in places.items()
    }
    if "tooltip" in places:
        tips = places["tooltip"].items()
        encoding["tooltip"] = [_tip(frame, column, heading, panel.form) for column, heading in tips]
    return encoding


def _tip(frame: pl.DataFrame, column: str, heading: str, form: str) -> Spec:
    """A line of a tooltip, with numbers in a form that suits them."""
    kind = frame.schema[column]
    look = {"type": "nominal"} if kind == pl.String else {"format": ",d" if kind.is_integer() else form}
    return {"type": "quantitative", **look, "field": column, "title": heading}
