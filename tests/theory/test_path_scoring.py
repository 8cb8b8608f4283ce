"""Scoring the secret and some samples alone is scoring every answer: same probabilities, same samples, same
runs in distribution, same ledger on average."""

from copy import deepcopy

import numpy as np
import polars as pl
import pytest
import scipy.stats
import torch
from helpers import all_log_probs, invalid_mass

import memory_rl
from memory_rl.information.ledger import HitLedger, Ledger
from memory_rl.information.observer import OneAgainstRest
from memory_rl.information.outcomes import Outcomes
from memory_rl.learning.learners import Supervised
from memory_rl.policies import paths as paths_module
from memory_rl.policies.asking import draw
from memory_rl.policies.lora import LoRASettings
from memory_rl.policies.paths import PathPolicy

RATE = {"learning_rate": 1e-3, "seed": 0}
N, RUNS, SECRETS = 23, np.arange(3), np.array([2, 20, 9])


@pytest.fixture(scope="module")
def policies(make_policy):
    """The same three runs, asked for all answers and for paths; their adapters are moved, so that some
    answers are invalid."""
    whole = make_policy("single_step", N, num_runs=3)
    base = make_base(make_policy)
    paths = PathPolicy(base, whole.trie, num_runs=3, lora=LoRASettings(rank=4), learning_rate=1e-3, seed=0)
    random = torch.Generator().manual_seed(5)
    for one, other in zip(whole.adapters.vectors, paths.adapters.vectors, strict=True):
        one.data += 0.02 * torch.randn(one.shape, generator=random)
        other.data.copy_(one.data)
    return whole, paths


def make_base(make_policy, kind="single_step", size=N, num_secrets=1):
    """A base model without adapters: the fixture's own keeps its warmed-up one, and copies it for each
    policy."""
    policy = make_policy(kind, size, num_runs=1, num_secrets=num_secrets)
    model = policy.model
    for name, module in list(model.named_modules()):
        if hasattr(module, "base"):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.base)
    return model


def test_the_probabilities_are_those_of_the_whole_trie(policies):
    whole, paths = policies
    every = np.broadcast_to(np.arange(N), (3, N))
    expected = all_log_probs(whole, RUNS)
    np.testing.assert_allclose(paths.log_probs_of(RUNS, every), expected, rtol=0, atol=1e-5)
    seen, exact = paths.assess(RUNS, SECRETS[:, None], N), whole.assess(RUNS, SECRETS[:, None], N)
    np.testing.assert_allclose(seen.of_form, exact.of_form, rtol=0, atol=1e-5)
    assert (seen.of_best <= exact.of_best + 1e-5).all()


def test_samples_are_the_policy_s_given_that_they_are_not_the_form(policies):
    whole, paths = policies
    draws = 40_000
    uniforms = np.random.default_rng(0).random((3, draws, whole.trie.max_edges, 2))
    seen = []
    for part in np.split(uniforms, 40, axis=1):
        paths.adapters.activate(RUNS)
        with torch.no_grad():
            seen.append(
                draw(paths.model, paths.trie, np.zeros_like(SECRETS), SECRETS[:, None], part, avoid=True)
            )
    answers = paths.trie.choices(np.concatenate([part.paths for part in seen], axis=1))[:, :, 0]
    staying = np.exp(np.concatenate([part.of_staying for part in seen], axis=1))
    for run, secret in enumerate(SECRETS):
        law = np.append(np.exp(all_log_probs(whole, RUNS)[run]), invalid_mass(whole, RUNS)[run])
        assert law.sum() == pytest.approx(1, abs=1e-6)
        assert 0.001 < law[N] < 0.9  # some answers are invalid
        law[secret] = 0.0
        law /= law.sum()
        counts = np.bincount(np.where(answers[run] < 0, N, answers[run]), minlength=N + 1)
        assert counts[secret] == 0
        likely = law * draws >= 5
        observed, expected = (
            np.append(counts[likely], counts[~likely].sum()),
            np.append(law[likely], law[~likely].sum()) * draws,
        )
        kept = expected > 0
        assert scipy.stats.chisquare(observed[kept], expected[kept]).pvalue > 0.01
        error = staying[run].std() / np.sqrt(draws)
        assert (
            abs(staying[run].mean() - (1 - law[N])) < 4 * error
        )  # the estimate of the valid mass is unbiased
        assert staying[run].std() < np.sqrt(law[N] * (1 - law[N]))  # and varies less than counting would


def test_what_spells_no_answer_is_no_valid_mass(make_policy):
    """Of several turns, where N is no power of two: the mean of the estimate is the mass on answers."""
    whole = make_policy("multi_step", 11, num_runs=2)
    base = make_base(make_policy, "multi_step", 11)
    paths = PathPolicy(
        base, whole.trie, avoids=False, num_runs=2, lora=LoRASettings(rank=4), learning_rate=1e-3, seed=0
    )
    runs, secrets, seen = np.arange(2), np.array([[3], [7]]), []
    whole.distil(runs, runs[:, None] * 0, np.full((2, 1, 16), 1 / 16), 20)
    for one, other in zip(whole.adapters.vectors, paths.adapters.vectors, strict=True):
        other.data.copy_(one.data)
    exact = whole.assess(runs, secrets, 11)
    assert (np.exp(whole.log_probs(runs, runs[:, None] * 0)[:, 0, 11:]).sum(axis=1) > 0.1).all()
    paths._wanted = 64  # samples each time
    for _ in range(12):
        paths._stale[:] = True
        seen.append(paths.assess(runs, secrets, 11))
    np.testing.assert_allclose(seen[0].of_form, exact.of_form, rtol=0, atol=1e-5)
    estimates = np.exp([one.of_valid for one in seen])[:, :, 0]
    error = estimates.std(axis=0) / np.sqrt(len(seen))
    assert (abs(estimates.mean(axis=0) - np.exp(exact.of_valid[:, 0])) < 3 * error).all()
    assert (np.array([one.of_best for one in seen]) <= exact.of_best + 1e-5).all()


def test_what_spells_no_answer_is_none_where_an_exit_was_taken_before_it_was_spelt(make_policy):
    """Runs that mostly spell 15 of 11 answers; one takes an exit in a quarter of its conversations."""
    whole = make_policy("multi_step", 11, num_runs=2)
    base = make_base(make_policy, "multi_step", 11)
    paths = PathPolicy(base, whole.trie, avoids=False, num_runs=2, lora=LoRASettings(rank=4), **RATE)
    runs, secrets, random = np.arange(2), np.array([[3], [7]]), torch.Generator().manual_seed(2)
    wanted = np.append(np.full(11, 0.3 / 11), [0, 0, 0, 0, 0.7])
    whole.distil(runs, runs[:, None] * 0, np.tile(wanted, (2, 1, 1)), 30)
    for one, other in zip(whole.adapters.vectors, paths.adapters.vectors, strict=True):
        one.data += 0.012 * torch.randn(one.shape, generator=random)
        other.data.copy_(one.data)
    whole._stale[:] = True
    log_probs, exact = all_log_probs(whole, runs), whole.assess(runs, secrets, 11)
    assert (log_probs[:, 11:].max(axis=1) > exact.of_best[:, 0] + 1).all()
    assert invalid_mass(whole, runs)[0] > 0.2
    paths._wanted, seen = 64, []
    for _ in range(12):
        paths._stale[:] = True
        seen.append(paths.assess(runs, secrets, 11))
    assert (np.array([one.of_best for one in seen]) <= exact.of_best + 1e-5).all()
    estimates = np.exp([one.of_valid for one in seen])[:, :, 0]
    error = estimates.std(axis=0) / np.sqrt(len(seen))
    assert (abs(estimates.mean(axis=0) - np.exp(exact.of_valid[:, 0])) < 3 * error).all()


@pytest.fixture
def sampler(make_policy):
    """The same three runs, asked for all answers, and for paths that may be the secret."""
    whole = make_policy("single_step", N, num_runs=3)
    lora = LoRASettings(rank=4)
    paths = PathPolicy(make_base(make_policy), whole.trie, avoids=False, num_runs=3, lora=lora, **RATE)
    random = torch.Generator().manual_seed(5)
    for one, other in zip(whole.adapters.vectors, paths.adapters.vectors, strict=True):
        one.data += 0.02 * torch.randn(one.shape, generator=random)
        other.data.copy_(one.data)
    return whole, paths


def test_a_run_that_stands_still_is_asked_for_as_many_samples_as_it_has_given(sampler, monkeypatch):
    whole, paths = sampler
    asked = []
    monkeypatch.setattr(paths_module, "draw", lambda *given, **more: asked.append(1) or draw(*given, **more))
    paths.assess(RUNS, SECRETS[:, None], N)
    answers = np.concatenate([paths.sample(RUNS, RUNS[:, None] * 0, 4).choices for _ in range(400)], axis=1)
    assert len(asked) == 1 + 4 + 12  # 2 groups when they were assessed, then 2, 4, 8, 16, and 32 at once
    for run, law in enumerate(np.exp(all_log_probs(whole, RUNS))):
        law = np.append(law, invalid_mass(whole, RUNS)[run])
        counts = np.bincount(np.where(answers[run, :, 0] < 0, N, answers[run, :, 0]), minlength=N + 1)
        likely = law * 1600 >= 5
        observed = np.append(counts[likely], counts[~likely].sum())
        expected = np.append(law[likely], law[~likely].sum()) * 1600
        some = expected > 0
        expected = expected[some] * 1600 / expected.sum()
        assert scipy.stats.chisquare(observed[some], expected).pvalue > 0.001
    waiting = paths._num_waiting.copy()
    assert (waiting > 4).all()
    paths._stale[:2] = True  # two have moved: what waits was drawn before
    paths.assess(RUNS, SECRETS[:, None], N)
    assert paths._num_waiting.tolist() == [4, 4, waiting[2]]
    assert paths._stretch.tolist() == [200, 200, 400]


def test_of_several_prompts_nothing_is_drawn_ahead(make_policy):
    """A run that answers 0 behind one prompt and 1 behind the other, asked in turn while it stands still."""
    trie = make_policy("single_step", 2, num_secrets=2).trie
    given = {"num_runs": 1, "lora": LoRASettings(rank=4), "learning_rate": 0.01, "seed": 0}
    paths = PathPolicy(make_base(make_policy, size=2, num_secrets=2), trie, avoids=False, **given)
    shown = paths.demonstrate(RUNS[:1], np.array([[0, 1]]), np.array([[0, 1]]))
    for _ in range(40):
        paths.update(shown, np.ones(shown.choices.shape), Supervised())
    seen = paths.assess(RUNS[:1], np.array([[0, 1]]), 2)
    assert (np.exp(seen.of_form) > 0.99).all()
    answers = [paths.sample(RUNS[:1], np.array([[turn % 2]]), 4).choices for turn in range(20)]
    assert np.mean(answers, axis=(1, 2, 3)) == pytest.approx(np.arange(20) % 2, abs=0.3)


def test_what_is_drawn_ahead_does_not_depend_on_other_runs(sampler):
    """A run is given the same samples beside runs that need few of them at each step, or many."""
    _, paths = sampler
    begun, given = deepcopy(paths.state()), []
    for stretch in (1, 32):
        paths.restore(deepcopy(begun))
        given.append([])
        for step in range(24):
            paths._stale[1] = step in (9, 17)
            paths.assess(RUNS, SECRETS[:, None], N)
            for other in (0, 2):
                paths._stretch[other], paths._waiting[other] = stretch, paths._waiting[other][:0]
            given[-1].append(paths.sample(RUNS, RUNS[:, None] * 0, 4).path[1])
    np.testing.assert_array_equal(*given)


def test_where_an_exit_is_taken_follows_its_law(policies):
    """An invalid sample ends at one exit of the trie: each exit as often as the whole trie says."""
    whole, paths = policies
    uniforms = np.random.default_rng(1).random((3, 20_000, whole.trie.max_edges, 2))
    paths.adapters.activate(RUNS)
    with torch.no_grad():
        drawn = np.concatenate(
            [
                draw(
                    paths.model, paths.trie, np.zeros_like(SECRETS), SECRETS[:, None], part, avoid=True
                ).paths
                for part in np.split(uniforms, 20, axis=1)
            ],
            axis=1,
        )
    sampled = whole.trie.sample(
        np.exp(whole._edge_log_probs[RUNS, 0]),
        np.random.default_rng(2).random((3, 100_000, whole.trie.max_edges)),
    )
    for run in RUNS:
        ends = [
            path[np.arange(len(path)), (path >= 0).sum(axis=1) - 1] for path in (drawn[run], sampled[run])
        ]
        counts = [
            np.bincount(end[whole.trie.is_exit[end]], minlength=len(whole.trie.edge_token)) for end in ends
        ]
        often = (counts[0] + counts[1]) > 40
        if often.sum() > 1:
            assert scipy.stats.chi2_contingency(np.stack([count[often] for count in counts])).pvalue > 0.01


def test_a_form_that_is_all_but_certain_leaves_the_rest(make_policy):
    """At P(S) near 1 what is left is drawn without rejection, and a form that begins no other answer leaves
    only invalid ones at its end."""
    policy = make_policy("single_step", 16, num_runs=1)
    model = policy.model
    trie = policy.trie
    head = model.get_output_embeddings()
    head.weight.data *= 12  # sharp distributions
    policy.adapters.activate(np.array([0]))
    best = int(all_log_probs(policy, np.array([0]))[0].argmax())
    with torch.no_grad():
        uniforms = np.random.default_rng(0).random((1, 500, trie.max_edges, 2))
        drawn = draw(model, trie, np.zeros(1, dtype=int), np.array([[best]]), uniforms, avoid=True)
    assert (trie.choices(drawn.paths)[0, :, 0] != best).all()
    assert np.isfinite(drawn.of_forms).all()


def at_the_end(result, column) -> np.ndarray:
    return (
        result.metrics.sort("run", "episode").group_by("run", maintain_order=True).last()[column].to_numpy()
    )


def test_runs_are_alike():
    results = [
        memory_rl.train(N=32, num_runs=100, seed=seed, scoring=scoring)
        for seed, scoring in ((1, "all"), (2, "paths"))
    ]
    for column in ("episode", "bits_known", "update"):
        assert scipy.stats.ks_2samp(*(at_the_end(result, column) for result in results)).pvalue > 0.01
    for episode in (8, 24, 60):
        known, asked = [], []
        for result in results:
            last = (
                result.metrics.filter(pl.col("episode") <= episode)
                .sort("run", "episode")
                .group_by("run", maintain_order=True)
                .last()
            )
            known.append(last["observer_bits"].to_numpy())
            asked.append(last["asked_bits"].to_numpy())
        for bits in (known, asked):
            error = np.hypot(*(sample.std() / np.sqrt(len(sample)) for sample in bits))
            assert abs(bits[0].mean() - bits[1].mean()) < 3 * error
    for result in results:  # all episodes are charged
        charged = result.episodes.group_by("run").agg(pl.col("count").sum()).sort("run")["count"]
        assert (
            charged.to_list()
            == result.metrics.group_by("run").agg(pl.col("episode").max()).sort("run")["episode"].to_list()
        )


def test_the_hit_ledger_is_the_mean_of_the_ledger_over_what_was_tried():
    """Answers drawn from a law that changes once, against the exact ledger of each draw."""
    size, secret, trials = 40, 7, 300
    rng = np.random.default_rng(0)
    laws = rng.dirichlet(np.ones(size) * 3, size=2)
    laws[:, secret] = 0
    laws /= laws.sum(axis=1, keepdims=True)
    estimated = HitLedger(np.array([secret]), size, np.arange(size))
    exact = Ledger(np.full(trials, secret), size, 0.5)
    everyone = np.arange(trials)
    for law, count in zip(laws, (15, 20), strict=True):
        with np.errstate(divide="ignore"):
            estimated.look(0, np.log(law))
        estimated.record_misses(0, count)
        for answers in rng.choice(size, p=law, size=(count, trials)):
            exact.record(everyone, OneAgainstRest(answers), Outcomes(2), np.zeros(trials, dtype=int))
    misses = size - exact.observer.totals
    assert abs(estimated.misses(np.array([0]))[0] - misses.mean()) < 4 * misses.std() / np.sqrt(trials)
    assert (
        abs(estimated.asked[0] - exact.asked.mean()) < 4 * exact.asked.std() / np.sqrt(trials) + 0.01
    )  # Jensen's gap is below a hundredth of a bit
    bits = exact.observer_bits(everyone)
    assert (
        abs(estimated.observer_bits(np.array([0]))[0] - bits.mean()) < 4 * bits.std() / np.sqrt(trials) + 0.03
    )
    estimated.record_hit(0, 36)
    exact.record(everyone, OneAgainstRest(np.full(trials, secret)), Outcomes(2), np.ones(trials, dtype=int))
    assert abs(estimated.asked[0] - exact.asked.mean()) < 4 * exact.asked.std() / np.sqrt(trials) + 0.01
    assert estimated.observer_bits(np.array([0]))[0] == np.log2(size)
    assert estimated.episodes_to_know[0] == 36


def test_sft_scores_paths_too():
    results = [memory_rl.sft(N=64, num_runs=4, scoring=scoring) for scoring in ("all", "paths")]
    for column in ("episode", "update", "observer_bits", "asked_bits"):
        np.testing.assert_allclose(*(at_the_end(result, column) for result in results))
    np.testing.assert_allclose(*(at_the_end(result, "bits_known") for result in results), atol=1e-3)


def test_the_ledger_cannot_be_recomputed_where_misses_are_not_listed_and_says_so():
    result = memory_rl.train(N=16, num_runs=1, scoring="paths", max_episodes=40)
    with pytest.raises(memory_rl.errors.RunDirectoryError, match=r"in metrics\.parquet.* skip_ahead=False"):
        memory_rl.ledger_from_episodes(result.path)
    assert set(result.episodes.filter(pl.col("count") > 1)["answer"].drop_nulls()) <= {
        -2,
        result.metrics["secret"][0],
    }


@pytest.mark.parametrize("command", ["train", "sft"])
def test_the_ledger_of_hits_and_misses_is_recomputed_where_all_are_listed(command):
    keys = {"skip_ahead": False, "max_episodes": 40} if command == "train" else {}
    result = getattr(memory_rl, command)(N=16, num_runs=2, scoring="paths", **keys)
    metrics = result.metrics.filter(pl.col("episode") > 0)
    both = metrics.join(memory_rl.ledger_from_episodes(result.path), on=["run", "episode"], suffix="_again")
    assert both.height == metrics.height > 0
    for column in ("asked_bits", "observer_bits", "asked_variance"):
        np.testing.assert_allclose(both[column], both[f"{column}_again"], rtol=0, atol=1e-9)


@pytest.mark.slow
def test_a_million_answers():
    """Fits in memory and in time, and every bit is learned."""
    result = memory_rl.train(N=2**20, num_runs=2, seed=1)
    summary = result.summary["binary"]
    assert summary["memorised"] == 2
    assert (at_the_end(result, "bits_known") > 19).all()
