"""A learner without gradients.

Axes: R runs, E episodes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from typing_extensions import override

from memory_rl.keys import key
from memory_rl.learning.batch import Batch
from memory_rl.learning.estimators import whitened
from memory_rl.learning.learners import Learner
from memory_rl.limits import FACTORS
from memory_rl.seeding import RunStreams


@dataclass(kw_only=True)
class Evolution(Learner, name="evolution"):
    """Evolution strategies on what is trained (Salimans et al. 2017, arXiv:1703.03864; arXiv:2509.24372).

    Each episode of an update is given by the policy with noise of its own on its parameters. They then move
    along the mean over episodes of z-scored return times noise, by a step of the optimiser; with
    optimiser=sgd that is the update of arXiv:2509.24372, whose step size takes in 1 / sigma. What is measured
    has no noise on it.
    """

    sigma: float | None = key(
        None,
        "Standard deviation of the noise on what is trained. Default: 1 with backend=tabular, else 0.02.",
        FACTORS,
        word="evolution_sigma",
    )
    silent_if_equal = False  # what is sampled is not the policy, whose law skip-ahead draws from
    fewest_episodes = 2
    follows_loss = False
    not_hosted = "puts noise on what is trained"
    kept = ("_random",)

    @override
    def start(self, seed: int, num_runs: int) -> None:
        self._random = RunStreams(seed, "evolution", num_runs)

    @override
    def sample(self, policy: Any, runs: np.ndarray, prompts: np.ndarray, num_episodes: int) -> Batch:
        self._seeds = np.stack([self._random[run].integers(2**63, size=num_episodes) for run in runs])
        asked = np.repeat(prompts, num_episodes // prompts.shape[1], axis=1)
        sigma, each = policy.noise if self.sigma is None else self.sigma, list[Batch]()
        for episode in range(num_episodes):
            with policy.perturbed(runs, self._seeds[:, episode], sigma):
                each.append(policy.sample(runs, asked[:, [episode]], 1))
        choices = np.concatenate([one.choices for one in each], axis=1)
        path = np.concatenate([one.path for one in each], axis=1)
        return replace(each[0], prompts=prompts, choices=choices, path=path)

    @override
    def learn(self, policy: Any, batch: Batch) -> np.ndarray:
        assert batch.returns is not None  # noqa: S101  # rewarded
        score = whitened(batch.returns.sum(axis=3).reshape(len(batch.runs), -1), axes=(1,))
        moved = score.any(axis=1)
        if moved.any():
            weights = -score[moved] / score.shape[1]  # the optimiser descends
            policy.follow(batch.runs[moved], self._seeds[moved], weights)
        return np.where(moved, 0.0, 1.0)
