"""What is to be said beside a ranking: rates at the edge of their tuning, and learners without any runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.entrants import has_runs, learner_of, names_of_learners
from memory_rl.analysis.ranking import Ranking
from memory_rl.catalogue import learner_name
from memory_rl.errors import first_few
from memory_rl.files import Json

_NO_CELL = "is not ranked, since none of its cells is complete."

_ALIKE = ("grpo", "reinforce", "rloo")
"""Learners whose advantages in one group differ by a positive factor alone."""

Compared = tuple[str, str, str, tuple[Any, ...]]
"""Of a cell: what it has in common with others, its algorithm, its optimiser, and its numbers."""

Tuned = tuple[str, str, bool]
"""The name of a learner, a task, and whether the rate chosen there was the least or greatest candidate."""


def tuned_in(choices: Iterable[Json]) -> Iterator[Tuned]:
    """Each choice of a rate, as in the summary.json of a sweep; where all rates did the same none is best."""
    for one in choices:
        learner = learner_name({"algorithm": "the learner", **one["settings"]}, short=True)
        yield learner, f"{one['condition']} N={one['N']}", bool(one["at_edge"] and one["decided"])


def tuned_elsewhere(runs: pl.DataFrame) -> Iterator[Tuned]:
    """Each learner and task of shipped runs that was tuned, with the columns of `SHIPPED`."""
    tuned = runs.drop_nulls("at_edge").select("learner", "task", "at_edge").unique().sort(pl.all())
    names = names_of_learners(tuned["learner"].unique().sort().to_list())
    for learner, task, at_edge in tuned.iter_rows():
        keys = json.loads(task)
        yield names[learner], f"{keys['condition']} N={keys['N']}", at_edge


def edge_note(tuned: Iterable[Tuned]) -> list[str]:
    """A sentence on the learners whose best rate was the least or the greatest candidate, if any was."""
    every = [*tuned]
    tasks = Counter(learner for learner, _, at_edge in every if at_edge)
    if not tasks:
        return []
    where = {learner: task for learner, task, at_edge in every if at_edge}
    named = [
        f"{learner} on {where[learner] if count == 1 else f'{count} tasks'}"
        for learner, count in tasks.most_common()
    ]
    return [
        f"The best rate was the least or the greatest candidate in {tasks.total()} of {len(every)} tunings, "
        f"so that a better one may lie beyond: {first_few(named)}."
    ]


def unranked(ended: Mapping[str, bool], diverged: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """A sentence, by its name, on each learner that lacks runs for another reason than that it was not asked.

    Args:
        ended: whether any cell of a learner came to its end, by its name.
        diverged: the tasks on which all candidate rates of a learner diverged.
    """
    found = {name: f"{name} {_NO_CELL}" for name in ended}
    found = {name: sentence for name, sentence in found.items() if not ended[name]}
    for name, tasks in diverged.items():
        found[name] = f"{name} has no runs on {', '.join(tasks)}, since all candidate rates diverged."
    return found


def without_runs(cells: Iterable[Cell]) -> dict[str, str]:
    """The same for the learners of run directories."""
    ended = dict[str, bool]()
    for cell in cells:
        if "algorithm" in cell.settings:
            learner = learner_of(cell)
            ended[learner] = ended.get(learner, False) or has_runs(cell)
    names = names_of_learners([*ended])
    return unranked({names[learner]: ran for learner, ran in ended.items()}, {})


def remarks(ranking: Ranking, lacking: Mapping[str, str], tuned: Iterable[Tuned]) -> list[str]:
    """All that is to be said beside a ranking, in sentences.

    Args:
        ranking: with notes of its own.
        lacking: sentences on learners without runs, by name. One that has no cell in one place may be ranked
            by what another holds.
        tuned: how rates were chosen.
    """
    ranked = {one.name for one in ranking.learners}
    absent = (
        sentence
        for name, sentence in lacking.items()
        if name not in ranked or not sentence.endswith(_NO_CELL)
    )
    return [*ranking.notes, *absent, *edge_note(tuned)]


def why_alike(compared: Iterable[Compared]) -> list[str]:
    """Why learners gave the same numbers, if some did that must: else it looks as if a key were ignored."""
    found: dict[tuple[Any, ...], set[str]] = {}
    for task, algorithm, optimiser, numbers in compared:
        if algorithm in _ALIKE and optimiser == "adam":
            found.setdefault((task, numbers), set()).add(algorithm)
    alike = [names for names in found.values() if len(names) > 1]
    if not alike:
        return []
    names = sorted(set().union(*alike))
    group = "with one group an update " if "grpo" in names else ""
    return [
        f"{first_few(names)} give the same numbers in {len(alike)} of {len({task for task, _ in found})} "
        f"comparisons, and no key was ignored: {group}their advantages differ by a positive factor alone, "
        "which Adam divides out; optimiser=sgd tells them apart."
    ]
