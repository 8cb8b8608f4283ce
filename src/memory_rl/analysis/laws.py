"""Two laws that every honest experiment obeys, as tests on what was measured.

A breach means a bug, or that the secret leaks to the policy.

Averaged over uniform secrets, and at a time that does not depend on S:

1. Policy within observer (Gibbs' inequality): E log2 P_policy(S) <= E log2 P_observer(S), for any policy that
   sees what the observer sees. More than that: the ratio M = P_policy(S) / P_observer(S) has E M <= 1 given
   all that was seen.
2. Observer equals asked (chain rule): the observer's bits are, on average, the information of the questions
   asked, I(S; R | A, history), summed.

The time matters. A run ends when P(S) is high, and so at a time that depends on S. The laws are therefore
read off no later than the first evaluation at which the policy was that sure of *any* answer; such a time is
known without S. The second law is judged there. The first is judged at several times on the way: a policy
that leaks S soon asks S, and then the observer knows it, too.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from memory_rl.analysis.statistics import bootstrap_mean
from memory_rl.files import Json

POLICY_WITHIN_OBSERVER = "policy bits <= observer bits"
OBSERVER_EQUALS_ASKED = "observer bits = information of the questions asked"
_LAWS = {"policy_within_observer": POLICY_WITHIN_OBSERVER, "observer_equals_asked": OBSERVER_EQUALS_ASKED}

_NO_POLICY = "what the policy knows was not measured"

_CHANCE = 1e-4  # that an honest experiment is called a breach, at most
_ROUNDING = 1e-6  # bits
_DIFFERENCE = pl.col("bits_known") - pl.col("observer_bits")


def check_laws(metrics: pl.DataFrame, *, N: int, stop_at: float, skip: str | None = None) -> Json:
    """Both laws on the runs of one condition.

    Args:
        metrics: of all its runs; see `memory_rl.runs.columns.METRICS_SCHEMA`.
        N: the size of the secret space.
        stop_at: the probability of some answer at which the laws are read off.
        skip: why the laws cannot be judged, if so.

    Returns:
        By law: status (holds, breached or skipped), and the numbers behind it.
    """
    if skip is not None:
        return {name: _skipped(law, skip) for name, law in _LAWS.items()}
    public = until_sure(metrics, stop_at)
    rows = public.group_by("run", maintain_order=True).last()
    return {
        "policy_within_observer": _skipped(POLICY_WITHIN_OBSERVER, _NO_POLICY)
        if public["bits_known"].null_count()
        else _policy_within_observer(public),
        "observer_equals_asked": _observer_equals_asked(
            (rows["observer_bits"] - rows["asked_bits"]).to_numpy(),
            rows["asked_variance"].to_numpy(),
            float(np.log2(N)),
        ),
    }


def _skipped(law: str, why: str) -> Json:
    return {"law": law, "status": "skipped", "why": why}


def until_sure(metrics: pl.DataFrame, stop_at: float) -> pl.DataFrame:
    """Each run's evaluations up to the first with confidence >= stop_at, or all, by run and episode.

    Where the confidence is unknown, the run was recorded in another trainer, which does not end it by P(S).
    """
    sure = (pl.col("confidence") >= stop_at).fill_null(False).cast(pl.Int32)
    return metrics.sort("run", "episode").filter((sure.cum_sum().over("run") - sure) == 0)


def breaches(checks: Json) -> list[str]:
    """A sentence for each law that was breached."""
    return [
        f"the law '{check['law']}' is breached (mean difference {check['mean_difference']:+.3g} bits over "
        f"{check['runs']} runs): there is a bug, or the policy has seen the secret."
        for check in checks.values()
        if check["status"] == "breached"
    ]


def _policy_within_observer(public: pl.DataFrame) -> Json:
    """Evidence against the first law, by Markov's inequality.

    At each time the product over runs of (1 + M) / 2 has a mean of at most 1, and so has the mean of these
    products over the times; it exceeds 1 / p with probability p at most.
    """
    times = _doubling(public["episode"].unique().sort().to_numpy())
    differences = [
        public.filter(pl.col("episode") <= time).group_by("run").last().select(_DIFFERENCE).to_series()
        for time in times
    ]
    by_time = np.stack(differences)  # (T, R)
    evidence = (np.logaddexp2(0.0, by_time) - 1).sum(axis=1)
    strongest = int(evidence.argmax())
    interval = bootstrap_mean(by_time[strongest])
    total = float(np.logaddexp2.reduce(evidence)) - float(np.log2(len(times)))
    return {
        "law": POLICY_WITHIN_OBSERVER,
        "status": "breached" if total > -np.log2(_CHANCE) else "holds",
        "mean_difference": interval.value,
        "ci95": interval.interval,
        "at_episode": int(times[strongest]),
        "log2_evidence_against": total,
        "runs": by_time.shape[1],
    }


def _doubling(episodes: np.ndarray) -> np.ndarray:
    """The first, second, third, fifth, ninth, ... and the last of the episodes."""
    last = len(episodes) - 1
    return np.asarray(episodes[np.unique([0, *2 ** np.arange(last.bit_length()), last])])


def _observer_equals_asked(difference: np.ndarray, variance: np.ndarray, information: float) -> Json:
    """Evidence against the second law, by Bernstein's inequality for martingales (Freedman 1975).

    The sum of the differences is a martingale whose variance the ledger knows, and whose steps are at most
    log2 N bits. So it is bounded how far from 0 it may be, even if a rare reward never came, or came at once:
    P(|sum| >= x) <= 2 exp(-x^2 / (2 (variance + x log2 N / 3))).
    """
    runs, total, spread = len(difference), abs(float(difference.sum())), float(variance.sum())

    def reach(probability: float) -> float:
        nats = np.log(2 / probability)
        linear = nats * information / 3
        return float(linear + np.sqrt(linear**2 + 2 * nats * spread))

    mean, half = float(difference.mean()), reach(0.05) / runs
    return {
        "law": OBSERVER_EQUALS_ASKED,
        "status": "breached" if total > (reach(_CHANCE) if spread else _ROUNDING * runs) else "holds",
        "mean_difference": mean,
        "ci95": [mean - half, mean + half],
        "standard_deviation": float(np.sqrt(spread)) / runs,
        "runs": runs,
    }
