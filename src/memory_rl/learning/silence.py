"""The exact law of groups that carry no signal, and of the first that does, while the policy stands still.

The rewards of a group's episodes are then independent, each of level l with probability q_l. A group is
*silent* if all its G rewards are equal: probability s = sum over l of q_l^G. An update of B groups is silent
if all of them are: s^B. Needs NumPy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GroupLaw:
    """The rewards of groups of G episodes, with B groups per update.

    Attributes:
        probabilities: (L,) q_l of each reward level; they sum to 1.
        group_size: G, at least 2.
        batch_size: B.
    """

    probabilities: np.ndarray
    group_size: int
    batch_size: int = 1

    def others(self) -> np.ndarray:
        """1 - q_l, without the rounding of a subtraction where q_l is near 1: (L,)."""
        rest = 1.0 - self.probabilities
        top = int(self.probabilities.argmax())
        rest[top] = self.probabilities[:top].sum() + self.probabilities[top + 1 :].sum()
        return rest

    def differs(self, draws: int) -> np.ndarray:
        """Probability that of this many more draws at least one is not l: 1 - q_l^draws, (L,)."""
        with np.errstate(divide="ignore"):
            return -np.expm1(draws * np.log1p(-self.others())) if draws else np.zeros(len(self.probabilities))

    @property
    def signal(self) -> float:
        """1 - s: probability that a group is not silent."""
        return min(1.0, float((self.probabilities * self.differs(self.group_size - 1)).sum()))

    def silent_updates(self, random: np.random.Generator, at_most: int) -> int:
        """How many silent updates come before the first that is not, but no more than `at_most`."""
        signal = self.signal
        if signal <= 0.0:
            return at_most
        if signal >= 1.0:
            return 0
        waits = math.log(1.0 - random.random()) / (self.batch_size * math.log1p(-signal))  # 1 - u is never 0
        return int(min(waits, at_most))

    def draw_silent(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Level indices of this many silent updates: (count, B G)."""
        levels = draw(self.probabilities**self.group_size, (count, self.batch_size), random)
        return np.repeat(levels, self.group_size, axis=1)

    def draw_informative(self, random: np.random.Generator) -> np.ndarray:
        """Level indices of an update that is not silent: (B G,)."""
        groups, waiting = [], True
        for group in range(self.batch_size):
            if waiting:
                any_left = (
                    -math.expm1((self.batch_size - group) * math.log1p(-self.signal))
                    if self.signal < 1
                    else 1.0
                )
                informative = random.random() < self.signal / any_left
                groups.append(
                    self._informative_group(random)
                    if informative
                    else self.draw_silent(1, random)[0, : self.group_size]
                )
                waiting = not informative
            else:
                groups.append(draw(self.probabilities, (self.group_size,), random))
        return np.concatenate(groups)

    def _informative_group(self, random: np.random.Generator) -> np.ndarray:
        """G levels that are not all equal, drawn one by one.

        As long as they are equal, each draw must leave room for one that differs.
        """
        levels = [int(draw(self.probabilities * self.differs(self.group_size - 1), (), random))]
        while len(levels) < self.group_size:
            weights = self.probabilities
            if len(set(levels)) == 1:
                weights = weights.copy()
                weights[levels[0]] *= self.differs(self.group_size - len(levels) - 1)[levels[0]]
            levels.append(int(draw(weights, (), random)))
        return np.array(levels)


def draw(weights: np.ndarray, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Indices with probabilities in proportion to the weights."""
    cumulative = weights.cumsum()
    drawn = np.searchsorted(cumulative, random.random(shape) * cumulative[-1], side="right")
    return np.minimum(drawn, np.nonzero(weights)[0][-1])
