"""A user's own learners: a subclass of `Learner`, checked once on small inputs before anything is measured.

docs/own_learner.md describes how to write one.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np

from memory_rl.config import LOADERS
from memory_rl.errors import ConfigError, one_line, suggest
from memory_rl.keys import name_of
from memory_rl.learning.batch import Batch
from memory_rl.learning.learners import Learner
from memory_rl.learning.own_memory import Notes, check_memory, check_names_kept
from memory_rl.own_code import load_object, place_of, reason_of

if TYPE_CHECKING:
    import torch

_SHAPE = (3, 2, 4, 2)  # runs, groups, episodes of a group, steps
_ALL_RUNS = np.arange(_SHAPE[0])
_STILL_LEARNING = np.array([0, 2])  # a run that has memorised is in no later batch
_EQUAL = (-1.0, 0.0, 0.3, 1.0, 2.0)
_ROUNDING = 1e-9
_APART = "leave axis 0, the runs, out of every mean, and add up their losses."
_MEMBERS = (
    "advantages",
    "loss",
    "epochs",
    "silent_if_equal",
    "moves",
    "learn",
    "start",
    "sample",
    "wants_beliefs",
    "samples_suffice",
    "kept",
)


def load_learner(given: Any) -> Learner:
    """The learner that a reference `file.py:Name`, a class or an object stands for, checked.

    Raises:
        ConfigError: one sentence with the place in the user's file, if it cannot be used.
    """
    name = f"algorithm={name_of(given)}"
    example = "class MyLearner(Learner)"
    found = load_object(given, "algorithm", example) if isinstance(given, str) else given
    learner = _call(name, "made", found) if isinstance(found, type) and issubclass(found, Learner) else found
    if not isinstance(learner, Learner):
        raise ConfigError(f"{name} is not a learner: write {example}, with Learner from memory_rl.")
    if not (isinstance(learner.epochs, int) and learner.epochs >= 1):
        raise ConfigError(f"{name} has epochs={learner.epochs}: use an integer of 1 or more.")
    if not isinstance(learner.silent_if_equal, bool):
        raise ConfigError(f"{name} has silent_if_equal={learner.silent_if_equal!r}: use True or False.")
    kind = type(learner)
    _check_names(kind, name)
    if kind.sample is not Learner.sample and learner.silent_if_equal:
        raise ConfigError(
            f"{name} samples in a way of its own, and skipped updates are not sampled: "
            "add silent_if_equal = False."
        )
    check_names_kept(learner, name)
    tried = deepcopy(learner)  # what it remembers of the checks is not what it starts with
    _call(name, "started", tried.start, 0, _SHAPE[0])
    if kind.learn is Learner.learn:
        _check_advantages(tried, name)
    else:
        _check_fewer_runs(deepcopy(tried), name)
        if learner.silent_if_equal:
            _check_silence(tried, name)
    if kind.loss is not Learner.loss:
        _check_loss(tried, name)
    _check_memory(deepcopy(learner), name)
    return learner


def _check_names(kind: type[Learner], name: str) -> None:
    """Refuses a class that would train as `Learner` does, because what it defines has the wrong names."""
    theirs = [base for base in kind.__mro__ if base not in Learner.__mro__]
    defined = [one for base in theirs for one in vars(base) if not one.startswith("_")]
    if defined and not any(hasattr(Learner, one) for one in defined):
        raise ConfigError(
            f"{name} defines {defined[0]}, and nothing that Learner has: {suggest(defined[0], _MEMBERS)}"
        )


def _call(name: str, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{name} cannot be {what} ({reason_of(error)}): fix the file.") from error


def _check_advantages(learner: Learner, name: str) -> None:
    name += place_of(type(learner).advantages)
    returns = np.random.default_rng(0).integers(4, size=_SHAPE) / 3.0
    first, again = (_advantages(deepcopy(learner), returns, name) for _ in range(2))
    if not np.array_equal(first, again):
        raise ConfigError(
            f"{name} gave two different advantages for the same returns: make it deterministic."
        )
    _advantages(learner, returns, name)
    if not np.array_equal(first, _advantages(learner, returns, name)):
        raise ConfigError(
            f"{name} gave other advantages for the same returns when asked again: "
            "it must not change what the learner remembers: do that in learn."
        )
    fewer = _advantages(learner, returns[_STILL_LEARNING], name)
    if not _same_for_each_run(first, fewer):
        raise ConfigError(f"{name} gave a run other advantages without another run beside it: {_APART}")
    for value in _EQUAL if learner.silent_if_equal else ():
        largest = float(np.abs(_advantages(learner, np.full(_SHAPE, value), name)).max())
        if largest > _ROUNDING:
            raise ConfigError(
                f"{name} gives equal returns of {value:g} an advantage of {largest:g}: "
                "add silent_if_equal = False."
            )


def _same_for_each_run(every: np.ndarray, fewer: np.ndarray) -> bool:
    """Whether runs get what they get beside others, but for rounding, which depends on how many are added."""
    return np.allclose(every[_STILL_LEARNING], fewer, rtol=1e-4, atol=1e-6)


def _advantages(learner: Learner, returns: np.ndarray, name: str) -> np.ndarray:
    fewer = f" of {len(returns)} of {_SHAPE[0]} runs" if len(returns) < _SHAPE[0] else ""
    given = _call(name, f"asked for advantages{fewer}", learner.advantages, returns.copy())
    if not isinstance(given, np.ndarray) or given.shape != returns.shape:
        shape = getattr(given, "shape", type(given).__name__)
        raise ConfigError(
            f"{name} gave advantages of shape {shape} for returns of shape {returns.shape}: return one each."
        )
    if given.dtype.kind not in "fiub" or not np.isfinite(given).all():
        raise ConfigError(f"{name} gave advantages that are not finite numbers: return one for each return.")
    return given.astype(np.float64)


def _check_memory(learner: Learner, name: str) -> None:
    """Checks that what a learner keeps comes back, and is all that its later updates need."""
    learner.start(0, _SHAPE[0])
    random = np.random.default_rng(1)
    check_memory(learner, [_batch(_ALL_RUNS, random.integers(4, size=_SHAPE) / 3.0) for _ in range(3)], name)


def _batch(runs: np.ndarray, value: float | np.ndarray) -> Batch:
    """An update of these runs with this return for each step, or (R, B, G, K) different ones."""
    _, groups, size, steps = _SHAPE
    returns = np.full((len(runs), groups, size, steps), value)
    choices = np.zeros((len(runs), groups * size, steps), dtype=np.int64)
    prompts = np.zeros((len(runs), 1), dtype=np.int64)
    return Batch(runs, prompts, choices, choices, runs, returns.reshape(choices.shape), returns)


def _check_fewer_runs(learner: Learner, name: str) -> None:
    """Checks that a user's own `learn` can go on once a run has memorised."""
    try:
        learner.learn(Notes(), _batch(_ALL_RUNS, _EQUAL[-1]))
    except (Exception, SystemExit):  # it may need more than notes can give
        return
    what = f"asked to learn from {len(_STILL_LEARNING)} of {len(_ALL_RUNS)} runs"
    _call(name, what, learner.learn, Notes(), _batch(_STILL_LEARNING, _EQUAL[-1]))


def _check_silence(learner: Learner, name: str) -> None:
    """Checks that a user's own `learn` keeps the promise that equal rewards move nothing."""
    notes = Notes()
    for value in _EQUAL:
        _call(name, "asked to learn", learner.learn, notes, _batch(_ALL_RUNS, value))
    if notes.largest > _ROUNDING:
        raise ConfigError(
            f"{name} moves the policy where all rewards of a group are equal: add silent_if_equal = False."
        )


def _check_loss(learner: Learner, name: str) -> None:
    import torch

    name += place_of(type(learner).loss)
    shape = (_SHAPE[0], _SHAPE[1] * _SHAPE[2], 3)
    random = torch.Generator().manual_seed(0)
    before, advantages = -torch.rand(shape, generator=random), torch.randn(shape, generator=random)
    losses = [_loss(learner, 1.1 * before, before, advantages, name)[0] for _ in range(2)]
    if losses[0] != losses[1]:
        raise ConfigError(f"{name} gave two different losses for the same episodes: make it deterministic.")
    every, fewer = (
        _loss(learner, 1.1 * before[runs], before[runs], advantages[runs], name)[1].numpy()
        for runs in (_ALL_RUNS, _STILL_LEARNING)
    )
    if not _same_for_each_run(every, fewer):
        raise ConfigError(f"{name} has a loss that moves a run otherwise without another beside it: {_APART}")
    _, gradient = _loss(learner, before, before, torch.zeros(shape), name)
    still = not learner.moves(np.zeros((_SHAPE[0], shape[1], _SHAPE[3]))).any()
    if float(gradient.abs().max()) > _ROUNDING and (learner.silent_if_equal or still):
        raise ConfigError(
            f"{name} has a loss that moves the policy where all advantages are 0: "
            "add silent_if_equal = False, and a method moves(self, advantages) that is true for all runs."
        )


def _loss(
    learner: Learner, now: torch.Tensor, before: torch.Tensor, advantages: torch.Tensor, name: str
) -> tuple[float, torch.Tensor]:
    """The loss, and its gradient for the log-probabilities."""
    import torch

    leaf = now.clone().requires_grad_()
    loss = _call(name, "asked for its loss", learner.loss, leaf, before, advantages)
    if (
        not isinstance(loss, torch.Tensor)
        or loss.shape != ()
        or not loss.isfinite()
        or not loss.requires_grad
    ):
        raise ConfigError(
            f"{name} has as its loss {one_line(repr(loss))}: return a finite scalar tensor with its graph."
        )
    return loss.item(), torch.autograd.grad(loss, leaf)[0]


LOADERS["own"] = load_learner
