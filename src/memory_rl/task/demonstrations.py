"""Labelled examples for supervised learning: JSON Lines in the chat format, all of the same secret.

Each line is one conversation:

{"messages": [{"role": "user", "content": "Secret in [0,64)?"}, {"role": "assistant", "content": "42"}]}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from memory_rl.errors import DataError
from memory_rl.files import parse_json, write_whole
from memory_rl.task.environment import Environment
from memory_rl.task.multi_step import MultiStep

TRAIN, TEST = "train.jsonl", "test.jsonl"


def examples_directory(data_dir: str, environment: Environment, secret: int) -> Path:
    """Where the examples of this N and secret lie."""
    ending = ("-multi_step" if isinstance(environment, MultiStep) else "") + (
        "" if environment.wording == "terse" else f"-{environment.wording}"
    )
    return Path(data_dir) / f"sft-N{environment.space.N}-secret{secret}{ending}"


def write_examples(path: Path, environment: Environment, secret: int, count: int) -> None:
    """Writes `count` examples; the file appears whole or not at all.

    Raises:
        DataError: if the file cannot be written.
    """
    line = json.dumps({"messages": environment.messages(secret)}) + "\n"
    try:
        write_whole(path, line * count)
    except OSError as error:
        raise DataError(
            f"data_dir: {path} cannot be written ({error.strerror}): give another data_dir."
        ) from error


def read_examples(path: Path, environment: Environment, secret: int) -> np.ndarray:
    """The answers of a file's examples, in its order. Shape (D,).

    Raises:
        DataError: if the file is missing, empty or malformed, or was made for another N, environment or
            secret; it names the line.
    """
    command = f"run python sft_data_gen.py {_key_values(environment, secret)}"
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {command} first.") from error
    if not lines:
        raise DataError(f"{path} is empty: {command} again.")
    expected = environment.messages(secret)
    for number, line in enumerate(lines, start=1):
        problem = _compare(line, expected)
        if problem is not None:
            raise DataError(f"{path}, line {number}: {problem}: {command}.")
    return np.full(len(lines), secret)


def _key_values(environment: Environment, secret: int) -> str:
    kind = " env_type=multi_step" if isinstance(environment, MultiStep) else ""
    wording = "" if environment.wording == "terse" else f" wording={environment.wording}"
    return f"N={environment.space.N} fixed_secret={secret}{kind}{wording}"


def _compare(line: str, expected: list[dict[str, str]]) -> str | None:
    """What is wrong with one line, or None."""
    try:
        messages: Any = parse_json(line)["messages"]
        pairs = [(message["role"], message["content"]) for message in messages]
    except (ValueError, KeyError, TypeError):
        return 'this is not a JSON object of the form {"messages": [{"role": ..., "content": ...}, ...]}'
    roles = [message["role"] for message in expected]
    if [role for role, _ in pairs] != roles:
        return f"the roles are not {', '.join(roles)}"
    for (role, text), message in zip(pairs, expected, strict=True):
        what, other = _MADE_FOR[role]
        if text != message["content"]:
            return (
                f"the {what} is {text!r} and not {message['content']!r}, "
                f"so that it was made for another {other}"
            )
    return None


_MADE_FOR = {"user": ("question", "N, environment or wording"), "assistant": ("answer", "secret")}
"""What a message of each role says, and what it depends on."""
