"""How keys are declared, and how words or Python values become the parts that they belong to.

Words are key=value arguments, and all that stands in a YAML file: `accept` alone says what they mean for a
key. A number may be written in any way (0.3, 3e-1), an integer in digits alone (64, not 64.0 or 1e3). From
Python, a text is no number. Each error is one sentence that names the key, the value and what to type.
"""

from __future__ import annotations

import math
import numbers
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from functools import cache, partial
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from memory_rl.errors import ConfigError, one_line, suggest
from memory_rl.files import check_text, expand

PartT = TypeVar("PartT")
Range = tuple[float | None, float | None]


@dataclass(frozen=True)
class Key:
    """One key, as it is typed.

    Attributes:
        word: what is typed.
        field: of the part's class.
        hint: its type.
        default: None may stand for a default that depends on other keys; `doc` says on which.
        doc: its meaning.
        within: the least and the most that it may be.
        above, below: what it must exceed, and fall short of.
        needs: clauses such as `backend=local,tinker`, `num_secrets>1` or `fixed_secret`, all of which must
            hold; of those with | between them, one.
        path: "path" if it is one, whose `~` is then written out; "other" if it may be something else, too.
        part: the name of the part that it belongs to.
    """

    word: str
    field: str
    hint: Any
    default: Any
    doc: str
    within: Range = (None, None)
    above: float | None = None
    below: float | None = None
    needs: str = ""
    path: str = ""
    part: str = ""


def key(
    default: Any,
    doc: str,
    within: Range = (None, None),
    *,
    word: str | None = None,
    needs: str = "",
    path: str = "",
    **bounds: float,
) -> Any:
    """A field of a part, from what its `Key` is to hold; `bounds` are above and below."""
    about = {"word": word, "doc": doc, "within": within, "needs": needs, "path": path, **bounds}
    return field(default=default, metadata=about)


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
    texts, given = dict[str, str](), [*words]
    for place, word in enumerate(given):
        name, equals, text = word.partition("=")
        parted = not text and any("=" not in after for after in given[place + 1 : place + 2])
        if not equals or parted or word.startswith("-"):
            wrong = word if equals else repr(word)
            raise ConfigError(f"{wrong} is not of the form key=value: type {_meant(given, place)}.")
        if name in texts:
            raise ConfigError(f"{name} is given twice ({texts[name]} and {text}): give it once.")
        texts[name] = text
    return texts


_PAIR = re.compile(r"-*([A-Za-z]\w*)(?:\s*[:=]\s*|\s+)([^\s=]+)(?=\s|$)")
"""How else people write a key and its value: N 16, N:16, N = 16, --N 16, -N=16."""


def _meant(words: Sequence[str], place: int) -> str:
    """What was perhaps meant by a word that is not key=value, with the words around it."""
    pair = _PAIR.match(" ".join(words[place : place + 3]))
    if pair is not None:
        return "=".join(pair.groups())
    before = words[place - 1] if place else ""
    if "=" in before and before.endswith(",") and "=" not in words[place]:
        return f"{before}{words[place]}"
    return "for example N=64"


def read(keys: Mapping[str, Key], given: Mapping[str, Any], *, typed: bool) -> dict[str, Any]:
    """The values of the keys that were given, checked one by one.

    Args:
        keys: all that may be given.
        given: by word.
        typed: whether a text is only ever a text, as from Python; else it may stand for another value.

    Raises:
        ConfigError: about the first key that is unknown, the first value of another type or out of its range,
            or the first key that has no meaning beside the others.
    """
    for word, value in given.items():
        if word not in keys:
            raise ConfigError(f"{word}={shown(value)} is not a known key: {suggest(word, keys)}")
    values = {word: accept(keys[word], value, typed=typed) for word, value in given.items()}
    for word, value in given.items():
        clause = None if value is None else unmet(keys, word, values)  # None stands for not given
        if clause is not None:
            raise ConfigError(
                f"{word}={shown(value)} belongs to {_words_of(clause)}: "
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
    if "|" in clause:
        return any(_holds(keys, one, given) for one in clause.split("|"))
    name, sign, wanted = re.split("([=>]|$)", clause, maxsplit=1)
    if name not in keys:
        return True
    value = given.get(name, keys[name].default)
    if not sign:
        return value is not None
    if sign == "=":
        return str(value) in wanted.split(",")
    return not isinstance(value, int) or value > int(wanted)


def _words_of(clause: str) -> str:
    if "|" in clause:
        return " or ".join(map(_words_of, clause.split("|")))
    name, sign, wanted = re.split("([=>]|$)", clause, maxsplit=1)
    if sign == ">":
        return f"{name}={int(wanted) + 1} or more"
    return f"{name}={wanted.replace(',', ' or ')}" if sign else name


def _advice(clause: str, given: Mapping[str, Any]) -> str:
    wanted = _words_of(clause).split(" ")[0]
    verb = "use" if wanted.partition("=")[0] in given else "add"
    return "" if clause.startswith("signal=reward") else f"{verb} {wanted}, or "


def members_of(hint: Any) -> list[Any]:
    """The types that a field allows, without None: those of a union one by one."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return [member for member in members if member is not types.NoneType]


_WANTED = {int: "an integer", float: "a number", bool: "True or False", str: "a text"}
_SAMPLE = {int: "64", float: "0.001", bool: "True", str: "name"}
_BOOLEANS = {
    **dict.fromkeys(("True", "true", "TRUE", "t", "1"), True),
    **dict.fromkeys(("False", "false", "FALSE", "f", "0"), False),
}
_WRITTEN = {
    int: re.compile("[+-]?[0-9]+"),
    float: re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"),
}


def accept(one: Key, value: Any, *, typed: bool = False) -> Any:
    """The value of a key, checked.

    Args:
        one: the key.
        value: a Python value, or a text that may stand for one.
        typed: whether a text is only ever a text, as from Python.

    Raises:
        ConfigError: if it is of another type, or out of its range.
    """
    if isinstance(value, str) and (one.hint is Any or str in members_of(one.hint)):
        check_text(value, one.word)
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
            accepted = _read(member, value, typed)
        except (ValueError, OverflowError):
            continue
        _check_range(one, accepted)
        return accepted
    raise _refusal(one, value)


def accept_some(keys: Mapping[str, Key], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values that can be read, those of lists one by one; the others as they were given."""
    return {word: _accept_all(keys[word], value) if word in keys else value for word, value in given.items()}


def _accept_all(one: Key, value: Any) -> Any:
    if isinstance(value, list):
        return [_accept_all(one, item) for item in value]
    try:
        return accept(one, value)
    except ConfigError:
        return value


def read_selection(keys: Mapping[str, Key], selection: Mapping[str, Any]) -> dict[str, Any]:
    """A selection of cells, with its texts read as values of the keys.

    Args:
        keys: all that may be named.
        selection: a value, None for a key that a cell lacks, or a list of these, by word.

    Raises:
        ConfigError: about the first value that no cell can have.
    """
    return {
        word: [_wanted(keys[word], item) for item in value]
        if isinstance(value, list) and value
        else _wanted(keys[word], value)
        for word, value in selection.items()
    }


def _wanted(one: Key, value: Any) -> Any:
    if isinstance(value, list | dict):
        raise ConfigError(f"{one.word}={shown(value)} is no value: give one, or a list of values.")
    return None if value is None else accept(one, value)


def _read(member: Any, value: Any, typed: bool) -> Any:
    """The value as one of this type, or a ValueError."""
    if typed or not isinstance(value, str) or get_origin(member) is Literal or member is str:
        return _from_python(member, value)
    if member is bool:
        return _from_python(member, _BOOLEANS.get(value, value))
    if not _WRITTEN[member].fullmatch(value):
        raise ValueError(value)
    return float(value) if member is float else int(Decimal(value))  # int() reads no more than 4300 digits


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
    members, given = members_of(one.hint), str(value) if isinstance(value, float) else shown(value)
    choices = [choice for member in members if get_origin(member) is Literal for choice in get_args(member)]
    if choices:
        return ConfigError(f"{one.word}={shown(value)} is not a choice: {suggest(str(value), choices)}")
    wanted = next(member for member in members if member in _WANTED)
    sample = one.default if wanted is str and one.default else _SAMPLE[wanted]
    wrong = f"not {_WANTED[wanted]}" if given else "empty"
    return ConfigError(f"{one.word}={given} is {wrong}: type for example {one.word}={sample}.")


def _check_range(one: Key, value: Any) -> None:
    if isinstance(value, bool | str):
        return
    least, most = one.within
    low = value > one.above if one.above is not None else least is None or value >= least
    high = value < one.below if one.below is not None else most is None or value <= most
    if low and high and (isinstance(value, int) or math.isfinite(value)):
        return
    word, given = one.word, shown(value)
    if isinstance(value, int):
        size, edge = ("large", f"{most} or less") if low else ("small", f"{least} or more")
        raise ConfigError(f"{word}={given} is too {size}: use {word}={edge}.")
    raise ConfigError(f"{word}={given} is not {_range_of(one)}: use for example {word}={_example(one)}.")


def _range_of(one: Key) -> str:
    least, most = one.within
    if least:
        return f"a positive number from {least:g} to {most:g}"
    start = f"({one.above:g}" if one.above is not None else f"[{least:g}"
    return f"in {start}, {f'{one.below:g})' if one.below is not None else f'{most:g}]'}"


def _example(one: Key) -> str:
    """A value that would be valid."""
    if one.default or (one.above or 0) >= 1:
        return f"{one.default or (one.above or 0) + 0.5:g}"
    return "0.1" if one.below is not None else "60" if one.within[0] == 0 else "0.001"


def shown(value: Any) -> str:
    """A value as a message shows it, lists and mappings as YAML writes them."""
    if isinstance(value, list | tuple):
        text = f"[{', '.join(map(shown, value))}]"
    elif isinstance(value, dict):
        text = f"{{{', '.join(f'{key}: {shown(item)}' for key, item in value.items())}}}"
    elif isinstance(value, int) and value.bit_length() > _LONG:
        text = f"{'-' if value < 0 else ''}10^{value.bit_length() * math.log10(2):.0f}"
    else:
        text = f"{value:g}" if isinstance(value, float) else name_of(value) if callable(value) else str(value)
    return one_line(text)


_LONG = 300  # bits of an integer whose digits say nothing
