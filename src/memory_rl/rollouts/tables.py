"""Rollouts in any CSV, JSON Lines or Parquet file, with columns that the user names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory_rl.errors import DataError, first_few, suggest
from memory_rl.files import Json, failures
from memory_rl.rollouts.rows import (
    VAST,
    Rollout,
    Rollouts,
    about_files,
    about_unscored,
    csv_lines,
    hashed,
    json_lines,
    not_a_number,
    read_text,
    schema,
)
from memory_rl.rollouts.trainers import TRAINERS, find_run

if TYPE_CHECKING:
    import polars as pl

_TEXT = {".csv": csv_lines, ".jsonl": json_lines, ".ndjson": json_lines}
_KINDS = (*_TEXT, ".parquet")


@dataclass(frozen=True)
class Columns:
    """The names of columns; None for one that was not typed, and may be missing.

    Attributes:
        step: of training.
        group: what tells the groups of a step apart.
        prompt: any text or number.
        reward: a number.
        tokens: sampled for the rollout.
    """

    step: str | None = None
    group: str | None = None
    prompt: str | None = None
    reward: str | None = None
    tokens: str | None = None

    @property
    def typed(self) -> dict[str, str]:
        """Those that the user named."""
        return {key: name for key, name in vars(self).items() if name is not None}

    def among(self, names: Sequence[str], path: Path) -> dict[str, str]:
        """From each key to its column; what is not typed has the name of its key.

        Raises:
            DataError: if one that was typed, or that cannot be done without, is missing.
        """
        wanted = {key: name or key for key, name in vars(self).items()}
        for key, name in self.typed.items():
            if name not in names:
                raise DataError(f"{key}={name} is no column of {path}: {suggest(name, names)}")
        found = {key: name for key, name in wanted.items() if name in names}
        for key in ("step", "reward"):
            if key not in found:
                raise DataError(
                    f"{path} has no column {key}, only {first_few(names)}: name it as {key}=NAME."
                )
        if not {"group", "prompt"} & {*found}:
            raise DataError(
                f"the groups in {path} cannot be told apart, since it has no column prompt or group, only "
                f"{first_few(names)}: name one as prompt=NAME or group=NAME."
            )
        return found


def read_rollouts(path: Path, columns: Columns) -> Rollouts:
    """The rollouts in a folder or a file: of a trainer that is known by its files, or a table.

    Args:
        path: of either.
        columns: where any is typed, files are read as tables; `reward` alone names one of TRL's.

    Raises:
        DataError: one sentence about what is there, or is not.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist: give the folder of a run, or a file of rollouts.")
    try:
        found = find_run(path, columns.reward) if {*columns.typed} <= {"reward"} else None
        return found or _read_tables(path, _tables(path), columns)
    except OSError as error:
        where = error.filename or path
        raise DataError(f"{where} cannot be read ({error.strerror}): give a file that can.") from error


def _tables(path: Path) -> list[Path]:
    files = [path] if path.is_file() else [one for one in path.iterdir() if one.is_file()]
    found = sorted((one for one in files if one.suffix.lower() in _KINDS), key=_naturally)
    if not found:
        known = "; ".join(trainer.looked_for for trainer in TRAINERS)
        kind = "is of no format that is known" if path.is_file() else "holds no rollouts"
        raise DataError(
            f"{path} {kind}; looked for: {known}; and for files that end in {', '.join(_KINDS)}, whose "
            "columns step= group= prompt= reward= name."
        )
    if len({one.suffix.lower() for one in found}) > 1:
        names = first_few([one.name for one in found])
        raise DataError(f"{path} holds tables of several formats ({names}): give one of them.")
    if not any(one.stat().st_size for one in found):
        raise DataError(f"{found[0]} is empty: give a file with rollouts.")
    return found


def _naturally(path: Path) -> list[tuple[int, str]]:
    """So that step_10 comes after step_9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _read_tables(path: Path, files: Sequence[Path], columns: Columns) -> Rollouts:
    lines = _TEXT.get(files[0].suffix.lower())
    frame, notes = _parquet(files, columns) if lines is None else _text(files, lines, columns)
    _refuse_disorder(frame, path)
    return Rollouts(frame, path.name, len(files), notes)


def _text(files: Sequence[Path], lines: Any, columns: Columns) -> tuple[pl.LazyFrame, list[str]]:
    first = next((record for path in files for _, record in lines(path) if record), None)
    if first is None:
        raise DataError(f"{files[0]} is empty: it has no line that is whole.")
    return read_text(files, lines, partial(_row, columns.among([*first], files[0])))


def _row(names: Mapping[str, str], record: Json, path: Path) -> Iterator[Rollout]:
    tokens = record.get(names.get("tokens", ""))
    group, prompt = (_named(record, names.get(key)) for key in ("group", "prompt"))
    step, count = float(record[names["step"]]), None if tokens in (None, "") else float(tokens)
    if step != int(step):
        raise ValueError(f"step {step} is no whole number")
    yield Rollout(int(step), group, prompt, record[names["reward"]], count)


def _named(record: Json, name: str | None) -> int | None:
    """What a record has in a column that names something; an empty cell names nothing."""
    return None if name is None or record[name] == "" else hashed(record[name])


def _parquet(files: Sequence[Path], columns: Columns) -> tuple[pl.LazyFrame, list[str]]:
    """File by file, since one may be damaged, and a column need not have one type in all."""
    import polars as pl

    parts, damaged = list[pl.DataFrame](), list[str]()
    for path in files:
        try:
            parts.append(_narrow(pl.scan_parquet(path, glob=False), columns, path))
        except failures():
            damaged.append(path.name)
    if not parts:
        raise DataError(f"{files[0]} cannot be read as Parquet: give a file that is whole.")
    whole = pl.concat(parts)
    known = whole.filter(
        pl.col("step") >= 0, pl.col("tokens").is_null() | pl.col("tokens").is_between(0, VAST)
    )
    if len(whole) and not len(known):
        raise DataError(
            f"no row of {files[0]} has a step that is a whole number from 0, and tokens that are one: name "
            "other columns as step=NAME and tokens=NAME."
        )
    scored = known.drop_nulls("reward")
    return scored.lazy(), [
        *about_files(damaged),
        *_about_rows(len(whole) - len(known)),
        *about_unscored(len(known) - len(scored)),
    ]


def _about_rows(odd: int) -> Iterator[str]:
    if odd:
        have, are = ("row has", "is") if odd == 1 else ("rows have", "are")
        yield f"{odd:,} {have} no whole step, or no possible number of tokens, and {are} left out."


def _narrow(scan: pl.LazyFrame, columns: Columns, path: Path) -> pl.DataFrame:
    """The columns of `schema`; raises DataError if one that should hold numbers does not."""
    kinds = scan.collect_schema()
    names = columns.among([*kinds], path)
    for key in ("reward", "step", "tokens"):
        if key in names:
            _refuse_texts(scan, names[key], kinds[names[key]], key, path)
    return scan.select(*_expressions(names, kinds)).collect(engine="streaming")


def _refuse_texts(scan: pl.LazyFrame, name: str, kind: pl.DataType, key: str, path: Path) -> None:
    """Refuses a column of anything but numbers, be they written as texts; steps may be times."""
    import polars as pl

    if kind.is_numeric() or kind in (pl.Boolean, pl.Null) or (key == "step" and kind.is_temporal()):
        return
    one = pl.col(name)
    odd = one.cast(pl.Float64, strict=False).is_null() if kind == pl.String else pl.lit(value=True)
    found = scan.filter(one.is_not_null() & odd).select(name).head(1).collect()
    if len(found):
        raise not_a_number(found.item(), str(path), key)


def _expressions(names: Mapping[str, str], kinds: Mapping[str, pl.DataType]) -> Iterator[pl.Expr]:
    import polars as pl

    for key, kind in schema().items():
        one = pl.col(names[key]) if key in names else pl.lit(None)
        if kind == pl.UInt64 and key in names:
            one = pl.when(one.is_not_null()).then(one.hash())
        elif key == "step" and not kinds[names[key]].is_temporal():
            number = one.cast(pl.Float64)
            one = pl.when(number == number.floor()).then(number)
        yield one.cast(kind).alias(key)


def _refuse_disorder(frame: pl.LazyFrame, path: Path) -> None:
    import polars as pl

    steps = frame.select("step").with_row_index().with_columns(before=pl.col("step").shift())
    falls = steps.filter(pl.col("step") < pl.col("before")).head(1).collect()
    if len(falls):
        row, step, before = falls.row(0)
        raise DataError(
            f"in {path} step {step} comes after step {before} (rollout {row + 1}), so that two runs may be "
            "mixed: sort it by step, or give one run."
        )
