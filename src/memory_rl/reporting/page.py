"""The report as text: one HTML page with its styles, scripts and data in it, and a Markdown summary.

The page asks nothing of any network, and its own policy forbids it to.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

import jinja2
import vl_convert
from markupsafe import Markup, escape

from memory_rl.catalogue import KEEP
from memory_rl.files import to_json
from memory_rl.reporting.answer import make_answer
from memory_rl.reporting.curves import CURVE_POINTS
from memory_rl.reporting.drawing import Figure, live
from memory_rl.reporting.provenance import Judgement, command_of, versions
from memory_rl.reporting.ranking import LearnerRanking
from memory_rl.reporting.sheets import WHOLE
from memory_rl.reporting.study import Study
from memory_rl.reporting.tables import about, laws, tables
from memory_rl.reporting.themes import color_of, dash_of, symbol_of, vega_config
from memory_rl.reporting.values import number
from memory_rl.reporting.wording import asset

GENERATOR = "memory-rl report"
"""What marks a page as ours, so that it may be replaced."""


def render(
    title: str,
    study: Study,
    judgements: Sequence[Judgement],
    figures: Sequence[Figure],
    ranking: LearnerRanking | None = None,
    profiles: Sequence[Figure] = (),
) -> tuple[str, str]:
    """The whole page, and the same as Markdown without its moving parts.

    Args:
        title: the heading.
        study: all cells.
        judgements: of the sweeps with a protocol.
        figures: in order; those left out say why.
        ranking: of learners, if there is one.
        profiles: its figures.
    """
    plain, engine, behaviour = study.plain(), _engine(), asset("page.js")
    answer = make_answer(study)
    content = {
        "title": title,
        "answer": answer,
        "verdicts": Counter(verdict.verdict for one in judgements for verdict in one.verdicts),
        "study": study,
        "about": about(study),
        "judgements": judgements,
        "judged": any(one.says for one in judgements),
        "figures": figures,
        "ranking": ranking,
        "profiles": profiles,
        "tables": tables(study, answer),
        "laws": laws(study),
        "commands": list(dict.fromkeys(map(command_of, study.cells))),
        "began": min(cell.manifest["started"] for cell in study.cells),
        "ended": max(cell.manifest["updated"] for cell in study.cells),
        "generator": GENERATOR,
        "content_policy": _content_policy(engine, behaviour),
        "style": asset("page.css"),
        "engine": engine,
        "behaviour": behaviour,
        "data": _data(plain, [*profiles, *figures]),
        "labels": plain.labels,
        "shared": _shared(study),
        "versions": versions(study.cells),
        "curve_points": CURVE_POINTS,
    }
    found = templates()
    page, summary = (found.get_template(name).render(content) for name in ("page.html", "summary.md"))
    return page, summary


def templates() -> jinja2.Environment:
    """The environment of the templates, in which users' names have no meaning as HTML or Markdown."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("memory_rl.reporting"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": number,
        "plain": _plain,
        "whole": _whole,
        "color": color_of,
        "dash": dash_of,
        "shape": symbol_of,
    }
    return environment


def _plain(text: str) -> str:
    """A text that has no meaning as Markdown or HTML."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", flat)


def _whole(text: str) -> Markup:
    """A text whose numbers stay on one line with their units and intervals."""
    return Markup(re.sub(WHOLE, r'<span class="whole">\g<0></span>', str(escape(text))))  # noqa: S704


@cache
def _engine() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, in a function that keeps its names to itself."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return f"(function () {{\n{bundle}\n}})();".replace("</script", "<\\/script")


def hash_of(script: str) -> str:
    """What allows a script, and none but it, in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _content_policy(*scripts: str) -> str:
    """The policy by which only these scripts may run, and nothing may be loaded from anywhere."""
    hashes = " ".join(map(hash_of, scripts))
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _data(study: Study, figures: Sequence[Figure]) -> str:
    """What the script reads, in a script element that is never run; no `<` is left that could end it."""
    content = {
        "themes": {theme: vega_config(theme, study.labels) for theme in ("light", "dark")},
        "panels": {
            f"{figure.name}-{place}": {
                "spec": live(panel, study, f"{figure.title}, {panel.title}".rstrip(", ")),
                "canvas": panel.canvas,
                "rows": panel.rows,
                "rowHeight": panel.height / max(1, len(panel.rows)),
                "series": panel.series,
            }
            for figure in figures
            for place, panel in enumerate(figure.panels)
        },
    }
    return to_json(content, separators=(",", ":")).replace("<", "\\u003c")


def _shared(study: Study) -> list[tuple[str, str]]:
    """What all cells have in common, of the keys that they all have."""
    first, *others = [cell.config.items() for cell in study.cells]
    return [
        (key, "default" if value is None else str(value))
        for key, value in first
        if key not in KEEP and all((key, value) in items for items in others)
    ]
