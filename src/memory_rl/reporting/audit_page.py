"""An audit as files: the page, audit.json and the stretches as CSV."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy.special import betainc

from memory_rl.analysis.statistics import Estimate
from memory_rl.files import to_csv, to_json
from memory_rl.reporting.audit_words import bits, percent
from memory_rl.reporting.lettering import drawn
from memory_rl.reporting.page import templates
from memory_rl.reporting.report import PAGE, refuse_foreign, write_files
from memory_rl.reporting.themes import PALETTE, Theme, vega_config
from memory_rl.reporting.wording import asset, wording
from memory_rl.rollouts.account import PassRates, RunAccount

if TYPE_CHECKING:
    from memory_rl.reporting.audit import Audit

GENERATOR = "memory-rl audit"
_WIDTH, _HEIGHT = 420, 210
_BINS = 20
_SILENT = {"wrong": "all wrong", "between": "the same in between", "right": "all right"}


@dataclass(frozen=True)
class Picture:
    """A figure of the page, as pictures for light and for dark.

    Attributes:
        title: above it.
        reading: how to read it.
        light, dark: SVG, in base 64.
    """

    title: str
    reading: str
    light: str
    dark: str


def refuse_folder(out: Path) -> None:
    """Refuses a folder that holds anything but an earlier audit; raises RunDirectoryError."""
    refuse_foreign(out, GENERATOR)


def write_audit(audit: Audit, out: Path) -> Path:
    """Writes page, audit.json and stretches.csv, returns the path of the page; raises RunDirectoryError."""
    files = {
        PAGE: render(audit),
        "audit.json": to_json(audit.as_dict(), indent=2) + "\n",
        "stretches.csv": to_csv(audit.frame),
    }
    write_files(out, files)
    return out / PAGE


def render(audit: Audit) -> str:
    """The page, which runs no script and loads nothing."""
    sheet = audit.sheet()
    content = {
        "audit": audit,
        "generator": GENERATOR,
        "style": asset("page.css"),
        "title": audit.path.resolve().name,
        "headings": [heading.replace("\n", " ") for heading in sheet.headings],
        "rows": sheet.rows,
        "reading": sheet.caption.split("\n"),
        "pictures": list(pictures(audit.account)),
        "others": audit.account.others,
    }
    environment = templates()
    environment.filters |= {"share": percent, "bits": bits}
    return environment.get_template("audit.html").render(content)


def pictures(run: RunAccount) -> Iterator[Picture]:
    """The figures of an audit."""
    yield picture("audit_bits", _bits(run))
    yield picture("audit_silent", _silent(run))
    yield picture("audit_sizes", _sizes(run))
    if run.rates:
        yield picture("audit_rates", _rates(run.rates))


def picture(name: str, spec: dict[str, Any]) -> Picture:
    """A figure in Vega-Lite, with what wording.yaml says about it, drawn for light and for dark."""
    return Picture(**wording("figures", name), light=_drawn(spec, "light"), dark=_drawn(spec, "dark"))


def _drawn(spec: dict[str, Any], theme: Theme) -> str:
    config = {**vega_config(theme, []), "background": None}
    config["range"] = {"category": [PALETTE[theme][place] for place in (4, 3, 1)]}
    config |= {kind: {"color": PALETTE[theme][0]} for kind in ("mark", "rule")}
    drawing = drawn({"width": _WIDTH, "height": _HEIGHT, **spec, "config": config})
    return base64.b64encode(drawing.encode()).decode()


def _row(at: Any, estimate: Estimate | None) -> dict[str, Any]:
    value, low, high = (None, None, None) if estimate is None else (estimate.value, *estimate.interval)
    return {
        "at": at,
        "value": value,
        "low": value if low is None else low,
        "high": value if high is None else high,
    }


def _points(rows: Sequence[dict[str, Any]], x: dict[str, Any], title: str) -> dict[str, Any]:
    """Values with their intervals."""
    y = {"field": "value", "type": "quantitative", "title": title, "scale": {"domainMin": 0}}
    bar = {"y": {"field": "low", "type": "quantitative", "title": title}, "y2": {"field": "high"}}
    return {
        "data": {"values": rows},
        "encoding": {"x": x},
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 1, "opacity": 0.5}, "encoding": {"y": y}},
            {"mark": {"type": "rule", "strokeWidth": 3, "opacity": 0.5}, "encoding": bar},
            {"mark": {"type": "point", "filled": True, "size": 70, "opacity": 1}, "encoding": {"y": y}},
        ],
    }


def _steps(run: RunAccount) -> Iterable[tuple[str, Any]]:
    for one in run.stretches:
        yield (
            str(one.first_step) if one.first_step == one.last_step else f"{one.first_step}-{one.last_step}",
            one,
        )


_STEPS = {
    "field": "at",
    "type": "ordinal",
    "sort": None,
    "title": "training steps",
    "axis": {"labelAngle": -40},
}


def _bits(run: RunAccount) -> dict[str, Any]:
    return _points([_row(at, one.bits) for at, one in _steps(run)], _STEPS, "bits a rollout, at most")


def _silent(run: RunAccount) -> dict[str, Any]:
    rows = [
        {"at": at, "which": words, "share": getattr(one, name).value, "order": place}
        for at, one in _steps(run)
        for place, (name, words) in enumerate(_SILENT.items())
    ]
    met = [words for words in _SILENT.values() if any(row["share"] for row in rows if row["which"] == words)]
    return {
        "data": {"values": [row for row in rows if row["which"] in met]},
        "mark": {"type": "bar"},
        "encoding": {
            "x": _STEPS,
            "y": {
                "field": "share",
                "type": "quantitative",
                "title": "share of groups",
                "axis": {"format": "%"},
                "scale": {"domain": [0, 1]},
            },
            "color": {
                "field": "which",
                "type": "nominal",
                "scale": {"domain": [*_SILENT.values()]},
                "legend": {"title": None, "orient": "bottom", "values": met},
            },
            "order": {"field": "order"},
        },
    }


def _sizes(run: RunAccount) -> dict[str, Any]:
    x = {
        "field": "at",
        "type": "quantitative",
        "title": "rewards a group, G",
        "scale": {"type": "log", "base": 2},
    }
    x["axis"] = {"values": [one.size for one in run.others], "grid": False}
    spec = _points([_row(one.size, one.silent) for one in run.others], x, "share of silent groups")
    for layer in spec["layer"]:
        layer["encoding"]["y"]["axis"] = {"format": "%"}
    here = {
        "data": {"values": [{"at": run.usual_size}]},
        "mark": {"type": "rule", "strokeDash": [3, 3], "style": "reference"},
    }
    return {**spec, "layer": [here, *spec["layer"]]}


def _rates(rates: PassRates) -> dict[str, Any]:
    a, b = (one.value or 1.0 for one in (rates.a, rates.b))
    ends = [place / _BINS for place in range(_BINS + 1)]
    masses = [float(betainc(a, b, high) - betainc(a, b, low)) for low, high in pairwise(ends)]
    rows = [
        {"low": low, "high": low + 1 / _BINS, "mass": mass} for low, mass in zip(ends, masses, strict=False)
    ]
    x = {"field": "low", "type": "quantitative", "title": "pass rate", "axis": {"format": "%"}}
    y = {"field": "mass", "type": "quantitative", "title": "share of groups", "axis": {"format": "%"}}
    return {
        "data": {"values": rows},
        "mark": {"type": "bar", "binSpacing": 1},
        "encoding": {"x": {**x, "bin": {"binned": True, "step": 1 / _BINS}}, "x2": {"field": "high"}, "y": y},
    }
