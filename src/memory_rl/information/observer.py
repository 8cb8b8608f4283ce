"""The ideal observer: exact Bayes over S from a policy's questions and the levels that it saw.

It works on all runs at once, and is handed questions and outcomes: it knows neither rewards nor policies.
Beliefs are kept as weights that need not sum to 1: a noiseless channel only ever strikes secrets out, so that
its weights stay exactly 0 or 1 and their sum is the number of candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from memory_rl.information import bits
from memory_rl.information.entropy import xlog2x
from memory_rl.information.outcomes import Outcomes, class_masses
from memory_rl.state import Stateful

_CELLS_A_CHUNK = 2**18


class Classes(Protocol):
    """The class of each secret under the questions to some of the runs: an array (R, N), or what makes it."""

    def __getitem__(self, some: slice, /) -> np.ndarray:
        """(R', N) of the runs in this slice."""


@dataclass(frozen=True)
class Partition:
    """Any question to each of R runs: classes (R, N), the class of each secret."""

    classes: Classes

    def ask(self, observer: Observer, runs: np.ndarray, outcomes: Outcomes) -> tuple[np.ndarray, np.ndarray]:
        """What the question is expected to reveal about S before its level is seen.

        That is the mean (I(S; R | A, history), in bits) and the variance (in squared bits) of the entropy
        that the observer loses, each (R',); here from the mass and the entropy of each class.
        """
        if not outcomes.certain:
            each = [self._masses(observer, runs, some, outcomes) for some in observer.chunks(runs)]
            masses, entropies = (np.concatenate(parts) for parts in zip(*each, strict=True))
            return outcomes.gains(masses, entropies)
        gains = [
            outcomes.gains(
                class_masses(self.classes[some], observer.posterior(runs[some]), outcomes.num_classes)
            )
            for some in observer.chunks(runs)
        ]
        mean, variance = (np.concatenate(parts) for parts in zip(*gains, strict=True))
        return mean, variance

    def _masses(
        self, observer: Observer, runs: np.ndarray, some: slice, outcomes: Outcomes
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mass and entropy of each class, each (R', C)."""
        posterior, classes = observer.posterior(runs[some]), self.classes[some]
        masses = class_masses(classes, posterior, outcomes.num_classes)
        return masses, class_masses(classes, -xlog2x(posterior), outcomes.num_classes)

    def reweigh(self, observer: Observer, runs: np.ndarray, outcomes: Outcomes, levels: np.ndarray) -> None:
        """Multiplies the weights of all secrets by p(level | class)."""
        for some in observer.chunks(runs):
            likelihoods = outcomes.likelihoods(self.classes[some], levels[some, None])
            observer.multiply(runs[some], likelihoods, rescale=not outcomes.certain)


@dataclass(frozen=True)
class EachBit:
    """A question about each bit of S, to each of R runs; each is answered for itself, with noise.

    Attributes:
        named: (R, K) the bit that each step names.
        valid: (R, K) whether it names one; else it tells nothing.
    """

    named: np.ndarray
    valid: np.ndarray

    def ask(self, observer: Observer, runs: np.ndarray, outcomes: Outcomes) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the entropy lost; `outcomes` are those of one wrong and one right bit."""
        each = [
            bits.gains(observer.posterior(runs[some]), self.valid[some], outcomes)
            for some in observer.chunks(runs)
        ]
        mean, variance = (np.concatenate(parts) for parts in zip(*each, strict=True))
        return mean, variance

    def reweigh(self, observer: Observer, runs: np.ndarray, outcomes: Outcomes, levels: np.ndarray) -> None:
        """Multiplies the weights by the likelihood of each bit; a level is the pattern of rewards."""
        assert outcomes.noisy is not None  # noqa: S101
        seen = bits.digits(levels, self.named.shape[1])
        for some in observer.chunks(runs):
            right = self.named[some, :, None] == np.arange(2)  # (R', K, 2): if the bit of S is 0, or 1
            factors = outcomes.noisy[right.astype(np.int64), seen[some, :, None]]
            factors = np.where(self.valid[some, :, None], factors, 1.0)
            observer.multiply(runs[some], bits.product(factors)[:, : observer.num_secrets], rescale=True)


@dataclass(frozen=True)
class OneAgainstRest:
    """The question whether S is this one secret, answered without noise.

    The class is 1 for `answers` (R,) and 0 for all others: a `Partition` whose cost does not grow with N.
    """

    answers: np.ndarray

    def ask(self, observer: Observer, runs: np.ndarray, outcomes: Outcomes) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the entropy lost, from the probability of a hit alone."""
        hit = observer.weights[runs, self.answers] / observer.totals[runs]
        return outcomes.gains(np.stack([1.0 - hit, hit], axis=1))

    def reweigh(self, observer: Observer, runs: np.ndarray, outcomes: Outcomes, levels: np.ndarray) -> None:
        """Strikes out the answer in case of a miss, and all other secrets in case of a hit."""
        of_answer, hit = observer.weights[runs, self.answers], levels == 1
        observer.weights[runs[hit]] = 0.0  # a yes: nothing else is possible
        observer.weights[runs, self.answers] = of_answer * hit
        observer.totals[runs] = np.where(hit, of_answer, observer.totals[runs] - of_answer)


Question = Partition | OneAgainstRest | EachBit
"""One question to each of R runs: how it sorts the secrets into classes."""


class Observer(Stateful):
    """R posteriors over [0, N), uniform at first.

    Args:
        num_runs: R.
        num_secrets: N.
    """

    kept = ("weights", "totals")

    def __init__(self, num_runs: int, num_secrets: int) -> None:
        self.weights = np.ones((num_runs, num_secrets))
        self.totals = np.full(num_runs, float(num_secrets))

    @property
    def num_secrets(self) -> int:
        """N."""
        return self.weights.shape[1]

    def chunks(self, runs: np.ndarray) -> Iterator[slice]:
        """Slices of these runs, at once so many that a few arrays (R', N) do not fill the memory."""
        step = max(1, _CELLS_A_CHUNK // self.num_secrets)
        return (slice(start, start + step) for start in range(0, len(runs), step))

    def posterior(self, runs: np.ndarray) -> np.ndarray:
        """p(S | all that was seen) of these runs: (R', N)."""
        return self.weights[runs] / self.totals[runs, None]

    def undecided(self, runs: np.ndarray) -> np.ndarray:
        """(R',) bool: whether several secrets are still possible.

        For noiseless channels only; a noisy one never rules anything out.
        """
        return np.asarray(self.totals[runs] > 1.0)

    def surprise_variance(self, runs: np.ndarray) -> np.ndarray:
        """Variance of log2 P(S) under the observer's own posterior: (R',) squared bits.

        It is 0 where all candidates are equally likely.
        """
        return np.concatenate([self._surprise_variance(runs[some]) for some in self.chunks(runs)])

    def _surprise_variance(self, runs: np.ndarray) -> np.ndarray:
        posterior = self.posterior(runs)
        log = np.log2(np.where(posterior > 0, posterior, 1.0))
        return np.maximum((posterior * log**2).sum(axis=1) - (posterior * log).sum(axis=1) ** 2, 0.0)

    def multiply(self, runs: np.ndarray, likelihoods: np.ndarray, *, rescale: bool) -> None:
        """Multiplies the weights of these runs by (R', N), each run at most once.

        Noise shrinks all weights: `rescale` keeps them away from underflow.
        """
        weights = self.weights[runs] * likelihoods
        totals = weights.sum(axis=1)
        if rescale:
            scale = np.where(totals > 0, totals, 1.0)
            weights /= scale[:, None]
            totals = totals / scale
        self.weights[runs], self.totals[runs] = weights, totals

    def observe(self, runs: np.ndarray, question: Question, outcomes: Outcomes, levels: np.ndarray) -> None:
        """Takes in the level (R',) that each of these runs saw; each run at most once.

        Raises:
            ValueError: if a level is impossible for every S that was still possible: the outcomes are not
                those of the channel.
        """
        question.reweigh(self, runs, outcomes, levels)
        impossible = self.totals[runs] <= 0
        if impossible.any():
            raise ValueError(
                f"runs {np.asarray(runs)[impossible].tolist()} got a reward that no secret explains"
            )

    def strike_out(self, run: int, secrets: np.ndarray) -> None:
        """Rules out these secrets of one run.

        Each must have been possible until now, and all candidates of the run equally likely.
        """
        self.weights[run, secrets] = 0.0
        self.totals[run] -= len(secrets)

    def bits_known(self, runs: np.ndarray, secrets: np.ndarray) -> np.ndarray:
        """log2 N + log2 P(S) of these runs, given their secrets (R',): (R',) bits."""
        with np.errstate(divide="ignore"):  # a secret struck out, by a wrong likelihood, is -inf bits
            return np.log2(self.num_secrets * self.weights[runs, secrets] / self.totals[runs])
