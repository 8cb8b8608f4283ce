"""manifest.json: what was run, by which code, and its status; written first and at every change of status."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from memory_rl.experiment import Experiment, command_line, old_experiment
from memory_rl.files import Json
from memory_rl.inputs import changed_input, hash_inputs

SCHEMA = 1
"""Raised when a file of the run directory changes its meaning."""

Status = Literal["running", "completed", "interrupted", "failed"]

_LIBRARIES = ("memory-rl", "torch", "transformers", "numpy", "scipy", "polars")


def make_manifest(experiment: Experiment) -> Json:
    """The manifest of a run that is about to start. It holds nothing of the environment's variables."""
    return {
        "schema": SCHEMA,
        "kind": experiment.command,
        "condition": experiment.condition,
        "command": command_line(experiment),
        "config": experiment.flat(),
        "resolved": experiment.resolved(),
        "inputs": hash_inputs(experiment),
        "seed": experiment.world.seed,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        },
        "code": _code_state(),
        "started": _now(),
    }


def with_status(manifest: Json, status: Status, why: str | None = None, **about: Any) -> Json:
    """The manifest with a new status.

    Args:
        manifest: as it was.
        status: the new one.
        why: of an interruption or a failure.
        about: what else to note.
    """
    return {**manifest, **about, "status": status, "why": why, "updated": _now()}


def resumed(existing: Json, now: Json) -> Json:
    """The manifest of a resumed run: as it started, with a note of when it was resumed and by which code.

    Args:
        existing: the manifest that the run directory holds.
        now: that of a run which would start now.
    """
    note = {name: now[name] for name in ("started", "versions", "code")}
    note["stopped_as"] = existing["status"]
    return {**existing, "resumed": [*existing.get("resumed", []), note]}


def first_difference(existing: Json, now: Json) -> str | None:
    """What makes two manifests describe different experiments, and what to do; None if they are the same one.

    Args:
        existing: the manifest that a run directory holds, also one of version 0.1, which holds no hashes.
        now: kind, resolved configuration and inputs of a run which would start now.
    """
    same = "give the same configuration, or another log_path."
    if existing.get("kind") != now["kind"]:
        return f"it is of kind {existing.get('kind')}, and this command's is {now['kind']}; {same}"
    theirs = existing["resolved"] if "resolved" in existing else old_experiment(existing).resolved()
    ours = now["resolved"]
    for key in {**ours, **theirs}:
        if theirs.get(key) != ours.get(key):
            return f"it has {key}={theirs.get(key)}, and this command {key}={ours.get(key)}; {same}"
    changed = changed_input(existing.get("inputs") or {}, now["inputs"])
    return changed and f"{changed} since it began; restore it, or give another log_path."


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _code_state() -> Json:
    """The commit of the package's checkout, and whether it was changed since; None outside a checkout."""
    folder = Path(__file__).parent

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *words],
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=10,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if ask("ls-files", "--error-unmatch", __file__) is None:  # the checkout around it is another project's
        return {"commit": None, "changed": None}
    changes = ask("status", "--porcelain", "--untracked-files=no")
    return {"commit": ask("rev-parse", "HEAD"), "changed": None if changes is None else changes != ""}
