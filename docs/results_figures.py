"""The five figures of the results, as Vega-Lite: light ground, text as outlines."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from results_words import SCALAR, TITLES, Words, title_of

from memory_rl.analysis.bottleneck import PARTS
from memory_rl.analysis.statistics import Estimate
from memory_rl.analysis.study_numbers import BEST, DEFAULT, TINY
from memory_rl.reporting.lettering import drawn
from memory_rl.reporting.themes import GROUND, PALETTE, SHAPES, vega_config

Json = dict[str, Any]
AT = 64
"""The N of the figures that show one."""

COLORS = PALETTE["light"]
INK, MUTED = "#24292f", "#57606a"
POINTS = {"type": "point", "filled": True, "size": 60, "opacity": 1}
BARS = {"type": "rule", "strokeWidth": 1.5, "clip": True}
ROLES = {DEFAULT: "default learner", BEST: "best learner"}
_TICK = "M-0.12,-1.2H0.12V1.2H-0.12Z"
_READING = [
    f"N = {AT}: {math.log2(AT):g} bits to learn. Rates are of the runs that memorised.",
    "Tick: naive ceiling; diamond: an ideal learner",
]
_POWERS = {"type": "log", "base": 2, "nice": False, "padding": 12}
_LADDER = "Each bar goes on where the one above it ends, one to the left wins back."
_CLIPS = re.compile(r"(?<=[\"#]clip)\d+")
_DECADES = [10.0**power for power in range(-6, 6)]
_TICKS = [digit * decade for decade in _DECADES for digit in (1, 2, 5)]
_ONES = [digit * decade for decade in _DECADES for digit in (1, 3)]


def svg(spec: Json) -> str:
    """A figure as SVG, with the hash of what it shows: other machines may set the same letters otherwise."""
    look = vega_config("light", [], ground=GROUND["light"])
    drawing = drawn({"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "config": look, **spec})
    numbers = {name: str(place) for place, name in enumerate(dict.fromkeys(_CLIPS.findall(drawing)))}
    drawing = _CLIPS.sub(lambda found: numbers[found[0]], drawing)  # a counter of the process names them
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


def _log(title: str, domain: tuple[float, float], **more: Any) -> Json:
    """A logarithmic axis; what lies outside of its domain is cut off."""
    axis = {"format": "~g", "values": _DECADES, "title": title, **more}
    ends = [six(end) for end in domain]
    return {"type": "quantitative", "axis": axis, "scale": {"type": "log", "nice": False, "domain": ends}}


def _domain(rows: Iterable[Json], *names: str, by: float = 1.6, at_most: float = 4.0) -> tuple[float, float]:
    """From a little below the least to a little above the greatest value of these columns.

    Intervals reach as far, but not further than `at_most` times beyond the values.
    """
    rows = [*rows]
    values = [row[name] for row in rows for name in names if row[name]]
    ends = [row[name] for row in rows for name in ("low", "high") if row.get(name)]
    low, high = min(values), max(values)
    return max(min([low, *ends]), low / at_most) / by, min(max([high, *ends]), high * at_most) * by


def _heading(text: str) -> Json:
    return {"text": text, "fontSize": 12, "offset": 4}


def _by(field: str, names: Iterable[str], **look: Any) -> Json:
    """Colours and shapes that tell the same."""
    names = [*names]
    legend = {"title": None, "orient": "bottom", "columns": 3, "labelLimit": 400, "symbolOpacity": 1}
    color = {"domain": names, "range": [*COLORS[: len(names)]]}
    shape = {"domain": names, "range": [*SHAPES[: len(names)]]}
    both = {"field": field, "type": "nominal", "legend": {**legend, **look}}
    return {"color": {**both, "scale": color}, "shape": {**both, "scale": shape}}


def _rows_of_signals(rows: list[Json]) -> Json:
    """Of these rows a line for each signal, in the order of `TITLES`."""
    order = [title for title in TITLES.values() if any(row["signal"] == title for row in rows)]
    axis = {"labelLimit": 300, "labelOverlap": False}
    return {
        "field": "signal",
        "type": "nominal",
        "sort": order,
        "scale": {"domain": order},
        "title": None,
        "axis": axis,
    }


def _rate_layers(rows: list[Json], domain: tuple[float, float], *, labels: bool = True) -> list[Json]:
    roles = [name for name in ROLES.values() if any(row["role"] == name for row in rows)]
    y = _rows_of_signals(rows)
    y["axis"]["labels"] = labels
    place = {"y": y, "yOffset": {"field": "role", "type": "nominal", "sort": [*ROLES.values()]}}
    color = _by("role", roles)
    x = {"field": "value", **_log("bits per episode", domain)}
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
            "mark": {"type": "rule", "strokeWidth": 2, "clip": True},
            "encoding": {
                **place,
                "x": {**x, "field": "low"},
                "x2": {"field": "high"},
                "color": color["color"],
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
            "encoding": {**place, "x": x, **color},
        },
        {
            "mark": {"type": "text", "align": "left", "dx": 8, "fontSize": 11, "color": INK},
            "encoding": {**place, "x": {"value": "width"}, "text": {"field": "words"}},
        },
    ]


def _height(rows: list[Json], pixels: int = 36) -> int:
    return pixels * len({row["signal"] for row in rows})


def rates(words: Words) -> Json | None:
    """Bits an episode by signal, default and best, with ceilings."""
    rows = [*_rate_rows(words)]
    if not rows:
        return None
    return {
        "title": {"text": "What an episode teaches, by what it tells", "subtitle": _READING},
        "data": {"values": rows},
        "layer": _rate_layers(rows, _domain(rows, "value", "capacity", "asker")),
        "width": 430,
        "height": _height(rows),
    }


def _over_N(sizes: list[int]) -> Json:
    look = {"values": sizes, "format": "d", "title": "N"}
    return {"field": "N", "type": "quantitative", "scale": _POWERS, "axis": look}


RICH, POOR = [*TITLES][:5], [*TITLES][5:]
"""The signals of the two rows of the figure of growth."""


def growth(words: Words) -> Json | None:
    """Episodes of the runs that memorised, against N."""
    rows = [
        {
            "signal": title_of(signal),
            "kind": kind,
            "role": named,
            "N": N,
            **_ends(_episodes(words, signal, N, role)),
        }
        for kind, signals in enumerate((RICH, POOR))
        for signal in signals
        for role, named in ROLES.items()
        for N in words.sizes
        if words.has(signal, N, role) and not words.mostly_stuck(signal, N, role)
    ]
    if not rows:
        return None
    roles = [role for role in ROLES.values() if any(row["role"] == role for row in rows)]
    return {
        "title": {
            "text": "Episodes to memorise one of N answers",
            "subtitle": "runs that memorised, where most did; bars: 95 %",
        },
        "vconcat": [
            {"hconcat": [_growth_panel(rows, kind, role, words.sizes) for role in roles]} for kind in (0, 1)
        ],
        "resolve": {"scale": {"color": "independent", "shape": "independent"}},
    }


def _episodes(words: Words, *place: Any) -> Estimate:
    sample = words.sample(*place)
    rate, information = _rate(words, *place), sample.first.information if sample else 0.0
    each = (None if part is None else information / part for part in (rate.value, rate.high, rate.low))
    return Estimate(*each)


def _growth_panel(rows: list[Json], kind: int, role: str, sizes: list[int]) -> Json:
    shown = [row for row in rows if (row["kind"], row["role"]) == (kind, role)]
    names = [title_of(signal) for signal in (RICH, POOR)[kind]]
    look = _by("signal", names)
    x = _over_N(sizes)
    y = {"field": "value", **_log("episodes", _domain(rows, "value"))}
    return {
        "title": _heading(role),
        "data": {"values": shown},
        "width": 230,
        "height": 190,
        "encoding": {"x": x, "color": look["color"]},
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"y": y}},
            {
                "mark": BARS,
                "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}},
            },
            {
                "mark": POINTS,
                "encoding": {"y": y, "shape": look["shape"]},
            },
        ],
    }


def ladder(words: Words) -> Json | None:
    """The steps from SFT down to each scalar signal: channel, exploration and absorption."""
    rows = [row for role in ROLES for signal in SCALAR for row in _steps(words, signal, role)]
    if not rows:
        return None
    look, y = _by("part", PARTS, symbolType="square"), _rows_of_signals(rows)
    place = {
        "y": {**y, "axis": {**y["axis"], "domain": False}},
        "yOffset": {"field": "part", "sort": [*PARTS]},
    }
    domain = _domain(rows, "from", "to", "whole", by=1.3)
    x = {"field": "from", **_log("times slower than SFT", domain, values=_ONES)}
    subtitle = [f"N = {AT}. {_LADDER}", "Upright: the whole gap; thin: 95 % of where a bar ends"]
    panel = {
        "width": 240,
        "height": _height(rows, 54),
        "layer": [
            {
                "mark": {"type": "bar", "height": 9},
                "encoding": {**place, "x": x, "x2": {"field": "to"}, "color": look["color"]},
            },
            {
                "mark": {"type": "rule", "strokeWidth": 1.2, "color": INK, "clip": True},
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
        "hconcat": [
            {"title": _heading(named), "data": {"values": shown}, **panel}
            for named in ROLES.values()
            if (shown := [row for row in rows if row["role"] == named])
        ],
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
    if not (rows := [row for row in rows if row["value"]]):
        return None
    look = _by("credit", names.values())
    low, high = _domain(rows, "value", by=1.2)
    x = _over_N(words.sizes)
    y = {"field": "value", **_log("SFT is faster by", (min(low, 0.8), high), values=_TICKS)}
    layers = [
        {"mark": {"type": "rule", "color": MUTED, "strokeDash": [3, 3]}, "encoding": {"y": {"datum": 1}}},
        {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"x": x, "y": y, "color": look["color"]}},
        {
            "mark": BARS,
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": look["color"]},
        },
        {
            "mark": POINTS,
            "encoding": {"x": x, "y": y, **look},
        },
    ]
    return {
        "title": {"text": "A reward for each bit, against SFT", "subtitle": "dotted: as fast. Bars: 95 %"},
        "hconcat": [
            {
                "title": _heading(named),
                "data": {"values": shown},
                "width": 230,
                "height": 190,
                "layer": layers,
            }
            for named in ROLES.values()
            if (shown := [row for row in rows if row["role"] == named])
        ],
    }


def recipes(words: Words) -> Json | None:
    """The rates of all kinds of base beside each other."""
    rows = [row for recipe in words.recipes for row in _rate_rows(words, recipe)]
    domain = _domain(rows, "value", "capacity", "asker")
    width = {1: 430, 2: 230}.get(len(words.recipes), 170)
    panels = [
        {
            "title": _heading(recipe),
            "data": {"values": [row for row in rows if row["recipe"] == recipe]},
            "layer": _rate_layers(rows, domain, labels=recipe == words.recipes[0]),
            "width": width,
            "height": _height(rows),
        }
        for recipe in words.recipes
    ]
    title = {"text": "The same on each kind of base model", "subtitle": _READING}
    return {"title": title, "hconcat": panels}


FIGURES: dict[str, Callable[[Words], Json | None]] = {
    "answer_rates": rates,
    "answer_growth": growth,
    "answer_ladder": ladder,
    "answer_dense": dense,
    "answer_recipes": recipes,
}
