"""The ledger of whole experiments: it changes nothing, it can be recomputed from the episodes, and its
columns are what Bayes by brute force says."""

import itertools
import json

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import memory_rl
from memory_rl.api import bounds_keys
from memory_rl.information.observer import Observer
from memory_rl.task import MultiStep, SecretSpace, episode_table
from memory_rl.training.accounts import ask, outcomes_of

LEDGER = ["observer_bits", "asked_bits", "asked_variance"]
CONDITIONS = {
    "binary": {"N": 16},
    "binned": {"N": 37, "reward_type": "binned_log_distance", "reward_bins": 5},
    "noisy distance": {"N": 16, "reward_type": "log_distance", "reward_noise": 0.2},
    "bits": {"N": 11, "env_type": "multi_step"},
    "noisy bits": {"N": 11, "env_type": "multi_step", "reward_noise": 0.2, "tabular_bits": "prefixes"},
    "rewards to go": {"N": 11, "env_type": "multi_step", "credit": "reward_to_go"},
    "noisy sum": {"N": 11, "env_type": "multi_step", "credit": "episode", "reward_noise": 0.2},
    "posterior": {"N": 16, "algorithm": "posterior", "group_size": 1},
    "ppo": {"N": 16, "algorithm": "ppo", "batch_size": 2},
    "sampled answers": {"N": 16, "signal": "teacher", "told": "sampled"},
    "sampled bits": {"N": 11, "signal": "teacher", "told": "sampled", "env_type": "multi_step"},
    "a teacher who tells all": {"N": 11, "signal": "teacher"},
    "an observer who teaches": {"N": 16, "signal": "teacher", "teacher": "observer", "reward_noise": 0.1},
    "skipping ahead": {"N": 64, "skip_ahead": True, "max_episodes": 400},
    "skipping ahead among bins": {
        "N": 37,
        "reward_type": "binned_log_distance",
        "reward_bins": 3,
        "skip_ahead": True,
        "batch_size": 2,
        "max_episodes": 400,
    },
    "skipping ahead through noise": {"N": 16, "reward_noise": 0.1, "skip_ahead": True},
}


def train(**settings):
    return memory_rl.train(**{"backend": "tabular", "num_runs": 5, "max_episodes": 80, **settings})


@pytest.mark.parametrize("settings", CONDITIONS.values(), ids=CONDITIONS.keys())
def test_the_ledger_changes_no_number(settings):
    with_ledger, without = train(**settings), train(**settings, ledger=False)
    assert_frame_equal(with_ledger.metrics.drop(LEDGER), without.metrics.drop(LEDGER), check_exact=True)
    assert_frame_equal(with_ledger.episodes, without.episodes, check_exact=True)
    assert without.metrics[LEDGER].null_count().row(0) == (without.metrics.height,) * 3
    (summary,) = without.summary.values()
    assert not {"ledger", "rates", "losses", "checks"} & set(summary)
    assert not list(without.path.glob("figures/ledger*"))


@pytest.mark.parametrize("settings", CONDITIONS.values(), ids=CONDITIONS.keys())
def test_the_ledger_is_recomputed_from_the_episodes_alone(settings):
    result = train(**settings)
    recomputed = memory_rl.ledger_from_episodes(result.path)
    assert recomputed.height == result.episodes.select("run", "episode").n_unique()
    measured = (
        result.metrics.filter(pl.col("episode") > 0).select("run", "episode", *LEDGER).sort("run", "episode")
    )
    latest = recomputed.sort("episode"), measured.select("run", "episode").sort("episode")
    again = (
        latest[1].join_asof(latest[0], on="episode", by="run").sort("run", "episode").select(measured.columns)
    )
    assert_frame_equal(again, measured, check_exact=False, abs_tol=1e-9)


def test_the_ledger_of_the_transformer_and_of_examples():
    local = memory_rl.train(N=16, env_type="multi_step", num_runs=3, max_episodes=40)
    shown = memory_rl.sft(N=16, num_runs=3)
    for result in (local, shown):
        last = result.metrics.sort("episode").group_by("run", maintain_order=True).last().sort("run")
        again = (
            memory_rl.ledger_from_episodes(result.path)
            .group_by("run", maintain_order=True)
            .last()
            .sort("run")
        )
        np.testing.assert_allclose(again["observer_bits"], last["observer_bits"], atol=1e-9)
        np.testing.assert_allclose(again["asked_bits"], last["asked_bits"], atol=1e-9)
    assert (
        shown.summary["sft"]["ledger"]["asked"]["estimate"]
        == shown.summary["sft"]["ledger"]["observer"]["estimate"]
        == 4.0
    )
    assert shown.summary["sft"]["rates"]["observer"]["estimate"] == 4.0  # known after one example
    assert_frame_equal(shown.ledger, memory_rl.ledger_from_episodes(shown.path))


def test_rates_are_bits_over_the_episodes_to_the_same_event():
    """The observer's rate, recomputed: log2 N over the mean of the first episodes after which it gave S at
    least the threshold."""
    result = train(N=64, num_runs=20, max_episodes=None, memorised_at=0.9)
    (summary,) = result.summary.values()
    knows = (
        result.ledger.filter(pl.col("observer_bits") >= np.log2(64 * 0.9))
        .group_by("run")
        .agg(pl.col("episode").min())
    )
    assert knows.height == 20
    rates, losses = summary["rates"], summary["losses"]
    assert rates["observer"]["estimate"] == pytest.approx(6 / knows["episode"].mean())
    assert rates["policy"] == summary["bits_per_episode"]
    assert rates["questioner"]["estimate"] == pytest.approx(
        6 / memory_rl.bounds(N=64, memorised_at=0.9).ideal_questioner.to_reach
    )
    chain = [rates[mind]["estimate"] for mind in ("capacity", "questioner", "observer", "policy")]
    assert [losses[name] for name in ("alphabet", "exploration", "absorption")] == pytest.approx(
        [a / b for a, b in itertools.pairwise(chain)]
    )


def test_observers_that_never_know_are_censored():
    result = train(N=256, num_runs=6, max_episodes=40)
    (summary,) = result.summary.values()
    knew = (result.ledger.filter(pl.col("observer_bits") >= 7).group_by("run").agg(pl.col("episode").min()))[
        "episode"
    ]
    spent = knew.sum() + (6 - len(knew)) * 40
    assert summary["rates"]["observer"]["estimate"] == pytest.approx(8 * len(knew) / spent)
    assert len(knew) < 6


def test_no_question_tells_more_than_the_channel_can():
    for settings in CONDITIONS.values():
        keys = {key: value for key, value in settings.items() if key in bounds_keys()}
        capacity = memory_rl.bounds(**keys).shannon_capacity
        ledger = train(**settings).ledger.sort("run", "episode")
        told = (
            ledger["asked_bits"]
            - ledger.select(pl.col("asked_bits").shift(1, fill_value=0.0).over("run"))["asked_bits"]
        )
        assert told.max() <= capacity + 1e-9


def brute_force_posterior(N, episodes, noise, summed) -> np.ndarray:
    """p(S | episodes) of the multi_step world by enumerating all flips; an episode is (choices, rewards), -1
    for an invalid turn."""
    k = (N - 1).bit_length()
    posterior = np.ones(N)
    for choices, rewards in episodes:
        for secret in range(N):
            truth = [int(choices[j] == (secret >> (k - 1 - j)) & 1) for j in range(k)]
            total = 0.0
            for flips in itertools.product([0, 1], repeat=k):
                seen = [t ^ f for t, f in zip(truth, flips, strict=True)]
                fits = sum(seen) == sum(rewards) if summed else seen == list(rewards)
                total += fits * np.prod([noise if f else 1 - noise for f in flips])
            posterior[secret] *= total
    return posterior / posterior.sum()


@pytest.mark.parametrize("noise", [0.0, 0.15])
@pytest.mark.parametrize("summed", [True, False])
def test_the_observer_of_bits_sees_each_reward_or_only_their_sum(noise, summed):
    N, rng, secret = 11, np.random.default_rng(0), 6
    environment = MultiStep.with_noise(SecretSpace(N), noise)
    table = episode_table(environment, credit="episode" if summed else "step")
    observer, episodes = Observer(1, N), []
    for turns in (4, 2, 4, 4):  # the second episode forfeits two turns
        choices = rng.integers(2, size=(1, 1, 4))
        choices[..., turns:] = -1
        rewards = environment.rewards(choices, np.array([secret]), rng.random(choices.shape))
        question, level = ask(table, choices[0], rewards[0])
        observer.observe(np.array([0]), question, outcomes_of(table), level)
        episodes.append((choices[0, 0].tolist(), rewards[0, 0].astype(int).tolist()))
        np.testing.assert_allclose(
            observer.posterior(np.array([0]))[0],
            brute_force_posterior(N, episodes, noise, summed),
            atol=1e-12,
        )


def test_an_example_of_either_world_shows_the_secret():
    for environment in (MultiStep.with_noise(SecretSpace(11)), MultiStep.with_noise(SecretSpace(16))):
        for secret in range(environment.space.N):
            table = episode_table(environment, shows_answer=True)
            _, level = ask(table, environment.choices(np.array([secret])), np.full((1, 4), np.nan))
            assert level.tolist() == [secret]


def test_the_summary_names_the_minds_and_losses():
    (summary,) = train(N=16).summary.values()
    assert list(summary["rates"]) == ["capacity", "questioner", "observer", "policy"]
    assert list(summary["losses"]) == ["alphabet", "exploration", "absorption"]
    assert list(summary["ledger"]) == ["asked", "observer", "policy"]
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
