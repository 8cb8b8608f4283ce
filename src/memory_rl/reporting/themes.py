"""Colours of figures and page, light and dark.

The palette follows Okabe and Ito (2008), darkened or lightened until each colour stands out from its ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from memory_rl.reporting.study import Label

Theme = Literal["light", "dark"]

GROUND = {"light": "#ffffff", "dark": "#15191f"}
"""What the figures stand on."""

PALETTE = {
    "light": ("#0067b0", "#00805a", "#a8488a", "#ae8500", "#b03a00", "#24292f", "#1f95c9", "#6f4fc8"),
    "dark": ("#58b2f5", "#3ed0a0", "#e892cf", "#f2da6b", "#f07f3c", "#ffffff", "#2fb8c6", "#a78bfa"),
}
"""One colour per condition; at least 3:1 against the ground (WCAG 2.2, 1.4.11)."""

DASHES = ([1, 0], [7, 3], [2, 2], [10, 3, 2, 3], [4, 4])
"""One pattern per variant of a condition."""

_INK = {
    "light": {"text": "#24292f", "muted": "#57606a", "lines": "#e3e7ec"},
    "dark": {"text": "#e6eaf0", "muted": "#a5afbd", "lines": "#2c333d"},
}
_LOSSES = {
    "light": {"alphabet": "#8a95a3", "exploration": "#c4861a", "absorption": "#4f8fd0"},
    "dark": {"alphabet": "#6b7583", "exploration": "#b9801f", "absorption": "#3d76b3"},
}
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', 'DejaVu Sans', sans-serif"


def color_of(label: Label, theme: Theme) -> str:
    """The colour of a label; more than eight conditions share colours, and differ in their dashes."""
    return PALETTE[theme][label.color % len(PALETTE[theme])]


def dash_of(label: Label) -> list[int]:
    """The dashes of a label's lines."""
    return list(DASHES[(label.variant + label.color // len(PALETTE["light"])) % len(DASHES)])


def vega_config(theme: Theme, labels: Sequence[Label], *, ground: str | None = None) -> dict[str, Any]:
    """The look of every figure, as Vega-Lite's config.

    Args:
        theme: light or dark.
        labels: in the order of the colour scale.
        ground: behind the figure; transparent by default.
    """
    text, muted, lines = _INK[theme].values()
    guide = {
        "labelColor": muted,
        "titleColor": text,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 320,
    }
    return {
        "background": ground or "transparent",
        "font": _FONT,
        "axis": {
            **guide,
            "gridColor": lines,
            "domainColor": muted,
            "tickColor": muted,
            "titlePadding": 8,
            "labelOverlap": "greedy",
            "labelSeparation": 6,
        },
        "legend": {**guide, "symbolStrokeWidth": 3, "symbolSize": 160},
        "title": {
            "color": text,
            "subtitleColor": muted,
            "fontSize": 14,
            "subtitleFontSize": 12,
            "anchor": "start",
            "offset": 10,
        },
        "view": {"stroke": None},
        "range": {"category": [color_of(label, theme) for label in labels]},
        "text": {"color": text, "fontSize": 12},
        "style": {
            "reference": {"color": text},
            "reference-text": {"color": muted, "fontSize": 12},
            "heading": {"color": text, "fontSize": 12, "fontWeight": "bold"},
            "interval": {"color": text},
            **{name: {"color": color} for name, color in _LOSSES[theme].items()},
        },
    }
