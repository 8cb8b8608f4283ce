"""Figures for print: what the page shows at first, with legends and a key of all that no legend shows."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import wrap
from typing import Any

from memory_rl.reporting.drawing import LEGEND, Figure, Panel, Spec, chart
from memory_rl.reporting.study import Study

CHOICES = 3
"""Where the page shows one choice at a time there are the first few in print, so that it fits a screen.

In a column of a paper there is the first."""

_LETTER = 7.0  # pixels that a letter of a title takes, at most on average
_SWATCH = 34  # and those of a swatch of a legend with the room around it
_PANEL = 370
_COLUMN, _LOW = 248, 160
"""Pixels of a panel that is, with its axis, as wide as a column of a paper: 3.3 inches; height of a film."""


def printed(panel: Panel, study: Study, width: int = _PANEL) -> Spec:
    """A panel for print, with a legend of what the page shows at first."""
    title = panel.title if panel.choice is None else f"{panel.choice}: {panel.title}"
    shown = [label.name for label in study.labels if not label.starts_hidden and label.name in panel.series]
    legend = {**LEGEND, "columns": _columns(shown, width), "title": None, "values": shown} if shown else None
    drawn = chart(panel, panel.layers, study, legend)
    height = _LOW if panel.choice and width == _COLUMN else panel.height
    return {**drawn, "width": width, "height": height, "title": _lines(title, width) or None}


def _columns(names: Iterable[str], width: int) -> int:
    """As many as fit side by side, at most three."""
    longest = max(_SWATCH + _LETTER * len(name) for name in names)
    return max(1, min(3, int(width / longest)))


def sheet(figure: Figure, study: Study, *, in_column: bool = False) -> Spec:
    """A whole figure for print: its panels beside each other, each with its legend.

    In a column of a paper they are below each other.
    """
    most = 1 if in_column else CHOICES
    choices = list(dict.fromkeys(panel.choice for panel in figure.panels))[:most]
    panels = [panel for panel in figure.panels if panel.choice in choices]
    columns = 1 if in_column else 2 if len(choices) > 1 else figure.columns
    width = _COLUMN if in_column else _PANEL
    drawn = [printed(panel, study, width) for panel in panels]
    look: dict[str, Any] = {"size": 12} if in_column else {}
    return joined(drawn, figure.title, columns, width=columns * width, key=key(panels), **look)


def key(panels: Iterable[Panel]) -> str:
    """What the lines and marks stand for that no legend shows, in words."""
    found = [layer.says for panel in panels for layer in panel.layers if not _is_empty(panel, layer.frame)]
    return "; ".join(dict.fromkeys(filter(None, found)))


def _is_empty(panel: Panel, frame: Any) -> bool:
    return bool((panel.frame if frame is None else frame).is_empty())


def joined(
    panels: list[Spec], title: str, columns: int, *, size: int = 17, width: int = _PANEL, key: str = ""
) -> Spec:
    """Charts under one title, each with legends of its own.

    Args:
        panels: of them.
        title: in as many lines as it takes.
        columns: the most panels beside each other.
        size: of the type of the title.
        width: that of all panels beside each other, in pixels.
        key: beneath the title.
    """
    heading = {"text": wrap(title, round(12 * width / size / _LETTER)), "subtitle": _lines(key, width)}
    return {
        "concat": panels,
        "columns": min(columns, len(panels)),
        "spacing": 36,
        "title": {**heading, "fontSize": size, "offset": 18},
        "resolve": {"scale": dict.fromkeys(("color", "strokeDash", "shape"), "independent")},
    }


def _lines(text: str, width: int) -> list[str]:
    return wrap(text, round(width / _LETTER))
