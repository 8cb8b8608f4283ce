"""A user's own rewards: a function or class, tabulated once into a `RewardChannel`.

All that it has to give is the reward of an answer, given the secret: a number, or, where chance plays a part,
a mapping from rewards to their probabilities. docs/own_reward.md describes how to write one.
"""

from __future__ import annotations

import inspect
import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from memory_rl.errors import ConfigError, one_line
from memory_rl.limits import MAX_TABULATED_N
from memory_rl.own_code import load_object, reason_of
from memory_rl.task.rewards import RewardChannel

Reward = Callable[[int, int], "float | Mapping[float, float]"]
"""(answer, secret) to a reward, or to the probability of each reward that may come."""

_Law = tuple[tuple[float, float], ...]
"""The distribution of one reward: (reward, probability > 0), ascending."""

_REPEATS = (2**12, 2**16)
"""The fewest and the most calls that are repeated, and must give what they gave before."""

_TOLERANCE = 1e-9
_MOST_LAWS = 2**20
_MOST_CELLS = 2**24
"""The largest table p(level | class): with more distributions or cells it would fill the memory."""


def load_reward(reference: str) -> Any:
    """The function, class or object that `file.py:Name` names.

    Raises:
        ConfigError: if there is none.
    """
    return load_object(reference, "reward_type", "def my_reward(answer, secret)")


def as_reward(given: Any, N: int, name: str) -> Reward:
    """The reward that a function, a class or an object stands for.

    A function is called as reward(answer, secret); if its only parameter without a default is named distance
    or difference, it is called with |answer - secret| or answer - secret instead. A class is made first and
    then, like an object, asked its `reward` method, or itself if it is callable. A parameter named N, of the
    function, the method or the class, gets N.

    Raises:
        ConfigError: if it is none of these, the class cannot be made, or the call takes other parameters.
    """
    if inspect.isclass(given):
        try:
            given = given(**_wants_N(given, N))
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"reward_type={name} cannot be made ({reason_of(error)}): the class is given N, "
                "if it has a parameter of that name, and nothing else, so give all others defaults."
            ) from error
    method = getattr(given, "reward", None)
    called = method if callable(method) else given
    if not callable(called):
        raise ConfigError(
            f"reward_type={name} is not a reward: give a function reward(answer, secret), "
            "or a class with such a method."
        )
    options = _wants_N(called, N)
    if (only := _only_parameter(called)) in ("distance", "difference"):
        return OfDifference(partial(called, **options), signed=only == "difference")
    if [one for one in _signature(called).parameters if one != "N"][:2] == ["secret", "answer"]:
        raise ConfigError(
            f"reward_type={name} takes secret, then answer, and is called as reward(answer, secret): "
            "write its parameters in that order."
        )
    try:
        _signature(called).bind(0, 0, **options)
    except TypeError as error:
        raise ConfigError(
            f"reward_type={name} cannot be called as reward(answer, secret) ({error}): "
            "give it these two parameters, and N if it needs to know it."
        ) from None
    return partial(called, **options) if options else called


@dataclass(frozen=True)
class OfDifference:
    """A reward that depends on nothing but how far, or how far and in which direction, the answer is from S.

    Attributes:
        reward: of |answer - S|, or of answer - S if `signed`.
        signed: whether the direction matters.
    """

    reward: Callable[[int], float | Mapping[float, float]]
    signed: bool

    def __call__(self, answer: int, secret: int) -> float | Mapping[float, float]:
        """As of any other reward."""
        return self.reward(answer - secret if self.signed else abs(answer - secret))

    def answers(self, N: int) -> list[int]:
        """Answers that, under all secrets, show each reward."""
        return [0, N - 1] if self.signed else [0]

    def by_difference(self, rows: np.ndarray) -> np.ndarray:
        """What stands in the rows (A', N) of these answers where S - answer is -(N - 1), ..., N - 1."""
        return np.append(rows[1] if self.signed else rows[0, ::-1], rows[0, 1:])


def _only_parameter(called: Callable[..., Any]) -> str | None:
    """The name of the only parameter that has no default, but for N."""
    needed = [
        one.name
        for one in _signature(called).parameters.values()
        if one.default is one.empty and one.name != "N" and one.kind is not one.VAR_KEYWORD
    ]
    return needed[0] if len(needed) == 1 else None


def _wants_N(called: Callable[..., Any], N: int) -> dict[str, int]:
    return {"N": N} if "N" in _signature(called).parameters else {}


def _signature(called: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(called)
    except (TypeError, ValueError):  # some built-in functions have none; calling them shows what they take
        return inspect.signature(lambda *_: None)


def tabulate(reward: Reward, N: int, name: str) -> RewardChannel:
    """Asks for the reward of every answer under every secret, and makes a channel of it.

    Rewards are compared exactly: two that differ by rounding are two levels. One that depends on a difference
    is asked for each difference.

    Raises:
        ConfigError: if a reward is not a finite number, its probabilities do not form a distribution, it
            changes from call to call, nothing can be learned from it, or there are too many pairs to ask for.
    """
    if N > MAX_TABULATED_N and not isinstance(reward, OfDifference):
        raise ConfigError(
            f"reward_type={name} would be asked for each of the {N} x {N} pairs at N={N}: use "
            f"N={MAX_TABULATED_N} or less, or a reward whose only parameter is distance or difference."
        )
    answers = reward.answers(N) if isinstance(reward, OfDifference) else [*range(N)]
    sure = np.empty((len(answers), N))  # the reward, NaN where chance plays a part
    law_of, laws = np.zeros(sure.shape, dtype=np.int32), dict[_Law, int]()
    as_law = lru_cache(_REPEATS[1])(_law)
    for place, answer in enumerate(answers):
        row = _ask_all(reward, answer, N, name)
        numbers = _plain(row)
        if numbers is not None:
            sure[place] = numbers
            continue
        for secret, given in enumerate(row):
            law = _law_at(as_law, given, answer, secret, name)
            sure[place, secret] = law[0][0] if len(law) == 1 else np.nan
            if len(law) > 1:
                law_of[place, secret] = laws.setdefault(law, len(laws))
        if len(laws) > _MOST_LAWS:
            raise _too_large(name, N)
    _check_repeats(reward, answers, sure, law_of, list(laws), name)
    levels, classes, outcomes = _table(sure, law_of, list(laws), name)
    if (classes == classes[:, :1]).all():
        raise ConfigError(
            f"reward_type={name} does not depend on the secret at N={N}, so that nothing can be learned: "
            "reward some secrets differently."
        )
    if isinstance(reward, OfDifference):
        classes = reward.by_difference(classes)
    return from_table(name, levels, classes, outcomes)


def from_table(
    name: str, levels: np.ndarray, classes: np.ndarray, outcomes: np.ndarray | None
) -> RewardChannel:
    """The `RewardChannel` with this table.

    Args:
        name: what files call it.
        levels: (L,).
        classes: (N, N) by answer and secret, or (2 N - 1,) where S - answer is -(N - 1), ..., N - 1.
        outcomes: (C, L), or None.
    """
    if classes.ndim == 1:
        return _from_differences(name, levels, classes, outcomes)
    kind = "hit" if np.array_equal(classes, np.eye(*classes.shape, dtype=bool)) else ""
    shifted = np.array_equal(classes[1:, 1:], classes[:-1, :-1])
    return RewardChannel(
        name, levels, lambda answers, secrets: classes[answers, secrets], outcomes, kind, shifted
    )


def _from_differences(
    name: str, levels: np.ndarray, classes: np.ndarray, outcomes: np.ndarray | None
) -> RewardChannel:
    N = (len(classes) + 1) // 2
    hit = np.array_equal(classes, np.arange(1 - N, N) == 0)
    reveals = outcomes is None and np.array_equal(classes, classes[::-1]) and len(levels) == N
    return RewardChannel(
        name,
        levels,
        lambda answers, secrets: classes[secrets - answers + N - 1],
        outcomes,
        "hit" if hit else "distance" if reveals else "",
        shifted=True,
    )


def table_of(channel: RewardChannel, N: int) -> np.ndarray:
    """As `from_table` takes them: (N, N) up to the largest N of which all pairs are asked for."""
    if N > MAX_TABULATED_N:
        return channel.by_difference(N)
    every = np.arange(N)
    return channel.classes(every[:, None], every)


def _ask_all(reward: Reward, answer: int, N: int, name: str) -> list[Any]:
    """The reward of an answer under each secret."""
    row: list[Any] = []
    try:
        for secret in range(N):
            row.append(reward(answer, secret))  # its length shows where the reward failed
    except (Exception, SystemExit) as error:
        raise _failed(error, answer, len(row), name) from error
    return row


def _plain(row: list[Any]) -> np.ndarray | None:
    """The row as float64, if it holds nothing but finite numbers."""
    try:
        numbers = np.array(row)
    except Exception:  # whatever NumPy raises about what it does not know
        return None
    if numbers.ndim != 1 or numbers.dtype.kind not in "biuf":
        return None
    numbers = numbers.astype(np.float64)
    return numbers + 0.0 if np.isfinite(numbers).all() else None  # -0 is 0


def _law_at(as_law: Callable[[Any], _Law], given: Any, answer: int, secret: int, name: str) -> _Law:
    items = tuple(given.items()) if isinstance(given, Mapping) else ((given, 1.0),)
    try:
        try:
            return as_law(items)
        except TypeError:  # what cannot be hashed, such as a 0-d array
            return _law(items)
    except _NoLawError as error:
        raise ConfigError(
            f"reward_type={name} gave {_shown(given)} for answer={answer}, secret={secret}, {error}"
        ) from None


class _NoLawError(Exception):
    """Something is not a reward; the message is the rest of the sentence about it."""


def _law(items: tuple[tuple[Any, Any], ...]) -> _Law:
    """The distribution that these pairs of a reward and its probability form."""
    merged: dict[float, float] = {}
    for given, chance in items:
        value, probability = _number(given) + 0.0, _number(chance)  # -0 is 0
        if not math.isfinite(value):
            raise _NoLawError("which is not finite: return finite rewards.")
        if not -_TOLERANCE <= probability <= 1 + _TOLERANCE:
            raise _NoLawError(f"with a probability of {probability:g}: return probabilities from 0 to 1.")
        merged[value] = merged.get(value, 0.0) + probability
    total = sum(merged.values())
    if abs(total - 1) > _TOLERANCE:
        raise _NoLawError(
            f"whose probabilities sum to {total:.10g}: return each reward that may come "
            "with its probability, so that they sum to 1."
        )
    law = tuple(sorted((value, probability) for value, probability in merged.items() if probability > 0))
    return law if len(law) > 1 else ((law[0][0], 1.0),)


def _number(value: Any) -> float:
    try:
        if isinstance(value, str | bytes | bytearray):
            raise TypeError
        return float(value)
    except OverflowError:
        return math.inf
    except Exception:
        raise _NoLawError(
            "which is not a number: return a number, or a mapping from each reward to its probability."
        ) from None


def _check_repeats(
    reward: Reward, answers: list[int], sure: np.ndarray, law_of: np.ndarray, laws: list[_Law], name: str
) -> None:
    """Asks some pairs again in another order; if there are few, all of them many times."""
    random, least, most = np.random.default_rng(0), *_REPEATS
    places = (
        [random.permutation(sure.size) for _ in range(math.ceil(least / sure.size))]
        if most >= sure.size
        else [random.integers(sure.size, size=most)]
    )
    for row, secret in zip(
        *(place.tolist() for place in np.divmod(np.concatenate(places), sure.shape[1])), strict=True
    ):
        answer = answers[row]
        try:
            given = reward(answer, secret)
        except (Exception, SystemExit) as error:
            raise _failed(error, answer, secret, name) from error
        before = sure[row, secret]
        if type(given) in (float, int, bool) and given == before:
            continue
        if _law_at(_law, given, answer, secret, name) != (
            laws[law_of[row, secret]] if np.isnan(before) else ((before, 1.0),)
        ):
            raise ConfigError(
                f"reward_type={name} gave two different rewards for answer={answer}, secret={secret}: "
                "if chance has a part in it, return a mapping from each reward to its probability instead."
            )


def _table(
    sure: np.ndarray, law_of: np.ndarray, laws: list[_Law], name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Levels, classes and outcomes, as `from_table` takes them.

    Class i is the i-th of the rewards that come for certain, the first of them the lowest level of all; the
    distributions follow.
    """
    known = ~np.isnan(sure)
    certain = np.unique(sure[known])
    if not laws:
        return certain, np.searchsorted(certain, sure), None
    levels = np.unique(np.append(certain, [value for law in laws for value, _ in law]))
    certain = np.union1d(certain, levels[:1])  # also what an invalid answer earns
    if (len(certain) + len(laws)) * len(levels) > _MOST_CELLS:
        raise _too_large(name, sure.shape[1])
    outcomes = np.zeros((len(certain) + len(laws), len(levels)))
    outcomes[np.arange(len(certain)), np.searchsorted(levels, certain)] = 1.0
    for row, law in enumerate(laws, start=len(certain)):
        values, probabilities = np.array(law).T
        outcomes[row, np.searchsorted(levels, values)] = probabilities
    classes = np.where(known, np.searchsorted(certain, sure), len(certain) + law_of)
    return levels, classes, outcomes / outcomes.sum(axis=1, keepdims=True)


def _too_large(name: str, N: int) -> ConfigError:
    return ConfigError(
        f"reward_type={name} has too many different distributions at N={N}: "
        "round its rewards and probabilities, or use a smaller N."
    )


def _failed(error: BaseException, answer: int, secret: int, name: str) -> ConfigError:
    return ConfigError(
        f"reward_type={name} failed for answer={answer}, secret={secret} ({reason_of(error)}): "
        "return a reward for every answer and every secret from 0 to N - 1."
    )


def _shown(given: Any) -> str:
    return one_line(reprlib.repr(given))
