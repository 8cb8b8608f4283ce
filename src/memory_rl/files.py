"""The border to the disk: paths as people type them, files that appear whole, texts that others can read.

Texts are UTF-8 whatever the locale; JSON is that of RFC 8259, which has no NaN; tables are handed to polars
as open files, because it takes a path for a pattern, a URL or a place in somebody's home.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from memory_rl.errors import UNPRINTABLE, ConfigError, one_line

if TYPE_CHECKING:
    import polars as pl

Json = dict[str, Any]
"""What a JSON file holds, or a part of it: a manifest, a summary, a row, a configuration."""

_DIGITS, _VAST = 20, 2**63  # of integers in JSON
_FORMULA, _NUMBER = r"^[=+\-@\t\r]", r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


def failures(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What writing and reading raise where the disk or the file is to blame, and more."""
    from polars.exceptions import PolarsError  # here, as below: the engine alone does without tables

    return OSError, SafetensorError, PolarsError, *more


def check_text(text: str, key: str) -> None:
    """Refuses a text that can name no file, nor anything else that a key is for.

    Raises:
        ConfigError: if it has characters that cannot be printed, or is too long.
    """
    if UNPRINTABLE.search(text):
        raise ConfigError(f"{key}={text} has a character that cannot be printed: leave it out.")
    for names, most in (("[,/:]", 255), (",", 4000)):
        if any(len(name.encode()) > most for name in re.split(names, text)):
            raise ConfigError(f"{key}={one_line(text)} is longer than any name of a file: shorten it.")


def expand(text: str, key: str, *, url: bool = False) -> str:
    """A path as it was typed, with `~` as the home that it stands for.

    Args:
        text: the path, which may be followed by more.
        key: that it was typed for.
        url: whether it may be something else than a path, too.

    Raises:
        ConfigError: if it is a URL, holds what no path can, or names nobody's home.
    """
    if not url:
        try:
            os.fsencode(text)
        except UnicodeEncodeError:
            encoding = sys.getfilesystemencoding()
            raise ConfigError(
                f"{key}={text} cannot be written in {encoding}, the encoding of this locale: "
                "give another path, or set PYTHONUTF8=1."
            ) from None
    if "://" in text and not url:
        raise ConfigError(f"{key}={text} is a URL: give a path on this machine, such as {key}=folder.")
    found = os.path.expanduser(text)  # noqa: PTH111  # pathlib would drop a slash at the end, and more
    if found.startswith("~"):
        raise ConfigError(f"{key}={text} names no home that is known here: write the path out, or ./{text}.")
    return found


def as_path(given: str | Path, key: str = "path") -> Path:
    """A path that a function is given: a text as by `expand`, and a `Path` as it is.

    Raises:
        ConfigError: if it can be none.
    """
    check_text(given if isinstance(given, str) else printable(given), key)
    return Path(expand(given, key)) if isinstance(given, str) else given


def folder_name(text: str) -> str:
    """A text, such as a protocol's name, as the name of a folder: short, plain, and inside its folder."""
    return re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII)[:100].lstrip(".") or "unnamed"


def split_paths(text: str) -> list[str]:
    """Several paths with commas between them; a comma in the name of what exists separates nothing."""
    parts, found = text.split(","), list[str]()
    while parts:
        joined = (",".join(parts[:count]).strip() for count in range(len(parts), 1, -1))
        there = (path for path in joined if os.path.lexists(os.path.expanduser(path)))  # noqa: PTH111
        whole = next(there, parts[0])
        parts = parts[whole.count(",") + 1 :]
        found += [whole.strip()] if whole.strip() else []
    return found


def parse_json(text: str | bytes, **options: Any) -> Any:
    """What JSON holds.

    Args:
        text: in JSON.
        options: of `json.loads`.

    Raises:
        ValueError: if it is none, or nested too deeply to be read.
    """
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_whole(path: Path, content: str | bytes | Callable[[Path], object]) -> None:
    """Writes a file, and its folder if that is missing; it is on disk when this returns.

    Args:
        path: of the file; what is there is replaced.
        content: of the file, or a function that writes it to a given path.

    Raises:
        OSError: if it cannot be written; nothing has changed then.
    """
    scratch = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(scratch)
        else:
            scratch.write_bytes(_bytes_of(content) if isinstance(content, str) else content)
        flush(scratch)
        os.replace(scratch, path)
    except OSError:
        raise
    except failures() as error:
        raise OSError(str(error)) from error
    finally:
        with suppress(OSError):
            scratch.unlink()


def is_leftover(name: str) -> bool:
    """Whether it is an unfinished file of `write_whole`, which a killed process may have left behind."""
    return name.startswith(".") and name.endswith(".part")


def flush(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    """Writes a Parquet file."""
    with path.open("wb") as file:
        frame.write_parquet(file)


def read_frame(path: Path) -> pl.DataFrame:
    """Reads a Parquet file."""
    import polars as pl

    with path.open("rb") as file:
        return pl.read_parquet(file)


def to_json(content: Any, **layout: Any) -> str:
    """A JSON text; numbers that are not finite are null, since JSON has none."""
    try:
        return json.dumps(content, allow_nan=False, **layout)
    except ValueError:
        return json.dumps(_finite(content), allow_nan=False, **layout)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_json(text: str | bytes) -> Json:
    """The object that a JSON text holds.

    Raises:
        ValueError: if it holds something else, or no JSON.
    """
    found = parse_json(text, parse_constant=_refuse, parse_float=_float, parse_int=_int)
    if not isinstance(found, dict):
        raise ValueError(f"it holds {type(found).__name__} and not an object")
    return found


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number that JSON should hold")


def _float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _int(text: str) -> int:
    number = int(text) if len(text) <= _DIGITS else _refuse(one_line(text))
    return int(number) if abs(number) < _VAST else int(_refuse(text))


def read_json(path: Path) -> Json:
    """Reads the object in a JSON file; raises OSError, or ValueError as `from_json`."""
    return from_json(path.read_bytes())


def to_csv(frame: pl.DataFrame) -> str:
    """A CSV text in which no cell is a formula: texts that start like one begin with an apostrophe."""
    import polars as pl

    text = pl.selectors.string()
    dangerous = text.str.contains(_FORMULA) & ~text.str.contains(_NUMBER)
    return frame.with_columns(pl.when(dangerous).then("'" + text).otherwise(text).name.keep()).write_csv()


def printable(text: Any) -> str:
    """A text without what UTF-8 cannot hold, such as bytes of a file's name that are in no encoding."""
    return _bytes_of(str(text)).decode()


def _bytes_of(text: str) -> bytes:
    return text.encode(errors="replace")


def print_anything() -> None:
    """From now on what a terminal's encoding lacks is printed as `?`, instead of an error in mid-run."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # of a notebook, or None
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, which is read once for each of its states: a sweep asks again and again."""
    state = path.stat()
    return _sha256(str(path), state.st_ino, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _sha256(path: str, *_state: int) -> str:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
