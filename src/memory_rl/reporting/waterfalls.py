"""Where the bits go: from channel capacity to policy, a bar for each step, conditions below each other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from textwrap import wrap
from typing import NamedTuple

import polars as pl

from memory_rl.analysis.digits import short
from memory_rl.reporting import curves
from memory_rl.reporting.claims import stuck_of
from memory_rl.reporting.drawing import (
    DECADES,
    LANE,
    SERIES,
    Figure,
    Layer,
    Panel,
    at_each,
    extent,
    log_axis,
    marks,
)
from memory_rl.reporting.study import Entry, Study
from memory_rl.reporting.values import STEPS

_PHONE = 40
"""Characters of a heading beside a swatch on a phone."""


def waterfall(study: Study) -> Figure:
    """Where the bits go, from channel capacity to policy: one panel per N, conditions below each other."""
    without = sorted({entry.label for entry in study.entries if "rates" not in entry.summary})
    notes = (f"Not shown, because they have no ledger: {', '.join(without)}.",) if without else ()
    missing = "no cell keeps a ledger (ledger=False)"
    make = partial(falls_panel, ends=_ends(curves.waterfall(study.entries)))
    return Figure("waterfall", at_each(study, make), missing, notes)


class Ends(NamedTuple):
    """Of an axis: its least and greatest rate, and the end, with room for words on the right."""

    low: float
    most: float
    high: float


def _ends(frame: pl.DataFrame) -> Ends | None:
    """Those of an axis for these rows; None if there are none."""
    rates = frame.select("above", "below", "low", "high").unpivot()["value"].drop_nulls()
    if rates.is_empty():
        return None
    least, most = extent(rates)
    return Ends(least / 1.3, most, most * max(most / least, 10.0) ** 0.6)


def falls_panel(entries: Sequence[Entry], ends: Ends | None = None) -> Panel | None:
    """The losses of some cells of one N below each other; None if none has a ledger.

    Args:
        entries: the cells.
        ends: of the axis; None: its own.
    """
    frame = curves.waterfall(entries)
    own = _ends(frame)
    if own is None:
        return None
    low, most, high = ends or own
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
_LEFT_ENDS = "marks at left ends: ideal questioner, ideal observer, policy"
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
            marks(
                "bar",
                frame.filter(step=step),
                {**tips, "x2": "above"},
                says="bar: the factor lost at a step",
                opacity=opacity,
                minBandSize=2,
            )
            for step, opacity in zip(STEPS, (0.4, 0.65, 0.9), strict=True)
        ),
        marks(
            "rule",
            None,
            {"x": "low", "x2": "high"},
            says="thin rule: 95 % interval",
            style="interval",
            strokeWidth=1.4,
        ),
        marks("tick", None, tips, says=_LEFT_ENDS, style="reference", thickness=2, height=13, opacity=1),
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
    rate, stuck = entry.summary["bits_per_episode"]["estimate"], stuck_of(entry.cell)
    told = f"{entry.label}: {short(rate)} bits/episode" if rate else f"{entry.label}: none in these runs"
    return f"{told}; {stuck.aside}" if stuck and stuck.some else told
