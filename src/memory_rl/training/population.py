"""Builds the learners of a configuration: their world, their secrets and their policies on one warmed-up base model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from memory_rl.config import Experiment, LearnerConfig
from memory_rl.policies.base_model import find_base_model, warm_up_cached
from memory_rl.policies.lora import LoRASettings
from memory_rl.policies.tokenisation import tokenise_all
from memory_rl.policies.transformer import TransformerPolicy
from memory_rl.seeding import generator
from memory_rl.task import Environment, SecretSpace
from memory_rl.training.environments import make_environment


@dataclass(frozen=True)
class Population:
    """R learners, ready to start.

    Attributes:
        environment: the world that all runs share.
        secrets: (R,).
        policy: the R policies.
        about: what the summary tells of the policy: parameters trained by a run, and the warm-up.
    """

    environment: Environment
    secrets: np.ndarray
    policy: TransformerPolicy
    about: dict[str, Any]


def draw_secrets(config: LearnerConfig) -> np.ndarray:
    """The secret of each run: `fixed_secret` for all, or one drawn from the seed for each. Shape (R,)."""
    if config.fixed_secret is not None:
        return np.full(config.num_runs, config.fixed_secret)
    space = SecretSpace(config.N)
    return np.array([space.draw(generator(config.seed, "secrets", run)) for run in range(config.num_runs)])


def make_population(config: Experiment) -> Population:
    """The environment, the secrets and R policies on one warmed-up base model.

    Raises:
        ModelError: if the model cannot be found, cannot write an answer or cannot be warmed up.
    """
    torch.set_num_threads(config.threads)
    environment = make_environment(config)
    base = find_base_model(config.model_name, config.base_seed)
    trie = tokenise_all(base.tokenizer, environment.conversations(), environment.choices(np.arange(environment.num_forms)))
    about: dict[str, Any] = {}
    if config.warmup:
        report, cached = warm_up_cached(base, trie, config.N)
        about["warmup"] = {**asdict(report), "from_cache": cached}
    lora = LoRASettings(config.lora_rank, config.lora_alpha, config.lora_targets)
    policy = TransformerPolicy(base.model, trie, num_runs=config.num_runs, lora=lora, learning_rate=config.learning_rate, seed=config.seed)
    about["trained_parameters"] = policy.trained_parameters
    return Population(environment, draw_secrets(config), policy, about)
