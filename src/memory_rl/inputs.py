"""What an experiment reads beside its keys, as hashes: the files of a model, and a user's own code.

Together with `Experiment.resolved` this is the identity of a run: two runs of the same keys are the same one
only if what they read is. Names in it are relative to the model's directory, or those of modules, so that it
says the same on every machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from memory_rl.config import BUILT_IN
from memory_rl.experiment import Experiment
from memory_rl.files import Json, parse_json, sha256_of
from memory_rl.own_code import sources

_WEIGHTS, _INDEX, _ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_config.json"
_TOKENIZER_CONFIG, _CODE = "tokenizer_config.json", "code"
_FILES = {
    "configuration": ("config.json", _ADAPTER),
    "tokenizer": (
        *("tokenizer.json", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json"),
        *("*.model", "*.model.v*", "tekken.json", "*.tiktoken"),
    ),
    "template": ("chat_template.*", "additional_chat_templates/*"),
}
"""What is read of a model's directory beside its weights."""

_TAUGHT_BY = ("adapters/base.json", "adapters/run-*/*")
"""What is read of a run directory whose policies teach."""

Hashes = dict[str, dict[str, dict[str, str]]]
"""SHA-256 by key (`model_name`, `reward_type`, `teacher`, `algorithm`), kind of input, and file or module."""


def hash_inputs(experiment: Experiment) -> Hashes:
    """The hashes of what an experiment reads, as far as it is on this machine.

    A key is left out where there is nothing to read: built-in models, rewards and learners, and models that
    have not been downloaded yet or live on a service.
    """
    found = Hashes()
    with suppress(OSError):  # what cannot be read is left to whoever loads it, as is what is not there
        if experiment.policy.backend == "local":
            found["model_name"] = _of_model(experiment.policy.model_name)
        if experiment.signal.own_reward:
            found["reward_type"] = {_CODE: sources(experiment.signal.reward_type)}
        if experiment.signal.taught_by:
            found["teacher"] = {"policy": _hashes(Path(experiment.signal.taught_by), *_TAUGHT_BY)}
        if experiment.own_learner:
            found["algorithm"] = {_CODE: sources(experiment.updates.algorithm)}
    return {key: kinds for key, kinds in found.items() if any(kinds.values())}


def changed_input(before: Json, now: Json) -> str | None:
    """What has changed from one time to another, in words; None if nothing that is known of both has."""
    for key in before.keys() & now.keys():
        for kind in sorted(before[key].keys() | now[key].keys()):
            ours, theirs = before[key].get(kind, {}), now[key].get(kind, {})
            for file in sorted(ours.keys() | theirs.keys()):
                if ours.get(file) != theirs.get(file):
                    return f"{file} ({kind} of {key}) has changed"
    return None


def _of_model(name: str) -> dict[str, dict[str, str]]:
    path = Path(name)
    if name in BUILT_IN:
        return {}
    if name.endswith(".gguf"):
        there = path.is_file()
        return {"weights, tokenizer and template": {path.name: sha256_of(path)}} if there else {}
    folder = path if path.is_dir() else _snapshot(name)
    if folder is None:
        return {}
    found = {kind: _hashes(folder, *patterns) for kind, patterns in _FILES.items()}
    found["weights"] = {file.name: sha256_of(file) for file in _weights(folder)}
    for kind, digest in _of_tokenizer_config(folder / _TOKENIZER_CONFIG):
        found[kind][_TOKENIZER_CONFIG] = digest
    base = _read(folder / _ADAPTER).get("base_model_name_or_path")
    if isinstance(base, str) and not (Path(base) / _ADAPTER).exists():
        for kind, files in _of_model(base).items():
            found[kind] |= {f"base/{file}": digest for file, digest in files.items()}
    return found


def _snapshot(name: str) -> Path | None:
    """Where the hub's client keeps a model that it has downloaded, as it would be loaded now; asks nobody."""
    from huggingface_hub import try_to_load_from_cache

    try:
        config = try_to_load_from_cache(name, "config.json")
    except ValueError:  # no name that the hub could have
        return None
    return Path(config).parent if isinstance(config, str) else None


def _hashes(folder: Path, *patterns: str) -> dict[str, str]:
    files = (file for pattern in patterns for file in sorted(folder.glob(pattern)) if file.is_file())
    return {file.relative_to(folder).as_posix(): sha256_of(file) for file in files}


def _weights(folder: Path) -> Iterator[Path]:
    """The files that hold the weights: one, those that an index lists, or an adapter's."""
    names = [_WEIGHTS, "adapter_model.safetensors"]
    if not (folder / _WEIGHTS).is_file():
        names += [_INDEX, *sorted(shards_of(folder / _INDEX))]
    yield from (file for name in names if (file := folder / name).is_file())


def shards_of(index: Path) -> set[str]:
    """The names of the files of weights that an index lists; none if it cannot be read."""
    listed = _read(index).get("weight_map")
    return set(map(str, listed.values())) if isinstance(listed, dict) else set()


def _of_tokenizer_config(path: Path) -> Iterator[tuple[str, str]]:
    """Its settings belong to the tokenizer; a template in it does not."""
    settings = _read(path)
    template = settings.pop("chat_template", None)
    for kind, part in (("tokenizer", settings), ("template", template)):
        if part:
            yield kind, hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> Json:
    """A JSON mapping; empty if there is none, which whoever loads it will say."""
    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
