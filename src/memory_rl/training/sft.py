"""The one supervised loop: show the answer, move the parameters, measure. Each example shown is one episode."""

from __future__ import annotations

import numpy as np

from memory_rl.config import SFTConfig
from memory_rl.learning.objectives import PolicyGradient
from memory_rl.policies.base import Policy
from memory_rl.training.continuation import FROM_SCRATCH, Continuation
from memory_rl.training.recorder import Batch, Recorder


def train_by_example(config: SFTConfig, policy: Policy, recorder: Recorder, answers: np.ndarray, continuation: Continuation = FROM_SCRATCH) -> None:
    """Trains every run until it knows its secret or has been shown its budget of examples.

    Args:
        config: the experiment.
        policy: the learners.
        recorder: the meter.
        answers: (R, D) the answers of each run's examples, in the order in which they are shown; repeated if they are fewer than the budget.
        continuation: how it goes on from where it was left.
    """
    place = continuation.resume(policy=policy, recorder=recorder)
    if place is None:
        place = {"runs": recorder.evaluate(policy, np.arange(config.num_runs), episode=0), "episode": 0}
    runs, episode = place["runs"], place["episode"]
    while len(runs) and episode + config.batch_size <= config.budget:
        shown = np.arange(episode, episode + config.batch_size) % answers.shape[1]
        episode += config.batch_size
        examples = policy.demonstrate(runs, answers[runs][:, shown])
        updates_before = policy.updates[runs].copy()
        policy.update(examples, np.ones(examples.choices.shape), PolicyGradient())  # advantage 1: maximum likelihood
        runs = recorder.evaluate(policy, runs, episode, Batch(examples, updates_before))
        continuation.pause(runs=runs, episode=episode)
