"""Which cells are measured by default and tuned, and seeds of their own for all that is reported."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace

from memory_rl.analysis.protocol import Protocol
from memory_rl.catalogue import KEEP
from memory_rl.errors import ConfigError
from memory_rl.experiments.grid import GridCell
from memory_rl.experiments.halving import Halving
from memory_rl.experiments.settings import Tuning, cell_keys

_SEED_BITS = 48  # a seed that every reader of JSON keeps whole, and the chance that two meet is nil


def plan_roles(
    cells: Sequence[GridCell], tuning: Tuning | Halving | None, protocol: Protocol | None
) -> list[GridCell]:
    """The cells to report, as a protocol asks for with `beside` and `seeds`.

    Raises:
        ConfigError: if it asks for what has no meaning.
    """
    if tuning is None and not all(cell.tuned for cell in cells):
        raise ConfigError("tune: false has no meaning in a grid without tuning: leave it out, or add tune.")
    if protocol is None:
        return [*cells]
    if protocol.beside and (tuning is None or not protocol.seeds):
        wanted = "tune" if tuning is None else "seeds: independent"
        raise ConfigError(
            f"beside=default of the protocol {protocol.name} has no meaning without {wanted}: "
            f"add {wanted}, or leave beside out."
        )
    if protocol.beside:
        cells = with_default(cells)
    return with_seeds(cells, _seeds_of(tuning)) if protocol.seeds else [*cells]


def _seeds_of(tuning: Tuning | Halving | None) -> Container[int]:
    return () if tuning is None else (tuning.seed,) if isinstance(tuning, Tuning) else tuning.seeds


def with_default(cells: Iterable[GridCell]) -> list[GridCell]:
    """Each tuned cell twice, as the best and as the default; one that is not tuned is a default.

    One that is there both tuned and not is the former, whose default is measured anyway.
    """
    found: dict[tuple[str, str], GridCell] = {}
    for cell in cells:
        if cell.tuned:
            found[cell.id, "best"] = cell.with_values(role="best")
        found[cell.id, "default"] = replace(cell.with_values(role="default"), tuned=False)
    return [*found.values()]


def with_seeds(cells: Sequence[GridCell], taken: Container[int] = ()) -> list[GridCell]:
    """The cells, each with a seed that follows from what it measures and its role.

    Args:
        cells: with their seeds as written, which count among what they measure.
        taken: seeds that none may get.
    """
    return [cell.with_values(seed=_seed(cell, taken)) for cell in cells]


def _seed(cell: GridCell, taken: Container[int]) -> int:
    return next(seed for seed in _seeds(cell) if seed not in taken)


def _seeds(cell: GridCell) -> Iterator[int]:
    """What may be its seed, in order; keys at their defaults do not matter, so that new ones may come."""
    keys, values = cell_keys(), cell.values
    apart = {
        word: values[word]
        for word, one in keys.items()
        if word not in KEEP and word in values and values[word] != one.default
    }
    content = json.dumps([cell.command, values.get("role"), cell.tuned, apart], sort_keys=True)
    for number in itertools.count():
        digest = hashlib.sha256(f"{content} {number}".encode()).digest()
        yield int.from_bytes(digest[: _SEED_BITS // 8], "big")
