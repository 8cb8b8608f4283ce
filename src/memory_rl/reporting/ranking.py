"""The ranking of learners as the report shows it: sentences, tables, and files of numbers.

All statistics are those of `memory_rl.analysis.ranking`.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from memory_rl.analysis.collect import SWEEP, Cell
from memory_rl.analysis.digits import UNKNOWN
from memory_rl.analysis.entrants import runs_of, without_rate
from memory_rl.analysis.ranking import RankedCell, RankedLearner, RankedPair, RankedTask, Ranking, rank_cells
from memory_rl.analysis.remarks import remarks, tuned_elsewhere, tuned_in, without_runs
from memory_rl.analysis.shipped import shipped_runs
from memory_rl.analysis.statistics import Estimate
from memory_rl.errors import first_few
from memory_rl.files import Json
from memory_rl.reporting.provenance import Judgement, read_of_sweep
from memory_rl.reporting.values import WordTable, loss_words, number
from memory_rl.reporting.wording import wording
from memory_rl.runs.store import SUMMARY


@dataclass(frozen=True)
class TableEntry:
    """One entry of the page's table.

    Attributes:
        sort: what the column is sorted by; None stands last.
        words: the entry.
        more: beneath it, smaller; a line each.
        tip: all of it, in a sentence.
        level: how near it is to the ceiling, from 0 to 100; None without a colour.
        shipped: whether it was not run here, but came with the package.
    """

    sort: float | str | None
    words: str
    more: Sequence[str] = ()
    tip: str = ""
    level: int | None = None
    shipped: bool = False


@dataclass(frozen=True)
class Versus:
    """One entry of the matrix: the probability that a run of the row scores more than one of the column.

    Attributes:
        words: with its sign.
        kind: better or worse, if they can be told apart, else open; empty for a learner and itself.
        tip: all of it, in a sentence.
    """

    words: str = ""
    kind: str = ""
    tip: str = ""


@dataclass(frozen=True)
class LearnerRanking:
    """A ranking, and which of it was not run here.

    Attributes:
        ranking: of all learners that can be compared.
        here: the ids of learner and task of all runs of this report.
        notes: sentences on what is left out, and on rates at the edge of their tuning.
    """

    ranking: Ranking
    here: frozenset[tuple[str, str]]
    notes: Sequence[str]

    @property
    def tasks(self) -> list[RankedTask]:
        """In the order of the columns."""
        return self.ranking.tasks

    @cached_property
    def _learners(self) -> dict[str, RankedLearner | None]:
        """All that have runs, by name: those ranked, and then the others."""
        ranked: dict[str, RankedLearner | None] = {one.name: one for one in self.ranking.learners}
        return ranked | {cell.learner: None for cell in self.ranking.cells if cell.learner not in ranked}

    @cached_property
    def _least(self) -> float:
        """The least score of a cell's share, in octaves below the ceiling; it has no colour."""
        shares = [cell.share.value for cell in self.ranking.cells if cell.share.value]
        return min((math.log2(share) for share in shares), default=0.0) - 1

    def sentences(self) -> list[str]:
        """Which learners are the best, which cannot be told apart from the first, and which can."""
        best, *others = self.ranking.learners
        same, apart = ([one for one in others if one.apart_from_best is so] for so in (False, True))
        counting = sum(task.counts for task in self.tasks)
        of = f"{len(others) + 1} learners on {counting} task{'' if counting == 1 else 's'}"
        found = [f"Of {of}, the best is {best.name} with {_over_tasks(best)} of the ceiling."]
        if same:
            found.append(f"It cannot be told apart from {_listed(same)}.")
        if apart:
            found.append(f"It can be told apart from {'all others: ' if not same else ''}{_listed(apart)}.")
        return found

    def rows(self) -> list[list[TableEntry]]:
        """The page's table: of each learner its place, name, share over all tasks, stuck runs, and cells."""
        return [self._row(place, *item) for place, item in enumerate(self._learners.items(), start=1)]

    def _row(self, place: int, name: str, learner: RankedLearner | None) -> list[TableEntry]:
        shipped = learner is not None and learner.id not in {one for one, _ in self.here}
        cells = [self._cell(learner, task, self.ranking.cell(name, task.name)) for task in self.tasks]
        if learner is None:
            return [
                TableEntry(None, UNKNOWN),
                TableEntry(name, name),
                TableEntry(None, UNKNOWN),
                TableEntry(None, UNKNOWN),
                *cells,
            ]
        return [
            TableEntry(place, str(place)),
            TableEntry(name, name, shipped=shipped),
            TableEntry(
                learner.share.value,
                _over_tasks(learner, interval=False),
                [_interval(learner.share)],
                f"{name}: {_over_tasks(learner)} of the ceiling, interquartile mean over its runs",
                self._level(learner.share),
            ),
            TableEntry(learner.stuck, f"{100 * learner.stuck:.0f} %"),
            *cells,
        ]

    def _cell(self, learner: RankedLearner | None, task: RankedTask, cell: RankedCell | None) -> TableEntry:
        if cell is None:
            return TableEntry(None, UNKNOWN, tip="no runs")
        lost = loss_words("absorption", cell.absorption, above=None if cell.share.value else 1.0)
        stuck = f"{100 * (cell.stuck.value or 0):.0f} % stuck"
        rates = ", ".join(f"{rate:g}" for rate in cell.learning_rates)
        return TableEntry(
            cell.share.value,
            percent(cell.share, interval=False),
            [_interval(cell.share), lost, stuck],
            f"{cell.learner} on {cell.task}: {percent(cell.share)} of the ceiling; {lost}; stuck "
            f"{percent(cell.stuck)} of {cell.runs} runs; learning rate {rates}",
            self._level(cell.share),
            learner is not None and (learner.id, task.id) not in self.here,
        )

    def _level(self, share: Estimate) -> int:
        if not share.value:
            return 0
        return round(100 * min(1.0, 1 - math.log2(share.value) / self._least))

    @property
    def has_shipped(self) -> bool:
        """Whether any of it was not run here."""
        return any(entry.shipped for row in self.rows() for entry in row)

    def matrix(self) -> list[tuple[str, list[Versus]]]:
        """Each learner against each, in the order of the ranking."""
        names = [one.name for one in self.ranking.learners]
        return [(name, [self._versus(name, other) for other in names]) for name in names]

    def _versus(self, name: str, other: str) -> Versus:
        if name == other:
            return Versus()
        pair = self.ranking.pair(name, other)
        chance = pair.improvement if pair.better == name else _reversed(pair.improvement)
        above = (chance.value or 0.0) > 0.5
        kind = ("better" if above else "worse") if pair.apart else "open"
        sign = {"better": ">", "worse": "<", "open": "\u2248"}[kind]
        told = "they can be told apart" if pair.apart else "they cannot be told apart"
        why = "not tested" if pair.adjusted is None else f"{told}, p = {pair.adjusted:.2g} after Holm"
        tip = f"a run of {name} scores more than one of {other} with probability {percent(chance)}; {why}"
        return Versus(f"{sign} {percent(chance, interval=False)}", kind, tip)

    def word_tables(self) -> list[WordTable]:
        """Both tables in words: of the learners, and of the pairs."""
        return [
            WordTable(
                [[_in_line(entry) for entry in row] for row in self.rows()],
                ["rank", "learner", "over all tasks", "stuck", *(task.name for task in self.tasks)],
                **wording("tables", "ranking"),
            ),
            WordTable(
                [_pair_words(pair) for pair in self.ranking.pairs],
                ["learner", "against", "scores more [95 %]", "p", "p after Holm", "told apart"],
                **wording("tables", "pairs"),
            ),
        ]

    def frames(self) -> dict[str, pl.DataFrame]:
        """The numbers as files: of the learners, of the cells, and of the pairs."""
        shipped = {row[1].words: row[1].shipped for row in self.rows()}
        cells = {(row[1].words, task.name): cell for row in self.rows() for task, cell in self._by_task(row)}
        return {
            "ranking.csv": _frame(
                [{**row, "shipped": shipped[row["learner"]]} for row in self.ranking.rows()]
            ),
            "ranking_cells.csv": _frame(
                [
                    {**_cell_row(cell), "shipped": cells[cell.learner, cell.task].shipped}
                    for cell in self.ranking.cells
                ]
            ),
            "ranking_pairs.csv": _frame([_pair_row(pair) for pair in self.ranking.pairs]),
        }

    def _by_task(self, row: Sequence[TableEntry]) -> Iterator[tuple[RankedTask, TableEntry]]:
        return zip(self.tasks, row[-len(self.tasks) :], strict=True)


def make_ranking(cells: Sequence[Cell], judgements: Sequence[Judgement]) -> LearnerRanking | None:
    """The ranking of the learners of these cells; None unless several can be compared.

    Where a sweep has run learners of its own in a protocol of learners, those that come with the package are
    ranked, too. Cells that differ in their learning rate alone are no learners to compare.
    """
    shipped = [shipped_runs(*which) for which in _protocols(cells, judgements)]
    others = [runs for runs, _ in shipped if runs is not None]
    ranking = rank_cells(cells, pl.concat(others) if others else None)
    if ranking is None or len({without_rate(one.id) for one in ranking.learners}) < 2:
        return None
    here = runs_of(cells).select("learner", "task").unique().rows()
    tuned, lacking = [tuned for runs in others for tuned in tuned_elsewhere(runs)], without_runs(cells)
    for summary in _summaries(cells):
        tuned += tuned_in(summary.get("tuning") or [])
        lacking |= summary.get("unranked", {})
    notes = [*(why for _, why in shipped if why), *remarks(ranking, lacking, tuned)]
    return LearnerRanking(ranking, frozenset(here), notes)


def _summaries(cells: Sequence[Cell]) -> Iterator[Json]:
    """The summary.json of each sweep that these cells are of."""
    for folder in dict.fromkeys(cell.path.resolve().parent.parent for cell in cells):
        if (folder / SWEEP).is_file():
            yield read_of_sweep(folder, SUMMARY)


def _protocols(cells: Sequence[Cell], judgements: Sequence[Judgement]) -> Iterator[tuple[Any, str]]:
    """Each protocol of which learners were replaced, and where their policies lived."""
    for judgement in judgements:
        words = shlex.split(judgement.command or "")
        if judgement.protocol.learners and any(word.startswith("learners=") for word in words):
            own = (cell for cell in cells if cell.path.is_relative_to(judgement.folder))
            for backend in dict.fromkeys(cell.config["backend"] for cell in own):
                yield judgement.protocol, backend


def percent(share: Estimate, *, interval: bool = True) -> str:
    """As in 21.5 % [17, 26]."""
    value = UNKNOWN if share.value is None else f"{number(100 * share.value)} %"
    return f"{value} {_interval(share)}" if interval else value


def _over_tasks(learner: RankedLearner, *, interval: bool = True) -> str:
    """Its share, as in at most 21.5 % [17, 26]."""
    return f"{'at most ' if learner.at_most else ''}{percent(learner.share, interval=interval)}"


def _interval(share: Estimate) -> str:
    ends = (None if end is None else 100 * end for end in share.interval)
    return f"[{number([*ends])}]"


def _reversed(chance: Estimate) -> Estimate:
    """Of the complement."""
    return Estimate(*(None if part is None else 1 - part for part in (chance.value, chance.high, chance.low)))


def _listed(learners: Sequence[RankedLearner]) -> str:
    """Names with their shares, of the first few."""
    return first_few([f"{one.name} ({_over_tasks(one)})" for one in learners])


def _in_line(entry: TableEntry) -> str:
    return " ".join([entry.words, *entry.more[:1], *(f"({line})" for line in entry.more[2:])])


def _pair_words(pair: RankedPair) -> list[str]:
    told = "yes" if pair.apart else "no"
    chances = (UNKNOWN if chance is None else f"{chance:.2g}" for chance in (pair.p, pair.adjusted))
    return [pair.better, pair.worse, percent(pair.improvement), *chances, told]


def _pair_row(pair: RankedPair) -> Json:
    return {
        "learner": pair.better,
        "against": pair.worse,
        **pair.improvement.as_row("scores_more"),
        "p": pair.p,
        "holm_p": pair.adjusted,
        "told_apart": pair.apart,
    }


def _cell_row(cell: RankedCell) -> Json:
    stuck = dict(
        zip(("stuck", "stuck_low", "stuck_high"), (cell.stuck.value, *cell.stuck.interval), strict=True)
    )
    return {
        "learner": cell.learner,
        "task": cell.task,
        "runs": cell.runs,
        **cell.share.as_row("share"),
        "score": cell.score,
        "absorption": cell.absorption,
        **stuck,
        "learning_rates": " ".join(f"{rate:g}" for rate in cell.learning_rates),
    }


def _frame(rows: Sequence[Json]) -> pl.DataFrame:
    return pl.DataFrame(rows, infer_schema_length=None, strict=False)
