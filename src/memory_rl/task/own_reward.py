"""Rewards that a user brings: a function or class of their own, tabulated once into a `RewardChannel`.

All that is asked of it is what the reward of an answer is, given the secret: a number, or, where chance has a part in it, a mapping from rewards to
their probabilities. See docs/own_reward.md.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from memory_rl.errors import ConfigError, suggest
from memory_rl.task.rewards import RewardChannel

Reward = Callable[[int, int], "float | Mapping[float, float]"]
"""(answer, secret) to a reward, or to the probability of each reward that may come."""

_CALLED_TWICE = 2**16  # pairs on which the reward must repeat itself
_TOLERANCE = 1e-9


def load_reward(reference: str) -> Any:
    """The function or class that `file.py:Name` names.

    Raises:
        ConfigError: if there is no such file or name, or the file cannot be run.
    """
    place, _, name = reference.rpartition(":")
    path = Path(place)
    if not path.is_file():
        raise ConfigError(f"reward_type={reference}: there is no file {place}: give the path of a Python file, as in reward_type=my_rewards.py:my_reward.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"reward_type={reference}: {place} is not a Python file: use a name that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"reward_type={reference}: {place} cannot be run ({type(error).__name__}: {error}): mend the file.") from error
    if not hasattr(module, name):
        names = [known for known, value in vars(module).items() if callable(value) and getattr(value, "__module__", None) == path.stem]
        raise ConfigError(f"reward_type={reference}: {place} has no {name!r}: {suggest(name, names)}")
    return getattr(module, name)


def as_reward(given: Any, N: int, name: str) -> Reward:
    """The reward that a function, a class or an object stands for.

    A function is called as reward(answer, secret); a class is made first and then, like an object, asked its `reward` method, or itself if it is callable. A
    parameter named N, of the function or of the class, gets N.

    Raises:
        ConfigError: if it is none of these, or the class cannot be made.
    """
    if inspect.isclass(given):
        try:
            given = given(**_wants_N(given, N))
        except Exception as error:
            raise ConfigError(f"reward_type={name}: the class cannot be made ({type(error).__name__}: {error}): it may take N and nothing else.") from error
    called = getattr(given, "reward", given)
    if not callable(called):
        raise ConfigError(f"reward_type={name} is not a reward: give a function reward(answer, secret), or a class with such a method.")
    options = _wants_N(called, N)
    return lambda answer, secret: called(answer, secret, **options)


def _wants_N(called: Callable[..., Any], N: int) -> dict[str, int]:
    try:
        return {"N": N} if "N" in inspect.signature(called).parameters else {}
    except (TypeError, ValueError):  # some built-in functions have no signature
        return {}


def tabulate(reward: Reward, N: int, name: str) -> RewardChannel:
    """Asks for the reward of every answer under every secret, and makes a channel of it.

    Raises:
        ConfigError: if a reward is not a finite number, probabilities do not sum to 1, the reward changes from call to call, or nothing can be learned from it.
    """
    laws: dict[tuple[tuple[float, float], ...], int] = {}
    classes = np.empty((N, N), dtype=np.int64)
    for answer in range(N):
        for secret in range(N):
            law = _law(reward, answer, secret, name)
            classes[answer, secret] = laws.setdefault(law, len(laws))
    _check_repeats(reward, classes, list(laws), name)
    if not (classes != classes[:, :1]).any():
        raise ConfigError(
            f"reward_type={name} does not depend on the secret at N={N}, so that nothing can be learned from it: reward some secrets differently."
        )
    return _channel(name, list(laws), classes)


def from_table(name: str, levels: np.ndarray, classes: np.ndarray, outcomes: np.ndarray | None) -> RewardChannel:
    """The channel with this table: levels (L,), classes (A, N), outcomes (C, L) or None; see `RewardChannel`."""
    return RewardChannel(name, levels, lambda answers, secrets: classes[answers, secrets], outcomes)


def table_of(channel: RewardChannel, N: int) -> np.ndarray:
    """(N, N) the class of every answer (axis 0) under every secret."""
    every = np.arange(N)
    return channel.classes(every[:, None], every)


def _law(reward: Reward, answer: int, secret: int, name: str) -> tuple[tuple[float, float], ...]:
    """The distribution of one reward as sorted pairs (reward, probability > 0)."""
    where = f"for answer={answer}, secret={secret}"
    try:
        given = reward(answer, secret)
    except Exception as error:
        raise ConfigError(f"reward_type={name} raised {type(error).__name__} ({error}) {where}: it is asked for every answer and secret in [0, N).") from error
    pairs = given.items() if isinstance(given, Mapping) else [(given, 1.0)]
    try:
        law = sorted((float(value), float(probability)) for value, probability in pairs)
    except (TypeError, ValueError):
        raise ConfigError(f"reward_type={name} gave {given!r} {where}: return a number, or a mapping from rewards to probabilities.") from None
    if not all(math.isfinite(value) for value, _ in law):
        raise ConfigError(f"reward_type={name} gave {given!r} {where}, which is not finite: return finite rewards.")
    if any(not 0 <= probability <= 1 for _, probability in law) or abs(sum(probability for _, probability in law) - 1) > _TOLERANCE:
        raise ConfigError(f"reward_type={name} gave {given!r} {where}, whose probabilities do not sum to 1: return a distribution over rewards.")
    return tuple((value, probability) for value, probability in law if probability > 0)


def _check_repeats(reward: Reward, classes: np.ndarray, laws: list[tuple[tuple[float, float], ...]], name: str) -> None:
    N = len(classes)
    every = np.random.default_rng(0).permutation(N * N)[:_CALLED_TWICE]
    for answer, secret in zip(*(place.tolist() for place in np.divmod(every, N)), strict=True):
        if _law(reward, answer, secret, name) != laws[classes[answer, secret]]:
            raise ConfigError(
                f"reward_type={name} gave two different rewards for answer={answer}, secret={secret}: if chance has a part in it, "
                "return a mapping from each reward to its probability instead."
            )


def _channel(name: str, laws: list[tuple[tuple[float, float], ...]], classes: np.ndarray) -> RewardChannel:
    levels = np.unique([value for law in laws for value, _ in law])
    place = {value: index for index, value in enumerate(levels.tolist())}
    if all(len(law) == 1 for law in laws):
        level_of_class = np.array([place[law[0][0]] for law in laws])
        return from_table(name, levels, level_of_class[classes], None)
    outcomes = np.zeros((len(laws) + 1, len(levels)))
    outcomes[0, 0] = 1.0  # an invalid answer
    for row, law in enumerate(laws, start=1):
        for value, probability in law:
            outcomes[row, place[value]] = probability
    return from_table(name, levels, classes + 1, outcomes / outcomes.sum(axis=1, keepdims=True))
