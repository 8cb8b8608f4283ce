"""Dataclasses whose fields are the keys of a YAML mapping: the type of a field says what its key may hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Annotated, Any, NamedTuple, TypeVar, get_type_hints

from memory_rl.errors import ConfigError, suggest
from memory_rl.files import Json

Check = Callable[[Any], bool]
Kind = TypeVar("Kind")


class Holds(NamedTuple):
    """What a key may hold, as the annotation of a field's type.

    Attributes:
        admits: whether a value will do.
        wanted: what to type, as the end of a sentence.
    """

    admits: Check
    wanted: str


def read(kind: type[Kind], values: Json, where: str, **others: Any) -> Kind:
    """An instance of a dataclass: the values of its fields that are keys, and of its others.

    A key without a default must be given.

    Raises:
        ConfigError: one sentence about the first key that is unknown, missing or bad; `where` starts it.
    """
    hints = get_type_hints(kind, include_extras=True)
    keys = {name: hint.__metadata__[0] for name, hint in hints.items() if hasattr(hint, "__metadata__")}
    for name in values:
        if name not in keys:
            raise ConfigError(f"{where} has the unknown key {name}: {suggest(str(name), keys)}")
    required = {field.name for field in fields(kind) if field.default is field.default_factory is MISSING}  # type: ignore[arg-type]
    for name, key in keys.items():
        if name in values and not key.admits(values[name]):
            raise ConfigError(f"{where} has {name}={values[name]}: give {key.wanted}.")
        if name in required.difference(values):
            raise ConfigError(f"{where} lacks {name}: give {key.wanted}.")
    return kind(**values, **others)


def is_text(value: Any) -> bool:
    """A text that is not blank."""
    return isinstance(value, str) and value.strip() != ""


def is_number(value: Any) -> bool:
    """An integer or a float, and no boolean."""
    return type(value) in (int, float)


def is_integer(value: Any) -> bool:
    """An integer of 2 or more, and no boolean."""
    return type(value) is int and value >= 2


def is_selection(value: Any) -> bool:
    """Keys with the values that cells must have."""
    return isinstance(value, dict) and bool(value) and all(isinstance(name, str) for name in value)


def is_axis(value: Any) -> bool:
    """One key with two different numbers or more."""
    if not (is_selection(value) and len(value) == 1):
        return False
    (numbers,) = value.values()
    return list_of(is_number, least=2)(numbers) and len(set(numbers)) == len(numbers)


def is_above(bound: float) -> Check:
    """A number above this."""
    return lambda value: is_number(value) and value > bound


def list_of(admits: Check, least: int = 1) -> Check:
    """A list of at least so many of these."""
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(admits, value))


def or_none(admits: Check) -> Check:
    """Null, or one of these."""
    return lambda value: value is None or admits(value)


Text = Annotated[str, Holds(is_text, "a text")]
Margin = Annotated[float, Holds(is_above(1), "a factor above 1, such as 1.5")]
Selection = Annotated[
    Json, Holds(is_selection, "keys that select cells, such as {condition: binary, lora_rank: 8}")
]
Selections = Annotated[
    list[Json],
    Holds(list_of(is_selection), "a list of selections, such as [{condition: binary, N: [16, 64]}]"),
]
Axis = Annotated[
    dict[str, list[float]],
    Holds(is_axis, "one key with two values or more, such as {lora_rank: [1, 8, 32]}"),
]
