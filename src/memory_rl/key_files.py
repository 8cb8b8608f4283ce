"""Keys from a file, `config=`: the manifest of a run, or YAML; what is given beside it wins.

Paths in it are relative to the folder in which the command is typed, as in a grid or a protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memory_rl.catalogue import OF_ONE_RUN, experiment_keys
from memory_rl.errors import ConfigError, suggest
from memory_rl.files import from_json
from memory_rl.keys import Key, accept, accept_some, keys_of, path_key, read, shown, unmet
from memory_rl.yaml_words import bytes_of, words_of

_MANIFEST, _SWEEP = "manifest.json", "sweep.json"
_ADVICE = "give a run directory, its manifest.json, or a YAML file with keys such as N: 64."


@dataclass(frozen=True, kw_only=True)
class KeyFile:
    """Where more keys are."""

    config: str | None = path_key(
        None,
        "A file with keys: a run directory or its manifest.json, or YAML with lines such as N: 64. Keys that "
        "are given beside it win.",
    )


FILE_KEYS = keys_of(KeyFile, "file")
"""The key that every command takes which makes or describes an experiment."""


def with_file(
    given: Mapping[str, Any], keys: Mapping[str, Key], fixed: Mapping[str, Any], *, axes: bool = False
) -> dict[str, Any]:
    """What is given, and the keys of the file that `config` names.

    A key of the file that has no meaning beside what is given is left out, and so is one of another command.

    Args:
        given: by word.
        keys: of the command.
        fixed: what the command itself says.
        axes: whether a key may have several values, with commas between them.

    Raises:
        ConfigError: if there is no such file, or about the first key or value in it that is bad.
    """
    rest = {word: value for word, value in given.items() if word != "config"}
    if given.get("config") is None:
        return rest
    path = Path(str(accept(FILE_KEYS["config"], given["config"], typed=True)))
    found, is_manifest = _keys_in(path, f"config={path}", keys)
    try:
        found = _as_words(found) if axes else _checked(found, keys)
        if not (is_manifest or axes):
            _refuse_meaningless(found, rest, keys, fixed)
    except ConfigError as error:
        raise ConfigError(f"config={path}: {error}") from None
    return {**(found if axes else _meaningful(found, rest, keys, fixed)), **rest}


def _keys_in(path: Path, where: str, keys: Mapping[str, Key]) -> tuple[dict[str, Any], bool]:
    """The keys in a file that a command takes, and whether the file is a manifest."""
    if (path / _SWEEP).is_file():
        raise ConfigError(f"{where} is a sweep: give one of its cells, such as {path}/cells/NAME.")
    file = path / _MANIFEST if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise ConfigError(f"{where} holds no {_MANIFEST}: {_ADVICE}")
    content = bytes_of(file, where, _ADVICE)
    found = _json(content, where) if file.suffix == ".json" else words_of(content, where)
    is_manifest = isinstance(found, dict) and {"kind", "config"} <= found.keys()
    if is_manifest:
        found = found["config"]
    if not isinstance(found, dict):
        raise ConfigError(f"{where} holds no keys: {_ADVICE}")
    known = {**experiment_keys(), **keys}
    for word in found:
        if word not in known:
            raise ConfigError(f"{where} has the unknown key {word}: {suggest(word, known)}")
    apart = OF_ONE_RUN if is_manifest else ()
    taken = {word: value for word, value in found.items() if word in keys and word not in apart}
    return {word: value for word, value in taken.items() if value is not None}, is_manifest


def _json(content: bytes, where: str) -> dict[str, Any]:
    try:
        return from_json(content)
    except ValueError as error:
        raise ConfigError(f"{where} cannot be read ({error}): {_ADVICE}") from error


def _checked(found: Mapping[str, Any], keys: Mapping[str, Key]) -> dict[str, Any]:
    for word, value in found.items():
        if isinstance(value, list | dict):
            raise ConfigError(f"{word}={shown(value)} is not one value: give one, or use memory-rl sweep.")
    return {word: accept(keys[word], value) for word, value in found.items()}


def _as_words(found: Mapping[str, Any]) -> dict[str, str]:
    """The values as they would be typed; a list is an axis."""
    words = {}
    for word, value in found.items():
        items = value if isinstance(value, list) else [value]
        if not items or any(isinstance(item, list | dict) for item in items):
            raise ConfigError(f"{word}={shown(value)} is no axis: give a value, or a list of values.")
        words[word] = ",".join(map(str, items))
    return words


def _refuse_meaningless(
    found: Mapping[str, Any], given: Mapping[str, Any], keys: Mapping[str, Key], fixed: Mapping[str, Any]
) -> None:
    """Refuses a key that has no meaning in the file, nor beside what is given."""
    alone, beside = ({**fixed, **found, **more} for more in ({}, given))
    for word in found.keys() - given.keys():
        if all(unmet(keys, word, accept_some(keys, values)) for values in (alone, beside)):
            read(keys, alone, typed=False)


def _meaningful(
    found: Mapping[str, Any], given: Mapping[str, Any], keys: Mapping[str, Key], fixed: Mapping[str, Any]
) -> dict[str, Any]:
    """Those of the file's keys that have a meaning beside what is given; one lost may cost another."""
    kept = dict(found)
    while True:
        values = accept_some(keys, {**fixed, **kept, **given})
        left = {word: value for word, value in kept.items() if unmet(keys, word, values) is None}
        if len(left) == len(kept):
            return kept
        kept = left
