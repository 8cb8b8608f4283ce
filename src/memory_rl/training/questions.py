"""What the episodes of a condition ask about S, in the meter's terms: the bridge from the world's choices and rewards to questions and levels.

An example reveals S. An answer of single_step is one question to its reward channel. An episode of multi_step is k questions, one a bit, asked one after
the other; with credit=episode it is a single question, whose level is the sum of the rewards: how many bits were right.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

from memory_rl.config import ChannelConfig, Experiment, SFTConfig
from memory_rl.information.ledger import Ledger
from memory_rl.information.observer import Observer, OneAgainstRest, Partition, Question
from memory_rl.information.outcomes import Outcomes
from memory_rl.task import INVALID, Environment, MultiStep, RewardChannel

Asked = tuple[np.ndarray, Question, np.ndarray]
"""(rows that ask, their question, the levels that they see)."""


class Questions(ABC):
    """How the episodes of one condition ask.

    Attributes:
        outcomes: p(level | class) of each of its questions.
    """

    outcomes: Outcomes

    @abstractmethod
    def of_episode(self, choices: np.ndarray, rewards: np.ndarray | None) -> Iterator[Asked]:
        """The questions of one episode of each run, in their order: (R, K) choices and rewards. Invalid turns ask nothing."""

    @abstractmethod
    def table(self) -> tuple[np.ndarray, Outcomes]:
        """A whole episode as one question: (A, N) the class of each secret under each answer, and p(level | class)."""

    def record(self, ledger: Ledger, runs: np.ndarray, choices: np.ndarray, rewards: np.ndarray | None, first_episode: int) -> None:
        """Enters episodes into the ledger: (R, E, K) choices and rewards, the first of them the run's episode number `first_episode` (from 1)."""
        for place in range(choices.shape[1]):
            for rows, question, levels in self.of_episode(choices[:, place], None if rewards is None else rewards[:, place]):
                ledger.record(runs[rows], question, self.outcomes, levels)
            ledger.close_episode(runs, first_episode + place)

    def observe(self, observer: Observer, runs: np.ndarray, choices: np.ndarray, rewards: np.ndarray) -> None:
        """Shows episodes to an observer, without the accounts."""
        for place in range(choices.shape[1]):
            for rows, question, levels in self.of_episode(choices[:, place], rewards[:, place]):
                observer.observe(runs[rows], question, self.outcomes, levels)


class ExampleQuestions(Questions):
    """Supervised learning: the class is S itself, and it is shown."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.outcomes = Outcomes(environment.space.N)
        self._place_value = 2 ** np.arange(environment.num_steps - 1, -1, -1) if environment.num_steps > 1 else np.ones(1, dtype=np.int64)

    def of_episode(self, choices: np.ndarray, rewards: np.ndarray | None) -> Iterator[Asked]:
        """See `Questions`."""
        every = np.arange(self._environment.space.N)
        yield np.arange(len(choices)), Partition(np.broadcast_to(every, (len(choices), len(every)))), choices @ self._place_value

    def table(self) -> tuple[np.ndarray, Outcomes]:
        """See `Questions`."""
        return np.arange(self._environment.space.N)[None], self.outcomes


class AnswerQuestions(Questions):
    """single_step: one answer, one reward."""

    def __init__(self, environment: Environment) -> None:
        self._channel, self._secrets = environment.channel, np.arange(environment.space.N)
        self.outcomes = _outcomes(self._channel)

    def of_episode(self, choices: np.ndarray, rewards: np.ndarray | None) -> Iterator[Asked]:
        """See `Questions`."""
        assert rewards is not None  # noqa: S101  # reinforcement learning always has rewards
        rows = np.nonzero(choices[:, 0] != INVALID)[0]
        answers, levels = choices[rows, 0], self._channel.level_indices(rewards[rows, 0])
        question = (
            OneAgainstRest(answers)
            if self._channel.singles_out and self._channel.certain
            else Partition(self._channel.classes(answers[:, None], self._secrets))
        )
        yield rows, question, levels

    def table(self) -> tuple[np.ndarray, Outcomes]:
        """See `Questions`."""
        return self._channel.classes(self._secrets[:, None], self._secrets), self.outcomes


class BitQuestions(Questions):
    """multi_step, each step credited with what follows from its own reward: k questions."""

    def __init__(self, environment: Environment) -> None:
        self._environment, self._channel = environment, environment.channel
        self._bits = environment.choices(np.arange(environment.space.N))  # (N, K)
        self.outcomes = _outcomes(self._channel)

    def of_episode(self, choices: np.ndarray, rewards: np.ndarray | None) -> Iterator[Asked]:
        """See `Questions`."""
        assert rewards is not None  # noqa: S101
        for step in range(choices.shape[1]):
            rows = np.nonzero(choices[:, step] != INVALID)[0]
            classes = self._channel.classes(choices[rows, step, None], self._bits[:, step])
            yield rows, Partition(classes), self._channel.level_indices(rewards[rows, step])

    def table(self) -> tuple[np.ndarray, Outcomes]:
        """See `Questions`: the class is the pattern of right bits."""
        forms = self._environment.choices(np.arange(self._environment.num_forms))
        right = self._channel.classes(forms[:, None, :], self._bits)  # (F, N, K)
        classes = right @ (2 ** np.arange(forms.shape[1] - 1, -1, -1))
        rows = self._channel.outcomes
        if rows is None:
            return classes, Outcomes(2 ** forms.shape[1])
        every_step = rows
        for _ in range(forms.shape[1] - 1):
            every_step = np.kron(every_step, rows)
        return classes, Outcomes(len(every_step), every_step)


class SumQuestions(Questions):
    """multi_step with credit=episode: one question, answered by the number of rewards."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._bits = environment.choices(np.arange(environment.space.N))  # (N, K)
        self.outcomes = _summed(environment.channel, environment.num_steps)

    def of_episode(self, choices: np.ndarray, rewards: np.ndarray | None) -> Iterator[Asked]:
        """See `Questions`. Forfeited turns are wrong whatever S is."""
        assert rewards is not None  # noqa: S101
        levels = self._environment.channel.level_indices(rewards).sum(axis=1)
        yield np.arange(len(choices)), Partition((choices[:, None, :] == self._bits).sum(axis=2)), levels

    def table(self) -> tuple[np.ndarray, Outcomes]:
        """See `Questions`: the class is the number of right bits."""
        forms = self._environment.choices(np.arange(self._environment.num_forms))
        return (forms[:, None, :] == self._bits).sum(axis=2), self.outcomes


def _outcomes(channel: RewardChannel) -> Outcomes:
    return Outcomes(channel.num_classes, channel.outcomes)


def _summed(channel: RewardChannel, num_steps: int) -> Outcomes:
    """p(number of ones | number of right bits) when each of k binary rewards may be flipped: a convolution of k Bernoulli laws."""
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


def make_ledger(config: Experiment, secrets: np.ndarray) -> Ledger:
    """An empty ledger for a population with these secrets (R,)."""
    return Ledger(secrets, config.N, config.memorised_at)
