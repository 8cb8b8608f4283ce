"""From run directories to a report on disk: page, figures as PNG and SVG, Markdown summary and CSV."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from memory_rl.analysis.collect import Cell, Damage, find_cells, survey
from memory_rl.errors import DamageWarning, RunDirectoryError, first_few
from memory_rl.files import as_path, is_leftover, to_csv, write_whole
from memory_rl.reporting.capacity import capacity_frame, cells_of
from memory_rl.reporting.capacity_charts import CAPACITY_FIGURES
from memory_rl.reporting.charts import FIGURES, rank
from memory_rl.reporting.drawing import Figure
from memory_rl.reporting.implementation import implementation, of_other_trainers
from memory_rl.reporting.page import GENERATOR, render
from memory_rl.reporting.pictures import draw
from memory_rl.reporting.progress import Progress
from memory_rl.reporting.provenance import damages_of_sweeps, judge_sweeps
from memory_rl.reporting.ranking import make_ranking
from memory_rl.reporting.ranking_chart import profile
from memory_rl.reporting.settings import ReportConfig
from memory_rl.reporting.study import Study, make_study
from memory_rl.reporting.tables import cells_frame
from memory_rl.reporting.values import counted
from memory_rl.reporting.wording import asset

PAGE = "index.html"


def write_report(config: ReportConfig, edit: Callable[[str], str] | None = None) -> Path:
    """Writes the report and returns the path of its page.

    What is damaged is named on the page and in a warning, and left out.

    Args:
        config: what it is made of.
        edit: of a report on what still runs: changes the page, which may then be of no completed run; no
            figures for print are drawn.

    Raises:
        RunDirectoryError: if no run directory is found that is completed and whole, or `out` cannot be
            written or holds something else.
    """
    with Progress(config.quiet) as progress:
        return _write_report(config, progress, edit)


def _write_report(config: ReportConfig, progress: Progress, edit: Callable[[str], str] | None) -> Path:
    out = Path(config.out)
    refuse_foreign(out)
    progress.phase("reading the run directories")
    cells, damages = _look(config, begun=edit is not None)
    study = replace(make_study(cells), damages=damages)
    if edit is not None and not study.entries:
        write_files(out, {PAGE: edit(asset("waiting.html"))})
        return out / PAGE
    _refuse_nothing(config, study)
    _warn_of(damages)
    progress.phase("judging and laying out the page")
    judgements = judge_sweeps(config.paths, cells)
    first = Path(config.paths[0])
    title = config.title or next((one.protocol.name for one in judgements), first.resolve().name)
    figures, printed = _make_figures(study)
    ranking = make_ranking(cells, judgements)
    profiles = [profile(ranking.ranking)] if ranking else []
    page, summary = render(title, study, judgements, figures, ranking, profiles)
    progress.phase("drawing the figures")
    pictures = () if edit else _draw([*profiles, *printed], study.plain(), config, progress)
    files: dict[str, str | bytes] = {
        PAGE: edit(page) if edit else page,
        "summary.md": summary,
        "cells.csv": to_csv(cells_frame(study)),
        **({"capacity.csv": to_csv(capacity_frame(study))} if cells_of(study) else {}),
        **({name: to_csv(frame) for name, frame in ranking.frames().items()} if ranking else {}),
        **{f"figures/{name}": content for name, content in pictures},
    }
    write_files(out, files)  # the page first: it marks the folder as a report
    return out / PAGE


def _look(config: ReportConfig, *, begun: bool) -> tuple[list[Cell], list[Damage]]:
    """The run directories, and what is damaged; there may be none where a sweep has only `begun`."""
    try:
        found = survey(config.paths, tables=True)
    except RunDirectoryError:
        if not begun:
            raise
        return [], []
    return found.cells, [*found.damages, *damages_of_sweeps(config.paths, found.cells)]


def _refuse_nothing(config: ReportConfig, study: Study) -> None:
    if study.entries:
        return
    if study.damages:
        raise RunDirectoryError(f"runs={config.runs} holds nothing that can be shown: {study.damages[0].why}")
    raise RunDirectoryError(
        f"runs={config.runs} holds no completed run, but {counted(len(study.unfinished), 'unfinished one')}: "
        "wait for one, or give other folders."
    )


def _warn_of(damages: Sequence[Damage]) -> None:
    if damages:
        names = first_few([str(damage.path) for damage in damages])
        are = "is" if len(damages) == 1 else "are"
        how = first_few(sorted({damage.how for damage in damages}))
        warnings.warn(f"{names} {are} {how} and left out: the page says why.", DamageWarning, stacklevel=5)


def save_capacity_figures(paths: Sequence[str | Path], folder: str | Path) -> list[Path]:
    """Draws the figures of capacity alone, each as SVG and PNG, and returns their paths.

    Args:
        paths: run directories, or folders that hold some.
        folder: made if it is missing; files of these names in it are replaced.

    Raises:
        RunDirectoryError: if no run directory is found, or one is damaged, or the folder cannot be written.
    """
    study = make_study(find_cells(paths))
    drawn = chain.from_iterable(draw(make(study), study, png=True) for make in CAPACITY_FIGURES)
    return write_files(as_path(folder, "folder"), dict(drawn))


def _make_figures(study: Study) -> tuple[list[Figure], list[Figure]]:
    """Those of the page and those for print, with those that are left out.

    In print there is only what the page shows at first, but ranks are compared among all labels.
    """
    plain = study.plain()
    shown = plain.shown()
    of_page = [_make(make, plain) for make in FIGURES]
    printed = [_make(make, plain if make is rank else shown) for make in FIGURES]
    apart = [make(study) for make in CAPACITY_FIGURES if cells_of(study)]
    if of_other_trainers(study):
        apart.insert(0, implementation(study))
    return of_page + apart, printed + apart


def _make(make: Callable[[Study], Figure], plain: Study) -> Figure:
    missing = "each cell has several secrets or another adapter than LoRA, and is in the figures of capacity"
    return make(plain) if plain.entries else Figure(make.__name__, missing=missing)


def _draw(
    figures: Sequence[Figure], study: Study, config: ReportConfig, progress: Progress
) -> Iterator[tuple[str, bytes]]:
    for place, figure in enumerate(figures):
        progress.move(place / len(figures), f"{place} of {len(figures)}")
        yield from draw(figure, study, config.theme, png=config.png)


def refuse_foreign(out: Path, generator: str = GENERATOR) -> None:
    """Only an empty or new folder, or an earlier page of the same generator, is written to.

    Raises:
        RunDirectoryError: if the folder holds something else, or cannot be looked into.
    """
    try:
        foreign = os.path.lexists(out) and _is_foreign(out, generator)
    except OSError as error:
        raise RunDirectoryError(
            f"out={out} cannot be written ({error.strerror}): give another folder."
        ) from error
    if foreign:
        raise RunDirectoryError(
            f"out={out} holds files that are no {generator.split()[-1]}: give a new folder, such as "
            f"out={generator.split()[-1]}."
        )


def _is_foreign(out: Path, generator: str) -> bool:
    names = [path.name for path in out.iterdir() if not is_leftover(path.name)]
    return bool(names) and not _is_made_by(generator, out / PAGE)


def _is_made_by(generator: str, page: Path) -> bool:
    return page.is_file() and generator in page.read_text(encoding="utf-8", errors="replace")[:2000]


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> list[Path]:
    """Writes files of a folder, each whole or not at all, in this order, and returns their paths.

    Raises:
        RunDirectoryError: if one cannot be written.
    """
    for name, content in files.items():
        try:
            write_whole(folder / name, content)
        except OSError as error:
            raise RunDirectoryError(
                f"{folder / name} cannot be written ({error.strerror}): "
                "make room or give another folder as out=."
            ) from error
    return [folder / name for name in files]
