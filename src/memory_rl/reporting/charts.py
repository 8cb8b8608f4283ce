"""The report's figures of one secret: one function a figure, a study in, panels out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from textwrap import wrap
from typing import Any

import polars as pl

from memory_rl.reporting import curves
from memory_rl.reporting.drawing import (
    DECADES,
    INTERVAL,
    LANE,
    SERIES,
    Figure,
    Layer,
    Panel,
    Spec,
    axis,
    band,
    color_scale,
    episode_axis,
    episodes,
    estimates,
    extent,
    log_axis,
    marks,
    note,
    reach,
    reference,
)
from memory_rl.reporting.films import film
from memory_rl.reporting.study import Entry, Study
from memory_rl.reporting.values import STEPS, short

_RATE = {"rate": "bits per episode", **INTERVAL}
_PHONE = 40
"""Characters of a heading beside a swatch on a phone."""

_STEPS: dict[str, Any] = {"interpolate": "step-after"}


def _on_shared_axes(panels: Sequence[Panel], **make: Callable[[float], Spec]) -> list[Panel]:
    """Panels that are compared share their axes.

    Args:
        panels: with axes of their own.
        make: of a channel, its axis up to the greatest end of all; other axes reach from the least to the
            greatest end of all.
    """
    channels: dict[str, Spec] = {}
    for channel in ("x", "y") if panels else ():
        ends = [panel.channels[channel]["scale"].get("domain") for panel in panels]
        if all(ends) and channel in make:
            channels[channel] = make[channel](max(high for _, high in ends))
        elif all(ends):
            low, high = extent(*ends)
            scale = {**panels[0].channels[channel]["scale"], "domain": [low, high]}
            channels[channel] = {**panels[0].channels[channel], "scale": scale}
    return [replace(panel, channels={**panel.channels, **channels}) for panel in panels]


def _at_each(study: Study, make: Callable[[Sequence[Entry]], Panel | None]) -> list[Panel]:
    """A panel for each N and group of labels."""
    made = (
        (f"N = {N}{name and f': {name}'}", make(part.at(N)))
        for N in study.sizes
        for name, part in study.charts()
        if part.at(N)
    )
    return [replace(panel, title=title) for title, panel in made if panel]


def bits_known(study: Study) -> Figure:
    """Bits known against episodes, with intervals and ceilings: one panel per N.

    A cell that is alone in its panel shows its single runs, too.
    """
    return Figure("bits_known", _on_shared_axes(_at_each(study, _bits_panel), x=episode_axis))


def _bits_panel(entries: Sequence[Entry]) -> Panel:
    frame, information = curves.bits_known(entries), entries[0].cell.bits_to_learn
    runs = [curves.single_runs(entries)] if len(entries) == 1 else []
    low, _ = extent([0.0], frame["low"], *(lines["bits"] for lines in runs))
    height = information - low
    channels = {
        "x": episodes(frame["episode"]),
        "y": axis("mean", "bits known", (low - 0.02 * height, information + 0.1 * height)),
    }
    thin = {"strokeWidth": 0.7, "strokeOpacity": 0.45, **_STEPS}
    layers = [
        *(marks("line", lines, {"y": "bits", "detail": "run"}, **thin) for lines in runs),
        *_ceilings([entry for entry in entries if entry.summary]),
        *band(**_STEPS),
        *_all_there_is(information, "log2 N =" if entries[0].cell.num_secrets == 1 else "M log2 N ="),
    ]
    tips = {"series": "condition", "episode": "episode", "mean": "bits known, mean", **INTERVAL}
    return Panel(frame, channels, layers, {**tips, "ceiling": "ceiling, bits"}, form=".3f")


def _ceilings(entries: Sequence[Entry]) -> list[Layer]:
    """Dotted; of entries that are completed."""
    if not entries:
        return []
    frame = curves.ceilings(entries)
    return [marks("line", frame, {"y": "bits"}, strokeWidth=1.2, opacity=0.75, strokeDash=[1.5, 3])]


def _all_there_is(bits: float, name: str) -> list[Layer]:
    frame = pl.DataFrame({"bits": [bits], "words": [f"{name} {bits:.4g} bits"]})
    words = note(frame, {"y": "bits", "x": {"value": 0}}, dx=5, dy=-7)
    return [reference("rule", frame, {"y": "bits"}, strokeWidth=1), words]


def ledger(entries: Sequence[Entry]) -> list[Panel]:
    """The ledger of a single cell.

    What its questions could tell, what an ideal observer and the policy know, above where the bits go.
    """
    panels = (_minds_panel(entries), _waterfall_panel(entries))
    return [panel for panel in panels if panel]


def _minds_panel(entries: Sequence[Entry]) -> Panel:
    frame, bits = curves.ledger(entries), entries[0].cell.bits_to_learn
    least, most = extent([0.0, bits], *frame.select("low", "mean", "high"))
    channels = {
        "x": episodes(frame["episode"]),
        "y": axis("mean", "bits", (least, 1.08 * most)),
        "color": color_scale("curve", curves.CURVES.values()),
    }
    layers = [*band(**_STEPS), *_all_there_is(bits, "all there is to learn:")]
    return Panel(frame, channels, layers)


def waterfall(study: Study) -> Figure:
    """Where the bits go, from channel capacity to policy: one panel per N, conditions below each other."""
    without = sorted({entry.label for entry in study.entries if "rates" not in entry.summary})
    notes = (f"Not shown, because they have no ledger: {', '.join(without)}.",) if without else ()
    missing = "no cell keeps a ledger (ledger=False)"
    return Figure("waterfall", _at_each(study, _waterfall_panel), missing, notes)


def _waterfall_panel(entries: Sequence[Entry]) -> Panel | None:
    frame = curves.waterfall(entries)
    rates = frame.select("above", "below", "low", "high").unpivot()["value"].drop_nulls()
    if rates.is_empty():
        return None
    least, most = extent(rates)
    low, high = least / 1.3, most * max(most / least, 10.0) ** 0.6  # room for the words on the right
    frame = _with_places(frame, low, high)
    headings = _headings(entries)
    lines = max(len(wrap(_heading(entry), _PHONE)) for entry in entries if "rates" in entry.summary)
    frame = frame.with_columns(lane=pl.col("lane") + lines - 1)
    present = frame["series"].unique(maintain_order=True).to_list()
    ticks = [decade for decade in DECADES if decade <= 2 * most]
    channels = {
        "x": log_axis("below", "bits per episode", (low, high), values=ticks, labelOverlap=True),
        "y": {"field": SERIES, "type": "nominal", "sort": present, "axis": None},
        "yOffset": {"field": "lane", "type": "ordinal", "scale": {"domain": [*range(lines + len(STEPS))]}},
        "color": {"legend": None},  # the rows are labelled
    }
    height = LANE * (lines + len(STEPS)) * len(present)
    return Panel(frame, channels, [*_falls(frame), *headings], height=height, rows=present)


def _with_places(frame: pl.DataFrame, low: float, high: float) -> pl.DataFrame:
    """With the place of the words, beside the bar where there is more room: left, or else right of it."""
    ends = frame.select(
        left=pl.min_horizontal("above", "below", "low").fill_null(low),
        right=pl.max_horizontal("above", "below", "high").fill_null(low),
    )
    is_left = ends["left"] / low > high / ends["right"]
    return frame.with_columns(is_left=is_left, place=ends["left"].zip_with(is_left, ends["right"]))


_WORDS = {"x": "place", "text": "words"}
_FALL = {
    "series": "condition",
    "step": "loss",
    "factor": "factor lost",
    "from": "from",
    "above": "bits per episode",
    "to": "to",
    "below": "bits per episode ",
    "low": "95 % from",
    "high": "95 % to",
}


def _falls(frame: pl.DataFrame) -> list[Layer]:
    tips = {"tooltip": _FALL}
    return [
        *(
            marks("bar", frame.filter(step=step), {**tips, "x2": "above"}, opacity=opacity, minBandSize=2)
            for step, opacity in zip(STEPS, (0.4, 0.65, 0.9), strict=True)
        ),
        marks("rule", None, {"x": "low", "x2": "high"}, style="interval", strokeWidth=1.4),
        marks("tick", None, tips, style="reference", thickness=2, height=13, opacity=1),
        *(
            marks("text", frame.filter(is_left=left), _WORDS, align=align, dx=dx, baseline="middle")
            for left, align, dx in ((False, "left", 7), (True, "right", -7))
        ),
    ]


def _headings(entries: Sequence[Entry]) -> list[Layer]:
    """Each in as many lines as it takes to fit a phone."""
    rows = [
        (entry.label, lane, line)
        for entry in entries
        if "rates" in entry.summary
        for lane, line in enumerate(wrap(_heading(entry), _PHONE))
    ]
    frame = pl.DataFrame(rows, schema=["series", "lane", "heading"], orient="row")
    words = {"x": {"value": 18}, "text": "heading"}
    return [
        marks("square", frame.filter(lane=0), {"x": {"value": 7}, "color": SERIES}, size=90, opacity=1),
        marks("text", frame, words, style="heading", align="left", baseline="middle"),
    ]


def _heading(entry: Entry) -> str:
    rate = entry.summary["bits_per_episode"]["estimate"]
    return f"{entry.label}: {short(rate)} bits/episode" if rate else f"{entry.label}: none in these runs"


def survival(study: Study) -> Figure:
    """Kaplan-Meier curves of the episodes to memorise: one panel per N."""
    return Figure("survival", _on_shared_axes(_at_each(study, _survival_panel), x=episode_axis))


def _survival_panel(entries: Sequence[Entry]) -> Panel:
    frame = curves.survival(entries)
    percent = [0, 0.25, 0.5, 0.75, 1]
    channels = {
        "x": episode_axis(1.05 * max(frame["episode"])),
        "y": axis("surviving", "runs that have not memorised", (-0.03, 1.05), values=percent, format="%"),
    }
    median, fallen = pl.DataFrame({"surviving": [0.5]}), frame.filter(pl.col("surviving") < 1)
    layers = [
        marks("area", fallen, {"y": "low", "y2": "high"}, fillOpacity=0.12, **_STEPS),
        reference("rule", median, {"y": "surviving"}, strokeDash=[2, 4], strokeWidth=1),
        marks("line", strokeWidth=2.2, **_STEPS),
        marks("point", curves.censored(entries), shape="cross", size=90, filled=True, opacity=1),
    ]
    tips = {"series": "condition", "episode": "episodes", "surviving": "not yet", **INTERVAL}
    return Panel(frame, channels, layers, tips, form=".1%")


def scaling(study: Study) -> Figure:
    """Bits per episode against N, with ideal questioners and closed forms: one panel per group of labels."""
    panels = [
        replace(_scaling_panel(part), title=name) for name, part in study.charts() if len(part.sizes) > 1
    ]
    compared = _on_shared_axes(panels) if len(study.sizes) > 1 else []
    return Figure("scaling", compared, "all cells have one N")


def _scaling_panel(study: Study) -> Panel:
    frame, guess, sizes = curves.scaling(study.entries), curves.one_hit(study.sizes), study.sizes
    rates = reach(guess["rate"], *frame.select("rate", "low", "high", "questioner", "closed_form"))
    channels = {
        "x": log_axis(
            "N", "N (log2 N bits to learn)", reach(sizes, by=1.4), base=2, values=sizes, format="d"
        ),
        "y": log_axis("rate", "bits per episode", rates, values=DECADES),
    }
    exact = frame.drop_nulls("closed_form")
    layers = [
        marks("line", None, {"y": "questioner"}, strokeWidth=1.4, opacity=0.9, strokeDash=[6, 4]),
        reference("line", guess, {"x": "N", "y": "rate"}, strokeWidth=1.4, strokeDash=[1.5, 3]),
        marks("point", exact, {"y": "closed_form"}, shape="diamond", size=120),
        *estimates(),
    ]
    tips = {"series": "condition", "N": "N", **_RATE, "questioner": "ideal questioner"}
    return Panel(frame, channels, layers, tips, height=420)


_ABSORBED = "bits absorbed per episode (linear within 0.01, logarithmic beyond)"


def absorption(study: Study) -> Figure:
    """Bits absorbed per episode against P(S), under h(p) and -log2 p: one panel per N."""
    missing = "no two runs of a cell were measured at about the same P(S)"
    return Figure("absorption", _on_shared_axes(_at_each(study, _absorption_panel)), missing)


def _absorption_panel(entries: Sequence[Entry]) -> Panel | None:
    frame, N = curves.absorption(entries), entries[0].N
    if frame["p"].n_unique() < 2:
        return None
    start = max(1 / (16 * N), min(0.5 / N, min(frame["p"]) / 1.2))
    lowest, _ = extent([0.0], frame.filter(pl.col("p") >= start)["absorbed"])
    ticks = [-10, -1, -0.1, -0.01, 0, 0.01, 0.1, 1, 10]
    scale, domain = {"type": "symlog", "constant": 0.01}, (lowest * 1.5 - 0.001, 1.4 * math.log2(2 * N))
    channels = {
        "x": log_axis("p", "P(S) before the episode", (start, 1.15), values=[*DECADES, 0.5]),
        "y": axis("absorbed", _ABSORBED, domain, scale, values=ticks, format="~g"),
    }
    layers = [
        reference("rule", pl.DataFrame({"bits": [0.0]}), {"y": "bits"}, strokeWidth=0.8),
        *(
            reference("line", law, {"x": "p", "y": "bits"}, strokeWidth=1.5, strokeDash=dash)
            for law, dash in zip(
                curves.answer_information(N).partition_by("curve"), ([1, 0], [6, 4]), strict=True
            )
        ),
        *estimates(),
    ]
    tips = {"series": "condition", "p": "P(S) before", "absorbed": "bits per episode", **INTERVAL}
    return Panel(frame, channels, layers, {**tips, "runs": "runs"})


def rank(study: Study) -> Figure:
    """Bits per episode against LoRA rank: one panel per N where ranks differ, and group of labels."""
    panels = [
        replace(_rank_panel(part), title=f"N = {N}{name and f': {name}'}")
        for N in study.sizes
        for name, part in _by_group(curves.ranks(study.at(N)).drop_nulls("rate"), study)
    ]
    return Figure("rank", _on_shared_axes(panels), "no two cells differ in lora_rank alone")


def _by_group(frame: pl.DataFrame, study: Study) -> Iterator[tuple[str, pl.DataFrame]]:
    """The rows of each group of labels that has any."""
    for name, part in study.charts():
        rows = frame.filter(pl.col("series").is_in([entry.label for entry in part.entries]))
        if rows["rank"].n_unique() > 1:
            yield name, rows


def _rank_panel(frame: pl.DataFrame) -> Panel:
    ranks = frame["rank"].unique().sort().to_list()
    channels = {
        "x": log_axis("rank", "LoRA rank", reach(ranks, by=1.5), base=2, values=ranks, format="d"),
        "y": log_axis("rate", "bits per episode", reach(*frame.select("rate", "low", "high"), by=2)),
    }
    return Panel(frame, channels, estimates(), {"series": "condition", "rank": "rank", **_RATE})


FIGURES: tuple[Callable[[Study], Figure], ...] = (
    bits_known,
    waterfall,
    survival,
    scaling,
    absorption,
    film,
    rank,
)
"""The figures in the order of the page."""
