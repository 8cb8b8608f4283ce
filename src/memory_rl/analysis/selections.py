"""Selections of cells by their keys: {condition: binary, N: [16, 64]} means all with one of these values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any


def fits(values: Mapping[str, Any], selection: Mapping[str, Any]) -> bool:
    """Whether these keys are as a selection names them: each with its value, or one of a list of values."""
    return all(values.get(key) in _listed(wanted) for key, wanted in selection.items())


def combinations(selection: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each combination of a selection's lists: one cell that must be there."""
    for values in product(*map(_listed, selection.values())):
        yield dict(zip(selection, values, strict=True))


def name_of(selection: Mapping[str, Any]) -> str:
    """A selection in words, such as: sft, N=16, lora_rank=8."""
    return ", ".join(
        str(value) if key == "condition" else f"{key}={value}" for key, value in selection.items()
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
