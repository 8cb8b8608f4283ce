"""Rollouts as a narrow table, whatever file they came from; files of text are read line by line."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from memory_rl.errors import DataError, first_few, one_line
from memory_rl.files import Json, parse_json

if TYPE_CHECKING:
    import polars as pl

_ROWS_A_PART = 100_000
VAST = 2**62
"""More than any number of steps or tokens."""

_TRUTH = {"true": 1.0, "false": 0.0}
"""As tables of text write them."""

_NAMED = 3  # damaged lines that a note names


class Rollout(NamedTuple):
    """One rollout.

    Attributes:
        step: of training.
        group: which group of the step, as a number; None: rewards of one prompt in one step are a group.
        prompt: as a number; None where a log does not have it.
        reward: None for a rollout that was not scored.
        tokens: sampled for it.
        advantage: as the trainer logged it.
    """

    step: int
    group: int | None
    prompt: int | None
    reward: Any
    tokens: float | None = None
    advantage: float | None = None


@dataclass(frozen=True)
class Rollouts:
    """The rollouts of one run.

    Attributes:
        frame: one row a rollout, in the order of the files, with the columns of `schema`.
        source: what wrote them, as it is called in a sentence.
        files: how many.
        notes: a sentence on each thing that a reader should know of the log.
        kl: step and kl, in nats a token from where training began, as the trainer logged it; None if it did
            not.
        grouped: how groups are told apart: by prompt or group in each step, in consecutive rows of a prompt,
            or by group alone, which names one in the whole run.
    """

    frame: pl.LazyFrame
    source: str
    files: int
    notes: Sequence[str] = ()
    kl: pl.DataFrame | None = None
    grouped: Literal["in steps", "in rows", "in the run"] = "in steps"


def schema() -> dict[str, Any]:
    """The columns of rollouts and their types."""
    import polars as pl

    whole = dict.fromkeys(("group", "prompt"), pl.UInt64)
    return {"step": pl.Int64, **whole, **dict.fromkeys(("reward", "tokens", "advantage"), pl.Float64)}


def hashed(value: Any) -> int | None:
    """Any value of JSON as a number of 64 bits, the same in every process; None stays None."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest())


Lines = Iterator[tuple[int, Json]]
"""The records of a file, each with the number of its line; a damaged one is empty."""


def json_lines(path: Path) -> Lines:
    """The objects in a file of JSON Lines."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    found = parse_json(line)
                except ValueError:  # cut off, or of other bytes
                    found = None
                yield number, found if isinstance(found, dict) else {}


def csv_lines(path: Path) -> Lines:
    """The rows of a CSV file by the names in its first line."""
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(line.replace("\0", "") for line in file)
        names = next(reader, [])
        for values in reader:
            if values:
                yield reader.line_num, dict(zip(names, values, strict=False))


def read_text(
    paths: Iterable[Path], lines: Callable[[Path], Lines], rows: Callable[[Json, Path], Iterable[Rollout]]
) -> tuple[pl.LazyFrame, list[str]]:
    """The rollouts in files of text, of which only numbers are kept, and notes on what was left out.

    Args:
        paths: in the order of training.
        lines: reads the records of a file.
        rows: the rollouts of a record; raises KeyError, TypeError, ValueError or AttributeError if it has
            none.

    Raises:
        DataError: if a reward is no number, or no line is a rollout.
        OSError: if a file cannot be read.
    """
    import polars as pl

    parts, batch, damaged, unscored = list[pl.DataFrame](), list[Rollout](), list[str](), 0
    why: Exception | None = None
    for path in paths:
        for number, record in lines(path):
            try:
                found = [_whole(row) for row in rows(record, path)]
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                why = why or error
                damaged.append(f"line {number} of {path.name}")
                continue
            scored = [row._replace(reward=_number(row.reward, path, number)) for row in found if _scored(row)]
            unscored += len(found) - len(scored)
            batch += scored
            if len(batch) >= _ROWS_A_PART:
                parts.append(pl.DataFrame(batch, schema=schema(), orient="row"))
                batch = []
    parts.append(pl.DataFrame(batch, schema=schema(), orient="row"))
    if damaged and not (unscored or any(map(len, parts))):
        lines_are = (
            "1 line is no rollout" if len(damaged) == 1 else f"all {len(damaged):,} lines are no rollouts"
        )
        raise DataError(
            f"{lines_are}: {damaged[0]} {_reason(why)}; give a log that is whole, or other columns."
        )
    return pl.concat(parts).lazy(), [*about_damaged(damaged), *about_unscored(unscored)]


def _reason(error: Exception | None) -> str:
    """What a line lacks, after its name."""
    if isinstance(error, KeyError):
        return f"has no {error.args[0]}"
    return f"cannot be read ({one_line(str(error))})"


def _whole(row: Rollout) -> Rollout:
    """The same with numbers as the table holds them; raises TypeError, ValueError or OverflowError."""
    step, tokens = int(row.step), None if row.tokens is None else float(row.tokens)
    if not 0 <= step < VAST:
        raise ValueError(f"{step} is no step of training")
    if tokens is not None and not 0 <= tokens < VAST:
        raise ValueError(f"{tokens:g} is no number of tokens")
    return row._replace(step=step, tokens=tokens)


def _scored(row: Rollout) -> bool:
    return row.reward is not None and row.reward != ""


def _number(reward: Any, path: Path, line: int) -> float:
    try:
        return float(_TRUTH.get(reward.strip().lower(), reward) if isinstance(reward, str) else reward)
    except (TypeError, ValueError, OverflowError):
        raise not_a_number(reward, f"line {line} of {path}") from None


def not_a_number(value: Any, where: str, key: str = "reward") -> DataError:
    """The error of a reward, a step or tokens that are no number."""
    return DataError(
        f"the {key} {one_line(str(value))!r} in {where} is not a number: name another column as {key}=NAME."
    )


def about_files(damaged: Sequence[str]) -> Iterator[str]:
    """Says how many files were left out because they cannot be read."""
    if damaged:
        files = "file cannot be read and is" if len(damaged) == 1 else "files cannot be read and are"
        yield f"{len(damaged)} {files} left out: {first_few(damaged, _NAMED)}."


def about_damaged(damaged: Sequence[str]) -> Iterator[str]:
    """Says how many lines were left out because they are no rollouts."""
    if damaged:
        are = "line is" if len(damaged) == 1 else "lines are"
        named = first_few(damaged, _NAMED)
        yield f"{len(damaged):,} {are} damaged or cut off and left out: {named}."


def about_unscored(unscored: int) -> Iterator[str]:
    """Says how many rollouts were left out because nothing scored them."""
    if unscored:
        have = "rollout has" if unscored == 1 else "rollouts have"
        yield f"{unscored:,} {have} no reward and {'is' if unscored == 1 else 'are'} left out."
