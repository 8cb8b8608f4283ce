"""Skipping silent updates is step-by-step sampling in distribution: episodes to memorise, bits at the end,
and what the observer knows."""

import numpy as np
import polars as pl
import pytest
import scipy.stats
from helpers import secrets_of, setting_of

import memory_rl
from memory_rl.assembly import make_sampling
from memory_rl.training.sampling import SkipAhead, StepByStep

CHANNELS = {
    "binary": {"N": 32},
    "binary with ppo": {"N": 32, "algorithm": "ppo", "batch_size": 2},
    "binned": {"N": 32, "reward_type": "binned_log_distance", "reward_bins": 4, "max_episodes": 800},
    "noisy": {"N": 16, "reward_noise": 0.05, "max_episodes": 2000},
}


def both(**settings):
    """The same experiment step by step and with skip-ahead, on different seeds: two independent samples."""
    return [memory_rl.train(**settings, seed=seed, skip_ahead=skip) for seed, skip in ((1, False), (2, True))]


def at_the_end(result, column) -> np.ndarray:
    return (
        result.metrics.sort("run", "episode").group_by("run", maintain_order=True).last()[column].to_numpy()
    )


def episodes_to_memorise(result) -> np.ndarray:
    """First episode with P(S) >= 1/2, or the last one."""
    threshold = np.log2(result.config["N"]) - 1
    first = pl.col("episode").filter(pl.col("bits_known") >= threshold).min()
    return (
        result.metrics.group_by("run").agg(pl.coalesce(first, pl.col("episode").max()))["episode"].to_numpy()
    )


def assert_alike(step_by_step, skipped):
    for sample in (
        episodes_to_memorise,
        lambda result: at_the_end(result, "bits_known"),
        lambda result: at_the_end(result, "asked_bits"),
    ):
        assert scipy.stats.ks_2samp(sample(step_by_step), sample(skipped)).pvalue > 0.01
    for episode in (8, 40, 160):  # what the observers know on the way, from the ledgers
        known = []
        for result in (step_by_step, skipped):
            so_far = (
                result.ledger.filter(pl.col("episode") <= episode)
                .sort("run", "episode")
                .group_by("run", maintain_order=True)
                .last()
            )
            known.append(so_far["observer_bits"].to_numpy())
        error = np.hypot(*(bits.std() / np.sqrt(len(bits)) for bits in known))
        assert abs(known[0].mean() - known[1].mean()) < 3 * error + 1e-9


@pytest.mark.parametrize("settings", CHANNELS.values(), ids=CHANNELS.keys())
def test_tabular_runs_are_alike(settings):
    assert_alike(*both(backend="tabular", num_runs=400, **settings))


@pytest.mark.parametrize(
    "settings",
    [{"N": 16}, {"N": 16, "reward_type": "binned_log_distance", "reward_bins": 4, "max_episodes": 200}],
    ids=["binary", "binned"],
)
def test_transformers_are_alike(settings):
    assert_alike(*both(num_runs=100, **settings))


def test_every_episode_is_charged():
    result = memory_rl.train(backend="tabular", N=64, num_runs=20, skip_ahead=True, max_episodes=403)
    charged = result.episodes.group_by("run").agg(pl.col("count").sum()).sort("run")["count"]
    assert (
        charged.to_list()
        == result.metrics.group_by("run").agg(pl.col("episode").max()).sort("run")["episode"].to_list()
    )
    assert charged.max() == 400  # whole updates of four
    unfinished = (
        result.metrics.sort("run", "episode")
        .group_by("run")
        .last()
        .filter(pl.col("bits_known") < np.log2(64 * 0.95))
    )
    assert (unfinished["episode"] == 400).all()
    assert unfinished.height > 0


def test_skipped_episodes_are_silent_and_their_fractions_are_told():
    result = memory_rl.train(backend="tabular", N=64, num_runs=20, skip_ahead=True)
    skipped = result.episodes.filter(pl.col("count") > 1).join(
        result.metrics.select("run", "secret").unique(), on="run"
    )
    assert (skipped["reward"] == (skipped["answer"] == skipped["secret"])).all()
    assert set(skipped["reward"]) == {0.0, 1.0}  # all wrong, and late in a run all right
    rows = (
        result.metrics.sort("run", "episode")
        .with_columns(since=pl.col("episode").diff().over("run"))
        .filter(pl.col("episode") > 0)
    )
    np.testing.assert_allclose(rows["zero_advantage_fraction"], (rows["since"] - 4) / rows["since"])
    np.testing.assert_array_equal(
        rows["update"], rows.select(pl.int_range(1, pl.len() + 1).over("run")).to_series()
    )


INEXACT = {
    "multi_step": {"env_type": "multi_step"},
    "posterior": {"algorithm": "posterior"},
    "no baseline": {"baseline": "none"},
}


def sampling_of(**keys):
    return make_sampling(setting_of(**keys), None, secrets_of(**keys))


@pytest.mark.parametrize("settings", INEXACT.values(), ids=INEXACT.keys())
def test_it_switches_itself_off_where_it_is_not_exact_and_says_so(settings, capsys):
    keys = {"backend": "tabular", "skip_ahead": True, "N": 16, **settings}
    assert type(sampling_of(**keys)) is StepByStep
    memory_rl.train(num_runs=1, max_episodes=8, quiet=False, **keys)
    why = setting_of(**keys).experiment.why_not_skip
    assert f"note: no silent updates are skipped: {why}." in capsys.readouterr().out.replace("\n", " ")


def test_it_is_on_for_the_transformer_and_off_for_the_table():
    assert type(sampling_of()) is SkipAhead
    assert type(sampling_of(skip_ahead=False)) is StepByStep
    assert type(sampling_of(backend="tabular")) is StepByStep
