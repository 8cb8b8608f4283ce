"""The report's page: one HTML file with its styles, scripts and data in it. It asks nothing of any network,
and its own policy forbids it to.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import jinja2
import vl_convert

from memory_rl.experiment import KEEP
from memory_rl.reporting.capacity import CAPACITY_HEADINGS, POINT_HEADINGS, capacity_rows, point_rows
from memory_rl.reporting.curves import CURVE_POINTS
from memory_rl.reporting.drawing import ROW, Figure, live
from memory_rl.reporting.provenance import Judgement, command_of, versions
from memory_rl.reporting.study import Study
from memory_rl.reporting.tables import HEADINGS, about, result_rows
from memory_rl.reporting.themes import color_of, dash_of, vega_config
from memory_rl.reporting.wording import CAPACITY_READING, POINT_READING

GENERATOR = "memory-rl report"
"""What marks a page as ours, so that it may be replaced."""

_EXPORTS = "window.vegaEmbed = vegaEmbed;"
_SIGNS = {"supported": "\u2713", "refuted": "\u2717", "inconclusive": "?"}


@dataclass(frozen=True)
class Place:
    """Where a panel stands on the page: its id, what is written above it, when and how it is shown, and its
    specification.
    """

    id: str
    title: str
    choice: str | None
    zooms: bool
    canvas: bool
    rows: tuple[str, ...]
    specification: dict[str, Any]


def render_page(title: str, study: Study, judgements: Sequence[Judgement], figures: Sequence[Figure]) -> str:
    """The whole page.

    Args:
        title: the heading.
        study: all cells.
        judgements: of the sweeps with a protocol.
        figures: in order; those left out say why.
    """
    plain = study.plain()
    places = {figure.name: _places(figure, plain) for figure in figures}
    engine, behaviour = _engine(), _asset("page.js")
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=title,
            generator=GENERATOR,
            content_policy=_content_policy(engine, behaviour),
            style=_asset("page.css"),
            engine=engine,
            behaviour=behaviour,
            data=_data(plain, places),
            about=about(study),
            labels=_legend(plain),
            judgements=judgements,
            signs=_SIGNS,
            titles={figure.name: figure.title for figure in figures},
            shown={figure.name for figure in figures if figure.panels},
            figures=figures,
            places=places,
            headings=HEADINGS,
            rows=result_rows(study),
            point_reading=POINT_READING,
            capacity_reading=CAPACITY_READING,
            point_headings=POINT_HEADINGS,
            point_rows=point_rows(study),
            capacity_headings=CAPACITY_HEADINGS,
            capacity_rows=capacity_rows(study),
            unfinished=study.unfinished,
            shared=_shared(study),
            commands=list(dict.fromkeys(command_of(entry.cell) for entry in study.entries)),
            versions=versions([entry.cell for entry in study.entries]),
            curve_points=CURVE_POINTS,
            measured=_measured(study),
        )
    )


def _environment() -> jinja2.Environment:
    loader = jinja2.PackageLoader("memory_rl.reporting")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["value"] = _as_text
    return environment


def _as_text(value: Any) -> str:
    """A number or text of a verdict's table."""
    if value is None:
        return "\u2013"
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(_as_text, value)) if isinstance(value, list | tuple) else str(value)


def _asset(name: str) -> str:
    return (resources.files("memory_rl.reporting") / "templates" / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _engine() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script. The function around it keeps its thousands of names apart
    from the page's.
    """
    bundle = vl_convert.javascript_bundle(_EXPORTS)
    return f"(function () {{\n{bundle}\n}})();".replace("</script", "<\\/script")


def _content_policy(*scripts: str) -> str:
    """Only these very scripts may run, and nothing may be loaded from anywhere."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"


def _places(figure: Figure, study: Study) -> list[Place]:
    return [
        Place(
            f"{figure.name}-{number}",
            panel.title,
            panel.choice,
            panel.zooms,
            panel.canvas,
            panel.rows,
            live(panel, study, f"{figure.title}, {panel.title}".removesuffix(", ")),
        )
        for number, panel in enumerate(figure.panels)
    ]


def _data(study: Study, places: dict[str, list[Place]]) -> str:
    """What the script reads. It stands in a script element that is never run; no `<` is left that could end
    it.
    """
    content = {
        "themes": {theme: vega_config(theme, study.labels) for theme in ("light", "dark")},
        "panels": {
            place.id: {"spec": place.specification, "canvas": place.canvas, "rows": place.rows}
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
    """What all cells have in common, of the keys that they all have."""
    configs = [entry.cell.config for entry in study.entries]
    common = [
        key
        for key in configs[0]
        if key not in KEEP and all(config.get(key, object()) == configs[0][key] for config in configs)
    ]
    return [(key, "default" if configs[0][key] is None else str(configs[0][key])) for key in common]


def _measured(study: Study) -> tuple[str, str]:
    manifests = [entry.cell.manifest for entry in study.entries]
    return min(str(manifest["started"]) for manifest in manifests), max(
        str(manifest["updated"]) for manifest in manifests
    )
