"""The five figures of the results, as Vega-Lite: light ground, text as outlines."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from memory_rl.analysis.bottleneck import PARTS
from memory_rl.analysis.statistics import Estimate
from memory_rl.analysis.study_numbers import BEST, DEFAULT, TINY
from memory_rl.reporting.lettering import drawn
from memory_rl.reporting.themes import DASHES, GROUND, PALETTE, SHAPES, vega_config
from results_words import SCALAR, TITLES, Words, title_of

Json = dict[str, Any]
AT = 64
"""The N of the figures that show one."""

COLORS = PALETTE["light"]
INK, MUTED = "#24292f", "#57606a"
ROLES = {DEFAULT: "default learner", BEST: "best learner"}
RATE = "bits per episode of the runs that memorised"
_TICK = "M-0.12,-1.2H0.12V1.2H-0.12Z"
_DECADES = [10.0**power for power in range(-6, 3)]


def svg(spec: Json) -> str:
    """A figure as SVG, with the hash of what it shows: other machines may set the same letters otherwise."""
    look = vega_config("light", [], ground=GROUND["light"])
    drawing = drawn({"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "config": look, **spec})
    return f"{drawing.rstrip()}\n<!-- {fingerprint(spec)} -->\n"


def fingerprint(spec: Json) -> str:
    """The hash of a figure's specification and numbers."""
    return "sha256 " + hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def figures(words: Words) -> Iterator[tuple[str, Json]]:
    """Name and Vega-Lite of each figure; one that has nothing to show is left out."""
    for name, make in FIGURES.items():
        spec = make(words)
        if spec is not None:
            yield name, spec


def six(value: float | None) -> float | None:
    """A number to six digits, the same on every machine."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _ends(estimate: Estimate) -> Json:
    return {"value": six(estimate.value), "low": six(estimate.low), "high": six(estimate.high)}


def _rate(words: Words, *place: Any) -> Estimate:
    sample = words.sample(*place)
    rate = sample.of_memorised if sample else None
    return rate.exp() if rate else Estimate(None)


def _rate_rows(words: Words, recipe: str = TINY) -> Iterator[Json]:
    """Of each signal and role at `AT` the rate, its ceilings and who is stuck."""
    for signal in words.signals(AT, recipe):
        for role, named in ROLES.items():
            sample, rate = words.sample(signal, AT, role, recipe), _rate(words, signal, AT, role, recipe)
            if sample is None:
                continue
            stuck, asker = sample.stuck.value or 0, sample.ceilings.get("ideal questioner")
            yield {
                "signal": title_of(signal),
                "role": named,
                "recipe": recipe,
                **_ends(rate),
                "capacity": six(sample.ceilings["capacity"]),
                "asker": six(asker),
                "words": f"{100 * stuck:.2g} % stuck" if stuck else "",
            }


def _log(title: str, lowest: float | None = None, **more: Any) -> Json:
    axis = {"format": "~g", "values": _DECADES, "title": title, **more}
    domain = {} if lowest is None else {"domainMin": lowest}
    return {"type": "quantitative", "axis": axis, "scale": {"type": "log", "nice": False, **domain}}


def _by(field: str, names: Iterable[str], **look: Any) -> Json:
    """Colours and shapes that tell the same."""
    names = [*names]
    legend = {"title": None, "orient": "bottom", "columns": 3, "labelLimit": 400, "symbolOpacity": 1}
    color = {"domain": names, "range": [*COLORS[: len(names)]]}
    shape = {"domain": names, "range": [*SHAPES[: len(names)]]}
    both = {"field": field, "type": "nominal", "legend": {**legend, **look}}
    return {"color": {**both, "scale": color}, "shape": {**both, "scale": shape}}


def _rows_of_signals(rows: list[Json]) -> Json:
    order = [*dict.fromkeys(row["signal"] for row in rows)]
    return {"field": "signal", "type": "nominal", "sort": order, "title": None, "axis": {"labelLimit": 300}}


def _rate_layers(rows: list[Json], lowest: float) -> list[Json]:
    roles = [name for name in ROLES.values() if any(row["role"] == name for row in rows)]
    place = {"y": _rows_of_signals(rows), "yOffset": {"field": "role", "type": "nominal", "sort": [*ROLES.values()]}}
    color = _by("role", roles)
    x = {"field": "value", **_log(RATE, lowest)}
    plain = {"y": place["y"]}
    return [
        {
            "mark": {"type": "point", "shape": _TICK, "filled": True, "size": 300, "color": MUTED},
            "encoding": {**plain, "x": {**x, "field": "capacity"}},
        },
        {
            "mark": {"type": "point", "shape": "diamond", "size": 70, "color": MUTED, "strokeWidth": 1.5},
            "encoding": {**plain, "x": {**x, "field": "asker"}},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 2},
            "encoding": {**place, "x": {**x, "field": "low"}, "x2": {"field": "high"}, "color": color["color"]},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
            "encoding": {**place, "x": x, **color},
        },
        {
            "mark": {"type": "text", "align": "right", "dx": -8, "fontSize": 11, "color": INK},
            "encoding": {**place, "x": {**x, "field": "start"}, "text": {"field": "words"}},
        },
    ]


def _started(rows: list[Json]) -> list[Json]:
    """With the place left of each point where words about it stand."""
    return [{**row, "start": row["low"] or row["value"]} for row in rows]


def _lowest(rows: list[Json]) -> float:
    """Where the axis of rates begins: with room for words on the left."""
    least = min((row["low"] or row["value"] for row in rows if row["value"]), default=0.01)
    return six(least / 8) or 0.001


def rates(words: Words) -> Json | None:
    """Bits an episode by signal, default and best, with ceilings."""
    rows = _started([*_rate_rows(words)])
    if not rows:
        return None
    subtitle = f"N = {AT}: {math.log2(AT):g} bits to learn. Tick: naive ceiling; diamond: an ideal learner"
    return {
        "title": {"text": "What an episode teaches, by what it tells", "subtitle": subtitle},
        "data": {"values": rows},
        "layer": _rate_layers(rows, _lowest(rows)),
        "width": 430,
        "height": {"step": 17},
    }


RICH = ("sft", "told", "sampled", "per_bit", "summed")
POOR = ("binary", "noisy", "bins8", "log_distance")


def growth(words: Words) -> Json | None:
    """Episodes of the runs that memorised, against N."""
    rows = [
        {"signal": title_of(signal), "kind": kind, "role": named, "N": N, **_ends(_episodes(words, signal, N, role))}
        for kind, signals in enumerate((RICH, POOR))
        for signal in signals
        for role, named in ROLES.items()
        for N in words.sizes
        if words.has(signal, N, role)
    ]
    if not rows:
        return None
    top = max(row["high"] or row["value"] for row in rows) * 1.3
    panels = [_growth_panel(rows, kind, role, words.sizes, top) for kind in (0, 1) for role in ROLES.values()]
    return {
        "title": {"text": "Episodes to memorise one of N answers", "subtitle": "runs that memorised; bars: 95 %"},
        "concat": [panel for panel in panels if panel["data"]["values"]],
        "columns": 2,
        "resolve": {"scale": {"color": "independent", "shape": "independent"}},
    }


def _episodes(words: Words, *place: Any) -> Estimate:
    sample = words.sample(*place)
    rate, information = _rate(words, *place), sample.first.information if sample else 0.0
    each = (None if part is None else information / part for part in (rate.value, rate.high, rate.low))
    return Estimate(*each)


def _growth_panel(rows: list[Json], kind: int, role: str, sizes: list[int], top: float) -> Json:
    shown = [row for row in rows if (row["kind"], row["role"]) == (kind, role)]
    names = [title_of(signal) for signal in (RICH, POOR)[kind]]
    look = _by("signal", names, columns=2)
    x = {"field": "N", "type": "quantitative", "scale": {"type": "log", "base": 2, "nice": False, "padding": 12}}
    x["axis"] = {"values": sizes, "format": "d", "title": "N"}
    y = {"field": "value", **_log("episodes")}
    y["scale"] |= {"domain": [1, six(top)]}
    return {
        "title": {"text": role, "fontSize": 12, "offset": 4},
        "data": {"values": shown},
        "width": 230,
        "height": 190,
        "encoding": {"x": x, "color": look["color"]},
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"y": y}},
            {
                "mark": {"type": "rule", "strokeWidth": 1.5},
                "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
                "encoding": {"y": y, "shape": look["shape"]},
            },
        ],
    }


def ladder(words: Words) -> Json | None:
    """The steps from SFT down to each scalar signal: channel, exploration and absorption."""
    rows = [row for role in ROLES for signal in SCALAR for row in _steps(words, signal, role)]
    if not rows:
        return None
    names = {"channel": "channel", "exploration": "exploration", "absorption": "absorption"}
    look, y = _by("part", names, symbolType="square"), _rows_of_signals(rows)
    place = {"y": {**y, "axis": {**y["axis"], "domain": False}}, "yOffset": {"field": "part", "sort": [*names]}}
    x = {"field": "from", **_log("times slower than SFT")}
    subtitle = [f"N = {AT}. Each bar goes on where the one above it ends; a bar to the left wins back.", "Line: the whole gap"]
    panel = {
        "width": 240,
        "height": {"step": 15},
        "layer": [
            {
                "mark": {"type": "bar", "height": 9},
                "encoding": {**place, "x": x, "x2": {"field": "to"}, "color": look["color"]},
            },
            {
                "mark": {"type": "rule", "strokeWidth": 1.2, "color": INK},
                "encoding": {**place, "x": {**x, "field": "low"}, "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "shape": _TICK, "filled": True, "size": 160, "color": INK},
                "encoding": {"y": place["y"], "x": {**x, "field": "whole"}},
            },
        ],
    }
    return {
        "title": {"text": "Where the gap to SFT lies", "subtitle": subtitle},
        "concat": [
            {"title": {"text": named, "fontSize": 12, "offset": 4}, "data": {"values": shown}, **panel}
            for named in ROLES.values()
            if (shown := [row for row in rows if row["role"] == named])
        ],
        "columns": 2,
        "resolve": {"scale": {"x": "shared"}},
    }


def _steps(words: Words, signal: str, role: str) -> Iterator[Json]:
    """The bars of one signal, and the interval of where each ends."""
    split = words.split(signal, AT, role)
    start = 0.0
    for part in PARTS if split else ():
        value = split.value(part)
        end = start + value.value
        low, high = value.plus(start).interval() if part != "channel" else (end, end)
        ends = {"from": start, "to": end, "low": low, "high": high, "whole": split.value().value}
        yield {
            "signal": title_of(signal),
            "role": ROLES[role],
            "part": part,
            **{name: six(math.exp(each)) for name, each in ends.items()},
        }
        start = end


def dense(words: Words) -> Json | None:
    """How many times as fast SFT is as a reward for each bit."""
    names = {"per_bit": "each bit for itself", "summed": "summed into one"}
    rows = [
        {"credit": names[signal], "role": named, "N": N, **_ends(words.factor("sft", signal, N, role))}
        for signal in names
        for role, named in ROLES.items()
        for N in words.sizes
    ]
    rows = [row for row in rows if row["value"]]
    if not rows:
        return None
    look = _by("credit", names.values())
    domain = [six(min(0.8, *(row["low"] for row in rows))), six(1.2 * max(row["high"] for row in rows))]
    x = {"field": "N", "type": "quantitative", "scale": {"type": "log", "base": 2, "nice": False, "padding": 12}}
    x["axis"] = {"values": words.sizes, "format": "d", "title": "N"}
    y = {"field": "value", **_log("SFT is faster by", values=[0.5, 1, 2, 5, 10, 20, 50, 100, 200])}
    y["scale"] |= {"domain": domain}
    layers = [
        {"mark": {"type": "rule", "color": MUTED, "strokeDash": [3, 3]}, "encoding": {"y": {"datum": 1}}},
        {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"x": x, "y": y, "color": look["color"]}},
        {
            "mark": {"type": "rule", "strokeWidth": 1.5},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": look["color"]},
        },
        {"mark": {"type": "point", "filled": True, "size": 60, "opacity": 1}, "encoding": {"x": x, "y": y, **look}},
    ]
    return {
        "title": {"text": "A reward for each bit, against SFT", "subtitle": "1: as fast. Bars: 95 %"},
        "concat": [
            {
                "title": {"text": named, "fontSize": 12, "offset": 4},
                "data": {"values": shown},
                "width": 230,
                "height": 190,
                "layer": layers,
            }
            for named in ROLES.values()
            if (shown := [row for row in rows if row["role"] == named])
        ],
        "columns": 2,
    }


def recipes(words: Words) -> Json | None:
    """The rates of all kinds of base beside each other."""
    rows = [row for recipe in words.recipes for row in _started([*_rate_rows(words, recipe)])]
    if not rows:
        return None
    lowest = _lowest(rows)
    width = {1: 430, 2: 230}.get(len(words.recipes), 170)
    panels = [
        {
            "title": {"text": recipe, "fontSize": 12, "offset": 4},
            "data": {"values": [row for row in rows if row["recipe"] == recipe]},
            "layer": _rate_layers(rows, lowest),
            "width": width,
            "height": {"step": 17},
        }
        for recipe in words.recipes
    ]
    for panel in panels:
        for layer in panel["layer"]:
            layer["encoding"]["x"]["axis"] = {**layer["encoding"]["x"]["axis"], "title": "bits per episode"}
    subtitle = f"N = {AT}. Tick: naive ceiling; diamond: an ideal learner"
    return {
        "title": {"text": "The same on each kind of base model", "subtitle": subtitle},
        "concat": panels,
        "columns": 3,
        "resolve": {"scale": {"color": "shared", "shape": "shared"}},
    }


FIGURES: dict[str, Callable[[Words], Json | None]] = {
    "answer_rates": rates,
    "answer_growth": growth,
    "answer_ladder": ladder,
    "answer_dense": dense,
    "answer_recipes": recipes,
}
