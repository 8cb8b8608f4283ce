"""Enters episodes into the ledger: from the world's choices and rewards to the meter's questions and levels.

Each pair of a run and one of its secrets has an account of its own, with the number run * M + secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from typing_extensions import override

from memory_rl.information.ledger import HitLedger, Ledger
from memory_rl.information.observer import EachBit, Observer, OneAgainstRest, Partition, Question
from memory_rl.information.outcomes import Outcomes
from memory_rl.learning.batch import Batch, SilentEpisodes
from memory_rl.state import Stateful
from memory_rl.task import INVALID, EpisodeTable


def outcomes_of(table: EpisodeTable) -> Outcomes:
    """How the questions of a table are answered."""
    return Outcomes(table.num_classes, table.outcomes)


def accounts_of(runs: np.ndarray, prompts: np.ndarray, num_secrets: int) -> np.ndarray:
    """The accounts of these runs (R,) and of the secrets that prompts (R, B) or (B,) ask for: (R, B)."""
    return np.asarray(runs[:, None] * num_secrets + prompts)


def ask(
    table: EpisodeTable, choices: np.ndarray, rewards: np.ndarray, secrets: np.ndarray | None = None
) -> tuple[Question, np.ndarray]:
    """The questions that episodes (R, K) ask, and the levels that they see.

    First turns must be valid, unless S is shown. The secrets (R,) decide what no reward shows.
    """
    if table.levels is not None:
        levels = table.levels(choices, rewards)
    else:
        assert secrets is not None  # noqa: S101  # a teacher knows it
        levels = table.classes(choices, secrets)
    if table.kind == "hit" and table.certain:
        return OneAgainstRest(choices[:, 0]), levels
    if table.kind == "bits" and not table.certain:
        return EachBit(choices, choices != INVALID), levels
    return Partition(_Classes(table, choices)), levels


@dataclass(frozen=True)
class _Classes:
    """The classes of questions (R, K), made when they are looked up: an R x N table may be large."""

    table: EpisodeTable
    choices: np.ndarray

    def __getitem__(self, some: slice) -> np.ndarray:
        return self.table.classes(self.choices[some, None], np.arange(self.table.N))


class Beliefs(Stateful):
    """The ideal observers of the runs' own episodes, for learners that train towards what these believe."""

    kept = ("_observer",)

    def __init__(self, table: EpisodeTable, shape: tuple[int, ...], N: int) -> None:
        self._table, self._outcomes, self._num_secrets = table, outcomes_of(table), shape[1]
        self._observer = Observer(shape[0] * shape[1], N)  # of R runs and M secrets each

    def after(self, batch: Batch) -> np.ndarray:
        """What they believe once they have seen this batch too: (R, B, N)."""
        assert batch.rewards is not None  # noqa: S101  # nobody observes what is shown
        asked = accounts_of(batch.runs, batch.asked, self._num_secrets)
        for place in range(asked.shape[1]):
            rows = np.nonzero(batch.choices[:, place, 0] != INVALID)[0]
            question, levels = ask(self._table, batch.choices[rows, place], batch.rewards[rows, place])
            self._observer.observe(asked[rows, place], question, self._outcomes, levels)
        accounts = accounts_of(batch.runs, batch.prompts, self._num_secrets)
        return self._observer.posterior(accounts.ravel()).reshape(*accounts.shape, -1)


class Accounts(Stateful):
    """The accounts of R runs and M secrets each, where every answer is known.

    Args:
        secrets: (R, M).
        N: the size of the secret space.
        known_at: the observer knows S once it gives S at least this probability.
        table: of the episodes.
    """

    kept = ("ledger",)
    ledger: Any

    def __init__(self, secrets: np.ndarray, N: int, known_at: float, table: EpisodeTable) -> None:
        self.num_secrets, self._table, self._outcomes = secrets.shape[1], table, outcomes_of(table)
        self.ledger = Ledger(secrets.ravel(), N, known_at)

    def enter(self, batch: Batch, first: np.ndarray) -> None:
        """Enters a batch, of which each run had its episode number `first` (R,) first."""
        accounts = accounts_of(batch.runs, batch.asked, self.num_secrets)
        rewards = np.full(batch.choices.shape, np.nan) if batch.rewards is None else batch.rewards
        for place in range(accounts.shape[1]):
            self._enter(accounts[:, place], batch.choices[:, place], rewards[:, place], first + place)

    def _enter(
        self, accounts: np.ndarray, choices: np.ndarray, rewards: np.ndarray, episode: np.ndarray
    ) -> None:
        """Enters an episode of each of these accounts (R,): choices and rewards (R, K), its number (R,)."""
        tells = (choices[:, 0] != INVALID) | (self._table.kind == "example")  # S is shown whatever was said
        rows = np.nonzero(tells & self.ledger.open(accounts, self._outcomes))[0]
        if len(rows):
            secrets = self.ledger.secrets[accounts[rows]]
            question, levels = ask(self._table, choices[rows], rewards[rows], secrets)
            self.ledger.record(accounts[rows], question, self._outcomes, levels)
        self.ledger.close_episode(accounts, episode)

    def enter_silent(self, silent: SilentEpisodes) -> None:
        """Enters skipped episodes of one turn each; without noise, plain misses are entered all at once."""
        answers, rewards, episodes = silent.answers, silent.rewards, silent.episode
        start = 0
        if self._table.kind == "hit" and self._table.certain and self._table.levels is not None:
            hits = np.nonzero(self._table.levels(answers[:, None], rewards[:, None]))[0]
            start = int(hits[0]) if len(hits) else len(answers)
            asked = answers[:start] != INVALID
            self.ledger.record_misses(silent.run, answers[:start][asked], episodes[:start][asked])
        run = np.array([silent.run])
        for answer, reward, episode in zip(answers[start:], rewards[start:], episodes[start:], strict=True):
            if not self.ledger.open(run, self._outcomes)[0]:
                return
            self._enter(run, np.array([[answer]]), np.array([[reward]]), np.array([episode]))

    def sums(self, runs: np.ndarray) -> dict[str, np.ndarray]:
        """What the ledger says of these runs, summed over their secrets: (R,) each."""
        accounts = self.of_runs(runs)
        sums = {
            "asked_bits": self.ledger.asked[accounts],
            "asked_variance": self.ledger.asked_variance(accounts),
            "observer_bits": self.ledger.observer_bits(accounts),
        }
        return {name: values.reshape(len(runs), -1).sum(axis=1) for name, values in sums.items()}

    def of_runs(self, runs: np.ndarray) -> np.ndarray:
        """The accounts of all secrets of these runs (R,), run by run: (R M,)."""
        return accounts_of(runs, np.arange(self.num_secrets), self.num_secrets).ravel()


class HitAccounts(Accounts):
    """The accounts of one secret per run where only that and some samples are scored: hits and misses.

    An episode shows S, or its answer is S or is not.

    Args:
        secrets: (R, 1).
        N: the size of the secret space.
        panel: (Q,) the answers whose probabilities say what was tried.
    """

    def __init__(self, secrets: np.ndarray, N: int, panel: np.ndarray) -> None:
        self.num_secrets = 1
        self.ledger = HitLedger(secrets.ravel(), N, panel)

    @override
    def enter(self, batch: Batch, first: np.ndarray) -> None:
        if batch.rewards is None:
            self.ledger.record_shown(batch.runs, first)
            return
        hits = batch.choices[:, :, 0] == self.ledger.secrets[batch.runs, None]
        for run, of_run, start in zip(batch.runs.tolist(), hits, first.tolist(), strict=True):
            before = int(of_run.argmax()) if of_run.any() else len(of_run)
            self.ledger.record_misses(run, before)
            if of_run.any():
                self.ledger.record_hit(run, start + before)

    @override
    def enter_silent(self, silent: SilentEpisodes) -> None:
        if silent.panel is not None:
            self.ledger.look(silent.run, silent.panel)
        hits = silent.episode[silent.answers == self.ledger.secrets[silent.run]]
        before = int(hits[0] - silent.episode.min()) if len(hits) else int(silent.counts.sum())
        self.ledger.record_misses(silent.run, before)
        if len(hits):
            self.ledger.record_hit(silent.run, int(hits[0]))
