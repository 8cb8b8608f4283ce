"""Scoring the secret and some samples alone changes no law, whatever the reward: the same episodes to
memorise and the same bits in distribution as if every answer were scored, and an exact ledger."""

import numpy as np
import polars as pl
import pytest
import scipy.stats

import memory_rl

CASES = {
    "bits": {"env_type": "multi_step", "N": 8, "max_episodes": 48},
    "sum": {"env_type": "multi_step", "credit": "episode", "N": 16, "max_episodes": 160},
    "bins": {"N": 16, "reward_type": "binned_log_distance", "reward_bins": 8, "max_episodes": 160},
    "log-distance": {"N": 16, "reward_type": "log_distance", "max_episodes": 160},
    "noise": {"N": 8, "reward_noise": 0.1, "max_episodes": 80},
    "secrets": {"N": 8, "num_secrets": 2, "max_episodes": 160},
}
LEDGER = ("asked_bits", "asked_variance", "observer_bits")


def ends(scoring: str, seed: int, **settings) -> pl.DataFrame:
    """What 100 runs knew when they had memorised, or at the end of their budget, and what they had earned."""
    result = memory_rl.train(num_runs=100, seed=seed, scoring=scoring, figures=False, **settings)
    last = result.metrics.sort("episode").group_by("run").last().sort("run")
    earned = (pl.col("reward") * pl.col("count")).sum().alias("earned")
    return last.join(result.episodes.group_by("run").agg(earned), on="run")


def ks_p_value(one: np.ndarray, other: np.ndarray) -> float:
    """Of the two-sample Kolmogorov-Smirnov test, by permutation, which censored runs' ties leave exact."""
    pooled = np.sort(np.concatenate([one, other]))
    last = np.append(pooled[1:] != pooled[:-1], True)  # of equal numbers

    def distance(of_one: np.ndarray) -> np.ndarray:
        return np.abs(np.cumsum(np.where(of_one, 1 / len(one), -1 / len(other)), axis=-1)[..., last]).max(-1)

    order = np.argsort(np.concatenate([one, other]), kind="stable")
    is_one = order < len(one)
    permuted = np.random.default_rng(0).permuted(np.tile(is_one, (1999, 1)), axis=1)
    return (1 + (distance(permuted) >= distance(is_one) - 1e-12).sum()) / 2000


def test_the_test_is_that_of_scipy_where_there_are_no_ties():
    random = np.random.default_rng(1)
    for shift in (0.0, 0.2, 0.35):
        one, other = random.normal(size=100), random.normal(size=100) + shift
        expected = scipy.stats.ks_2samp(one, other, method="exact").pvalue
        assert ks_p_value(one, other) == pytest.approx(expected, abs=0.04)
    tied = np.repeat([1.0, 2.0], 50)
    assert ks_p_value(tied, np.roll(tied, 7)) == 1.0
    assert ks_p_value(tied, np.repeat([1.0, 2.0], [20, 80])) < 0.001


@pytest.mark.parametrize(
    "name",
    [name if name in ("bits", "noise") else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)
def test_runs_are_alike(name):
    whole, paths = (ends(scoring, seed, **CASES[name]) for scoring, seed in (("all", 1), ("paths", 2)))
    assert (whole["episode"] < CASES[name]["max_episodes"]).sum() >= 30  # or there is little to compare
    for column in ("episode", "bits_known", "observer_bits", "earned"):
        assert ks_p_value(whole[column].to_numpy(), paths[column].to_numpy()) > 0.01, column


@pytest.mark.parametrize("name", CASES)
def test_the_ledger_is_that_of_the_episodes(name):
    settings = {**CASES[name], "max_episodes": 40}
    result = memory_rl.train(num_runs=3, scoring="paths", figures=False, **settings)
    recomputed = memory_rl.ledger_from_episodes(result.path)
    measured = result.metrics.filter(pl.col("episode") > 0)
    both = measured.join(recomputed, on=["run", "episode"], suffix="_again")
    assert both.height == measured.height >= 15
    assert measured["observer_bits"].max() > 1
    for column in LEDGER:
        np.testing.assert_allclose(both[column], both[f"{column}_again"], rtol=0, atol=1e-9)
