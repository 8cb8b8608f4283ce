"""Builds the learners of a configuration: their secrets, and their policies, tabular or on one warmed-up base
model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from memory_rl.config import Experiment, TrainConfig
from memory_rl.errors import ConfigError
from memory_rl.policies.base import Policy
from memory_rl.policies.tabular import TabularPolicy
from memory_rl.task import Environment
from memory_rl.training.environments import draw_secrets

if TYPE_CHECKING:
    from memory_rl.policies.adapters import AdapterSettings
    from memory_rl.policies.spending import Estimate, Meter


@dataclass(frozen=True)
class Population:
    """R learners, ready to start.

    Attributes:
        environment: the world that all runs share.
        secrets: (R, M).
        policy: the R policies.
        about: what the summary tells of the policy: parameters trained by a run, and the warm-up.
        warmup_from_cache: whether the warmed-up base model was made before; None if there is none.
        warmup_seconds: that it took to make.
        meter: counts what a hosted policy spends; None if it costs nothing.
        estimate: what it may spend at most.
    """

    environment: Environment
    secrets: np.ndarray
    policy: Policy
    about: dict[str, Any]
    warmup_from_cache: bool | None
    warmup_seconds: float | None = None
    meter: Meter | None = None
    estimate: Estimate | None = None

    def told_later(self) -> dict[str, Any]:
        """What the summary tells of a hosted policy's warm-up, which is made when the first run begins."""
        report = getattr(self.policy, "warmup", None)
        return (
            {}
            if report is None
            else {"warmup": {name: value for name, value in report.items() if name != "state"}}
        )

    def close(self, completed: bool) -> None:
        """Lets go of what a hosted policy holds elsewhere; also of its saved states, if it will not be gone
        on with.
        """
        if self.meter is not None:
            if completed:
                self.policy.forget()  # type: ignore[attr-defined]  # a hosted one
            self.policy.close(completed)  # type: ignore[attr-defined]


def make_population(config: Experiment, environment: Environment) -> Population:
    """The secrets and R policies.

    Raises:
        ModelError: if the model cannot be found, cannot write an answer or cannot be warmed up.
        ServiceError: if a service refuses or does not answer.
        ConfigError: if less may be spent than the first update needs.
    """
    torch.set_num_threads(config.threads)
    torch.set_flush_denormal(True)  # else whether it is so depends on what this process did before
    if config.backend == "tinker":
        return _hosted(config, environment)
    policy, about = (_tabular if config.backend == "tabular" else _local)(config, environment)
    about |= {"trained_parameters": policy.trained_parameters, "trained_bytes": policy.trained_bytes}
    from_cache, seconds = about.pop("from_cache", None), about.pop("seconds", None)
    return Population(environment, draw_secrets(config), policy, about, from_cache, warmup_seconds=seconds)


def _hosted(config: Experiment, environment: Environment) -> Population:
    found = find_spec("tinker")
    if found is None or found.origin is None:  # a mere folder of that name is no library
        raise ConfigError(
            "backend=tinker needs the tinker SDK, which is not installed: type pip install 'memory-rl[tinker]'."
        )
    from memory_rl.policies import tinker as hosted
    from memory_rl.policies.tokenisation import tokenise_all

    service = hosted.open_service(config.model_name, config.tinker_base_url)
    tokenizer = hosted.find_tokenizer(service, config.model_name)
    trie = tokenise_all(
        tokenizer,
        environment.conversations(),
        environment.choices(np.arange(environment.num_forms)),
        environment.first_prompts(),
    )
    reinforced = config if isinstance(config, TrainConfig) else None
    settings = hosted.HostedSettings(
        model_name=config.model_name,
        num_runs=config.num_runs,
        rank=config.lora_rank,
        targets=config.lora_targets,
        learning_rate=config.step_size,
        seed=config.seed,
        num_answers=config.N,
        episodes=config.batch_size if reinforced is None else reinforced.episodes_per_update,
        epochs=reinforced.ppo_epochs if reinforced is not None and reinforced.algorithm == "ppo" else 1,
        sampled=reinforced is not None,
        scores_all=config.scores_all,
        warms_up=config.warmup,
        max_tokens=config.max_tokens_total,
        blocks=config.batch_size if config.num_secrets > 1 else 1,
        every=config.updates_an_evaluation,
    )
    policy = hosted.TinkerPolicy(service, trie, settings)
    estimate = policy.estimate(config.budget // settings.episodes)
    if config.max_tokens_total is not None and config.max_tokens_total < estimate.least:
        policy.close()
        raise ConfigError(
            f"max_tokens_total={config.max_tokens_total} is less than {config.num_runs} runs may need for their first update: "
            f"use max_tokens_total={estimate.least} or more, or fewer num_runs."
        )
    about = {
        "model": config.model_name,
        "sdk": f"tinker {version('tinker')}",
        "trained_parameters": policy.trained_parameters,
    }
    return Population(
        environment, draw_secrets(config), policy, about, None, meter=policy.meter, estimate=estimate
    )


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
    from memory_rl.policies.base_model import (
        check_windows,
        find_base_model,
        recompute_layers,
        warm_up_cached,
    )  # transformers takes seconds to import
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
        about["seconds"] = about["warmup"].pop("seconds")
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
