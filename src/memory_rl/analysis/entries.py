"""Dataclasses whose fields are the keys of a YAML mapping: the type of a field says how words are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Annotated, Any, NamedTuple, TypeVar, get_type_hints

from memory_rl.errors import ConfigError, suggest
from memory_rl.files import Json
from memory_rl.keys import Key, accept, shown
from memory_rl.limits import FACTORS, STEPS

Reader = Callable[[Any], Any]
"""Of the value of a key, which raises a ValueError unless the value will do."""

Kind = TypeVar("Kind")


class Holds(NamedTuple):
    """What a key may hold, as the annotation of a field's type.

    Attributes:
        read: makes its value out of words.
        wanted: what to type, as the end of a sentence.
    """

    read: Reader
    wanted: str


def read(kind: type[Kind], values: Json, where: str, **others: Any) -> Kind:
    """An instance of a dataclass: the values of its fields that are keys, read, and of its others.

    A key without a default must be given.

    Raises:
        ConfigError: one sentence about the first key that is unknown, missing or bad; `where` starts it.
    """
    hints = get_type_hints(kind, include_extras=True)
    keys = {name: hint.__metadata__[0] for name, hint in hints.items() if hasattr(hint, "__metadata__")}
    for name in values:
        if name not in keys:
            raise ConfigError(f"{where} has the unknown key {name}: {suggest(str(name), keys)}")
    required = {
        field.name
        for field in fields(kind)  # type: ignore[arg-type]
        if field.default is field.default_factory is MISSING
    }
    made: Json = {}
    for name, key in keys.items():
        if name in required.difference(values):
            raise ConfigError(f"{where} lacks {name}: give {key.wanted}.")
        try:
            made |= {name: key.read(values[name])} if name in values else {}
        except ValueError:
            raise ConfigError(f"{where} has {name}={shown(values[name])}: give {key.wanted}.") from None
    return kind(**made, **others)


def _need(holds: object) -> None:
    if not holds:
        raise ValueError


def a_text(value: Any) -> str:
    """A text that is not blank."""
    _need(isinstance(value, str) and value.strip())
    return str(value)


def within(least: float, most: float, kind: type[float] = float) -> Reader:
    """A number from the least to the most."""
    key = Key("number", "", kind, None, "", (least, most))
    return lambda value: accept(key, value)


def a_selection(value: Any) -> Json:
    """Keys with the values that cells must have."""
    _need(isinstance(value, dict) and value)
    return dict(value)


def an_axis(value: Any) -> Json:
    """One key with two different numbers or more."""
    _need(isinstance(value, dict) and len(value) == 1)
    (words,) = value.values()
    numbers = list_of(within(-STEPS[1], STEPS[1]), least=2)(words)
    _need(len(set(numbers)) == len(numbers))
    return dict(value)


def list_of(read: Reader, least: int = 1) -> Reader:
    """A list of at least so many of these."""

    def read_all(value: Any) -> list[Any]:
        _need(isinstance(value, list) and len(value) >= least)
        return [read(item) for item in value]

    return read_all


def or_none(read: Reader) -> Reader:
    """Null, or one of these."""
    return lambda value: None if value is None else read(value)


Text = Annotated[str, Holds(a_text, "a text")]
Margin = Annotated[float, Holds(within(1 + FACTORS[0], FACTORS[1]), "a factor above 1, such as 1.5")]
Selection = Annotated[
    Json, Holds(a_selection, "keys that select cells, such as {condition: binary, lora_rank: 8}")
]
Selections = Annotated[
    list[Json],
    Holds(list_of(a_selection), "a list of selections, such as [{condition: binary, N: [16, 64]}]"),
]
Axis = Annotated[
    dict[str, list[float]],
    Holds(an_axis, "one key with two values or more, such as {lora_rank: [1, 8, 32]}"),
]
