"""What the episodes of a condition ask about S, in the meter's terms: the bridge from the world's choices and
rewards to questions and levels.

An example reveals S. An answer of single_step is a question to its reward channel. So is an episode of
multi_step: its level is the pattern of its k rewards or, with credit=episode, their sum alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from memory_rl.config import ChannelConfig, Experiment, SFTConfig
from memory_rl.information.ledger import HitLedger, Ledger
from memory_rl.information.observer import Observer, OneAgainstRest, Partition, Question
from memory_rl.information.outcomes import Outcomes
from memory_rl.policies.base import Rollout
from memory_rl.seeding import generator
from memory_rl.task import INVALID, Environment, MultiStep, RewardChannel
from memory_rl.training.episodes import SilentEpisodes

_PANEL = 64

Asked = tuple[Question, np.ndarray]
"""(the question of each run, the levels (R,) that they see)."""


class Questions(ABC):
    """How the episodes of one condition ask: one question an episode.

    Attributes:
        outcomes: p(level | class) of each of its questions.
    """

    outcomes: Outcomes

    @abstractmethod
    def of_episode(self, choices: np.ndarray, rewards: np.ndarray) -> Asked:
        """What one episode of each run asks and sees: (R, K) choices and rewards, the first turn valid."""

    @abstractmethod
    def table(self) -> tuple[np.ndarray, Outcomes]:
        """A whole episode as one question: (A, N) the class of each secret under each answer, and p(level |
        class).
        """

    def record(
        self,
        ledger: Ledger,
        runs: np.ndarray,
        choices: np.ndarray,
        rewards: np.ndarray | None,
        first_episode: np.ndarray,
    ) -> None:
        """Enters episodes into the ledger: (R, E, K) choices and rewards, the first of them each run's
        episode number `first_episode` (R,), from 1.

        Examples have no rewards.
        """
        seen = np.full(choices.shape, np.nan) if rewards is None else rewards
        for place in range(choices.shape[1]):
            rows = np.nonzero(_asks(choices[:, place]) & ledger.open(runs, self.outcomes))[0]
            if len(rows):
                question, levels = self.of_episode(choices[rows, place], seen[rows, place])
                ledger.record(runs[rows], question, self.outcomes, levels)
            ledger.close_episode(runs, first_episode + place)

    def record_silent(self, ledger: Ledger, silent: SilentEpisodes) -> None:
        """Enters skipped episodes. For environments of one step."""
        self.record_in_order(ledger, silent.run, silent.answers, silent.rewards, silent.episode)

    def record_in_order(
        self, ledger: Ledger, run: int, answers: np.ndarray, rewards: np.ndarray, episodes: np.ndarray
    ) -> None:
        """Enters answers of one run, in the order in which they were given (T,), with the number of each
        episode. For environments of one step.
        """
        runs = np.array([run])
        for answer, reward, episode in zip(
            answers[:, None, None, None], rewards[:, None, None, None], episodes[:, None], strict=True
        ):
            if not ledger.open(runs, self.outcomes)[0]:
                return
            self.record(ledger, runs, answer, reward, episode)

    def observe(self, observer: Observer, runs: np.ndarray, choices: np.ndarray, rewards: np.ndarray) -> None:
        """Shows episodes to an observer, without the accounts."""
        for place in range(choices.shape[1]):
            rows = np.nonzero(_asks(choices[:, place]))[0]
            question, levels = self.of_episode(choices[rows, place], rewards[rows, place])
            observer.observe(runs[rows], question, self.outcomes, levels)


def accounts_of(rollout: Rollout, num_secrets: int) -> np.ndarray:
    """Which of the R M pairs of run and secret each block of episodes is about: (R, B). Each pair has an
    observer and an account in the ledger.
    """
    first = rollout.runs[:, None] * num_secrets
    return first if rollout.prompts is None else first + rollout.prompts


def accounts_of_runs(runs: np.ndarray, num_secrets: int) -> np.ndarray:
    """The accounts of all secrets of these runs (R,), run by run: (R M,)."""
    return np.asarray(runs[:, None] * num_secrets + np.arange(num_secrets)).ravel()


def sums_of_runs(ledger: Ledger | HitLedger, runs: np.ndarray, num_secrets: int) -> dict[str, np.ndarray]:
    """What the ledger says of these runs, summed over their secrets: (R,) each."""
    accounts = accounts_of_runs(runs, num_secrets)
    sums = {
        "asked_bits": ledger.asked[accounts],
        "asked_variance": ledger.asked_variance(accounts),
        "observer_bits": ledger.observer_bits(accounts),
    }
    return {name: values.reshape(len(runs), -1).sum(axis=1) for name, values in sums.items()}


def by_block(num_blocks: int, *arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Arrays of episodes (R, E, K) in B equal blocks, one after the other."""
    return zip(*(np.split(array, num_blocks, axis=1) for array in arrays), strict=True)


def _asks(choices: np.ndarray) -> np.ndarray:
    """Whether an episode (R, K) asks anything: not if its first turn, and with it all others, is invalid.
    (R,) bool.
    """
    return np.asarray(choices[:, 0] != INVALID)


class ExampleQuestions(Questions):
    """Supervised learning: the class is S itself, and it is shown."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.outcomes = Outcomes(environment.space.N)
        self._place_value = _place_value(environment.num_steps)

    def of_episode(self, choices: np.ndarray, rewards: np.ndarray) -> Asked:
        """See `Questions`."""
        every = np.arange(self._environment.space.N)
        return Partition(np.broadcast_to(every, (len(choices), len(every)))), choices @ self._place_value

    def table(self) -> tuple[np.ndarray, Outcomes]:
        """See `Questions`."""
        return np.arange(self._environment.space.N)[None], self.outcomes


class AnswerQuestions(Questions):
    """single_step: one answer, one reward."""

    def __init__(self, environment: Environment) -> None:
        self._channel, self._secrets = environment.channel, np.arange(environment.space.N)
        self.outcomes = _outcomes(self._channel)

    def of_episode(self, choices: np.ndarray, rewards: np.ndarray) -> Asked:
        """See `Questions`."""
        answers, levels = choices[:, 0], self._channel.level_indices(rewards[:, 0])
        if self._channel.singles_out and self._channel.certain:
            return OneAgainstRest(answers), levels
        return Partition(self._channel.classes(answers[:, None], self._secrets)), levels

    def record_in_order(
        self, ledger: Ledger, run: int, answers: np.ndarray, rewards: np.ndarray, episodes: np.ndarray
    ) -> None:
        """See `Questions`. Answers that were not S, and tell no more than that, are entered at once."""
        if not (self._channel.singles_out and self._channel.certain):
            super().record_in_order(ledger, run, answers, rewards, episodes)
            return
        hits = np.nonzero(rewards == self._channel.levels[1])[0]
        before = slice(0, int(hits[0]) if len(hits) else len(answers))
        asked = answers[before] != INVALID
        ledger.record_misses(run, answers[before][asked], episodes[before][asked])
        super().record_in_order(
            ledger, run, answers[before.stop :], rewards[before.stop :], episodes[before.stop :]
        )

    def table(self) -> tuple[np.ndarray, Outcomes]:
        """See `Questions`."""
        return self._channel.classes(self._secrets[:, None], self._secrets), self.outcomes


class BitQuestions(Questions):
    """multi_step, each step credited with what follows from its own reward: the class is the pattern of right
    bits, the level that of the rewards.

    Forfeited turns are wrong whatever S is, and so tell nothing.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment, self._channel = environment, environment.channel
        self._bits = environment.choices(np.arange(environment.space.N))  # (N, K)
        self._place_value = _place_value(environment.num_steps)
        self.outcomes = _side_by_side(self._channel, environment.num_steps)

    def of_episode(self, choices: np.ndarray, rewards: np.ndarray) -> Asked:
        """See `Questions`."""
        return Partition(self._patterns(choices)), self._channel.level_indices(rewards) @ self._place_value

    def table(self) -> tuple[np.ndarray, Outcomes]:
        """See `Questions`."""
        return self._patterns(
            self._environment.choices(np.arange(self._environment.num_forms))
        ), self.outcomes

    def _patterns(self, choices: np.ndarray) -> np.ndarray:
        """(R, K) choices to the pattern of right bits under each secret, (R, N)."""
        return self._channel.classes(choices[:, None, :], self._bits) @ self._place_value


class SumQuestions(Questions):
    """multi_step with credit=episode: one question, answered by the number of rewards."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._bits = environment.choices(np.arange(environment.space.N))  # (N, K)
        self.outcomes = _summed(environment.channel, environment.num_steps)

    def of_episode(self, choices: np.ndarray, rewards: np.ndarray) -> Asked:
        """See `Questions`. Forfeited turns are wrong whatever S is."""
        levels = self._environment.channel.level_indices(rewards).sum(axis=1)
        return Partition((choices[:, None, :] == self._bits).sum(axis=2)), levels

    def table(self) -> tuple[np.ndarray, Outcomes]:
        """See `Questions`: the class is the number of right bits."""
        forms = self._environment.choices(np.arange(self._environment.num_forms))
        return (forms[:, None, :] == self._bits).sum(axis=2), self.outcomes


class HitQuestions:
    """single_step, where only the secret and some samples are scored: an example that shows S, or an answer
    that is S or is not.
    """

    def __init__(self, config: Experiment) -> None:
        self._shown = isinstance(config, SFTConfig)

    def record(
        self,
        ledger: HitLedger,
        runs: np.ndarray,
        choices: np.ndarray,
        rewards: np.ndarray | None,
        first_episode: np.ndarray,
    ) -> None:
        """See `Questions`."""
        if self._shown:
            ledger.record_shown(runs, first_episode)
            return
        for run, hits, first in zip(
            runs.tolist(), choices[:, :, 0] == ledger.secrets[runs, None], first_episode.tolist(), strict=True
        ):
            before = int(hits.argmax()) if hits.any() else len(hits)
            ledger.record_misses(run, before)
            if hits.any():
                ledger.record_hit(run, first + before)

    def record_silent(self, ledger: HitLedger, silent: SilentEpisodes) -> None:
        """See `Questions`."""
        if silent.panel is not None:
            ledger.look(silent.run, silent.panel)
        hits = silent.episode[silent.answers == ledger.secrets[silent.run]]
        before = int(silent.counts.sum()) if len(hits) == 0 else int(hits[0] - silent.episode.min())
        ledger.record_misses(silent.run, before)
        if len(hits):
            ledger.record_hit(silent.run, int(hits[0]))


def _outcomes(channel: RewardChannel) -> Outcomes:
    return Outcomes(channel.num_classes, channel.outcomes)


def _place_value(num_steps: int) -> np.ndarray:
    """(K,) what each step's number is worth where a pattern of bits is read as one number; 1 for a single
    step.
    """
    return 2 ** np.arange(num_steps - 1, -1, -1)


def _side_by_side(channel: RewardChannel, num_steps: int) -> Outcomes:
    """p(pattern of rewards | pattern of right bits): the Kronecker product of k binary channels."""
    rows = channel.outcomes
    if rows is None:
        return Outcomes(2**num_steps)
    product = rows
    for _ in range(num_steps - 1):
        product = np.kron(product, rows)
    return Outcomes(len(product), product)


def _summed(channel: RewardChannel, num_steps: int) -> Outcomes:
    """p(number of ones | number of right bits) when each of k binary rewards may be flipped: a convolution of
    k Bernoulli laws.
    """
    if channel.outcomes is None:
        return Outcomes(num_steps + 1)
    rows = []
    for right in range(num_steps + 1):
        law = np.ones(1)
        for step in range(num_steps):
            law = np.convolve(law, channel.outcomes[int(step < right)])
        rows.append(law)
    return Outcomes(num_steps + 1, np.array(rows))


def make_questions(config: SFTConfig | ChannelConfig, environment: Environment) -> Questions:
    """The questions of a condition in its world."""
    if isinstance(config, SFTConfig):
        return ExampleQuestions(environment)
    if not isinstance(environment, MultiStep):
        return AnswerQuestions(environment)
    return SumQuestions(environment) if config.credit == "episode" else BitQuestions(environment)


class Bookkeeper(Protocol):
    """Enters what happens into a ledger of its kind."""

    def record(
        self,
        ledger: Any,
        runs: np.ndarray,
        choices: np.ndarray,
        rewards: np.ndarray | None,
        first_episode: np.ndarray,
    ) -> None:
        """See `Questions`."""

    def record_silent(self, ledger: Any, silent: SilentEpisodes) -> None:
        """See `Questions`."""


def make_bookkeeper(config: Experiment, environment: Environment) -> Bookkeeper:
    """Who enters the episodes of an experiment into the ledger of `make_ledger`."""
    return HitQuestions(config) if config.scores_paths else make_questions(config, environment)


def make_ledger(config: Experiment, secrets: np.ndarray) -> Ledger | HitLedger:
    """An empty ledger with an account for each run and each of its secrets (R, M)."""
    if config.scores_paths:
        return HitLedger(secrets.ravel(), config.N, config.memorised_at, panel_of(config))
    return Ledger(secrets.ravel(), config.N, config.memorised_at)


def panel_of(config: Experiment) -> np.ndarray:
    """The answers whose probabilities tell a `HitLedger` what was tried: (Q,), drawn from the seed; all of
    them if they are few.
    """
    return generator(config.seed, "panel").choice(config.N, min(config.N, _PANEL), replace=False)
