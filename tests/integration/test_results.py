"""Whole experiments, small: what they write, that it hangs together, and that it can be made again."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from helpers import bits_known

import memory_rl
from memory_rl.assembly import make_setting
from memory_rl.experiment import make_experiment
from memory_rl.policies.base import first_prompt
from memory_rl.populations import make_learners
from memory_rl.reporting.headline import headline
from memory_rl.runs.columns import EPISODES_SCHEMA, METRICS_SCHEMA
from memory_rl.task import SecretSpace, SingleStep, make_channel

SMALL = {"N": 8, "num_runs": 3, "max_episodes": 60}


def test_the_run_directory_is_complete_and_loads_again(capfd):
    result = memory_rl.train(**SMALL, log_path="run")
    assert capfd.readouterr() == ("", "")  # nothing is printed unless asked
    files = {str(file.relative_to("run")) for file in result.path.rglob("*") if file.is_file()}
    assert files == {
        "manifest.json", "summary.json",
        "metrics.parquet", "episodes.parquet", "timing.parquet", "film.parquet",
        "figures/bits_known.svg", "figures/ledger.svg",
    }  # fmt: skip
    assert (result.path / "figures/bits_known.svg").read_text().startswith("<svg")
    assert "<svg" in (result.path / "figures/bits_known.svg").read_text()
    assert dict(result.metrics.schema) == {name: kind() for name, kind in METRICS_SCHEMA.items()}
    assert dict(result.episodes.schema) == {name: kind() for name, kind in EPISODES_SCHEMA.items()}

    again = memory_rl.load("run")
    assert again.summary == result.summary
    assert again.config == result.config
    assert again.metrics.equals(result.metrics)
    assert again.manifest["status"] == "completed"
    assert result.config["N"] == 8
    assert result.plot().to_dict()["title"]["text"] == "binary, N = 8"
    assert f"binary, N = 8: {headline(result.cell)}" in repr(result)
    policy = result.summary["binary"]["rates"]["policy"]["estimate"]
    assert f"-> policy {policy:.3g}." in repr(result)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"env_type": "multi_step"},
        {"reward_type": "binned_log_distance", "reward_bins": 4, "reward_noise": 0.2},
        {"algorithm": "ppo", "batch_size": 2},
    ],
    ids=["binary", "multi_step", "noisy", "ppo"],
)
def test_the_same_seed_gives_the_same_bytes(settings):
    first, second = (memory_rl.train(**SMALL, **settings) for _ in range(2))
    for name in ("metrics.parquet", "episodes.parquet"):
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()
    other = memory_rl.train(**SMALL, **settings, seed=1)
    assert not other.episodes["answer"].equals(first.episodes["answer"])


def test_a_runs_numbers_do_not_depend_on_its_company():
    few, many = memory_rl.train(**SMALL), memory_rl.train(**{**SMALL, "num_runs": 5})
    joined = few.metrics.join(many.metrics, on=["run", "episode"], suffix="_many")
    assert joined.height == few.metrics.height
    np.testing.assert_allclose(joined["bits_known"], joined["bits_known_many"], atol=1e-3)


def test_metrics_are_what_the_episodes_say():
    result = memory_rl.train(
        N=16,
        num_runs=4,
        max_episodes=80,
        reward_type="log_distance",
        group_size=4,
        batch_size=2,
        skip_ahead=False,
    )
    environment = SingleStep(SecretSpace(16), make_channel("log_distance", 16))
    secrets = result.metrics.group_by("run").agg(pl.col("secret").first())
    episodes = result.episodes.join(secrets, on="run")
    answers = episodes["answer"].fill_null(-1).to_numpy()
    np.testing.assert_array_equal(
        episodes["reward"], environment.channel.rewards(answers, episodes["secret"].to_numpy())
    )

    by_batch = (
        episodes.with_columns(batch=(pl.col("episode") - 1) // 8 * 8 + 8, group=(pl.col("episode") - 1) // 4)
        .group_by("run", "batch", "group")
        .agg(
            pl.col("reward").mean(),
            silent=pl.col("reward").n_unique() == 1,
            invalid=pl.col("answer").null_count() / 4,
        )
        .group_by("run", "batch")
        .agg(pl.col("reward").mean(), pl.col("silent").mean(), pl.col("invalid").mean())
    )
    both = result.metrics.filter(pl.col("episode") > 0).join(
        by_batch, left_on=["run", "episode"], right_on=["run", "batch"]
    )
    assert both.height == by_batch.height == result.metrics.height - 4
    np.testing.assert_allclose(both["reward_mean"], both["reward"])
    np.testing.assert_allclose(both["zero_advantage_fraction"], both["silent"])
    np.testing.assert_allclose(both["invalid_fraction"], both["invalid"])
    np.testing.assert_allclose(both["bits_known"], both["format_bits"] + both["content_bits"])

    updates = (
        result.metrics.sort("run", "episode")
        .with_columns(step=pl.col("update").diff().over("run"))
        .filter(pl.col("episode") > 0)
    )
    np.testing.assert_array_equal(
        updates["step"], (updates["zero_advantage_fraction"] < 1).cast(pl.Int64)
    )  # no step without a signal


def test_a_silent_group_changes_nothing():
    metrics = memory_rl.train(N=64, num_runs=4, max_episodes=200, skip_ahead=False).metrics.sort(
        "run", "episode"
    )
    steps = metrics.with_columns(pl.col("bits_known").diff().over("run").alias("change")).filter(
        pl.col("episode") > 0
    )
    silent = steps.filter(pl.col("zero_advantage_fraction") == 1)
    assert silent.height > 50
    assert (silent["change"] == 0).all()
    assert (steps.filter(pl.col("zero_advantage_fraction") == 0)["change"] != 0).all()


def test_summary_is_what_the_metrics_say():
    result = memory_rl.train(N=16, num_runs=6, max_episodes=400, learning_rate=1e-3)
    summary = result.summary["binary"]
    first = {}
    for row in result.metrics.sort("episode").iter_rows(named=True):
        if row["bits_known"] >= 3.0:  # log2 N - 1
            first.setdefault(row["run"], row["episode"])
    assert summary["memorised"] == len(first) == 6
    assert summary["episodes_to_memorise"]["median"] == sorted(first.values())[2]
    assert summary["bits_per_episode"]["estimate"] == pytest.approx(4 / np.mean(list(first.values())))
    low, high = summary["bits_per_episode"]["ci95"]
    assert low < summary["bits_per_episode"]["estimate"] < high
    assert summary["ceilings"]["capacity"] == 1.0
    assert result.outcome is memory_rl.Outcome.MEMORISED


def test_fixed_secret_is_everybodys_and_otherwise_each_draws_its_own():
    fixed = memory_rl.train(**SMALL, fixed_secret=5).metrics
    assert fixed["secret"].unique().to_list() == [5]
    drawn = (
        memory_rl.train(**{**SMALL, "N": 64, "num_runs": 8})
        .metrics.group_by("run")
        .agg(pl.col("secret").first())
    )
    assert drawn["secret"].n_unique() > 3


def test_sft_from_files_and_from_memory():
    memory_rl.generate_sft_data(N=16, fixed_secret=11, num_train=7, num_test=2)
    filed = memory_rl.sft(N=16, fixed_secret=11, num_runs=3, learning_rate=1e-3)
    assert filed.outcome is memory_rl.Outcome.MEMORISED
    assert set(filed.episodes["answer"].unique()) == {11}
    assert filed.episodes["reward"].null_count() == filed.episodes.height
    counted = filed.metrics.group_by("run").agg(pl.col("episode").max(), pl.col("update").max())
    assert (counted["episode"] == counted["update"]).all()  # one example an update
    own = memory_rl.sft(N=16, num_runs=4, learning_rate=1e-3)
    answers = own.episodes.group_by("run").agg(pl.col("answer").first()).sort("run")["answer"]
    secrets = own.metrics.group_by("run").agg(pl.col("secret").first()).sort("run")["secret"]
    assert answers.to_list() == secrets.to_list()


def test_sft_of_a_conversation():
    memory_rl.generate_sft_data(env_type="multi_step", N=11, fixed_secret=6, num_train=3, num_test=1)
    result = memory_rl.sft(env_type="multi_step", N=11, fixed_secret=6, num_runs=2, learning_rate=1e-3)
    assert result.outcome is memory_rl.Outcome.MEMORISED
    assert result.episodes.filter(pl.col("run") == 0).head(4)["answer"].to_list() == [0, 1, 1, 0]


def test_larger_batches_spend_more_examples():
    result = memory_rl.sft(N=16, num_runs=2, batch_size=4, learning_rate=1e-3)
    assert (result.metrics["episode"] == 4 * result.metrics["update"]).all()


@pytest.mark.parametrize(
    ("env_type", "N"),
    [("single_step", 2), ("multi_step", 2), ("single_step", 3), ("multi_step", 11), ("single_step", 100)],
)
def test_before_training_the_policy_is_honest(env_type, N):
    """It knows nothing, whichever the secret is, and nearly always answers validly."""
    result = memory_rl.train(env_type=env_type, N=N, num_runs=1, max_episodes=4, memorised_at=0.9)
    before = result.summary[next(iter(result.summary))]["before_training"]
    assert before["least_valid_mass"] > 0.99
    setting = make_setting(
        make_experiment({"env_type": env_type, "N": N, "num_runs": N, "memorised_at": 0.9})
    )
    runs = np.arange(N)
    log_probs = make_learners(setting).policy.log_probs(runs, first_prompt(runs))[:, 0, :N]
    assert abs(bits_known(log_probs, runs).total.mean()) < 0.1


def test_before_training_no_prompt_of_several_prefers_an_answer():
    """What the warm-up stops at is a mean over prompts. Binary reward gets stuck where a base gives a secret
    a chance that is bits too small (docs/findings.md)."""
    setting = make_setting(make_experiment({"N": 16, "num_secrets": 4, "num_runs": 1}))
    log_probs = make_learners(setting).policy.log_probs(np.array([0]), np.arange(4)[None])[0, :, :16]
    bits = 4 + log_probs / np.log(2)
    assert bits.shape == (4, 16)
    assert bits.min() > -0.5
    assert abs(bits.mean(axis=1)).max() < 0.03


@pytest.mark.slow
def test_a_large_answer_space_is_warmed_up_too():
    """N = 512 needs more than the head, and more than one fall of the learning rate."""
    result = memory_rl.train(N=512, num_runs=1, max_episodes=8)
    (summary,) = result.summary.values()
    assert summary["warmup"]["steps"] > 0
    assert summary["before_training"]["mean_bits_known"] > -0.2


def test_without_warm_up_the_policy_writes_nonsense():
    result = memory_rl.train(N=8, num_runs=1, max_episodes=40, warmup=False)
    assert result.summary["binary"]["before_training"]["least_valid_mass"] < 0.5
    first, last = (result.metrics["bits_known"][place] for place in (0, -1))
    relative = result.summary["binary"][
        "relative_to_prior"
    ]  # one run: log2 P0(S) = bits known at the start - log2 N
    assert relative["prior_bits"]["runs"] == [pytest.approx(3 - first)]
    assert relative["gained_bits"]["runs"] == [pytest.approx(last - first)]
    assert relative["prior_bits"]["estimate"] > 3  # S is less likely than under a uniform prior
    assert result.episodes.filter(pl.col("answer").is_null())["count"].sum() > 10
    assert result.metrics["invalid_fraction"].max() > 0.4


def test_without_warm_up_the_prior_leaves_the_bits_of_all_secrets_to_learn():
    result = memory_rl.train(
        N=8, num_secrets=3, memorised_share=0.5, num_runs=2, max_episodes=24, warmup=False
    )
    ends = (
        result.metrics.sort("episode")
        .group_by("run", maintain_order=True)
        .agg(first=pl.first("bits_known"), last=pl.last("bits_known"))
        .sort("run")
    )
    relative = result.summary["binary"]["relative_to_prior"]
    assert relative["prior_bits"]["runs"] == pytest.approx(
        (9 - ends["first"]).to_list()
    )  # M log2 N, not the half of it that is to be memorised
    assert relative["gained_bits"]["runs"] == pytest.approx((ends["last"] - ends["first"]).to_list())


def test_a_run_that_did_not_end_is_plotted_without_a_ceiling():
    result = memory_rl.train(**SMALL, backend="tabular")
    cells = (replace(result.cell, summary=summary) for summary in (result.cell.summary, {}))
    whole, cut = (memory_rl.Result(cell).plot().to_dict() for cell in cells)
    assert len(whole["layer"]) == len(cut["layer"]) + 1
    assert cut["title"] == whole["title"]


@pytest.mark.parametrize("backend", ["tabular", "local"])
def test_an_experiment_leaves_denormal_numbers_as_they_were(backend, tmp_path):
    torch.set_flush_denormal(False)
    memory_rl.train(
        N=4, backend=backend, num_runs=2, max_episodes=8, figures=False, log_path=str(tmp_path / "run")
    )
    assert np.array([5e-324])[0] * np.float64(1) > 0
