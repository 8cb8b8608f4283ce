"""What a population is on the service; known without its SDK."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HostedSettings:
    """What a population is on the service.

    Attributes:
        model_name: of the base model there.
        num_runs: R.
        rank: of the adapters. Their scale is the service's.
        targets: which matrices get one; never the output head.
        learning_rate: of Adam, with the constants of the local one.
        seed: of the initial adapters. Sampling has no seed there.
        num_answers: N.
        episodes: of one run in an update.
        epochs: optimiser steps of an update.
        sampled: whether the episodes are sampled, not shown.
        scores_all: whether every answer is scored after every update.
        warms_up: whether the base model is taught the answer format first.
        max_tokens: the hard stop, or None.
        blocks: B equal ones that the episodes of an update come in, each about one of several secrets.
        every: updates of a run between two measurements.
        warmup_tolerance: bits from uniform that will do where the warm-up does not get as far as it should.
    """

    model_name: str
    num_runs: int
    rank: int
    targets: str
    learning_rate: float
    seed: int
    num_answers: int
    episodes: int
    epochs: int
    sampled: bool
    scores_all: bool
    warms_up: bool = False
    max_tokens: int | None = None
    blocks: int = 1
    every: int = 1
    warmup_tolerance: float | None = None
