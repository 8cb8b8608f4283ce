"""The policy film: P(answer) of one run over episodes, beside an ideal observer's posterior."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import groupby

import polars as pl

from memory_rl.reporting import curves
from memory_rl.reporting.curves import LINEAR_UP_TO
from memory_rl.reporting.drawing import (
    Figure,
    Panel,
    Spec,
    axis,
    episodes,
    marks,
    reference,
)
from memory_rl.reporting.printing import CHOICES
from memory_rl.reporting.study import Entry, Study
from memory_rl.reporting.values import MINDS
from memory_rl.runs.store import FILM, RunDirectory

_LEGIBLE_N = 64
_MOST_FILMS = 16  # a film takes up to 300 KB of the page
_DARKEST = 1e-3
_OVERLAP = 0.004


def film(study: Study) -> Figure:
    """P(answer) of one run over episodes, beside the observer's posterior: one choice per condition."""
    filmed = _to_show([entry for entry in study.entries if (entry.cell.path / FILM).exists()])
    words = [
        f"One film per condition, of the N nearest to {_LEGIBLE_N}; "
        f"at most {curves.FILM_COLUMNS} snapshots of each, probabilities to two digits."
    ]
    if len(filmed) > 1:
        words.append(f"In print the first {min(len(filmed), CHOICES)}, with theme=paper the first.")
    if len(filmed) > _MOST_FILMS:
        words.append(f"Of {len(filmed)} conditions with a film, the first {_MOST_FILMS}.")
    panels = [panel for entry in filmed[:_MOST_FILMS] for panel in _film_panels(entry)]
    return Figure("film", panels, f"no run directory holds {FILM}, the record of P(answer)", words)


def _to_show(filmed: Iterable[Entry]) -> list[Entry]:
    """One of each label, with the most legible N; by label, as they come."""
    groups = groupby(filmed, key=lambda entry: entry.label)
    return [min(group, key=lambda entry: abs(math.log2(entry.N / _LEGIBLE_N))) for _, group in groups]


def _film_panels(entry: Entry) -> list[Panel]:
    frame = RunDirectory(entry.cell.path).read_frame(FILM)
    return [
        _film_panel(_rectangles(curves.film(frame, mind), entry.N), entry, MINDS[mind])
        for mind in ("policy", "observer")
    ]


def _film_panel(frame: pl.DataFrame, entry: Entry, title: str) -> Panel:
    N, secret = entry.N, entry.cell.metrics.filter(run=0).select(answer="secret").head(1)
    rows = {"values": sorted({0, N // 4, N // 2, 3 * N // 4, N - 1}), "format": "d", "grid": False}
    channels = {
        "x": episodes(frame["end"]),
        "y": axis("top", "answer", (-0.5, N - 0.5), {"reverse": True}, **rows),
        "color": _brightness(),
    }
    tips = {"answer": "answer", "episode": "from episode", "end": "before episode", "p": "P(answer)"}
    layers = [
        marks("rect", None, {"x2": "right", "y2": "bottom", "tooltip": tips}, clip=True),
        reference(
            "rule",
            secret,
            {"y": "answer"},
            says="dashed: the secret",
            style=[],
            color="#ff4fa3",
            strokeDash=[3, 4],
        ),
    ]
    choice = f"{entry.label}, N = {N}"
    return Panel(frame, channels, layers, title=title, form=".2~g", choice=choice, canvas=True)


def _brightness() -> Spec:
    bar = {"orient": "bottom", "title": "P(answer)", "gradientLength": 200}
    return {
        "field": "seen",
        "type": "quantitative",
        "scale": {"type": "log", "domain": [_DARKEST, 1], "scheme": "viridis", "clamp": True},
        "legend": {**bar, "format": "~g", "values": [0.001, 0.01, 0.1, 1]},
    }


def _rectangles(frame: pl.DataFrame, N: int) -> pl.DataFrame:
    """Rectangles drawn a little too large and covered by the next, so that no seam shows between them."""
    return frame.with_columns(
        top=pl.col("answer") - 0.5,
        bottom=pl.col("answer") + 0.5 + _OVERLAP * N,
        right=pl.col("end") + _OVERLAP * (pl.col("end") + LINEAR_UP_TO),
        seen=pl.max_horizontal("p", pl.lit(_DARKEST)),
    )
