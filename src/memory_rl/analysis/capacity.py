"""How much the trained parameters hold: bits stored against bits to learn, plateau and knee; and what becomes
of old secrets while new ones are learned.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.statistics import (
    RESAMPLES,
    Estimate,
    bootstrap_mean,
    finite,
    percentiles,
    resampled_means,
)
from memory_rl.analysis.summary import last_rows
from memory_rl.config import OPERATIONAL_KEYS, SFTConfig, TrainConfig, episodes_a_block, make_config
from memory_rl.runs.store import PROMPT

SATURATED_BELOW = 0.5
"""A size is saturated if it stores less than this share of the most that it was shown to learn. Examples show
all there is, rewards do not."""

_NEITHER_SIZE_NOR_TASK = (
    *OPERATIONAL_KEYS,
    "threads",
    "data_dir",
    "seed",
    "num_runs",
    "ledger",
    "evaluate_every",
)
_OF_THE_LABEL = (
    "N",
    "num_secrets",
    "backend",
    "adapter",
    "adapter_parameters",
    "lora_targets",
    "lora_layers",
)
_OF_THE_BUDGET = ("N", "num_secrets", "max_episodes", "batch_size")
_OF_ITS_GROUPS = ("group_size", "algorithm", "baseline")
_STEPS_A_BLOCK = 8


@dataclass(frozen=True)
class Size:
    """What a run trains.

    Attributes:
        label: such as "lora rank 1", "shared n=8" or "full", and what else sets it apart.
        parameters: how many; None for the tabular learner, whose table grows with what there is to learn.
    """

    label: str
    parameters: int | None


@dataclass(frozen=True)
class Point:
    """All runs of one size that had as much to learn.

    Attributes:
        cells: they differ in their seed or number of runs alone.
        stored: (R,) bits, at the end of each run.
    """

    cells: tuple[Cell, ...]
    stored: np.ndarray

    @property
    def bits_to_learn(self) -> float:
        """M log2 N."""
        return self.cells[0].bits_to_learn

    @property
    def num_secrets(self) -> int:
        """M."""
        return self.cells[0].num_secrets

    @property
    def mean(self) -> Estimate:
        """Over runs, of the bits stored."""
        return bootstrap_mean(self.stored)


@dataclass(frozen=True)
class Capacity:
    """The most that a size was seen to store.

    Attributes:
        size: with a fixed number of parameters.
        points: by bits to learn.
        saturated: whether it stores less than half of the most that examples showed it. If not, `bits` is a
            lower bound of what it could hold. What reinforcement stored is always one: its runs get stuck for
            other reasons than their size.
        bits: the mean over runs where it is greatest; its interval is a bootstrap over runs in which that
            place is chosen anew each time.
    """

    size: Size
    points: tuple[Point, ...]
    saturated: bool
    bits: Estimate

    @property
    def at(self) -> Point:
        """Where the mean is greatest."""
        return max(self.points, key=lambda point: float(point.stored.mean()))

    @property
    def per_parameter(self) -> Estimate:
        """Bits per trained parameter."""
        return _divided(self.bits, float(self.size.parameters or 1))

    @property
    def knee(self) -> Estimate:
        """The secrets at which the line of perfect storage meets the plateau: as many as the capacity holds,
        of log2 N bits each.
        """
        return _divided(self.bits, float(np.log2(self.points[0].cells[0].N)))


def is_of_capacity(cell: Cell) -> bool:
    """Whether it asks for several secrets, or trains something else than LoRA adapters."""
    return cell.num_secrets > 1 or cell.config.get("adapter", "lora") != "lora"


def comparable(cells: Sequence[Cell]) -> list[Cell]:
    """The completed cells with the condition, N and model of one that is of capacity; none if no cell is."""
    wanted = {_task(cell) for cell in cells if is_of_capacity(cell)}
    return [cell for cell in cells if cell.completed and _task(cell) in wanted]


def interleaved(cells: Iterable[Cell]) -> list[Cell]:
    """Those that learn all their secrets at the same time."""
    return [cell for cell in cells if not in_blocks(cell)]


def in_blocks(cell: Cell) -> bool:
    """Whether it learns one secret after the other."""
    return cell.num_secrets > 1 and cell.config.get("order") == "blocks"


def by_condition(cells: Iterable[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """Cells of the same command and condition, in the order in which they come."""
    groups = defaultdict(list)
    for cell in cells:
        groups[cell.kind, cell.condition].append(cell)
    return dict(groups)


def by_size(cells: Sequence[Cell]) -> dict[Size, list[Cell]]:
    """The cells of one condition by what they train, the smallest first.

    Keys in which cells of the same size and the same secrets differ are part of the label. Learning rate and
    budget may depend on size and secrets, and are no part of it then.
    """
    sizes = dict(zip(map(id, cells), _sizes(cells), strict=True))
    groups = defaultdict(list)
    for cell in cells:
        groups[sizes[id(cell)]].append(cell)
    return {
        size: groups[size] for size in sorted(groups, key=lambda size: (size.parameters or 0, size.label))
    }


def stored(cell: Cell) -> np.ndarray:
    """Bits known at the last evaluation of each run, summed over its secrets: (R,)."""
    return last_rows(cell.metrics)["bits_known"].to_numpy()


def late_gain(cell: Cell) -> float:
    """How much of that came in the last tenth of each run, on average; much of it means that the runs had not
    converged.
    """
    earlier = cell.metrics.filter(pl.col("episode") <= 0.9 * pl.col("episode").max().over("run"))
    return float((stored(cell) - last_rows(earlier)["bits_known"].to_numpy()).mean())


def points(cells: Sequence[Cell]) -> list[Point]:
    """The cells of one size by what they had to learn, the least first; cells that had as much are one
    population.
    """
    groups = defaultdict(list)
    for cell in cells:
        groups[cell.bits_to_learn].append(cell)
    return [
        Point(tuple(group), np.concatenate([stored(cell) for cell in group]))
        for _, group in sorted(groups.items())
    ]


def capacities(cells: Sequence[Cell]) -> list[Capacity]:
    """What each size holds, the smallest first.

    The greatest of several means is a little above the true one on average, the more so the fewer runs there
    are and the flatter the plateau is.

    Args:
        cells: of one condition. Those that learn one secret after the other are left out, and so are tables,
            which grow with what there is to learn.
    """
    return [
        _capacity(size, points(group))
        for size, group in by_size(interleaved(cells)).items()
        if size.parameters is not None
    ]


def _capacity(size: Size, of_size: Sequence[Point]) -> Capacity:
    most, least_runs = of_size[-1], min(len(point.stored) for point in of_size)
    saturated = (
        most.cells[0].kind == "sft" and float(most.stored.mean()) < SATURATED_BELOW * most.bits_to_learn
    )
    greatest = max(float(point.stored.mean()) for point in of_size)
    if least_runs == 1:
        return Capacity(size, tuple(of_size), saturated, Estimate(greatest, None, None))
    # Points of as many runs share their resamples; shifted against each other they are independent.
    drawn = [np.roll(resampled_means(point.stored, RESAMPLES), shift) for shift, point in enumerate(of_size)]
    low, high = percentiles(np.max(drawn, axis=0), least_runs)
    return Capacity(size, tuple(of_size), saturated, Estimate(greatest, finite(low), finite(high)))


@dataclass(frozen=True)
class Interference:
    """What is known of a secret while others are learned.

    Attributes:
        blocks: (X,) since the block of the secret began, from 0; from 1 on the turn is another's.
        known: (R, X) bits, averaged over the same secrets of each run at each X.
        secrets: over how many.
    """

    blocks: np.ndarray
    known: np.ndarray
    secrets: int


def interference(cell: Cell) -> Interference:
    """Bits known of a secret against the blocks since its own began, of a cell with order=blocks.

    The first half of the secrets is averaged over, up to as far as the last of them goes: with a set that
    changed on the way the mean would jump. A run that has ended keeps what it knew.
    """
    half = (cell.num_secrets + 1) // 2
    blocks = np.arange(_STEPS_A_BLOCK * (cell.num_secrets - half + 1) + 1) / _STEPS_A_BLOCK
    wanted = (np.arange(half)[:, None] + blocks) * block_length(cell)  # (M / 2, X) episodes
    early = cell.of_secrets.filter(pl.col(PROMPT) < half).sort("run", "episode")
    known = np.stack(
        [_at(run, wanted) for _, run in early.group_by("run", maintain_order=True)]
    )  # (R, M / 2, X)
    return Interference(blocks, known.mean(axis=1), half)


def block_length(cell: Cell) -> int:
    """Episodes of a block."""
    if cell.kind == "sft":
        return episodes_a_block(make_config(SFTConfig, _given(cell, _OF_THE_BUDGET)))
    return episodes_a_block(make_config(TrainConfig, _given(cell, (*_OF_THE_BUDGET, *_OF_ITS_GROUPS))))


def _given(cell: Cell, keys: Iterable[str]) -> dict[str, Any]:
    return {key: cell.config[key] for key in keys if key in cell.config}


def _at(frame: pl.DataFrame, wanted: np.ndarray) -> np.ndarray:
    """The latest bits known of each secret (M, X) at these episodes (M, X), from the rows of one run."""
    rows = []
    for (_, secret), episodes in zip(
        frame.sort(PROMPT, "episode").group_by(PROMPT, maintain_order=True), wanted, strict=True
    ):
        latest = np.searchsorted(secret["episode"].to_numpy(), episodes, side="right") - 1
        rows.append(secret["bits_known"].to_numpy()[latest])
    return np.stack(rows)


def _divided(estimate: Estimate, number: float) -> Estimate:
    value, low, high = (
        None if part is None else part / number for part in (estimate.value, estimate.low, estimate.high)
    )
    return Estimate(value, low, high)


def _task(cell: Cell) -> tuple[Any, ...]:
    return cell.kind, cell.condition, cell.N, cell.config.get("backend"), cell.config.get("model_name")


def _sizes(cells: Sequence[Cell]) -> list[Size]:
    """Of each cell."""
    labels = [_adapter_of(cell.config) for cell in cells]
    differing = _differing(cells, labels)
    labels = [
        " ".join([label, *_named(cell.config, differing[label])])
        for label, cell in zip(labels, cells, strict=True)
    ]
    if len({cell.N for cell in cells}) > 1:
        labels = [f"{label} N={cell.N}" for label, cell in zip(labels, cells, strict=True)]
    numbers = [
        None if cell.config.get("backend") == "tabular" else cell.summary.get("trained_parameters")
        for cell in cells
    ]
    met = Counter(label for label, _ in dict.fromkeys(zip(labels, numbers, strict=True)))
    return [
        Size(f"{label} ({number} parameters)" if met[label] > 1 else label, number)
        for label, number in zip(labels, numbers, strict=True)
    ]


def _adapter_of(config: dict[str, Any]) -> str:
    kind = config.get("adapter", "lora")
    if config.get("backend") == "tabular":
        return "table"
    if kind == "full":
        return "full"
    parts = [
        f"lora rank {config['lora_rank']}" if kind == "lora" else f"shared n={config['adapter_parameters']}"
    ]
    if config.get("lora_targets", "all") != "all":
        parts.append(str(config["lora_targets"]))
    if config.get("lora_layers") is not None:
        parts.append(f"layers {config['lora_layers']}")
    return " ".join(parts)


def _differing(cells: Sequence[Cell], labels: Sequence[str]) -> dict[str, list[str]]:
    """By label, the keys in which cells with the same secrets differ."""
    groups, found = defaultdict(list), defaultdict[str, list[str]](list)
    for label, cell in zip(labels, cells, strict=True):
        groups[label, cell.N, cell.num_secrets].append(cell.config)
    for (label, _, _), configs in groups.items():
        keys = [
            key
            for key in configs[0]
            if key not in (*_NEITHER_SIZE_NOR_TASK, *_OF_THE_LABEL)
            and (key != "lora_rank" or not label.startswith("lora"))
        ]
        found[label] += [
            key
            for key in keys
            if key not in found[label] and len({str(config.get(key)) for config in configs}) > 1
        ]
    return found


def _named(config: dict[str, Any], keys: Iterable[str]) -> list[str]:
    return [f"{key}={'default' if config.get(key) is None else config[key]}" for key in keys]
