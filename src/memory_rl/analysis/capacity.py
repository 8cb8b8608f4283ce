"""How much the trained parameters hold, and what becomes of old secrets while new ones are learned.

Capacity is read off bits stored against bits to learn: a plateau, and the knee before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import polars as pl

from memory_rl.analysis.collect import Cell, last_rows
from memory_rl.analysis.samples import Sample, counted_once
from memory_rl.analysis.statistics import Estimate, independent_means
from memory_rl.catalogue import KEEP
from memory_rl.experiment import old_experiment
from memory_rl.files import Json
from memory_rl.runs.columns import PROMPT

SATURATED_BELOW = 0.5
"""A size is saturated if it stores less than this share of the most that examples showed it.

Examples show all there is to learn; rewards do not.
"""

_UNNAMED = KEEP | {
    *("seed", "num_runs", "ledger", "evaluate_every"),
    *("N", "num_secrets", "backend", "adapter", "adapter_parameters", "lora_targets", "lora_layers"),
}
"""Keys that are not added to the label of a size: they say neither size nor task, or are in it anyway."""

_STEPS_A_BLOCK = 8

Group = TypeVar("Group", bound=Hashable)
Item = TypeVar("Item")


@dataclass(frozen=True)
class Size:
    """What a run trains.

    Attributes:
        label: such as "lora_rank=1", "adapter_parameters=8" or "adapter=full", and what else sets it apart.
        parameters: how many; None for the tabular learner, whose table grows with what there is to learn.
    """

    label: str
    parameters: int | None


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
    points: tuple[Sample, ...]
    saturated: bool
    bits: Estimate

    @property
    def at(self) -> Sample:
        """Where the mean is greatest."""
        return max(self.points, key=lambda point: point.stored.mean())

    @property
    def per_parameter(self) -> Estimate:
        """Bits per trained parameter."""
        return self.bits.divided_by(self.size.parameters or 1)

    @property
    def knee(self) -> Estimate:
        """The number of secrets at which the line of perfect storage meets the plateau.

        As many as the capacity holds, of log2 N bits each.
        """
        return self.bits.divided_by(float(np.log2(self.points[0].first.N)))


def is_of_capacity(cell: Cell) -> bool:
    """Whether it asks for several secrets, or trains something other than LoRA adapters."""
    return cell.num_secrets > 1 or cell.settings.get("adapter", "lora") != "lora"


def comparable(cells: Sequence[Cell]) -> list[Cell]:
    """The completed cells with the condition, N and model of one that is of capacity; none if no cell is."""
    wanted = {_task(cell) for cell in cells if is_of_capacity(cell)}
    return [cell for cell in cells if cell.completed and _task(cell) in wanted]


def interleaved(cells: Iterable[Cell]) -> list[Cell]:
    """Those that learn all their secrets at the same time."""
    return [cell for cell in cells if not in_blocks(cell)]


def in_blocks(cell: Cell) -> bool:
    """Whether it learns one secret after the other."""
    return cell.num_secrets > 1 and cell.settings.get("order") == "blocks"


def by_condition(cells: Iterable[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """Cells of the same command and condition, in the order in which they come."""
    return _grouped(((cell.kind, cell.condition), cell) for cell in cells)


def _grouped(pairs: Iterable[tuple[Group, Item]]) -> dict[Group, list[Item]]:
    groups: dict[Group, list[Item]] = {}
    for label, item in pairs:
        groups.setdefault(label, []).append(item)
    return groups


def by_size(cells: Sequence[Cell]) -> dict[Size, list[Cell]]:
    """The cells of one condition by what they train, the smallest first.

    Keys in which cells of the same size and the same secrets differ are part of the label. Learning rate and
    budget may depend on size and secrets, and are not part of it then.
    """
    groups = _grouped(zip(_sizes(cells), cells, strict=True))
    return dict(sorted(groups.items(), key=lambda item: (item[0].parameters or 0, item[0].label)))


def late_gain(cell: Cell) -> float:
    """How many of the bits stored came in the last tenth of each run, on average.

    Many mean that the runs had not converged.
    """
    earlier = cell.metrics.filter(pl.col("episode") <= 0.9 * pl.col("episode").max().over("run"))
    return float((cell.stored - last_rows(earlier)["bits_known"].to_numpy()).mean())


def points(cells: Sequence[Cell]) -> list[Sample]:
    """The cells of one size by what they had to learn, the least first; cells that had as much are one."""
    groups = _grouped((cell.bits_to_learn, cell) for cell in cells)
    return [Sample(counted_once(group)) for _, group in sorted(groups.items())]


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


def _capacity(size: Size, of_size: Sequence[Sample]) -> Capacity:
    samples, most = [point.stored for point in of_size], of_size[-1]
    means = [float(sample.mean()) for sample in samples]
    saturated = most.first.kind == "sft" and means[-1] < SATURATED_BELOW * most.first.bits_to_learn
    drawn = np.max(independent_means(samples), axis=0)
    return Capacity(
        size, tuple(of_size), saturated, Estimate.from_bootstrap(max(means), drawn, min(map(len, samples)))
    )


@dataclass(frozen=True)
class Interference:
    """What is known of a secret while others are learned.

    Attributes:
        blocks: (X,) since the block of the secret started, from 0; from 1 on other secrets are learned.
        known: (R, X) bits, averaged over the same secrets of each run at each X.
        secrets: over how many.
    """

    blocks: np.ndarray
    known: np.ndarray
    secrets: int


def interference(cell: Cell) -> Interference:
    """Bits known of a secret against the blocks since its own started, of a cell with order=blocks.

    The first half of the secrets is averaged over, up to as far as the last of them goes: with a set that
    changed on the way the mean would jump. A run that has ended keeps what it knew.
    """
    half = (cell.num_secrets + 1) // 2
    blocks = np.arange(_STEPS_A_BLOCK * (cell.num_secrets - half + 1) + 1) / _STEPS_A_BLOCK
    rows = cell.of_secrets.filter(pl.col(PROMPT) < half).with_columns(pl.col("episode").cast(pl.Float64))
    wanted = (
        rows.select("run", PROMPT)
        .unique()
        .join(pl.DataFrame({"blocks": blocks}), how="cross")
        .with_columns(episode=(pl.col(PROMPT) + pl.col("blocks")) * block_length(cell))
    )
    latest = wanted.sort("episode").join_asof(
        rows.sort("episode"), on="episode", by=["run", PROMPT], check_sortedness=False
    )
    known = latest.sort("run", PROMPT, "blocks")["bits_known"].to_numpy().reshape(-1, half, len(blocks))
    return Interference(blocks, known.mean(axis=1), half)


def block_length(cell: Cell) -> int:
    """Episodes of a block."""
    return old_experiment(cell.manifest).episodes_a_block


def _task(cell: Cell) -> tuple[Any, ...]:
    return cell.kind, cell.condition, cell.N, *map(cell.settings.get, ("backend", "model_name"))


def _sizes(cells: Sequence[Cell]) -> list[Size]:
    """Of each cell."""
    labels = _labels(cells)
    numbers = [
        None if cell.settings.get("backend") == "tabular" else cell.summary.get("trained_parameters")
        for cell in cells
    ]
    met = Counter(label for label, _ in {*zip(labels, numbers, strict=True)})
    return [
        Size(f"{label} ({number} parameters)" if met[label] > 1 else label, number)
        for label, number in zip(labels, numbers, strict=True)
    ]


def _labels(cells: Sequence[Cell]) -> list[str]:
    """What each cell trains, with keys in which cells of the same secrets differ and it is unlike most."""
    trained, sizes = [_trained(cell.settings) for cell in cells], {cell.N for cell in cells}
    differing: dict[str, list[str]] = {label: [] for label in trained}
    groups = _grouped(
        ((label, cell.N, cell.num_secrets), cell.config) for label, cell in zip(trained, cells, strict=True)
    )
    for (label, _, _), configs in groups.items():
        differing[label] += [
            key
            for key in dict.fromkeys(chain.from_iterable(configs))
            if key not in _UNNAMED.union(differing[label])
            and len({str(config.get(key)) for config in configs}) > 1
        ]
    usual = {
        (label, key): _of_most(
            cell.settings.get(key) for other, cell in zip(trained, cells, strict=True) if other == label
        )
        for label, keys in differing.items()
        for key in keys
    }
    return [
        " ".join(
            [label]
            + [
                f"{key}={cell.settings.get(key, 'default')}"
                for key in differing[label]
                if str(cell.settings.get(key)) != usual[label, key]
            ]
            + [f"N={cell.N}"] * (len(sizes) > 1)
        )
        for label, cell in zip(trained, cells, strict=True)
    ]


def _of_most(values: Iterable[Any]) -> str | None:
    """The value that more than half of them have, if there is one."""
    texts = [str(value) for value in values]
    value, count = Counter(texts).most_common(1)[0]
    return value if 2 * count > len(texts) else None


def _trained(settings: Json) -> str:
    if settings.get("backend") == "tabular":
        return "backend=tabular"
    adapter, layers = settings.get("adapter", "lora"), settings.get("lora_layers")
    targets = settings.get("lora_targets", "all")
    names = {
        "lora": f"lora_rank={settings.get('lora_rank')}",
        "shared": f"adapter_parameters={settings.get('adapter_parameters')}",
        "full": "adapter=full",
    }
    where = [f"lora_targets={targets}"] * (targets != "all") + [f"lora_layers={layers}"] * (
        layers is not None
    )
    return " ".join([names[adapter], *where])
