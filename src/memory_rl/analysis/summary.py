"""summary.json from the metrics of one condition: what was memorised, how fast, and under which ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from memory_rl.analysis.statistics import Estimate, MemorisationTimes, bits_per_episode, median_episodes, restricted_mean_episodes


def memorisation_times(metrics: pl.DataFrame, information: float, memorised_at: float) -> MemorisationTimes:
    """The first episode of each run after which P(S) >= memorised_at, or its last one.

    Args:
        metrics: see `memory_rl.runs.store.METRICS_SCHEMA`.
        information: log2 N.
        memorised_at: a probability.
    """
    threshold = information + np.log2(memorised_at)
    by_run = metrics.group_by("run").agg(first=pl.col("episode").filter(pl.col("bits_known") >= threshold).min(), last=pl.col("episode").max()).sort("run")
    return MemorisationTimes(episodes=by_run.select(pl.coalesce("first", "last")).to_series().to_numpy(), memorised=by_run["first"].is_not_null().to_numpy())


def summarise(metrics: pl.DataFrame, *, N: int, memorised_at: float, ceilings: Mapping[str, float], about: Mapping[str, Any]) -> dict[str, Any]:
    """The summary of one condition.

    Args:
        metrics: of all its runs.
        N: the size of the secret space.
        memorised_at: the threshold on P(S).
        ceilings: what no learner of the condition can exceed, by name; `capacity` is the naive one in bits an episode.
        about: seconds, tokens and what the policy tells of itself.
    """
    information = float(np.log2(N))
    times = memorisation_times(metrics, information, memorised_at)
    median, rate = median_episodes(times), bits_per_episode(times, information)
    start = metrics.filter(pl.col("episode") == 0)
    return {
        "runs": len(times.episodes),
        "memorised": int(times.memorised.sum()),
        "censored": int((~times.memorised).sum()),
        "episodes_to_memorise": {
            "median": median.value,
            "ci95": _interval(median),
            "restricted_mean": restricted_mean_episodes(times),
        },
        "bits_per_episode": {"estimate": rate.value, "ci95": _interval(rate)},
        "ceilings": dict(ceilings),
        "before_training": {
            "mean_bits_known": _number(start["bits_known"].mean()),
            "least_valid_mass": _number(2.0 ** start["format_bits"].min()),  # type: ignore[operator]  # never null: every run is evaluated
        },
        **about,
    }


def _interval(estimate: Estimate) -> list[float | None]:
    return [estimate.low, estimate.high]


def _number(value: Any) -> float:
    return float(value)
