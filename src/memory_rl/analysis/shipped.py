"""The runs of learners that come with the package, so that a new one can be ranked beside them."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import polars as pl

from memory_rl.analysis.entrants import RUNS
from memory_rl.analysis.protocol import Protocol

SHIPPED: dict[str, Any] = {
    "protocol": pl.String,
    "sha256": pl.String,
    "backend": pl.String,
    "at_edge": pl.Boolean,
    **RUNS,
}
"""One row per run: the protocol's name and hash, where the policies lived, whether the learning rate was the
least or the greatest candidate, and what `RUNS` has."""


def table() -> Traversable:
    """Where they are; there is no file as long as nothing has been measured."""
    return resources.files("memory_rl") / "studies" / "learners.parquet"


def shipped_runs(protocol: Protocol, backend: str) -> tuple[pl.DataFrame | None, str | None]:
    """The shipped runs of a protocol, with the columns of `RUNS`, and if there are none a sentence why."""
    if not table().is_file():
        return None, "No measured learners come with this version, so only those run here are ranked."
    with table().open("rb") as file:
        runs = pl.read_parquet(file)
    here = (pl.col("protocol") == protocol.name) & (pl.col("backend") == backend)
    found = runs.filter(here, pl.col("sha256") == protocol.sha256)
    if found.is_empty():
        why = "of another version of it" if runs.filter(here).height else f"none on backend={backend}"
        return None, (
            f"The measured learners that come with protocol={protocol.name} are {why}, so only those run "
            "here are ranked."
        )
    return found.select(*RUNS), None
