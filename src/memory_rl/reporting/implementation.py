"""Runs of another trainer beside those of a sound implementation: one panel each, and a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from memory_rl.analysis.reference import BAND, Placement, Reference, curves, find_reference, place, shipped
from memory_rl.analysis.samples import Sample, gather
from memory_rl.reporting.drawing import Figure, Panel, axis, color_scale, episodes, extent, marks, reference
from memory_rl.reporting.study import Study
from memory_rl.reporting.values import counted

_SHARE = round(100 * (BAND[-1] - BAND[0]))
_MOST_DRAWN = 64
_SUNK = 0.5
"""How far the axis reaches below 0 at most, in units of all there is to know."""
_STEPS: dict[str, Any] = {"interpolate": "step-after"}


def of_other_trainers(study: Study) -> list[Sample]:
    """Their runs; those that differ in seeds alone are together."""
    return gather(cell for cell in study.cells if "trainer" in cell.manifest)


def implementation(study: Study) -> Figure:
    """Bits known of each foreign trainer's runs, over the band of the package's own."""
    found = [(sample, *find_reference(sample, shipped())) for sample in of_other_trainers(study)]
    panels = [_panel(sample, band) for sample, band, _ in found if band is not None]
    return Figure(
        "implementation", panels, "no reference runs are of their N and estimator", [*soundness(study)]
    )


def _panel(sample: Sample, band: Reference) -> Panel:
    """Single runs on the band of the reference; what sinks far below 0 is cut off, and the axis says so."""
    trainer, bits_to_learn = sample.first.manifest["trainer"]["name"], math.log2(sample.first.N)
    frame, bits = band.band(), curves(sample, band.episodes)[:_MOST_DRAWN]
    columns = {
        "episode": np.tile(band.episodes, len(bits)),
        "bits": bits.ravel(),
        "run": np.repeat(np.arange(len(bits)), len(band.episodes)),
    }
    runs = pl.DataFrame(columns, nan_to_null=True).drop_nulls().with_columns(series=pl.lit(trainer))
    low, _ = extent([-0.02 * bits_to_learn], frame["low"], runs["bits"])
    floor = -_SUNK * bits_to_learn
    title = f"bits known (cut off below \N{MINUS SIGN}{-floor:.2g})" if low < floor else "bits known"
    channels = {
        "x": episodes(frame["episode"]),
        "y": axis("median", title, (max(low, floor), 1.1 * bits_to_learn)),
        "color": color_scale("series", [trainer]),
    }
    grey = f"grey: {_SHARE} % of {len(band.bits)} runs of a sound implementation"
    ends = {"x": "episode", "y": "low", "y2": "high"}
    layers = [
        reference("area", frame, ends, says=grey, fillOpacity=0.15, strokeWidth=0, **_STEPS),
        reference("line", frame, {"x": "episode", "y": "median"}, says="black: their median", **_STEPS),
        marks("line", runs, {"y": "bits", "detail": "run"}, strokeWidth=1.2, **_STEPS),
    ]
    clipped = [replace(layer, mark={**layer.mark, "clip": True}) for layer in layers]
    return Panel(frame, channels, clipped, title=f"{trainer}, N = {sample.first.N}")


def soundness(study: Study) -> Iterator[str]:
    """One for each foreign trainer: whether its runs lie where those of a sound implementation do."""
    for sample in of_other_trainers(study):
        yield sentence(sample, *find_reference(sample, shipped()))


def sentence(sample: Sample, band: Reference | None, unlike: Sequence[str]) -> str:
    """Whether they lie where those of a sound implementation do, and what the comparison rests on."""
    trainer = sample.first.manifest["trainer"]
    who = f"The {counted(sample.runs, 'run')} of {trainer['library']}'s {trainer['name']}"
    if band is None:
        return f"{who} have no reference runs beside them: none are of this N and estimator."
    found = place(band, curves(sample, band.episodes))
    if unlike:
        return (
            f"{who} {_where(found)}, which says nothing of its soundness, since the settings differ: "
            f"{', '.join(unlike)}."
        )
    behaves = "behaves as a sound one does" if found.inside else "does not behave as a sound one does"
    return f"{who} {_where(found)}: it {behaves}, if it began from the built-in base model."


def _where(found: Placement) -> str:
    beside = f"{found.reference_runs} reference runs"
    chance = "p < 0.001" if found.p < 0.001 else f"p = {found.p:.2g}"
    if found.inside:
        return f"lie inside the band of {beside} ({chance})"
    side = "below" if found.bits < 0 else "above"
    return f"lie {side} {beside}, by {abs(found.bits):.2g} bits after {found.episode} episodes ({chance})"
