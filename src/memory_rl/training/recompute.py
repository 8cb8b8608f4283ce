"""The ledger again, from what a run directory holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from memory_rl.errors import MemoryRLError, RunDirectoryError, one_line
from memory_rl.experiment import Experiment
from memory_rl.files import as_path
from memory_rl.learning.batch import Batch
from memory_rl.runs.columns import EPISODES_SCHEMA, LEDGER_SCHEMA, PROMPT
from memory_rl.runs.store import CHANNEL, EPISODES, RunDirectory, experiment_of
from memory_rl.task import RewardChannel, from_table, make_environment, secrets_of_run, table_of_signal
from memory_rl.training.accounts import Accounts


def draw_secrets(experiment: Experiment) -> np.ndarray:
    """The secrets of each run: `fixed_secret` for all, or drawn from the seed for each. Shape (R, M)."""
    return np.array([secrets_of_run(experiment.world, run) for run in range(experiment.stop.num_runs)])


def ledger_from_episodes(path: str | Path) -> pl.DataFrame:
    """The ledger after every episode of every run, recomputed from a run directory's answers and rewards.

    Args:
        path: a run directory.

    Returns:
        One row per run and episode, in this order, all bits cumulative; asked_bits (expected information
        of the questions asked), asked_variance (squared bits), observer_bits (log2 N + log2 P(S) of an ideal
        observer).

    Raises:
        RunDirectoryError: if a file is missing or damaged.
    """
    directory = RunDirectory(as_path(path))
    manifest = directory.read_manifest()
    experiment = experiment_of(directory.path, manifest)
    how = manifest["resolved"] if "resolved" in manifest else experiment.resolved()
    if how.get("scoring") == "paths" and how.get("skip_ahead"):
        raise RunDirectoryError(
            f"{path} was run with scoring=paths and skip_ahead=True, which does not list every answer: read "
            "its ledger in metrics.parquet, or run it again with skip_ahead=False."
        )
    try:
        return _recomputed(experiment, directory)
    except MemoryRLError:
        raise
    except (IndexError, KeyError, ValueError) as error:
        raise RunDirectoryError(
            f"{directory.path} holds episodes or rewards that are not all there, or of another experiment "
            f"({one_line(str(error))}): restore them, or run the experiment again."
        ) from error


def _recomputed(experiment: Experiment, directory: RunDirectory) -> pl.DataFrame:
    world, signal = experiment.world, experiment.signal
    environment = make_environment(world, signal, channel=_own_channel(experiment, directory))
    table = table_of_signal(environment, signal, spelt=experiment.spelt)
    accounts = Accounts(draw_secrets(experiment), world.N, experiment.stop.memorised_at, table)
    parts = [pl.DataFrame(schema=LEDGER_SCHEMA)]
    places = ("episode", "run", "step")
    episodes = directory.read_frame(EPISODES, EPISODES_SCHEMA, places).sort(places)
    for (number,), rows in episodes.group_by("episode", maintain_order=True):
        batch = _batch_of(rows, environment.num_steps, rewarded=not signal.shows_answer)
        first = np.full(len(batch.runs), number)
        accounts.enter(batch, first)
        columns = {"run": batch.runs, "episode": first, **accounts.sums(batch.runs)}
        parts.append(pl.DataFrame(columns).cast(LEDGER_SCHEMA))  # type: ignore[arg-type]
    return pl.concat(parts).sort("run", "episode")


def _batch_of(rows: pl.DataFrame, num_steps: int, *, rewarded: bool) -> Batch:
    """One episode of each run, from its rows."""
    shape = (-1, 1, num_steps)
    runs = rows["run"].to_numpy().reshape(shape)[:, 0, 0].astype(np.int64)
    choices = rows["answer"].fill_null(-1).to_numpy().reshape(shape)
    prompts = rows[PROMPT].to_numpy().reshape(shape)[:, :, 0] if PROMPT in rows.columns else runs[:, None] * 0
    rewards = rows["reward"].to_numpy().reshape(shape) if rewarded else None
    return Batch(runs, prompts, choices, choices, runs, rewards)


def _own_channel(experiment: Experiment, directory: RunDirectory) -> RewardChannel | None:
    """The channel of a user's own reward, from the table that was kept, whatever its file says by now."""
    if not experiment.signal.own_reward:
        return None
    table = directory.read_arrays(CHANNEL)
    name = experiment.signal.channel_name(experiment.world)
    return from_table(name, table["levels"], table["classes"], table.get("outcomes"))
