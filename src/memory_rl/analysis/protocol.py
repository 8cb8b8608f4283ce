"""Protocols: which experiments are run and what would support or refute each hypothesis, fixed beforehand.

A protocol is a YAML file. It is read whole, checked key by key and known by the hash of its bytes, so that a
report can show that the thresholds are those of before the measurement. The grid and the tuning are passed on
unread: they belong to the sweep.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any

import yaml

from memory_rl.analysis.entries import (
    Holds,
    Text,
    is_integer,
    is_number,
    is_selection,
    list_of,
    or_none,
    read,
)
from memory_rl.analysis.hypotheses import TESTS, Hypothesis
from memory_rl.catalogue import experiment_keys
from memory_rl.errors import ConfigError, suggest
from memory_rl.files import Json

_SUFFIX = ".yaml"
SELECTABLE = ("kind", "condition", *sorted(experiment_keys()))
"""What a selection of cells may name: the command, the condition, or a key of the configuration."""


def _is_entry(value: Any) -> bool:
    return is_selection(value) and value.get("command") in ("train", "sft")


def _is_alpha(value: Any) -> bool:
    return is_number(value) and 0 < value <= 0.2


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


@dataclass(frozen=True, kw_only=True)
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

    name: Text
    description: Text = ""
    grid: Annotated[list[Json], Holds(list_of(_is_entry), "a list of entries with command: train or sft")] = (
        field(repr=False)
    )
    tune: Annotated[Json | None, Holds(or_none(is_selection), "null, or keys of the tuning")] = None
    minimum_runs: Annotated[int, Holds(is_integer, "an integer of 2 or more, such as 10")] = 10
    alpha: Annotated[float, Holds(_is_alpha, "a probability up to 0.2, such as 0.05")] = 0.05
    exclusions: Annotated[
        list[Json],
        Holds(list_of(is_selection, least=0), "a list of selections, such as [{lora_rank: 1}]"),
    ] = field(default_factory=list)
    hypotheses: Annotated[
        list[Hypothesis],
        Holds(list_of(_is_mapping, least=0), "a list of hypotheses, each with id, test and claim"),
    ] = field(default_factory=list)
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
            f"protocol={source} is not valid YAML ({_first_line(error)}): fix it there."
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"protocol={source} holds {type(values).__name__}, not keys: start it with name: ..."
        )
    protocol = read(
        Protocol, values, f"protocol={source}", text=text, sha256=hashlib.sha256(content).hexdigest()
    )
    _all_selectable(protocol.exclusions, f"protocol={source}")
    return replace(protocol, hypotheses=_read_hypotheses(values.get("hypotheses", []), f"protocol={source}"))


def _bytes_of(source: str) -> bytes:
    shipped = shipped_protocols()
    if source in shipped:
        return (_shelf() / (source + _SUFFIX)).read_bytes()
    path = Path(source)
    if path.suffix not in (_SUFFIX, ".yml") and not path.exists():
        raise ConfigError(
            f"protocol={source} is not a shipped protocol: {suggest(source, [*shipped, 'path/to/your.yaml'])}"
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"protocol={source} cannot be read ({error.strerror}): "
            f"give the path of a YAML file, or one of {', '.join(shipped)}."
        ) from error


def _first_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "unreadable"
    return problem if mark is None else f"line {mark.line + 1}: {problem}"


def _read_hypotheses(entries: Iterable[Json], where: str) -> list[Hypothesis]:
    hypotheses: dict[str, Hypothesis] = {}
    for place, entry in enumerate(entries, start=1):
        here, test = f"{where}: hypothesis {entry.get('id', place)}", str(entry.get("test"))
        if test not in TESTS:
            raise ConfigError(f"{here} has test={test}, which is unknown: {suggest(test, TESTS)}")
        hypothesis = read(TESTS[test], entry, here)
        for value in vars(hypothesis).values():
            _all_selectable(value if isinstance(value, list) else [value], here)
        if hypothesis.id in hypotheses:
            raise ConfigError(f"{where} has two hypotheses with id={hypothesis.id}: give each its own.")
        hypotheses[hypothesis.id] = hypothesis
    return list(hypotheses.values())


def _all_selectable(selections: Iterable[Any], where: str) -> None:
    """Raises a ConfigError about the first key of a selection that no configuration has."""
    for name in (name for selection in selections if isinstance(selection, dict) for name in selection):
        if name not in SELECTABLE:
            raise ConfigError(
                f"{where} selects cells by {name}, which is no key of a configuration: "
                f"{suggest(name, SELECTABLE)}"
            )
