"""The ideal observer: exact Bayes over S from the answers that a policy gave and the rewards that it got, for all runs at once."""

from __future__ import annotations

import numpy as np

from memory_rl.information.entropy import LN2, mutual_information


class Observer:
    """R posteriors over [0, N), uniform at first. It is handed likelihoods, so that it knows neither channels nor policies.

    Args:
        num_runs: R.
        num_secrets: N.
    """

    def __init__(self, num_runs: int, num_secrets: int) -> None:
        self.log_posterior = np.full((num_runs, num_secrets), -np.log(num_secrets))

    def expected_information(self, runs: np.ndarray, likelihoods: np.ndarray) -> np.ndarray:
        """What an episode with these answers tells about S before its reward is seen: I(S; R | A, history) in bits, (R',).

        Args:
            runs: (R',) which runs ask.
            likelihoods: (R', N, L) p(reward | answer, S).
        """
        return mutual_information(np.exp(self.log_posterior[runs]), likelihoods)

    def observe(self, runs: np.ndarray, likelihoods: np.ndarray) -> None:
        """Takes in one reward of each of these runs.

        Args:
            runs: (R',), each at most once.
            likelihoods: (R', N) p(the reward that was seen | answer, S).

        Raises:
            ValueError: if a reward is impossible for every S that was still possible: the likelihoods are not those of the channel.
        """
        with np.errstate(divide="ignore"):
            joint = self.log_posterior[runs] + np.log(likelihoods)
        evidence = np.logaddexp.reduce(joint, axis=1)
        if not np.isfinite(evidence).all():
            raise ValueError(f"runs {np.asarray(runs)[~np.isfinite(evidence)].tolist()} got a reward that no secret explains")
        self.log_posterior[runs] = joint - evidence[:, None]

    def bits_known(self, secrets: np.ndarray) -> np.ndarray:
        """log2 N + log2 P(S) of each run, (R,) bits."""
        known = np.take_along_axis(self.log_posterior, secrets[:, None], axis=1)[:, 0]
        return np.log2(self.log_posterior.shape[1]) + known / LN2
