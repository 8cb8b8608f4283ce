"""A small sweep to report on, with names that become scripts wherever they are not escaped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl

import memory_rl
from memory_rl.analysis.collect import Cell
from memory_rl.experiment import make_experiment
from memory_rl.runs.store import FILM

EVIL = "</script><img src=x onerror=window.injected=1>"
EVIL_FOLDER = "<img src=x onerror=window.injected=1>"

PROTOCOL = f"""
name: 'small {EVIL}'
minimum_runs: 2
grid: [{{command: sft, N: [8, 16], backend: tabular, num_runs: 4}}]
hypotheses:
  - id: H2
    claim: 'SFT is {EVIL} faster than binary.'
    test: rate_ratio
    of: {{condition: sft}}
    to: {{condition: binary, backend: tabular}}
    N: [16]
    expected: log2_N
    margin: 1.5
  - id: H5
    claim: The rank makes no difference.
    test: same_along
    cells: [{{condition: binary, N: 16, backend: local}}]
    along: {{lora_rank: [1, 8]}}
    margin: 1.5
"""


def make_sweep(folder: Path) -> Path:
    """Four conditions at two N, one with an evil name in an evil folder; two ranks, a film and a protocol."""
    cells = folder / "cells"
    for N in (8, 16):
        common = {"N": N, "backend": "tabular", "num_runs": 4}
        memory_rl.sft(**common, log_path=str(cells / f"sft-{N}"))
        memory_rl.train(**common, log_path=str(cells / f"binary-{N}"))
        memory_rl.train(**common, env_type="multi_step", log_path=str(cells / f"multi-{N}"))
        memory_rl.train(
            **common, reward_type="log_distance", max_episodes=100, log_path=str(cells / f"{EVIL_FOLDER}-{N}")
        )
        change(cells / f"{EVIL_FOLDER}-{N}", condition=EVIL)
    for rank in (1, 8):
        shutil.copytree(cells / "binary-16", cells / f"rank-{rank}")
        change(cells / f"rank-{rank}", backend="local", lora_rank=rank)
    for film in cells.glob(f"*/{FILM}"):  # one film, of which it is known what it must show
        film.unlink()
    write_film(cells / "binary-16")
    (folder / "protocol.yaml").write_text(PROTOCOL)
    return folder


def change(path: Path, condition: str | None = None, **keys: object) -> None:
    """Another name or configuration for a run directory."""
    manifest, summary = (json.loads((path / name).read_text()) for name in ("manifest.json", "summary.json"))
    manifest["config"].update(keys)
    manifest.pop("command", None)  # which was that of the other configuration
    if condition is not None:
        manifest["condition"] = condition
        summary["conditions"] = {condition: next(iter(summary["conditions"].values()))}
    (path / "manifest.json").write_text(json.dumps(manifest))
    (path / "summary.json").write_text(json.dumps(summary))


def write_film(path: Path, N: int = 16) -> None:
    """What an ideal observer of a binary reward believes that is told no to 0, 1, 2, ...; the policy stays as
    it is."""
    posterior = np.triu(np.ones((N, N)))
    posterior /= posterior.sum(axis=1, keepdims=True)
    frame = pl.DataFrame(
        {
            "episode": np.repeat(np.arange(N), N),
            "answer": np.tile(np.arange(N), N),
            "observer": posterior.ravel(),
        }
    )
    frame.with_columns(run=pl.lit(0), policy=pl.lit(1 / N)).write_parquet(path / FILM)


def wait_until_drawn(page) -> None:
    """Until the page has drawn all its figures."""
    page.wait_for_selector("html[data-drawn=yes]", state="attached", timeout=60_000)


def luminance(color: str) -> float:
    """WCAG 2.2."""
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = [
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels
    ]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def is_named(layers, place: int) -> bool:
    """Whether the colour of a layer, the words beside it or the key say what it is."""
    layer, beside = layers[place], [one.mark["type"] for one in layers[place + 1 : place + 2]]
    own_look = {"strokeDash", "shape"} & layer.mark.keys()
    in_legend = not layer.alone and layer.mark["type"] in ("line", "point") and not own_look
    return in_legend or bool(layer.says) or beside == ["text"] or layer.mark["type"] == "text"


def cell_of(
    memorised: int = 16,
    median: tuple = (116.0, 68.0, 144.0),
    rate: tuple = (0.0491, 0.0374, 0.0644),
    most: tuple = (1.0, 1.0),
    status: str = "completed",
    stopped: str | None = None,
    others: dict | None = None,
    **keys,
) -> Cell:
    """A run directory that came out like this, as summary.json has it; `others` are those that memorised."""
    runs = keys.get("num_runs", 16)
    experiment = make_experiment(keys, "sft" if keys.get("signal") == "example" else "train")
    manifest = {
        "kind": experiment.command,
        "condition": experiment.condition,
        "config": experiment.flat(),
        "resolved": experiment.resolved(),
        "status": status,
        "why": "DivergedError: run 3 diverged at its update 7",
    }
    summary = {
        "runs": runs,
        "memorised": memorised,
        "censored": runs - memorised,
        "episodes_to_memorise": {"median": median[0], "ci95": [*median[1:]]},
        "bits_per_episode": {"estimate": rate[0], "ci95": [*rate[1:]]},
        "ceilings": dict(zip(("capacity", "shannon_capacity"), most, strict=True)),
        "stopped": stopped,
    }
    if others is not None:
        median, rate = others["median"], others["rate"]
        summary["of_memorised"] = {
            "episodes_to_memorise": {"median": median[0], "ci95": [*median[1:]]},
            "bits_per_episode": {"estimate": rate[0], "ci95": [*rate[1:]]},
        }
    return Cell(Path("run"), manifest, summary if status == "completed" else {})
