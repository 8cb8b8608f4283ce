"""The ledger again, from what a run directory holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from memory_rl.config import ChannelConfig, SFTConfig, TrainConfig, make_config
from memory_rl.errors import RunDirectoryError
from memory_rl.information.ledger import Ledger
from memory_rl.runs.store import CHANNEL, EPISODES, LEDGER_SCHEMA, PROMPT, RunDirectory
from memory_rl.task import Environment, SecretSpace, SingleStep, from_table
from memory_rl.training.environments import draw_secrets, make_environment
from memory_rl.training.questions import make_questions, sums_of_runs


def ledger_from_episodes(path: str | Path) -> pl.DataFrame:
    """The ledger of every run after every episode, from the answers and rewards in episodes.parquet and the
    configuration in manifest.json.

    Args:
        path: a run directory.

    Returns:
        A row a run and episode, in this order; see `memory_rl.runs.store.LEDGER_SCHEMA`. All bits are
        cumulative.

    Raises:
        RunDirectoryError: if a file is missing or damaged.
    """
    directory = RunDirectory(Path(path))
    manifest = directory.read_manifest()
    config = (
        make_config(TrainConfig, manifest["config"])
        if manifest["kind"] == "train"
        else make_config(SFTConfig, manifest["config"])
    )
    if config.scores_paths:
        raise RunDirectoryError(
            f"{path} was run with scoring=paths, which does not list every answer: read its ledger in metrics.parquet."
        )
    environment = _environment(config, directory)
    questions, ledger = (
        make_questions(config, environment),
        Ledger(draw_secrets(config).ravel(), config.N, config.memorised_at),
    )
    parts = [_no_rows()]
    for _, rows in (
        directory.read_frame(EPISODES).sort("episode", "run", "step").group_by("episode", maintain_order=True)
    ):
        shape = (-1, 1, environment.num_steps)
        runs = rows["run"].to_numpy().reshape(shape)[:, 0, 0].astype(np.int64)
        choices = rows["answer"].fill_null(-1).to_numpy().reshape(shape)
        rewards = None if isinstance(config, SFTConfig) else rows["reward"].to_numpy().reshape(shape)
        episode = int(rows["episode"][0])
        about = rows[PROMPT].to_numpy().reshape(shape)[:, 0, 0] if PROMPT in rows.columns else 0
        questions.record(
            ledger, runs * config.num_secrets + about, choices, rewards, np.full(len(runs), episode)
        )
        columns = sums_of_runs(ledger, runs, config.num_secrets)
        parts.append(
            pl.DataFrame({"run": runs, "episode": np.full(len(runs), episode), **columns}).cast(LEDGER_SCHEMA)
        )  # type: ignore[arg-type]
    return pl.concat(parts).sort("run", "episode")


def _no_rows() -> pl.DataFrame:
    return pl.DataFrame(schema=LEDGER_SCHEMA)


def _environment(config: SFTConfig | TrainConfig, directory: RunDirectory) -> Environment:
    """The world of the run; a reward of the user's own is the table that was kept, whatever its file says by
    now.
    """
    if not (isinstance(config, ChannelConfig) and config.own_reward):
        return make_environment(config)
    table = directory.read_arrays(CHANNEL)
    channel = from_table(config.channel_name, table["levels"], table["classes"], table.get("outcomes"))
    return SingleStep(SecretSpace(config.N), channel, config.num_secrets, config.wording_in_use)
