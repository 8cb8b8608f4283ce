"""The end of a run directory: its summary, its figures and its laws, whoever made the episodes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

from memory_rl.analysis.collect import Cell
from memory_rl.condition import Condition
from memory_rl.errors import LawBreachWarning, RunDirectoryError
from memory_rl.files import Json
from memory_rl.keys import name_of
from memory_rl.runs.manifest import SCHEMA
from memory_rl.runs.store import CHANNEL, SUMMARY, RunDirectory
from memory_rl.task import table_of
from memory_rl.training.ceilings import Ceilings


def sum_up(
    directory: RunDirectory, ceilings: Ceilings, episodes_to_know: np.ndarray | None, about: Json
) -> Cell:
    """Writes summary.json from the tables that are written, and returns the run directory with it.

    Args:
        directory: of the run.
        ceilings: of its condition.
        episodes_to_know: (R,) when the ideal observers knew S, 0 for never; None without a ledger.
        about: what else the summary says of it.
    """
    from memory_rl.analysis.summary import summarise

    cell = Cell(directory.path, directory.read_manifest(), {})
    cell.summary.update(summarise(cell, ceilings.as_dict(), episodes_to_know))
    cell.summary.update(about)
    directory.write_json(SUMMARY, {"schema": SCHEMA, "conditions": {cell.condition: cell.summary}})
    return cell


def draw_figures(cell: Cell, directory: RunDirectory) -> None:
    """Draws figures/ of a run directory that is summed up."""
    from memory_rl.reporting.pictures import draw_run

    for name, content in draw_run(cell):
        directory.write(f"figures/{name}", content)


def warn_of_breaches(cell: Cell) -> None:
    """Warns of each law that was breached."""
    from memory_rl.analysis.laws import breaches

    for breach in breaches(cell.summary.get("checks", {})):
        warnings.warn(breach, LawBreachWarning, stacklevel=3)


def keep_own_reward(condition: Condition, directory: RunDirectory) -> None:
    """Writes the table of a user's own reward, so that the ledger can be recomputed without their code.

    Raises:
        RunDirectoryError: if the directory holds another table, because the reward was changed since.
    """
    signal, channel = condition.signal, condition.environment.channel
    if not signal.own_reward:
        return
    arrays = {"levels": channel.levels, "classes": table_of(channel, condition.world.N)}
    arrays |= {} if channel.outcomes is None else {"outcomes": channel.outcomes}
    if not (directory.path / CHANNEL).exists():
        directory.write_arrays(CHANNEL, **arrays)
    elif not _same_arrays(arrays, directory.read_arrays(CHANNEL)):
        raise RunDirectoryError(
            f"log_path={directory.path} was started with another table of rewards: give "
            f"reward_type={name_of(signal.reward_type)} as it was, or another log_path."
        )


def _same_arrays(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
