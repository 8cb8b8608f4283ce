"""Laws of pass rates to plan with: one rate, a file of them, or what an audit found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memory_rl.errors import DataError, first_few
from memory_rl.files import failures, parse_json
from memory_rl.information.reward_laws import expected_entropy

if TYPE_CHECKING:
    import polars as pl

AUDIT = "audit.json"
_NAMES = ("p", "pass_rate")
_KINDS = (".csv", ".json", ".parquet")
_WHOLE = 1e-6  # by which the weights of a law may miss 1


@dataclass(frozen=True)
class RateLaw:
    """How often which pass rate is met.

    Attributes:
        points: (P,) pass rates.
        weights: (P,) how often each is met; they sum to 1.
        words: of what it is, as in "a pass rate of 0.18".
        group_size: that of an audit.
        tokens: of a rollout, of an audit whose log has them.
        notes: a sentence on each thing that limits it.
    """

    points: np.ndarray
    weights: np.ndarray
    words: str
    group_size: int | None = None
    tokens: float | None = None
    notes: Sequence[str] = ()

    @property
    def mean(self) -> float:
        """The mean pass rate."""
        return float(self.weights @ self.points)


def one_rate(rate: float) -> RateLaw:
    """The law of prompts that all have this pass rate, in (0, 1)."""
    return RateLaw(np.array([rate]), np.ones(1), f"a pass rate of {rate:g}")


def is_audit(path: Path) -> bool:
    """Whether it is the folder of an audit, or its audit.json."""
    return (path / AUDIT).is_file() or (path.name == AUDIT and path.is_file())


def law_in(path: Path) -> RateLaw:
    """The law in a file of pass rates, or of an audit.

    Args:
        path: a CSV, JSON or Parquet file with a pass rate for each prompt, or an audit.

    Raises:
        DataError: one sentence about what is there, or is not.
    """
    if is_audit(path):
        return law_of_audit(_read(path / AUDIT if path.is_dir() else path), path)
    if path.suffix.lower() == ".json" and path.is_file():
        found = _read(path)
        if isinstance(found, dict) and "delivered_bits_per_rollout" in found:
            return law_of_audit(found, path)
        return law_of_prompts(_numbers(found, path), str(path))
    return law_of_prompts(_column(_frame(path), path), str(path))


def law_of_audit(audit: Mapping[str, Any], path: Path) -> RateLaw:
    """The law that an audit fitted, from what audit.json holds.

    Raises:
        DataError: if it has none, or is damaged.
    """
    if isinstance(audit, dict) and audit.get("pass_rates", 0) is None:
        raise DataError(f"the rewards of {path} have too many levels for a pass rate: give one as p=0.18.")
    try:
        law = audit["pass_rates"]
        points, weights = (np.array(law[name], dtype=float) for name in ("points", "weights"))
        size, tokens = int(audit["group_size"]), audit["tokens"]
        a_rollout = None if tokens is None else float(tokens) / float(audit["rollouts"])
        if points.shape != weights.shape or abs(weights.sum() - 1) > _WHOLE or not _are_rates(points):
            raise ValueError
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(f"{path} holds no whole audit: make it again with memory-rl audit.") from error
    notes = [*_about_audit(size, graded=bool(audit.get("graded")))]
    return _refuse_sure(
        RateLaw(points, weights, f"the pass rates of {path}", size, a_rollout, notes), str(path)
    )


def _about_audit(size: int, *, graded: bool) -> Iterator[str]:
    yield (
        "These numbers have no intervals: those of the audit are over its prompts, and beyond "
        f"G = {2 * size} all rests on the shape of its law."
    )
    if graded:
        yield "Rewards of the audit are graded: the highest is planned as a pass, all others as none."


def _are_rates(values: np.ndarray) -> bool:
    return bool(values.size and ((values >= 0) & (values <= 1)).all())


def law_of_prompts(values: Sequence[Any], where: str) -> RateLaw:
    """The law of prompts with these pass rates; those that are equal are one point.

    Args:
        values: one a prompt.
        where: they stand, for messages.

    Raises:
        DataError: if there is none, if one is no number from 0 to 1, or if all are 0 or 1.
    """
    for place, value in enumerate(values, start=1):
        if not (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1):
            raise DataError(f"pass rate {place} in {where} is {value!r}: give numbers from 0 to 1.")
    if not len(values):
        raise DataError(f"{where} holds no pass rate: give one for each prompt.")
    points, counts = np.unique(np.array(values, dtype=float), return_counts=True)
    note = (
        f"The numbers in {where} are taken as they are: fractions of a few rewards lie further apart than "
        "the pass rates behind them, which memory-rl audit fits."
    )
    words = f"the {len(values):,} pass rates of {where}"
    return _refuse_sure(RateLaw(points, counts / len(values), words, notes=[note]), where)


def _refuse_sure(law: RateLaw, where: str) -> RateLaw:
    if not expected_entropy(law.points, law.weights) > 0:
        raise DataError(
            f"all pass rates in {where} are 0 or 1, so that no group ever carries a signal: give prompts "
            "that sometimes pass."
        )
    return law


def _read(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"p={path} cannot be read as JSON: give a file that is whole.") from error


def _numbers(found: Any, path: Path) -> Sequence[Any]:
    """Of a list, of a list of objects with a p, or of an object from prompts to rates."""
    if isinstance(found, dict):
        return [*found.values()]
    if not isinstance(found, list):
        raise DataError(f"{path} holds no pass rates: give a list such as [0.1, 0.25].")
    if not all(isinstance(one, dict) for one in found):
        return found
    name = _named({name: None for one in found for name in one}, path)
    return [one.get(name) for one in found]


def _named(names: Mapping[str, Any] | Sequence[str], path: Path) -> str:
    if len(names) == 1:
        return next(iter(names))
    found = [name for name in _NAMES if name in names]
    if len(found) != 1:
        raise DataError(f"{path} has no column p, only {first_few([*names])}: name the one of pass rates p.")
    return found[0]


def _frame(path: Path) -> pl.DataFrame:
    import polars as pl

    kind = path.suffix.lower()
    if not path.exists():
        raise DataError(
            f"p={path} is neither a number nor a file: give a pass rate such as p=0.18, or a CSV, "
            "JSON or Parquet file of them."
        )
    if path.is_dir() or kind not in _KINDS:
        raise DataError(
            f"p={path} is no audit and no file of pass rates: give one that ends in {', '.join(_KINDS)}."
        )
    if not path.stat().st_size:
        raise DataError(f"{path} holds no pass rate: give a file with one for each prompt.")
    try:
        return pl.read_csv(path) if kind == ".csv" else pl.read_parquet(path)
    except failures() as error:
        raise DataError(f"p={path} cannot be read: give a file that is whole.") from error


def _column(frame: pl.DataFrame, path: Path) -> list[Any]:
    """The pass rates; in a column of texts, as beside a word, those that are numbers are numbers."""
    import polars as pl

    found = frame[_named(frame.columns, path)]
    if found.dtype != pl.String:
        return found.to_list()
    numbers = found.cast(pl.Float64, strict=False)
    return [text if number is None else number for text, number in zip(found, numbers, strict=True)]
