"""Cells as a reader meets them: under labels that say what sets them apart, in one order and one colour."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from statistics import multimode
from typing import Any

from memory_rl.analysis.capacity import Size, by_condition, by_size, in_blocks, interleaved, is_of_capacity
from memory_rl.analysis.collect import Cell, Damage
from memory_rl.analysis.pooled import Pooled, can_be_pooled, pooled
from memory_rl.analysis.samples import Sample, gather
from memory_rl.catalogue import KEEP
from memory_rl.config import REWARD_TYPES

_UNNAMED = ("N", *KEEP)
_SET_FOR_EACH_N = ("learning_rate", "max_episodes")
MOST = 8
"""The most labels of a chart, which is the number of colours."""

_ORDER = ("sft", "multi_step", "log_distance", "binned_log_distance", "binary")
_RANK = "lora_rank"
_CROWDED = 40  # with more labels than this, only the first of each condition starts switched on


@dataclass(frozen=True)
class Label:
    """A condition on the figures, at every N.

    Attributes:
        name: the condition, and the keys in which it differs from others of that name.
        color: place in the palette; no two labels of a group share it.
        group: the labels of a group share charts; there are at most as many as there are colours.
        starts_hidden: whether the reader has to switch it on.
    """

    name: str
    color: int
    group: int
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

    @property
    def sample(self) -> Sample:
        """Its run directories, by whose bases its intervals are."""
        return self.cell.sample if isinstance(self.cell, Pooled) else Sample((self.cell,))


@dataclass(frozen=True)
class Study:
    """All cells of a report.

    Attributes:
        entries: the completed ones, by label and N.
        unfinished: the others, which no figure shows.
        labels: in the order of the legend.
        damages: run directories that cannot be read, and files of sweeps.
    """

    entries: Sequence[Entry]
    unfinished: Sequence[Cell]
    labels: Sequence[Label]
    damages: Sequence[Damage] = ()

    @property
    def cells(self) -> list[Cell]:
        """All completed run directories, those that are one entry, too."""
        return [cell for entry in self.entries for cell in entry.sample.cells]

    @property
    def sizes(self) -> list[int]:
        """Each N once, ascending."""
        return sorted({entry.N for entry in self.entries})

    @property
    def unfinished_words(self) -> list[str]:
        """Where each of them lies, and how it ended."""
        return [f"{cell.path} ({cell.ended})" for cell in self.unfinished]

    @cached_property
    def hidden(self) -> list[str]:
        """The labels that start switched off."""
        return [label.name for label in self.labels if label.starts_hidden]

    def charts(self) -> Iterator[tuple[str, Study]]:
        """The cells of each group of labels, named by its first and last condition unless it shows all."""
        shown = {label.group for label in self.labels if not label.starts_hidden}
        for group, members in groupby(self.labels, key=lambda label: label.group):
            names = {label.name for label in members}
            entries = [entry for entry in self.entries if entry.label in names]
            conditions = list(dict.fromkeys(entry.cell.condition for entry in entries))
            alone = group in shown and len(shown) == 1
            if entries:
                name = "" if alone else " to ".join(dict.fromkeys((conditions[0], conditions[-1])))
                yield name if group in shown else f"more of {name}", replace(self, entries=entries)

    def at(self, N: int) -> list[Entry]:
        """The cells of one N."""
        return [entry for entry in self.entries if entry.N == N]

    def plain(self) -> Study:
        """Without cells of several secrets or other adapters than LoRA, which have figures of their own."""
        entries = [entry for entry in self.entries if not is_of_capacity(entry.cell)]
        used = {entry.label for entry in entries}
        labels = [label for label in self.labels if label.name in used]
        return replace(self, entries=entries, labels=labels)

    def shown(self) -> Study:
        """Only what the reader sees at first, for figures that cannot be switched."""
        labels = [label for label in self.labels if not label.starts_hidden]
        return replace(
            self, entries=[entry for entry in self.entries if entry.label not in self.hidden], labels=labels
        )


def study_of(cell: Cell) -> Study:
    """A study of one cell, under the name of its condition."""
    entry = Entry(cell.condition, cell)
    return Study([entry], [], _labels([entry]))


def make_study(cells: Sequence[Cell]) -> Study:
    """Labels the cells.

    A key is named in a label only if cells of the same condition differ in it, and only where it departs from
    what most cells have. Learning rate and budget may depend on N, and are named only if cells of the same N
    differ in them, too. Variants in LoRA rank start hidden: the figure about ranks shows them all. Cells of
    several secrets or other adapters than LoRA are named among themselves, and change no other's name or
    colour.

    Cells that differ in seed and base alone are one entry with all their runs.
    """
    completed = [cell for cell in cells if cell.completed]
    plain = _named_by_keys(_pooled([cell for cell in completed if not is_of_capacity(cell)]))
    others = _named_by_size([cell for cell in completed if is_of_capacity(cell)])
    names = dict.fromkeys(entry.label for entry in others)
    labels = [*_labels(plain), *(Label(name, 0, 0, starts_hidden=True) for name in names)]
    order = [label.name for label in labels]
    entries = sorted(
        [*plain, *others], key=lambda entry: (order.index(entry.label), entry.N, entry.cell.num_secrets)
    )
    return Study(entries, [cell for cell in cells if not cell.completed], labels)


def _pooled(cells: Sequence[Cell]) -> list[Cell]:
    """One for each sample; a cell whose runs are all in a larger one, too, stays one of its own."""
    samples = [sample for sample in gather(cells) if can_be_pooled(sample)]
    within = {id(cell) for sample in samples for cell in sample.cells}
    return [*map(pooled, samples), *(cell for cell in cells if id(cell) not in within)]


def differing_keys(cells: Iterable[Cell]) -> list[str]:
    """The keys in which cells of the same condition differ.

    Of those that a grid may set for each N, the ones in which cells of the same N differ.
    """
    met = defaultdict(set)
    for cell in cells:
        for key in cell.config:
            place = cell.N if key in _SET_FOR_EACH_N else None
            met[key, cell.kind, cell.condition, place].add(_text(cell.config, key))
    differing = {key for (key, *_), values in met.items() if len(values) > 1}.difference(_UNNAMED)
    return [key for key in dict.fromkeys(key for key, *_ in met) if key in differing]


def _named_by_keys(cells: Sequence[Cell]) -> list[Entry]:
    return _told_apart([Entry(name, cell) for name, cell in zip(names_by_keys(cells), cells, strict=True)])


def names_by_keys(cells: Sequence[Cell]) -> list[str]:
    """The condition of each cell, and the keys in which it departs from what most cells have."""
    usual = {
        key: _usual(key, [_text(cell.config, key) for cell in cells if key in cell.config])
        for key in differing_keys(cells)
    }
    return [" ".join([cell.condition, *_departures(cell.config, usual)]) for cell in cells]


def _named_by_size(cells: Sequence[Cell]) -> list[Entry]:
    """Each says what is trained and how many secrets there are, so that none is the name of a plain cell.

    By condition, then by what is trained, the smallest first, then by how much there is to learn.
    """
    found = [
        Entry(f"{cell.condition} {size.label} {_secrets(cell)}", cell)
        for size, group in groups_of_sizes(cells)
        for cell in sorted(group, key=lambda cell: (cell.N, cell.num_secrets))
    ]
    return sorted(_told_apart(found), key=lambda entry: _place_of(entry.cell.condition))


def groups_of_sizes(cells: Sequence[Cell]) -> Iterator[tuple[Size, list[Cell]]]:
    """The cells of each condition and size; those in blocks after the others."""
    for group in by_condition(cells).values():
        for part in (interleaved(group), [cell for cell in group if in_blocks(cell)]):
            yield from by_size(part).items()


def _secrets(cell: Cell) -> str:
    return f"num_secrets={cell.num_secrets}{' order=blocks' if in_blocks(cell) else ''}"


def _told_apart(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, with the names of their folders where cells of one N have the same label."""
    met = Counter((entry.label, entry.N) for entry in entries)
    return [
        Entry(f"{entry.label} ({entry.cell.path.name})", entry.cell)
        if met[entry.label, entry.N] > 1
        else entry
        for entry in entries
    ]


def _departures(config: Mapping[str, Any], usual: Mapping[str, str | None]) -> list[str]:
    """The keys with a value other than the usual."""
    return [
        f"{key}={_shown(key, config[key])}"
        for key, value in usual.items()
        if key in config and _text(config, key) != value
    ]


def _text(config: Mapping[str, Any], key: str) -> str:
    """The value of a key; that of a reward is written out, as a sweep over conditions writes it."""
    value = config[key]
    return REWARD_TYPES[0] if key == "reward_type" and value is None else str(value)


def _shown(key: str, value: Any) -> Any:
    """The value in a label; a model in a directory goes by the directory's own name, wherever it lies."""
    if key == "model_name" and value.startswith(("/", "./", "../", "~")):
        return value.rstrip("/").rpartition("/")[2]
    return "default" if value is None else f"{value:g}" if isinstance(value, float) else value


def _usual(key: str, values: Iterable[str]) -> str | None:
    """The value that most have, as text; of as many, the greatest rank, and of other keys none."""
    candidates = multimode(values)
    if len(candidates) > 1:
        return max(candidates, key=int) if key == _RANK else None
    return candidates[0]


def _labels(entries: Sequence[Entry]) -> list[Label]:
    """By condition; those that start switched off come last, in groups of their own.

    As long as no more than `MOST` are shown, each standard condition has its own colour in every report.
    """
    conditions = {entry.label: entry.cell.condition for entry in entries}
    ordered = sorted(conditions, key=lambda name: (_place_of(conditions[name]), len(name), _natural(name)))
    firsts = {conditions[name]: name for name in reversed(ordered)}
    crowded = len(ordered) > _CROWDED
    hidden = [
        name for name in ordered if name != firsts[conditions[name]] and (crowded or f" {_RANK}=" in name)
    ]
    shown = [name for name in ordered if name not in hidden]
    groups = [*_groups(shown, conditions), *_groups(hidden, conditions)]
    colors = {name: place for names in groups for place, name in enumerate(names)}
    if len(shown) <= MOST:
        colors |= _usual_colors(shown, conditions, Counter(entry.cell.condition for entry in entries))
    return [
        Label(name, colors[name], group, starts_hidden=name in hidden)
        for group, names in enumerate(groups)
        for name in names
    ]


def _groups(names: Sequence[str], conditions: Mapping[str, str]) -> list[list[str]]:
    """In order, at most `MOST` in a group; a condition is divided only if it has more labels than that.

    There are as few groups as that allows, and the greatest is as small: nine are not eight and one.
    """
    families = [list(family) for _, family in groupby(names, key=lambda name: conditions[name])]
    parts = [part for members in families for part in batched(members, _even(len(members)))]
    tried = [_filled(parts, most) for most in range(_even(len(names)), MOST + 1)]
    return min(tried, key=len) if tried else []


def _even(count: int) -> int:
    """How many are in each of as few groups as hold them all."""
    return -(-count // max(1, -(-count // MOST)))


def _filled(parts: Iterable[Sequence[str]], most: int) -> list[list[str]]:
    groups = list[list[str]]()
    for part in parts:
        if not groups or len(groups[-1]) + len(part) > most:
            groups.append([])
        groups[-1].extend(part)
    return groups


def batched(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Parts of this size, and the rest."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _usual_colors(
    names: Sequence[str], conditions: Mapping[str, str], cells: Mapping[str, int]
) -> dict[str, int]:
    """A place in the palette for each of a few labels.

    It is always the same for the five standard conditions; where several conditions share one, as bins do,
    the one with the most cells has it. Variants and other conditions have the next free place.
    """
    owners = dict[int, str]()
    for name in names:
        rank = _rank_of(conditions[name])
        if rank < len(_ORDER) and cells[conditions[name]] > cells[conditions.get(owners.get(rank, ""), "")]:
            owners[rank] = name
    colors = {name: rank for rank, name in owners.items()}
    free = (place % MOST for place in range(len(_ORDER), len(_ORDER) + MOST) if place % MOST not in owners)
    return colors | {name: next(free) for name in names if name not in colors}


def _rank_of(condition: str) -> int:
    first = condition.split(" ")[0]
    return _ORDER.index(first) if first in _ORDER else len(_ORDER)


def _place_of(condition: str) -> tuple[int, list[str | float]]:
    return _rank_of(condition), _natural(condition)


def _natural(text: str) -> list[str | float]:
    """Words and numbers in turn, so that B=8 comes before B=16."""
    parts = re.split(r"(\d+\.?\d*)", text)
    return [float(part) if part[:1].isdecimal() else part for part in parts]
