"""Two laws that every honest experiment obeys, as tests on what was measured. A breach means a bug, or that the secret leaks to the policy.

Averaged over uniform secrets, and at a time that does not depend on S:

1. Policy within observer (Gibbs' inequality): E log2 P_policy(S) <= E log2 P_observer(S), for any policy that sees what the observer sees. More than that:
   the ratio M = P_policy(S) / P_observer(S) has E M <= 1 given all that was seen.
2. Observer equals asked (chain rule): the observer's bits are, on average, the information of the questions asked, I(S; R | A, history), summed.

The time matters. A run ends when P(S) is high, and so at a time that depends on S. The laws are therefore read off at the first evaluation at which the
policy was that sure of *any* answer, or at the end if it never was; such a time is known without S.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from memory_rl.analysis.statistics import bootstrap_mean

POLICY_WITHIN_OBSERVER = "policy bits <= observer bits"
OBSERVER_EQUALS_ASKED = "observer bits = information of the questions asked"

_CHANCE = 1e-4  # that an honest experiment is called a breach, at most
_ROUNDING = 1e-6  # bits


def check_laws(metrics: pl.DataFrame, *, N: int, stop_at: float, skip: str | None = None) -> dict[str, Any]:
    """Both laws on the runs of one condition.

    Args:
        metrics: of all its runs; see `memory_rl.runs.store.METRICS_SCHEMA`.
        N: the size of the secret space.
        stop_at: the probability of some answer at which the laws are read off.
        skip: why the laws cannot be judged, if so.

    Returns:
        By law: status (holds, breached or skipped), and the numbers behind it.
    """
    if skip is not None:
        return {name: {"law": law, "status": "skipped", "why": skip} for name, law in _LAWS.items()}
    rows = read_off(metrics, stop_at)
    policy, observer, asked = (rows[name].to_numpy() for name in ("bits_known", "observer_bits", "asked_bits"))
    return {
        "policy_within_observer": _policy_within_observer(policy - observer),
        "observer_equals_asked": _observer_equals_asked(observer - asked, rows["asked_variance"].to_numpy(), float(np.log2(N))),
    }


_LAWS = {"policy_within_observer": POLICY_WITHIN_OBSERVER, "observer_equals_asked": OBSERVER_EQUALS_ASKED}


def read_off(metrics: pl.DataFrame, stop_at: float) -> pl.DataFrame:
    """One row a run: its first evaluation with confidence >= stop_at, else its last."""
    ordered = metrics.sort("run", "episode").with_columns(sure=pl.col("confidence") >= stop_at)
    return ordered.group_by("run", maintain_order=True).agg(pl.exclude("sure").get(pl.when(pl.col("sure").any()).then(pl.col("sure").arg_max()).otherwise(-1)))


def breaches(checks: dict[str, Any]) -> list[str]:
    """A sentence for each law that was breached."""
    return [
        f"the law '{check['law']}' is breached (mean difference {check['mean_difference']:+.3g} bits over {check['runs']} runs): "
        "there is a bug, or the policy has seen the secret."
        for check in checks.values()
        if check["status"] == "breached"
    ]


def _policy_within_observer(difference: np.ndarray) -> dict[str, Any]:
    """Evidence against the first law: the product over runs of (1 + M) / 2, whose mean is at most 1, so that it exceeds x with probability 1 / x at most."""
    evidence = float((np.logaddexp2(0.0, difference) - 1).sum())
    interval = bootstrap_mean(difference)
    return {
        "law": POLICY_WITHIN_OBSERVER,
        "status": "breached" if evidence > -np.log2(_CHANCE) else "holds",
        "mean_difference": interval.value,
        "ci95": [interval.low, interval.high],
        "log2_evidence_against": evidence,
        "runs": len(difference),
    }


def _observer_equals_asked(difference: np.ndarray, variance: np.ndarray, information: float) -> dict[str, Any]:
    """The sum of the differences is a martingale whose variance the ledger knows, and whose steps are at most log2 N bits.

    Bernstein's inequality for martingales (Freedman 1975) then bounds how far from 0 it may be, even if a rare reward never came, or came at once:
    P(|sum| >= x) <= 2 exp(-x^2 / (2 (variance + x log2 N / 3))).
    """
    runs, total, spread = len(difference), abs(float(difference.sum())), float(variance.sum())

    def reach(probability: float) -> float:
        nats = np.log(2 / probability)
        return float(nats * information / 3 + np.sqrt((nats * information / 3) ** 2 + 2 * nats * spread))

    mean, half = float(difference.mean()), reach(0.05) / runs
    return {
        "law": OBSERVER_EQUALS_ASKED,
        "status": "breached" if (spread > 0 and total > reach(_CHANCE)) or (spread == 0 and total > _ROUNDING * runs) else "holds",
        "mean_difference": mean,
        "ci95": [mean - half, mean + half],
        "standard_deviation": float(np.sqrt(spread)) / runs,
        "runs": runs,
    }
