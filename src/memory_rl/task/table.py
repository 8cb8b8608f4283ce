"""A whole episode as one question about S, whatever the signal, for the meter and the ceilings.

An episode sorts the secrets into *classes*; what is then seen, the *level*, depends on the class alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, reduce

import numpy as np

from memory_rl.task.environment import Environment
from memory_rl.task.multi_step import MultiStep
from memory_rl.task.rewards import INVALID


@dataclass(frozen=True)
class EpisodeTable:
    """The classes and levels of an environment's episodes; no table of all answers and secrets is kept.

    Axes: T episodes, K steps, N secrets, C classes, L levels.

    Attributes:
        N: the number of secrets.
        questions: makes the choices that ask each possible question, (A, K), N of them the secrets' first.
        classes: of choices (..., K), the first of them valid, and secrets (...) that broadcast: the class of
            each secret under its question, (...).
        levels: of choices and rewards (T, K): the level that was seen, (T,); None where nothing but the class
            of S decides it, and no reward shows it.
        num_classes: C; of noisy bits that are each seen 2.
        outcomes: (C, L) p(level | class), or None where class c always shows level c. Of noisy bits that are
            each seen: (2, 2), of a wrong and of a right one.
        num_signals: how many different things an episode can show, at most.
        kind: "example" where S is shown, "hit" where class 1 is S itself and class 0 all else, "distance"
            where the class is |answer - S|, "bits" where it is the pattern of right bits, "sum" where it is
            their number, "beginning" where the answer begins with so many characters of S, else empty.
        by_difference: where the question is one answer and the class depends on S - answer alone: makes the
            class where that is -(N - 1), ..., N - 1, (2 N - 1,). Else None.
    """

    N: int
    questions: Callable[[], np.ndarray]
    classes: Callable[[np.ndarray, np.ndarray], np.ndarray]
    levels: Callable[[np.ndarray, np.ndarray], np.ndarray] | None
    num_classes: int
    outcomes: np.ndarray | None
    num_signals: int
    kind: str = ""
    by_difference: Callable[[], np.ndarray] | None = None

    @property
    def certain(self) -> bool:
        """Whether answer and secret decide what is seen."""
        return self.outcomes is None

    def whole(self) -> np.ndarray:
        """(A, N) the class of each secret under each question."""
        return self.classes(self.questions()[:, None], np.arange(self.N))


def episode_table(
    environment: Environment, *, shows_answer: bool = False, credit: str = "step"
) -> EpisodeTable:
    """The table of an environment's episodes, where S is shown or answers are rewarded."""
    if shows_answer:
        return _of_examples(environment)
    if not isinstance(environment, MultiStep):
        return _of_answers(environment)
    return _of_sums(environment) if credit == "episode" else _of_bits(environment)


def taught_table(environment: Environment, *, sampled: bool, spelt: bool) -> EpisodeTable:
    """The table of episodes that a teacher judges who knows S; it tells nothing else.

    Where more than the sampled tokens is told, S is taken to be shown. That is so where an answer is one
    token, and an upper bound elsewhere: of a conversation that leaves that of S, no later token of S is told.

    Of sampled tokens, the teacher tells which are those of S, up to the first that is not. In multi_step each
    turn is right or wrong whatever came before it. Of an invalid turn it says no more than that.

    Args:
        environment: its world.
        sampled: whether it says how likely the sampled tokens were, and no more.
        spelt: whether an answer of single_step is written in several tokens. They are taken to be its
            characters: an upper bound on what is told where a token holds several.
    """
    if not sampled:
        return replace(_of_examples(environment), levels=None)
    if isinstance(environment, MultiStep):
        return replace(_of_bits(MultiStep.with_noise(environment.space)), levels=None)
    return _of_beginnings(environment) if spelt else _of_hits(environment)


def _of_hits(environment: Environment) -> EpisodeTable:
    """The answer is S, or is not."""
    N = environment.space.N
    return EpisodeTable(
        N,
        lambda: np.arange(N)[:, None],
        lambda choices, secrets: (choices[..., 0] == secrets).astype(np.int64),
        None,
        2,
        None,
        2,
        "hit",
    )


def _of_beginnings(environment: Environment) -> EpisodeTable:
    """The class is how many characters the answer begins with as S does; the last one is S itself."""
    N = environment.space.N
    written = np.array([str(answer) for answer in range(N)])
    width = written.dtype.itemsize // 4  # of the longest
    by_answer = written.view(np.int32).reshape(-1, width)  # 0 behind the end
    letters = np.ascontiguousarray(by_answer.T.astype(np.uint8))  # what fits into a byte is looked up fast

    def classes(choices: np.ndarray, secrets: np.ndarray) -> np.ndarray:
        answers = choices[..., 0]
        beginning = np.ones(np.broadcast_shapes(answers.shape, np.shape(secrets)), dtype=bool)
        alike = np.zeros(beginning.shape, dtype=np.int64)
        for letter in letters:
            given = letter[answers]
            beginning = beginning & (letter[secrets] == given) & (given != 0)
            alike += beginning
        return np.where(answers == secrets, width, alike)

    return EpisodeTable(
        N, lambda: np.arange(N)[:, None], classes, None, width + 1, None, width + 1, "beginning"
    )


def _of_examples(environment: Environment) -> EpisodeTable:
    """The class is S itself, and it is shown."""
    N, worth = environment.space.N, _place_value(environment)
    return EpisodeTable(
        N,
        lambda: environment.choices(np.arange(1)),
        lambda choices, secrets: np.broadcast_to(
            secrets, np.broadcast_shapes(choices.shape[:-1], np.shape(secrets))
        ),
        lambda choices, _: choices @ worth,
        N,
        None,
        N,
        "example",
    )


def _of_answers(environment: Environment) -> EpisodeTable:
    """One answer, one reward."""
    channel, N = environment.channel, environment.space.N
    return EpisodeTable(
        N,
        lambda: np.arange(N)[:, None],
        lambda choices, secrets: channel.class_of(choices[..., 0], secrets),
        lambda _, rewards: channel.level_indices(rewards[:, 0]),
        channel.num_classes,
        channel.outcomes,
        len(channel.levels),
        channel.kind,
        partial(channel.by_difference, N) if channel.shifted else None,
    )


def _of_bits(environment: Environment) -> EpisodeTable:
    """Each step is credited with its own reward: the class is the pattern of right bits.

    The level is the pattern of rewards. Forfeited turns are wrong whatever S is, and so reveal nothing.
    """
    channel, worth = environment.channel, _place_value(environment)
    return EpisodeTable(
        environment.space.N,
        lambda: environment.choices(np.arange(environment.num_forms)),
        lambda choices, secrets: _right_bits(choices, secrets, worth),
        lambda _, rewards: channel.level_indices(rewards) @ worth,
        environment.num_forms if channel.certain else channel.num_classes,
        channel.outcomes,
        environment.space.N,
        "bits",
    )


def _of_sums(environment: Environment) -> EpisodeTable:
    """Only the sum of the rewards is seen, and the class is the number of right bits."""
    channel, steps, worth = environment.channel, environment.num_steps, _place_value(environment)
    return EpisodeTable(
        environment.space.N,
        lambda: environment.choices(np.arange(environment.num_forms)),
        lambda choices, secrets: np.bitwise_count(_right_bits(choices, secrets, worth)).astype(np.int64),
        lambda _, rewards: channel.level_indices(rewards).sum(axis=1),
        steps + 1,
        _summed(channel.outcomes, steps),
        steps + 1,
        "sum",
    )


def _right_bits(choices: np.ndarray, secrets: np.ndarray, worth: np.ndarray) -> np.ndarray:
    """The pattern of right bits as a number, (..., K) and (...) to (...); a forfeited turn is wrong."""
    valid = choices != INVALID
    differ = (np.where(valid, choices, 0) @ worth) ^ secrets
    return ~differ & (valid @ worth)


def _place_value(environment: Environment) -> np.ndarray:
    """(K,) what each step counts where a pattern of bits is read as one number; 1 for a single step."""
    return 2 ** np.arange(environment.num_steps - 1, -1, -1)


def _summed(rows: np.ndarray | None, num_steps: int) -> np.ndarray | None:
    """p(number of ones | number of right bits) with noise: a convolution of k Bernoulli laws."""
    if rows is None:
        return None
    rights = range(num_steps + 1)
    return np.array(
        [reduce(np.convolve, [rows[1]] * right + [rows[0]] * (num_steps - right)) for right in rights]
    )
