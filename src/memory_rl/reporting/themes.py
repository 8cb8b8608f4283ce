"""Colours of figures and page, light and dark.

The palette starts from the hues of Okabe and Ito (2008). A search moved each colour as little as it could
until all eight, and the colour of the text, were far from each other (CIEDE2000) to trichromats, deuteranopes
and protanopes, and stood out from the ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from memory_rl.reporting.lettering import FONT
from memory_rl.reporting.study import Label

Theme = Literal["light", "dark", "paper"]
"""Paper is light, and as small as a column: a width of 3.3 inches with type of 8 pt."""

GROUND = {"light": "#ffffff", "dark": "#15191f"}
"""What the figures stand on."""

PALETTE = {
    "light": ("#116cc9", "#119d71", "#c5749f", "#bb8e08", "#b4440d", "#69260d", "#099ced", "#482591"),
    "dark": ("#4a7ca5", "#32c793", "#db94b8", "#f5e36b", "#e8702c", "#828384", "#95d3fd", "#a570ff"),
}
"""All colours of curves and points; at least 3:1 against the ground (WCAG 2.2, 1.4.11)."""

DASHES = ([1, 0], [7, 3], [2, 2], [10, 3, 2, 3])
SHAPES = (
    *("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right"),
    "triangle-left",
)
"""Dashes of lines and shapes of points, by place in the palette: none is told by colour alone."""

_INK = {
    "light": {"text": "#24292f", "muted": "#57606a", "lines": "#e3e7ec"},
    "dark": {"text": "#e6eaf0", "muted": "#a5afbd", "lines": "#2c333d"},
}
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', 'DejaVu Sans', sans-serif"


def _ink(theme: Theme) -> str:
    return "dark" if theme == "dark" else "light"


def color_of(label: Label, theme: Theme) -> str:
    """The colour of a label, its own in each chart."""
    return PALETTE[_ink(theme)][label.color]


def dash_at(place: int) -> list[int]:
    """The dashes of lines of a colour."""
    return list(DASHES[place % len(DASHES)])


def shape_at(place: int) -> str:
    """The shape of points of a colour."""
    return SHAPES[place % len(SHAPES)]


_SYMBOLS = {
    "circle": "M5,0A5,5 0 1 1 -5,0A5,5 0 1 1 5,0Z",
    "square": "M-4.5,-4.5h9v9h-9Z",
    "triangle-up": "M0,-5.5L5.5,4.5H-5.5Z",
    "diamond": "M0,-6L6,0L0,6L-6,0Z",
    "cross": "M-2,-6h4v4h4v4h-4v4h-4v-4h-4v-4h4Z",
    "triangle-down": "M0,5.5L5.5,-4.5H-5.5Z",
    "triangle-right": "M5.5,0L-4.5,5.5V-5.5Z",
    "triangle-left": "M-5.5,0L4.5,5.5V-5.5Z",
}


def dash_of(label: Label) -> list[int]:
    """The dashes of a label's lines."""
    return dash_at(label.color)


def symbol_of(label: Label) -> str:
    """The shape of a label's points as an SVG path around the origin."""
    return _SYMBOLS[shape_at(label.color)]


def vega_config(theme: Theme, labels: Sequence[Label], *, ground: str | None = None) -> dict[str, Any]:
    """The look of every figure, as Vega-Lite's config.

    Args:
        theme: light or dark.
        labels: in the order of the colour scale.
        ground: behind the figure; transparent by default.
    """
    text, muted, lines = _INK[_ink(theme)].values()
    size = 11 if theme == "paper" else 12
    guide = {
        "labelColor": muted,
        "titleColor": text,
        "labelFontSize": size,
        "titleFontSize": size,
        "titleFontWeight": "normal",
        "labelLimit": 320,
    }
    return {
        "background": ground or "transparent",
        "font": FONT if ground else _FONT,  # in a file it is drawn as outlines
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
            "fontSize": size if theme == "paper" else 14,
            "subtitleFontSize": size,
            "anchor": "start",
            "offset": 10,
        },
        "view": {"stroke": None},
        "range": {
            "category": [color_of(label, theme) for label in labels],
            "ordinal": list(
                PALETTE[_ink(theme)]
            ),  # of what is no label, such as sizes; see `drawing.color_scale`
        },
        "text": {"color": text, "fontSize": size},
        "style": {
            "reference": {"color": text},
            "reference-text": {"color": muted, "fontSize": size},
            "heading": {"color": text, "fontSize": size, "fontWeight": "bold"},
            "interval": {"color": text},
        },
    }
