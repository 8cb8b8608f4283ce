"""Makes the R policies of an experiment, on whichever backend they live."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memory_rl.config import BUILT_IN
from memory_rl.errors import ConfigError, require
from memory_rl.experiment import Experiment
from memory_rl.learning.penalty import Penalty
from memory_rl.limits import MAX_LISTED_FORMS, MAX_TOKENS_OF_SAMPLES
from memory_rl.policies.hosted.settings import HostedSettings
from memory_rl.policies.prior import zipf_weights
from memory_rl.task import Environment

if TYPE_CHECKING:
    from memory_rl.policies.answer_trie import AnswerTrie
    from memory_rl.policies.base import Policy
    from memory_rl.policies.base_model import BaseModel

from memory_rl.assembly import Setting

_CHECKED = 16  # conversations that must be written as their turns are


@dataclass(frozen=True)
class Learners:
    """R policies, ready to start.

    Attributes:
        policy: of all runs.
        about: what summary.json says about it: device, model, parameters trained by a run, the warm-up.
        warmup: what the manifest says, because it may differ from time to time: whether the base model came
            from the cache, and the seconds that it took to make.
        notes: sentences about what a hosted policy may cost.
        base: of adapters/base.json, where adapters are to be saved: the model that they belong to.
        prompt: a conversation as the model reads it; None for a policy that reads none.
        lessons: (R, M, F) what the teachers of another run would answer; None without them.
    """

    policy: Policy
    about: dict[str, Any]
    warmup: dict[str, Any]
    notes: list[str]
    base: dict[str, Any] | None
    prompt: str | None
    lessons: np.ndarray | None = None


def make_learners(
    setting: Setting, folder: Path | None = None, watch: Callable[..., object] | None = None
) -> Learners:
    """The policies of a setting.

    Args:
        setting: of the experiment.
        folder: the run directory, for a base model that is to be saved.
        watch: is told the steps of a format warm-up, and the bits from uniform; of a pretraining also how
            many steps there will be, and in place of those bits its loss in bits a character.

    Raises:
        RunDirectoryError: if the base model cannot be saved.
        ModelError: if the model cannot be found, cannot write an answer or cannot be warmed up.
        ServiceError: if a service refuses or does not answer.
        ConfigError: if less may be spent than the first update needs.
    """
    if setting.experiment.policy.backend == "local":
        policy, about = _local(setting, folder, watch)
    else:
        policy, about = {"tabular": _tabular, "tinker": _hosted}[setting.experiment.policy.backend](setting)
    about |= {"trained_parameters": policy.trained_parameters, "trained_bytes": policy.trained_bytes}
    if setting.experiment.policy.prior_skew:
        about["prior_skew"] = setting.experiment.policy.prior_skew
    warmup = {f"warmup_{name}": about.pop(name, None) for name in ("from_cache", "seconds")}
    more = {name: about.pop(name, None) for name in ("base", "prompt")}
    return Learners(policy, about, warmup, about.pop("notes", []), **more)


def refuse_unknown_model(experiment: Experiment) -> None:
    """Raises a ModelError about a model that is not there, before PyTorch is imported."""
    policy = experiment.policy
    if policy.backend == "local" and policy.model_name not in BUILT_IN:
        from memory_rl.policies.hub import refuse_unknown

        refuse_unknown(policy.model_name)


@contextmanager
def floats_as_before() -> Iterator[None]:
    """Denormal numbers are again what they were before policies flushed them to zero.

    Functions that the caller goes on to use may need them: SciPy's betaln is infinite without.
    """
    kept = np.array([np.finfo(float).smallest_subnormal]) * 1 > 0
    try:
        yield
    finally:
        if kept and "torch" in sys.modules:
            import torch

            torch.set_flush_denormal(False)


def _use_threads(setting: Setting) -> None:
    import torch

    # more threads than cores only wait for each other, and where processes are counted there may be no more
    torch.set_num_threads(min(setting.experiment.keep.threads, os.cpu_count() or 1))
    torch.set_flush_denormal(True)  # else whether it is so depends on what this process did before
    torch.set_float32_matmul_precision("highest")  # and so does this: its caller may have asked for speed


def _forms(environment: Environment) -> np.ndarray:
    return environment.choices(np.arange(environment.num_forms))


def make_trie(tokenizer: Any, environment: Environment) -> AnswerTrie:
    """All valid conversations, as this tokenizer writes them."""
    from memory_rl.policies.tokenisation import tokenise_all, tokenise_turns

    prompts = environment.first_prompts()
    if environment.num_steps == 1 or environment.num_forms <= MAX_LISTED_FORMS:
        return tokenise_all(tokenizer, environment.conversations(), _forms(environment), prompts)
    some = np.random.default_rng(0).integers(environment.num_forms, size=_CHECKED)
    conversations = [
        environment.conversation(form) for form in (0, environment.num_forms - 1, *some.tolist())
    ]
    return tokenise_turns(tokenizer, conversations, [*map(str, range(environment.num_choices))], prompts)


def _prompt(tokenizer: Any, environment: Environment) -> str:
    from memory_rl.policies.tokenisation import read_back

    return read_back(tokenizer, environment.conversation(0))


def _common(experiment: Experiment) -> dict[str, Any]:
    """What every policy on this machine is made with."""
    return {
        "num_runs": experiment.stop.num_runs,
        "optimiser": experiment.updates.optimiser,
        "learning_rate": experiment.step_size,
        "seed": experiment.world.seed,
        "penalty": Penalty(experiment.updates.entropy_bonus, experiment.updates.kl_to_base),
    }


def _tabular(setting: Setting) -> tuple[Policy, dict[str, Any]]:
    from memory_rl.policies.tabular import TabularPolicy

    _use_threads(setting)
    experiment, environment = setting.experiment, setting.environment
    policy = TabularPolicy(
        _forms(environment),
        environment.num_choices,
        num_prompts=experiment.world.num_secrets,
        prefixes=experiment.policy.tabular_bits == "prefixes",
        prior=_prior(experiment),
        **_common(experiment),
    )
    return policy, {}


def _prior(experiment: Experiment) -> np.ndarray | None:
    """(N,) N times the probability of each answer at first; None for a uniform one."""
    chosen = experiment.policy
    if not chosen.prior_skew:
        return None
    return zipf_weights(experiment.world.N, chosen.prior_skew, chosen.base_seed)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Garbage waits: to look for it among all that torch defines takes a quarter of its import."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _local(
    setting: Setting, folder: Path | None, watch: Callable[..., object] | None
) -> tuple[Policy, dict[str, Any]]:
    with _no_collection():
        import torch

        from memory_rl.policies.base_model import (
            check_fits,
            find_base_model,
            recompute_layers,
            warm_up_cached,
        )
        from memory_rl.policies.paths import PathPolicy
        from memory_rl.policies.self_check import check_packed_pass
        from memory_rl.policies.transformer import TransformerPolicy

    _use_threads(setting)
    experiment, environment = setting.experiment, setting.environment
    chosen = experiment.policy
    base = find_base_model(chosen.model_name, chosen.base_seed, chosen.dtype, chosen.device, watch)
    if chosen.gradient_checkpointing:
        recompute_layers(base.model)
    trie = make_trie(base.tokenizer, environment)
    check_fits(base.model, trie)
    adapters = _adapter_settings(experiment)
    adapters.check(base.model)
    check_packed_pass(base.model, trie, scores_all=not experiment.scores_paths)
    if experiment.scores_paths and not experiment.signal.shows_answer:
        _check_samples_fit(experiment, trie)
    about: dict[str, Any] = {"prompt": _prompt(base.tokenizer, environment)}
    about |= {"device": str(base.model.device), "dtype": chosen.dtype}
    if chosen.warmup:
        report, about["from_cache"] = warm_up_cached(
            base, trie, experiment.world.N, chosen.warmup_tolerance, watch, _prior(experiment)
        )
        about["warmup"] = asdict(report)
        about["seconds"] = about["warmup"].pop("seconds")
    base.model.to(getattr(torch, chosen.dtype))  # the built-in ones are made and warmed up in float32
    if experiment.keep.save_adapters:
        about["base"] = _base_record(experiment, base, about.get("warmup"), folder)
    given = {"lora": adapters, **_common(experiment)}
    if experiment.scores_paths:
        return PathPolicy(base.model, trie, avoids=experiment.only_hits, **given), about
    return TransformerPolicy(base.model, trie, **given), about


def _check_samples_fit(experiment: Experiment, trie: AnswerTrie) -> None:
    """The samples of an update to one prompt are in one pass, and a tree of few nodes has no more of them."""
    several, one = experiment.world.num_secrets > 1, experiment.episodes_an_update
    size = experiment.updates.group_size if several else one
    each = trie.longest - len(trie.prompt) + 1
    most = MAX_TOKENS_OF_SAMPLES // each
    if size > most and trie.num_nodes > MAX_TOKENS_OF_SAMPLES:
        product = "group_size" if several else "group_size * batch_size"
        raise ConfigError(
            f"{product} = {size} is too large for N={experiment.world.N} with scoring=paths, since {each} "
            f"tokens of each episode are in one pass: use {product} = {most} or less."
        )


def _base_record(experiment: Experiment, base: BaseModel, warmup: Any, folder: Path | None) -> dict[str, Any]:
    """What base.json says of the model that adapters belong to; saves the model if that is wanted."""
    from memory_rl.policies.saved import BASE, describe_base

    flat = experiment.flat()
    keys = (
        "model_name",
        "base_seed",
        "dtype",
        "warmup",
        "warmup_tolerance",
        "prior_skew",
        "env_type",
        "N",
        "num_secrets",
    )
    how = {word: flat[word] for word in keys if word in flat} | {"wording": experiment.wording}
    how["made_here"] = flat["warmup"] or flat["model_name"] in BUILT_IN
    how["warmup_report"] = warmup
    how["versions"] = {name: version(name) for name in ("memory-rl", "torch", "transformers")}
    place = folder / "adapters" / BASE if experiment.keep.save_base and folder is not None else None
    return describe_base(base, how, place)


def _adapter_settings(experiment: Experiment) -> Any:
    from memory_rl.policies.full import FullSettings
    from memory_rl.policies.lora import LoRASettings
    from memory_rl.policies.shared import SharedSettings

    chosen = experiment.policy
    if chosen.adapter == "full":
        return FullSettings()
    lora = LoRASettings(chosen.lora_rank, chosen.lora_alpha, chosen.lora_targets, chosen.adapted_layers)
    return lora if chosen.adapter_parameters is None else SharedSettings(chosen.adapter_parameters, lora)


def hosted_settings(experiment: Experiment, learner: Any) -> HostedSettings:
    """What a population is on the service."""
    chosen = experiment.policy
    return HostedSettings(
        model_name=chosen.model_name,
        num_runs=experiment.stop.num_runs,
        rank=chosen.lora_rank,
        targets=chosen.lora_targets,
        learning_rate=experiment.step_size,
        seed=experiment.world.seed,
        num_answers=experiment.world.N,
        episodes=experiment.episodes_an_update,
        epochs=learner.epochs,
        sampled=not experiment.signal.shows_answer,
        scores_all=experiment.scores_all,
        warms_up=chosen.warmup,
        max_tokens=experiment.keep.max_tokens_total,
        blocks=experiment.updates.batch_size if experiment.world.num_secrets > 1 else 1,
        every=experiment.updates_an_evaluation,
        warmup_tolerance=chosen.warmup_tolerance,
    )


def _hosted(setting: Setting) -> tuple[Policy, dict[str, Any]]:
    require("tinker", "tinker", "backend=tinker")
    from memory_rl.policies.hosted.policy import hosted_loss, make_hosted
    from memory_rl.policies.hosted.service import find_tokenizer, open_service

    experiment, environment = setting.experiment, setting.environment
    chosen, keep, runs = experiment.policy, experiment.keep, experiment.stop.num_runs
    if not experiment.signal.shows_answer:
        hosted_loss(setting.learner)  # refuses one that the service does not have
    service = open_service(chosen.model_name, keep.tinker_base_url)
    tokenizer = find_tokenizer(service, chosen.model_name)
    trie = make_trie(tokenizer, environment)
    settings = hosted_settings(experiment, setting.learner)
    policy = make_hosted(service, trie, settings)
    costs = policy.costs
    if keep.max_tokens_total is not None and keep.max_tokens_total < costs.least:
        policy.close(completed=False)
        raise ConfigError(
            f"max_tokens_total={keep.max_tokens_total} is less than {runs} runs may need for their first "
            f"update: use max_tokens_total={costs.least} or more, or fewer num_runs."
        )
    about = {
        "prompt": _prompt(tokenizer, environment),
        "model": chosen.model_name,
        "sdk": f"tinker {version('tinker')}",
        "notes": costs.sentences(experiment.budget // settings.episodes),
    }
    return policy, about
