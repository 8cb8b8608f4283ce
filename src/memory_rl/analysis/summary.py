"""summary.json from the metrics of one condition: what was memorised, how fast, and under which ceilings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from memory_rl.analysis.laws import check_laws
from memory_rl.analysis.statistics import bootstrap_mean
from memory_rl.analysis.survival import (
    MemorisationTimes,
    bits_per_episode,
    median_episodes,
    restricted_mean,
)

_NO_AVERAGE = "fixed_secret gives all runs one secret, and the laws hold on average over uniform secrets"


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
    has = (
        pl.col("secrets_memorised") >= secrets
        if "secrets_memorised" in metrics.columns
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


@dataclass(frozen=True)
class Measurements:
    """What was measured of the runs of one condition, and what of it counts.

    Attributes:
        metrics: of all its runs.
        N: the size of the secret space.
        memorised_at: the threshold on P(S).
        stop_at: the threshold on P(S) at which a run ends.
        ceilings: what no learner of the condition can exceed, by name; `capacity` is the naive one in bits an
            episode.
        secrets: of the secrets of a run, how many it must have memorised; each is worth log2 N bits.
        episodes_to_know: (R,) when the ideal observers knew S, 0 for never; None without a ledger.
        fixed_secret: whether all runs had the same secret, so that no average over secrets can be taken.
        prior_of: all the secrets of a run, where the policies started with a prior of their own, not near
            uniform, so that what was learned counts from there.
    """

    metrics: pl.DataFrame
    N: int
    memorised_at: float
    stop_at: float
    ceilings: Mapping[str, Any]
    secrets: int = 1
    episodes_to_know: np.ndarray | None = None
    fixed_secret: bool = False
    prior_of: int | None = None

    @property
    def bits(self) -> float:
        """log2 N, what one secret is worth."""
        return float(np.log2(self.N))

    @cached_property
    def times(self) -> MemorisationTimes:
        """When each run memorised."""
        return memorisation_times(self.metrics, self.bits, self.memorised_at, self.secrets)

    @cached_property
    def start(self) -> pl.DataFrame:
        """The first row of each run, ordered by run."""
        return self.metrics.filter(pl.col("episode") == 0).sort("run")

    @cached_property
    def end(self) -> pl.DataFrame:
        """The last row of each run, ordered by run."""
        return last_rows(self.metrics)


def summarise(measured: Measurements) -> dict[str, Any]:
    """The summary of one condition, as in summary.json."""
    times = measured.times
    median, mean = median_episodes(times), restricted_mean(times)
    summary: dict[str, Any] = {
        "runs": len(times.episodes),
        "memorised": int(times.memorised.sum()),
        "censored": int((~times.memorised).sum()),
        "episodes_to_memorise": {
            "median": median.value,
            "ci95": median.interval,
            "restricted_mean": mean.value,
            "restricted_mean_ci95": mean.interval,
        },
        "bits_per_episode": bits_per_episode(times, measured.secrets * measured.bits).as_dict(),
        "ceilings": dict(measured.ceilings),
    }
    if "secrets_memorised" in measured.metrics.columns:
        summary["stored"] = _mean(measured.end["bits_known"])
    if measured.episodes_to_know is not None:
        summary |= _ledger(measured, measured.episodes_to_know, summary["bits_per_episode"])
    summary["before_training"] = {
        "mean_bits_known": measured.start["bits_known"].mean(),
        "least_valid_mass": (2.0 ** measured.start["format_bits"]).min(),
    }
    if measured.prior_of is not None:
        summary["relative_to_prior"] = _relative_to_prior(measured, measured.prior_of)
    return summary


def last_rows(metrics: pl.DataFrame) -> pl.DataFrame:
    """The last row of each run, ordered by run."""
    return metrics.sort("run", "episode").group_by("run", maintain_order=True).last()


def _mean(of_runs: pl.Series) -> dict[str, Any]:
    return bootstrap_mean(of_runs.to_numpy()).as_dict()


def _ledger(measured: Measurements, known: np.ndarray, policy: Mapping[str, Any]) -> dict[str, Any]:
    """Bits at the end of each run, bits an episode at each step of the waterfall, its losses, and the laws.

    The rates of channel and questioner are computed, and have no interval.

    Args:
        measured: with a ledger.
        known: (R,) when the ideal observers knew S, 0 for never: those are censored where their run ended.
        policy: its bits an episode.
    """
    end = measured.end
    observer = MemorisationTimes(np.where(known > 0, known, end["episode"].to_numpy()), known > 0)
    capacity, questioner = measured.ceilings["capacity"], measured.ceilings["ideal_questioner"]
    reached = questioner and questioner["to_reach"]
    rates = {
        "capacity": {"estimate": capacity, "ci95": None},
        "questioner": {"estimate": measured.bits / reached if reached else None, "ci95": None},
        "observer": bits_per_episode(observer, measured.secrets * measured.bits).as_dict(),
        "policy": dict(policy),
    }
    return {
        "ledger": {
            "asked": _mean(end["asked_bits"]),
            "observer": _mean(end["observer_bits"]),
            "policy": _mean(end["bits_known"]),
        },
        "rates": rates,
        "losses": _losses(rates),
        "checks": check_laws(
            measured.metrics,
            N=measured.N,
            stop_at=measured.stop_at,
            skip=_NO_AVERAGE if measured.fixed_secret else None,
        ),
    }


def _losses(rates: Mapping[str, Any]) -> dict[str, float | None]:
    """The factor lost at each step of the waterfall, where both rates are known and not 0."""
    estimates = pairwise(rate["estimate"] for rate in rates.values())
    return {
        name: high / low if high is not None and low else None
        for name, (high, low) in zip(("alphabet", "exploration", "absorption"), estimates, strict=True)
    }


def _relative_to_prior(measured: Measurements, secrets: int) -> dict[str, Any]:
    """Bits that the prior left to learn, -log2 P0(S), and bits gained on it, log2 P(S) / P0(S) at the end.

    Of each run, and means with intervals. With several secrets both are sums over all of them.
    """
    first, last = measured.start["bits_known"], measured.end["bits_known"]
    values = {"prior_bits": secrets * measured.bits - first, "gained_bits": last - first}
    return {name: {**_mean(of_runs), "runs": of_runs.to_list()} for name, of_runs in values.items()}
