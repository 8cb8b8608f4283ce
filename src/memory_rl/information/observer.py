"""The ideal observer: exact Bayes over S from the questions that a policy asked and the levels that it saw,
for all runs at once.

It is handed questions and outcomes, so that it knows neither rewards nor policies. Beliefs are kept as
weights that need not sum to 1: a noiseless channel only ever strikes secrets out, so that its weights stay
exactly 0 or 1 and their sum is the number of candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from memory_rl.information.entropy import xlog2x
from memory_rl.information.outcomes import Outcomes, class_masses
from memory_rl.state import Stateful


class Question(Protocol):
    """One question to each of R runs: how it sorts the secrets into classes."""

    def ask(self, observer: Observer, runs: np.ndarray, outcomes: Outcomes) -> tuple[np.ndarray, np.ndarray]:
        """See `Observer.ask`."""

    def reweigh(self, observer: Observer, runs: np.ndarray, outcomes: Outcomes, levels: np.ndarray) -> None:
        """Multiplies the weights by p(level | class)."""


@dataclass(frozen=True)
class Partition:
    """Any question: classes (R, N), the class of each secret."""

    classes: np.ndarray

    def ask(self, observer: Observer, runs: np.ndarray, outcomes: Outcomes) -> tuple[np.ndarray, np.ndarray]:
        """See `Question`."""
        posterior = observer.posterior(runs)
        masses = class_masses(self.classes, posterior, outcomes.num_classes)
        if outcomes.certain:
            return outcomes.gains(masses)
        return outcomes.gains(masses, class_masses(self.classes, -xlog2x(posterior), outcomes.num_classes))

    def reweigh(self, observer: Observer, runs: np.ndarray, outcomes: Outcomes, levels: np.ndarray) -> None:
        """See `Question`."""
        weights = observer.weights[runs] * outcomes.likelihoods(self.classes, levels[:, None])
        totals = weights.sum(axis=1)
        if not outcomes.certain:  # noise shrinks all weights: keep them away from underflow
            scale = np.where(totals > 0, totals, 1.0)
            weights, totals = weights / scale[:, None], totals / scale
        observer.weights[runs], observer.totals[runs] = weights, totals


@dataclass(frozen=True)
class OneAgainstRest:
    """The question whether S is this one secret, answered without noise: class 1 for `answers` (R,), class 0
    for all others.

    It is a `Partition` whose cost does not grow with N.
    """

    answers: np.ndarray

    def ask(self, observer: Observer, runs: np.ndarray, outcomes: Outcomes) -> tuple[np.ndarray, np.ndarray]:
        """See `Question`."""
        hit = observer.weights[runs, self.answers] / observer.totals[runs]
        return outcomes.gains(np.stack([1.0 - hit, hit], axis=1))

    def reweigh(self, observer: Observer, runs: np.ndarray, outcomes: Outcomes, levels: np.ndarray) -> None:
        """See `Question`."""
        of_answer, hit = observer.weights[runs, self.answers], levels == 1
        observer.weights[runs[hit]] = 0.0  # a yes: nothing else is possible
        observer.weights[runs, self.answers] = of_answer * hit
        observer.totals[runs] = np.where(hit, of_answer, observer.totals[runs] - of_answer)


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
        """(R',) bool: whether several secrets are possible. For noiseless channels alone; a noisy one never
        rules anything out.
        """
        return np.asarray(self.totals[runs] > 1.0)

    def ask(self, runs: np.ndarray, question: Question, outcomes: Outcomes) -> tuple[np.ndarray, np.ndarray]:
        """What the question tells about S before its level is seen: mean (the I(S; R | A, history)) and
        variance of the entropy lost, each (R',).
        """
        return question.ask(self, runs, outcomes)

    def surprise_variance(self, runs: np.ndarray) -> np.ndarray:
        """Variance of log2 P(S) over the secrets as the observer believes in them: (R',) squared bits. 0
        where all candidates are equally likely.
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
        """Rules these secrets out, of which each was still possible, for one run whose candidates are all
        equally likely.
        """
        self.weights[run, secrets] = 0.0
        self.totals[run] -= len(secrets)

    def bits_known(self, runs: np.ndarray, secrets: np.ndarray) -> np.ndarray:
        """log2 N + log2 P(S) of these runs, whose secrets are given: (R',) bits."""
        with np.errstate(divide="ignore"):  # a secret struck out, by a wrong likelihood, is -inf bits
            return np.log2(self.weights.shape[1] * self.weights[runs, secrets] / self.totals[runs])
