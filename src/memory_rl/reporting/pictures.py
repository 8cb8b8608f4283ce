"""Figures as SVG and PNG: those of a report, and those of one run, which is a study with one cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from memory_rl.analysis.collect import Cell
from memory_rl.reporting import charts
from memory_rl.reporting.drawing import Figure, Spec
from memory_rl.reporting.lettering import drawn
from memory_rl.reporting.printing import joined, printed, sheet
from memory_rl.reporting.study import Study, study_of
from memory_rl.reporting.themes import GROUND, Theme, vega_config
from memory_rl.reporting.values import MINDS, number

if TYPE_CHECKING:
    import altair as alt

_PIXELS_A_POINT = 2
_WIDTH, _HEIGHT = 640, 360


def draw(
    figure: Figure, study: Study, theme: Theme = "light", *, png: bool = False
) -> Iterator[tuple[str, bytes]]:
    """Name and content of the files of a figure: what the page shows at first, on white.

    There are none of a figure that is left out.
    """
    if figure.panels:
        spec = sheet(figure, study, in_column=theme == "paper")
        yield from _pictures(figure.name, _on_white(spec, study, theme), png=png)


def draw_run(cell: Cell) -> Iterator[tuple[str, bytes]]:
    """Name and content of each picture of one run directory: bits known, and the ledger if it has one.

    Args:
        cell: completed, with metrics on disk.
    """
    yield from _pictures("bits_known", _bits_known(cell))
    if "rates" in cell.summary:
        yield from _pictures("ledger", _ledger(cell))


def plot_run(cell: Cell) -> alt.LayerChart:
    """Bits known of one run directory against episodes, as an Altair chart."""
    from memory_rl.reporting.offline import OfflineLayers

    return OfflineLayers.from_dict(_bits_known(cell))


def plot_ledger(cell: Cell) -> alt.ConcatChart:
    """Where the bits of one run directory went, as an Altair chart; it must have a ledger."""
    from memory_rl.reporting.offline import OfflinePanels

    return OfflinePanels.from_dict(_ledger(cell))


def _bits_known(cell: Cell) -> Spec:
    study, M, runs = study_of(cell), cell.num_secrets, cell.metrics["run"].n_unique()
    (panel,) = charts.bits_known(study).panels
    summed = f", summed over {M} secrets" if M > 1 else ""
    subtitle = [
        f"Bits known: log2 N + log2 P(S){summed}. Mean over {runs} runs with its 95 % bootstrap interval;",
        "thin: single runs; dotted: the ceiling. A run that has ended keeps its last value in the mean.",
    ]
    # Without tips it cannot be zoomed and is not clipped, which would slow the PNG down tenfold.
    spec = printed(replace(panel, height=_HEIGHT, tips={}), study, _WIDTH)
    return _on_white({**spec, "title": {"text": _title(cell), "subtitle": subtitle}}, study)


def _ledger(cell: Cell) -> Spec:
    study, rates = study_of(cell), cell.summary["rates"]
    words = "Means over runs with 95 % bootstrap intervals; a run that has ended keeps its value."
    told = ", ".join(f"{name} {number(rates[mind]['estimate'])}" for mind, name in MINDS.items())
    titles = {
        "What the questions could tell, and what was learned of it": words,
        "Bits per episode, and the factor lost at each step": told,
    }
    panels = [
        {**printed(panel, study, _WIDTH), "title": {"text": text, "subtitle": subtitle}}
        for panel, (text, subtitle) in zip(charts.ledger(study.entries), titles.items(), strict=False)
    ]
    return _on_white(joined(panels, _title(cell), columns=1), study)


def _title(cell: Cell) -> str:
    secrets = f", {cell.num_secrets} secrets" if cell.num_secrets > 1 else ""
    return f"{cell.condition}, N = {cell.N}{secrets}"


def _on_white(spec: Spec, study: Study, theme: Theme = "light") -> Spec:
    return {**spec, "config": vega_config(theme, study.labels, ground=GROUND["light"])}


def _pictures(name: str, spec: Spec, *, png: bool = False) -> Iterator[tuple[str, bytes]]:
    """The figure as SVG, and as PNG, which takes longer than all else, only if it is asked for."""
    drawing = drawn(spec)
    yield f"{name}.svg", drawing.encode()
    if png:
        import vl_convert

        yield f"{name}.png", vl_convert.svg_to_png(drawing, scale=_PIXELS_A_POINT)
