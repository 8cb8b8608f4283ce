"""manifest.json: what was run, by which code, and how it stands. Written first and at every change of
status.
"""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from memory_rl.config import OPERATIONAL_KEYS

SCHEMA = 1
"""Raised when a file of the run directory changes its meaning."""

Status = Literal["running", "completed", "interrupted", "failed"]

_LIBRARIES = ("memory-rl", "torch", "transformers", "numpy", "scipy", "polars", "chz")


def make_manifest(kind: str, condition: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a run that is about to start. It holds nothing of the environment's variables.

    Args:
        kind: "train" or "sft".
        condition: the name of the condition.
        config: every key of the configuration.
    """
    return {
        "schema": SCHEMA,
        "kind": kind,
        "condition": condition,
        "config": dict(config),
        "seed": config["seed"],
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        },
        "code": _code_state(),
        "started": _now(),
    }


def with_status(
    manifest: Mapping[str, Any], status: Status, why: str | None = None, **about: Any
) -> dict[str, Any]:
    """The manifest with a new status; `why` tells of an interruption or a failure, and `about` is to be
    noted, too.
    """
    return {**manifest, **about, "status": status, "why": why, "updated": _now()}


def resumed(begun: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a run that is gone on with: as it began, with a note of each time that it was taken up
    again, and by which code.

    Args:
        begun: the manifest that the run directory holds.
        now: that of a run which would start now.
    """
    note = {
        "started": now["started"],
        "stopped_as": begun["status"],
        "versions": now["versions"],
        "code": now["code"],
    }
    return {**begun, "resumed": [*begun.get("resumed", []), note]}


def first_difference(begun: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first thing that makes two manifests describe different experiments, in words; None if they are the
    same one.
    """
    if begun.get("kind") != now["kind"]:
        return f"it is of kind {begun.get('kind')}, and this command's is {now['kind']}"
    config = begun.get("config", {})
    for key, value in now["config"].items():
        if key not in OPERATIONAL_KEYS and config.get(key) != value:
            return f"it has {key}={config.get(key)}, and this command {key}={value}"
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _code_state() -> dict[str, Any]:
    """The commit of the checkout that the package is imported from, and whether it was changed since; None
    outside a checkout.
    """
    folder = Path(__file__).parent

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if (
        ask("ls-files", "--error-unmatch", str(Path(__file__))) is None
    ):  # installed elsewhere: the checkout around it is not ours
        return {"commit": None, "changed": None}
    changes = ask("status", "--porcelain", "--untracked-files=no")
    return {"commit": ask("rev-parse", "HEAD"), "changed": None if changes is None else changes != ""}
