"""A causal language model and its tokenizer from files, and all that can be wrong with files.

Nothing is filled in: transformers draws random numbers for weights that it does not find, and a run on them
would measure nothing. Nothing that would need pickle or remote code is loaded.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from memory_rl.config import TINY, TINY_TEXT
from memory_rl.errors import ModelError, hushed, one_line, require
from memory_rl.inputs import shards_of
from memory_rl.policies import hub

# While transformers loads, it changes what holds for the whole process, such as PyTorch's default type.
_ONE_AT_A_TIME = threading.Lock()
_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


def load_pretrained(name: str, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and the tokenizer of a directory, a hub id or a GGUF file, with every weight from there.

    Raises:
        ModelError: if they cannot be loaded, or some weights are missing, of another shape or left over.
    """
    source, options = _source(name)
    options |= {"trust_remote_code": False, **hub.how_to_load(source)}
    for problem in _damage(Path(name)):
        raise ModelError(f"model_name={name!r} cannot be loaded: {problem}.")
    with (
        _quietly(gguf="gguf_file" in options),
        hushed("huggingface_hub"),
        _refusing(
            f"model_name={name!r} cannot be loaded",
            f"give {TINY}, {TINY_TEXT}, a .gguf file, or a directory or a hub id of a causal LM with "
            "safetensors weights",
        ),
    ):
        model, report = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
            **options,
        )
        with _refusing(
            f"the tokenizer of model_name={name!r} cannot be loaded",
            "give a model with a whole tokenizer.json",
        ):
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
    _check_weights(name, model, report)
    if not tokenizer.is_fast:
        raise ModelError(
            f"model_name={name!r} has a tokenizer without a fast form ({type(tokenizer).__name__}): use a "
            "model with a tokenizer.json."
        )
    return model, tokenizer


def _source(name: str) -> tuple[str, dict[str, Any]]:
    """What transformers loads: a directory or hub id, with the name of the file in it if that is GGUF."""
    if not name.endswith(".gguf"):
        return name, {}
    require("gguf", "gguf", f"model_name={name!r}")
    path = Path(name)
    if not path.is_file():
        raise ModelError(f"model_name={name!r} is no file: give the path of a .gguf file.")
    return str(path.parent), {"gguf_file": path.name}


@contextmanager
def _quietly(*, gguf: bool) -> Iterator[None]:
    """One load at a time in this process, of which nothing is printed."""
    switches = transformers.logging
    with _ONE_AT_A_TIME:
        verbosity, bars = switches.get_verbosity(), switches.is_progress_bar_enabled()
        switches.set_verbosity_error()
        switches.disable_progress_bar()
        try:
            # The progress bar for GGUF heeds no switch.
            with redirect_stderr(io.StringIO()) if gguf else nullcontext():
                yield
        finally:
            switches.set_verbosity(verbosity)
            if bars:
                switches.enable_progress_bar()


@contextmanager
def _refusing(what: str, instead: str) -> Iterator[None]:
    """Whatever these libraries raise on files that are not as they should be, in one sentence."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        if not isinstance(error, OSError | ValueError):
            reason = f"{type(error).__name__}: {reason}"
        raise ModelError(f"{what} ({one_line(reason).rstrip(' .:')}): {instead}.") from error


def _damage(path: Path) -> Iterator[str]:
    """What is wrong with the files of a model on this machine."""
    files = [path] if path.is_file() else sorted(file for kind in _FILES for file in path.glob(kind))
    for file in files:
        if problem := _is_no_model_file(file):
            yield f"{file.name} {problem}"
    for index in path.glob("*.safetensors.index.json"):
        shards = shards_of(index)
        missing = sorted(shard for shard in shards if not (path / shard).is_file())
        if not shards:
            yield f"{index.name} is damaged; download it again"
        if missing:
            yield f"{index.name} names {missing[0]}, which is not there; download all files of the model"


def _is_no_model_file(file: Path) -> str | None:
    with file.open("rb") as opened:
        head = opened.read(64)
    if not head:
        return "is empty; download it again"
    if head.startswith(b"version https://git-lfs"):
        return "is the pointer that git keeps in place of a large file; fetch the file with git lfs pull"
    if head.lstrip().startswith(b"<"):
        return "is a web page; download the file itself"
    if file.suffix == ".gguf" and not head.startswith(b"GGUF"):
        return "is not in GGUF format; download it again"
    if file.suffix == ".safetensors":
        try:
            safe_open(file, framework="pt")
        except (SafetensorError, OSError) as error:
            return f"is cut off or damaged ({one_line(str(error))}); download it again"
    return None


def _check_weights(name: str, model: PreTrainedModel, report: dict[str, Any]) -> None:
    """Every weight of the model must be from its files, and every weight of its layers in the model.

    What lies beside the layers, such as the head of another task, may be left over.
    """
    shapes = [
        f"{key} of shape {list(found)} instead of {list(wanted)}"
        for key, found, wanted in report["mismatched_keys"]
    ]
    layers = {_without_numbers(layer) for layer, _ in model.named_modules() if layer[-1:].isdecimal()}
    extra = [key for key in report["unexpected_keys"] if layers & _above(key) and "rotary_emb" not in key]
    for keys, what in (
        (report["missing_keys"], "lack"),
        (shapes, "have"),
        (extra, "have, beyond what config.json describes,"),
    ):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise ModelError(
                f"model_name={name!r} cannot be used, since its weights {what} {min(keys)}{more}: give "
                "weights and config.json of the same model, as it was saved."
            )


def _above(key: str) -> set[str]:
    """The names of all modules that hold this weight, without numbers."""
    parts = _without_numbers(key).split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts))}


def _without_numbers(name: str) -> str:
    return re.sub(r"\d+", "*", name)
