"""Runs of another implementation beside many of the package's own: does it behave as a sound one does?

The reference runs come with the package: 128 of each estimator at N = 16 and 64, all from the built-in base
model, at the default settings. What is compared is the curve of bits known against episodes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import polars as pl

from memory_rl.analysis.samples import BOOKKEEPING, Sample
from memory_rl.files import Json

ALPHA = 0.01
"""Outside, where a sound implementation would lie so far away with a smaller probability."""

ENDS_AT = 0.95
"""P(S) at which a run of the package ends by default."""

BAND = (0.05, 0.5, 0.95)
PERMUTATIONS = 9999
_LEAST_SPREAD = 0.05  # bits; where all runs still know the same, rounding is no deviation

SHIPPED: dict[str, Any] = {
    "settings": pl.String,
    "episodes": pl.List(pl.Int32),
    "bits_known": pl.List(pl.Float32),
}
"""One row per run: what was run, as JSON; the episodes of its curve, and the bits known after each."""

_FREE = (BOOKKEEPING - {"base_seed"}) | {
    "max_episodes",
    "evaluate_every",
    "stop_at",
    "memorised_at",
    "ledger",
    "device",
}
"""Settings that a curve does not depend on, but for where it ends and how often it is measured."""
_HOW = ("scoring", "skip_ahead", "backend", "wording", "warmup", "warmup_tolerance", "inputs")


@dataclass(frozen=True)
class Reference:
    """The curves of m runs of one estimator.

    Attributes:
        settings: what was run.
        episodes: (T,) increasing.
        bits: (m, T) bits known after them; after a run's end those at its end.
    """

    settings: Json
    episodes: np.ndarray
    bits: np.ndarray

    def band(self) -> pl.DataFrame:
        """Quantiles over its runs: episode, low (5 %), median and high (95 %)."""
        low, median, high = np.quantile(self.bits, BAND, axis=0)
        return pl.DataFrame({"episode": self.episodes, "low": low, "median": median, "high": high})


@dataclass(frozen=True)
class Placement:
    """Where n runs lie beside a reference.

    Attributes:
        runs: n.
        reference_runs: m.
        p: how likely n sound runs would deviate at least as far.
        episode: where they deviate most.
        bits: by how many, theirs less the reference's, as means over runs there.
    """

    runs: int
    reference_runs: int
    p: float
    episode: int
    bits: float

    @property
    def inside(self) -> bool:
        """Whether nothing speaks against a sound implementation."""
        return self.p >= ALPHA


def settings_compared(sample: Sample) -> Json:
    """Of what was run, all that a curve of bits known depends on."""
    return {
        key: value for key, value in sample.first.settings.items() if key not in _FREE and key not in _HOW
    }


def curves(sample: Sample, episodes: np.ndarray) -> np.ndarray:
    """Bits known of each run after each of these episodes: (runs, T).

    They are those at the last evaluation until then. From the first evaluation at which P(S) is at least
    `ENDS_AT` a run counts as ended and keeps log2(N ENDS_AT), whether or not its trainer went on; one that
    ended otherwise has NaN beyond its end.
    """
    return np.concatenate([_curves(cell.metrics, cell.N, episodes) for cell in sample.cells])


def _curves(metrics: pl.DataFrame, N: int, episodes: np.ndarray) -> np.ndarray:
    found, most = [], math.log2(N * ENDS_AT)
    for (_,), rows in metrics.sort("run", "episode").group_by("run", maintain_order=True):
        at, bits = rows["episode"].to_numpy(), rows["bits_known"].to_numpy()
        values = bits[np.maximum(np.searchsorted(at, episodes, side="right") - 1, 0)].astype(float)
        values[episodes > at[-1]] = np.nan
        done = at[bits >= most - 1e-9]
        values[episodes >= min(done, default=np.inf)] = most
        found.append(values)
    return np.array(found)


def place(reference: Reference, bits: np.ndarray, seed: int = 0) -> Placement:
    """Lays n runs beside a reference by a permutation test of the greatest deviation of their mean curve.

    The statistic is max over episodes of |mean of the n - mean of the m| / s, with s the standard deviation
    of all n + m runs at that episode; its distribution is that of n runs drawn from all n + m (the max-T test
    of Westfall and Young 1993). Episodes beyond the end of one of the n runs are left out.

    Args:
        reference: of m runs.
        bits: (n, T) at the reference's episodes; NaN beyond a run's end.
        seed: of the permutations.
    """
    whole = ~np.isnan(bits).any(axis=0)
    ours, theirs = bits[:, whole], reference.bits[:, whole]
    pooled = np.concatenate([ours, theirs])
    n, total = len(ours), len(pooled)
    spread = np.maximum(pooled.std(axis=0, ddof=1), _LEAST_SPREAD)

    def deviation(chosen: np.ndarray) -> np.ndarray:
        """(draws, T) differences of means, for (draws, n) rows."""
        of_chosen = pooled[chosen].mean(axis=1)
        of_others = (pooled.sum(axis=0) - n * of_chosen) / (total - n)
        return (of_chosen - of_others) / spread

    seen = deviation(np.arange(n)[None])[0]
    most = int(np.abs(seen).argmax())
    drawn = _draws(n, total, seed)
    greatest = np.concatenate([np.abs(deviation(part)).max(axis=1) for part in np.array_split(drawn, 20)])
    as_far = int((greatest >= np.abs(seen).max() - 1e-12).sum())
    p = as_far / total if n == 1 else (1 + as_far) / (1 + len(drawn))
    episode = int(reference.episodes[whole][most])
    difference = float(ours[:, most].mean() - theirs[:, most].mean())
    return Placement(n, len(theirs), p, episode, difference)


def _draws(n: int, total: int, seed: int) -> np.ndarray:
    """(draws, n) choices of n rows of all: every one of them for a single run, else random ones."""
    if n == 1:
        return np.arange(total)[:, None]
    generator = np.random.default_rng(seed)
    return np.argsort(generator.random((PERMUTATIONS, total)), axis=1)[:, :n]


@cache
def shipped() -> tuple[Reference, ...]:
    """All references that come with the package."""
    with (resources.files("memory_rl") / "studies" / "reference.parquet").open("rb") as file:
        table = pl.read_parquet(file)
    return tuple(
        Reference(
            json.loads(settings),
            rows["episodes"][0].to_numpy(),
            np.array(rows["bits_known"].to_list()),
        )
        for (settings,), rows in table.group_by("settings", maintain_order=True)
    )


def estimator_of(manifest: Json) -> str | None:
    """What another trainer estimates the gradient by, as `algorithm` names it; None where nobody knows."""
    trainer = manifest["trainer"]
    if trainer["name"] != "GRPOTrainer":
        return None
    settings = trainer["settings"]
    if settings.get("loss_type") == "cispo":
        return "cispo"
    if settings.get("num_iterations", 1) > 1:
        return "gspo" if settings.get("importance_sampling_level") == "sequence" else "ppo"
    return "grpo" if settings.get("scale_rewards") == "group" else "reinforce"


def find_reference(sample: Sample, references: Sequence[Reference]) -> tuple[Reference | None, list[str]]:
    """The reference of another trainer's runs, and in which keys they differ from it, in words.

    Only keys that both have are compared; the base model has no name that both know, and is left out.
    """
    ours = settings_compared(sample) | {"algorithm": estimator_of(sample.first.manifest)}
    if ours["kind"] == "sft":
        del ours["algorithm"]
    must = ("kind", "condition", "N", "algorithm", "credit", "num_secrets")
    alike = [one for one in references if all(ours.get(key) == one.settings.get(key) for key in must)]
    if not alike:
        return None, []
    found, both = alike[0], ours.keys() & alike[0].settings.keys() - {"model_name"}
    return found, [
        f"{key}={ours[key]} and not {found.settings[key]}"
        for key in sorted(both)
        if ours[key] != found.settings[key]
    ]
