"""Optimisers for R learners whose parameters are the rows of one tensor: each row has a state and a step
count of its own.

A row that is not stepped stands still altogether: no momentum, no decay. The numbers are those of
`torch.optim` with one parameter a row.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from memory_rl.state import State


class StackedOptimiser(Protocol):
    """Moves rows against their gradients."""

    def step(self, values: torch.Tensor, rows: np.ndarray, gradients: torch.Tensor) -> None:
        """Changes `values` (R, P) in place at `rows` (R',), each at most once; gradients (R', P)."""

    def state(self) -> State:
        """See `memory_rl.state.Stateful`."""

    def restore(self, state: State) -> None:
        """See `memory_rl.state.Stateful`."""


class StackedSGD:
    """Plain gradient steps."""

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = learning_rate

    def step(self, values: torch.Tensor, rows: np.ndarray, gradients: torch.Tensor) -> None:
        """See `StackedOptimiser`."""
        values[torch.from_numpy(rows)] -= self.learning_rate * gradients

    def state(self) -> State:
        """None is kept."""
        return {}

    def restore(self, state: State) -> None:
        """None is kept."""


class StackedAdam:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980), with its usual constants.

    Args:
        learning_rate: the step size.
        like: a tensor (R, P) of the shape and type of the values.
    """

    beta1, beta2, epsilon = 0.9, 0.999, 1e-8

    def __init__(self, learning_rate: float, like: torch.Tensor) -> None:
        self.learning_rate = learning_rate
        self._mean = torch.zeros_like(like)
        self._square = torch.zeros_like(like)
        self._steps = np.zeros(len(like), dtype=np.int64)

    def step(self, values: torch.Tensor, rows: np.ndarray, gradients: torch.Tensor) -> None:
        """See `StackedOptimiser`."""
        which = torch.from_numpy(rows)
        self._steps[rows] += 1
        mean = self._mean[which].lerp_(gradients, 1 - self.beta1)
        square = self._square[which].mul_(self.beta2).addcmul_(gradients, gradients, value=1 - self.beta2)
        self._mean[which], self._square[which] = mean, square
        steps = torch.from_numpy(self._steps[rows])[:, None].to(values.dtype)
        spread = (square / (1 - self.beta2**steps)).sqrt_().add_(self.epsilon)
        values[which] -= self.learning_rate / (1 - self.beta1**steps) * mean / spread

    def state(self) -> State:
        """See `StackedOptimiser`."""
        return {"mean": self._mean.numpy(), "square": self._square.numpy(), "steps": self._steps}

    def restore(self, state: State) -> None:
        """See `StackedOptimiser`."""
        self._mean.copy_(torch.from_numpy(state["mean"]))
        self._square.copy_(torch.from_numpy(state["square"]))
        self._steps[:] = state["steps"]


def make_optimiser(name: str, learning_rate: float, like: torch.Tensor) -> StackedOptimiser:
    """The optimiser called "adam" or "sgd", for values like this tensor (R, P)."""
    return StackedAdam(learning_rate, like) if name == "adam" else StackedSGD(learning_rate)
