"""What a run leaves behind for other tools: the base model, and adapters that are read back and compared."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from memory_rl.errors import RunDirectoryError, is_installed
from memory_rl.policies.adapters import Adapters
from memory_rl.policies.base_model import BaseModel, hash_weights
from memory_rl.policies.lora import LowRankAdapters, peft_selects
from memory_rl.state import SavedModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BASE = "base"
_PREFIX = "base_model.model."  # with which PEFT begins every name


def describe_base(base: BaseModel, how: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """What base.json says: the model that adapters belong to, by its content and by how to make it.

    Args:
        base: as the runs start from it.
        how: the keys that make it, and versions.
        folder: to write the model to, as transformers loads it; None does not write it.

    Returns:
        `how`, the SHA-256 of its weights, and `base_model_name_or_path` for PEFT. The name of a model that
        was warmed up or made here, and not written, is followed by # and the hash: it must not be found
        elsewhere, where other weights have that name.

    Raises:
        RunDirectoryError: if it cannot be written, or does not load as it was.
    """
    digest, name = hash_weights(base.model).hexdigest(), how["model_name"]
    if folder is not None:
        _write_base(base, folder, digest)
        name = str(folder.resolve())
    elif how["made_here"]:
        name = f"{name}#{digest[:16]}"
    return {"base_model_name_or_path": name, "sha256": digest, **how}


def _write_base(base: BaseModel, folder: Path, digest: str) -> None:
    transformers.logging.disable_progress_bar()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            made = Path(scratch) / BASE
            _plain(base.model).save_pretrained(made)
            base.tokenizer.save_pretrained(made)
            again = AutoModelForCausalLM.from_pretrained(made, dtype=base.model.dtype)
            if hash_weights(again).hexdigest() != digest:
                raise OSError("transformers does not load it as it was")
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(made, folder)
    except (OSError, RuntimeError, ValueError) as error:
        raise RunDirectoryError(
            f"{folder} cannot be written ({error}): make room, or leave save_base out."
        ) from error


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    """The model without its note that a file was quantised, which keeps transformers from saving it."""
    if not hasattr(model.config, "quantization_config"):
        return model
    config = copy.deepcopy(model.config)
    del config.quantization_config
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    return plain


def check_saved(adapters: Adapters, model: PreTrainedModel, folder: Path, names: Iterable[str]) -> None:
    """Reads back what was written, and compares it with what was trained.

    Names are compared with the modules of the model as PEFT documents its own; where PEFT is installed, it
    loads the first adapter, too.

    Args:
        adapters: of all runs.
        model: that they adapt.
        folder: adapters/ of a run directory.
        names: of those that were written.

    Raises:
        RunDirectoryError: if anything differs.
    """
    state = adapters.state()
    for number, name in enumerate(names):
        why = _differs(state[name], folder / name)
        if why is None and number == 0 and isinstance(adapters, LowRankAdapters):
            why = _selects_others(adapters, model) or _peft_differs(adapters, model, folder / name)
        if why is not None:
            raise RunDirectoryError(
                f"save_adapters=True: adapters/{name} would not be what was trained ({why}): "
                "use save_adapters=False, with resume=True if the run has begun."
            )


def _differs(saved: SavedModel, folder: Path) -> str | None:
    """How the tensors of a folder differ from these; None if they do not."""
    found = load_file(folder / saved.files[1])
    if found.keys() != saved.tensors.keys():
        return f"{min(found.keys() ^ saved.tensors.keys())} is missing or too many"
    return next(
        (
            f"{name} is not as it was"
            for name, tensor in saved.tensors.items()
            if not torch.equal(found[name], torch.from_numpy(tensor))
        ),
        None,
    )


def _selects_others(adapters: LowRankAdapters, model: PreTrainedModel) -> str | None:
    """A module for which configuration and adapter disagree, by the names that PEFT documents."""
    parts = tuple(f"{name}." for name in adapters.layers)  # what lies within an adapted layer is ours
    modules = [name for name, _ in model.named_modules() if not name.startswith(parts)]
    selected = peft_selects(adapters.config, modules)
    loaded = {
        name.removeprefix(_PREFIX).rpartition(".lora_")[0] for name in adapters.tensors(0) if ".lora_" in name
    }
    wrong = (selected ^ loaded) | (loaded ^ adapters.layers.keys())
    return f"PEFT would not adapt the same layers, as {min(wrong)}" if wrong else None


def _peft_differs(adapters: LowRankAdapters, model: PreTrainedModel, folder: Path) -> str | None:
    """What PEFT, if it is installed, makes of the adapter of the first run that differs."""
    if not is_installed("peft"):
        return None
    import peft

    for name, layer in adapters.layers.items():
        model.set_submodule(name, layer.base)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # it draws weights before it loads
            warnings.simplefilter("ignore")
            loaded = peft.PeftModel.from_pretrained(model, folder)
        try:
            return _compare_layers(adapters, loaded.base_model.model)
        finally:
            loaded.unload()
    except (ValueError, KeyError, RuntimeError, TypeError) as error:
        return f"PEFT does not load it: {error}"
    finally:
        for name, layer in adapters.layers.items():
            model.set_submodule(name, layer)


def _compare_layers(adapters: LowRankAdapters, model: torch.nn.Module) -> str | None:
    """The first layer in which a model with PEFT's adapter is not ours."""
    theirs = {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}
    matrices, run = adapters.matrices(0), "default"
    if theirs.keys() != matrices.keys():
        return f"PEFT does not adapt the same layers, as {min(theirs.keys() ^ matrices.keys())}"
    for name, (down, up) in matrices.items():
        layer: Any = theirs[name]
        pairs = ((layer.lora_A, down), (layer.lora_B, up))
        same = all(torch.equal(part[run].weight.to(ours.device), ours) for part, ours in pairs)
        if not same or layer.scaling[run] != adapters.layers[name].scale:
            return f"PEFT loads {name} otherwise"
    return None
