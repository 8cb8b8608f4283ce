"""From run directories to a report on disk: page, figures as PNG and SVG, Markdown summary and CSV."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from memory_rl.analysis.collect import find_cells
from memory_rl.errors import RunDirectoryError
from memory_rl.reporting.capacity import capacity_frame
from memory_rl.reporting.capacity_charts import CAPACITY_FIGURES, is_shown
from memory_rl.reporting.charts import FIGURES, rank
from memory_rl.reporting.drawing import Figure
from memory_rl.reporting.page import GENERATOR, render
from memory_rl.reporting.pictures import draw
from memory_rl.reporting.provenance import Judgement, judge_sweeps
from memory_rl.reporting.settings import ReportConfig
from memory_rl.reporting.study import Study, make_study
from memory_rl.reporting.tables import cells_frame

PAGE, SUMMARY, CELLS, PICTURES = "index.html", "summary.md", "cells.csv", "figures"
CAPACITY = "capacity.csv"
"""Written only where a cell has several secrets or another adapter than LoRA."""


def write_report(config: ReportConfig) -> Path:
    """Writes the report and returns the path of its page.

    Raises:
        RunDirectoryError: if no run directory is found or completed, one is damaged, or `out` cannot be
            written or holds something else.
        ConfigError: if a protocol among them cannot be read.
    """
    out = Path(config.out)
    _refuse_foreign(out)
    cells = find_cells(config.paths)
    study = make_study(cells)
    if not study.entries:
        raise RunDirectoryError(
            f"runs={config.runs} holds {len(cells)} run directories but none that is completed: "
            "wait for one, or give other folders."
        )
    judgements = judge_sweeps(config.paths, cells)
    title = config.title or _title(config, judgements)
    figures = _make_figures(study)
    page, summary = render(title, study, judgements, figures)
    files = {
        PAGE: page.encode(),
        SUMMARY: summary.encode(),
        CELLS: cells_frame(study).write_csv().encode(),
        **({CAPACITY: capacity_frame(study).write_csv().encode()} if is_shown(study) else {}),
        **{f"{PICTURES}/{name}": content for name, content in _pictures(study)},
    }
    for name, content in files.items():  # the page first: it marks the folder as a report
        _write(out / name, content)
    return out / PAGE


def _title(config: ReportConfig, judgements: Sequence[Judgement]) -> str:
    return judgements[0].protocol.name if judgements else Path(config.paths[0]).resolve().name


def save_capacity_figures(paths: Sequence[str | Path], folder: str | Path) -> list[Path]:
    """Draws the figures of capacity alone, each as SVG and PNG, and returns their paths.

    Args:
        paths: run directories, or folders that hold some.
        folder: made if it is missing; files of these names in it are replaced.

    Raises:
        RunDirectoryError: if no run directory is found, or one is damaged, or the folder cannot be written.
    """
    study = make_study(find_cells(paths))
    figures = [make(study) for make in CAPACITY_FIGURES]
    pictures = [picture for figure in figures if figure.panels for picture in draw(figure, study)]
    for name, content in pictures:
        _write(Path(folder) / name, content)
    return [Path(folder) / name for name, _ in pictures]


def _make_figures(study: Study) -> list[Figure]:
    """The figures of the page, including those that are left out."""
    plain = study.plain()
    missing = "each cell has several secrets or another adapter than LoRA, and is in the figures of capacity"
    made = [make(plain) if plain.entries else Figure(make.__name__, missing=missing) for make in FIGURES]
    return [*made, *(make(study) for make in CAPACITY_FIGURES if is_shown(study))]


def _pictures(study: Study) -> Iterator[tuple[str, bytes]]:
    """The pictures of figures that are not left out; only ranks are compared among hidden labels, too."""
    plain = study.plain()
    shown = plain.shown()
    figures = [make(plain if make is rank else shown) for make in FIGURES if shown.entries]
    figures += [make(study) for make in CAPACITY_FIGURES if is_shown(study)]
    for figure in figures:
        if figure.panels:
            yield from draw(figure, plain)


def _refuse_foreign(out: Path) -> None:
    """Only an empty or new folder, or an earlier report, is written to."""
    try:
        taken = out.exists() and next(out.iterdir(), None) is not None
        ours = (
            taken
            and (out / PAGE).is_file()
            and GENERATOR in (out / PAGE).read_text(encoding="utf-8", errors="replace")[:2000]
        )
    except OSError as error:
        raise RunDirectoryError(
            f"out={out} cannot be written ({error.strerror}): give another folder."
        ) from error
    if taken and not ours:
        raise RunDirectoryError(
            f"out={out} holds files that are no report: give a new folder, such as out=report."
        )


def _write(path: Path, content: bytes) -> None:
    scratch = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(content)
        os.replace(scratch, path)
    except OSError as error:
        raise RunDirectoryError(
            f"{path} cannot be written ({error.strerror}): make room or give another folder as out=."
        ) from error
