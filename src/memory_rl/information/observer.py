"""The ideal observer: exact Bayes over S from a policy's questions and the levels that it saw.

It works on all runs at once, and is handed questions and outcomes: it knows neither rewards nor policies.
Beliefs are kept as weights that need not sum to 1: a noiseless channel only ever strikes secrets out, so that
its weights stay exactly 0 or 1 and their sum is the number of candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memory_rl.information.entropy import xlog2x
from memory_rl.information.outcomes import Outcomes, class_masses
from memory_rl.state import Stateful


@dataclass(frozen=True)
class Partition:
    """Any question to each of R runs: classes (R, N), the class of each secret."""

    classes: np.ndarray

    def ask(self, observer: Observer, runs: np.ndarray, outcomes: Outcomes) -> tuple[np.ndarray, np.ndarray]:
        """What the question is expected to reveal about S before its level is seen.

        That is the mean (I(S; R | A, history), in bits) and the variance (in squared bits) of the entropy
        that the observer loses, each (R',); here from the mass and the entropy of each class.
        """
        posterior = observer.posterior(runs)
        masses = class_masses(self.classes, posterior, outcomes.num_classes)
        if outcomes.certain:
            return outcomes.gains(masses)
        return outcomes.gains(masses, class_masses(self.classes, -xlog2x(posterior), outcomes.num_classes))

    def reweigh(self, observer: Observer, runs: np.ndarray, outcomes: Outcomes, levels: np.ndarray) -> None:
        """Multiplies the weights of all secrets by p(level | class)."""
        weights = observer.weights[runs] * outcomes.likelihoods(self.classes, levels[:, None])
        totals = weights.sum(axis=1)
        if not outcomes.certain:  # noise shrinks all weights: keep them away from underflow
            scale = np.where(totals > 0, totals, 1.0)
            weights, totals = weights / scale[:, None], totals / scale
        observer.weights[runs], observer.totals[runs] = weights, totals


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


Question = Partition | OneAgainstRest
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
        posterior = self.posterior(runs)
        log = np.log2(np.where(posterior > 0, posterior, 1.0))
        return np.maximum((posterior * log**2).sum(axis=1) - (posterior * log).sum(axis=1) ** 2, 0.0)

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
            return np.log2(self.weights.shape[1] * self.weights[runs, secrets] / self.totals[runs])
