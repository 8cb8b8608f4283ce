"""A ranking of learners over tasks, with the definitions of rliable (Agarwal et al. 2021, arXiv:2108.13264).

The score of a run is log2 of its bits per episode over the ceiling of its task: 0 for the ideal questioner,
-3 for an eighth of its rate. A run that has not memorised scores as if it had with the last episode of its
budget. That is the most that it can have, and so an upper bound of what it is worth; it is never left out.
A run that diverges ends its whole cell, whose runs count as stuck. They are one observation and no more, so
that what they are part of has no interval and no test.

All resampling is of runs within their stratum: task, base and seed. So intervals hold for other runs on
these tasks and bases. How much other bases or other tasks would change is not in them; bases are few. The
learners of a task share secrets and random streams, seed by seed; they are compared as if they did not,
which makes their differences look less certain where a hard secret is hard for all.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from memory_rl.analysis.blocks import Block, find_block
from memory_rl.analysis.collect import Cell
from memory_rl.analysis.entrants import RUNS, names_of_learners, names_of_tasks, runs_of, without_rate
from memory_rl.analysis.statistics import Estimate, holm, proportion
from memory_rl.analysis.strata import Comparison, Entrant
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
        ceiling: bits an episode that scores are relative to: what a run memorises over the mean, over bases
            and seeds, of the episodes that the reference needs for it.
        by_questioner: whether that is the ideal questioner's rate; else it is the channel's capacity.
        counts: whether all ranked learners have runs on it, on the same secrets.
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
            everywhere in the project) over it, with its interval; 0 if no run memorised. No interval where a
            run diverged.
        score: the mean of the runs' scores.
        absorption: how many times as fast as the learner its own ideal observer was, as in summaries; None
            without a ledger or where no run memorised.
        stuck: the share of the runs that have not memorised, with Clopper and Pearson's interval, unless a
            run diverged.
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
        at_most: whether both are upper bounds, since stuck runs are not all in the quarter that is cut.
        stuck: the share of its runs that are stuck, the mean over tasks.
        profile: at each of the ranking's `taus`, the share of runs that score more, with low and high: three
            lists; the latter are NaN where there is no interval.
        apart_from_best: whether it can be told apart from the first; None for the first itself.
    """

    id: str = field(repr=False)
    name: str
    iqm: Estimate
    share: Estimate
    at_most: bool
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
        p: two-sided, that it is as far from a half if it is a half in truth; None if that is not tested,
            since one of them has a cell that diverged, or a single run.
        adjusted: by Holm over all pairs of the ranking that are tested.
    """

    better: str
    worse: str
    improvement: Estimate
    p: float | None
    adjusted: float | None

    @property
    def apart(self) -> bool:
        """Whether they can be told apart: wrongly for any pair of a ranking in 5 % of cases, at most."""
        return self.adjusted is not None and self.adjusted < ALPHA


@dataclass(frozen=True)
class Ranking:
    """Learners ranked over tasks.

    Attributes:
        learners: the best first.
        tasks: by name; those that do not count last.
        cells: one for each learner and task with runs, learners that are not ranked included; where both
            count, of the runs that are compared.
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
            "at_most": learner.at_most,
            "stuck": learner.stuck,
            "best_scores_more": pair and pair.improvement.value,
            "holm_p": pair and pair.adjusted,
            "apart_from_best": learner.apart_from_best,
            **{task.name: cell and cell.share.value for task, cell in cells},
        }


def rank_cells(cells: Iterable[Cell], others: pl.DataFrame | None = None) -> Ranking | None:
    """The ranking of the learners of these cells; None if fewer than two can be compared.

    Args:
        cells: of run directories; those without a learner, and those not finished, do not count.
        others: runs that were measured elsewhere, with the columns of `RUNS` and perhaps more; the cells' own
            count first.
    """
    runs = runs_of(cells)
    if others is not None:
        same = ["learner", "task", "base", "seed"]
        others = others.select(*RUNS)
        runs = pl.concat([runs, others.join(runs.select(same), on=same, how="anti", nulls_equal=True)])
    return rank(runs)


def rank(runs: pl.DataFrame) -> Ranking | None:
    """The ranking of the learners of these runs; None if fewer than two can be compared.

    Args:
        runs: one row each, with the columns of `memory_rl.analysis.entrants.RUNS`, in any order.
    """
    named = _named(runs.sort("task", "base", "seed", "run"))
    scored = _scored(named)
    block = find_block(scored)
    if len(block.learners) < 2:
        return None
    shown, tasks = block.shown(scored), block.tasks
    compared = block.compared(scored)
    entrants = [Entrant(name, place, compared, tasks) for place, name in enumerate(block.learners)]
    entrants.sort(key=lambda one: one.iqm.value or 0.0, reverse=True)
    pairs, taus = _pairs(entrants), _taus(compared)
    return Ranking(
        [_learner(_id(compared, "learner", one.name), one, taus, pairs) for one in entrants],
        sorted(_tasks(scored, tasks), key=lambda task: not task.counts),
        [_cell(frame) for _, frame in _groups(shown, "learner_name", "task_name")],
        pairs,
        taus.tolist(),
        [*_notes(named, scored, block)],
    )


def _named(runs: pl.DataFrame) -> pl.DataFrame:
    learners, tasks = (runs[kind].unique().sort().to_list() for kind in ("learner", "task"))
    return runs.with_columns(
        learner_name=pl.col("learner").replace_strict(names_of_learners(learners), return_dtype=pl.String),
        task_name=pl.col("task").replace_strict(names_of_tasks(tasks), return_dtype=pl.String),
    )


def _scored(runs: pl.DataFrame) -> pl.DataFrame:
    """With the ceiling of its task and the score of each run, and whether its cell diverged.

    Tasks without a ceiling, on which every cell diverged, are left out. A run that knew its secret before its
    first episode is counted as one that needed one.
    """
    known = runs.with_columns(diverged=pl.col("ceiling").is_null()).drop("ceiling", "by_questioner")
    scored = known.join(_ceilings(runs), on="task", maintain_order="left")
    rate = pl.col("information") / pl.col("episodes").clip(1)
    return scored.with_columns(score=(rate / pl.col("ceiling")).log(2))


def _ceilings(runs: pl.DataFrame) -> pl.DataFrame:
    """One per task: the mean of the episodes a bit over the task's bases and seeds, whoever ran there.

    That of a noisy channel is simulated for each seed. Where the questioner's is known for some seeds only,
    the others do not count.
    """
    known = runs.drop_nulls("ceiling").select("task", "base", "seed", "by_questioner", "ceiling").unique()
    alike = known.filter(pl.col("by_questioner") == pl.col("by_questioner").any().over("task")).sort(pl.all())
    of_seeds = alike.group_by("task", "base", "seed", maintain_order=True).agg(
        pl.first("by_questioner"), episodes=(1 / pl.col("ceiling")).mean()
    )
    return of_seeds.group_by("task", maintain_order=True).agg(
        pl.first("by_questioner"), ceiling=1 / pl.col("episodes").mean()
    )


def _id(runs: pl.DataFrame, kind: str, name: str) -> str:
    return str(runs.filter(pl.col(f"{kind}_name") == name)[kind][0])


def _groups(runs: pl.DataFrame, *names: str) -> Iterator[tuple[Any, pl.DataFrame]]:
    """The runs of each value of one column, or of each combination of several, in order."""
    for key, frame in runs.sort(*names, maintain_order=True).group_by(*names, maintain_order=True):
        yield (key[0] if len(names) == 1 else key), frame


def _notes(named: pl.DataFrame, scored: pl.DataFrame, block: Block) -> Iterator[str]:
    yield from block.notes()
    for task in sorted({*named["task_name"]} - {*scored["task_name"]}):
        yield f"{task} does not count, since all learners diverged on it."
    yield from _rates(named["learner"].unique().sort())
    for task, frame in _groups(named.drop_nulls("ceiling"), "task_name"):
        if frame["by_questioner"].n_unique() > 1:
            yield f"The ideal questioner of {task} is known for some seeds only, and the ceiling of all."
    for learner, frame in _groups(scored.filter("diverged"), "learner_name"):
        tasks = ", ".join(frame["task_name"].unique().sort())
        yield (
            f"{learner} diverged on {tasks}: all runs of such a cell count as stuck, and as one observation, "
            "so that what they are part of has no interval and no test."
        )


def _rates(learners: Iterable[str]) -> Iterator[str]:
    """Sentences on those that were run at several rates on the same secrets."""
    rates = defaultdict[str, list[float]](list)
    for one in learners:
        rate = json.loads(one).get("learning_rate")
        rates[without_rate(one)] += [] if rate is None else [rate]
    for one, name in names_of_learners([*rates]).items():
        if rates[one]:
            several = ", ".join(f"{rate:g}" for rate in sorted(rates[one]))
            yield f"{name} ran at learning_rate={several} on the same secrets: each is ranked as a learner."


def _pairs(entrants: Sequence[Entrant]) -> list[RankedPair]:
    tasks = len(entrants[0].scores)
    both = [(x, y, Comparison(tasks)) for x, y in itertools.combinations(range(len(entrants)), 2)]
    for task in range(tasks):
        counts = [one.counts(task) for one in entrants]
        for x, y, compared in both:
            compared.add(entrants[x].scores[task], entrants[y].scores[task], counts[x], counts[y])
    least = [min(entrants[x].least, entrants[y].least) for x, y, _ in both]
    tested = [compared.p if runs > 1 else None for (_, _, compared), runs in zip(both, least, strict=True)]
    adjusted = iter(holm([p for p in tested if p is not None]))
    return [
        RankedPair(
            entrants[x].name,
            entrants[y].name,
            Estimate.from_bootstrap(compared.value, compared.drawn, runs),
            p,
            None if p is None else next(adjusted),
        )
        for (x, y, compared), runs, p in zip(both, least, tested, strict=True)
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
    profile = one.profile(taus)
    return RankedLearner(one_id, one.name, one.iqm, share, one.at_most, one.stuck, profile, with_best)


def _tasks(runs: pl.DataFrame, counting: Sequence[str]) -> Iterator[RankedTask]:
    for name, frame in _groups(runs, "task_name"):
        task = frame.row(0, named=True)
        yield RankedTask(task["task"], name, task["ceiling"], task["by_questioner"], name in counting)


def _cell(runs: pl.DataFrame) -> RankedCell:
    times = MemorisationTimes(runs["episodes"].to_numpy(), runs["memorised"].to_numpy())
    rate = bits_per_episode(times, runs["information"][0])
    share, stuck = rate.divided_by(runs["ceiling"][0]), proportion(int((~times.memorised).sum()), len(runs))
    if runs["diverged"].any():
        share, stuck = Estimate(share.value), Estimate(stuck.value)
    return RankedCell(
        runs["learner_name"][0],
        runs["task_name"][0],
        len(runs),
        share,
        float(runs["score"].to_numpy().mean()),
        _absorption(runs["observer"], rate.value),
        stuck,
        tuple(runs["learning_rate"].unique().sort()),
    )


def _absorption(observers: pl.Series, rate: float | None) -> float | None:
    """The observers' rate over the policies'; None unless all runs have an observer."""
    if not rate or observers.null_count() or not (observers > 0).all():
        return None
    return float(1 / np.mean(1 / observers.to_numpy())) / rate
