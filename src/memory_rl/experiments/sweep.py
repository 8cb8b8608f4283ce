"""A sweep from its first check to its table: every cell is checked before any work, what is complete is
skipped, what failed is told at the end.
"""

from __future__ import annotations

import re
import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from memory_rl.analysis.protocol import Protocol, load_protocol
from memory_rl.config import describe_keys
from memory_rl.errors import ConfigError, RunDirectoryError
from memory_rl.experiments import estimates, results
from memory_rl.experiments.executors import make_executor, number_of_workers
from memory_rl.experiments.grid import (
    Cell,
    cells_of_axes,
    cells_of_entries,
    group_cells,
    merge,
    read_grid_file,
    split_groups,
)
from memory_rl.experiments.settings import SweepConfig, Tuning, read_arguments, read_tuning
from memory_rl.experiments.store import CELLS, PROTOCOL, SWEEP, TUNING, SweepDirectory, new_location
from memory_rl.experiments.tuning import Choice, Contest, choose, make_contests, with_rates
from memory_rl.experiments.worker import LOCKSTEP, Outcome, StoppedError, Task, can_resume
from memory_rl.reporting.terminal import show
from memory_rl.runs.store import MANIFEST

SCHEMA = 1
"""Raised when sweep.json or the summary.json of a sweep changes its meaning."""


@dataclass(frozen=True)
class Plan:
    """A sweep that can be run: every cell is a valid configuration.

    Attributes:
        settings: the sweep's own keys.
        name: of the protocol, the grid file or simply "sweep".
        cells: to be reported; with tuning, their rates are still to be chosen.
        tuning: how rates are chosen, or None.
        contests: what the tuning compares.
        protocol: where the grid came from, or None.
        command: the command line.
    """

    settings: SweepConfig
    name: str
    cells: list[Cell]
    tuning: Tuning | None
    contests: list[Contest]
    protocol: Protocol | None
    command: str


def sweep(**settings: Any) -> dict[str, Any]:
    """Runs a sweep and returns its summary.

    Nothing is printed unless `quiet=False` is given.

    Args:
        settings: the keys of `SweepConfig` and, as axes, those of `TrainConfig` and `SFTConfig`, with a list
            or one value for each, such as conditions=["sft", "binary"], N=[16, 64].

    Raises:
        MemoryRLError: one sentence about a key, a value, a cell or a directory, before any work is done.
        KeyboardInterrupt: if it is stopped; what is complete is kept.
    """
    words = [
        f"{key}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for key, value in {"quiet": True, **settings}.items()
    ]
    plan = make_plan(words)
    if plan.settings.dry_run:
        return {"cells": [asdict(estimate) for estimate in estimates.estimate_all(plan.cells, plan.contests)]}
    with signals_stop() as received:
        return run_plan(plan, received)


def main(words: Sequence[str]) -> int:
    """The command line of a sweep: returns its exit code.

    0: all cells are complete. 1: some failed. 130 or 143: stopped from the keyboard or by SIGTERM.

    Args:
        words: key=value arguments.

    Raises:
        MemoryRLError: one sentence about bad input.
    """
    if {"-h", "--help"} & set(words):
        Console(soft_wrap=True).print(describe_keys(SweepConfig), markup=False, highlight=False)
        return 0
    plan = make_plan(words)
    if plan.settings.dry_run:
        costs = estimates.estimate_all(plan.cells, plan.contests)
        show(estimates.costs_table(costs))
        Console(soft_wrap=True).print(
            estimates.total(costs, number_of_workers(plan.settings)), highlight=False
        )
        return 0
    try:
        with signals_stop() as received:
            summary = run_plan(plan, received)
    except StoppedError as stopped:
        Console(stderr=True, soft_wrap=True).print(
            f"memory-rl: {stopped}; complete cells are kept, and the same command goes on from here.",
            highlight=False,
        )
        return 128 + stopped.signal
    return _tell_failures(summary)


def _tell_failures(summary: dict[str, Any]) -> int:
    failed = [row for row in summary["cells"] if row["status"] != "completed"]
    console = Console(stderr=True, soft_wrap=True)
    for row in failed:
        console.print(f"memory-rl: {row['id']} {row['status']}: {row['why']}", markup=False, highlight=False)
    return 1 if failed else 0


def make_plan(words: Sequence[str]) -> Plan:
    """Checks all arguments and every cell.

    Raises:
        ConfigError: one sentence about the first that is bad.
    """
    settings, axes = read_arguments(words)
    protocol, name = None, "sweep"
    tuning = settings.tuning
    if settings.protocol is not None:
        protocol = load_protocol(settings.protocol)
        cells, name = cells_of_entries(protocol.grid, axes), protocol.name
        tuning = None if protocol.tune is None else read_tuning(protocol.tune)
    elif settings.grid is not None:
        file = read_grid_file(settings.grid)
        cells, name = cells_of_entries(file.entries, axes), Path(settings.grid).stem
        tuning = tuning or _tuning_of_file(file.tune, settings.grid)
    elif settings.conditions is None and not axes:
        raise ConfigError(
            "there is nothing to sweep: type for example protocol=quick, grid=file.yaml, or conditions=sft,binary N=16,64."
        )
    else:
        cells = cells_of_axes(settings.conditions, axes)
    contests = [] if tuning is None else make_contests(cells, tuning)
    return Plan(
        settings,
        name,
        cells,
        tuning,
        contests,
        protocol,
        _without_passwords(shlex.join(["memory-rl", "sweep", *words])),
    )


def _tuning_of_file(tune: Any, path: str) -> Tuning | None:
    if tune is not None and not isinstance(tune, dict):
        raise ConfigError(
            f"grid={path} has tune: {tune}: give keys of the tuning, such as {{rates: [0.001, 0.003]}}, or leave tune out."
        )
    return None if tune is None else read_tuning(tune)


def _without_passwords(command: str) -> str:
    """A URL may hold a password, which is kept nowhere."""
    return re.sub(r"://[^/@\s]*@", "://***@", command)


@contextmanager
def signals_stop() -> Iterator[list[int]]:
    """Turns SIGINT and SIGTERM into `StoppedError`, once: a second one does what it does without a sweep.

    Yields the signals received so far, since a library may turn the error into a KeyboardInterrupt of its
    own, as Ray does.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: FrameType | None) -> None:
        _set_handlers(before)
        received.append(number)
        raise StoppedError(number)

    _set_handlers(dict.fromkeys(before, stop))
    try:
        yield received
    finally:
        _set_handlers(before)


def _set_handlers(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run_plan(plan: Plan, received: Sequence[int] = ()) -> dict[str, Any]:
    """Runs a plan in its directory and returns the summary.

    Args:
        plan: what is to be run.
        received: the signals received so far, which may grow.

    Raises:
        RunDirectoryError: if the directory holds something else, is in use or cannot be written.
        StoppedError: if a signal stopped it; the summary is written all the same.
    """
    directory = SweepDirectory(plan.settings.log_path or new_location(plan.name))
    refuse_foreign(directory)
    with directory.locked():
        return Sweep(plan, directory, received).run()


def refuse_foreign(directory: SweepDirectory) -> None:
    """Leaves a directory alone that holds something else than a sweep.

    Raises:
        RunDirectoryError: if it does.
    """
    names = [name for name in directory.names() if not name.startswith(".")]
    if MANIFEST in names:
        raise RunDirectoryError(
            f"log_path={directory.location} already holds a run: give the path of a sweep, or a new one."
        )
    if names and SWEEP not in names and names != [PROTOCOL]:
        raise RunDirectoryError(
            f"log_path={directory.location} already holds other files ({names[0]}): give an empty or new log_path."
        )


@dataclass
class Sweep:
    """A plan at work in its directory, which is locked.

    Attributes:
        plan: what is to be run.
        directory: where.
        received: the signals received so far.
        whys: why cells failed, by id.
        choices: of the tuning, as far as it has come.
    """

    plan: Plan
    directory: SweepDirectory
    received: Sequence[int] = ()
    whys: dict[str, str] = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)

    def run(self) -> dict[str, Any]:
        """Tunes, runs and sums up; see `run_plan`."""
        cells, stopped = self.plan.cells, None
        self._begin()
        try:
            if self.plan.tuning is not None:
                cells = self._tuned()
            self._run_cells(CELLS, [cell for cell in cells if cell.id not in self.whys])
        except KeyboardInterrupt as error:
            stopped = (
                error
                if isinstance(error, StoppedError)
                else StoppedError(self.received[0] if self.received else signal.SIGINT)
            )
        summary = self._sum_up(cells, "completed" if stopped is None else "interrupted")
        if stopped is not None:
            raise stopped
        return summary

    def _begin(self) -> None:
        """Writes what was asked for, before the first run: the protocol first."""
        self._refuse_another()
        if self.plan.protocol is not None and self.directory.read_bytes(PROTOCOL) is None:
            self.directory.write_bytes(PROTOCOL, self.plan.protocol.text.encode())
        self._write_record(self.plan.cells)
        self._say(f"{len(self.plan.cells)} cells in {self.directory.location}")

    def _refuse_another(self) -> None:
        before = self.directory.read_json(SWEEP)
        protocol, where = self._about_protocol(), f"log_path={self.directory.location} already holds a sweep"
        text = self.directory.read_bytes(PROTOCOL)
        if text is not None and (self.plan.protocol is None or text != self.plan.protocol.text.encode()):
            raise RunDirectoryError(
                f"{where} of another protocol (its {PROTOCOL} differs): give another log_path."
            )
        if before is None:
            return
        if before.get("schema") != SCHEMA:
            raise RunDirectoryError(
                f"{where} of schema {before.get('schema')}, and this version writes {SCHEMA}: give another log_path."
            )
        if before.get("protocol") != protocol:
            raise RunDirectoryError(f"{where} that follows another protocol or none: give another log_path.")
        if before.get("tuning") != self._about_tuning():
            raise RunDirectoryError(
                f"{where} that tunes in another way or not at all: give another log_path."
            )

    def _about_protocol(self) -> dict[str, str] | None:
        protocol = self.plan.protocol
        return None if protocol is None else {"name": protocol.name, "sha256": protocol.sha256}

    def _about_tuning(self) -> dict[str, Any] | None:
        tuning = self.plan.tuning
        return (
            None
            if tuning is None
            else {
                "rates": None if tuning.rates is None else list(tuning.rates),
                "seed": tuning.seed,
                "num_runs": tuning.num_runs,
            }
        )

    def _write_record(self, cells: Sequence[Cell]) -> None:
        """sweep.json. A cell whose rate is still to be chosen has no id; cells of an earlier grid are kept if
        they are complete.
        """
        before = self.directory.read_json(SWEEP) or {}
        to_choose = self.plan.tuning is not None and any(cell.config.learning_rate is None for cell in cells)
        listed = [{**cell.as_dict(), "id": None} if to_choose else cell.as_dict() for cell in cells]
        new = {entry["id"] for entry in listed}
        kept = (
            []
            if to_choose
            else [
                entry
                for entry in before.get("cells", [])
                if entry["id"] not in {*new, None} and self._is_complete(entry["id"])
            ]
        )
        record = {
            "schema": SCHEMA,
            "name": self.plan.name,
            "protocol": self._about_protocol(),
            "command": self.plan.command,
            "started": before.get("started") or datetime.now(UTC).isoformat(timespec="seconds"),
            "tuning": self._about_tuning(),
            "tuning_cells": [cell.as_dict() for contest in self.plan.contests for cell in contest.candidates],
            "cells": [*kept, *listed],
        }
        self.directory.write_json(SWEEP, record)

    def _is_complete(self, name: str) -> bool:
        return self.directory.state(f"{CELLS}/{name}") == "completed"

    def _tuned(self) -> list[Cell]:
        """Runs the candidates and returns the cells with the rates that did best; those whose candidates are
        not all complete are noted as failed.
        """
        candidates = merge(cell for contest in self.plan.contests for cell in contest.candidates)
        self._run_cells(TUNING, candidates)
        chosen, cells = [], []
        for contest in self.plan.contests:
            summaries = {
                cell.id: results.cell_summary(self.directory, f"{TUNING}/{cell.id}")
                for cell in contest.candidates
                if cell.id not in self.whys
            }
            if len(summaries) == len(contest.candidates):
                self.choices.append(
                    choose(
                        contest, {name: summary for name, summary in summaries.items() if summary is not None}
                    )
                )
                chosen.append(contest)
            else:
                failed = next(cell.id for cell in contest.candidates if cell.id in self.whys)
                self.whys |= {
                    cell.id: f"its tuning is not complete: {failed} failed ({self.whys[failed]})"
                    for cell in contest.reported
                }
                cells += contest.reported
        cells = with_rates(chosen, self.choices) + cells
        self._write_record([cell for cell in cells if cell.id not in self.whys])
        return cells

    def _run_cells(self, folder: str, cells: Sequence[Cell]) -> None:
        """Runs what is not complete.

        Raises:
            StoppedError: if a cell was interrupted, whatever interrupted it.
        """
        missing = [cell for cell in cells if self.directory.state(f"{folder}/{cell.id}") != "completed"]
        done = len(cells) - len(missing)
        if done:
            self._say(f"{folder}: {done} of {len(cells)} are complete already")
        outcomes = make_executor(self.plan.settings)(self._tasks(folder, missing))
        for outcome in outcomes:
            self._note(folder, outcome)
            if outcome.status == "interrupted":
                raise StoppedError(outcome.signal)
            done += 1
            self._tell(folder, outcome, f"{done}/{len(cells)}")

    def _tasks(self, folder: str, cells: Sequence[Cell]) -> list[Task]:
        in_place = self.directory.local is not None and self.plan.settings.executor != "ray"
        groups = split_groups(
            group_cells(cells), number_of_workers(self.plan.settings) if LOCKSTEP else len(cells)
        )
        if in_place:
            return [Task(folder, group, str(self.directory.local)) for group in groups]
        return [
            Task(
                folder,
                group,
                None,
                {cell.id: files for cell in group if (files := self._begun(folder, cell))},
            )
            for group in groups
        ]

    def _begun(self, folder: str, cell: Cell) -> dict[str, bytes] | None:
        """The files that a worker elsewhere can go on with; what it cannot go on with is set aside."""
        place = f"{folder}/{cell.id}"
        if self.directory.state(place) == "absent":
            return None
        files = self.directory.files(place) if can_resume(cell, self.directory, place) else None
        self.directory.set_aside(place)
        return files

    def _note(self, folder: str, outcome: Outcome) -> None:
        if outcome.files:
            self.directory.commit(f"{folder}/{outcome.id}", outcome.files)
        if outcome.status == "failed":
            self.whys[outcome.id] = outcome.why or "no reason is known"

    def _tell(self, folder: str, outcome: Outcome, count: str) -> None:
        summary = (
            results.cell_summary(self.directory, f"{folder}/{outcome.id}")
            if outcome.status == "completed"
            else None
        )
        how = (
            f"failed: {outcome.why}"
            if summary is None
            else f"{summary['memorised']} of {summary['runs']} memorised"
        )
        self._say(
            f"[{count}] {'' if folder == CELLS else folder + '/'}{outcome.id}: {how} ({outcome.seconds:.1f} s)"
        )

    def _say(self, sentence: str) -> None:
        if not self.plan.settings.quiet:
            Console(soft_wrap=True).print(sentence, markup=False, highlight=False)

    def _sum_up(self, cells: Sequence[Cell], status: str) -> dict[str, Any]:
        """Writes the summary of all cells that sweep.json lists, and prints the tables."""
        listed = [
            Cell(entry["command"], entry["config"])
            for entry in (self.directory.read_json(SWEEP) or {}).get("cells", [])
        ]
        rows = results.make_rows(merge([*listed, *cells]), self.directory, self.whys)
        if status == "completed" and any(row["status"] != "completed" for row in rows):
            status = "failed"
        about = {
            "schema": SCHEMA,
            "name": self.plan.name,
            "protocol": self._about_protocol(),
            "status": status,
        }
        summary = results.write_results(self.directory, about, rows, self.choices)
        if not self.plan.settings.quiet:
            show(results.choices_table(self.choices))
            show(results.results_table(rows, self.directory.location))
        return summary
