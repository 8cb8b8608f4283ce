"""The meter: what every run knows after each update, and what its episodes carried, as rows for sinks.

It is handed arrays and tables, never a configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memory_rl.information.entropy import BitsKnown
from memory_rl.information.ledger import NEVER
from memory_rl.learning.batch import Batch, SilentEpisodes
from memory_rl.learning.divergence import check_finite
from memory_rl.state import Stateful
from memory_rl.task import INVALID
from memory_rl.training.accounts import Accounts

Rows = dict[str, np.ndarray]
"""Columns of equal length by name."""

_MEANS = ("reward_mean", "invalid_fraction", "zero_advantage_fraction")


Sink = Callable[[str, Rows], object]
"""Takes rows of "metrics", "episodes" or "secrets" as they come; `memory_rl.runs.store` has the schemas."""

Watcher = Callable[[float, float, int], object]
"""Called after each update, for whoever watches the progress.

It gets how much of its way the slowest run that continues has behind it (from 0 to 1, in bits or in budget,
whichever is more), the mean bits known over all runs, and the number of runs that have memorised.
"""


@dataclass(eq=False, kw_only=True)
class Meter(Stateful):
    """Measures R runs.

    Attributes:
        secrets: (R, M).
        N: the size of the secret space.
        to_memorise: how many of its secrets a run must have memorised.
        memorised_at: the probability of S from which on it is memorised.
        stop_at: the probability at which a run ends.
        every: updates of a run between two evaluations.
        update: episodes of a run between two updates.
        budget: the most episodes of one run.
        sinks: take the rows.
        watch: called after each update.
        accounts: of the ideal observers; None for none.
        film: of one run; None for none.
    """

    secrets: np.ndarray
    N: int
    to_memorise: int
    memorised_at: float
    stop_at: float
    every: int
    update: int
    budget: int
    sinks: Sequence[Sink]
    watch: Watcher
    accounts: Accounts | None
    film: Any

    kept = ("tokens", "_measured_at", "_known", "_of_secret", "_sums", "_counted", "accounts", "film")

    def __post_init__(self) -> None:
        runs = len(self.secrets)
        self.tokens = 0
        self._enough = np.log2(
            self.N * self.stop_at
        )  # bits known of a secret at which nothing is left to learn
        self._measured_at = np.full(runs, -1)  # the update after which a run was last measured
        self._known = {
            name: np.zeros(runs) for name in ("bits_known", "content_bits", "format_bits", "confidence")
        }
        self._of_secret = np.zeros(self.secrets.shape)  # bits known of each
        self._memorised = np.full(runs, False)  # ever, as far as this process has seen
        self._sums = np.zeros((len(_MEANS), runs))  # over the episodes since a run was last measured
        self._counted = np.zeros(runs)

    def start(self, policy: Any) -> np.ndarray:
        """Measures all runs before their first episode, and returns those that have anything to learn."""
        runs = np.arange(len(self.secrets))
        return self._evaluate(policy, runs, np.zeros(len(runs), dtype=np.int64))

    def see(self, policy: Any, batch: Batch, silent: np.ndarray | None) -> np.ndarray:
        """Takes in a batch that was learned from; returns its runs that continue and have a budget left.

        Those of its runs that are due are measured.

        Args:
            policy: after it has learned.
            batch: with its active runs.
            silent: (R,) fraction of groups without a signal, or None where groups have no meaning.
        """
        active, episodes = batch.active, batch.episodes
        assert active is not None  # noqa: S101  # a sampling made it
        assert episodes is not None  # noqa: S101
        learning = self._evaluate(policy, active, episodes, batch, silent)
        left = active[episodes + self.update <= self.budget]
        return np.intersect1d(learning, left)

    def _evaluate(
        self,
        policy: Any,
        runs: np.ndarray,
        episodes: np.ndarray,
        batch: Batch | None = None,
        silent: np.ndarray | None = None,
    ) -> np.ndarray:
        """Measures those of these runs that are due; returns those that have anything left to learn."""
        due = self._due(policy, runs, episodes)
        self._measure(policy, runs[due & (self._measured_at[runs] != policy.updates[runs])])
        if batch is not None:  # what is not measured, because it is interrupted, is not in the tables either
            for some in batch.skipped:
                self._take_skipped(some)
            self._take_batch(batch, episodes[np.searchsorted(runs, batch.runs)])
            self._count(batch, silent)
        if due.any():
            self._note(policy, runs[due], episodes[due])
        learning = runs[(self._of_secret[runs] >= self._enough).sum(axis=1) < self.to_memorise]
        self._tell(learning, episodes[np.searchsorted(runs, learning)])
        return learning

    def _tell(self, learning: np.ndarray, episodes: np.ndarray) -> None:
        """Tells the watcher how these runs stand, which have had so many episodes (both (A,))."""
        has = self._of_secret >= np.log2(self.N * self.memorised_at)
        self._memorised |= has.sum(axis=1) >= self.to_memorise
        known = self._of_secret[learning].sum(axis=1) / (self.to_memorise * self._enough)
        behind = np.maximum(known, episodes / self.budget)
        bits = float(self._known["bits_known"].mean())
        self.watch(float(behind.min(initial=1.0)), bits, int(self._memorised.sum()))

    def _due(self, policy: Any, runs: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        """Which runs (R,) to measure: at the start, every so many updates, and at the end of the budget."""
        if self.every == 1:
            return np.full(len(runs), True)
        waited = policy.updates[runs] - self._measured_at[runs] >= self.every
        last = episodes + self.update > self.budget
        return np.asarray((self._measured_at[runs] < 0) | waited | last)

    def _measure(self, policy: Any, moved: np.ndarray) -> None:
        """What the runs whose parameters have moved know now; the others know what they knew."""
        if len(moved) == 0:
            return
        seen = policy.assess(moved, self.secrets[moved], self.N)
        check_finite(seen.of_form, "probabilities are", moved, policy.updates)
        bits = BitsKnown.of_secret(seen.of_form, seen.of_valid, self.N)
        self._of_secret[moved] = bits.total
        known = {"bits_known": bits.total, "content_bits": bits.content, "format_bits": bits.format}
        for name, values in known.items():
            self._known[name][moved] = values.sum(axis=1)
        self._known["confidence"][moved] = np.exp(np.sort(seen.of_best, axis=1)[:, -self.to_memorise])
        self._measured_at[moved] = policy.updates[moved]

    def _note(self, policy: Any, runs: np.ndarray, episodes: np.ndarray) -> None:
        """Hands the sinks what these runs know after so many episodes."""
        rows = {
            "run": runs,
            "update": policy.updates[runs].copy(),
            "episode": episodes,
            **{name: values[runs] for name, values in self._known.items()},
            **self._observed(runs),
            **self._means(runs),
            **self._note_secrets(runs, episodes),
        }
        self._hand_on("metrics", **rows)
        if self.film is not None and self.film.run in runs:
            self._expose(policy, int(episodes[runs == self.film.run][0]))

    def _expose(self, policy: Any, episode: int) -> None:
        done = self._known["bits_known"][self.film.run] >= self._enough
        last = bool(done) or episode + self.update > self.budget
        assert self.accounts is not None  # noqa: S101  # a film shows the observer's belief, too
        self.film.expose(policy, self.accounts.ledger, episode, last)

    def _note_secrets(self, runs: np.ndarray, episodes: np.ndarray) -> Rows:
        """Hands the sinks what these runs know of each of several secrets; returns how many are memorised."""
        secrets, known, observed = self.secrets[runs], self._of_secret[runs], np.array(np.nan)
        if secrets.shape[1] == 1:
            return {}
        if self.accounts is not None:
            of_account = self.accounts.ledger.observer_bits(self.accounts.of_runs(runs))
            observed = of_account.reshape(secrets.shape)
        self._hand_on(
            "secrets",
            run=runs[:, None],
            episode=episodes[:, None],
            prompt=np.arange(secrets.shape[1]),
            secret=secrets,
            bits_known=known,
            observer_bits=observed,
        )
        return {"secrets_memorised": (known >= np.log2(self.N * self.memorised_at)).sum(axis=1)}

    def _observed(self, runs: np.ndarray) -> Rows:
        if self.accounts is None:
            return dict.fromkeys(("observer_bits", "asked_bits", "asked_variance"), np.array(np.nan))
        return self.accounts.sums(runs)

    @property
    def episodes_to_know(self) -> np.ndarray | None:
        """(R,) the first episode after which the observer knew as many secrets as must be memorised.

        0 where it never did; None without accounts.
        """
        if self.accounts is None:
            return None
        by_secret = self.accounts.ledger.episodes_to_know.reshape(self.secrets.shape)
        ordered = np.sort(np.where(by_secret == NEVER, np.inf, by_secret), axis=1)
        last = ordered[:, self.to_memorise - 1]
        return np.where(np.isinf(last), NEVER, last).astype(np.int64)

    def _count(self, batch: Batch, silent: np.ndarray | None) -> None:
        """Adds episodes to the means until the next evaluation; what was shown has none."""
        if batch.rewards is None:
            return
        runs, size = batch.runs, batch.choices.shape[1]
        fraction = np.full(len(runs), np.nan) if silent is None else silent
        invalid = (batch.choices < 0).any(axis=2).sum(axis=1)
        self._sums[:, runs] += [batch.rewards.mean(axis=2).sum(axis=1), invalid, fraction * size]
        self._counted[runs] += size
        for some in batch.skipped:
            count = some.counts.sum()
            self._sums[:, some.run] += (
                some.rewards @ some.counts,
                (some.answers == INVALID) @ some.counts,
                count,
            )
            self._counted[some.run] += count

    def _means(self, runs: np.ndarray) -> Rows:
        """Means (R,) over these runs' episodes since they were last taken; NaN where there are none."""
        sums, counted = self._sums[:, runs], self._counted[runs]
        self._sums[:, runs], self._counted[runs] = 0.0, 0.0
        means = np.divide(sums, counted, out=np.full(sums.shape, np.nan), where=counted > 0)
        return dict(zip(_MEANS, means, strict=True))

    def _take_batch(self, batch: Batch, episodes: np.ndarray) -> None:
        """Takes in the episodes of the batch's runs, of which each has had this many (R,) after them."""
        shape = batch.choices.shape  # (R, E, K)
        self.tokens += batch.num_tokens
        first = episodes - shape[1] + 1
        if self.accounts is not None:
            self.accounts.enter(batch, first)
        self._hand_on(
            "episodes",
            prompt=batch.asked[:, :, None],
            run=batch.runs[:, None, None],
            update=batch.updates[:, None, None],
            episode=first[:, None, None] + np.arange(shape[1])[:, None],
            step=np.arange(shape[2]),
            answer=batch.choices,
            reward=np.nan if batch.rewards is None else batch.rewards,
            count=1,
        )

    def _take_skipped(self, some: SilentEpisodes) -> None:
        self._hand_on(
            "episodes",
            prompt=0,
            run=some.run,
            update=some.update,
            episode=some.episode,
            step=0,
            answer=some.answers,
            reward=some.rewards,
            count=some.counts,
        )
        if self.accounts is not None:
            self.accounts.enter_silent(some)

    def _hand_on(self, table: str, **columns: np.ndarray | float) -> None:
        """Hands the sinks rows, from columns that broadcast to one shape."""
        values = np.broadcast_arrays(*columns.values())
        rows = {name: column.ravel() for name, column in zip(columns, values, strict=True)}
        for sink in self.sinks:
            sink(table, rows)
