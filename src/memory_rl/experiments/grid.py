"""The cells of a sweep: from a grid on the command line, in a file or in a protocol to full configurations,
each known by its content.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml

from memory_rl.config import (
    _OF_THE_TRANSFORMER,
    Experiment,
    SFTConfig,
    TrainConfig,
    as_values,
    make_config,
    parse_config,
)
from memory_rl.errors import ConfigError, suggest
from memory_rl.experiments.settings import MANAGED, OPERATIONAL

Command = Literal["train", "sft"]

KINDS: dict[str, type[TrainConfig] | type[SFTConfig]] = {"train": TrainConfig, "sft": SFTConfig}

CONDITIONS: dict[str, tuple[Command, dict[str, str]]] = {
    "sft": ("sft", {}),
    "binary": ("train", {"reward_type": "binary"}),
    "log_distance": ("train", {"reward_type": "log_distance"}),
    "binned_log_distance": ("train", {"reward_type": "binned_log_distance"}),
    "multi_step": ("train", {"env_type": "multi_step"}),
    "sft_multi_step": ("sft", {"env_type": "multi_step"}),
}
"""What each name of `conditions=` stands for."""

MAX_CELLS = 10_000
_SHARED_BY_A_POPULATION = ("learning_rate", "seed")


@dataclass(frozen=True)
class Cell:
    """One experiment of a sweep.

    Attributes:
        command: "train" or "sft".
        values: every key of its configuration but log_path and quiet.
    """

    command: Command
    values: Mapping[str, Any]

    @cached_property
    def config(self) -> Experiment:
        """Its configuration, valid as far as can be told without models and files."""
        return make_config(KINDS[self.command], dict(self.values))

    @cached_property
    def id(self) -> str:
        """A readable name and the hash of all that determines what is measured."""
        content = json.dumps([self.command, self._content], sort_keys=True)
        words = f"{self.config.condition} N{self.config.N} seed{self.config.seed}"
        return f"{re.sub(r'[^A-Za-z0-9.]+', '-', words)}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    @property
    def _content(self) -> dict[str, Any]:
        """The configuration with its defaults worked out, so that a default that is written out is the same
        cell, and one that has changed is another.
        """
        content = {key: value for key, value in self.values.items() if key not in OPERATIONAL}
        content["learning_rate"] = self.config.step_size
        content["max_episodes"] = self.config.budget
        if isinstance(self.config, TrainConfig):
            content["skip_ahead"] = self.config.skips_ahead
            content["reward_type"] = (
                _file_and_its_hash(self.config) if self.config.own_reward else self.config.channel_name
            )
        return content

    def with_values(self, **values: Any) -> Cell:
        """The same cell with other values."""
        return Cell(self.command, {**self.values, **values})

    def as_dict(self) -> dict[str, Any]:
        """For sweep.json."""
        return {"id": self.id, "command": self.command, "config": dict(self.values)}


def _file_and_its_hash(config: TrainConfig) -> str:
    """A reward of one's own changes when its file does."""
    path = Path(str(config.reward_type).rpartition(":")[0])
    return f"{config.reward_type} {hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ''}"


def make_cell(command: Command, texts: Mapping[str, str]) -> Cell:
    """A cell from its keys as they would be typed.

    Raises:
        ConfigError: one sentence that names the cell and the key.
    """
    try:
        config = parse_config(KINDS[command], [f"{key}={text}" for key, text in texts.items()])
    except ConfigError as error:
        named = " ".join([command, *(f"{key}={text}" for key, text in texts.items())])
        raise ConfigError(f"in the cell ({named}) {error}") from None
    return Cell(command, {key: value for key, value in as_values(config).items() if key not in MANAGED})


def cells_of_axes(conditions: str | None, axes: Mapping[str, str]) -> list[Cell]:
    """All combinations of a grid on the command line.

    A key that has no meaning for a condition is left out for it; cells that are then the same are one.

    Args:
        conditions: names with commas between them, or None for what `train` does with the other keys.
        axes: keys with values, with commas between them.

    Raises:
        ConfigError: one sentence about a key that has no meaning in any cell, or about the first cell that
            cannot be run.
    """
    names = [None] if conditions is None else _pieces("conditions", conditions)
    starts = [_condition(name, axes) for name in names]
    pieces = {key: _pieces(key, text) for key, text in axes.items()}
    _not_too_many(len(starts) * math.prod(map(len, pieces.values())))
    cells, used = [], set()
    for (command, fixed), values in itertools.product(starts, itertools.product(*pieces.values())):
        texts = _leave_out(command, {**dict(zip(pieces, values, strict=True)), **fixed})
        used |= set(texts)
        cells.append((command, texts))
    for key, text in axes.items():
        if key not in used:
            raise ConfigError(
                f"{key}={text} has no meaning for any cell of this grid: leave {key} out, or add a condition that it goes with."
            )
    return merge(make_cell(command, texts) for command, texts in cells)


def _condition(name: str | None, axes: Mapping[str, str]) -> tuple[Command, dict[str, str]]:
    if name is None:
        return "train", {}
    for key in ("env_type", "reward_type"):
        if key in axes:
            raise ConfigError(
                f"{key}={axes[key]} has no meaning with conditions={name}, which says the same: leave one of them out."
            )
    if ":" in name:
        return "train", {"reward_type": name}
    if name not in CONDITIONS:
        raise ConfigError(
            f"conditions={name} is not a choice: {suggest(name, [*CONDITIONS, 'file.py:Name'])}"
        )
    return CONDITIONS[name]


def _pieces(key: str, text: str) -> list[str]:
    values = [value.strip() for value in text.split(",")]
    if "" in values:
        raise ConfigError(
            f"{key}={text} has an empty value: type for example {key}={','.join(filter(None, values)) or '1,2'}."
        )
    return list(dict.fromkeys(values))


def _leave_out(command: Command, texts: Mapping[str, str]) -> dict[str, str]:
    """The keys that have a meaning beside the others."""
    known = get_type_hints(KINDS[command])
    kept = {key: text for key, text in texts.items() if key in known}

    def value(key: str, default: str) -> str:
        return kept.get(key, default)

    multi_step = value("env_type", "single_step") == "multi_step"
    tabular = value("backend", "local") == "tabular"
    without_meaning = {
        "reward_type": multi_step,
        "reward_bins": multi_step or value("reward_type", "binary") != "binned_log_distance",
        "credit": not multi_step,
        "tabular_bits": not (tabular and multi_step),
        "ppo_epochs": value("algorithm", "reinforce") != "ppo",
        "ppo_clip": value("algorithm", "reinforce") != "ppo",
        "posterior_epochs": value("algorithm", "reinforce") != "posterior",
        "baseline": value("algorithm", "reinforce") not in ("reinforce", "ppo"),
        "data_dir": "fixed_secret" not in kept,
        **dict.fromkeys(_OF_THE_TRANSFORMER, tabular),
    }
    return {key: text for key, text in kept.items() if not without_meaning.get(key, False)}


@dataclass(frozen=True)
class GridFile:
    """A grid that was read from a file: its entries, and its tuning if it has one."""

    entries: list[Any]
    tune: Any = None


def read_grid_file(path: str) -> GridFile:
    """Reads a list of entries, or a mapping with `grid` and, if wanted, `tune`.

    Raises:
        ConfigError: if it cannot be read or holds something else.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"grid={path} cannot be read ({error.strerror}): give the path of a YAML file."
        ) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"grid={path} is not valid YAML ({' '.join(str(error).split())}): mend it there."
        ) from error
    if isinstance(content, list):
        return GridFile(content)
    if isinstance(content, dict) and isinstance(content.get("grid"), list):
        unknown = set(content) - {"name", "description", "grid", "tune"}
        if unknown:
            raise ConfigError(
                f"grid={path} has the unknown key {min(unknown, key=str)}: use grid and tune, or protocol={path} for a protocol."
            )
        return GridFile(content["grid"], content.get("tune"))
    raise ConfigError(f"grid={path} holds no list of entries: begin with - {{command: train, N: [16, 64]}}.")


def cells_of_entries(entries: Sequence[Any], common: Mapping[str, str] | None = None) -> list[Cell]:
    """All combinations of each entry of a file's grid.

    Args:
        entries: mappings with `command` (train or sft) and keys of the configuration; a list is an axis.
        common: keys as typed that all cells get which know them.

    Raises:
        ConfigError: one sentence about the first entry or cell that cannot be run.
    """
    return merge(
        cell
        for place, entry in enumerate(entries, start=1)
        for cell in _cells_of_entry(place, entry, common or {})
    )


def _cells_of_entry(place: int, entry: Any, common: Mapping[str, str]) -> Iterator[Cell]:
    if not isinstance(entry, dict) or entry.get("command") not in KINDS:
        raise ConfigError(
            f"entry {place} of the grid ({entry}) has no command: begin it with command: train or command: sft."
        )
    command: Command = entry["command"]
    axes = {
        str(key): value if isinstance(value, list) else [value]
        for key, value in entry.items()
        if key != "command"
    }
    for key, values in axes.items():
        if key in MANAGED:
            raise ConfigError(
                f"entry {place} of the grid has {key}, which the sweep sets itself: leave {key} out."
            )
        if not values or any(isinstance(value, list | dict) for value in values):
            raise ConfigError(
                f"entry {place} of the grid has {key}: {entry[key]}: give a value, or a list of values."
            )
    _not_too_many(math.prod(map(len, axes.values())))
    known = get_type_hints(KINDS[command])
    shared = {key: text for key, text in common.items() if key in known}
    for combination in itertools.product(*axes.values()):
        yield make_cell(
            command, {**shared, **{key: str(value) for key, value in zip(axes, combination, strict=True)}}
        )


def _not_too_many(count: int) -> None:
    if count > MAX_CELLS:
        raise ConfigError(f"the grid has {count} cells, more than {MAX_CELLS}: give fewer values.")


def merge(cells: Iterable[Cell]) -> list[Cell]:
    """The cells in order, each content once."""
    return list({cell.id: cell for cell in cells}.values())


def group_cells(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Puts together cells that one population can hold: those that differ in learning_rate and seed alone. In
    order of their first cells.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        world = {key: value for key, value in cell.values.items() if key not in _SHARED_BY_A_POPULATION}
        groups.setdefault(json.dumps([cell.command, world], sort_keys=True), []).append(cell)
    return list(groups.values())


def split_groups(groups: Sequence[list[Cell]], workers: int) -> list[list[Cell]]:
    """Halves the largest groups until there is work for all workers, or a cell each."""
    parts = [list(group) for group in groups]
    while 0 < len(parts) < workers:
        largest = max(range(len(parts)), key=lambda place: len(parts[place]))
        group = parts[largest]
        if len(group) == 1:
            break
        middle = (len(group) + 1) // 2
        parts[largest : largest + 1] = [group[:middle], group[middle:]]
    return parts
