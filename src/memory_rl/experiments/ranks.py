"""The learners of a sweep: which of them run, and how they rank once they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memory_rl.analysis.protocol import Protocol
from memory_rl.analysis.ranking import RankedLearner, Ranking, rank_cells
from memory_rl.analysis.remarks import remarks, tuned_elsewhere, tuned_in, unranked
from memory_rl.analysis.shipped import shipped_runs
from memory_rl.catalogue import learner_name
from memory_rl.config import LEARNERS
from memory_rl.errors import ConfigError, check_name
from memory_rl.experiments.found import reading
from memory_rl.experiments.grid import GridCell, split_values
from memory_rl.experiments.settings import SweepConfig, cannot_be_added
from memory_rl.experiments.store import SweepDirectory
from memory_rl.experiments.tuning import ALL_DIVERGED
from memory_rl.files import Json
from memory_rl.reporting.sheets import Sheet
from memory_rl.reporting.values import counted


def chosen_learners(settings: SweepConfig, axes: Mapping[str, str], protocol: Protocol | None) -> list[Json]:
    """The learners that are to run on every task of a protocol: those of `learners=`, or else its own.

    Raises:
        ConfigError: if `learners=` or `backend=` are given where there is no choice, or a name is unknown.
    """
    own, given = protocol.learners if protocol else [], settings.learners
    if given is not None and not own:
        raise ConfigError(
            f"learners={given} has no meaning {'with' if settings.fixed_by else 'without a protocol'}"
            f"{f' {settings.fixed_by}, which lists none' if settings.fixed_by else ''}: "
            "add protocol=learners, or leave learners out."
        )
    if "backend" in axes and settings.fixed_by and not own:
        raise cannot_be_added("backend", axes["backend"], settings.fixed_by)
    if given is None:
        return own
    names = split_values("learners", given)
    for name in names:
        if name.endswith(".py"):
            raise ConfigError(
                f"learners={name} names no class: add its name, as in learners={name}:MyLearner."
            )
        check_name("learners", name, LEARNERS)
    return [{"algorithm": name} for name in names]


@dataclass(frozen=True)
class SweepRanking:
    """How the learners of a sweep rank.

    Attributes:
        ranking: None if fewer than two can be compared.
        notes: what to say of it.
        unranked: a sentence on each learner that has no runs, or not on all tasks, by its name.
    """

    ranking: Ranking | None
    notes: list[str]
    unranked: dict[str, str]


def rank_sweep(
    directory: SweepDirectory,
    cells: Sequence[GridCell],
    rows: Sequence[Json],
    shipped: tuple[Protocol, str] | None,
    learners: Sequence[Json] = (),
    tuning: Sequence[Json] = (),
) -> SweepRanking:
    """Ranks the learners of a sweep; where they do not differ, no cell is read.

    Args:
        directory: of the sweep.
        cells: that are reported.
        rows: of these cells, in their order.
        shipped: the protocol and backend whose shipped learners are ranked, too; None for none.
        learners: that were to run on every task of a protocol.
        tuning: how rates were chosen, as in summary.json.
    """
    others, why = (None, None) if shipped is None else shipped_runs(*shipped)
    missing, names = [why] if why else [], {cell.learner for cell in cells} - {""}
    ended = [row["id"] for row in rows if row["status"] in ("completed", "failed")]
    lacking = _unranked(cells, rows)
    if len(names) > 1 or (names and others is not None):
        with reading(directory, ended) as found:
            ranking = rank_cells(found, others)
        if ranking is not None:
            tuned = [*tuned_in(tuning), *(() if others is None else tuned_elsewhere(others))]
            return SweepRanking(ranking, [*missing, *remarks(ranking, lacking, tuned)], lacking)
    if len(names) > 1:
        return SweepRanking(None, [*lacking.values()], lacking)
    if len(learners) != 1 or len(ended) < len(rows):
        return SweepRanking(None, [], lacking)
    name = str(learners[0]["algorithm"])
    other = "ppo" if name == "reinforce" else "reinforce"
    example = "mine.py:Mine" if name in LEARNERS else name
    alone = f"One learner cannot be ranked: name another, such as learners={other},{example}."
    return SweepRanking(None, [*missing, alone], lacking)


def _unranked(cells: Sequence[GridCell], rows: Sequence[Json]) -> dict[str, str]:
    ended, diverged = dict[str, bool](), dict[str, list[str]]()
    for cell, row in zip(cells, rows, strict=True):
        name, why = learner_name(cell.values, short=True), str(row["why"])
        if not cell.learner:
            continue
        tuned = not why.startswith(ALL_DIVERGED)
        ran = row["status"] == "completed" or (row["status"] == "failed" and tuned and "diverged at" in why)
        ended[name] = ended.get(name, False) or ran
        if not tuned:
            diverged.setdefault(name, []).append(f"{row['condition']} N={row['N']}")
    return unranked(ended, {name: [*dict.fromkeys(tasks)] for name, tasks in diverged.items()})


def ranking_sheet(ranking: Ranking) -> Sheet:
    """One row per learner, the best first."""
    headings = ("", "learner", "share of the\nceiling [95 %]", "stuck", "told apart\nfrom the best")
    rows = [
        [
            str(place),
            learner.name,
            f"{'at most ' if learner.at_most else ''}{learner.share}",
            f"{100 * learner.stuck:.0f} %",
            _apart(learner),
        ]
        for place, learner in enumerate(ranking.learners, start=1)
    ]
    tasks = counted(sum(task.counts for task in ranking.tasks), "task")
    return Sheet(
        headings,
        rows,
        keys=("learner",),
        spare=(headings[-1],),
        words=("learner", headings[-1]),
        title=f"learners over {tasks}: interquartile mean of all runs",
        caption="Share of the ceiling: of the ideal questioner's rate, or where that is unknown of the "
        "capacity. Stuck: runs that had not memorised when their budget was spent.",
    )


def _apart(learner: RankedLearner) -> str:
    return {None: "", True: "yes", False: "no"}[learner.apart_from_best]
