"""Whether what a file holds has the keys that will be read, with values that they can have."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import polars as pl

from memory_rl.runs.manifest import Status


class Maybe:
    """A value that may be null."""

    def __init__(self, shape: Any) -> None:
        self.shape = shape


_NUMBER = Maybe(float)
_ESTIMATE = {"estimate": _NUMBER, "ci95": Maybe([_NUMBER, _NUMBER])}
_KNOWN = {**_ESTIMATE, "ci95": [_NUMBER, _NUMBER]}

SWEPT = {"id": Maybe(str), "config": {}}
"""What is read of a cell in sweep.json."""

MANIFEST = {
    "kind": ("train", "sft"),
    "condition": str,
    "status": get_args(Status),
    "why?": Maybe(str),
    "command?": Maybe(str),
    "started": str,
    "updated": str,
    "config": {
        **dict.fromkeys(("N", "seed", "num_runs"), int),
        "backend": str,
        "memorised_at": float,
        "num_secrets?": int,
        "memorised_share?": float,
    },
    "resolved?": dict,
    "versions?": {},
    "code?": {},
    "inputs?": {},
    "trainer?": {},
}
"""What is read of manifest.json."""

SUMMARY = {
    **dict.fromkeys(("runs", "memorised", "censored"), int),
    "episodes_to_memorise": {"median": _NUMBER, "ci95": [_NUMBER, _NUMBER], "restricted_mean": _NUMBER},
    "bits_per_episode": _KNOWN,
    "ceilings": {
        "capacity": float,
        "shannon_capacity": _NUMBER,
        "ideal_questioner": Maybe({"to_reach": _NUMBER}),
    },
    "stored?": {"estimate": _NUMBER},
    "relative_to_prior?": {"bits_known?": _KNOWN, "gained_bits": _KNOWN, "prior_bits": _KNOWN},
    "warmup?": {},
    "prior_skew?": float,
    "trained_parameters?": _NUMBER,
    "tokens?": _NUMBER,
    "episodes?": int,
    "secrets_memorised?": int,
    "stuck?": {**_KNOWN, "budget?": _NUMBER},
    "of_memorised?": {
        "bits_per_episode": _KNOWN,
        "episodes_to_memorise?": {"median": _NUMBER, "ci95": [_NUMBER, _NUMBER]},
    },
}
"""What is read of the part of summary.json about a condition."""

LEDGER = {
    "rates": dict.fromkeys(("capacity", "questioner", "observer", "policy"), _ESTIMATE),
    "losses": dict.fromkeys(("alphabet", "exploration", "absorption"), _NUMBER),
    "losses_ci95?": {"exploration?": [_NUMBER, _NUMBER], "absorption?": [_NUMBER, _NUMBER]},
    "checks": {name: {"status": str} for name in ("policy_within_observer", "observer_equals_asked")},
}
"""The same of a condition with a ledger."""


def problem(value: Any, shape: Any, place: str = "it") -> str | None:
    """What is wrong with a value, in words: the first key that is missing or bad; None if nothing is.

    Args:
        value: from JSON.
        shape: a type (float for any number, dict for an object of single values), a tuple of choices, a
            list of shapes, a mapping of them, in which keys may be missing that end in a question mark, or a
            `Maybe`.
        place: what the value is called.
    """
    if isinstance(shape, Maybe):
        return None if value is None else problem(value, shape.shape, place)
    if isinstance(shape, Mapping):
        if not isinstance(value, Mapping):
            return f"{place} is not an object"
        found = (_of_key(value, key, part, place) for key, part in shape.items())
        return next((one for one in found if one), None)
    if isinstance(shape, list):
        if not isinstance(value, list) or len(value) != len(shape):
            return f"{place} is not a list of {len(shape)}"
        parts = (problem(one, part, place) for one, part in zip(value, shape, strict=True))
        return next((one for one in parts if one), None)
    if isinstance(shape, tuple):
        return None if value in shape else f"{place} is none of {', '.join(shape)}"
    return None if _is(value, shape) else f"{place} is not {_NAMES[shape]}"


_NAMES = {
    str: "a text",
    int: "an integer",
    float: "a number",
    dict: "an object with a text, a number or null for each key",
}


def _of_key(value: Mapping[str, Any], key: str, shape: Any, place: str) -> str | None:
    word = key.removesuffix("?")
    name = word if place == "it" else f"{place}.{word}"
    if word not in value:
        return None if key != word else f"{name} is missing"
    return problem(value[word], shape, name)


def _is(value: Any, kind: type) -> bool:
    if kind is str:
        return isinstance(value, str)
    if kind is dict:
        return isinstance(value, dict) and not any(isinstance(one, list | dict) for one in value.values())
    right = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return right and math.isfinite(value)


def check_footer(path: Path, wanted: Iterable[str]) -> None:
    """Raises a ValueError unless a Parquet file has these columns; of the file only its end is read."""
    with path.open("rb") as file:
        _check_schema(pl.read_parquet_schema(file), wanted)


def _check_schema(found: Mapping[str, Any], wanted: Iterable[str]) -> None:
    for column in wanted:
        if column not in found:
            raise ValueError(f"it has no column {column}")
        if not (found[column].is_numeric() or found[column] == pl.Null):
            raise ValueError(f"its column {column} holds no numbers")


def check_columns(frame: pl.DataFrame, schema: Mapping[str, Any], full: Sequence[str]) -> pl.DataFrame:
    """The frame, if it has these columns, numbers in them, and in the `full` ones one in every row.

    Raises:
        ValueError: if it does not, or the `full` ones have no row.
    """
    _check_schema(frame.schema, schema)
    for column in full:
        if frame.is_empty() or not frame[column].is_finite().all() or frame[column].has_nulls():
            raise ValueError(f"its column {column} has rows without a number")
    return frame
