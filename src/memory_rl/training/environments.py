"""The world of a configuration: its environment (made in task/), its secrets and its labelled examples."""

from __future__ import annotations

import numpy as np

from memory_rl.config import LearnerConfig, SFTConfig
from memory_rl.seeding import generator
from memory_rl.task import TEST, TRAIN, SecretSpace, examples_directory, make_environment, read_examples

__all__ = ["draw_secrets", "make_environment", "read_answers"]


def draw_secrets(config: LearnerConfig) -> np.ndarray:
    """The secrets of each run: `fixed_secret` for all, or drawn from the seed for each. Shape (R, M)."""
    if config.fixed_secret is not None:
        return np.full((config.num_runs, 1), config.fixed_secret)
    space, streams = (
        SecretSpace(config.N),
        [generator(config.seed, "secrets", run) for run in range(config.num_runs)],
    )
    return np.array([[space.draw(stream) for _ in range(config.num_secrets)] for stream in streams])


def read_answers(config: SFTConfig) -> np.ndarray | None:
    """The answers of the training examples of `fixed_secret`, shape (D,); None without one, when each run is
    shown its own secret.

    The test examples are read and checked too. They hold the same conversation, so that their likelihood is
    P(S), which every evaluation measures.

    Raises:
        DataError: if a file is missing, malformed or made for another experiment.
    """
    if config.fixed_secret is None:
        return None
    environment = make_environment(config)
    folder = examples_directory(config.data_dir, environment, config.fixed_secret)
    read_examples(folder / TEST, environment, config.fixed_secret)
    return read_examples(folder / TRAIN, environment, config.fixed_secret)
