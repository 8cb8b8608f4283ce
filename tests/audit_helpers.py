"""Rollouts with known pass rates, as a table, as in a log, and on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from memory_rl.rollouts.groups import Groups, group_rollouts
from memory_rl.rollouts.rows import Rollouts, schema


def drawn(probabilities: np.ndarray, size: int, steps: int, random: np.random.Generator) -> pl.DataFrame:
    """One group of each prompt in each step: probabilities (prompts, levels) of the rewards 0, 1, ..."""
    prompts = len(probabilities)
    uniform = random.random((steps, prompts, size))
    ends = probabilities.cumsum(axis=1)[:, None, :-1]
    levels = (uniform[..., None] >= ends).sum(axis=-1)
    step, prompt, _ = np.indices(levels.shape)
    columns = {"step": step.ravel(), "prompt": prompt.ravel(), "reward": levels.ravel().astype(float)}
    return pl.DataFrame(columns).sort("step", maintain_order=True)


def pass_or_fail(rates: Sequence[float] | np.ndarray) -> np.ndarray:
    """Pass rates as probabilities of the levels 0 and 1."""
    return np.stack([1 - np.asarray(rates), np.asarray(rates)], axis=1)


def rollouts_of(table: pl.DataFrame) -> Rollouts:
    """A table as what a reader would have found."""
    missing = [pl.lit(None, kind).alias(name) for name, kind in schema().items() if name not in table.columns]
    columns = [pl.col(name).cast(kind) for name, kind in schema().items()]
    return Rollouts(table.with_columns(missing).select(columns).lazy(), "a test", 1)


def groups_of(table: pl.DataFrame) -> Groups:
    """The groups of a table."""
    return group_rollouts(rollouts_of(table))


def write_lines(path: Path, records: Sequence[Any]) -> Path:
    """A file of JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path
