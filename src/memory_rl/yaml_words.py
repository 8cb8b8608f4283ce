"""YAML files as words: every value is a text, as on the command line, and the key that it is for reads it.

So 3e-1, "0.3" and 0.3 are one number, 010 is ten and `no` is a word, whichever version of YAML disagrees.
"""

from __future__ import annotations

import re
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from memory_rl.errors import ConfigError

MAX_BYTES = 2**20
"""Of a file. The shipped protocols have 10,000."""

MAX_VALUES = 2**17
"""In a file, each alias counted as all that it stands for."""

_NO_TEXT = re.compile(r"[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_NULL = ("", "~", "null", "Null", "NULL")


def bytes_of(path: Path | Traversable, where: str, advice: str = "give the path of a YAML file.") -> bytes:
    """The bytes of a file that is to hold YAML.

    Args:
        path: of the file.
        where: the argument that names it, with which errors start.
        advice: with which they end.

    Raises:
        ConfigError: if it cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # a ValueError of a path that no file can have
        reason = getattr(error, "strerror", error)
        raise ConfigError(f"{where} cannot be read ({reason}): {advice}") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{where} is larger than {MAX_BYTES // 2**20} MiB: {advice}")
    return content


def words_of(content: bytes, where: str) -> Any:
    """What YAML holds: lists, mappings with texts as keys, texts, and None where it says null.

    Args:
        content: in UTF-8.
        where: it is from, with which errors start.

    Raises:
        ConfigError: if it is not YAML, or not YAML that can stand for words.
    """
    try:
        node = yaml.compose(content.decode("utf-8-sig"), Loader=yaml.BaseLoader)
        return None if node is None else _value(node, [MAX_VALUES])
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is not a text in UTF-8 ({error.reason}): save it as UTF-8.") from error
    except RecursionError:
        raise ConfigError(f"{where} is nested too deeply: take out some of its brackets.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{where} is not valid YAML ({_reason(error)}): fix it there.") from error


def _value(node: yaml.Node, left: list[int]) -> Any:
    """The value of a node, while no more than this number of values are left to be made."""
    left[0] -= 1
    if left[0] < 0:
        raise yaml.MarkedYAMLError(problem=f"more than {MAX_VALUES} values")
    if node.tag.removeprefix("tag:yaml.org,2002:") not in ("str", "seq", "map"):
        raise yaml.MarkedYAMLError(problem=f"the tag {node.tag}", problem_mark=node.start_mark)
    if isinstance(node, yaml.ScalarNode):
        if _NO_TEXT.search(node.value):
            raise yaml.MarkedYAMLError(problem="a control character", problem_mark=node.start_mark)
        return None if node.style is None and node.value in _NULL else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_value(one, left) for one in node.value]
    values: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key that is no word", problem_mark=key.start_mark)
        if key.value in values:
            raise yaml.MarkedYAMLError(problem=f"{key.value} is there twice", problem_mark=key.start_mark)
        values[key.value] = _value(value, left)
    merged = values.get("<<")
    if not isinstance(merged, dict):
        return values
    return merged | {key: value for key, value in values.items() if key != "<<"}


def _reason(error: Exception) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    reason = " ".join(str(problem or error).split())
    return reason if mark is None else f"line {mark.line + 1}: {reason}"
