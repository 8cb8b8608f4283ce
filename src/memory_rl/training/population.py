"""Builds the learners of a configuration: their secrets, and their policies, tabular or on one warmed-up base model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from memory_rl.config import Experiment
from memory_rl.policies.base import Policy
from memory_rl.policies.tabular import TabularPolicy
from memory_rl.task import Environment
from memory_rl.training.environments import draw_secrets

if TYPE_CHECKING:
    from memory_rl.policies.adapters import AdapterSettings


@dataclass(frozen=True)
class Population:
    """R learners, ready to start.

    Attributes:
        environment: the world that all runs share.
        secrets: (R, M).
        policy: the R policies.
        about: what the summary tells of the policy: parameters trained by a run, and the warm-up.
        warmup_from_cache: whether the warmed-up base model was made before; None if there is none.
    """

    environment: Environment
    secrets: np.ndarray
    policy: Policy
    about: dict[str, Any]
    warmup_from_cache: bool | None


def make_population(config: Experiment, environment: Environment) -> Population:
    """The secrets and R policies.

    Raises:
        ModelError: if the model cannot be found, cannot write an answer or cannot be warmed up.
    """
    torch.set_num_threads(config.threads)
    torch.set_flush_denormal(True)  # else whether it is so depends on what this process did before
    policy, about = (_tabular if config.backend == "tabular" else _local)(config, environment)
    about |= {"trained_parameters": policy.trained_parameters, "trained_bytes": policy.trained_bytes}
    return Population(environment, draw_secrets(config), policy, about, about.pop("from_cache", None))


def _tabular(config: Experiment, environment: Environment) -> tuple[Policy, dict[str, Any]]:
    forms = environment.choices(np.arange(environment.num_forms))
    policy = TabularPolicy(
        forms,
        environment.num_choices,
        num_runs=config.num_runs,
        num_prompts=config.num_secrets,
        prefixes=config.tabular_bits == "prefixes",
        optimiser=config.optimiser,
        learning_rate=config.step_size,
        seed=config.seed,
    )
    return policy, {}


def _local(config: Experiment, environment: Environment) -> tuple[Policy, dict[str, Any]]:
    from memory_rl.policies.base_model import check_windows, find_base_model, recompute_layers, warm_up_cached  # transformers takes seconds to import
    from memory_rl.policies.paths import PathPolicy
    from memory_rl.policies.tokenisation import tokenise_all
    from memory_rl.policies.transformer import TransformerPolicy

    base = find_base_model(config.model_name, config.base_seed, config.dtype, config.device)
    if config.gradient_checkpointing:
        recompute_layers(base.model)
    choices = environment.choices(np.arange(environment.num_forms))
    trie = tokenise_all(base.tokenizer, environment.conversations(), choices, environment.first_prompts())
    check_windows(base.model, trie)
    about: dict[str, Any] = {"device": str(base.model.device), "dtype": config.dtype}
    if config.warmup:
        report, about["from_cache"] = warm_up_cached(base, trie, config.N)
        about["warmup"] = asdict(report)
    base.model.to(getattr(torch, config.dtype))  # the built-in model is made and warmed up in float32
    policy = (PathPolicy if config.scores_paths else TransformerPolicy)(
        base.model,
        trie,
        num_runs=config.num_runs,
        lora=_adapter_settings(config),
        learning_rate=config.step_size,
        seed=config.seed,
        optimiser=config.optimiser,
    )
    return policy, about


def _adapter_settings(config: Experiment) -> AdapterSettings:
    from memory_rl.policies.full import FullSettings
    from memory_rl.policies.lora import LoRASettings
    from memory_rl.policies.shared import SharedSettings

    if config.adapter == "full":
        return FullSettings()
    lora = LoRASettings(config.lora_rank, config.lora_alpha, config.lora_targets, config.adapted_layers)
    return lora if config.adapter_parameters is None else SharedSettings(config.adapter_parameters, lora)
