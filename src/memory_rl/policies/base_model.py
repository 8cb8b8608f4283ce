"""The frozen model under the adapters: found or made, format-warmed, and kept in the user's cache.

A warmed model is cached under the hash of all that it is made from (the weights before warm-up, the tokens of
every conversation, N and the warm-up's settings). The file's own hash is checked when it is read; a cache
that is missing, damaged or foreign is rebuilt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer

from memory_rl.config import BUILT_IN, TINY_TEXT
from memory_rl.errors import ModelError
from memory_rl.policies import text_model, tiny_model
from memory_rl.policies.answer_trie import AnswerTrie
from memory_rl.policies.loading import load_pretrained
from memory_rl.policies.model_cache import cache_directory, read_cache, write_cache
from memory_rl.policies.pretrained_warmup import merge, warm_up_by_adapter
from memory_rl.policies.warmup import WarmupSettings, Watch, warm_up
from memory_rl.policies.warmup_report import WarmupReport

# A rate of 1e-3 is faster, but then RL at N = 256 takes half as many episodes again.
_TINY_WARMUP = WarmupSettings(head_steps=1000, learning_rate=3e-4)
# Through adapters: of a large model the gradients and moments of all parameters would not fit. 0.01 bit keeps
# 99.3 % of the mass on valid answers.
_PRETRAINED_WARMUP = WarmupSettings(adapter_rank=8, learning_rate=1e-3, tolerance=0.01, max_steps=500)
_WARMUP_VERSION = 3  # raise it when warmup.py or answer_directions.py change what they make


@dataclass(frozen=True)
class BaseModel:
    """A model and its tokenizer, before or after warm-up."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    warmup_settings: WarmupSettings


def find_base_model(
    name: str,
    seed: int,
    dtype: str = "float32",
    device: str | None = None,
    watch: text_model.Watch | None = None,
) -> BaseModel:
    """A built-in model, or a causal LM from a directory, a hub id or a GGUF file.

    The built-in ones have weights drawn from the seed, in float32; tiny-text is then pretrained, unless it is
    in the cache.

    Args:
        name: `model_name`.
        seed: of the built-in models' weights, and of the text that tiny-text reads.
        dtype: what a pretrained model computes in; a GGUF file is de-quantised to it.
        device: where it computes; None chooses.
        watch: is told of each step of a pretraining.

    Raises:
        ModelError: if there is no such model or device, or it would need pickle or remote code.
    """
    place = choose_device(name, device)
    if name == tiny_model.NAME:
        return BaseModel(tiny_model.make_model(seed).to(place), tiny_model.make_tokenizer(), _TINY_WARMUP)
    if name == TINY_TEXT:
        model = text_model.pretrained(seed, watch=watch)
        return BaseModel(model.to(place), tiny_model.make_tokenizer(), _PRETRAINED_WARMUP)
    model, tokenizer = load_pretrained(name, dtype)
    return BaseModel(model.to(place), tokenizer, _PRETRAINED_WARMUP)


def choose_device(name: str, wanted: str | None) -> str:
    """The wanted device, or the fastest that there is; the built-in ones are faster on the CPU.

    Raises:
        ModelError: if there is no such device.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted is None:
        return "cpu" if name in BUILT_IN else next(device for device in there if there[device])
    if not there[wanted]:
        raise ModelError(
            f"device={wanted} cannot be used, since PyTorch finds none on this machine: use device=cpu, or "
            "leave device out."
        )
    return wanted


def check_fits(model: PreTrainedModel, trie: AnswerTrie) -> None:
    """The model must know all tokens, and each answer must see the whole conversation before it.

    Raises:
        ModelError: if the tokenizer has more tokens than the model, or the model attends to fewer than a
            conversation has, or has fewer positions.
    """
    name = f"model_name={str(model.name_or_path)!r}"
    known = min(len(layer.weight) for layer in (model.get_input_embeddings(), model.get_output_embeddings()))
    largest = trie.largest_token
    if largest >= known:
        raise ModelError(
            f"{name} has {known} tokens, and its tokenizer writes number {largest}: give the tokenizer that "
            "belongs to the weights."
        )
    config = model.config.get_text_config()  # a model that sees pictures, too, has several
    length = trie.longest
    windows = (
        ("sliding_window", "attention_chunk_size") if getattr(config, "use_sliding_window", True) else ()
    )
    for key in (*windows, "max_position_embeddings"):
        window = getattr(config, key, None)
        if window is not None and window < length:
            raise ModelError(
                f"{name} sees {window} tokens at a time, and a conversation "
                f"has {length}: use env_type=single_step, wording=terse or another model."
            )


def recompute_layers(model: PreTrainedModel) -> None:
    """Keeps of each layer only its input for the backward pass, which computes the rest again.

    Done here and not by transformers, whose own switch works in training mode alone, where dropout is on, and
    takes away the cache of keys and values.

    Raises:
        ModelError: if the model has no such layers.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ModelError(
            f"gradient_checkpointing=True does not work with {type(model).__name__}, which marks no layers "
            "for it: leave it out."
        )
    for layer in layers:
        layer.forward = partial(_recomputed, layer.forward)


def _recomputed(layer: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return layer(*inputs, **named)
    return checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False, **named)


def warm_up_cached(
    base: BaseModel,
    trie: AnswerTrie,
    num_answers: int,
    accepted: float | None = None,
    watch: Watch | None = None,
    prior: np.ndarray | None = None,
) -> tuple[WarmupReport, bool]:
    """Warms the model up in place, from the cache where it can.

    One that does not get there is cached, too, so that it is at hand once what it reached is accepted.

    Args:
        base: the model.
        trie: the valid conversations.
        num_answers: N.
        accepted: bits from the target that will do where the tolerance is not reached; less than the
            tolerance takes its place.
        watch: is told of each step.
        prior: (N,) N times the probability that each answer is to have, if that is not uniform.

    Returns:
        The report of the warm-up when it was made, and whether it came from the cache.

    Raises:
        ModelError: if it stops further from uniform than that.
    """
    base = replace(base, warmup_settings=base.warmup_settings.within(accepted))
    folder = cache_directory() / "base-models" / _key(base, trie, num_answers, prior)
    cached = read_cache(folder, "warmup", WarmupReport)
    if cached is None:
        make = warm_up_by_adapter if base.warmup_settings.adapter_rank else _warm_up_whole
        report, tensors = make(base.model, trie, num_answers, base.warmup_settings, watch, prior)
        write_cache(tensors, folder, "warmup", asdict(report))
    else:
        report, tensors = cached
        merge(base.model, tensors)
    exact = base.model.dtype == torch.float32
    instead = f"{'' if exact else 'dtype=float32, '}another model_name or N"
    report.check(
        accepted, *([instead] if prior is None else [f"a smaller prior_skew, {instead}", "its prior"])
    )
    return report, cached is not None


def _warm_up_whole(model: PreTrainedModel, *how: Any) -> tuple[WarmupReport, dict[str, torch.Tensor]]:
    report = warm_up(model, *how)
    return report, {name: weight.detach().cpu().contiguous() for name, weight in model.named_parameters()}


def hash_weights(model: PreTrainedModel) -> hashlib._Hash:
    """SHA-256 of the names and bytes of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest


def _key(base: BaseModel, trie: AnswerTrie, num_answers: int, prior: np.ndarray | None) -> str:
    digest = hash_weights(base.model)
    digest.update(b"" if prior is None else prior.data)
    for array in trie.fingerprint():
        digest.update(np.ascontiguousarray(array).data)
    about = [_WARMUP_VERSION, num_answers, asdict(base.warmup_settings), base.model.config.to_dict()]
    digest.update(json.dumps(about, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:32]
