"""The ledger: what each run's questions could reveal, what the ideal observer learned, and when it knew S.

All numbers are cumulative over a run. Averaged over uniform secrets, what the observer knows is what the
questions could reveal (chain rule), and no policy that learns from the same rewards knows more than the
observer (Gibbs' inequality). Both hold at any time that does not depend on S.
"""

from __future__ import annotations

import numpy as np

from memory_rl.information.observer import Observer, Question
from memory_rl.information.outcomes import Outcomes
from memory_rl.state import Stateful

NEVER = 0


class Ledger(Stateful):
    """The accounts of R runs.

    Args:
        secrets: (R,) integers in [0, N).
        num_secrets: N.
        known_at: the observer knows S once it gives S at least this probability.
    """

    kept = ("asked", "_variance", "episodes_to_know", "_noisy", "observer")

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
        """(R',) bool: whose observers can still learn; questions of the others need not be recorded."""
        return np.full(len(runs), True) if not outcomes.certain else self.observer.undecided(runs)

    def record(self, runs: np.ndarray, question: Question, outcomes: Outcomes, levels: np.ndarray) -> None:
        """Takes in one question to each of these runs, and the level (R',) that was seen."""
        information, variance = question.ask(self.observer, runs, outcomes)
        self.asked[runs] += information
        self._variance[runs] += variance
        self._noisy |= not outcomes.certain
        self.observer.observe(runs, question, outcomes, levels)

    def record_misses(self, run: int, answers: np.ndarray, episodes: np.ndarray) -> None:
        """Takes in many questions of one run at once: whether S is this answer, each truly answered with no.

        Args:
            run: the run.
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
        knows = self.observer_bits(runs[waiting]) >= np.log2(self.observer.num_secrets * self.known_at) - 1e-9
        self.episodes_to_know[runs[waiting][knows]] = episode[waiting][knows]

    def asked_variance(self, runs: np.ndarray) -> np.ndarray:
        """Variance of the observer's bits around `asked`, given all that was seen but S: (R',) squared bits.

        The entropy that the observer has lost, less `asked`, is a martingale, whose increments have the
        variances of the questions; the observer's bits differ from that entropy by the surprise of S itself.
        """
        return self._variance[runs] + (self.observer.surprise_variance(runs) if self._noisy else 0.0)

    def observer_bits(self, runs: np.ndarray) -> np.ndarray:
        """log2 N + log2 P(S) of the observers of these runs: (R',) bits."""
        return self.observer.bits_known(runs, self.secrets[runs])


class HitLedger(Stateful):
    """The accounts of R runs where N is too large to keep all candidates.

    Each question is whether one answer is S, and is answered without noise. What such an observer knows
    depends on nothing but the number D of different answers that were tried and were not S. D is replaced by
    its expectation over what was tried, given the probability of each answer at the time; that is estimated
    from a panel of answers, drawn uniformly: D/N is the mean over the panel of 1 - product of (1 - p)^n, with
    a standard error of at most 1/(2 sqrt(Q)) for a panel of Q, and none if it holds all answers. The observer
    is taken to know S from the first hit on; that it has tried all answers but one or two before has a
    probability of about 2/N.

    Args:
        secrets: (R,) integers in [0, N).
        num_secrets: N.
        panel: (Q,) different answers.
    """

    kept = ("_log_untried", "_log_tried_now", "_hit", "episodes_to_know")

    def __init__(self, secrets: np.ndarray, num_secrets: int, panel: np.ndarray) -> None:
        self.secrets = secrets
        self.episodes_to_know = np.full(len(secrets), NEVER)
        self._num_secrets = num_secrets
        self._log_untried = np.zeros((len(secrets), len(panel)))
        self._log_tried_now = np.full((len(secrets), len(panel)), -np.inf)
        self._others = panel != secrets[:, None]  # (R, Q): S itself is not among the answers that miss
        candidates = np.arange(num_secrets, 1, -1)  # before each miss
        gains = Outcomes(2).gains(np.stack([1 - 1 / candidates, 1 / candidates], axis=1))
        # (2, N) information and variance of 0, 1, ... misses
        self._by_misses = np.stack([np.append(0.0, gain.cumsum()) for gain in gains])
        self._hit = np.zeros((2, len(secrets)))  # information and variance of the question that hit

    @property
    def asked(self) -> np.ndarray:
        """(R,) expected information of the questions asked, in bits."""
        return self._accounts(np.arange(len(self.secrets)))[0]

    def asked_variance(self, runs: np.ndarray) -> np.ndarray:
        """Variance of the observer's bits around `asked`, given all but S: (R',) squared bits."""
        return self._accounts(runs)[1]

    def observer_bits(self, runs: np.ndarray) -> np.ndarray:
        """log2 N + log2 P(S) of the observers of these runs: (R',) bits."""
        knows = self.episodes_to_know[runs] != NEVER
        return np.where(
            knows,
            np.log2(self._num_secrets),
            np.log2(self._num_secrets / (self._num_secrets - self.misses(runs))),
        )

    def misses(self, runs: np.ndarray) -> np.ndarray:
        """D, the expected number of different answers that these runs tried without a hit: (R',)."""
        others = self._others[runs]
        tried = -np.expm1(self._log_untried[runs])
        return (self._num_secrets - 1) * (tried * others).sum(axis=1) / others.sum(axis=1)

    def look(self, run: int, log_probs: np.ndarray) -> None:
        """Takes in log-probabilities (Q,) of the panel's answers in case of a miss, in nats, from now on."""
        self._log_tried_now[run] = log_probs

    def record_misses(self, run: int, count: int) -> None:
        """Takes in this many episodes without a hit."""
        if self.episodes_to_know[run] == NEVER:
            self._log_untried[run] += count * np.log1p(
                -np.minimum(np.exp(self._log_tried_now[run]), 1 - 1e-12)
            )

    def record_hit(self, run: int, episode: int) -> None:
        """Takes in that S was answered at this episode, counted from 1."""
        if self.episodes_to_know[run] == NEVER:
            left = self._num_secrets - self.misses(np.array([run]))
            self._hit[:, run] = np.stack(Outcomes(2).gains(np.stack([1 - 1 / left, 1 / left], axis=1)))[:, 0]
            self.episodes_to_know[run] = episode

    def record_shown(self, runs: np.ndarray, episodes: np.ndarray) -> None:
        """Takes in that S was shown to runs that had asked nothing."""
        new = self.episodes_to_know[runs] == NEVER
        self._hit[0, runs[new]] = np.log2(self._num_secrets)
        self.episodes_to_know[runs[new]] = episodes[new]

    def _accounts(self, runs: np.ndarray) -> np.ndarray:
        """Information and variance of all that these runs asked: (2, R')."""
        misses = self.misses(runs)
        whole = np.minimum(misses.astype(np.int64), self._by_misses.shape[1] - 2)
        below, above = self._by_misses[:, whole], self._by_misses[:, whole + 1]
        return below + (misses - whole) * (above - below) + self._hit[:, runs]
