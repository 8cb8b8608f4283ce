"""A base that prefers some answers: the warm-up towards Zipf's law, the table that starts there, and what the
meter makes of bits that were known, or hidden, before the first episode."""

import math

import numpy as np
import polars as pl
import pytest
import scipy.stats
import torch
from helpers import all_log_probs, complaint, make_environment, make_trie, plain_log_prob, setting_of

import memory_rl
from memory_rl import populations
from memory_rl.analysis.summary import about_prior
from memory_rl.errors import ModelError
from memory_rl.policies import warmup
from memory_rl.policies.base_model import find_base_model, warm_up_cached
from memory_rl.policies.prior import entropy_of, zipf_weights
from memory_rl.policies.tokenisation import tokenise
from memory_rl.policies.warmup import WarmupSettings, warm_up
from memory_rl.policies.warmup_report import WarmupReport

N = 16


def target(size: int = N, skew: float = 1.0, seed: int = 0) -> np.ndarray:
    """The probabilities (N,), from the definition; the ranks alone are those of the code."""
    ranks = [*np.argsort(np.argsort(-zipf_weights(size, 1.0, seed)))]
    each = [(1 + rank) ** -skew for rank in ranks]
    return np.array(each) / sum(each)


def in_tables(result, column: str) -> np.ndarray:
    """(R,) of the evaluation before the first episode."""
    return result.metrics.filter(pl.col("episode") == 0).sort("run")[column].to_numpy()


@pytest.mark.parametrize("skew", [0.0, 0.5, 1.0, 10.0])
def test_answers_follow_zipfs_law_in_a_random_order(skew):
    weights = zipf_weights(64, skew, 3)
    np.testing.assert_allclose(weights / 64, target(64, skew, 3), rtol=1e-12)
    law = scipy.stats.zipfian(skew, 64).pmf(np.arange(1, 65))
    np.testing.assert_allclose(np.sort(weights)[::-1] / 64, law, rtol=1e-9)
    assert entropy_of(weights) == pytest.approx(scipy.stats.entropy(law, base=2), abs=1e-12)
    assert (weights == 1).all() == (skew == 0)
    assert len({tuple(np.argsort(zipf_weights(64, 1.0, seed))) for seed in range(5)}) == 5


@pytest.mark.parametrize(("num_secrets", "most"), [(1, 2**11), (4, 2**11), (1, 4)], ids=str)
def test_the_built_in_model_is_warmed_up_towards_the_prior(num_secrets, most, monkeypatch, tmp_path):
    """Against plain passes over each conversation; with one prompt, several, and answers taught by their
    paths."""
    monkeypatch.setattr(warmup, "_ANSWERS_A_PASS", most)
    monkeypatch.setenv("MEMORY_RL_CACHE", str(tmp_path))
    base, environment = find_base_model("tiny", 0), make_environment("single_step", N, num_secrets)
    trie, wanted = make_trie(environment, base.tokenizer), target()
    report, _ = warm_up_cached(base, trie, N, prior=zipf_weights(N, 1.0, 0))
    turns = [tokenise(base.tokenizer, environment.conversation(answer)) for answer in range(N)]
    log_probs = np.array(
        [
            [plain_log_prob(base.model, [(begin.tolist(), one[0][1])]) for one in turns]
            for begin in trie.prompts
        ]
    )  # (M, N)
    divergence = (wanted * (np.log(wanted) - log_probs)).sum(axis=1).mean() / math.log(2)
    assert report.reached
    tolerance, error = (0.04, 6 * report.divergence_error) if most < N else (0.005, 1e-4)
    assert divergence == pytest.approx(report.divergence, abs=error)
    assert divergence < tolerance + error
    assert np.abs(np.exp(log_probs) - wanted).max() < 0.05
    assert wanted.max() - 1 / N > 0.2


def test_each_prior_is_cached_for_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMORY_RL_CACHE", str(tmp_path))
    keys = {"N": 4, "num_runs": 2, "max_episodes": 4}
    for more, cached in (({}, False), ({"prior_skew": 1.0}, False), ({"prior_skew": 0.5}, False)):
        for known in (cached, True):
            assert memory_rl.train(**keys, **more).manifest["warmup_from_cache"] == known
    made = memory_rl.train(**keys, prior_skew=1.0, base_seed=1)
    assert not made.manifest["warmup_from_cache"]
    assert made.summary["binary"]["prior_skew"] == 1.0
    secrets = made.metrics.group_by("run").first().sort("run")["secret"].to_numpy()
    known = 2 + np.log2(target(4, 1.0, 1))[secrets]
    np.testing.assert_allclose(in_tables(made, "bits_known"), known, atol=0.2)


def test_a_prior_that_is_not_reached_is_refused_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMORY_RL_CACHE", str(tmp_path))
    base = find_base_model("tiny", 0)
    trie = make_trie(make_environment("single_step", N), base.tokenizer)
    short = WarmupSettings(learning_rate=1e-4, max_steps=1, falls=1)
    base = type(base)(base.model, base.tokenizer, short)
    with pytest.raises(
        ModelError, match=r"bits from its prior after 1 steps: .* or use a smaller prior_skew"
    ):
        warm_up_cached(base, trie, N, prior=zipf_weights(N, 1.0, 0))
    with pytest.raises(ModelError, match="bits from uniform"):
        WarmupReport(0, 1, 1.0, reached=False).check(None, "another N")


def test_without_a_skew_the_warm_up_takes_the_same_steps():
    """Weights of 1 change no bit of it, so that models warmed up before stay what they are."""
    states = []
    for prior in (None, zipf_weights(4, 0.0, 0)):
        base = find_base_model("tiny", 0)
        trie = make_trie(make_environment("single_step", 4), base.tokenizer)
        warm_up(base.model, trie, 4, WarmupSettings(head_steps=20), prior=prior)
        states.append(base.model.state_dict())
    assert all(torch.equal(one, states[1][name]) for name, one in states[0].items())


@pytest.mark.parametrize("num_secrets", [1, 3])
def test_the_table_starts_exactly_at_the_prior(num_secrets):
    setting = setting_of(backend="tabular", N=N, prior_skew=2.0, num_runs=3, num_secrets=num_secrets)
    policy = populations.make_learners(setting).policy
    log_probs = policy.log_probs(np.arange(3), np.tile(np.arange(num_secrets), (3, 1)))
    np.testing.assert_allclose(np.exp(log_probs), np.broadcast_to(target(skew=2.0), log_probs.shape))
    np.testing.assert_allclose(policy._base[0].exp().numpy(), target(skew=2.0))  # what kl_to_base pulls to
    plain = populations.make_learners(setting_of(backend="tabular", N=N, num_runs=3)).policy
    assert (plain.logits == 0).all()
    np.testing.assert_allclose(all_log_probs(plain, np.arange(3)), -np.log(N))


@pytest.mark.parametrize("skew", [1.0, 10.0])
def test_bits_known_at_the_start_are_those_of_the_prior_and_the_laws_hold(skew):
    """The observer starts uniform, and has no model of the base; since the prior does not depend on S, the
    mean of P0(S) N over secrets is 1, so that both laws hold as they are."""
    result = memory_rl.train(
        backend="tabular", N=N, prior_skew=skew, num_runs=128, max_episodes=600, reward_type="log_distance"
    )
    summary = result.summary["log_distance"]
    secrets = result.metrics.group_by("run").first().sort("run")["secret"].to_numpy()
    known, wanted = in_tables(result, "bits_known"), np.log2(N * target(skew=skew))
    np.testing.assert_allclose(known, wanted[secrets], atol=1e-9)
    assert (known > 0).any()
    assert wanted.mean() < 0  # Gibbs: on average over secrets less is known than nothing
    assert (in_tables(result, "observer_bits") == 0).all()
    assert {check["status"] for check in summary["checks"].values()} == {"holds"}
    relative = summary["relative_to_prior"]
    np.testing.assert_allclose(relative["prior_bits"]["runs"], 4 - known)
    np.testing.assert_allclose(
        np.add(relative["gained_bits"]["runs"], known), relative["bits_known"]["runs"], atol=1e-9
    )
    assert (
        f"learned beyond what the base model started with: {relative['gained_bits']['estimate']:.3g}"
        in about_prior(summary)
    )


def test_a_secret_that_the_base_prefers_is_memorised_before_the_first_episode():
    """It counts with 0 episodes; where every run has it there is no rate, and nothing was told."""
    likeliest = int(target(skew=10.0).argmax())
    mixed = memory_rl.train(backend="tabular", N=N, prior_skew=10.0, num_runs=64, max_episodes=40)
    at_start = mixed.metrics.group_by("run").first().sort("run")["secret"].to_numpy() == likeliest
    assert 0 < at_start.sum() < 64
    table = mixed.episodes.group_by("run").len()
    assert set(table["run"]) == set(np.nonzero(~at_start)[0])
    summary = mixed.summary["binary"]
    assert summary["memorised"] >= at_start.sum()
    assert summary["rates"]["observer"]["estimate"] == 0  # the others never met theirs
    assert summary["losses"]["absorption"] is None
    sure = memory_rl.train(
        backend="tabular", N=N, prior_skew=10.0, num_runs=4, fixed_secret=likeliest, max_episodes=40
    )
    summary = sure.summary["binary"]
    assert (summary["memorised"], summary["episodes_to_memorise"]["median"]) == (4, 0)
    assert summary["bits_per_episode"]["estimate"] is None
    assert (sure.metrics["episode"] == 0).all()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("backend=tinker", "backend=local or tabular"),
        ("env_type=multi_step N=16", "env_type=single_step"),
        ("warmup=False", "warmup=True"),
    ],
)
def test_where_a_skewed_prior_has_no_meaning_it_is_refused(words, wanted, capsys):
    assert f"prior_skew=1 belongs to {wanted}" in complaint("train", f"prior_skew=1 {words}", capsys)


def test_a_skew_is_no_less_than_0_and_no_more_than_10(capsys):
    for value in ("-1", "11", "nan"):
        assert "prior_skew" in complaint("train", f"backend=tabular prior_skew={value}", capsys)
