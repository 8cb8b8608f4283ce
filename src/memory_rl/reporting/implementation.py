"""Runs of another trainer beside those of a sound implementation: one panel each, and a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from memory_rl.analysis.reference import BAND, Placement, Reference, curves, find_reference, place, shipped
from memory_rl.analysis.samples import Sample, gather
from memory_rl.reporting.drawing import Figure, Layer, Panel, axis, episodes, marks, reference
from memory_rl.reporting.study import Study
from memory_rl.reporting.values import counted

_SHARE = round(100 * (BAND[-1] - BAND[0]))
_MOST_DRAWN = 64
_STEPS = {"interpolate": "step-after"}


def of_other_trainers(study: Study) -> list[tuple[str, Sample]]:
    """Their runs, each under its label; those that differ in seeds alone are together."""
    cells = [entry.cell for entry in study.entries if "trainer" in entry.cell.manifest]
    labels = {entry.cell.path: entry.label for entry in study.entries}
    return [(labels[sample.first.path], sample) for sample in gather(cells)]


def implementation(study: Study) -> Figure:
    """Bits known of each foreign trainer's runs, over the band of the package's own."""
    found = [
        (label, sample, *find_reference(sample, shipped())) for label, sample in of_other_trainers(study)
    ]
    panels = [_panel(label, sample, band) for label, sample, band, _ in found if band is not None]
    notes = [sentence(sample, band, unlike) for _, sample, band, unlike in found]
    return Figure("implementation", panels, "no reference runs are of the same N and estimator", notes)


def _panel(label: str, sample: Sample, band: Reference) -> Panel:
    trainer = sample.first.manifest["trainer"]
    frame = band.band().with_columns(series=pl.lit(label))
    bits = curves(sample, band.episodes)[:_MOST_DRAWN]
    runs = pl.DataFrame(
        {
            "episode": np.tile(band.episodes, len(bits)),
            "bits": bits.ravel(),
            "run": np.repeat(np.arange(len(bits)), len(band.episodes)),
            "series": label,
        },
        nan_to_null=True,
    ).drop_nulls()
    low = min(0.0, *frame["low"], *runs["bits"])
    channels = {
        "x": episodes(frame["episode"]),
        "y": axis(
            "median", "bits known", (max(low, -math.log2(sample.first.N)), 1.1 * math.log2(sample.first.N))
        ),
    }
    layers: list[Layer] = [
        reference(
            "area",
            frame,
            {"x": "episode", "y": "low", "y2": "high"},
            says=f"grey: {_SHARE} % of {len(band.bits)} runs of a sound implementation",
            fillOpacity=0.15,
            strokeWidth=0,
            **_STEPS,
        ),
        reference("line", frame, {"x": "episode", "y": "median"}, says="black: their median", **_STEPS),
        marks(
            "line",
            runs,
            {"y": "bits", "detail": "run"},
            says="coloured: the runs of this trainer",
            strokeWidth=1.2,
            **_STEPS,
        ),
    ]
    title = f"{trainer['name']}, N = {sample.first.N}"
    return Panel(frame, channels, layers, title=title)


def soundness(study: Study) -> Iterator[str]:
    """One for each foreign trainer: whether its runs lie where those of a sound implementation do."""
    for _, sample in of_other_trainers(study):
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
