"""The cells of a sweep: from a grid on the command line, in a file or in a protocol to configurations."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from memory_rl.catalogue import OF_ONE_RUN, learner_name
from memory_rl.config import Command
from memory_rl.errors import ConfigError, suggest
from memory_rl.experiment import Experiment, make_experiment, meaningful, parse_experiment
from memory_rl.files import Json
from memory_rl.keys import Key, accept, shown
from memory_rl.yaml_words import bytes_of, words_of

COMMANDS: dict[str, dict[str, str]] = {"train": {}, "sft": {"signal": "example"}}
"""What the command of an entry stands for."""

CONDITIONS: dict[str, dict[str, str]] = {
    "sft": {"signal": "example"},
    "binary": {"reward_type": "binary"},
    "log_distance": {"reward_type": "log_distance"},
    "binned_log_distance": {"reward_type": "binned_log_distance"},
    "multi_step": {"env_type": "multi_step"},
    "sft_multi_step": {"signal": "example", "env_type": "multi_step"},
    "teacher": {"signal": "teacher"},
    "teacher_multi_step": {"signal": "teacher", "env_type": "multi_step"},
}
"""What each name of `conditions=` stands for."""

MAX_CELLS = 10_000


@dataclass(frozen=True)
class GridCell:
    """One experiment of a sweep.

    Attributes:
        values: every key that has a meaning in it, but log_path and quiet; and its role, if it has one.
        tuned: whether its step size is chosen, where the sweep tunes.
    """

    values: Json
    tuned: bool = True

    @cached_property
    def experiment(self) -> Experiment:
        """The experiment, checked as far as is possible without models and files."""
        return make_experiment(self.values)

    @property
    def command(self) -> Command:
        """Which command makes it."""
        return self.experiment.command

    @cached_property
    def id(self) -> str:
        """A readable name and the hash of all keys that determine what is measured."""
        content = json.dumps([self.command, self.experiment.resolved()], sort_keys=True)
        world = self.experiment.world
        words = f"{self.experiment.condition} N{world.N} seed{world.seed}"
        return f"{re.sub(r'[^A-Za-z0-9.]+', '-', words)}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    @property
    def learner(self) -> str:
        """What `learner_name` calls it; "" in supervised learning."""
        return learner_name(self.values)

    @property
    def about(self) -> Json:
        """What a row of a table says of it first."""
        experiment, world = self.experiment, self.experiment.world
        return {
            "id": self.id,
            "command": self.command,
            "condition": experiment.condition,
            "N": world.N,
            "seed": world.seed,
            "learning_rate": experiment.step_size,
        }

    def with_values(self, **values: Any) -> GridCell:
        """The same cell with other values."""
        return replace(self, values={**self.values, **values})

    def without(self, *words: str) -> GridCell:
        """The same cell with these keys at their defaults."""
        return replace(self, values={word: one for word, one in self.values.items() if word not in words})

    def as_dict(self) -> Json:
        """For sweep.json."""
        return {"id": self.id, "command": self.command, "config": self.values}


def make_cell(texts: Mapping[str, str]) -> GridCell:
    """A cell from its keys as they would be typed.

    Raises:
        ConfigError: one sentence that names the cell and the key.
    """
    words = [f"{key}={text}" for key, text in texts.items()]
    try:
        experiment = parse_experiment(words)
    except ConfigError as error:
        raise ConfigError(f"in the cell ({' '.join(words)}) {error}") from None
    return GridCell({key: value for key, value in experiment.flat().items() if key not in OF_ONE_RUN})


def cells_of_axes(
    conditions: str | None, axes: Mapping[str, str], of_file: Container[str] = ()
) -> list[GridCell]:
    """All combinations of a grid on the command line.

    A key that has no meaning for a condition is left out for it; cells that are then the same are one.

    Args:
        conditions: names with commas between them, or None for what `train` does with the other keys.
        axes: keys with values, with commas between them.
        of_file: keys that may have no meaning for any cell, since a file of keys has them.

    Raises:
        ConfigError: one sentence about a key that has no meaning in any cell, or about the first cell that
            cannot be run.
    """
    names = [None] if conditions is None else split_values("conditions", conditions)
    starts = [_condition(name, axes) for name in names]
    pieces = {key: split_values(key, text) for key, text in axes.items()}
    check_count(len(starts) * math.prod(map(len, pieces.values())))
    cells = [
        meaningful({**dict(zip(pieces, values, strict=True)), **fixed})
        for fixed, values in itertools.product(starts, itertools.product(*pieces.values()))
    ]
    for key, text in axes.items():
        if key not in of_file and not any(key in texts for texts in cells):
            raise ConfigError(
                f"{key}={text} has no meaning for any cell of this grid: leave {key} out, "
                "or add a condition that it goes with."
            )
    return merge(make_cell(texts) for texts in cells)


def _condition(name: str | None, axes: Mapping[str, str]) -> dict[str, str]:
    if name is None:
        return {}
    for key in ("env_type", "reward_type", "signal"):
        if key in axes:
            raise ConfigError(
                f"{key}={axes[key]} has no meaning with conditions={name}, which says the same: "
                "leave one of them out."
            )
    if ":" in name:
        return {"reward_type": name}
    if name not in CONDITIONS:
        choices = [*CONDITIONS, "file.py:Name"]
        raise ConfigError(f"conditions={name} is not a choice: {suggest(name, choices)}")
    return CONDITIONS[name]


def split_values(key: str, text: str) -> list[str]:
    """The values of a key that stand with commas between them, each once.

    Raises:
        ConfigError: if one is empty.
    """
    values = [value.strip() for value in text.split(",")]
    if "" in values:
        example = ",".join(filter(None, values)) or "1,2"
        raise ConfigError(f"{key}={text} has an empty value: type for example {key}={example}.")
    return list(dict.fromkeys(values))


@dataclass(frozen=True)
class GridFile:
    """A grid that was read from a file: its name, its entries, and its tuning if it has one."""

    name: str
    grid: list[Any]
    tune: Json | None = None


def read_grid_file(path: str) -> GridFile:
    """Reads a list of entries, or a mapping with `grid` and, if wanted, `tune`.

    Raises:
        ConfigError: if it cannot be read or holds something else.
    """
    where = f"grid={path}"
    content = words_of(bytes_of(Path(path), where), where)
    if isinstance(content, list):
        content = {"grid": content}
    if not isinstance(content, dict) or not isinstance(content.get("grid"), list):
        raise ConfigError(f"{where} holds no list of entries: begin with - {{command: train, N: [16, 64]}}.")
    unknown = set(content) - {"name", "description", "grid", "tune"}
    if unknown:
        raise ConfigError(
            f"{where} has the unknown key {min(unknown, key=str)}: use grid and tune, "
            f"or protocol={path} for a protocol."
        )
    tune = content.get("tune")
    if not isinstance(tune, dict | None):
        raise ConfigError(
            f"{where} has tune: {shown(tune)}: give keys of the tuning, such as {{rates: [0.001, 0.003]}}, "
            "or leave tune out."
        )
    return GridFile(Path(path).stem, content["grid"], tune)


def cells_of_entries(
    entries: Sequence[Any], common: Mapping[str, str], learners: Sequence[Json] = ()
) -> list[GridCell]:
    """All combinations of each entry of a file's grid; those that are the same are not merged yet.

    Args:
        entries: mappings with `command` (train or sft) and keys of the configuration; a list is an axis.
        common: keys as typed that all cells get in which they have a meaning; with a `backend`, entries lose
            the keys that have none on it.
        learners: keys of learners, each of which runs on every entry of `train`.

    Raises:
        ConfigError: one sentence about the first entry or cell that cannot be run.
    """
    cells: list[GridCell] = []
    for place, entry in enumerate(entries, start=1):
        for crossed in _with_learners(place, entry, learners):
            cells += _cells_of_entry(place, crossed, common)
            check_count(len(cells))
    return cells


def _with_learners(place: int, entry: Any, learners: Sequence[Json]) -> Iterator[Any]:
    if not (learners and isinstance(entry, dict) and entry.get("command") == "train"):
        yield entry
        return
    for learner in learners:
        twice = entry.keys() & learner.keys()
        if twice:
            raise ConfigError(
                f"entry {place} of the grid has {min(twice)}, which its learners have, too: "
                "leave it out of one of them."
            )
        yield {**entry, **learner}


def _cells_of_entry(place: int, entry: Any, common: Mapping[str, str]) -> Iterator[GridCell]:
    if not isinstance(entry, dict) or entry.get("command") not in [*COMMANDS]:
        raise ConfigError(
            f"entry {place} of the grid ({shown(entry)}) has no command: "
            "begin it with command: train or command: sft."
        )
    axes = {
        key: value if isinstance(value, list) else [value]
        for key, value in entry.items()
        if key not in ("command", "tune")
    }
    for key, values in axes.items():
        if key in OF_ONE_RUN:
            raise ConfigError(
                f"entry {place} of the grid has {key}, which the sweep sets itself: leave {key} out."
            )
        if not values or any(isinstance(value, list | dict) for value in values):
            raise ConfigError(
                f"entry {place} of the grid has {key}: {shown(entry[key])}: "
                "give a value, or a list of values."
            )
    check_count(math.prod(map(len, axes.values())))
    tuned = _is_tuned(place, entry)
    for combination in itertools.product(*axes.values()):
        given = zip(axes, combination, strict=True)
        texts = COMMANDS[entry["command"]] | {key: str(value) for key, value in given if value is not None}
        known = meaningful({**common, **texts})
        if "backend" in common:
            make_cell(texts)  # so that no key is lost that is simply wrong
            texts = meaningful({**texts, "backend": common["backend"]})
        cell = make_cell({**{key: text for key, text in common.items() if key in known}, **texts})
        yield replace(cell, tuned=tuned)


def _is_tuned(place: int, entry: Json) -> bool:
    try:
        return bool(accept(Key("tune", "", bool, True, ""), entry.get("tune", True)))
    except ConfigError:
        raise ConfigError(
            f"entry {place} of the grid has tune: {shown(entry['tune'])}: give false where its step size is "
            "to stay as it is, or leave tune out."
        ) from None


def check_count(count: int) -> None:
    """Raises a ConfigError if these are more cells than a sweep should have."""
    if count > MAX_CELLS:
        raise ConfigError(f"the grid has {count} cells, more than {MAX_CELLS}: give fewer values.")


def merge(cells: Iterable[GridCell], *, planned: bool = False) -> list[GridCell]:
    """The cells in order, each content once; if they are only `planned`, tuned and as it is are two."""
    return list({(cell.id, planned and cell.tuned): cell for cell in cells}.values())
