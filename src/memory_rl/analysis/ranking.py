"""A ranking of learners over tasks, with the definitions of rliable (Agarwal et al. 2021, arXiv:2108.13264).

The score of a run is log2 of its bits per episode over the ceiling of its task: 0 for the ideal questioner,
-3 for an eighth of its rate. A run that has not memorised scores as if it had with the last episode of its
budget. That is the most that it can have, and so an upper bound of what it is worth; it is never left out.

All resampling is of runs within their stratum: task, base and seed. So intervals hold for other runs on
these tasks and bases. How much other bases or other tasks would change is not in them; bases are few. The
learners of a task share secrets and random streams, seed by seed; they are compared as if they did not,
which makes their differences look less certain where a hard secret is hard for all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.entrants import names_of_learners, names_of_tasks, runs_of
from memory_rl.analysis.statistics import Estimate, holm, proportion
from memory_rl.analysis.strata import RESAMPLES, Entrant, compare, wins
from memory_rl.analysis.survival import MemorisationTimes, bits_per_episode
from memory_rl.files import Json

ALPHA = 0.05
_STEPS_AN_OCTAVE = 4


@dataclass(frozen=True)
class RankedTask:
    """A task of a ranking.

    Attributes:
        id: JSON of its keys that differ from their defaults.
        name: short, and unlike that of any other task here.
        ceiling: bits an episode that scores are relative to.
        by_questioner: whether that is the ideal questioner's rate; else it is the channel's capacity.
        counts: whether all ranked learners have runs on it.
    """

    id: str = field(repr=False)
    name: str
    ceiling: float
    by_questioner: bool
    counts: bool


@dataclass(frozen=True)
class RankedCell:
    """What one learner did on one task.

    Attributes:
        learner, task: names.
        runs: how many.
        share: of the ceiling: bits per episode of all runs (those memorised over the episodes spent, as
            everywhere in the project) over it, with its interval; 0 if no run memorised.
        score: the mean of the runs' scores.
        absorption: how many times as fast as the learner its own ideal observer was, as in summaries; None
            without a ledger or where no run memorised.
        stuck: the share of the runs that have not memorised, with Clopper and Pearson's interval.
        learning_rates: in use, ascending.
    """

    learner: str
    task: str
    runs: int
    share: Estimate
    score: float
    absorption: float | None
    stuck: Estimate
    learning_rates: tuple[float, ...]


@dataclass(frozen=True)
class RankedLearner:
    """One learner over all tasks that count.

    Attributes:
        id: JSON of the algorithm and of its settings that differ from their defaults.
        name: short, and unlike that of any other learner here.
        iqm: the interquartile mean of its runs' scores, in log2; the worst and the best quarter are cut.
        share: the same as a share of the ceiling, 2 to that power.
        stuck: the share of its runs that are stuck, the mean over tasks.
        profile: at each of the ranking's `taus`, the share of runs that score more, with low and high: three
            lists.
        apart_from_best: whether it can be told apart from the first; None for the first itself.
    """

    id: str = field(repr=False)
    name: str
    iqm: Estimate
    share: Estimate
    stuck: float
    profile: tuple[list[float], list[float], list[float]] = field(repr=False)
    apart_from_best: bool | None


@dataclass(frozen=True)
class RankedPair:
    """Two learners compared run by run.

    Attributes:
        better, worse: names, in the order of the ranking.
        improvement: the probability that a run of the first scores more than one of the second on the same
            task, ties counting half, averaged over tasks; with its interval.
        p: two-sided, that it is as far from a half if it is a half in truth.
        adjusted: by Holm over all pairs of the ranking.
    """

    better: str
    worse: str
    improvement: Estimate
    p: float
    adjusted: float

    @property
    def apart(self) -> bool:
        """Whether they can be told apart: wrongly for any pair of a ranking in 5 % of cases, at most."""
        return self.adjusted < ALPHA


@dataclass(frozen=True)
class Ranking:
    """Learners ranked over tasks.

    Attributes:
        learners: the best first.
        tasks: by name; those that do not count last.
        cells: one for each learner and task with runs, learners that are not ranked included.
        pairs: each two of the learners.
        taus: the scores at which profiles are given, ascending.
        notes: sentences on what is left out, and why.
    """

    learners: list[RankedLearner]
    tasks: list[RankedTask]
    cells: list[RankedCell]
    pairs: list[RankedPair]
    taus: list[float]
    notes: list[str]

    @cached_property
    def best(self) -> RankedLearner:
        """The first."""
        return self.learners[0]

    def cell(self, learner: str, task: str) -> RankedCell | None:
        """What a learner did on a task, by their names."""
        return next((one for one in self.cells if (one.learner, one.task) == (learner, task)), None)

    def pair(self, one: str, other: str) -> RankedPair:
        """Two learners compared, by their names."""
        return next(pair for pair in self.pairs if {pair.better, pair.worse} == {one, other})

    def rows(self) -> list[Json]:
        """One row per learner, as in ranking.csv; probabilities are of the best against it."""
        return [self._row(place, learner) for place, learner in enumerate(self.learners, start=1)]

    def _row(self, place: int, learner: RankedLearner) -> Json:
        pair = None if learner is self.best else self.pair(self.best.name, learner.name)
        cells = [(task, self.cell(learner.name, task.name)) for task in self.tasks]
        return {
            "rank": place,
            "learner": learner.name,
            **learner.share.as_row("iqm_share"),
            "stuck": learner.stuck,
            "best_is_better": pair and pair.improvement.value,
            "holm_p": pair and pair.adjusted,
            "apart_from_best": learner.apart_from_best,
            **{task.name: cell and cell.share.value for task, cell in cells},
        }


def rank_cells(cells: Iterable[Cell], others: pl.DataFrame | None = None) -> Ranking | None:
    """The ranking of the learners of these cells; None if fewer than two can be compared.

    Args:
        cells: of run directories; those without a learner, and those not finished, do not count.
        others: runs that were measured elsewhere, with the columns of `RUNS`; the cells' own count first.
    """
    runs = runs_of(cells)
    if others is not None:
        same = ["learner", "task", "base", "seed"]
        runs = pl.concat([runs, others.join(runs.select(same), on=same, how="anti", nulls_equal=True)])
    return rank(runs)


def rank(runs: pl.DataFrame) -> Ranking | None:
    """The ranking of the learners of these runs; None if fewer than two can be compared.

    Args:
        runs: one row each, with the columns of `memory_rl.analysis.entrants.RUNS`.
    """
    named = _named(_scored(runs))
    ids = {kind: _ids(named, kind) for kind in ("learner", "task")}
    ranked, counting = _block(named)
    if len(ranked) < 2:
        return None
    entrants = [Entrant(name, place, named, counting) for place, name in enumerate(ranked)]
    entrants.sort(key=lambda one: one.iqm.value or 0.0, reverse=True)
    pairs, taus = _pairs(entrants), _taus(named)
    tasks = [_task(ids["task"][name], name, frame, counting) for name, frame in _groups(named, "task_name")]
    return Ranking(
        [_learner(ids["learner"][one.name], one, taus, pairs) for one in entrants],
        sorted(tasks, key=lambda task: not task.counts),
        [_cell(frame) for _, frame in _groups(named, "learner_name", "task_name")],
        pairs,
        taus.tolist(),
        [*_left_out(named, ranked, counting), *_diverged(named)],
    )


def _scored(runs: pl.DataFrame) -> pl.DataFrame:
    """With the score of each run, and whether its cell diverged: it is scored by the ceiling of its task.

    A run that knew its secret before its first episode is counted as one that needed one.
    """
    of_task = [
        pl.col(name).fill_null(pl.col(name).max().over("task")) for name in ("ceiling", "by_questioner")
    ]
    scored = runs.with_columns(*of_task, diverged=pl.col("ceiling").is_null()).drop_nulls("ceiling")
    rate = pl.col("information") / pl.col("episodes").clip(1)
    return scored.with_columns(score=(rate / pl.col("ceiling")).log(2))


def _named(runs: pl.DataFrame) -> pl.DataFrame:
    learners, tasks = (runs[kind].unique().sort().to_list() for kind in ("learner", "task"))
    return runs.with_columns(
        learner_name=pl.col("learner").replace_strict(names_of_learners(learners), return_dtype=pl.String),
        task_name=pl.col("task").replace_strict(names_of_tasks(tasks), return_dtype=pl.String),
    )


def _ids(runs: pl.DataFrame, kind: str) -> dict[str, str]:
    pairs = runs.select(f"{kind}_name", kind).unique()
    return dict(pairs.iter_rows())


def _groups(runs: pl.DataFrame, *names: str) -> Iterator[tuple[Any, pl.DataFrame]]:
    """The runs of each value of one column, or of each combination of several, in order."""
    for key, frame in runs.sort(*names, maintain_order=True).group_by(*names, maintain_order=True):
        yield (key[0] if len(names) == 1 else key), frame


def _block(runs: pl.DataFrame) -> tuple[list[str], list[str]]:
    """The learners and tasks to compare: of those in which no cell is missing, the most cells."""
    entered = {name: frozenset(frame["task_name"]) for name, frame in _groups(runs, "learner_name")}
    choices = {*entered.values(), frozenset.intersection(*entered.values())} if entered else set()
    blocks = [
        ([one for one in entered if tasks <= entered[one]], sorted(tasks)) for tasks in choices if tasks
    ]
    several = [block for block in blocks if len(block[0]) > 1]
    return max(several, key=lambda block: (len(block[0]) * len(block[1]), block[1]), default=([], []))


def _left_out(runs: pl.DataFrame, ranked: Sequence[str], counting: Sequence[str]) -> Iterator[str]:
    for name, frame in _groups(runs, "learner_name"):
        missing = sorted({*counting} - {*frame["task_name"]})
        if name not in ranked:
            yield f"{name} is not ranked, since it has no runs on {', '.join(missing)}."
    for name, frame in _groups(runs, "task_name"):
        missing = sorted({*ranked} - {*frame["learner_name"]})
        if name not in counting and missing:
            yield f"{name} does not count, since {', '.join(missing)} {_has(missing)} no runs on it."


def _has(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _diverged(runs: pl.DataFrame) -> Iterator[str]:
    for (learner, task), _ in _groups(runs.filter("diverged"), "learner_name", "task_name"):
        yield f"Runs of {learner} on {task} diverged, and count as stuck."


def _pairs(entrants: Sequence[Entrant]) -> list[RankedPair]:
    tasks, both = range(len(entrants[0].scores)), list(itertools.combinations(range(len(entrants)), 2))
    drawn = np.zeros((len(both), RESAMPLES))
    for task in tasks:
        counts = [one.counts(task) for one in entrants]
        for row, (x, y) in enumerate(both):
            won = wins(entrants[x].scores[task], entrants[y].scores[task]).astype(np.float32)
            sums = np.einsum("bn,bn->b", counts[x] @ won, counts[y])  # whole and half numbers, exact
            drawn[row] += sums.astype(float) / won.size / len(tasks)
    tested = [compare(entrants[x], entrants[y]) for x, y in both]
    adjusted = holm([p for _, p in tested])
    return [
        RankedPair(
            entrants[x].name,
            entrants[y].name,
            Estimate.from_bootstrap(value, drawn[row], min(entrants[x].least, entrants[y].least)),
            p,
            adjusted[row],
        )
        for row, ((x, y), (value, p)) in enumerate(zip(both, tested, strict=True))
    ]


def _taus(runs: pl.DataFrame) -> np.ndarray:
    """From a whole number below the least score to one above the greatest, in quarters."""
    scores = runs["score"].to_numpy()
    low, high = int(np.floor(scores.min())) - 1, max(0, int(np.ceil(scores.max())))
    return np.linspace(low, high, (high - low) * _STEPS_AN_OCTAVE + 1)


def _learner(one_id: str, one: Entrant, taus: np.ndarray, pairs: Sequence[RankedPair]) -> RankedLearner:
    best = pairs[0].better
    with_best = next((pair.apart for pair in pairs if (pair.better, pair.worse) == (best, one.name)), None)
    share = Estimate(
        *(None if part is None else 2.0**part for part in (one.iqm.value, one.iqm.low, one.iqm.high))
    )
    return RankedLearner(one_id, one.name, one.iqm, share, one.stuck, one.profile(taus), with_best)


def _task(one_id: str, name: str, runs: pl.DataFrame, counting: Sequence[str]) -> RankedTask:
    return RankedTask(one_id, name, runs["ceiling"][0], runs["by_questioner"][0], name in counting)


def _cell(runs: pl.DataFrame) -> RankedCell:
    times = MemorisationTimes(runs["episodes"].to_numpy(), runs["memorised"].to_numpy())
    stuck, ceiling = int((~times.memorised).sum()), runs["ceiling"][0]
    rate = bits_per_episode(times, runs["information"][0])
    return RankedCell(
        runs["learner_name"][0],
        runs["task_name"][0],
        len(runs),
        rate.divided_by(ceiling),
        float(runs["score"].to_numpy().mean()),
        _absorption(runs["observer"], rate.value),
        proportion(stuck, len(runs)),
        tuple(runs["learning_rate"].unique().sort()),
    )


def _absorption(observers: pl.Series, rate: float | None) -> float | None:
    """The observers' rate over the policies'; None unless all runs have an observer."""
    if not rate or observers.null_count() or not (observers > 0).all():
        return None
    return float(1 / np.mean(1 / observers.to_numpy())) / rate
