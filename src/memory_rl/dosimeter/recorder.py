"""Writes what another trainer did with our secrets as an ordinary run directory, which everything reads.

Whoever hears of episodes hands them to a `Recorder`, and says when the policy is to be measured. The meter,
the ledger and the tables are those of an experiment.
"""

from __future__ import annotations

import atexit
import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from memory_rl.condition import make_condition
from memory_rl.config import Command, Secrets, Signal, Stop
from memory_rl.errors import ConfigError, MemoryRLWarning, NotFiniteError, RunDirectoryError
from memory_rl.experiment import Experiment, make_experiment
from memory_rl.files import Json, as_path, folder_name, to_json
from memory_rl.keys import keys_of
from memory_rl.learning.batch import Batch
from memory_rl.policies.base import Assessment
from memory_rl.result import Result, load
from memory_rl.runs.manifest import Status, make_manifest, with_status
from memory_rl.runs.store import MANIFEST, RunDirectory, new_folder
from memory_rl.summing_up import draw_figures, keep_own_reward, sum_up, warn_of_breaches
from memory_rl.task import Environment, make_environment
from memory_rl.training.accounts import Accounts
from memory_rl.training.meter import Meter
from memory_rl.training.recompute import draw_secrets
from memory_rl.training.tables import Tables

Assess = Callable[[], Assessment]
"""What the policy makes of each of the M secrets as it is now: (1, M)."""

_MOST_SCORED = 1024
"""Up to here the answers to all prompts are scored, as the report's content bits and the laws want them."""

_FOREIGN = ("order", "num_runs", "max_episodes")
_OURS = {word for part in (Secrets, Signal, Stop) for word in keys_of(part)} - {*_FOREIGN} | {"scoring"}
_SAID = {"backend", "algorithm", "num_runs"}
_READ = {"learning_rate", "max_episodes"}
"""Keys that comparisons and plans look up, so that they have their defaults where nobody said them."""


class RecordingWarning(MemoryRLWarning):
    """Something could not be recorded; the training that is listened to goes on."""


@dataclass(frozen=True)
class RecordedTrainer:
    """Whom the episodes are of, as the manifest names it.

    Attributes:
        library: as it is installed.
        name: of its class.
        settings: all that determines what it does, but for seeds and paths, in a form that JSON can hold.
        keys: of an experiment, as far as they say the same: learning_rate, group_size, batch_size and more.
    """

    library: str
    name: str
    settings: Json
    keys: Json = field(default_factory=dict)

    def about(self, *, measured: bool) -> Json:
        """What the manifest says of it, and of whether what its policy knows is measured."""
        return {
            "library": self.library,
            "version": version(self.library),
            "name": self.name,
            "measured": measured,
            "settings": self.settings,
        }


@dataclass(frozen=True)
class RecordedEpisodes:
    """Some episodes of one update.

    Attributes:
        numbers: (E,) which secret each is about, from 0.
        choices: (E, K) what each turn answered, `INVALID` where it was none.
        rewards: (E, K); None where S was shown.
        silent: the fraction of their groups in which all rewards are equal; NaN where there are no groups.
        tokens: sampled in all of them.
    """

    numbers: np.ndarray
    choices: np.ndarray
    rewards: np.ndarray | None
    silent: float = np.nan
    tokens: int = 0


class _OnDemand(Meter):
    """A meter of one run that measures when it is asked to."""

    asked = False

    def _measure(self, policy: Any, moved: np.ndarray) -> None:
        if not policy.silent:
            super()._measure(policy, moved)

    def _due(self, policy: Any, runs: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        return np.full(len(runs), self.asked)

    def know_nothing(self) -> None:
        """From now on nothing is known of what the policy knows: null in the tables."""
        for values in (self._of_secret, *self._known.values()):
            values[:] = np.nan

    def measure(self, policy: Any, episodes: int) -> None:
        """What the policy knows after so many episodes."""
        self.asked = True
        self._evaluate(policy, np.zeros(1, dtype=np.int64), np.array([episodes]))
        self.asked = False


class _Elsewhere:
    """The policy, which lives in another library: the meter asks it for the secrets alone."""

    def __init__(self, assess: Assess | None) -> None:
        self.updates = np.zeros(1, dtype=np.int64)
        self.silent, self._assess = assess is None, assess

    def assess(self, runs: np.ndarray, forms: np.ndarray, num_answers: int) -> Assessment:
        assert self._assess is not None  # noqa: S101  # only then it is asked
        return self._assess()


class Recorder:
    """Records one run of another trainer.

    Once the training has begun nothing here stops it: what cannot be written or measured is a warning. What
    was measured is written at each evaluation, and when the process ends.

    Args:
        log_path: the run directory; None for a new one under runs/.
        figures: whether to draw the figures at the end.
        keys: of the world, the signal and of when S counts as memorised, as `memory_rl.train` takes them.

    Raises:
        ConfigError: one sentence about the first unknown key or bad value.
        RunDirectoryError: if `log_path` already holds something.
    """

    def __init__(
        self,
        log_path: str | None = None,
        *,
        figures: bool = True,
        **keys: Any,
    ) -> None:
        for word in keys:
            if word not in _OURS:
                raise ConfigError(f"{word}={keys[word]} is up to the trainer that is recorded: leave it out.")
        self._log_path = None if log_path is None else str(as_path(log_path, "log_path"))
        self._keys, self._figures = {"wording": "plain", **keys}, figures
        if self._log_path is not None:
            RunDirectory.check_free(self._log_path)
        self.experiment = self._experiment(RecordedTrainer("memory-rl", "Recorder", {}))
        self.secrets: np.ndarray = draw_secrets(self.experiment)[0]
        self.directory: RunDirectory | None = None
        self.episodes = 0

    @cached_property
    def environment(self) -> Environment:
        """What asks, parses and rewards."""
        experiment = self.experiment
        return make_environment(experiment.world, experiment.signal, experiment.wording)

    @property
    def recording(self) -> bool:
        """Whether it has started and not ended."""
        return self.directory is not None

    @property
    def scores_all(self) -> bool:
        """Whether every answer to every prompt is scored at an evaluation."""
        return self.experiment.policy.scoring == "all"

    def _experiment(self, trainer: RecordedTrainer, command: Command = "train") -> Experiment:
        """The experiment that the manifest describes: our keys, and the trainer's as far as they are ours."""
        secrets, N = self._keys.get("num_secrets", 1), self._keys.get("N", 64)
        few = isinstance(N, int) and isinstance(secrets, int) and N * secrets <= _MOST_SCORED
        given = {"scoring": "all" if few else "paths", "warmup": False, "num_runs": 1}
        given |= {**trainer.keys, **self._keys}
        if command == "train":
            given |= {"algorithm": f"{trainer.library}:{trainer.name}", "skip_ahead": False}
        return make_experiment(given, command)

    def start(
        self, trainer: RecordedTrainer, assess: Assess | None, command: Command = "train", **about: Any
    ) -> None:
        """Makes the run directory and measures the policy before its first episode.

        Args:
            trainer: whom the episodes are of.
            assess: asks the policy; None where it gives no probabilities.
            command: "sft" where answers are shown.
            about: what the summary says of the policy.

        Raises:
            RunDirectoryError: if the directory is taken or cannot be written.
            ConfigError: if a key does not go with the trainer.
        """
        self.experiment = experiment = self._experiment(trainer, command)
        world, signal, memorised_at = experiment.world, experiment.signal, experiment.stop.memorised_at
        self._condition = make_condition(world, signal, memorised_at, experiment.wording)
        self._about, self._manifest = about, _manifest(experiment, trainer, measured=assess is not None)
        name = folder_name(f"{experiment.condition} N{world.N} seed{world.seed}")
        path = new_folder(f"runs/{name}") if self._log_path is None else Path(self._log_path)
        # absolute, since whoever trains may change the working directory
        self.directory = RunDirectory.claim(str(path.absolute()), name, self._manifest)
        self._note("running")
        keep_own_reward(self._condition, self.directory)
        secrets = self.secrets[None]
        rate = trainer.keys.get("learning_rate", np.nan)
        self._tables = Tables(self.directory, secrets, world.seed, rate)
        self._policy = _Elsewhere(assess)
        self._meter = self._make_meter(secrets)
        atexit.register(self._abandon)
        self.evaluate(0)

    def _make_meter(self, secrets: np.ndarray) -> _OnDemand:
        world, stop = self.experiment.world, self.experiment.stop
        accounts = None
        if stop.ledger:
            accounts = Accounts(secrets, world.N, stop.memorised_at, self._condition.table)
        meter = _OnDemand(
            secrets=secrets,
            N=world.N,
            to_memorise=self.experiment.secrets_to_memorise,
            memorised_at=stop.memorised_at,
            stop_at=stop.stop_at,
            every=1,
            update=1,
            budget=self.experiment.budget,
            sinks=(self._tables.take,),
            watch=lambda *_: None,
            accounts=accounts,
            film=None,
        )
        if self._policy.silent:
            meter.know_nothing()
        return meter

    def take(self, episodes: RecordedEpisodes, update: int) -> None:
        """Takes in episodes that were sampled, or shown, after so many optimiser steps."""
        count, tokens = episodes.choices.shape[0], episodes.tokens
        if not self.recording or count == 0:
            return
        self.episodes += count
        rewards = episodes.rewards
        batch = Batch(
            runs=np.zeros(1, dtype=np.int64),
            prompts=episodes.numbers[None],
            choices=episodes.choices[None],
            path=np.empty((1, count, 0)),
            updates=np.array([update]),
            rewards=None if rewards is None else rewards[None],
            active=np.zeros(1, dtype=np.int64),
            episodes=np.array([self.episodes]),
        )
        self._meter.see(self._policy, batch, np.array([episodes.silent]))
        self._meter.tokens += tokens

    def evaluate(self, update: int) -> None:
        """Measures the policy after so many optimiser steps, and writes all that was measured."""
        if not self.recording:
            return
        self._policy.updates[:] = update
        try:
            self._meter.measure(self._policy, self.episodes)
        except NotFiniteError as error:
            self._end("failed", f"the policy diverged: its {error.what} not finite after update {update}")
        self._write()

    def finish(self, update: int) -> Result | None:
        """Measures for the last time, if that is still to be done, and sums up; None if it had ended."""
        if self.recording and self._policy.updates[0] != update:
            self.evaluate(update)
        directory = self.directory
        if directory is None:
            return None
        self._write()
        try:
            self._sum_up(directory)
        except RunDirectoryError as error:
            self._end("failed", str(error))
            return None
        self._end("completed", seconds=self._tables.seconds)
        if self.episodes == 0:
            _warn(f"{directory.path} holds no episode: mix the prompts of the secrets into the data set.")
        result = load(directory.path)
        warn_of_breaches(result.cell)
        return result

    def _sum_up(self, directory: RunDirectory) -> None:
        about = {**self._about, "tokens": self._meter.tokens, "episodes": self.episodes}
        if len(self.secrets) > 1 and not self._policy.silent:
            about["secrets_memorised"] = int(self._tables.metrics["secrets_memorised"][-1])
        cell = sum_up(directory, self._condition.ceilings, self._meter.episodes_to_know, about)
        if self._figures and cell.measured:
            draw_figures(cell, directory)

    def _write(self) -> None:
        """Writes all tables; a disk that is full now may have room at the next evaluation."""
        try:
            self._tables.write()
        except RunDirectoryError as error:
            _warn(str(error))

    def _note(self, status: Status, why: str | None = None, **about: Any) -> None:
        assert self.directory is not None  # noqa: S101  # it has started
        self._manifest = with_status(self._manifest, status, why, **about)
        self.directory.write_json(MANIFEST, self._manifest)

    def _end(self, status: Status, why: str | None = None, **about: Any) -> None:
        """Notes how it ended, and lets go of the directory."""
        assert self.directory is not None  # noqa: S101  # it has started
        try:
            self._note(status, why, **about)
        except RunDirectoryError as error:
            why = why or str(error)
        self.directory.release()
        self.directory = None
        atexit.unregister(self._abandon)
        if why is not None:
            _warn(f"{self._tables.directory.path}: {why.rstrip('.:')}; what was measured is kept.")

    def _abandon(self) -> None:
        """The process ends before the training did."""
        self._write()
        self._end("interrupted", "the process ended before the training did")


def _manifest(experiment: Experiment, trainer: RecordedTrainer, *, measured: bool) -> Json:
    """That of an experiment, which names the trainer and tells those with other settings apart.

    Of the keys that are up to the trainer it has those that the trainer has said.
    """
    said = _OURS | _SAID | trainer.keys.keys()
    manifest = make_manifest(experiment)
    about = trainer.about(measured=measured)
    digest = hashlib.sha256(to_json(trainer.settings, sort_keys=True).encode()).hexdigest()
    inputs: Mapping[str, Any] = manifest["inputs"]
    return {
        **manifest,
        "config": {word: value for word, value in manifest["config"].items() if word in said},
        "resolved": {word: value for word, value in manifest["resolved"].items() if word in said | _READ},
        "command": f"# recorded in {trainer.name} of {trainer.library} {about['version']}",
        "inputs": {**inputs, "trainer": {"settings": {trainer.name: digest}}},
        "trainer": about,
    }


def _warn(sentence: str) -> None:
    warnings.warn(sentence, RecordingWarning, stacklevel=3)
