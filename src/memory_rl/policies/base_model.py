"""The frozen model under the adapters: found or made, format-warmed, and kept in the user's cache.

A warmed model is cached under the hash of all that it is made from (the weights before warm-up, the tokens of every conversation, N and the
warm-up's settings). The file's own hash is checked when it is read; a cache that is missing, damaged or foreign is rebuilt.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import platformdirs
import torch
import transformers
from safetensors.torch import load_model, save_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from memory_rl.errors import ModelError
from memory_rl.policies import tiny_model
from memory_rl.policies.answer_trie import AnswerTrie
from memory_rl.policies.warmup import WarmupReport, WarmupSettings, warm_up

_TINY_WARMUP = WarmupSettings(head_steps=1000, learning_rate=3e-4)  # 1e-3 is sooner done, but then RL at N = 256 takes half as many episodes again
_PRETRAINED_WARMUP = WarmupSettings(head_steps=0, learning_rate=3e-5)
_WARMUP_VERSION = 1  # raise it when warmup.py changes what it makes


@dataclass(frozen=True)
class BaseModel:
    """A model and its tokenizer, before or after warm-up."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    warmup_settings: WarmupSettings


def find_base_model(name: str, seed: int) -> BaseModel:
    """The built-in model for `tiny` (its weights drawn from the seed), or a causal LM from a directory or a hub id, in float32.

    Raises:
        ModelError: if there is no such model, or it would need pickle or remote code.
    """
    if name == tiny_model.NAME:
        return BaseModel(tiny_model.make_model(seed), tiny_model.make_tokenizer(), _TINY_WARMUP)
    transformers.logging.disable_progress_bar()  # nothing is printed unless asked
    try:
        model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (ImportError, KeyError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"model_name={name!r} cannot be loaded ({reason}): give {tiny_model.NAME}, a directory or a hub id of a causal LM with safetensors weights."
        ) from error
    return BaseModel(model, tokenizer, _PRETRAINED_WARMUP)


def warm_up_cached(base: BaseModel, trie: AnswerTrie, num_answers: int) -> tuple[WarmupReport, bool]:
    """Warms the model up in place, from the cache where it can.

    Returns:
        The report of the warm-up when it was made, and whether it came from the cache.
    """
    folder = cache_directory() / "base-models" / _key(base, trie, num_answers)
    report = _read_cache(base.model, folder)
    if report is not None:
        return report, True
    report = warm_up(base.model, trie, num_answers, base.warmup_settings)
    _write_cache(base.model, folder, report)
    return report, False


def cache_directory() -> Path:
    """Where base models are kept: MEMORY_RL_CACHE, or the user's cache directory."""
    return Path(os.environ.get("MEMORY_RL_CACHE") or platformdirs.user_cache_dir("memory-rl", appauthor=False))


def _key(base: BaseModel, trie: AnswerTrie, num_answers: int) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(base.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).data)
    for array in (trie.prompts, trie.node_token, trie.node_parent, trie.edge_token, trie.form_edges):
        digest.update(np.ascontiguousarray(array).data)
    digest.update(json.dumps([_WARMUP_VERSION, num_answers, asdict(base.warmup_settings), base.model.config.to_dict()], sort_keys=True, default=str).encode())
    return digest.hexdigest()[:32]


def _read_cache(model: PreTrainedModel, folder: Path) -> WarmupReport | None:
    weights, about = folder / "model.safetensors", folder / "warmup.json"
    try:
        record = json.loads(about.read_text())
        if hashlib.sha256(weights.read_bytes()).hexdigest() != record["sha256"]:
            return None
        load_model(model, weights)
        return WarmupReport(**record["report"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None  # missing, damaged or foreign: rebuilt


def _write_cache(model: PreTrainedModel, folder: Path, report: WarmupReport) -> None:
    """Each file appears whole or not at all; the record comes last."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            weights, about = Path(scratch) / "model.safetensors", Path(scratch) / "warmup.json"
            save_model(model, str(weights))  # tied weights once
            about.write_text(json.dumps({"sha256": hashlib.sha256(weights.read_bytes()).hexdigest(), "report": asdict(report)}))
            os.replace(weights, folder / weights.name)
            os.replace(about, folder / about.name)
    except OSError as error:
        warnings.warn(f"the warmed-up base model could not be cached in {folder} ({error.strerror}); it will be made anew next time", stacklevel=3)
