"""What runs and sweeps there are: how each ended, when, and what came out; no table is read but its end."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from memory_rl.analysis.collect import SET_APART, SWEEP, Cell, Damage, survey
from memory_rl.analysis.statistics import Estimate
from memory_rl.catalogue import experiment_keys
from memory_rl.errors import ConfigError, RunDirectoryError, first_few, suggest
from memory_rl.files import Json, as_path, read_json
from memory_rl.reporting.claims import Stuck, stuck_of_row, unseen
from memory_rl.reporting.sheets import Sheet
from memory_rl.reporting.study import differing_keys, names_by_keys
from memory_rl.reporting.values import MEDIAN, OTHERS, RATE, STUCK, in_brackets, measured
from memory_rl.runs.lock import is_locked
from memory_rl.runs.store import KILLED, SUMMARY, RunDirectory

if TYPE_CHECKING:
    import polars as pl

Kind = TypeVar("Kind", Cell, Damage)

FOLDERS = ("runs", "sweeps")
"""Where runs and sweeps go unless they are told otherwise."""

COLUMNS = (
    *("path", "kind", "name", "N", "ended", "runs", "memorised", *RATE, *MEDIAN),
    *(*STUCK, "budget", *OTHERS),
    *("cells", "complete", "started", "updated", "seconds", "why"),
)
_INTEGERS = ("N", "runs", "memorised", "budget", "cells", "complete")
_GREATEST_FIRST = {"memorised", "bits_per_episode", "cells", "started", "updated", "seconds"}
_ALSO = {"when": "updated", "rate": RATE[0], "condition": "name", "episodes": MEDIAN[0], "status": "ended"}
"""Other words for what a list is sorted by."""


@dataclass(frozen=True)
class Shelf:
    """What a sweep holds, or what lies in no sweep.

    Attributes:
        path: of the sweep; None for what lies in none.
    """

    path: Path | None
    cells: list[Cell] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)


@dataclass(frozen=True)
class ListEntry:
    """One row of a list, and the keys by which it may be sorted; those of a run."""

    row: Json
    config: Json = field(default_factory=dict)


def list_folders(
    paths: Iterable[str | Path], sort: str | None = None, *, cells: bool = False
) -> pl.DataFrame:
    """Runs and sweeps at or below some folders, one row each, the newest first; what is damaged is named.

    A sweep is one row, unless it is given itself or `cells` asks for its cells.

    Args:
        paths: of run directories, sweeps, or folders that hold some; none for runs and sweeps.
        sort: a column, or a key of the runs; a minus before it turns the order round.
        cells: whether all cells have rows of their own.

    Returns:
        The columns of `COLUMNS`. kind: run, sweep, or folder for a damaged one. ended: finished, running,
            interrupted, killed, failed, diverged or damaged. runs, memorised: of a sweep, those of its
            complete cells. bits_per_episode is over all runs; stuck is the share that did not memorise within
            the budget, and bits_per_episode_of_memorised the rate of the others. Times are in UTC, as in
            manifests; seconds are those of training.

    Raises:
        RunDirectoryError: if a path is missing or holds nothing of a run.
        ConfigError: if there is nothing of the name that it is to be sorted by.
    """
    by = _column(sort)
    folders = [*map(as_path, paths)] or [Path(name) for name in FOLDERS if Path(name).is_dir()]
    if not folders:
        raise RunDirectoryError(
            "there is no folder runs or sweeps here: give the path of one, as in memory-rl list FOLDER."
        )
    entries = [entry for shelf in _shelves(folders, cells) for entry in _entries(shelf)]
    newest = sorted(entries, key=lambda entry: entry.row["path"])
    newest.sort(key=lambda entry: entry.row["updated"] or "", reverse=True)
    return _frame(newest if by is None else _sorted(newest, by, turned=str(sort).startswith("-")))


def _frame(entries: Sequence[ListEntry]) -> pl.DataFrame:
    import polars as pl

    numbers = dict.fromkeys((*RATE, *MEDIAN, *STUCK, *OTHERS, "seconds"), pl.Float64)
    kinds = {**dict.fromkeys(COLUMNS, pl.String), **dict.fromkeys(_INTEGERS, pl.Int64), **numbers}
    return pl.DataFrame([entry.row for entry in entries], schema=kinds)


def _column(sort: str | None) -> str | None:
    """The column or key that a list is to be sorted by."""
    if sort is None:
        return None
    name = _ALSO.get(sort.lstrip("-"), sort.lstrip("-"))
    known = {*COLUMNS, *experiment_keys()}
    if name not in known:
        raise ConfigError(
            f"sort={sort} is neither a column nor a key: {suggest(name, [*_ALSO, *COLUMNS, *known])}"
        )
    return name


def _sorted(entries: Sequence[ListEntry], by: str, *, turned: bool) -> list[ListEntry]:
    """By a column or key; results and times begin with the greatest, what has no value comes last."""
    values = [(entry.row if by in COLUMNS else entry.config).get(by) for entry in entries]
    known = [pair for pair in zip(values, entries, strict=True) if pair[0] is not None]
    known.sort(
        key=lambda pair: (isinstance(pair[0], str), pair[0]), reverse=(by in _GREATEST_FIRST) != turned
    )
    return [entry for _, entry in known] + [
        entry for value, entry in zip(values, entries, strict=True) if value is None
    ]


def _shelves(folders: Sequence[Path], cells: bool) -> list[Shelf]:
    """What lies in no sweep that is one row, then each sweep that is one."""
    given, met = {folder.resolve() for folder in folders}, set[Path]()
    loose, shelves = Shelf(None), dict[Path, Shelf]()
    for folder in folders:
        below = [] if cells else [sweep for sweep in sweeps_in(folder) if sweep.resolve() not in given]
        shelves |= {sweep: Shelf(sweep) for sweep in below if sweep.resolve() not in met}
        met |= {sweep.resolve() for sweep in below}
        try:
            found = survey([folder], footers=True)
        except RunDirectoryError:
            if not [*sweeps_in(folder)]:
                raise
            shelves |= {sweep: Shelf(sweep) for sweep in sweeps_in(folder)}  # one that has only just begun
            continue
        for cell in _new(found.cells, met):
            _shelf_of(cell.path, shelves, loose).cells.append(cell)
        for damage in _new(found.damages, met):
            _shelf_of(damage.path, shelves, loose).damages.append(damage)
    return [loose, *shelves.values()]


def _new(found: Iterable[Kind], met: set[Path]) -> Iterator[Kind]:
    """Those that were not met before, which are then."""
    for one in found:
        if one.path.resolve() not in met:
            met.add(one.path.resolve())
            yield one


def _shelf_of(path: Path, shelves: Mapping[Path, Shelf], loose: Shelf) -> Shelf:
    return next((shelves[above] for above in path.parents if above in shelves), loose)


def sweeps_in(folder: Path) -> Iterator[Path]:
    """The sweeps at or below a folder."""
    for root, folders, files in os.walk(folder):
        if SWEEP in files:
            yield Path(root)
        kept = [] if SWEEP in files else [name for name in folders if name not in SET_APART]
        folders[:] = kept


def _entries(shelf: Shelf) -> Iterator[ListEntry]:
    if shelf.path is not None:
        yield ListEntry(_row_of_sweep(shelf.path, shelf))
        return
    for name, cell in zip(names_by_keys(shelf.cells), shelf.cells, strict=True):
        yield ListEntry(_row_of_run(name, cell), cell.config)
    for damage in shelf.damages:
        yield ListEntry(_row(damage.path, kind="folder", name="", ended="damaged", why=damage.why))


def _row(path: Path, **values: Any) -> Json:
    return {**dict.fromkeys(COLUMNS), "path": str(path), **values}


def how_ended(cell: Cell) -> str:
    """In a word: finished, running, interrupted, killed, failed or diverged."""
    if cell.manifest["status"] == "failed":
        return "diverged" if "diverged at" in cell.ended else "failed"
    status = RunDirectory(cell.path).status(cell.manifest)
    return "finished" if status == "completed" else status


def _row_of_run(name: str, cell: Cell) -> Json:
    known, manifest = cell.completed and cell.measured, cell.manifest
    results = measured(cell.summary, cell.settings.get("max_episodes")) if known else {}
    return _row(
        cell.path,
        kind="run",
        name=name,
        N=cell.N,
        ended=how_ended(cell),
        **{key: value for key, value in results.items() if key in COLUMNS},
        started=manifest["started"],
        updated=manifest["updated"],
        seconds=_number(manifest.get("seconds")),
        why=manifest.get("why"),
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _row_of_sweep(path: Path, shelf: Shelf) -> Json:
    try:
        record = read_json(path / SWEEP)
        listed = len(record["cells"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        damage = f"{path / SWEEP} cannot be read ({error}): restore it, or give another folder."
        return _row(path, kind="sweep", name="", ended="damaged", why=damage)
    done = [cell for cell in shelf.cells if cell.completed]
    total = max(listed, len(shelf.cells) + len(shelf.damages))
    sizes, times = {cell.N for cell in shelf.cells}, [str(cell.manifest["updated"]) for cell in shelf.cells]
    conditions = list(dict.fromkeys(cell.condition for cell in shelf.cells))
    keys, name = differing_keys(shelf.cells), record.get("name")
    if conditions:
        over = f" over {first_few(keys, 3)}" if keys else ""
        name = f"{name or ''}: {first_few(conditions, 3)}{over}"
    ended, why = _how_sweep_ended(path, shelf, total)
    return _row(
        path,
        kind="sweep",
        name=name,
        N=min(sizes) if len(sizes) == 1 else None,
        ended=ended,
        runs=sum(cell.summary["runs"] for cell in done),
        memorised=sum(cell.summary["memorised"] for cell in done),
        cells=total,
        complete=len(done),
        started=record.get("started"),
        updated=max(times, default=record.get("started")),
        seconds=sum(_number(cell.manifest.get("seconds")) or 0.0 for cell in done),
        why=why,
    )


def _how_sweep_ended(path: Path, shelf: Shelf, total: int) -> tuple[str, str | None]:
    """In a word as of a run, and why: of the first cell that is not finished."""
    left = [cell for cell in shelf.cells if not cell.completed]
    whys = [damage.why for damage in shelf.damages]
    whys += [str(cell.manifest["why"]) for cell in left if cell.manifest.get("why")]
    words = {how_ended(cell) for cell in left} | ({"damaged"} if shelf.damages else set())
    if total > len(shelf.cells) + len(shelf.damages):
        words.add(_status(path))  # of those that have no run directory
    worst = next((word for word in _WORST_FIRST if word in words), "finished")
    return "running" if is_locked(path) else worst, whys[0] if whys else None


def _status(path: Path) -> str:
    """What a sweep that does not run says of its end, were it that a rate was never found for some cells."""
    try:
        status = read_json(path / SUMMARY).get("status")
    except (OSError, ValueError):
        status = None
    return status if status in ("failed", "interrupted") else KILLED


_NARROWEST = 16
"""The least width to which paths are folded."""
_WORST_FIRST = ("damaged", "failed", "diverged", "interrupted", KILLED)


def listing_sheet(frame: pl.DataFrame, width: int | None = None) -> Sheet:
    """A list for the terminal; where it is wider, rows have two lines or more, at last in one column."""
    found = [stuck_of_row(row) if row["kind"] == "run" else None for row in frame.rows(named=True)]
    rows = [_words(*pair) for pair in zip(frame.rows(named=True), found, strict=True)]
    parents = [str(Path(path).parent) for path in frame["path"]]
    folder = os.path.commonpath(parents) if len(rows) > 1 else ""
    rows = [[row[0].removeprefix(f"{folder}/"), *row[1:]] for row in rows]
    title = f"{len(rows)} {'entry' if len(rows) == 1 else 'entries'}{f' in {folder}' if folder else ''}"
    headings = ["path", "what", "memorised", "bits per episode [95 %]", "ended", "when"]
    caption = _of_stuck(found)
    sheet = Sheet(
        headings, rows, words=[headings[0], headings[1], *headings[4:]], title=title, caption=caption
    )
    if width is None or _whole_width(sheet) <= width:
        return sheet
    headings = ["path, what", "memorised, bits per episode", "ended, when"]
    narrow = [[_two(*row[:2]), _two(*row[2:4]), _two(*row[4:])] for row in rows]
    room = width - sum(
        max(map(len, "\n".join(row[place] for row in [headings, *narrow]).split("\n"))) + 2
        for place in (1, 2)
    )
    if room < _NARROWEST:
        headings, narrow, room = ["\n".join(headings)], [["\n".join(row)] for row in narrow], width
    for row in narrow:
        row[0] = "\n".join(part for line in row[0].split("\n") for part in _folded(line, room))
    return Sheet(
        headings, narrow, keys=headings, words=[headings[0], headings[-1]], title=title, caption=caption
    )


def _whole_width(sheet: Sheet) -> int:
    """With no word broken."""
    columns = zip(sheet.headings, *sheet.rows, strict=True)
    return sum(max(map(len, column)) + 2 for column in columns) - 2


def _two(first: str, second: str) -> str:
    return "\n".join(filter(None, (first, second)))


def _folded(line: str, width: int) -> list[str]:
    """A line as lines of this width, broken where a name is put together."""
    parts, lines = re.findall(r".+?(?:[-/ ]|$)", line), [""]
    for part in parts:
        if lines[-1] and len(lines[-1] + part.rstrip()) > width:
            lines.append("  ")
        lines[-1] += part
    return [one.rstrip() for one in lines]


def _of_stuck(found: Sequence[Stuck | None]) -> str:
    """What stands in the columns of the results where runs are stuck."""
    some = any(one and one.some for one in found)
    two = (
        "Stuck: by the budget in episodes, 95 %; bits per episode there: of those that memorised."
        if some
        else ""
    )
    return " ".join(filter(None, [two, unseen(one.runs for one in found if one and not one.some)]))


def _words(row: Mapping[str, Any], stuck: Stuck | None) -> list[str]:
    of_all = "" if row[RATE[0]] is None else in_brackets(Estimate(*map(row.get, RATE)))
    memorised = "" if not row["runs"] else f"{row['memorised']} of {row['runs']}"
    if stuck and stuck.some:
        memorised += f", stuck {stuck.in_a_column()}"
        alone = stuck.others.value is not None
        of_all = in_brackets(stuck.others) if alone else f"{of_all} {stuck.at}".strip()
    size = "" if row["N"] is None else f"N={row['N']}"
    of_cells = "" if row["cells"] is None else f", {row['complete']} of {row['cells']}"
    return [
        row["path"],
        " ".join(filter(None, (row["name"], size))),
        memorised,
        of_all,
        row["ended"] + of_cells,
        _local(row["updated"]),
    ]


def listing_notes(frame: pl.DataFrame) -> list[str]:
    """A sentence on each that came to no good end and says why."""
    bad = frame.filter(~frame["ended"].is_in(["finished", "running"]) & frame["why"].is_not_null())
    return [f"{path} {ended}: {why}" for path, ended, why in bad.select("path", "ended", "why").iter_rows()]


def _local(time: str | None) -> str:
    """A time of a manifest as the clock here shows it, to the minute."""
    try:
        return f"{datetime.fromisoformat(time or '').astimezone():%Y-%m-%d %H:%M}"
    except ValueError:
        return time or ""
