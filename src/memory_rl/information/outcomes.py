"""How a question is answered: the meter's description of any channel.

A question (an answer that a policy gives, a bit that it names, an example that it is shown) sorts the secrets
into *classes*; what is then seen, the *level*, depends on the class alone. So a channel is a table of
classes, one a question and secret, and p(level | class), which `Outcomes` holds. Noiseless channels have the
identity there, which is never built.
"""

from __future__ import annotations

import numpy as np

from memory_rl.information.entropy import entropy, xlog2x


class Outcomes:
    """The law of what is seen, p(level | class).

    Args:
        num_classes: C.
        noisy: (C, L) rows that sum to 1, or None where class c always shows level c.

    Raises:
        ValueError: if a row is not a distribution.
    """

    def __init__(self, num_classes: int, noisy: np.ndarray | None = None) -> None:
        self.num_classes = num_classes
        self.noisy = noisy
        if noisy is None:
            return
        if noisy.shape[0] != num_classes or (noisy < 0).any() or not np.allclose(noisy.sum(axis=1), 1):
            raise ValueError("outcomes must be one distribution a class")
        self._row_entropy = entropy(noisy)
        self._weighted_log = xlog2x(noisy)

    @property
    def certain(self) -> bool:
        """Whether the class decides the level."""
        return self.noisy is None

    def information(self, masses: np.ndarray) -> np.ndarray:
        """I(S; level) of questions that put these probabilities on the classes: (..., C) to (...) bits."""
        if self.noisy is None:
            return entropy(masses)
        return np.maximum(entropy(masses @ self.noisy) - masses @ self._row_entropy, 0.0)

    def gains(self, masses: np.ndarray, entropies: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the entropy of S that an observer loses by seeing the level.

        They are in bits and squared bits, each (R,); the mean is I(S; level).

        Args:
            masses: (R, C) the observer's probability of each class.
            entropies: (R, C) the sum of -p log2 p over the secrets of each class; not needed where the class
                decides the level.
        """
        levels = masses if self.noisy is None else masses @ self.noisy
        log = np.log2(np.where(levels > 0, levels, 1.0))
        if self.noisy is None:
            gain = -log  # what is left of a class keeps its proportions
        else:
            assert entropies is not None  # noqa: S101
            # sum over S of -p(S, level) log2 p(S, level)
            after = entropies @ self.noisy - masses @ self._weighted_log
            gain = entropies.sum(axis=1, keepdims=True) - (after / np.where(levels > 0, levels, 1.0) + log)
        mean = self.information(masses)
        return mean, np.maximum((levels * gain**2).sum(axis=1) - mean**2, 0.0)

    def draw(self, classes: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Levels for these classes, one number in [0, 1) each deciding which."""
        if self.noisy is None:
            return classes
        return np.minimum(
            (uniforms[..., None] >= self.noisy.cumsum(axis=1)[classes]).sum(axis=-1), self.noisy.shape[1] - 1
        )

    def likelihoods(self, classes: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """p(level | class); the shapes broadcast."""
        if self.noisy is None:
            return (classes == levels).astype(np.float64)
        return self.noisy[classes, levels]


def class_masses(classes: np.ndarray, weights: np.ndarray, num_classes: int) -> np.ndarray:
    """How much weight falls into each class: (R, N) classes and weights to (R, C)."""
    rows = len(classes)
    places = classes + num_classes * np.arange(rows)[:, None]
    return np.bincount(places.ravel(), weights.ravel(), minlength=rows * num_classes).reshape(
        rows, num_classes
    )
