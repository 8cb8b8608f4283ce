"""The report's figures of one secret: one function a figure, a study in, panels out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from memory_rl.errors import first_few
from memory_rl.reporting import curves
from memory_rl.reporting.drawing import (
    DECADES,
    INTERVAL,
    Figure,
    Layer,
    Panel,
    Spec,
    at_each,
    axis,
    band,
    color_scale,
    episode_axis,
    episodes,
    estimates,
    extent,
    log_axis,
    marks,
    note,
    reach,
    reference,
)
from memory_rl.reporting.films import film
from memory_rl.reporting.study import Entry, Study
from memory_rl.reporting.waterfalls import falls_panel, waterfall

_RATE = {"rate": "bits per episode", **INTERVAL}
_STEPS: dict[str, Any] = {"interpolate": "step-after"}


def _on_shared_axes(panels: Sequence[Panel], **make: Callable[[float], Spec]) -> list[Panel]:
    """Panels that are compared share their axes.

    Args:
        panels: with axes of their own.
        make: of a channel, its axis up to the greatest end of all; other axes reach from the least to the
            greatest end of all.
    """
    channels: dict[str, Spec] = {}
    for channel in ("x", "y") if panels else ():
        ends = [panel.channels[channel]["scale"].get("domain") for panel in panels]
        if all(ends) and channel in make:
            channels[channel] = make[channel](max(high for _, high in ends))
        elif all(ends):
            low, high = extent(*ends)
            scale = {**panels[0].channels[channel]["scale"], "domain": [low, high]}
            channels[channel] = {**panels[0].channels[channel], "scale": scale}
    return [replace(panel, channels={**panel.channels, **channels}) for panel in panels]


def bits_known(study: Study) -> Figure:
    """Bits known against episodes, with intervals and ceilings: one panel per N.

    A cell that is alone in its panel shows its single runs, too.
    """
    panels, notes = cut_off(_on_shared_axes(at_each(study, _bits_panel), x=episode_axis))
    return Figure("bits_known", panels, notes=notes)


def _bits_panel(entries: Sequence[Entry]) -> Panel:
    frame, information = curves.bits_known(entries), entries[0].cell.bits_to_learn
    runs = [curves.single_runs(entries)] if len(entries) == 1 else []
    low, _ = extent([0.0], frame["low"], *(lines["bits"] for lines in runs))
    channels = {
        "x": episodes(frame["episode"]),
        "y": axis("mean", "bits known", (min(low, -0.02 * information), _ABOVE * information)),
    }
    thin = {"strokeWidth": 0.7, "strokeOpacity": 0.45, "says": "thin: single runs", **_STEPS}
    layers = [
        *(marks("line", lines, {"y": "bits", "detail": "run"}, **thin) for lines in runs),
        *_ceilings([entry for entry in entries if entry.summary]),
        *band(**_STEPS),
        *_all_there_is(information, "log2 N =" if entries[0].cell.num_secrets == 1 else "M log2 N ="),
    ]
    tips = {"series": "condition", "episode": "episode", "mean": "bits known, mean", **INTERVAL}
    return Panel(frame, channels, layers, {**tips, "ceiling": "ceiling, bits"}, form=".3f")


def _ceilings(entries: Sequence[Entry]) -> list[Layer]:
    """Dotted; of entries that are completed."""
    if not entries:
        return []
    frame = curves.ceilings(entries)
    look = {"strokeWidth": 1.2, "opacity": 0.75, "strokeDash": [1.5, 3]}
    return [marks("line", frame, {"y": "bits"}, says="thin dotted: the ceiling of a condition", **look)]


_SUNK, _ABOVE = 0.5, 1.1
"""How far axes of bits known reach below 0 at most, and above it, in units of all there is to know: what is
compared lies above 0."""


def cut_off(panels: Sequence[Panel]) -> tuple[list[Panel], list[str]]:
    """Panels of bits known on one axis, which one run that has sunk far below 0 does not stretch.

    Args:
        panels: with a shared vertical axis.

    Returns:
        The panels, whose axis says so where it is cut off, and a sentence on what is cut off.
    """
    if not panels:
        return [], []
    lowest, high = panels[0].channels["y"]["scale"]["domain"]
    floor = -_SUNK * high / _ABOVE
    if lowest >= floor:
        return [*panels], []
    words = f"{floor:.2g}".replace("-", "\u2212")
    y = axis("mean", f"bits known (cut off below {words})", (floor, high))
    return [_clipped(panel, y) for panel in panels], [_sunk(panels, floor, words)]


def _clipped(panel: Panel, y: Spec) -> Panel:
    layers = [replace(layer, mark={**layer.mark, "clip": True}) for layer in panel.layers]
    return replace(panel, channels={**panel.channels, "y": y}, layers=layers)


def _sunk(panels: Sequence[Panel], floor: float, words: str) -> str:
    sunk = [
        f"{name} at {panel.title.partition(':')[0]}"
        for panel in panels
        for name in panel.frame.filter(pl.col("mean") < floor)["series"].unique(maintain_order=True)
    ]
    means = f"the mean of {first_few(sunk)}, and " if sunk else ""
    return (
        f"What lies below {words} bits is cut off: {means}ends of intervals or single runs. It comes into "
        "view when the figure is moved."
    )


def _all_there_is(bits: float, name: str, *, left: bool = False) -> list[Layer]:
    """At the end, where no ceiling crosses the words, or on the left."""
    frame = pl.DataFrame({"bits": [bits], "words": [f"{name} {bits:.4g} bits"]})
    place: dict[str, Any] = {"value": 0} if left else {"value": "width"}
    words = note(
        frame, {"y": "bits", "x": place}, align="left" if left else "right", dx=5 if left else -5, dy=-7
    )
    return [reference("rule", frame, {"y": "bits"}, strokeWidth=1), words]


def ledger(entries: Sequence[Entry]) -> list[Panel]:
    """The ledger of a single cell.

    What its questions could tell, what an ideal observer and the policy know, above where the bits go.
    """
    panels = (_minds_panel(entries), falls_panel(entries))
    return [panel for panel in panels if panel]


def _minds_panel(entries: Sequence[Entry]) -> Panel:
    frame, bits = curves.ledger(entries), entries[0].cell.bits_to_learn
    least, most = extent([0.0, bits], *frame.select("low", "mean", "high"))
    channels = {
        "x": episodes(frame["episode"]),
        "y": axis("mean", "bits", (least, 1.08 * most)),
        "color": color_scale("curve", curves.CURVES.values()),
    }
    layers = [*band(**_STEPS), *_all_there_is(bits, "all there is to learn:", left=True)]
    return Panel(frame, channels, layers)


_HALF, _BAND = "dotted rule: half of the runs", "band: 95 % interval"


def survival(study: Study) -> Figure:
    """Kaplan-Meier curves of the episodes to memorise: one panel per N."""
    return Figure("survival", _on_shared_axes(at_each(study, _survival_panel), x=episode_axis))


def _survival_panel(entries: Sequence[Entry]) -> Panel:
    frame = curves.survival(entries)
    percent = [0, 0.25, 0.5, 0.75, 1]
    channels = {
        "x": episode_axis(1.05 * max(frame["episode"])),
        "y": axis("surviving", "runs that have not memorised", (-0.03, 1.05), values=percent, format="%"),
    }
    median, fallen = pl.DataFrame({"surviving": [0.5]}), frame.filter(pl.col("surviving") < 1)
    layers = [
        marks("area", fallen, {"y": "low", "y2": "high"}, says=_BAND, fillOpacity=0.12, **_STEPS),
        reference("rule", median, {"y": "surviving"}, says=_HALF, strokeDash=[2, 4], strokeWidth=1),
        marks("line", strokeWidth=2.2, **_STEPS),
        marks(
            "point",
            curves.censored(entries),
            says="cross: runs whose budget was spent",
            shape="cross",
            size=90,
            filled=True,
            opacity=1,
        ),
    ]
    tips = {"series": "condition", "episode": "episodes", "surviving": "not yet", **INTERVAL}
    return Panel(frame, channels, layers, tips, form=".1%")


def scaling(study: Study) -> Figure:
    """Bits per episode against N, with ideal questioners and closed forms: one panel per group of labels."""
    panels = [
        replace(_scaling_panel(part), title=name) for name, part in study.charts() if len(part.sizes) > 1
    ]
    compared = _on_shared_axes(panels) if len(study.sizes) > 1 else []
    return Figure("scaling", compared, "all cells have one N")


_GUESS = "black dotted: log2 N / N, guesses until the first hit"
_EXACT = "open diamond: closed form of exact policy gradient"


def _scaling_panel(study: Study) -> Panel:
    frame, guess, sizes = curves.scaling(study.entries), curves.one_hit(study.sizes), study.sizes
    rates = reach(guess["rate"], *frame.select("rate", "low", "high", "questioner", "closed_form"))
    channels = {
        "x": log_axis(
            "N", "N (log2 N bits to learn)", reach(sizes, by=1.4), base=2, values=sizes, format="d"
        ),
        "y": log_axis("rate", "bits per episode", rates, values=DECADES),
    }
    exact = frame.drop_nulls("closed_form")
    layers = [
        marks(
            "line",
            None,
            {"y": "questioner"},
            says="dashed without points: the ideal questioner",
            strokeWidth=1.4,
            opacity=0.9,
            strokeDash=[6, 4],
        ),
        reference("line", guess, {"x": "N", "y": "rate"}, says=_GUESS, strokeWidth=1.4, strokeDash=[1.5, 3]),
        marks("point", exact, {"y": "closed_form"}, says=_EXACT, shape="diamond", size=120),
        *estimates(),
    ]
    tips = {"series": "condition", "N": "N", **_RATE, "questioner": "ideal questioner"}
    return Panel(frame, channels, layers, tips, height=420)


_ABSORBED = ["bits absorbed per episode", "(linear within 0.01, logarithmic beyond)"]


def absorption(study: Study) -> Figure:
    """Bits absorbed per episode against P(S), under h(p) and -log2 p: one panel per N."""
    missing = "no two runs of a cell were measured at about the same P(S)"
    return Figure("absorption", _on_shared_axes(at_each(study, _absorption_panel)), missing)


def _absorption_panel(entries: Sequence[Entry]) -> Panel | None:
    frame, N = curves.absorption(entries), entries[0].N
    if frame["p"].n_unique() < 2:
        return None
    start = max(1 / (16 * N), min(0.5 / N, min(frame["p"]) / 1.2))
    lowest, _ = extent([0.0], frame.filter(pl.col("p") >= start)["absorbed"])
    ticks = [-10, -1, -0.1, -0.01, 0, 0.01, 0.1, 1, 10]
    scale, domain = {"type": "symlog", "constant": 0.01}, (lowest * 1.5 - 0.001, 2.5 * math.log2(2 * N))
    channels = {
        "x": log_axis("p", "P(S) before the episode", (start, 1.15), values=[*DECADES, 0.5]),
        "y": axis("absorbed", _ABSORBED, domain, scale, values=ticks, format="~g"),
    }
    layers = [
        reference("rule", pl.DataFrame({"bits": [0.0]}), {"y": "bits"}, says="rule: 0", strokeWidth=0.8),
        *(layer for law in curves.answer_information(N).partition_by("curve") for layer in _law(law)),
        *estimates(),
    ]
    tips = {"series": "condition", "p": "P(S) before", "absorbed": "bits per episode", **INTERVAL}
    return Panel(frame, channels, layers, {**tips, "runs": "runs"})


def _law(curve: pl.DataFrame) -> list[Layer]:
    """A curve with its name where it starts: below a rising one, above a falling one."""
    says, at = curve["curve"][0], {"x": "p", "y": "bits"}
    first = curve.sort("p").head(1).select("p", "bits", words=pl.col("curve").str.extract(r"^([^:]*)"))
    falls = curve.sort("p")["bits"][0] == max(curve["bits"])
    look = {"strokeWidth": 1.5, "strokeDash": [6, 4] if falls else [1, 0]}
    line = reference("line", curve, at, says=says, **look)
    return [line, note(first, at, **({"dx": 2, "dy": -9} if falls else {"dx": 9, "dy": 9}))]


def rank(study: Study) -> Figure:
    """Bits per episode against LoRA rank: one panel per N where ranks differ, and group of labels."""
    panels = [
        replace(_rank_panel(part), title=f"N = {N}{name and f': {name}'}")
        for N in study.sizes
        for name, part in _by_group(curves.ranks(study.at(N)).drop_nulls("rate"), study)
    ]
    return Figure("rank", _on_shared_axes(panels), "no two cells differ in lora_rank alone")


def _by_group(frame: pl.DataFrame, study: Study) -> Iterator[tuple[str, pl.DataFrame]]:
    """The rows of each group of labels that has any."""
    for name, part in study.charts():
        rows = frame.filter(pl.col("series").is_in([entry.label for entry in part.entries]))
        if rows["rank"].n_unique() > 1:
            yield name, rows


def _rank_panel(frame: pl.DataFrame) -> Panel:
    ranks = frame["rank"].unique().sort().to_list()
    channels = {
        "x": log_axis("rank", "LoRA rank", reach(ranks, by=1.5), base=2, values=ranks, format="d"),
        "y": log_axis("rate", "bits per episode", reach(*frame.select("rate", "low", "high"), by=2)),
    }
    return Panel(frame, channels, estimates(), {"series": "condition", "rank": "rank", **_RATE})


FIGURES: tuple[Callable[[Study], Figure], ...] = (
    bits_known,
    waterfall,
    survival,
    scaling,
    absorption,
    film,
    rank,
)
"""The figures in the order of the page."""
