"""Protocols: which experiments are to be made and what would support or refute each hypothesis, fixed before
the first run.

A protocol is a YAML file. It is read whole, checked key by key and known by the hash of its bytes, so that a
report can tell that the thresholds are those of before the measurement. The grid and the tuning are handed on
unread: they belong to the sweep.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import chz
import yaml

from memory_rl.config import SFTConfig, TrainConfig
from memory_rl.errors import ConfigError, suggest

_SUFFIX = ".yaml"
SELECTABLE = ("kind", "condition", *sorted({*chz.chz_fields(TrainConfig), *chz.chz_fields(SFTConfig)}))
"""What a selection of cells may name: the command, the condition, or a key of the configuration."""


@dataclass(frozen=True)
class Hypothesis:
    """A claim and the test that judges it.

    Attributes:
        id: its short name, such as H1.
        test: the name of the test; see `TESTS`.
        claim: in plain words.
        settings: the other keys of the test, with defaults filled in.
    """

    id: str
    test: str
    claim: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """What is to be measured and judged.

    Attributes:
        name: of the protocol.
        description: of what it is for.
        grid: entries of the sweep; each has a `command` and configuration keys, where a list is an axis.
        tune: settings of the tuning, or None for none.
        minimum_runs: no hypothesis is judged on a cell with fewer.
        alpha: the chance of one wrong verdict or more among all hypotheses, at most.
        exclusions: selections of cells that no verdict uses.
        hypotheses: in order.
        sha256: of the file's bytes.
        text: of the file.
    """

    name: str
    description: str
    grid: list[dict[str, Any]] = field(repr=False)
    tune: dict[str, Any] | None
    minimum_runs: int
    alpha: float
    exclusions: list[dict[str, Any]]
    hypotheses: list[Hypothesis]
    sha256: str
    text: str = field(repr=False)


def shipped_protocols() -> list[str]:
    """The names of the protocols that come with the package."""
    return sorted(
        entry.name.removesuffix(_SUFFIX) for entry in _shelf().iterdir() if entry.name.endswith(_SUFFIX)
    )


def _shelf() -> Traversable:
    return resources.files("memory_rl") / "studies"


def load_protocol(name_or_path: str | Path) -> Protocol:
    """Reads a shipped protocol by its name, or any by its path.

    Raises:
        ConfigError: if there is none, or one sentence about the first key that is unknown, missing or bad.
    """
    source = str(name_or_path)
    content = _bytes_of(source)
    try:
        text = content.decode()
        values = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"protocol={source} is not a text in UTF-8 ({error.reason}): give a YAML file."
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(
            f"protocol={source} is not valid YAML ({_first_line(error)}): mend it there."
        ) from error
    return _read(values, source, text, hashlib.sha256(content).hexdigest())


def _bytes_of(source: str) -> bytes:
    if source in shipped_protocols():
        return (_shelf() / (source + _SUFFIX)).read_bytes()
    path = Path(source)
    if path.suffix not in (_SUFFIX, ".yml") and not path.exists():
        raise ConfigError(
            f"protocol={source} is not a shipped protocol: {suggest(source, [*shipped_protocols(), 'path/to/your.yaml'])}"
        )
    try:
        return path.read_bytes()
    except OSError as error:
        shipped = ", ".join(shipped_protocols())
        raise ConfigError(
            f"protocol={source} cannot be read ({error.strerror}): give the path of a YAML file, or one of {shipped}."
        ) from error


def _first_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "unreadable"
    return problem if mark is None else f"line {mark.line + 1}: {problem}"


Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Key:
    """A key of a protocol: what it may hold.

    Attributes:
        admits: whether a value will do.
        wanted: what to type, as the end of a sentence.
        default: the value where the key is left out; `...` if it may not be.
    """

    admits: Check
    wanted: str
    default: Any = ...


def fits(values: Mapping[str, Any], selection: Mapping[str, Any]) -> bool:
    """Whether these have what a selection names: each key with its value, or one of a list of values."""
    return all(
        values.get(key) in (wanted if isinstance(wanted, list) else [wanted])
        for key, wanted in selection.items()
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_selection(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(key, str) for key in value)


def _is_axis(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= 2
        and all(_is_number(entry) for entry in value)
        and len(set(value)) == len(value)
    )


def _is_along(value: Any) -> bool:
    return _is_selection(value) and len(value) == 1 and _is_axis(next(iter(value.values())))


def _list_of(admits: Check, *, least: int = 1) -> Check:
    return lambda value: (
        isinstance(value, list) and len(value) >= least and all(admits(entry) for entry in value)
    )


_TEXT = Key(_is_text, "a text")
_SELECTION = Key(_is_selection, "keys that select cells, such as {condition: binary, lora_rank: 8}")
_SELECTIONS = Key(_list_of(_is_selection), "a list of selections, such as [{condition: binary, N: [16, 64]}]")
_SIZES = Key(
    _list_of(lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 2),
    "a list of N, such as [16, 64]",
)
_MARGIN = Key(lambda value: _is_number(value) and value > 1, "a factor above 1, such as 1.5")
_ALONG = Key(_is_along, "one key with two values or more, such as {lora_rank: [1, 8, 32]}")

TESTS: dict[str, dict[str, Key]] = {
    "below_ceiling": {"cells": _SELECTIONS},
    "rate_ratio": {
        "of": _SELECTION,
        "to": _SELECTION,
        "N": _SIZES,
        "expected": Key(
            lambda value: value == "log2_N" or (_is_number(value) and value > 0),
            "log2_N, or a positive number such as 1",
        ),
        "margin": _MARGIN,
    },
    "rises_along": {
        "cells": _SELECTION,
        "along": _ALONG,
        "factor": Key(
            lambda value: _is_number(value) and value > 0, "a positive factor a doubling, such as 1.0", 1.0
        ),
    },
    "same_along": {
        "cells": _SELECTIONS,
        "along": _ALONG,
        "margin": _MARGIN,
        "over": Key(
            lambda value: value is None or _is_along(value),
            "one key with two values or more, such as {num_secrets: [1, 4, 16]}",
            None,
        ),
    },
}
"""The keys of each test, beside id, test and claim. What the tests do is told by
`memory_rl.analysis.hypotheses`."""

_TOP = {
    "name": _TEXT,
    "description": Key(_is_text, "a text", ""),
    "grid": Key(
        _list_of(lambda entry: _is_selection(entry) and entry.get("command") in ("train", "sft")),
        "a list of entries with command: train or sft",
    ),
    "tune": Key(lambda value: value is None or _is_selection(value), "null, or keys of the tuning", None),
    "minimum_runs": Key(
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 2,
        "an integer of 2 or more, such as 10",
        10,
    ),
    "alpha": Key(
        lambda value: _is_number(value) and 0 < value <= 0.2, "a probability up to 0.2, such as 0.05", 0.05
    ),
    "exclusions": Key(_list_of(_is_selection, least=0), "a list of selections, such as [{lora_rank: 1}]", []),
    "hypotheses": Key(
        _list_of(lambda entry: isinstance(entry, dict), least=0),
        "a list of hypotheses, each with id, test and claim",
        [],
    ),
}


def _read(values: Any, source: str, text: str, sha256: str) -> Protocol:
    if not isinstance(values, dict):
        raise ConfigError(f"protocol={source} holds {type(values).__name__}, not keys: begin with name: ...")
    checked = _check(values, _TOP, f"protocol={source}")
    _all_selectable(checked["exclusions"], f"protocol={source}")
    hypotheses = [
        _read_hypothesis(entry, place, source)
        for place, entry in enumerate(checked.pop("hypotheses"), start=1)
    ]
    _all_different([hypothesis.id for hypothesis in hypotheses], source)
    return Protocol(**checked, hypotheses=hypotheses, sha256=sha256, text=text)


def _read_hypothesis(entry: Mapping[str, Any], place: int, source: str) -> Hypothesis:
    where = f"protocol={source}: hypothesis {entry.get('id', place)}"
    test = entry.get("test")
    if test not in TESTS:
        raise ConfigError(f"{where} has test={test}, which is unknown: {suggest(str(test), TESTS)}")
    checked = _check(entry, {"id": _TEXT, "test": _TEXT, "claim": _TEXT, **TESTS[test]}, where)
    _all_selectable(_selections(checked), where)
    return Hypothesis(checked.pop("id"), checked.pop("test"), checked.pop("claim"), checked)


def _check(values: Mapping[str, Any], keys: Mapping[str, Key], where: str) -> dict[str, Any]:
    """The values with defaults filled in, or a ConfigError about the first bad one."""
    for name in values:
        if name not in keys:
            raise ConfigError(f"{where} has the unknown key {name}: {suggest(str(name), keys)}")
    checked = {}
    for name, key in keys.items():
        if name not in values and key.default is ...:
            raise ConfigError(f"{where} lacks {name}: give {key.wanted}.")
        value = values.get(name, key.default)
        if not (name not in values or key.admits(value)):
            raise ConfigError(f"{where} has {name}={value}: give {key.wanted}.")
        checked[name] = value
    return checked


def _selections(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All selections of cells that a hypothesis names."""
    return [
        entry
        for value in settings.values()
        for entry in (value if isinstance(value, list) else [value])
        if isinstance(entry, dict)
    ]


def _all_selectable(selections: Iterable[Mapping[str, Any]], where: str) -> None:
    for name in (name for selection in selections for name in selection):
        if name not in SELECTABLE:
            raise ConfigError(
                f"{where} selects cells by {name}, which is no key of a configuration: {suggest(name, SELECTABLE)}"
            )


def _all_different(ids: Sequence[str], source: str) -> None:
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"protocol={source} has two hypotheses with id={twice}: give each its own.")
