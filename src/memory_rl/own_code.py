"""A user's own code, named as file.py:Name: how it is run, and how its errors are reported."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from memory_rl.errors import ConfigError, one_line, suggest

_HERE = str(Path(__file__).parent)


def load_object(reference: str, key: str, example: str) -> Any:
    """The function, class or object that `file.py:Name` names.

    The file is run like a script: afresh each time, and while it runs it can import the modules beside it.
    Its module is in `sys.modules`, which dataclasses need, but under a name that hides no other.

    Args:
        reference: what was typed.
        key: the key that it was typed for.
        example: the first line of such a definition.

    Raises:
        ConfigError: if there is no such file or name, or the file cannot be run.
    """
    place, _, name = reference.rpartition(":")
    path, given = Path(place), f"{key}={reference}"
    if not path.is_file():
        meant = path.with_suffix(".py") if path.name else path
        hint = f"give the path of a Python file, as in {key}=my_file.py:Name."
        if meant.is_file():
            hint = f"did you mean {key}={meant}:{name}?"
        raise ConfigError(
            f"{given} names no file, since there is no {place or 'path before the colon'}: {hint}"
        )
    module = _run(path, given)
    if name not in vars(module):
        own = [
            known
            for known, value in vars(module).items()
            if getattr(value, "__module__", None) == module.__name__ and not known.startswith("_")
        ]
        hint = suggest(name, own[:16]) if own else f"define it there, as in {example}."
        why = f"{place} has no {name}" if name else "no name follows the colon"
        raise ConfigError(f"{given} names nothing, since {why}: {hint}")
    return vars(module)[name]


def _run(path: Path, given: str) -> ModuleType:
    """The module that the file makes.

    Its bytecode is not kept: a time stamp would not show that a file was changed within a second.
    """
    folder = str(path.resolve().parent)
    module = ModuleType("own_" + re.sub(r"\W", "_", str(path.resolve())))
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    sys.path.insert(0, folder)
    try:
        code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        exec(code, vars(module))  # noqa: S102  # the user asks for it to be run
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise ConfigError(
            f"{given} cannot be used, since {path} cannot be run ({reason_of(error)}): fix the file."
        ) from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    return module


def reason_of(error: BaseException) -> str:
    """An error of a user's code in one line, with the place in their file."""
    frame, places = error.__traceback__, list[tuple[str, int]]()
    while frame is not None:
        places.append((frame.tb_frame.f_code.co_filename, frame.tb_lineno))
        frame = frame.tb_next
    theirs = [place for place in places if not place[0].startswith((_HERE, "<"))]  # "<": what has no file
    lines = [line for file, line in theirs if file == theirs[0][0]]
    where = f" in {Path(theirs[0][0]).name}, line {lines[-1]}" if theirs else ""
    return one_line(f"{type(error).__name__}: {error}".removesuffix(": ")) + where


def place_of(function: Any) -> str:
    """Where a function of the user's is defined, in brackets."""
    code = getattr(function, "__code__", None)
    return "" if code is None else f" (in {Path(code.co_filename).name}, line {code.co_firstlineno})"
