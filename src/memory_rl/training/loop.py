"""The one loop: episodes come, the learner moves the policies, the meter measures.

All runs take each step together. Supervised learning is the same loop with another signal, and so with
another sampling and another learner.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from memory_rl.training.continuation import FROM_SCRATCH, Continuation
from memory_rl.training.meter import Meter
from memory_rl.training.sampling import Sampling


def train(
    policy: Any, learner: Any, sampling: Sampling, meter: Meter, continuation: Continuation = FROM_SCRATCH
) -> None:
    """Trains every run until it knows its secret or has spent its budget.

    Args:
        policy: of R runs.
        learner: moves it.
        sampling: gives each run its next episodes.
        meter: measures, and says which runs continue.
        continuation: how to resume, and what to do between two updates.
    """
    place = continuation.resume(policy=policy, sampling=sampling, learner=learner, meter=meter)
    runs: np.ndarray = meter.start(policy) if place is None else place["runs"]
    while len(runs):
        batch = sampling.next(runs)
        silent = learner.learn(policy, batch)
        runs = meter.see(policy, batch, silent)
        continuation.pause(runs=runs)
