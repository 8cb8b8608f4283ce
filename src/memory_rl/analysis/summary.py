"""summary.json from the metrics of one condition: what was memorised, how fast, and under which ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from memory_rl.analysis.laws import check_laws
from memory_rl.analysis.statistics import Estimate, bootstrap_mean
from memory_rl.analysis.survival import MemorisationTimes, bits_per_episode, median_episodes, restricted_mean


def memorisation_times(
    metrics: pl.DataFrame, information: float, memorised_at: float, secrets: int = 1
) -> MemorisationTimes:
    """The first episode of each run after which P(S) >= memorised_at, or its last one.

    Args:
        metrics: see `memory_rl.runs.store.METRICS_SCHEMA`.
        information: log2 N.
        memorised_at: a probability.
        secrets: of the secrets of a run, how many it must have memorised.
    """
    several = "secrets_memorised" in metrics.columns
    has = (
        pl.col("secrets_memorised") >= secrets
        if several
        else pl.col("bits_known") >= information + np.log2(memorised_at)
    )
    by_run = (
        metrics.group_by("run")
        .agg(first=pl.col("episode").filter(has).min(), last=pl.col("episode").max())
        .sort("run")
    )
    return MemorisationTimes(
        episodes=by_run.select(pl.coalesce("first", "last")).to_series().to_numpy(),
        memorised=by_run["first"].is_not_null().to_numpy(),
    )


def observer_times(metrics: pl.DataFrame, episodes_to_know: np.ndarray) -> MemorisationTimes:
    """When the observers knew S (R,), 0 for never; those are censored where their run ended."""
    last = metrics.group_by("run").agg(pl.col("episode").max()).sort("run")["episode"].to_numpy()
    knew = episodes_to_know > 0
    return MemorisationTimes(np.where(knew, episodes_to_know, last), knew)


def summarise(
    metrics: pl.DataFrame,
    *,
    N: int,
    memorised_at: float,
    stop_at: float,
    ceilings: Mapping[str, Any],
    episodes_to_know: np.ndarray | None,
    fixed_secret: bool,
    about: Mapping[str, Any],
    secrets: int = 1,
    prior_of: int | None = None,
) -> dict[str, Any]:
    """The summary of one condition.

    Args:
        metrics: of all its runs.
        N: the size of the secret space.
        memorised_at: the threshold on P(S).
        stop_at: the threshold on P(S) at which a run ends.
        ceilings: what no learner of the condition can exceed, by name; `capacity` is the naive one in bits an
            episode.
        episodes_to_know: (R,) when the ideal observers knew S, 0 for never; None without a ledger.
        fixed_secret: whether all runs had the same secret, so that no average over secrets can be taken.
        about: tokens and what the policy tells of itself.
        secrets: of the secrets of a run, how many it must have memorised; each is worth log2 N bits.
        prior_of: all the secrets of a run, where the policies began with a prior of their own, not near
            uniform, so that what was learned counts from there.
    """
    of_one = float(np.log2(N))
    information = secrets * of_one
    times = memorisation_times(metrics, of_one, memorised_at, secrets)
    median, mean, rate = median_episodes(times), restricted_mean(times), bits_per_episode(times, information)
    start = metrics.filter(pl.col("episode") == 0)
    summary = {
        "runs": len(times.episodes),
        "memorised": int(times.memorised.sum()),
        "censored": int((~times.memorised).sum()),
        "episodes_to_memorise": {
            "median": median.value,
            "ci95": _interval(median),
            "restricted_mean": mean.value,
            "restricted_mean_ci95": _interval(mean),
        },
        "bits_per_episode": {"estimate": rate.value, "ci95": _interval(rate)},
        "ceilings": dict(ceilings),
    }
    if "secrets_memorised" in metrics.columns:
        summary["stored"] = stored_bits(metrics)
    if episodes_to_know is not None:
        skip = (
            "fixed_secret gives all runs one secret, and the laws hold on average over uniform secrets"
            if fixed_secret
            else None
        )
        observed = bits_per_episode(observer_times(metrics, episodes_to_know), information)
        summary["ledger"] = _ledger(metrics)
        summary["rates"] = rates = _rates(of_one, ceilings, observed, rate)
        summary["losses"] = losses(rates)
        summary["checks"] = check_laws(metrics, N=N, stop_at=stop_at, skip=skip)
    return {
        **summary,
        "before_training": {
            "mean_bits_known": _number(start["bits_known"].mean()),
            "least_valid_mass": _number(2.0 ** start["format_bits"].min()),  # type: ignore[operator]  # never null: every run is evaluated
        },
        **(
            {"relative_to_prior": _relative_to_prior(metrics, prior_of * of_one)}
            if prior_of is not None
            else {}
        ),
        **about,
    }


def _relative_to_prior(metrics: pl.DataFrame, information: float) -> dict[str, Any]:
    """Bits that the prior left to learn, -log2 P0(S), and bits gained on it, log2 P(S) / P0(S) at the end: of
    each run, and means with intervals.

    With several secrets both are sums over all of them, of M log2 N bits (`information`).
    """
    first, last = (
        end["bits_known"].to_numpy()
        for end in (metrics.filter(pl.col("episode") == 0).sort("run"), last_rows(metrics))
    )
    values = {"prior_bits": information - first, "gained_bits": last - first}
    means = {name: bootstrap_mean(of_runs) for name, of_runs in values.items()}
    return {
        name: {"estimate": mean.value, "ci95": _interval(mean), "runs": values[name].tolist()}
        for name, mean in means.items()
    }


def last_rows(metrics: pl.DataFrame) -> pl.DataFrame:
    """The last row of each run, ordered by run."""
    return metrics.sort("run", "episode").group_by("run", maintain_order=True).last()


def stored_bits(metrics: pl.DataFrame) -> dict[str, Any]:
    """Bits known at the end of each run, summed over its secrets: mean over runs and its interval."""
    mean = bootstrap_mean(last_rows(metrics)["bits_known"].to_numpy())
    return {"estimate": mean.value, "ci95": _interval(mean)}


def _ledger(metrics: pl.DataFrame) -> dict[str, Any]:
    """Bits at the end of each run: mean over runs and its interval."""
    end = last_rows(metrics)
    columns = {"asked": "asked_bits", "observer": "observer_bits", "policy": "bits_known"}
    means = {name: bootstrap_mean(end[column].to_numpy()) for name, column in columns.items()}
    return {name: {"estimate": mean.value, "ci95": _interval(mean)} for name, mean in means.items()}


def _rates(
    information: float, ceilings: Mapping[str, Any], observer: Estimate, policy: Estimate
) -> dict[str, Any]:
    """Bits an episode at each step of the waterfall. Those of capacity and questioner are computed, and have
    no interval unless they were simulated.
    """
    asker = ceilings["ideal_questioner"]
    questioner = None if asker is None or asker["to_reach"] == 0 else information / asker["to_reach"]
    return {
        "capacity": {"estimate": ceilings["capacity"], "ci95": None},
        "questioner": {"estimate": questioner, "ci95": None},
        "observer": {"estimate": observer.value, "ci95": _interval(observer)},
        "policy": {"estimate": policy.value, "ci95": _interval(policy)},
    }


LOSSES = {
    "alphabet": ("capacity", "questioner"),
    "exploration": ("questioner", "observer"),
    "absorption": ("observer", "policy"),
}


def losses(rates: Mapping[str, Any]) -> dict[str, float | None]:
    """The factor that is lost at each step of the waterfall, where both rates are known and not 0."""

    def factor(above: str, below: str) -> float | None:
        high, low = rates[above]["estimate"], rates[below]["estimate"]
        return high / low if high is not None and low else None

    return {name: factor(*pair) for name, pair in LOSSES.items()}


def _interval(estimate: Estimate) -> list[float | None]:
    return [estimate.low, estimate.high]


def _number(value: Any) -> float:
    return float(value)
