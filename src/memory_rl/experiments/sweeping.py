"""A sweep from its first cell to its table.

What is complete is skipped, and what failed is reported at the end.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.protocol import Protocol
from memory_rl.analysis.ranking import Ranking
from memory_rl.analysis.remarks import why_alike
from memory_rl.errors import RunDirectoryError
from memory_rl.experiments import estimates, results
from memory_rl.experiments.contests import Halved, wanted_next
from memory_rl.experiments.executors import execute, number_of_workers
from memory_rl.experiments.found import Found, is_known
from memory_rl.experiments.grid import GridCell, merge
from memory_rl.experiments.halving import Halving
from memory_rl.experiments.races import Winner
from memory_rl.experiments.ranks import rank_sweep, ranking_sheet
from memory_rl.experiments.running import Running
from memory_rl.experiments.settings import SweepConfig, Tuning
from memory_rl.experiments.store import (
    CELLS,
    PROTOCOL,
    RANKING,
    RESULTS,
    SWEEP,
    TUNING,
    SweepDirectory,
    refuse_foreign,
)
from memory_rl.experiments.tuning import Choice, Contest, candidates_of, choices_of
from memory_rl.experiments.worker import CellOutcome, Task, can_resume, refuse_changed
from memory_rl.files import Json, folder_name, print_anything
from memory_rl.reporting.progress import Progress
from memory_rl.reporting.sheets import Sheet, say
from memory_rl.reporting.values import counted, duration
from memory_rl.runs.interruption import InterruptedBySignal, signals_raise
from memory_rl.runs.store import SUMMARY, new_folder

SCHEMA = 2
"""Raised when sweep.json or the summary.json of a sweep changes its meaning.

2: ids are hashes of `Experiment.resolved`.
"""


@dataclass
class Sweep:
    """A sweep of which every cell is a valid configuration.

    Attributes:
        settings: the sweep's own keys.
        name: of the protocol, the grid file or "sweep".
        cells: to be reported; with tuning, their rates are still to be chosen.
        tuning: how rates are chosen, or None.
        contests: what the tuning compares.
        protocol: where the grid came from, or None.
        command: the command line, without passwords.
        backend: that replaces the one of the protocol, if one does.
        notes: sentences on what the plan leaves out.
        learners: that run on every task of a protocol.
        known: cells that were measured elsewhere and are not run again, by id.
        whys: why cells failed, by id.
        diverged: the ids of those that failed because a run diverged.
        choices: of the tuning, as far as it has come.
        tried: its candidates, as far as it has come.
        kept: complete cells of an earlier grid.
    """

    settings: SweepConfig
    name: str
    cells: list[GridCell]
    tuning: Tuning | Halving | None
    contests: list[Contest | Halved]
    protocol: Protocol | None
    command: str
    backend: str | None = None
    notes: list[str] = field(default_factory=list)
    learners: list[Json] = field(default_factory=list)
    known: Mapping[str, Cell] = field(default_factory=dict)
    whys: dict[str, str] = field(default_factory=dict)
    diverged: set[str] = field(default_factory=set)
    choices: list[Choice | Winner] = field(default_factory=list)
    tried: list[GridCell] = field(default_factory=list)
    kept: list[GridCell] = field(default_factory=list)

    @cached_property
    def directory(self) -> SweepDirectory:
        """Where it runs; a new one is made when this is first asked for."""
        return SweepDirectory(self.settings.log_path or str(new_folder(f"sweeps/{folder_name(self.name)}")))

    def estimated(self) -> results.SweepSummary:
        """What its cells would take; nothing is run."""
        costs = estimates.estimate_all(self.cells, self.contests, self._known_rounds)
        about = estimates.total(costs, number_of_workers(self.settings), isinstance(self.tuning, Halving))
        return results.SweepSummary({"cells": costs}, about, [estimates.costs_sheet(costs)])

    def run(self) -> results.SweepSummary:
        """Tunes, runs and sums up in its directory, which is locked meanwhile, and returns the summary.

        Raises:
            RunDirectoryError: if the directory holds something else, is in use or cannot be written.
            InterruptedBySignal: if a signal stopped it; the summary is written all the same.
        """
        refuse_foreign(self.directory)
        if not self.settings.quiet:
            print_anything()
        with (
            signals_raise(signal.SIGINT, signal.SIGTERM) as received,
            self.directory.locked(),
            self._progress,
        ):
            self._start()
            cells = self.cells
            try:
                if self.tuning is not None:
                    cells = self._tuned()
                self._run_cells(CELLS, [cell for cell in cells if cell.id not in self.whys])
            except KeyboardInterrupt as error:  # of a library, perhaps, which turned ours into one of its own
                self._sum_up(cells, "interrupted")
                number = next(iter(received), signal.SIGINT)
                raise InterruptedBySignal(getattr(error, "signal", number)) from error
            return self._sum_up(cells, "completed")

    def _start(self) -> None:
        """Writes what was asked for, before the first run."""
        existing = self.directory.record() or self._about
        differences = {
            "schema": f"of schema {existing.get('schema')}, and this version writes {SCHEMA}",
            "protocol": "that follows another protocol or none",
            "tuning": "that tunes in another way or not at all",
        }
        for name, difference in differences.items():
            if existing.get(name) != self._about[name]:
                raise RunDirectoryError(
                    f"log_path={self.directory.location} already holds a sweep {difference}: "
                    "give another log_path."
                )
        refuse_changed(self.directory, existing)
        self.tried = merge(cell for contest in self.contests for cell in contest.opening)
        self._write_record(self.cells, chosen=self.tuning is None)
        if self.protocol is not None and self.directory.read_bytes(PROTOCOL) is None:
            self.directory.write_bytes(PROTOCOL, self.protocol.text.encode())
        self._tell(f"{counted(len(self.cells), 'cell')} in {self.directory.location}")

    @property
    def _about(self) -> Json:
        """What sweep.json says of the plan, beside its cells."""
        protocol, tuning = self.protocol, self.tuning
        replaced = {"backend": self.backend} if self.backend else {}
        return {
            "schema": SCHEMA,
            "name": self.name,
            "protocol": protocol and {"name": protocol.name, "sha256": protocol.sha256, **replaced},
            "tuning": tuning and json.loads(json.dumps(asdict(tuning))),
        }

    def _write_record(self, cells: Sequence[GridCell], *, chosen: bool) -> None:
        """Writes sweep.json; cells whose rates are not `chosen` have no id, complete ones stay in it."""
        existing = self.directory.record()
        listed = [{**cell.as_dict(), **({} if chosen else {"id": None})} for cell in cells]
        new = {None, *(entry["id"] for entry in listed)}
        earlier = [entry for entry in existing.get("cells", []) if entry["id"] not in new]
        kept = [entry for entry in earlier if self.directory.summary(f"{CELLS}/{entry['id']}")]
        record = {
            **self._about,
            "command": self.command,
            "started": existing.get("started") or datetime.now(UTC).isoformat(timespec="seconds"),
            "tuning_cells": candidates_of(self.tried, existing, self.directory),
            "cells": [*kept, *listed],
        }
        self.directory.write_json(SWEEP, record)
        self.kept = [GridCell(entry["config"]) for entry in kept]

    @property
    def _known_rounds(self) -> Mapping[str, Cell]:
        """What is known of candidates; a tuning without rounds runs its own."""
        return self.known if isinstance(self.tuning, Halving) else {}

    def _tuned(self) -> list[GridCell]:
        """Runs the candidates, round by round, and returns the cells with what did best.

        A candidate that diverged is none. Cells whose others are not all complete are noted as failed.
        """
        found = Found(self.directory, self.whys, self.diverged, self._known_rounds)
        ran = {*found.known}
        wanted = [cell for cell in self.tried if cell.id not in ran] or wanted_next(self.contests, ran, found)
        if not wanted:
            self.tried = merge(cell for contest in self.contests for cell in contest.asked(found))
        while wanted:
            self._run_cells(TUNING, wanted)
            ran |= {cell.id for cell in wanted}
            wanted = wanted_next(self.contests, ran, found)
            self.tried = merge(cell for contest in self.contests for cell in contest.asked(found))
            self._write_record(self.cells, chosen=False)
        chosen = self.choose(found)
        cells = [cell for cell in chosen if not is_known(cell, self.known)]
        if len(cells) < len(chosen):
            self.notes.append(f"tuned cells left out, since known has them: {len(chosen) - len(cells)}")
        self._write_record([cell for cell in cells if cell.id not in self.whys], chosen=True)
        return cells

    def choose(self, found: Found) -> list[GridCell]:
        """Notes what came out of each contest, and returns the cells to report with it.

        Args:
            found: of the candidates; where some are missing, that is noted for the cells that wait for them.
        """
        apart, cells = results.varying_keys([one.reported[0] for one in self.contests]), list[GridCell]()
        apart = sorted({*apart, "algorithm"}) if self.learners else apart
        for contest in self.contests:
            settled = contest.settle(found, apart)
            cells += settled.cells
            self.choices += [] if settled.why else [settled.choice]
            self.whys |= {cell.id: settled.why for cell in settled.cells if settled.why}
        return merge([*cells, *(cell for cell in self.cells if not cell.tuned)])

    def _run_cells(self, folder: str, cells: Sequence[GridCell]) -> None:
        """Runs what is not complete.

        Raises:
            InterruptedBySignal: if a cell was interrupted, whatever interrupted it.
        """
        missing = [cell for cell in cells if not self.directory.summary(f"{folder}/{cell.id}")]
        done, names = len(cells) - len(missing), self._names(folder, missing)
        if done:
            self._tell(f"{folder}: {done} of {len(cells)} are complete already")
        self._progress.phase("tuning" if folder == TUNING else "cells")
        costs = {cell.id: estimates.seconds_of(cell) for cell in missing}
        running = Running(self._progress, names, costs, done)
        for outcome in execute([self._task(folder, cell) for cell in missing], self.settings, running):
            if outcome.files:
                self.directory.commit(f"{folder}/{outcome.id}", outcome.files)
            if outcome.status == "interrupted":
                raise InterruptedBySignal(outcome.signal)
            running.end(outcome.id)
            ended = f"{names[outcome.id]}: {self._ended(folder, outcome)} ({duration(outcome.seconds)})"
            self._tell(f"[{running.done}/{running.total}] {ended}")

    def _task(self, folder: str, cell: GridCell) -> Task:
        """The cell for a worker; one elsewhere gets what it can resume, and the rest is set aside."""
        if self.directory.local is not None and self.settings.executor != "ray":
            return Task(cell, folder, str(self.directory.local))
        place = f"{folder}/{cell.id}"
        files = self.directory.files(place) if can_resume(cell, self.directory, place) else {}
        self.directory.set_aside(place)
        return Task(cell, folder, None, files)

    def _names(self, folder: str, cells: Sequence[GridCell]) -> dict[str, str]:
        """What the progress calls cells, by id."""
        every = cells if folder == TUNING and isinstance(self.tuning, Halving) else self.cells
        keys = results.keys_apart(every, ["algorithm"] if self.learners else [])
        keys += ["learning_rate"] if folder == TUNING else []
        return {cell.id: results.name_of_cell(cell, keys) for cell in cells}

    def _ended(self, folder: str, outcome: CellOutcome) -> str:
        if outcome.status == "failed":
            self.whys[outcome.id] = outcome.why or "no reason is known"
            self.diverged |= {outcome.id} if outcome.diverged else set()
            return f"failed: {outcome.why}"
        summary = self.directory.summary(f"{folder}/{outcome.id}") or {}
        return f"{summary['memorised']} of {counted(summary['runs'], 'run')} memorised"

    @cached_property
    def _progress(self) -> Progress:
        return Progress(self.settings.quiet)

    def _tell(self, sentence: str) -> None:
        if not self.settings.quiet:
            with self._progress.aside():
                say(sentence)

    def _sum_up(self, cells: Sequence[GridCell], status: str) -> results.SweepSummary:
        """Writes the summary of all cells that sweep.json lists, and prints the tables."""
        self._progress.phase("summing up")
        reported = merge([*self.kept, *cells])
        rows = results.make_rows(reported, self.directory, self.whys)
        if status == "completed" and any(row["status"] != "completed" for row in rows):
            status = "failed"
        self.directory.write_bytes(RESULTS, results.as_csv(rows))
        backend = str(self.cells[0].experiment.policy.backend)
        shipped = (self.protocol, backend) if self.protocol and self.settings.learners else None
        tuning = choices_of(self.choices, self.tried, self.directory)
        compared = reported if not isinstance(self.tuning, Halving) else []  # a contest compares its own
        ranked = rank_sweep(self.directory, compared, rows[: len(compared)], shipped, self.learners, tuning)
        outcome = {"status": status, "cells": rows, "tuning": tuning or None}
        summary = {**self._about, **outcome, "ranking_notes": ranked.notes, "unranked": ranked.unranked}
        self.directory.write_json(SUMMARY, summary)
        shown = results.SweepSummary(
            summary, results.sweep_headline(rows), self._sheets(rows, ranked.ranking)
        )
        if ranked.ranking is not None:
            self.directory.write_bytes(RANKING, results.as_csv(ranked.ranking.rows()))
        if not self.settings.quiet:
            with self._progress.aside():
                shown.show()
            for sentence in [*self.notes, *ranked.notes, *why_alike(results.compared(reported, rows))]:
                self._tell(f"note: {sentence}")
        return shown

    def _sheets(self, rows: Sequence[Json], ranking: Ranking | None) -> list[Sheet]:
        """What ends it: of a protocol of learners, which has hundreds of cells, the ranking alone."""
        ended = results.results_sheet(rows, self.directory.location, self.cells)
        of_cells = [results.chosen_sheet(self.choices), ended]
        ranks = [] if ranking is None else [ranking_sheet(ranking)]
        return ranks if ranks and self.protocol and self.protocol.learners else [*of_cells, *ranks]
