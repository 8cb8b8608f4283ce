"""The learners of a sweep: which of them run, and how they rank once they have."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.table import Table

from memory_rl.analysis.collect import Cell, read_cell
from memory_rl.analysis.protocol import Protocol
from memory_rl.analysis.ranking import RankedLearner, Ranking, rank_cells
from memory_rl.analysis.shipped import shipped_runs
from memory_rl.catalogue import learner_name
from memory_rl.config import LEARNERS
from memory_rl.errors import ConfigError, check_name
from memory_rl.experiments.grid import split_values
from memory_rl.experiments.settings import SweepConfig, cannot_be_added
from memory_rl.experiments.store import CELLS, SweepDirectory
from memory_rl.experiments.tuning import Choice
from memory_rl.files import Json
from memory_rl.reporting.terminal import make_table
from memory_rl.reporting.values import number
from memory_rl.runs.store import MANIFEST, METRICS, SUMMARY

_MOST_NAMED = 6  # tunings in a sentence
_READ = (MANIFEST, SUMMARY, METRICS)


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


def rank_sweep(
    directory: SweepDirectory,
    rows: Sequence[Json],
    shipped: tuple[Protocol, str] | None,
    learners: Sequence[Json] = (),
) -> tuple[Ranking | None, list[str]]:
    """The ranking of a sweep's learners, None if fewer than two can be compared, and what to say of it.

    Args:
        directory: of the sweep.
        rows: of its cells.
        shipped: the protocol and backend whose shipped learners are ranked, too; None for none.
        learners: that were to run on every task of a protocol.
    """
    others, why = (None, None) if shipped is None else shipped_runs(*shipped)
    missing = [why] if why else []
    ended = [row["id"] for row in rows if row["status"] in ("completed", "failed")]
    with _read(directory, ended) as cells:
        ranking = rank_cells(cells, others)
    if ranking is not None:
        return ranking, [*missing, *ranking.notes]
    if len(learners) != 1 or len(ended) < len(rows):
        return None, []
    name = str(learners[0]["algorithm"])
    other = "ppo" if name == "reinforce" else "reinforce"
    example = "mine.py:Mine" if name in LEARNERS else name
    return None, [
        *missing,
        f"One learner cannot be ranked: name another, such as learners={other},{example}.",
    ]


@contextmanager
def _read(directory: SweepDirectory, ids: Sequence[str]) -> Iterator[list[Cell]]:
    """The cells of a sweep, wherever its directory is."""
    with tempfile.TemporaryDirectory(prefix="memory-rl-") as scratch:
        top = directory.local or Path(scratch)
        if directory.local is None:
            here = SweepDirectory(scratch)
            for place in (f"{CELLS}/{name}" for name in ids):
                found = {name: directory.read_bytes(f"{place}/{name}") for name in _READ}
                here.commit(place, {name: content for name, content in found.items() if content is not None})
        folders = (top / CELLS / name for name in ids)
        yield [read_cell(folder) for folder in folders if (folder / MANIFEST).is_file()]


def ranking_table(ranking: Ranking) -> Table:
    """One row per learner, the best first."""
    headings = ("", "learner", "share of the ceiling [95 % CI]", "stuck", "told apart from the best")
    rows = [
        [
            str(place),
            learner.name,
            str(learner.share),
            f"{100 * learner.stuck:.0f} %",
            _apart(learner),
        ]
        for place, learner in enumerate(ranking.learners, start=1)
    ]
    counting = sum(task.counts for task in ranking.tasks)
    title = (
        f"learners over {number(counting)} task{'' if counting == 1 else 's'}: interquartile mean of all runs"
    )
    return make_table(
        headings, rows, left=("learner", "told apart from the best"), title=title, title_justify="left"
    )


def edge_note(choices: Sequence[Choice]) -> list[str]:
    """A sentence on the learners whose best rate was the least or the greatest candidate, if any was."""
    edge = [choice for choice in choices if choice.at_edge and choice.decided]
    if not edge:
        return []
    named = list(dict.fromkeys(f"{_who(choice)} on {choice.condition} N={choice.N}" for choice in edge))
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return [
        f"The best rate was the least or the greatest candidate in {len(edge)} of {len(choices)} tunings, so "
        f"that a better one may lie beyond: {', '.join(named[:_MOST_NAMED])}{more}."
    ]


def _who(choice: Choice) -> str:
    return learner_name({"algorithm": "the learner", **choice.settings})


def _apart(learner: RankedLearner) -> str:
    return {None: "", True: "yes", False: "no"}[learner.apart_from_best]
