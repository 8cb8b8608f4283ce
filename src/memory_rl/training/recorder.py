"""What the loops measure: bits known at every evaluation and every episode, kept in memory and on disk as
they come.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from memory_rl.config import Experiment, TrainConfig, episodes_an_update
from memory_rl.information.entropy import BitsKnown
from memory_rl.information.ledger import NEVER, Ledger
from memory_rl.policies.base import Policy, Rollout
from memory_rl.runs.store import (
    EPISODES,
    EPISODES_SCHEMA,
    FILM,
    METRICS,
    METRICS_SCHEMA,
    OF_SEVERAL_SECRETS,
    PROMPT,
    SECRETS,
    SECRETS_SCHEMA,
    TIMING,
    TIMING_SCHEMA,
    RunDirectory,
)
from memory_rl.state import State
from memory_rl.task import INVALID
from memory_rl.training.episodes import UNLISTED, SilentEpisodes
from memory_rl.training.film import RUN, make_film
from memory_rl.training.questions import (
    Bookkeeper,
    accounts_of,
    accounts_of_runs,
    by_block,
    make_ledger,
    sums_of_runs,
)
from memory_rl.training.tally import Tally


@dataclass(frozen=True)
class Progress:
    """How far an experiment is: episodes of its longest run, mean bits known over all runs, and runs still
    learning.
    """

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
        silent: (R,) fraction of groups without signal, or None where groups have no meaning.
        skipped: silent episodes before it, which may be of runs that have no rollout here.
    """

    rollout: Rollout
    updates_before: np.ndarray
    rewards: np.ndarray | None = None
    silent: np.ndarray | None = None
    skipped: Sequence[SilentEpisodes] = ()


class Recorder:
    """Collects metrics and episodes of a population, and keeps its ledger.

    Args:
        config: the experiment.
        secrets: (R, M).
        directory: where to write at each checkpoint and at the end.
        on_progress: called after each evaluation.
        bookkeeper: enters the episodes into the ledger; None keeps none.
    """

    def __init__(
        self,
        config: Experiment,
        secrets: np.ndarray,
        directory: RunDirectory,
        on_progress: Callable[[Progress], None] | None = None,
        bookkeeper: Bookkeeper | None = None,
    ) -> None:
        self.config = config
        self.secrets = secrets
        self.directory = directory
        self.on_progress = on_progress
        self.on_evaluation: Callable[[Mapping[str, np.ndarray]], None] | None = None
        """Called with each evaluation's rows of metrics.parquet, without the columns that never change."""
        self.bookkeeper = bookkeeper
        self.ledger = None if bookkeeper is None else make_ledger(config, secrets)
        self.tokens = 0
        self.started = time.monotonic()
        self._film = make_film(config, self.ledger)
        self._measured_at = np.full(config.num_runs, -1)  # the update after which a run was last measured
        self._known = {
            name: np.zeros(config.num_runs)
            for name in ("bits_known", "content_bits", "format_bits", "confidence")
        }
        self._of_secret = np.zeros(secrets.shape)  # bits known of each
        self._tally = Tally(config.num_runs)
        self._metrics: list[dict[str, np.ndarray]] = []
        self._secrets: list[dict[str, np.ndarray]] = []
        self._episodes: list[dict[str, np.ndarray]] = []
        self._timing: list[tuple[int, float]] = []

    def evaluate(
        self, policy: Policy, runs: np.ndarray, episode: np.ndarray | int, batch: Batch | None = None
    ) -> np.ndarray:
        """Records the batch that led these runs to `episode` episodes of each, measures those that are due,
        and returns the runs that go on learning.
        """
        episodes = np.broadcast_to(episode, runs.shape)
        due = self._due(policy, runs, episodes)
        self._measure(policy, runs[due & (self._measured_at[runs] != policy.updates[runs])])
        if batch is not None:
            self._record_skipped(batch.skipped)
            self._record_rollout(batch, episodes[np.searchsorted(runs, batch.rollout.runs)])
            self._count(batch)
        if due.any():
            self._note(policy, runs[due], episodes[due])
        going_on = runs[
            (self._of_secret[runs] >= np.log2(self.config.N * self.config.stop_at)).sum(axis=1)
            < self.config.secrets_to_memorise
        ]
        self._tell(int(episodes.max()), len(going_on))
        return going_on

    def _due(self, policy: Policy, runs: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        """Which runs (R,) are to be measured: at the start, every so many updates, and at the end of the
        budget.
        """
        if self.config.updates_an_evaluation == 1:
            return np.full(len(runs), True)
        first, waited = (
            self._measured_at[runs] < 0,
            policy.updates[runs] - self._measured_at[runs] >= self.config.updates_an_evaluation,
        )
        return np.asarray(first | waited | (episodes + episodes_an_update(self.config) > self.config.budget))

    def _note(self, policy: Policy, runs: np.ndarray, episodes: np.ndarray) -> None:
        """Takes down what these runs know after so many episodes."""
        self._metrics.append(
            {
                "run": runs,
                "update": policy.updates[runs].copy(),
                "episode": episodes,
                **{name: values[runs] for name, values in self._known.items()},
                **self._ledger_metrics(runs),
                **self._tally.take(runs),
                **self._note_secrets(runs, episodes),
            }
        )
        if self.on_evaluation is not None:
            self.on_evaluation(self._metrics[-1])
        self._timing.append((int(episodes.min()), time.monotonic() - self.started))
        self._expose(policy, runs, episodes)

    def _note_secrets(self, runs: np.ndarray, episodes: np.ndarray) -> dict[str, np.ndarray]:
        """Takes down what these runs know of each of several secrets; returns how many they have
        memorised.
        """
        if self.config.num_secrets == 1:
            return {}
        shape = (len(runs), self.config.num_secrets)
        known = self._of_secret[runs]
        observed = (
            np.full(shape, np.nan)
            if self.ledger is None
            else self.ledger.observer_bits(accounts_of_runs(runs, shape[1])).reshape(shape)
        )
        columns = {
            "run": np.broadcast_to(runs[:, None], shape),
            "episode": np.broadcast_to(episodes[:, None], shape),
            PROMPT: np.broadcast_to(np.arange(shape[1]), shape),
            "secret": self.secrets[runs],
            "bits_known": known,
            "observer_bits": observed,
        }
        self._secrets.append({name: values.ravel() for name, values in columns.items()})
        return {"secrets_memorised": (known >= np.log2(self.config.N * self.config.memorised_at)).sum(axis=1)}

    def _measure(self, policy: Policy, moved: np.ndarray) -> None:
        """What the runs whose parameters have moved know now; the others know what they knew."""
        if len(moved) == 0:
            return
        seen = policy.assess(moved, self.secrets[moved], self.config.N)
        bits = BitsKnown.of_secret(seen.of_form, seen.of_valid, self.config.N)
        self._of_secret[moved] = bits.total
        for name, values in {
            "bits_known": bits.total,
            "content_bits": bits.content,
            "format_bits": bits.format,
        }.items():
            self._known[name][moved] = values.sum(axis=1)
        self._known["confidence"][moved] = np.exp(
            np.sort(seen.of_best, axis=1)[:, -self.config.secrets_to_memorise]
        )
        self._measured_at[moved] = policy.updates[moved]

    def _expose(self, policy: Policy, runs: np.ndarray, episodes: np.ndarray) -> None:
        if self._film is not None and isinstance(self.ledger, Ledger) and RUN in runs:
            self._film.expose(
                policy, self.ledger, int(episodes[runs == RUN][0]), float(self._known["bits_known"][RUN])
            )

    def _ledger_metrics(self, runs: np.ndarray) -> dict[str, np.ndarray]:
        if self.ledger is None:
            unknown = np.full(len(runs), np.nan)
            return {"observer_bits": unknown, "asked_bits": unknown, "asked_variance": unknown}
        return sums_of_runs(self.ledger, runs, self.config.num_secrets)

    @property
    def episodes_to_know(self) -> np.ndarray | None:
        """(R,) the first episode after which the observer knew as many secrets as count as all, 0 if it never
        did; None without a ledger.
        """
        if self.ledger is None:
            return None
        by_secret = self.ledger.episodes_to_know.reshape(self.secrets.shape)
        last = np.sort(np.where(by_secret == NEVER, np.inf, by_secret), axis=1)[
            :, self.config.secrets_to_memorise - 1
        ]
        return np.where(np.isinf(last), NEVER, last).astype(np.int64)

    def _count(self, batch: Batch) -> None:
        if batch.rewards is not None and isinstance(self.config, TrainConfig):
            self._tally.add(batch.rollout, batch.rewards, batch.silent, batch.skipped)

    def _record_rollout(self, batch: Batch, episodes: np.ndarray) -> None:
        """Records the sampled episodes of its runs, of which each has had this many (R,) after them."""
        runs, choices = batch.rollout.runs, batch.rollout.choices
        self.tokens += batch.rollout.num_tokens
        shape = choices.shape  # (R, E, K)
        first = episodes - shape[1] + 1
        if self.bookkeeper is not None:
            self._enter(self.bookkeeper, batch, first)
        prompts = batch.rollout.prompts
        asked = (
            {}
            if prompts is None
            else {PROMPT: np.repeat(prompts, choices[0].size // prompts.shape[1], axis=1).ravel()}
        )
        self._episodes.append(
            {
                **asked,
                "run": np.broadcast_to(runs[:, None, None], shape).ravel(),
                "update": np.broadcast_to(batch.updates_before[:, None, None], shape).ravel(),
                "episode": np.broadcast_to(
                    first[:, None, None] + np.arange(shape[1])[:, None], shape
                ).ravel(),
                "step": np.broadcast_to(np.arange(shape[2]), shape).ravel(),
                "answer": choices.ravel(),
                "reward": np.full(choices.size, np.nan) if batch.rewards is None else batch.rewards.ravel(),
                "count": np.ones(choices.size, dtype=np.int64),
            }
        )

    def _enter(self, bookkeeper: Bookkeeper, batch: Batch, first: np.ndarray) -> None:
        """Enters a batch, of which each run had its episode number `first` (R,) first, into the ledger, block
        by block.
        """
        accounts = accounts_of(batch.rollout, self.config.num_secrets)
        blocks = by_block(
            accounts.shape[1], batch.rollout.choices, *([] if batch.rewards is None else [batch.rewards])
        )
        for place, (choices, *rewards) in enumerate(blocks):
            bookkeeper.record(
                self.ledger,
                accounts[:, place],
                choices,
                rewards[0] if rewards else None,
                first + place * choices.shape[1],
            )

    def _record_skipped(self, skipped: Sequence[SilentEpisodes]) -> None:
        for silent in skipped:
            rows = len(silent.episode)
            self._episodes.append(
                {
                    "run": np.full(rows, silent.run),
                    "update": np.full(rows, silent.update),
                    "episode": silent.episode,
                    "step": np.zeros(rows, dtype=np.int64),
                    "answer": silent.answers,
                    "reward": silent.rewards,
                    "count": silent.counts,
                }
            )
            if self.bookkeeper is not None:
                self.bookkeeper.record_silent(self.ledger, silent)

    def _tell(self, episode: int, active: int) -> None:
        if self.on_progress is not None:
            self.on_progress(
                Progress(episode, self.config.budget, float(self._known["bits_known"].mean()), active)
            )

    @property
    def seconds(self) -> float:
        """Since the start of training."""
        return time.monotonic() - self.started

    @property
    def has_measured(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._metrics)

    @property
    def metrics(self) -> pl.DataFrame:
        """All evaluations so far; see `METRICS_SCHEMA`."""
        several = self.config.num_secrets > 1
        schema = METRICS_SCHEMA | (OF_SEVERAL_SECRETS if several else {})
        frame = _to_frame(self._metrics, schema, _CONSTANT)
        secret = (
            pl.lit(None, pl.Int64)
            if several
            else pl.Series(self.secrets[frame["run"].to_numpy(), 0], dtype=pl.Int64)
        )
        return frame.with_columns(
            secret=secret,
            seed=pl.lit(self.config.seed, pl.Int64),
            learning_rate=pl.lit(self.config.step_size, pl.Float64),
        ).select(*schema)

    @property
    def of_secrets(self) -> pl.DataFrame:
        """What was known of each of several secrets; see `SECRETS_SCHEMA`."""
        return _to_frame(self._secrets, SECRETS_SCHEMA)

    @property
    def episodes(self) -> pl.DataFrame:
        """All episodes so far; see `EPISODES_SCHEMA`."""
        frame = _to_frame(
            self._episodes, EPISODES_SCHEMA | ({PROMPT: pl.Int32} if self.config.num_secrets > 1 else {})
        )
        return frame.with_columns(
            pl.when((pl.col("answer") >= 0) | (pl.col("answer") == UNLISTED))
            .then(pl.col("answer"))
            .alias("answer"),
            pl.col("reward").fill_nan(None),
        )

    @property
    def timing(self) -> pl.DataFrame:
        """See `TIMING_SCHEMA`."""
        return pl.DataFrame(self._timing, schema=TIMING_SCHEMA, orient="row")

    def write(self) -> None:
        """Writes everything measured so far."""
        self.directory.write_frame(METRICS, self.metrics)
        self.directory.write_frame(EPISODES, self.episodes)
        self.directory.write_frame(TIMING, self.timing)
        if self.config.num_secrets > 1:
            self.directory.write_frame(SECRETS, self.of_secrets)
        if self._film is not None:
            self.directory.write_frame(FILM, self._film.frame)

    def state(self) -> State:
        """See `memory_rl.state.Stateful`. Writes everything measured so far, too, for those who want to look
        on.
        """
        self._metrics, self._episodes = (
            [_joined(self._metrics)],
            [_joined(self._episodes)] if self._episodes else [],
        )
        self._secrets = [_joined(self._secrets)] if self._secrets else []
        self.write()
        return {
            "metrics": self.metrics,
            "episodes": self.episodes,
            "timing": self.timing,
            "seconds": self.seconds,
            "tokens": self.tokens,
            "measured_at": self._measured_at,
            "known": self._known,
            "secrets": self.of_secrets,
            "of_secret": self._of_secret,
            "tally": self._tally.state(),
            "ledger": None if self.ledger is None else self.ledger.state(),
            "film": None if self._film is None else self._film.state(),
        }

    def restore(self, state: State) -> None:
        """See `memory_rl.state.Stateful`."""
        self._metrics, self._episodes = (
            [_columns(state["metrics"], _CONSTANT)],
            [_columns(state["episodes"].with_columns(pl.col("answer").fill_null(INVALID)))],
        )
        self._secrets = [_columns(state["secrets"])] if len(state["secrets"]) else []
        self._of_secret[:] = state["of_secret"]
        self._tally.restore(state["tally"])
        self._timing = state["timing"].rows()
        self.started = time.monotonic() - state["seconds"]
        self.tokens = state["tokens"]
        self._measured_at[:] = state["measured_at"]
        for name, values in self._known.items():
            values[:] = state["known"][name]
        if self.ledger is not None:
            self.ledger.restore(state["ledger"])
        if self._film is not None:
            self._film.restore(state["film"])


_CONSTANT = ("secret", "seed", "learning_rate")
"""Columns of the metrics that do not change during a run."""


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _columns(frame: pl.DataFrame, leave_out: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The other way round: null becomes NaN again."""
    return {
        name: frame[name].fill_null(np.nan).to_numpy()
        if frame[name].dtype.is_float()
        else frame[name].to_numpy()
        for name in frame.drop(leave_out).columns
    }


def _to_frame(
    parts: list[dict[str, np.ndarray]], schema: Mapping[str, Any], leave_out: tuple[str, ...] = ()
) -> pl.DataFrame:
    wanted = {name: kind for name, kind in schema.items() if name not in leave_out}
    columns = {
        name: np.concatenate([part[name] for part in parts]) if parts else np.array([]) for name in wanted
    }
    return pl.DataFrame(columns, nan_to_null=True).cast(wanted)  # type: ignore[arg-type]
