"""Finds the run and the update at which numbers cease to be finite, before anything is made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from memory_rl.errors import NotFiniteError


def check_finite(
    values: np.ndarray, what: str, runs: Sequence[int] | np.ndarray, updates: np.ndarray
) -> None:
    """Refuses numbers that are not finite.

    Args:
        values: (R', ...) of some runs.
        what: they are, as the start of a sentence: "parameters are".
        runs: (R',) which runs these are.
        updates: (R,) optimiser steps that each run of the population has made.

    Raises:
        NotFiniteError: about the first of the runs that has one which is not.
    """
    with np.errstate(all="ignore"):
        if np.isfinite(values.sum()):  # fast, and true of nearly all; of finite numbers it may overflow
            return
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        run = int(runs[int(finite.argmin())])
        raise NotFiniteError(run, int(updates[run]), what)


def check_loss(loss: Any, runs: np.ndarray, updates: np.ndarray) -> None:
    """Refuses a loss, a scalar, that is not finite; `runs` (R',) share it, see `check_finite`."""
    if not math.isfinite(loss):
        raise NotFiniteError(int(runs[0]) if len(runs) == 1 else None, int(updates[runs].max()), "loss is")
