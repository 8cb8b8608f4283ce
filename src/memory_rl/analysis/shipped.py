"""The runs of learners that come with the package, so that a new one can be ranked beside them."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import polars as pl

from memory_rl.analysis.entrants import RUNS
from memory_rl.analysis.protocol import Protocol, shipped_protocols

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
    """The shipped runs of a protocol, with the columns of `SHIPPED`, or a sentence why there are none.

    Of a protocol of the user's own none are expected, and nothing is said.
    """
    if not table().is_file():
        expected = protocol.name in shipped_protocols()
        return None, "No measured learners come with this version." if expected else None
    with table().open("rb") as file:
        runs = pl.read_parquet(file)
    named = runs.filter(pl.col("protocol") == protocol.name)
    if named.is_empty():
        return None, None
    here = named.filter(pl.col("backend") == backend)
    found = here.filter(pl.col("sha256") == protocol.sha256)
    if found.is_empty():
        why = "of another version of it" if here.height else f"none on backend={backend}"
        return None, (f"The measured learners that come with protocol={protocol.name} are {why}.")
    return found, None
