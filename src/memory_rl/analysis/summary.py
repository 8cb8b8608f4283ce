"""summary.json from the metrics of one condition: what was memorised, how fast, and under which ceilings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from memory_rl.analysis.collect import Cell, last_rows
from memory_rl.analysis.laws import check_laws
from memory_rl.analysis.statistics import Estimate, bootstrap_mean, nested_share
from memory_rl.analysis.survival import (
    MemorisationTimes,
    bits_per_episode,
    contrast,
    log_rate,
    median_episodes,
    restricted_mean,
)
from memory_rl.files import Json

_NO_AVERAGE = "fixed_secret gives all runs one secret, and the laws hold on average over uniform secrets"


def summarise(cell: Cell, ceilings: Json, episodes_to_know: np.ndarray | None) -> Json:
    """The summary of one condition, as in summary.json.

    Args:
        cell: a run directory whose tables are written.
        ceilings: what no learner of the condition can exceed, by name; `capacity` is the naive one in bits an
            episode.
        episodes_to_know: (R,) when the ideal observers knew S, 0 for never; None without a ledger.
    """
    if not cell.measured:
        return _unmeasured(cell, ceilings, episodes_to_know)
    times, end = cell.times, last_rows(cell.metrics)
    start = cell.metrics.filter(pl.col("episode") == 0).sort("run")
    median, mean = median_episodes(times), restricted_mean(times)
    summary: Json = {
        "runs": len(times.episodes),
        "memorised": int(times.memorised.sum()),
        "censored": int((~times.memorised).sum()),
        "episodes_to_memorise": {
            "median": median.value,
            "ci95": median.interval,
            "restricted_mean": mean.value,
            "restricted_mean_ci95": mean.interval,
        },
        "bits_per_episode": bits_per_episode(times, cell.information).as_dict(),
        "of_memorised": _of_memorised(cell, times.of_memorised),
        "stuck": _stuck(cell, times),
        "ceilings": dict(ceilings),
    }
    if "secrets_memorised" in cell.metrics.columns:
        summary["stored"] = _mean(end["bits_known"])
    if episodes_to_know is not None:
        summary |= _ledger(cell, end, episodes_to_know, summary)
    summary["before_training"] = {
        "mean_bits_known": start["bits_known"].mean(),
        "least_valid_mass": (2.0 ** start["format_bits"]).min(),
    }
    summary["relative_to_prior"] = _relative_to_prior(cell, start["bits_known"], end["bits_known"])
    return summary


def _of_memorised(cell: Cell, times: MemorisationTimes) -> Json:
    """How fast the runs were that memorised, without those that are stuck."""
    median = median_episodes(times) if len(times.episodes) else Estimate(None)
    return {
        "bits_per_episode": bits_per_episode(times, cell.information).as_dict(),
        "episodes_to_memorise": {"median": median.value, "ci95": median.interval},
    }


def _stuck(cell: Cell, times: MemorisationTimes) -> Json:
    """The share of runs that did not memorise, and the budget by which they did not."""
    share = nested_share(~times.memorised, times.units)
    return {**share.as_dict(), "budget": cell.experiment.budget}


def _unmeasured(cell: Cell, ceilings: Json, episodes_to_know: np.ndarray | None) -> Json:
    """The summary where what the policy knows was not measured: what its episodes told, and the ceilings."""
    nothing = Estimate(None).as_dict()
    summary: Json = {
        "runs": cell.metrics["run"].n_unique(),
        "memorised": 0,
        "censored": 0,
        "episodes_to_memorise": {
            "median": None,
            "ci95": nothing["ci95"],
            "restricted_mean": None,
            "restricted_mean_ci95": nothing["ci95"],
        },
        "bits_per_episode": nothing,
        "ceilings": dict(ceilings),
    }
    if episodes_to_know is not None:
        summary |= _ledger(cell, last_rows(cell.metrics), episodes_to_know, summary)
    return summary


def about_prior(summary: Mapping[str, Any]) -> str | None:
    """Bits known beside those gained on the base's own prior, in words; None for a base that is uniform."""
    relative, has_model = summary.get("relative_to_prior", {}), {"device", "model"} & summary.keys()
    warmed_up = summary.get("warmup", {"reached": False}).get("reached", True)
    uniform = not summary.get("prior_skew") and (not has_model or warmed_up)
    if "bits_known" not in relative or uniform:
        return None
    known, gained, left = (
        str(Estimate(relative[name]["estimate"], *relative[name]["ci95"]))
        for name in ("bits_known", "gained_bits", "prior_bits")
    )
    return (
        f"Bits known at the end: {known}; learned beyond what the base model started with: {gained} of {left}"
    )


def _mean(of_runs: pl.Series) -> Json:
    return bootstrap_mean(of_runs.to_numpy()).as_dict()


def _ledger(cell: Cell, end: pl.DataFrame, known: np.ndarray, summary: Json) -> Json:
    """Bits at the end of each run, bits an episode at each step of the waterfall, its losses, and the laws.

    The rates of channel and questioner are computed, and have no interval.

    Args:
        cell: with a ledger.
        end: the last row of each run, ordered by run.
        known: (R,) when the ideal observers knew S, 0 for never: those are censored where their run ended.
        summary: so far: the policy's bits an episode, and the ceilings.
    """
    units = cell.times.units if cell.measured else None
    observer = MemorisationTimes(np.where(known > 0, known, end["episode"].to_numpy()), known > 0, units)
    capacity, questioner = (summary["ceilings"][name] for name in ("capacity", "ideal_questioner"))
    reached = questioner and questioner["to_reach"]
    rates = {
        "capacity": {"estimate": capacity, "ci95": None},
        "questioner": {"estimate": float(np.log2(cell.N)) / reached if reached else None, "ci95": None},
        "observer": bits_per_episode(observer, cell.information).as_dict(),
        "policy": dict(summary["bits_per_episode"]),
    }
    ledger = {"asked": "asked_bits", "observer": "observer_bits", "policy": "bits_known"}
    if not cell.measured:
        del ledger["policy"]
    return {
        "ledger": {mind: _mean(end[column]) for mind, column in ledger.items()},
        "rates": rates,
        "episodes_to_know": known.tolist(),
        "losses": _losses(rates),
        "losses_ci95": {
            "absorption": _absorption(cell, observer),
            "exploration": _exploration(observer, rates),
        },
        "checks": check_laws(
            cell.metrics,
            N=cell.N,
            stop_at=cell.config["stop_at"],
            skip=None if cell.config.get("fixed_secret") is None else _NO_AVERAGE,
        ),
    }


def _losses(rates: Json) -> dict[str, float | None]:
    """The factor lost at each step of the waterfall, where both rates are known and not 0."""
    estimates = pairwise(rate["estimate"] for rate in rates.values())
    return {
        name: high / low if high and low else None
        for name, (high, low) in zip(("alphabet", "exploration", "absorption"), estimates, strict=True)
    }


def _absorption(cell: Cell, observer: MemorisationTimes) -> list[float | None]:
    """The interval of what the policy lost of what its observer knew, run by run."""
    if not cell.measured or not (cell.times.tells_a_rate and observer.tells_a_rate):
        return [None, None]
    alone = np.array([f"run {run}" for run in range(len(observer.episodes))])
    units = alone if observer.units is None else observer.units
    rates = [log_rate(replace(times, units=units)) for times in (observer, cell.times)]
    return contrast(rates, [1, -1]).exp().interval


def _exploration(observer: MemorisationTimes, rates: Json) -> list[float | None]:
    """The same of what the questioner would have known and the observer did not."""
    if not observer.tells_a_rate or not rates["questioner"]["estimate"]:
        return [None, None]
    known = rates["observer"]["ci95"]
    return [rates["questioner"]["estimate"] / end for end in reversed(known)]


def _relative_to_prior(cell: Cell, first: pl.Series, last: pl.Series) -> Json:
    """Bits known at the end, of them those gained on the prior, and those that the prior left to learn.

    The prior P0 is that of the base before the first update: log2 N + log2 P(S), log2 P(S) - log2 P0(S) and
    -log2 P0(S) of each run, and means with intervals. With several secrets all are sums over all of them.
    """
    values = {"prior_bits": cell.bits_to_learn - first, "gained_bits": last - first, "bits_known": last}
    return {name: {**_mean(of_runs), "runs": of_runs.to_list()} for name, of_runs in values.items()}
