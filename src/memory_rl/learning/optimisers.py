"""Optimisers for R learners whose parameters are the rows of one tensor, each with a state and a step count.

A row that is not stepped stands still altogether: no momentum, no decay. The numbers are those of
`torch.optim` with one parameter per row.
"""

from __future__ import annotations

import numpy as np
import torch
from typing_extensions import override

from memory_rl.state import Stateful


class StackedSGD(Stateful):
    """Plain gradient steps.

    Args:
        learning_rate: the step size.
        like: a tensor (R, P) of the shape and type of the values.
    """

    def __init__(self, learning_rate: float, like: torch.Tensor) -> None:
        self.learning_rate = learning_rate

    def step(self, values: torch.Tensor, rows: np.ndarray, gradients: torch.Tensor) -> None:
        """Changes `values` (R, P) in place at `rows` (R',), each at most once; gradients (R', P)."""
        values[torch.from_numpy(rows)] -= self.learning_rate * gradients


class StackedAdam(StackedSGD):
    """Adam (Kingma and Ba 2015, arXiv:1412.6980), with its usual constants."""

    kept = ("_mean", "_square", "_steps")
    beta1, beta2, epsilon = 0.9, 0.999, 1e-8

    def __init__(self, learning_rate: float, like: torch.Tensor) -> None:
        super().__init__(learning_rate, like)
        self._mean = torch.zeros_like(like)
        self._square = torch.zeros_like(like)
        self._steps = np.zeros(len(like), dtype=np.int64)

    @override
    def step(self, values: torch.Tensor, rows: np.ndarray, gradients: torch.Tensor) -> None:
        which = torch.from_numpy(rows)
        self._steps[rows] += 1
        mean = self._mean[which].lerp_(gradients, 1 - self.beta1)
        square = self._square[which].mul_(self.beta2).addcmul_(gradients, gradients, value=1 - self.beta2)
        self._mean[which], self._square[which] = mean, square
        steps = torch.from_numpy(self._steps[rows])[:, None].to(values.dtype)
        spread = (square / (1 - self.beta2**steps)).sqrt_().add_(self.epsilon)
        values[which] -= self.learning_rate / (1 - self.beta1**steps) * mean / spread


OPTIMISERS = {"adam": StackedAdam, "sgd": StackedSGD}
"""The optimisers by the value of the key `optimiser`."""
