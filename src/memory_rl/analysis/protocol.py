"""Protocols: which experiments are run and what would support or refute each hypothesis, fixed beforehand.

A protocol is a YAML file. It is read whole, checked key by key and known by the hash of its bytes, so that a
report can show that the thresholds are those of before the measurement. The grid and the tuning are passed on
unchecked: they belong to the sweep.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

from memory_rl.analysis import gap_tests  # noqa: F401  # its tests enter TESTS
from memory_rl.analysis.entries import (
    Holds,
    Text,
    a_selection,
    list_of,
    or_none,
    read,
    within,
)
from memory_rl.analysis.hypotheses import TESTS, Hypothesis
from memory_rl.catalogue import experiment_keys, learner_keys
from memory_rl.errors import ConfigError, suggest
from memory_rl.files import Json
from memory_rl.keys import Key, accept_some, read_selection
from memory_rl.limits import SIZES
from memory_rl.yaml_words import bytes_of, words_of

_SUFFIX = ".yaml"
SELECTABLE = {
    "kind": Key("kind", "", Literal["train", "sft"], None, ""),
    "condition": Key("condition", "", str, None, ""),
    **dict(sorted(experiment_keys().items())),
}
"""What a selection of cells may name: the command, the condition, or a key of the configuration."""


def _an_entry(value: Any) -> Json:
    entry = a_selection(value)
    if entry.get("command") not in ("train", "sft"):
        raise ValueError
    return accept_some(experiment_keys(), entry)


def _one(word: str) -> Callable[[Any], str]:
    """A reader of a key that has one value alone, if it is given."""

    def read_word(value: Any) -> str:
        if value != word:
            raise ValueError
        return word

    return read_word


def a_learner(value: Any) -> Json:
    """The keys of a learner, among them its algorithm."""
    learner = a_selection(value)
    if "algorithm" not in learner:
        raise ValueError
    return accept_some(learner_keys(), learner)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is to be measured and judged.

    Attributes:
        name: of the protocol.
        description: of what it is for.
        grid: entries of the sweep; each has a `command` and configuration keys, where a list is an axis.
        learners: keys of each learner that is to run on every `train` entry of the grid; none for those that
            the entries name themselves.
        tune: settings of the tuning, or None for none.
        beside: "default" where each cell is measured twice, with what was chosen and as the package has it.
        seeds: "independent" where each cell gets a seed of its own, so that no two share random streams.
        minimum_runs: no hypothesis is judged on a cell with fewer.
        alpha: the chance of one wrong verdict or more among all hypotheses, at most.
        exclusions: selections of cells that no verdict uses.
        hypotheses: in order.
        sha256: of the file's bytes.
        text: of the file.
    """

    name: Text
    description: Text = ""
    grid: Annotated[list[Json], Holds(list_of(_an_entry), "a list of entries with command: train or sft")] = (
        field(repr=False)
    )
    learners: Annotated[
        list[Json],
        Holds(list_of(a_learner), "a list of learners with an algorithm each, such as [{algorithm: grpo}]"),
    ] = field(default_factory=list)
    tune: Annotated[Json | None, Holds(or_none(a_selection), "null, or keys of the tuning")] = None
    beside: Annotated[str | None, Holds(or_none(_one("default")), "default, or leave beside out")] = None
    seeds: Annotated[str | None, Holds(or_none(_one("independent")), "independent, or leave seeds out")] = (
        None
    )
    minimum_runs: Annotated[int, Holds(within(2, SIZES[1], int), "an integer of 2 or more, such as 64")] = 64
    alpha: Annotated[float, Holds(within(1e-9, 0.2), "a probability up to 0.2, such as 0.05")] = 0.05
    exclusions: Annotated[
        list[Json],
        Holds(list_of(a_selection, least=0), "a list of selections, such as [{lora_rank: 1}]"),
    ] = field(default_factory=list)
    hypotheses: Annotated[
        list[Hypothesis],
        Holds(list_of(a_selection, least=0), "a list of hypotheses, each with id, test and claim"),
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
    where = f"protocol={source}"
    content = _bytes_of(source)
    values = words_of(content, where)
    if not isinstance(values, dict):
        raise ConfigError(f"{where} holds {type(values).__name__}, not keys: start it with name: ...")
    protocol = read(
        Protocol, values, where, text=content.decode(), sha256=hashlib.sha256(content).hexdigest()
    )
    for word in (word for learner in protocol.learners for word in learner):
        if word not in learner_keys():
            raise ConfigError(f"{where} has learners with {word}: {suggest(word, learner_keys())}")
    return replace(
        protocol,
        exclusions=[_read_selection(selection, where) for selection in protocol.exclusions],
        hypotheses=_read_hypotheses(values.get("hypotheses", []), where),
    )


def _bytes_of(source: str) -> bytes:
    shipped = shipped_protocols()
    if source in shipped:
        return (_shelf() / (source + _SUFFIX)).read_bytes()
    if Path(source).suffix not in (_SUFFIX, ".yml") and not _exists(source):
        raise ConfigError(
            f"protocol={source} is not a shipped protocol: {suggest(source, [*shipped, 'path/to/your.yaml'])}"
        )
    advice = f"give the path of a YAML file, or one of {', '.join(shipped)}."
    return bytes_of(Path(source), f"protocol={source}", advice)


def _exists(source: str) -> bool:
    try:
        return Path(source).exists()
    except OSError:  # a name that is too long
        return False


def _read_hypotheses(entries: Iterable[Json], where: str) -> list[Hypothesis]:
    hypotheses: dict[str, Hypothesis] = {}
    for place, entry in enumerate(entries, start=1):
        here, test = f"{where}: hypothesis {entry.get('id', place)}", str(entry.get("test"))
        if test not in TESTS:
            raise ConfigError(f"{here} has test={test}, which is unknown: {suggest(test, TESTS)}")
        hypothesis = read(TESTS[test], entry, here)
        hypothesis = replace(hypothesis, **_selections_of(hypothesis, here))
        if hypothesis.id in hypotheses:
            raise ConfigError(f"{where} has two hypotheses with id={hypothesis.id}: give each its own.")
        hypotheses[hypothesis.id] = hypothesis
    return list(hypotheses.values())


def _selections_of(hypothesis: Hypothesis, where: str) -> Json:
    """Those of its fields that select cells, read."""
    found: Json = {}
    for name, value in vars(hypothesis).items():
        if isinstance(value, dict):
            found[name] = _read_selection(value, where)
        elif isinstance(value, list) and isinstance(value[0], dict):
            found[name] = [_read_selection(selection, where) for selection in value]
    return found


def _read_selection(selection: Json, where: str) -> Json:
    """A selection with its words read.

    Raises:
        ConfigError: about the first key that no configuration has, or the first value that no cell can have.
    """
    for name in selection:
        if name not in SELECTABLE:
            raise ConfigError(
                f"{where} selects cells by {name}, which is no key of a configuration: "
                f"{suggest(name, SELECTABLE)}"
            )
    try:
        return read_selection(SELECTABLE, selection)
    except ConfigError as error:
        raise ConfigError(f"{where} selects cells by {error}") from None
