"""Cells as a reader meets them: each under a label that says what sets it apart, in one order and one colour
on every figure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

from memory_rl.analysis.capacity import by_condition, by_size, in_blocks, interleaved, is_of_capacity
from memory_rl.analysis.collect import Cell
from memory_rl.config import OPERATIONAL_KEYS

KEEP = (*OPERATIONAL_KEYS, "threads", "data_dir")
"""Keys that say where and how a run was made, not what was measured."""

_UNNAMED = ("N", *KEEP)
_SET_FOR_EACH_N = ("learning_rate", "max_episodes")
_ORDER = ("sft", "multi_step", "log_distance", "binned_log_distance", "binary")
_RANK = "lora_rank"
_NOTHING = object()


@dataclass(frozen=True)
class Label:
    """A condition on the figures, at every N.

    Attributes:
        name: the condition, and the keys in which it differs from others of that name.
        color: place in the palette; variants of one condition share it.
        variant: 0 for the condition as most cells have it; variants differ in their dashes.
        starts_hidden: whether the reader has to switch it on.
    """

    name: str
    color: int
    variant: int
    starts_hidden: bool


@dataclass(frozen=True)
class Entry:
    """A completed cell under its label."""

    label: str
    cell: Cell

    @property
    def N(self) -> int:
        """The size of the secret space."""
        return self.cell.N

    @property
    def summary(self) -> dict[str, Any]:
        """As in summary.json."""
        return self.cell.summary


@dataclass(frozen=True)
class Study:
    """All cells of a report.

    Attributes:
        entries: the completed ones, by label and N.
        unfinished: the others, which no figure shows.
        labels: in the order of the legend.
    """

    entries: tuple[Entry, ...]
    unfinished: tuple[Cell, ...]
    labels: tuple[Label, ...]

    @property
    def sizes(self) -> list[int]:
        """Each N, once, rising."""
        return sorted({entry.N for entry in self.entries})

    @cached_property
    def hidden(self) -> list[str]:
        """The labels that start switched off."""
        return [label.name for label in self.labels if label.starts_hidden]

    def at(self, N: int) -> list[Entry]:
        """The cells of one N."""
        return [entry for entry in self.entries if entry.N == N]

    def plain(self) -> Study:
        """Without the cells of several secrets or other adapters than LoRA, which have figures of their
        own.
        """
        entries = tuple(entry for entry in self.entries if not is_of_capacity(entry.cell))
        used = {entry.label for entry in entries}
        return Study(entries, self.unfinished, tuple(label for label in self.labels if label.name in used))

    def shown(self) -> Study:
        """Only what the reader sees at first, for figures that cannot be switched."""
        hidden = set(self.hidden)
        return Study(
            tuple(entry for entry in self.entries if entry.label not in hidden), self.unfinished, self.labels
        )


def study_of(cell: Cell) -> Study:
    """One cell under the name of its condition, whatever else it is."""
    labels = _labels([cell], [cell.condition])
    return Study((Entry(cell.condition, cell),), (), tuple(labels))


def make_study(cells: Sequence[Cell]) -> Study:
    """Labels the cells.

    A key is named in a label only if cells of the same condition differ in it, and only where it departs from
    what most cells have. Learning rate and budget may depend on N, and are named only if cells of the same N
    differ in them, too. Variants in LoRA rank start hidden: the figure about ranks shows them all. Cells of
    several secrets or other adapters than LoRA are named among themselves, and change no other's name or
    colour.
    """
    completed = [cell for cell in cells if cell.completed]
    plain, others = ([cell for cell in completed if is_of_capacity(cell) is so] for so in (False, True))
    others.sort(key=_place_of_capacity)
    names, other_names = _names(plain), _names_of_capacity(others)
    labels = [
        *_labels(plain, names),
        *(Label(name, 0, 0, starts_hidden=True) for name in dict.fromkeys(other_names)),
    ]
    place = {label.name: index for index, label in reversed(list(enumerate(labels)))}
    named = [*zip(names, plain, strict=True), *zip(other_names, others, strict=True)]
    entries = sorted(
        (Entry(name, cell) for name, cell in named),
        key=lambda entry: (place[entry.label], entry.N, entry.cell.num_secrets),
    )
    return Study(tuple(entries), tuple(cell for cell in cells if not cell.completed), tuple(labels))


def differing_keys(cells: Iterable[Cell]) -> list[str]:
    """The keys in which cells of the same condition differ; of those that a grid may set for each N, the ones
    in which cells of the same N do.
    """
    groups = defaultdict(list)
    for cell in cells:
        groups[cell.kind, cell.condition].append(cell.config)
    return list(
        dict.fromkeys(
            key
            for group in groups.values()
            for key in group[0]
            if key not in _UNNAMED and _differs(group, key)
        )
    )


def _differs(configs: Sequence[dict[str, Any]], key: str) -> bool:
    values = {(config["N"] if key in _SET_FOR_EACH_N else None, str(config.get(key))) for config in configs}
    return len(values) > len({place for place, _ in values})


def _names(cells: Sequence[Cell]) -> list[str]:
    usual = {
        key: _most_frequent(cell.config.get(key) for cell in cells if key in cell.config)
        for key in differing_keys(cells)
    }
    return _told_apart([" ".join([cell.condition, *_departures(cell, usual)]) for cell in cells], cells)


def _names_of_capacity(cells: Sequence[Cell]) -> list[str]:
    """Each says what is trained and how many secrets there are, so that none is the name of a plain cell."""
    names: dict[int, str] = {}
    for group in by_condition(cells).values():
        for order, part in (
            ("", interleaved(group)),
            (" in blocks", [cell for cell in group if in_blocks(cell)]),
        ):
            for size, of_size in by_size(part).items():
                names |= {
                    id(cell): f"{cell.condition}, {size.label}, {_secrets(cell)}{order}" for cell in of_size
                }
    return _told_apart([names[id(cell)] for cell in cells], cells)


def _place_of_capacity(cell: Cell) -> tuple[Any, ...]:
    """By condition, then by what is trained, the smallest first, then by how much there is to learn; those in
    blocks after the others.
    """
    return (
        _rank_of(cell.condition),
        _natural(cell.condition),
        in_blocks(cell),
        cell.summary.get("trained_parameters") or 0,
        cell.N,
        cell.num_secrets,
    )


def _secrets(cell: Cell) -> str:
    return f"{cell.num_secrets} secrets" if cell.num_secrets > 1 else "1 secret"


def _told_apart(names: Sequence[str], cells: Sequence[Cell]) -> list[str]:
    """With the names of their folders, where cells of one N have the same name."""
    met = Counter(zip(names, (cell.N for cell in cells), strict=True))
    return [
        f"{name} ({cell.path.name})" if met[name, cell.N] > 1 else name
        for name, cell in zip(names, cells, strict=True)
    ]


def _departures(cell: Cell, usual: dict[str, Any]) -> list[str]:
    return [
        f"{key}={_shown(key, cell.config[key])}"
        for key in usual
        if key in cell.config and cell.config[key] != usual[key]
    ]


def _shown(key: str, value: Any) -> Any:
    """A model in a directory goes by the directory's own name, wherever it lies."""
    if key == "model_name" and value.startswith(("/", "./", "../", "~")):
        return value.rstrip("/").rpartition("/")[2]
    return "default" if value is None else value


def _most_frequent(values: Iterable[Any]) -> Any:
    """The value that most have; where several have as many, something that none of them equals."""
    counted = list(values)
    (first, most), *others = Counter(map(str, counted)).most_common(2)
    if others and others[0][1] == most:
        return _NOTHING
    return next(value for value in counted if str(value) == first)


def _labels(cells: Sequence[Cell], names: Sequence[str]) -> list[Label]:
    condition = {name: cell.condition for name, cell in zip(names, cells, strict=True)}
    ordered = sorted(
        condition,
        key=lambda name: (_rank_of(condition[name]), _natural(condition[name]), len(name), _natural(name)),
    )
    colors = _colors([condition[name] for name in ordered], Counter(cell.condition for cell in cells))
    variants: Counter[str] = Counter()
    labels = []
    for name in ordered:
        variant = variants[condition[name]]
        variants[condition[name]] += 1
        labels.append(
            Label(name, colors[condition[name]], variant, starts_hidden=variant > 0 and f" {_RANK}=" in name)
        )
    return labels


def _colors(conditions: Sequence[str], cells: Counter[str]) -> dict[str, int]:
    """A place in the palette for each condition: always the same for the five standard conditions, of
    which the variant with the most cells has it; then the next free.
    """
    colors: dict[str, int] = {}
    for condition in sorted(dict.fromkeys(conditions), key=lambda name: -cells[name]):
        place = _rank_of(condition)
        colors[condition] = place if place < len(_ORDER) and place not in colors.values() else -1
    free = count(len(_ORDER))
    return {
        condition: next(free) if colors[condition] < 0 else colors[condition]
        for condition in dict.fromkeys(conditions)
    }


def _rank_of(condition: str) -> int:
    first = condition.split(" ")[0]
    return _ORDER.index(first) if first in _ORDER else len(_ORDER)


def _natural(text: str) -> list[tuple[int, float, str]]:
    """B=8 before B=16."""
    parts = text.replace("=", " ").split(" ")
    return [
        (0, float(part), "") if part.replace(".", "", 1).isdecimal() else (1, 0.0, part) for part in parts
    ]
