"""What the loops measure: bits known at every evaluation and every episode, kept in memory and on disk as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from memory_rl.config import Experiment
from memory_rl.information.entropy import bits_known
from memory_rl.policies.base import Policy, Rollout
from memory_rl.runs.store import EPISODES, EPISODES_SCHEMA, METRICS, METRICS_SCHEMA, TIMING, TIMING_SCHEMA, RunDirectory

_SECONDS_BETWEEN_WRITES = 10.0


@dataclass(frozen=True)
class Progress:
    """How far an experiment is: episodes of its longest run, mean bits known over all runs, and runs still learning."""

    episode: int
    budget: int
    mean_bits_known: float
    active: int


@dataclass(frozen=True)
class Batch:
    """What happened in one update of the sampled runs.

    Attributes:
        rollout: the episodes; E = B G of each run.
        updates_before: (R,) optimiser steps the runs had made when they answered.
        rewards: (R, E, K), or None when nothing was rewarded.
        silent: (R,) fraction of groups without signal, or None.
    """

    rollout: Rollout
    updates_before: np.ndarray
    rewards: np.ndarray | None = None
    silent: np.ndarray | None = None


class Recorder:
    """Collects metrics and episodes of a population.

    Args:
        config: the experiment.
        secrets: (R,).
        directory: where to write every few seconds and at the end.
        on_progress: called after each evaluation.
    """

    def __init__(self, config: Experiment, secrets: np.ndarray, directory: RunDirectory, on_progress: Callable[[Progress], None] | None = None) -> None:
        self.config = config
        self.secrets = secrets
        self.directory = directory
        self.on_progress = on_progress
        self.tokens = 0
        self.started = self._written = time.monotonic()
        self._bits = np.zeros(config.num_runs)
        self._metrics: list[dict[str, np.ndarray]] = []
        self._episodes: list[dict[str, np.ndarray]] = []
        self._timing: list[tuple[int, float]] = []

    def evaluate(self, policy: Policy, runs: np.ndarray, episode: int, batch: Batch | None = None) -> np.ndarray:
        """Measures these runs after `episode` episodes, records the batch that led there, and returns the runs that go on learning."""
        bits = bits_known(policy.log_probs(runs)[:, : self.config.N], self.secrets[runs])
        self._bits[runs] = bits.total
        self._metrics.append(
            {
                "run": runs,
                "update": policy.updates[runs].copy(),
                "episode": np.full(len(runs), episode),
                "bits_known": bits.total,
                "content_bits": bits.content,
                "format_bits": bits.format,
                **_batch_metrics(batch, len(runs)),
            }
        )
        if batch is not None:
            self._record_episodes(batch, episode)
        self._timing.append((episode, time.monotonic() - self.started))
        going_on = runs[bits.total < np.log2(self.config.N * self.config.stop_at)]
        self._tell(episode, len(going_on))
        return going_on

    def _record_episodes(self, batch: Batch, episode: int) -> None:
        runs, choices = batch.rollout.runs, batch.rollout.choices
        self.tokens += batch.rollout.num_tokens
        shape = choices.shape  # (R, E, K)
        first = episode - shape[1] + 1
        self._episodes.append(
            {
                "run": np.broadcast_to(runs[:, None, None], shape).ravel(),
                "update": np.broadcast_to(batch.updates_before[:, None, None], shape).ravel(),
                "episode": np.broadcast_to(first + np.arange(shape[1])[:, None], shape).ravel(),
                "step": np.broadcast_to(np.arange(shape[2]), shape).ravel(),
                "answer": choices.ravel(),
                "reward": np.full(choices.size, np.nan) if batch.rewards is None else batch.rewards.ravel(),
            }
        )

    def _tell(self, episode: int, active: int) -> None:
        if self.on_progress is not None:
            self.on_progress(Progress(episode, self.config.budget, float(self._bits.mean()), active))
        if time.monotonic() - self._written > _SECONDS_BETWEEN_WRITES:
            self.write()

    @property
    def seconds(self) -> float:
        """Since the start of training."""
        return time.monotonic() - self.started

    @property
    def metrics(self) -> pl.DataFrame:
        """All evaluations so far; see `METRICS_SCHEMA`."""
        frame = _to_frame(self._metrics, METRICS_SCHEMA, ("secret", "seed", "learning_rate"))
        return frame.with_columns(
            secret=pl.Series(self.secrets[frame["run"].to_numpy()], dtype=pl.Int64),
            seed=pl.lit(self.config.seed, pl.Int64),
            learning_rate=pl.lit(self.config.learning_rate, pl.Float64),
        ).select(*METRICS_SCHEMA)

    @property
    def episodes(self) -> pl.DataFrame:
        """All episodes so far; see `EPISODES_SCHEMA`."""
        frame = _to_frame(self._episodes, EPISODES_SCHEMA)
        return frame.with_columns(pl.when(pl.col("answer") >= 0).then(pl.col("answer")).alias("answer"), pl.col("reward").fill_nan(None))

    def write(self) -> None:
        """Writes everything measured so far."""
        self.directory.write_frame(METRICS, self.metrics)
        self.directory.write_frame(EPISODES, self.episodes)
        self.directory.write_frame(TIMING, pl.DataFrame(self._timing, schema=TIMING_SCHEMA, orient="row"))
        self._written = time.monotonic()


def _batch_metrics(batch: Batch | None, num_runs: int) -> dict[str, np.ndarray]:
    unknown = np.full(num_runs, np.nan)
    if batch is None or batch.rewards is None or batch.silent is None:
        return {"reward_mean": unknown, "invalid_fraction": unknown, "zero_advantage_fraction": unknown}
    return {
        "reward_mean": batch.rewards.mean(axis=(1, 2)),
        "invalid_fraction": (batch.rollout.choices < 0).any(axis=2).mean(axis=1),
        "zero_advantage_fraction": batch.silent,
    }


def _to_frame(parts: list[dict[str, np.ndarray]], schema: Mapping[str, Any], leave_out: tuple[str, ...] = ()) -> pl.DataFrame:
    wanted = {name: kind for name, kind in schema.items() if name not in leave_out}
    columns = {name: np.concatenate([part[name] for part in parts]) if parts else np.array([]) for name in wanted}
    return pl.DataFrame(columns, nan_to_null=True).cast(wanted)  # type: ignore[arg-type]
