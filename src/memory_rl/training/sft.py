"""The one supervised loop: show the answer, move the parameters, measure. Each example shown is one
episode.
"""

from __future__ import annotations

import numpy as np

from memory_rl.config import SFTConfig
from memory_rl.learning.objectives import PolicyGradient
from memory_rl.policies.base import Policy
from memory_rl.training.continuation import FROM_SCRATCH, Continuation
from memory_rl.training.prompts import make_prompts
from memory_rl.training.recorder import Batch, Recorder


def train_by_example(
    config: SFTConfig,
    policy: Policy,
    recorder: Recorder,
    answers: np.ndarray | None = None,
    continuation: Continuation = FROM_SCRATCH,
) -> None:
    """Trains every run until it knows its secret or has been shown its budget of examples.

    Args:
        config: the experiment.
        policy: the learners.
        recorder: the meter.
        answers: (D,) the answers of the examples, in the order in which they are shown, repeated if they are
            fewer than the budget; without them each run is shown its own secrets, one an example.
        continuation: how it goes on from where it was left.
    """
    prompts = make_prompts(config)
    place = continuation.resume(policy=policy, recorder=recorder, prompts=prompts)
    if place is None:
        place = {"runs": recorder.evaluate(policy, np.arange(config.num_runs), episode=0), "episode": 0}
    runs, episode = place["runs"], place["episode"]
    while len(runs) and episode + config.batch_size <= config.budget:
        asked = prompts.next(runs)  # (R, E): a prompt for each example
        shown = recorder.secrets[runs[:, None], asked]
        if answers is not None:
            shown = np.broadcast_to(
                answers[np.arange(episode, episode + config.batch_size) % len(answers)], shown.shape
            )
        episode += config.batch_size
        examples = policy.demonstrate(runs, shown, asked if config.num_secrets > 1 else None)
        updates_before = policy.updates[runs].copy()
        policy.update(
            examples, np.ones(examples.choices.shape), PolicyGradient()
        )  # advantage 1: maximum likelihood
        runs = recorder.evaluate(policy, runs, episode, Batch(examples, updates_before))
        continuation.pause(runs=runs, episode=episode)
