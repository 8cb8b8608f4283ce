"""The report as text: one HTML page with its styles, scripts and data in it, and a Markdown summary.

The page asks nothing of any network, and its own policy forbids it to.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2
import vl_convert

from memory_rl.catalogue import KEEP
from memory_rl.reporting.curves import CURVE_POINTS
from memory_rl.reporting.drawing import ROW, Figure, Panel, Spec, live
from memory_rl.reporting.provenance import Judgement, command_of, versions
from memory_rl.reporting.study import Study
from memory_rl.reporting.tables import about, tables
from memory_rl.reporting.themes import color_of, dash_of, vega_config
from memory_rl.reporting.values import number
from memory_rl.reporting.wording import asset

GENERATOR = "memory-rl report"
"""What marks a page as ours, so that it may be replaced."""

_EXPORTS = "window.vegaEmbed = vegaEmbed;"
_SIGNS = {"supported": "\u2713", "refuted": "\u2717", "inconclusive": "?"}


@dataclass(frozen=True)
class Place:
    """Where a panel stands on the page: its id, and what is drawn there."""

    id: str
    panel: Panel
    specification: Spec


def render(
    title: str, study: Study, judgements: Sequence[Judgement], figures: Sequence[Figure]
) -> tuple[str, str]:
    """The whole page, and the same as Markdown without its moving parts.

    Args:
        title: the heading.
        study: all cells.
        judgements: of the sweeps with a protocol.
        figures: in order; those left out say why.
    """
    content = {
        "title": title,
        "study": study,
        "about": about(study),
        "judgements": judgements,
        "figures": figures,
        "tables": tables(study),
        "commands": list(dict.fromkeys(command_of(entry.cell) for entry in study.entries)),
    }
    templates = _environment()
    page = templates.get_template("page.html").render(content | _of_the_page(study, figures))
    return page, templates.get_template("summary.md").render(content)


def _of_the_page(study: Study, figures: Sequence[Figure]) -> dict[str, Any]:
    plain = study.plain()
    places = {figure.name: _places(figure, plain) for figure in figures}
    engine, behaviour = _engine(), asset("page.js")
    return {
        "generator": GENERATOR,
        "content_policy": _content_policy(engine, behaviour),
        "style": asset("page.css"),
        "engine": engine,
        "behaviour": behaviour,
        "data": _data(plain, places),
        "labels": _legend(plain),
        "signs": _SIGNS,
        "titles": {figure.name: figure.title for figure in figures if figure.panels},
        "places": places,
        "shared": _shared(study),
        "versions": versions([entry.cell for entry in study.entries]),
        "curve_points": CURVE_POINTS,
        "measured": _measured(study),
    }


def _environment() -> jinja2.Environment:
    """The templates' environment, in which users' names have no meaning as HTML or Markdown."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("memory_rl.reporting"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number, "plain": _plain}
    return environment


def _plain(text: str) -> str:
    """A text that has no meaning as Markdown or HTML."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", flat)


@lru_cache(maxsize=1)
def _engine() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, in a function that keeps its names to itself."""
    bundle = vl_convert.javascript_bundle(_EXPORTS)
    return f"(function () {{\n{bundle}\n}})();".replace("</script", "<\\/script")


def _content_policy(*scripts: str) -> str:
    """The policy by which only these scripts may run, and nothing may be loaded from anywhere."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    rules = (
        *("default-src 'none'", f"script-src {hashes}", "style-src 'unsafe-inline'", "img-src data: blob:"),
        *("base-uri 'none'", "form-action 'none'"),
    )
    return "; ".join(rules)


def _places(figure: Figure, study: Study) -> list[Place]:
    return [
        Place(
            f"{figure.name}-{place}", panel, live(panel, study, f"{figure.title}, {panel.title}".rstrip(", "))
        )
        for place, panel in enumerate(figure.panels)
    ]


def _data(study: Study, places: Mapping[str, Sequence[Place]]) -> str:
    """What the script reads, in a script element that is never run; no `<` is left that could end it."""
    content = {
        "themes": {theme: vega_config(theme, study.labels) for theme in ("light", "dark")},
        "panels": {
            place.id: {
                "spec": place.specification,
                "canvas": place.panel.canvas,
                "rows": place.panel.rows,
            }
            for group in places.values()
            for place in group
        },
        "rowHeight": ROW,
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _legend(study: Study) -> list[dict[str, Any]]:
    used = {entry.label for entry in study.entries}
    return [
        {
            "name": label.name,
            "light": color_of(label, "light"),
            "dark": color_of(label, "dark"),
            "dash": " ".join(map(str, dash_of(label))) if label.variant else "",
            "hidden": label.starts_hidden,
        }
        for label in study.labels
        if label.name in used
    ]


def _shared(study: Study) -> list[tuple[str, str]]:
    """The values that all cells have in common, among the keys that they all have."""
    first, *others = [entry.cell.config for entry in study.entries]
    return [
        (key, "default" if value is None else str(value))
        for key, value in first.items()
        if key not in KEEP and all(config.get(key, KEEP) == value for config in others)
    ]


def _measured(study: Study) -> tuple[str, str]:
    manifests = [entry.cell.manifest for entry in study.entries]
    started, updated = ([str(manifest[name]) for manifest in manifests] for name in ("started", "updated"))
    return min(started), max(updated)
