"""Text of SVGs as outlines, so that it looks the same and fits wherever it is opened."""

from __future__ import annotations

import json
import re
from functools import cache
from html import escape, unescape
from typing import Any

from memory_rl.reporting.wording import asset

FONT = "Liberation Sans"
"""What vl-convert measures text in, and whose outlines lie in templates/glyphs.json; as wide as Arial."""

_TEXT = re.compile(r"<text ([^>]*)(?:/>|(?<!/)>(.*?)</text>)", re.DOTALL)
_LINE = re.compile(r"<tspan([^>]*)>(.*?)</tspan>", re.DOTALL)
_ATTRIBUTE = re.compile(r'([\w-]+)="([^"]*)"')
_START = {"start": 0.0, "middle": -0.5, "end": -1.0}


@cache
def _glyphs(weight: str) -> dict[str, tuple[float, str]]:
    """Of each character its advance and outline, in thousandths of the size of the type."""
    return {letter: tuple(glyph) for letter, glyph in json.loads(asset("glyphs.json"))[weight].items()}


def width_of(text: str, size: float, weight: str = "normal") -> float | None:
    """How wide a text is; None if an outline of it is missing."""
    glyphs = _glyphs(weight)
    return sum(glyphs[letter][0] for letter in text) * size / 1000 if set(text) <= glyphs.keys() else None


def drawn(spec: dict[str, Any]) -> str:
    """A figure in Vega-Lite as SVG with its text as outlines."""
    import vl_convert

    return outlined(vl_convert.vegalite_to_svg(spec))


def outlined(svg: str) -> str:
    """The drawing with its text as outlines. What has a letter without one stays text."""
    used: dict[str, str] = {}
    svg = _TEXT.sub(lambda found: _outlined(found, used), svg)
    start = svg.index(">") + 1
    return f"{svg[:start]}<defs>{''.join(used.values())}</defs>{svg[start:]}"


def _outlined(found: re.Match[str], used: dict[str, str]) -> str:
    if not found[2]:
        return ""
    attributes = dict(_ATTRIBUTE.findall(found[1]))
    weight = "bold" if attributes.get("font-weight") in ("bold", "600", "700") else "normal"
    size, down, lines = float(attributes["font-size"].removesuffix("px")), 0.0, list[str]()
    for about, content in _LINE.findall(found[2]) or [("", found[2])]:
        line, words = dict(_ATTRIBUTE.findall(about)), unescape(content)
        width = width_of(words, size, weight)
        if width is None:
            return found[0]
        down += float(line.get("dy", 0))
        lines.append(
            _line(words, weight, size, _START[attributes.get("text-anchor", "start")] * width, down, used)
        )
    words = escape(" ".join(unescape(re.sub(r"<[^>]*>", " ", found[2])).split()))
    kept = " ".join(
        f'{name}="{attributes[name]}"' for name in ("transform", "fill", "opacity") if name in attributes
    )
    return f'<g role="img" aria-label="{words}" {kept}>{"".join(lines)}</g>'


def _line(text: str, weight: str, size: float, start: float, down: float, used: dict[str, str]) -> str:
    scale, place, marks = size / 1000, 0.0, list[str]()
    for letter in text:
        advance, outline = _glyphs(weight)[letter]
        if outline:
            name = f"{weight[0]}{ord(letter)}"
            used[name] = f'<path id="{name}" d="{outline}"/>'
            marks.append(f'<use xlink:href="#{name}" x="{place:g}"/>')
        place += advance
    return f'<g transform="translate({start:.2f},{down:g}) scale({scale:g},{-scale:g})">{"".join(marks)}</g>'
