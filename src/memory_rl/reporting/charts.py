"""The report's figures: one function a figure, a study in, panels out. A panel is drawn twice: live on the
page, and for print as PNG and SVG.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import polars as pl

from memory_rl.reporting import curves
from memory_rl.reporting.curves import LINEAR_UP_TO
from memory_rl.reporting.study import Entry, Study
from memory_rl.reporting.themes import dash_of
from memory_rl.reporting.wording import READING, TITLES
from memory_rl.runs.store import FILM, RunDirectory

Layers = Sequence[alt.Chart]

_SERIES = "series"
_HIDDEN = "hidden"
_ZOOM = "zoom"
_DECADES = [10.0**power for power in range(-9, 10)]
ROW = 84
"""Pixels a row of a panel with rows."""

_COUNTS = ".4~g"


@dataclass(frozen=True)
class Panel:
    """One chart of a figure.

    Attributes:
        title: above it; such as N = 64.
        layers: of the chart.
        points: what the pointer finds, and the tooltip tells; None for charts whose marks tell it themselves.
        choice: panels of the same choice are shown together; None: always.
        height: in pixels.
        rows: the labels that have rows of their own, which take their height away when they are switched off.
        zooms: whether it can be zoomed.
        canvas: whether it has too many marks for an SVG on a page.
    """

    title: str
    layers: Layers
    points: alt.Chart | None = None
    choice: str | None = None
    height: int = 300
    rows: tuple[str, ...] = ()
    zooms: bool = True
    canvas: bool = False


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
    notes: tuple[str, ...] = field(default=())

    @property
    def title(self) -> str:
        """Its heading."""
        return TITLES[self.name]

    @property
    def reading(self) -> tuple[str, ...]:
        """How to read it; a paragraph each."""
        return READING[self.name]


def live(panel: Panel, study: Study, about: str) -> dict[str, Any]:
    """A panel for the page, as a Vega-Lite specification: as wide as its place, with tooltips, zoom and the
    `hidden` parameter that the legend sets.
    """
    base = [_switched(_colored(layer, study, legend=False)) for layer in panel.layers]
    chart = alt.LayerChart(layer=[*base, *_finder(panel, study)]).add_params(
        alt.param(name=_HIDDEN, value=study.hidden)
    )
    autosize = alt.AutoSizeParams(type="fit-x", contains="padding")
    return chart.properties(
        width="container", height=panel.height, autosize=autosize, description=about
    ).to_dict()


def printed(figure: Figure, study: Study) -> dict[str, Any]:
    """A whole figure for print: its panels beside each other, with a legend and what the page shows at
    first.
    """
    panels = [_print(panel, study) for panel in figure.panels]
    columns = 2 if any(panel.choice for panel in figure.panels) else min(3, len(panels))
    chart = alt.concat(
        *panels, columns=columns, spacing=36, title=alt.Title(figure.title, fontSize=17, offset=18)
    ).resolve_scale(color="shared")
    return chart.to_dict()


def _print(panel: Panel, study: Study) -> alt.LayerChart:
    layers = [_colored(layer, study, legend=True) for layer in panel.layers]
    title = panel.title if panel.choice is None else f"{panel.choice}: {panel.title}"
    return alt.LayerChart(layer=layers).properties(width=370, height=panel.height, title=title)


def _finder(panel: Panel, study: Study) -> list[alt.Chart]:
    """The point nearest to the pointer, and what it tells."""
    if panel.points is None:
        return []
    near = alt.selection_point(name="near", on="pointermove", nearest=True, clear="pointerout")
    points = panel.points.mark_point(filled=True, size=90, clip=True).encode(
        opacity=alt.when(near, empty=False).then(alt.value(1)).otherwise(alt.value(0))
    )
    points = _switched(_colored(points, study, legend=False)).add_params(near)
    return [points.add_params(_zoom()) if panel.zooms else points]


def _switched(layer: alt.Chart) -> alt.Chart:
    """Without the rows of the labels that are switched off; rows without a label stay."""
    return layer.transform_filter(f"indexof({_HIDDEN}, datum.{_SERIES}) < 0")


def _zoom() -> alt.Parameter:
    """Bound to the axes: dragged with the mouse alone and turned with Ctrl held, so that a page can be
    scrolled past it by wheel and by finger.
    """
    return alt.selection_interval(
        name=_ZOOM,
        bind="scales",
        translate="[mousedown, window:mouseup] > window:mousemove!",
        zoom="wheel![event.ctrlKey || event.metaKey]",
    )


def _colored(layer: alt.Chart, study: Study, *, legend: bool) -> alt.Chart:
    """The layer with one colour and one pattern of dashes a label, if it tells labels apart by colour."""
    if not (
        isinstance(layer.encoding, alt.FacetedEncoding)
        and isinstance(layer.encoding.color, alt.Color)
        and layer.encoding.color.shorthand == _BY_SERIES
    ):
        return layer
    names = [label.name for label in study.labels]
    shown = [name for name in names if name not in study.hidden]
    named = legend and _mark_of(layer) != "square"  # rows say themselves what they are
    entry = (
        alt.Legend(orient="bottom", columns=4, title=None, values=shown, symbolType="stroke", symbolOpacity=1)
        if named
        else None
    )
    layer = layer.encode(color=alt.Color(_BY_SERIES, scale=alt.Scale(domain=names), legend=entry))
    if _mark_of(layer) != "line" or isinstance(layer.encoding.strokeDash, alt.StrokeDashValue):
        return layer
    return layer.encode(
        strokeDash=alt.StrokeDash(
            _BY_SERIES,
            scale=alt.Scale(domain=names, range=[dash_of(label) for label in study.labels]),
            legend=None,
        )
    )


_BY_SERIES = f"{_SERIES}:N"


def _mark_of(layer: alt.Chart) -> str:
    return layer.mark if isinstance(layer.mark, str) else str(layer.mark.type)


def _chart(frame: pl.DataFrame) -> alt.Chart:
    return alt.Chart(frame)


def _by_series() -> alt.Color:
    return alt.Color(_BY_SERIES)


def _tip(shorthand: str, title: str, form: str | None = None) -> alt.Tooltip:
    return alt.Tooltip(shorthand, title=title, format=form) if form else alt.Tooltip(shorthand, title=title)


_CONDITION = _tip(_BY_SERIES, "condition")


def _episodes(last: float) -> alt.X:
    """Linear at first, then logarithmic."""
    ticks = [
        0,
        *(
            digit * 10**power
            for power in range(9)
            for digit in (1, 2, 5)
            if LINEAR_UP_TO / 2 <= digit * 10**power <= last
        ),
    ]
    scale = alt.Scale(type="symlog", constant=LINEAR_UP_TO, domain=[0, last], nice=False)
    return alt.X("episode:Q", title="episodes", scale=scale, axis=_thousands(ticks))


def _thousands(ticks: list[float]) -> alt.Axis:
    """Episodes as 500, 1k, 20k."""
    return alt.Axis(
        values=ticks,
        labelExpr="datum.value < 1000 ? format(datum.value, '~r') : format(datum.value / 1000, ',') + 'k'",
    )


def _logarithmic(low: float, high: float) -> alt.Scale:
    return alt.Scale(type="log", domain=[low, high], nice=False)


def _at_each(study: Study, make: Callable[[list[Entry], int], Panel | None]) -> tuple[Panel, ...]:
    panels = [make(study.at(N), N) for N in study.sizes if study.at(N)]
    return tuple(panel for panel in panels if panel is not None)


def bits_known(study: Study) -> Figure:
    """Bits known against episodes, with intervals and ceilings: a panel an N."""
    return Figure("bits_known", _at_each(study, _bits_panel))


def _bits_panel(entries: list[Entry], N: int) -> Panel:
    frame, limits, information = curves.bits_known(entries), curves.ceilings(entries), math.log2(N)
    x = _episodes(float(frame["episode"].max()))  # type: ignore[arg-type]
    low = min(0.0, float(frame["low"].fill_null(0.0).min()))  # type: ignore[arg-type]
    scale = alt.Scale(
        domain=[low - 0.02 * (information - low), information + 0.1 * (information - low)], nice=False
    )
    y = alt.Y("mean:Q", title="bits known", scale=scale)
    base, tips = (
        _chart(frame),
        [_CONDITION, _tip("episode:Q", "episode", ",d"), _tip("mean:Q", "bits known, mean", ".3f")],
    )
    tips += [
        _tip("low:Q", "95 % from", ".3f"),
        _tip("high:Q", "to", ".3f"),
        _tip("ceiling:Q", "ceiling, bits", ".3f"),
    ]
    top = _chart(pl.DataFrame({"bits": [information], "words": [f"log2 N = {information:.3g} bits"]}))
    layers = [
        base.mark_area(interpolate="step-after", opacity=0.16, clip=True).encode(
            x, alt.Y("low:Q", title="bits known", scale=scale), alt.Y2("high:Q"), _by_series()
        ),
        _chart(limits)
        .mark_line(clip=True, strokeWidth=1.2, opacity=0.75)
        .encode(x, alt.Y("bits:Q"), _by_series(), strokeDash=alt.value([1.5, 3])),
        base.mark_line(interpolate="step-after", strokeWidth=2.2, clip=True).encode(x, y, _by_series()),
        top.mark_rule(style="reference", strokeWidth=1).encode(alt.Y("bits:Q")),
        top.mark_text(style="reference-text", align="left", dx=5, dy=-7).encode(
            alt.Y("bits:Q"), text="words:N", x=alt.value(0)
        ),
    ]
    return Panel(f"N = {N}", layers, base.encode(x, y, _by_series(), tooltip=tips))


def waterfall(study: Study) -> Figure:
    """Where the bits go, from channel capacity to policy: a panel an N, conditions below each other."""
    without = sorted({entry.label for entry in study.entries if "rates" not in entry.summary})
    panels = _at_each(study, _waterfall_panel)
    if not panels:
        return Figure("waterfall", missing="no cell keeps a ledger (ledger=False)")
    notes = (f"Without a ledger, and so not shown: {', '.join(without)}.",) if without else ()
    return Figure("waterfall", panels, notes=notes)


def _waterfall_panel(entries: list[Entry], N: int) -> Panel | None:
    frame = curves.waterfall(entries)
    rates = frame.select("above", "below", "low", "high").unpivot()["value"].drop_nulls()
    if rates.is_empty():
        return None
    least, most = float(rates.min()), float(rates.max())  # type: ignore[arg-type]
    low, high = least / 1.3, most * max(most / least, 10.0) ** 0.6  # room for the words on the right
    frame = frame.with_columns(place=pl.max_horizontal("above", "below", "high").fill_null(low))
    present = frame["series"].unique(maintain_order=True).to_list()
    headings = _chart(_headings(entries))
    axis = alt.Axis(
        values=[decade for decade in _DECADES if decade <= 2 * most], format="~g", labelOverlap=True
    )
    x = alt.X("below:Q", scale=_logarithmic(low, high), title="bits per episode", axis=axis)
    rows: dict[str, Any] = {
        "y": alt.Y(_BY_SERIES, sort=present, axis=None),
        "yOffset": alt.YOffset("lane:O", scale=alt.Scale(domain=[0, 1, 2, 3])),
    }
    tips = [
        _CONDITION,
        _tip("step:N", "loss"),
        _tip("factor:Q", "factor lost", ".4~g"),
        _tip("from:N", "from"),
        _tip("above:Q", "bits per episode", ".3~g"),
    ]
    tips += [
        _tip("to:N", "to"),
        _tip("below:Q", "bits per episode ", ".3~g"),
        _tip("low:Q", "95 % from", ".3~g"),
        _tip("high:Q", "95 % to", ".3~g"),
    ]
    base = _chart(frame)
    bars = [
        base.transform_filter(f"datum.step == '{step}'")
        .mark_bar(style=step, minBandSize=2)
        .encode(x, alt.X2("above:Q"), **rows, tooltip=tips)
        for step in curves.STEPS
    ]
    ends = base.mark_tick(style="reference", thickness=2, height=13, opacity=1).encode(
        x, **rows, tooltip=tips
    )
    layers = [
        *bars,
        base.mark_rule(style="interval", strokeWidth=1.4).encode(
            alt.X("low:Q", scale=_logarithmic(low, high)), alt.X2("high:Q"), **rows
        ),
        ends,
        base.mark_text(align="left", dx=7, baseline="middle").encode(
            alt.X("place:Q", scale=_logarithmic(low, high)), text="words:N", **rows
        ),
        headings.mark_square(size=90, opacity=1).encode(x=alt.value(7), color=_by_series(), **rows),
        headings.mark_text(style="heading", align="left", baseline="middle").encode(
            x=alt.value(18), text="heading:N", **rows
        ),
    ]
    return Panel(f"N = {N}", layers, height=ROW * len(present), rows=tuple(present), zooms=False)


def _headings(entries: list[Entry]) -> pl.DataFrame:
    rows = [(entry.label, 0, _heading(entry)) for entry in entries if "rates" in entry.summary]
    return pl.DataFrame(
        rows, schema={"series": pl.String, "lane": pl.Int32, "heading": pl.String}, orient="row"
    )


def _heading(entry: Entry) -> str:
    rate = entry.summary["bits_per_episode"]["estimate"]
    return f"{entry.label}: {rate:.3g} bits/episode" if rate else f"{entry.label}: none in these runs"


def survival(study: Study) -> Figure:
    """Kaplan-Meier curves of the episodes to memorise: a panel an N."""
    return Figure("survival", _at_each(study, _survival_panel))


def _survival_panel(entries: list[Entry], N: int) -> Panel:
    frame, stopped = curves.survival(entries), curves.censored(entries)
    last = float(frame["episode"].max())  # type: ignore[arg-type]
    x = alt.X("episode:Q", title="episodes", scale=_logarithmic(1, last * 1.15), axis=_thousands(_DECADES))
    scale = alt.Scale(domain=[-0.03, 1.05], nice=False)
    percent = alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format="%")
    y = alt.Y("surviving:Q", title="runs that have not memorised", scale=scale, axis=percent)
    base = _chart(frame)
    tips = [
        _CONDITION,
        _tip("episode:Q", "episodes", ",d"),
        _tip("surviving:Q", "not yet", ".1%"),
        _tip("low:Q", "95 % from", ".1%"),
        _tip("high:Q", "to", ".1%"),
    ]
    median = (
        _chart(pl.DataFrame({"surviving": [0.5]}))
        .mark_rule(style="reference", strokeDash=[2, 4], strokeWidth=1)
        .encode(alt.Y("surviving:Q"))
    )
    layers = [
        base.transform_filter("datum.surviving < 1")
        .mark_area(interpolate="step-after", opacity=0.12, clip=True)
        .encode(x, alt.Y("low:Q", scale=scale, axis=percent), alt.Y2("high:Q"), _by_series()),
        median,
        base.mark_line(interpolate="step-after", strokeWidth=2.2, clip=True).encode(x, y, _by_series()),
        _chart(stopped)
        .mark_point(shape="cross", size=90, filled=True, clip=True, opacity=1)
        .encode(x, y, _by_series()),
    ]
    return Panel(f"N = {N}", layers, base.encode(x, y, _by_series(), tooltip=tips))


def scaling(study: Study) -> Figure:
    """Bits per episode against N, with ideal questioners and closed forms: one panel."""
    return Figure("scaling", (_scaling_panel(study),))


def _scaling_panel(study: Study) -> Panel:
    frame, guess = curves.scaling(study.entries), curves.one_hit(study.sizes)
    sizes = study.sizes
    rates = pl.concat(
        [frame.select("rate", "low", "high", "questioner", "closed_form").unpivot()["value"], guess["rate"]]
    ).drop_nulls()
    x_scale = alt.Scale(type="log", base=2, domain=[sizes[0] / 1.4, sizes[-1] * 1.4], nice=False)
    x = alt.X("N:Q", title="N (log2 N bits to learn)", scale=x_scale, axis=alt.Axis(values=sizes, format="d"))
    y_scale = _logarithmic(float(rates.min()) / 1.5, float(rates.max()) * 1.5)  # type: ignore[arg-type]

    def y(column: str) -> alt.Y:
        return alt.Y(
            f"{column}:Q",
            title="bits per episode",
            scale=y_scale,
            axis=alt.Axis(values=_DECADES, format="~g"),
        )

    base = _chart(frame)
    tips = [
        _CONDITION,
        _tip("N:Q", "N"),
        _tip("rate:Q", "bits per episode", ".3~g"),
        _tip("low:Q", "95 % from", ".3~g"),
        _tip("high:Q", "to", ".3~g"),
    ]
    tips += [_tip("questioner:Q", "ideal questioner", ".3~g")]
    exact = base.transform_filter("isValid(datum.closed_form)")
    layers = [
        base.mark_line(strokeWidth=1.4, opacity=0.9, clip=True).encode(
            x, y("questioner"), _by_series(), strokeDash=alt.value([6, 4])
        ),
        _chart(guess)
        .mark_line(style="reference", strokeWidth=1.4, strokeDash=[1.5, 3], clip=True)
        .encode(x, y("rate")),
        exact.mark_point(shape="diamond", size=120, clip=True).encode(x, y("closed_form"), _by_series()),
        base.mark_rule(strokeWidth=2, clip=True).encode(x, y("low"), alt.Y2("high:Q"), _by_series()),
        base.mark_line(strokeWidth=2.2, clip=True).encode(x, y("rate"), _by_series()),
        base.mark_point(filled=True, size=60, opacity=1, clip=True).encode(x, y("rate"), _by_series()),
    ]
    return Panel("", layers, base.encode(x, y("rate"), _by_series(), tooltip=tips), height=420)


def absorption(study: Study) -> Figure:
    """Bits absorbed per episode against P(S), under h(p) and -log2 p: a panel an N."""
    return Figure("absorption", _at_each(study, _absorption_panel))


def _absorption_panel(entries: list[Entry], N: int) -> Panel | None:
    frame = curves.absorption(entries)
    if frame.is_empty():
        return None
    start = max(1 / (16 * N), min(0.5 / N, float(frame["p"].min()) / 1.2))  # type: ignore[arg-type]
    lowest = min(0.0, float(frame.filter(pl.col("p") >= start)["absorbed"].min() or 0.0))  # type: ignore[arg-type]
    ticks = [-10, -1, -0.1, -0.01, 0, 0.01, 0.1, 1, 10]
    scale = alt.Scale(
        type="symlog", constant=0.01, domain=[lowest * 1.5 - 0.001, 1.4 * math.log2(2 * N)], nice=False
    )
    axis = alt.Axis(values=ticks, format="~g")
    x = alt.X(
        "p:Q",
        title="P(S) before the episode",
        scale=_logarithmic(start, 1.15),
        axis=alt.Axis(values=[*_DECADES, 0.5], format="~g"),
    )
    y = alt.Y("absorbed:Q", title="bits absorbed per episode", scale=scale, axis=axis)
    base, laws = _chart(frame), _chart(curves.told_by_an_answer(N))
    tips = [
        _CONDITION,
        _tip("p:Q", "P(S) before", ".3~g"),
        _tip("absorbed:Q", "bits per episode", ".3~g"),
        _tip("low:Q", "95 % from", ".3~g"),
    ]
    tips += [_tip("high:Q", "to", ".3~g"), _tip("runs:Q", "runs")]

    def law(start: str, dash: list[float]) -> alt.Chart:
        shown = laws.transform_filter(f"slice(datum.curve, 0, 1) == '{start}'").mark_line(
            style="reference", strokeWidth=1.5, strokeDash=dash, clip=True
        )
        return shown.encode(x, alt.Y("bits:Q", scale=scale, axis=axis))

    layers = [
        _chart(pl.DataFrame({"bits": [0.0]}))
        .mark_rule(style="reference", strokeWidth=0.8)
        .encode(alt.Y("bits:Q", scale=scale)),
        law("h", [1, 0]),
        law("-", [6, 4]),
        base.mark_rule(strokeWidth=1.2, clip=True, opacity=0.5).encode(
            x, alt.Y("low:Q", scale=scale, axis=axis), alt.Y2("high:Q"), _by_series()
        ),
        base.mark_line(strokeWidth=1.6, clip=True).encode(x, y, _by_series()),
        base.mark_point(filled=True, size=36, opacity=1, clip=True).encode(x, y, _by_series()),
    ]
    return Panel(f"N = {N}", layers, base.encode(x, y, _by_series(), tooltip=tips))


def rank(study: Study) -> Figure:
    """Bits per episode against LoRA rank: a panel an N where ranks differ."""
    panels = _at_each(study, _rank_panel)
    return (
        Figure("rank", panels) if panels else Figure("rank", missing="no two cells differ in lora_rank alone")
    )


def _rank_panel(entries: list[Entry], N: int) -> Panel | None:
    frame = curves.ranks(entries)
    if frame["rate"].drop_nulls().is_empty():
        return None
    rates, found = (
        frame.select("rate", "low", "high").unpivot()["value"].drop_nulls(),
        frame["rank"].unique().sort().to_list(),
    )
    scale = _logarithmic(float(rates.min()) / 2, float(rates.max()) * 2)  # type: ignore[arg-type]
    x_scale = alt.Scale(type="log", base=2, domain=[found[0] / 1.5, found[-1] * 1.5], nice=False)
    x = alt.X("rank:Q", title="LoRA rank", scale=x_scale, axis=alt.Axis(values=found, format="d"))
    ticks = [digit * decade for decade in _DECADES for digit in (1, 2, 5)]
    axis = alt.Axis(values=ticks, format="~g")
    y = alt.Y("rate:Q", title="bits per episode", scale=scale, axis=axis)
    base = _chart(frame)
    tips = [
        _CONDITION,
        _tip("rank:Q", "rank"),
        _tip("rate:Q", "bits per episode", ".3~g"),
        _tip("low:Q", "95 % from", ".3~g"),
        _tip("high:Q", "to", ".3~g"),
    ]
    layers = [
        base.mark_rule(strokeWidth=2, clip=True).encode(
            x, alt.Y("low:Q", scale=scale, axis=axis), alt.Y2("high:Q"), _by_series()
        ),
        base.mark_line(strokeWidth=2.2, clip=True).encode(x, y, _by_series()),
        base.mark_point(filled=True, size=60, opacity=1, clip=True).encode(x, y, _by_series()),
    ]
    return Panel(f"N = {N}", layers, base.encode(x, y, _by_series(), tooltip=tips))


def film(study: Study) -> Figure:
    """P(answer) of one run over episodes, beside the observer's posterior: a choice a condition."""
    filmed = _to_show([entry for entry in study.entries if (entry.cell.path / FILM).exists()])
    if not filmed:
        return Figure("film", missing=f"no run directory holds {FILM}, the record of P(answer)")
    panels = tuple(panel for entry in filmed for panel in _film_panels(entry))
    notes = (
        f"One film a condition, of the N nearest to {_LEGIBLE_N}; at most {curves.FILM_COLUMNS} snapshots of each, probabilities to two digits.",
    )
    return Figure("film", panels, notes=notes)


_LEGIBLE_N = 64
_DARKEST = 1e-3
_OVERLAP = 0.004


def _to_show(filmed: list[Entry]) -> list[Entry]:
    """One a label, with the most legible N."""
    chosen: dict[str, Entry] = {}
    for entry in sorted(filmed, key=lambda entry: abs(math.log2(entry.N / _LEGIBLE_N))):
        chosen.setdefault(entry.label, entry)
    return [entry for entry in filmed if chosen[entry.label] is entry]


def _film_panels(entry: Entry) -> list[Panel]:
    frame = RunDirectory(entry.cell.path).read_frame(FILM)
    secret = int(entry.cell.metrics.filter(pl.col("run") == 0)["secret"][0])
    choice = f"{entry.label}, N = {entry.N}"
    return [
        _film_panel(curves.film(frame, column), entry.N, secret, title, choice)
        for column, title in (("policy", "policy"), ("observer", "ideal observer"))
    ]


def _film_panel(frame: pl.DataFrame, N: int, secret: int, title: str, choice: str) -> Panel:
    x = _episodes(float(frame["end"].max()))  # type: ignore[arg-type]
    scale = alt.Scale(domain=[-0.5, N - 0.5], nice=False, reverse=True)
    axis = alt.Axis(values=sorted({0, N // 4, N // 2, 3 * N // 4, N - 1}), format="d", grid=False)
    y = alt.Y("top:Q", title="answer", scale=scale, axis=axis)
    colors = alt.Scale(type="log", domain=[_DARKEST, 1], scheme="viridis", clamp=True)
    legend = alt.Legend(
        orient="bottom", title="P(answer)", format="~g", values=[0.001, 0.01, 0.1, 1], gradientLength=200
    )
    shown = frame.with_columns(  # a little larger than they are, and covered by the next, so that no seam shows between neighbours
        top=pl.col("answer") - 0.5,
        bottom=pl.col("answer") + 0.5 + _OVERLAP * N,
        right=pl.col("end") + _OVERLAP * (pl.col("end") + LINEAR_UP_TO),
        seen=pl.max_horizontal("p", pl.lit(_DARKEST)),
    )
    tips = [
        _tip("answer:Q", "answer"),
        _tip("episode:Q", "from episode", ",d"),
        _tip("end:Q", "before episode", ",d"),
        _tip("p:Q", "P(answer)", ".2~g"),
    ]
    base = _chart(shown).mark_rect(clip=True)
    cells = base.encode(
        x,
        alt.X2("right:Q"),
        y,
        alt.Y2("bottom:Q"),
        color=alt.Color("seen:Q", scale=colors, legend=legend),
        tooltip=tips,
    )
    rule = _chart(pl.DataFrame({"answer": [secret]}))
    mark = rule.mark_rule(color="#ff4fa3", strokeDash=[3, 4], strokeWidth=1.2).encode(alt.Y("answer:Q"))
    return Panel(title, [cells, mark], choice=choice, zooms=False, canvas=True)


FIGURES: tuple[Callable[[Study], Figure], ...] = (
    bits_known,
    waterfall,
    survival,
    scaling,
    absorption,
    film,
    rank,
)
"""In the order of the page."""
