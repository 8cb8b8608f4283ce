"""The ledger: what each run's questions could tell, what the ideal observer learned from them, and when it knew S.

All numbers are cumulative over a run. Averaged over uniform secrets, what the observer knows is what the questions could tell (chain rule), and no
policy that learns from the same rewards knows more than the observer (Gibbs' inequality). Both hold at any time that does not depend on S.
"""

from __future__ import annotations

import numpy as np

from memory_rl.information.observer import Observer, Question
from memory_rl.information.outcomes import Outcomes

NEVER = 0


class Ledger:
    """Accounts of R runs.

    Args:
        secrets: (R,) integers in [0, N).
        num_secrets: N.
        known_at: the observer knows S once it gives S at least this probability.
    """

    def __init__(self, secrets: np.ndarray, num_secrets: int, known_at: float) -> None:
        self.secrets = secrets
        self.known_at = known_at
        self.observer = Observer(len(secrets), num_secrets)
        self.asked = np.zeros(len(secrets))
        """(R,) expected information of the questions asked, in bits: the sum of I(S; R | A, history)."""
        self._variance = np.zeros(len(secrets))
        self._noisy = False
        self.episodes_to_know = np.full(len(secrets), NEVER)
        """(R,) the first episode after which the observer gave S at least `known_at`; 0 while it did not."""

    def open(self, runs: np.ndarray, outcomes: Outcomes) -> np.ndarray:
        """(R',) bool: the runs whose observers can still learn anything. The questions of the others need not be recorded."""
        return np.full(len(runs), True) if not outcomes.certain else self.observer.undecided(runs)

    def record(self, runs: np.ndarray, question: Question, outcomes: Outcomes, levels: np.ndarray) -> None:
        """Takes in one question to each of these runs, and the level (R',) that was seen."""
        information, variance = self.observer.ask(runs, question, outcomes)
        self.asked[runs] += information
        self._variance[runs] += variance
        self._noisy |= not outcomes.certain
        self.observer.observe(runs, question, outcomes, levels)

    def record_misses(self, run: int, answers: np.ndarray, episodes: np.ndarray) -> None:
        """Takes in many questions of one run at once, each whether S is this answer, and each truly answered with no.

        Args:
            run: whose.
            answers: (T,) in the order in which they were given.
            episodes: (T,) the number of each episode, from 1, ascending.
        """
        _, first = np.unique(answers, return_index=True)
        places = np.sort(first)
        places = places[self.observer.weights[run, answers[places]] > 0]  # the others are known not to be S
        candidates = self.observer.totals[run] - np.arange(len(places))
        information, variance = Outcomes(2).gains(np.stack([1 - 1 / candidates, 1 / candidates], axis=1))
        self.asked[run] += information.sum()
        self._variance[run] += variance.sum()
        self.observer.strike_out(run, answers[places])
        knows = np.nonzero(1 / (candidates - 1) >= self.known_at - 1e-12)[0]
        if len(knows) and self.episodes_to_know[run] == NEVER:
            self.episodes_to_know[run] = episodes[places[knows[0]]]

    def close_episode(self, runs: np.ndarray, episode: np.ndarray) -> None:
        """Notes which of these runs' observers know S after this episode of theirs (R',), counted from 1."""
        waiting = self.episodes_to_know[runs] == NEVER
        knows = self.observer_bits(runs[waiting]) >= np.log2(self.observer.weights.shape[1] * self.known_at) - 1e-9
        self.episodes_to_know[runs[waiting][knows]] = episode[waiting][knows]

    def asked_variance(self, runs: np.ndarray) -> np.ndarray:
        """Variance of the observer's bits around `asked`, for someone who knows all that was seen but S: (R',) squared bits.

        The entropy that the observer has lost, less `asked`, is a martingale, whose increments have the variances of the questions; the observer's bits
        differ from that entropy by the surprise of S itself.
        """
        return self._variance[runs] + (self.observer.surprise_variance(runs) if self._noisy else 0.0)

    def observer_bits(self, runs: np.ndarray) -> np.ndarray:
        """log2 N + log2 P(S) of the observers of these runs: (R',) bits."""
        return self.observer.bits_known(runs, self.secrets[runs])
