"""How keys are declared, and how words or Python values become the parts that they belong to.

Words are key=value arguments, cells of a grid or entries of a YAML file. Each error is one sentence that
names the key, the value and what to type instead.
"""

from __future__ import annotations

import math
import numbers
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache, partial
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from memory_rl.errors import ConfigError, one_line, suggest
from memory_rl.files import expand

PartT = TypeVar("PartT")


@dataclass(frozen=True)
class Key:
    """One key, as it is typed.

    Attributes:
        word: what is typed.
        field: of the part's class.
        hint: its type.
        default: None may stand for a default that depends on other keys; `doc` says on which.
        doc: its meaning.
        least, most, above, below: its range.
        needs: clauses such as `backend=local,tinker`, `num_secrets>1` or `fixed_secret`, all of which must
            hold.
        path: "path" if it is one, whose `~` is then written out; "other" if it may be something else, too.
        part: the name of the part that it belongs to.
    """

    word: str
    field: str
    hint: Any
    default: Any
    doc: str
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    needs: str = ""
    path: str = ""
    part: str = ""


def key(
    default: Any, doc: str, *, word: str | None = None, needs: str = "", path: str = "", **limits: float
) -> Any:
    """A field of a part, from what its `Key` is to hold; `limits` are least, most, above and below."""
    return field(default=default, metadata={"word": word, "doc": doc, "needs": needs, "path": path, **limits})


path_key = partial(key, path="path")
"""A field that holds a path, in which `~` is written out as soon as it is read."""

name_or_path = partial(key, path="other")
"""A field that holds a name, a URL or, as far as `~` goes, a path."""


def keys_of(kind: type[Any], part: str = "") -> dict[str, Key]:
    """The keys of a part's class by their words; `part` names it in an experiment."""
    return _keys_of(kind, part)  # type: ignore[arg-type]  # classes are hashable


@cache
def _keys_of(kind: type[Any], part: str) -> dict[str, Key]:
    hints = get_type_hints(kind)
    found = {}
    for one in fields(kind):
        about = dict(one.metadata)
        word = about.pop("word") or one.name
        found[word] = Key(word, one.name, hints[one.name], one.default, part=part or kind.__name__, **about)
    return found


def name_of(given: Any) -> str:
    """A reward or learner as a manifest names it: its own text, or the name of a Python object."""
    if isinstance(given, str):
        return given
    named = given if hasattr(given, "__qualname__") else type(given)
    return f"{named.__module__}:{named.__qualname__}"


def split_words(words: Iterable[str]) -> dict[str, str]:
    """The texts of key=value arguments by key.

    Raises:
        ConfigError: about the first that does not have this form, or is given twice.
    """
    texts: dict[str, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"{word!r} is not of the form key=value: type for example N=64.")
        if name in texts:
            raise ConfigError(f"{name} is given twice ({texts[name]} and {text}): give it once.")
        texts[name] = text
    return texts


def read(keys: Mapping[str, Key], given: Mapping[str, Any], *, typed: bool) -> dict[str, Any]:
    """The values of the keys that were given, checked one by one.

    Args:
        keys: all that may be given.
        given: by word.
        typed: whether the values are Python values; else they are texts.

    Raises:
        ConfigError: about the first key that is unknown, the first value of another type or out of its range,
            or the first key that has no meaning beside the others.
    """
    for word, value in given.items():
        if word not in keys:
            raise ConfigError(f"{word}={_shown(value)} is not a known key: {suggest(word, keys)}")
    values = {word: _accept(keys[word], value, typed=typed) for word, value in given.items()}
    for word, value in given.items():
        clause = None if value is None else unmet(keys, word, values)  # None stands for not given
        if clause is not None:
            raise ConfigError(
                f"{word}={_shown(value)} belongs to {_words_of(clause)}: "
                f"{_advice(clause, given)}leave {word} out."
            )
    return values


def fill(kind: type[PartT], values: Mapping[str, Any]) -> PartT:
    """A part, from those of these values that belong to its keys."""
    return kind(**{one.field: values[word] for word, one in keys_of(kind).items() if word in values})


def make(kind: type[PartT], values: Mapping[str, Any]) -> PartT:
    """A part that belongs to no experiment, from Python values."""
    return fill(kind, read(keys_of(kind), values, typed=True))


def parse(kind: type[PartT], words: Iterable[str]) -> PartT:
    """A part that belongs to no experiment, from key=value arguments."""
    return fill(kind, read(keys_of(kind), split_words(words), typed=False))


def unmet(keys: Mapping[str, Key], word: str, given: Mapping[str, Any]) -> str | None:
    """The first clause without which a key has no meaning, and which does not hold; None if all hold."""
    return next((clause for clause in keys[word].needs.split() if not _holds(keys, clause, given)), None)


def _holds(keys: Mapping[str, Key], clause: str, given: Mapping[str, Any]) -> bool:
    name, sign, wanted = re.split("([=>]|$)", clause, maxsplit=1)
    if name not in keys:
        return True
    value = given.get(name, keys[name].default)
    if not sign:
        return value is not None
    if sign == "=":
        return str(value) in wanted.split(",")
    return not str(value).isdecimal() or int(value) > int(wanted)


def _words_of(clause: str) -> str:
    name, sign, wanted = re.split("([=>]|$)", clause, maxsplit=1)
    if sign == ">":
        return f"{name}={int(wanted) + 1} or more"
    return f"{name}={wanted.replace(',', ' or ')}" if sign else name


def _advice(clause: str, given: Mapping[str, Any]) -> str:
    wanted = _words_of(clause).split(" ")[0]
    verb = "use" if wanted.partition("=")[0] in given else "add"
    return "" if clause == "signal=reward" else f"{verb} {wanted}, or "


def members_of(hint: Any) -> list[Any]:
    """The types that a field allows, without None: those of a union one by one."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return [member for member in members if member is not types.NoneType]


_WANTED = {int: "an integer", float: "a number", bool: "True or False", str: "a text"}
_SAMPLE = {int: "64", float: "0.001", bool: "True", str: "name"}
_BOOLEANS = {
    **dict.fromkeys(("True", "true", "t", "1"), True),
    **dict.fromkeys(("False", "false", "f", "0"), False),
}


def _accept(one: Key, value: Any, *, typed: bool) -> Any:
    accepted = _of_its_type(one, value, typed=typed)
    if one.path and isinstance(accepted, str):
        return expand(accepted, one.word, url=one.path == "other")
    return accepted


def _of_its_type(one: Key, value: Any, *, typed: bool) -> Any:
    if one.hint is Any:
        return value
    if types.NoneType in get_args(one.hint) and (value is None or (not typed and value == "None")):
        return None
    for member in members_of(one.hint):
        try:
            accepted = _from_python(member, value) if typed else _from_text(member, value)
        except (ValueError, OverflowError):
            continue
        _check_range(one, accepted)
        return accepted
    raise _refusal(one, value)


def _from_text(member: Any, text: str) -> Any:
    """The text as a value of this type, or a ValueError."""
    if get_origin(member) is Literal or member is str:
        return _from_python(member, text)
    if (member is bool and text not in _BOOLEANS) or not text.isascii() or {" ", "_"} & {*text}:
        raise ValueError(text)
    return _BOOLEANS[text] if member is bool else member(text)


def _from_python(member: Any, value: Any) -> Any:
    """The value if it is of this type (numbers of NumPy too, an integer also where a float is wanted)."""
    if get_origin(member) is Literal:
        accepts = isinstance(value, str) and value in get_args(member)
    elif member in (int, float):
        kind = numbers.Integral if member is int else numbers.Real
        accepts = isinstance(value, kind) and not isinstance(value, bool)
    else:
        accepts = type(value).__name__.removesuffix("_") == member.__name__ and value != ""
    if not accepts:
        raise ValueError(value)
    return value if get_origin(member) is Literal else member(value)


def _refusal(one: Key, value: Any) -> ConfigError:
    members, given = members_of(one.hint), str(value) if isinstance(value, float) else _shown(value)
    choices = [choice for member in members if get_origin(member) is Literal for choice in get_args(member)]
    if choices:
        return ConfigError(f"{one.word}={_shown(value)} is not a choice: {suggest(str(value), choices)}")
    wanted = next(member for member in members if member in _WANTED)
    sample = one.default if wanted is str and one.default else _SAMPLE[wanted]
    wrong = f"not {_WANTED[wanted]}" if given else "empty"
    return ConfigError(f"{one.word}={given} is {wrong}: type for example {one.word}={sample}.")


def _check_range(one: Key, value: Any) -> None:
    if isinstance(value, bool | str):
        return
    low = value > one.above if one.above is not None else one.least is None or value >= one.least
    high = value < one.below if one.below is not None else one.most is None or value <= one.most
    if low and high and math.isfinite(value):
        return
    word, shown = one.word, f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, int):
        size, edge = ("large", f"{one.most} or less") if low else ("small", f"{one.least} or more")
        raise ConfigError(f"{word}={shown} is too {size}: use {word}={edge}.")
    raise ConfigError(f"{word}={shown} is not {_range_of(one)}: use for example {word}={_example(one)}.")


def _range_of(one: Key) -> str:
    start = f"({one.above:g}" if one.above is not None else f"[{one.least:g}"
    if one.below is None and one.most is None:
        return "a positive number" if one.above == 0 else f"a number of {one.least:g} or more"
    return f"in {start}, {f'{one.below:g})' if one.below is not None else f'{one.most:g}]'}"


def _example(one: Key) -> str:
    """A value that would be valid."""
    if one.default:
        return f"{one.default:g}"
    return "0.1" if one.below is not None else "60" if one.least is not None else "0.001"


def _shown(value: Any) -> str:
    """A value as a message shows it."""
    text = f"{value:g}" if isinstance(value, float) else name_of(value) if callable(value) else str(value)
    return one_line(text)
