"""Where only paths are scored, a teacher, an entropy bonus and the pull to the base move a policy as they do
where every answer is scored; and whole experiments with a teacher learn."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from helpers import complaint, make_environment, make_trie, walks

import memory_rl
from memory_rl.experiment import parse_experiment
from memory_rl.learning.imitation import Imitation
from memory_rl.learning.learners import Reinforce
from memory_rl.learning.penalty import Penalty
from memory_rl.policies import tiny_model
from memory_rl.policies.answer_trie import NONE
from memory_rl.policies.base import every_prompt
from memory_rl.policies.full import FullSettings
from memory_rl.policies.lora import LoRASettings
from memory_rl.policies.paths import PathPolicy
from memory_rl.policies.shared import SharedSettings
from memory_rl.policies.tokenisation import tokenise_turns
from memory_rl.policies.transformer import TransformerPolicy
from memory_rl.training.teachers import knows

N, RUNS = 16, np.arange(2)
ADAPTERS = {
    "lora": LoRASettings(rank=4),
    "shared": SharedSettings(40, LoRASettings(rank=4)),
    "full": FullSettings(),
}


def tries(kind: str):
    """All conversations about two secrets, listed; and, of several turns, worked out."""
    environment, tokenizer = make_environment(kind, N, 2), tiny_model.make_tokenizer()
    listed = make_trie(environment, tokenizer)
    if kind == "single_step":
        return listed, listed
    some = [environment.conversation(form) for form in (0, 7, N - 1)]
    return listed, tokenise_turns(tokenizer, some, ["0", "1"], environment.first_prompts())


def followed(trie, other, path: np.ndarray) -> np.ndarray:
    """The same conversations (R, E, L) in another trie, whose numbers are its own."""
    columns, found = trie.column(path), np.full(path.shape, NONE)
    for place in np.ndindex(*path.shape[:2]):
        decision = 0
        for token in range((path[place] != NONE).sum()):
            found[(*place, token)] = other.decision_edges[np.array(decision)][columns[(*place, token)]]
            decision = int(other.edge_next[found[(*place, token)]])
    return found


def both(kind: str, adapter: str = "lora", penalty: Penalty | None = None):
    """The same two runs that have moved from the base, all scored and on paths; and a batch of each."""
    policies, batches = [], []
    prompts = every_prompt(RUNS, 2)
    for scores, trie in zip((TransformerPolicy, PathPolicy), tries(kind), strict=True):
        given = {
            "num_runs": 2,
            "lora": ADAPTERS[adapter],
            "optimiser": "sgd",
            "learning_rate": 0.01,
            "seed": 0,
        }
        policy = scores(tiny_model.make_model(0), trie, penalty=penalty or Penalty(), **given)
        random = torch.Generator().manual_seed(3)
        for vector in policy.adapters.vectors:
            vector.data += 0.01 * torch.randn(vector.shape, generator=random)
        if not policies:
            path = walks(trie, (2, 4), np.random.default_rng(0))
        of_policy = policy._of_path(
            RUNS, prompts, followed(policies[0].trie if policies else trie, trie, path)
        )
        policies.append(policy)
        batches.append(of_policy)
    return policies, batches


def assert_moved_alike(policies, before) -> None:
    for one, other, start in zip(*(policy.adapters.vectors for policy in policies), before, strict=True):
        moved = (one - start).abs().max().item()
        assert moved > 1e-5
        torch.testing.assert_close(one, other, rtol=0, atol=min(1e-6, 1e-3 * moved))


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
@pytest.mark.parametrize(
    "learner",
    [
        Imitation(),
        Imitation(divergence="forward"),
        Imitation(told="sampled"),
        Imitation(told="top_k", k=1, divergence="forward"),
    ],
    ids=str,
)
def test_a_teacher_moves_a_policy_as_where_all_is_scored(kind, learner):
    """Invalid answers among its episodes; the one of several turns knows no list of conversations."""
    policies, batches = both(kind)
    before = [vector.detach().clone() for vector in policies[0].adapters.vectors]
    opinion = knows(make_environment(kind, N), np.array([[3, 12], [5, 5]]), 0.01)
    for policy, batch in zip(policies, batches, strict=True):
        assert (batch.choices == NONE).any()
        policy.imitate(replace(batch, taught=opinion), learner)
        assert policy.updates.tolist() == [1, 1]
        assert policy._stale.all()
    assert_moved_alike(policies, before)


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("penalty", [Penalty(0.3, 0.0), Penalty(0.0, 0.7)], ids=["entropy", "base"])
def test_a_penalty_moves_a_policy_as_where_all_is_scored(adapter, penalty):
    """Equal rewards, so that nothing else does."""
    policies, batches = both("multi_step", adapter, penalty)
    before = [vector.detach().clone() for vector in policies[0].adapters.vectors]
    for policy, batch in zip(policies, batches, strict=True):
        policy.update(batch, np.zeros(batch.choices.shape), Reinforce())
    assert_moved_alike(policies, before)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_without_its_adapters_a_model_is_the_base(adapter):
    policies, batches = both("single_step", adapter)
    policy, batch, plain = policies[1], batches[1], TransformerPolicy
    base = plain(
        tiny_model.make_model(0), policy.trie, num_runs=2, lora=ADAPTERS["lora"], learning_rate=1, seed=0
    )
    moved = policy.log_probs_of_path(batch)
    with policy.adapters.off(), torch.no_grad():
        found = policy._chosen_log_probs(batch.path, batch.prompts).numpy()
    assert found == pytest.approx(base.log_probs_of_path(batch), abs=1e-5)
    assert np.abs(found - moved).max() > 0.01
    policy.adapters.activate(RUNS)
    with pytest.raises(KeyError), policy.adapters.off():
        raise KeyError
    with torch.no_grad():
        again = policy._chosen_log_probs(batch.path, batch.prompts).numpy()
    assert again == pytest.approx(moved, abs=1e-5)


KINDS = {"single_step": {"N": 16}, "multi_step": {"N": 16, "env_type": "multi_step"}}
TOLD = {
    "secret": {},
    "forward": {"divergence": "forward"},
    "sampled": {"told": "sampled", "max_episodes": 400},
    "two of its likeliest": {"told": "top_k"},
    "observer": {"teacher": "observer"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("told", TOLD)
def test_a_teacher_teaches_where_only_paths_are_scored(kind, told):
    given = {"max_episodes": 200, **KINDS[kind], **TOLD[told]}
    result = memory_rl.train(signal="teacher", num_runs=2, seed=1, scoring="paths", **given)
    (summary,) = result.summary.values()
    assert summary["memorised"] == 2
    last = result.metrics.sort("episode").group_by("run").last()
    assert (last["observer_bits"] > 3.9).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_tells_of_each_secret_where_only_paths_are_scored(kind):
    given = {"num_secrets": 2, "batch_size": 2, "scoring": "paths", **KINDS[kind]}
    result = memory_rl.train(signal="teacher", num_runs=2, max_episodes=400, **given)
    (summary,) = result.summary.values()
    assert summary["memorised"] == 2


@pytest.mark.parametrize(
    "adapter", [{"adapter": "shared", "adapter_parameters": 64}, {"adapter": "full"}], ids=str
)
@pytest.mark.parametrize("signal", ["teacher", "reward"])
def test_other_adapters_learn_several_turns_on_paths(adapter, signal):
    given = {**KINDS["multi_step"], "scoring": "paths", "max_episodes": 300, **adapter}
    result = memory_rl.train(signal=signal, num_runs=1, **given)
    (summary,) = result.summary.values()
    assert summary["memorised"] == 1


def test_an_entropy_bonus_and_the_pull_to_the_base_go_with_paths():
    result = memory_rl.train(
        N=16, num_runs=2, scoring="paths", entropy_bonus=0.01, kl_to_base=0.01, max_episodes=40
    )
    assert result.episodes["count"].sum() == 2 * 40


@pytest.mark.parametrize(
    ("words", "least"),
    [("num_runs=100", 671_088), ("num_runs=16 num_secrets=2 batch_size=8 memorised_share=1", 524_288)],
)
def test_more_beliefs_than_fit_into_memory_are_refused(words, least, capsys):
    words += " group_size=4 signal=teacher teacher=observer"
    said = complaint("train", f"N={2**20} {words}", capsys)
    assert f"use N={least} or less" in said
    assert "teacher=observer" in said
    keys = dict(word.split("=") for word in words.split())
    parse_experiment([f"{key}={value}" for key, value in {**keys, "N": least}.items()])


def test_one_who_knows_s_keeps_no_belief():
    parse_experiment(f"N={2**20} num_runs=256 signal=teacher group_size=64".split())


@pytest.mark.parametrize("keys", [{"told": "sampled"}, {**KINDS["multi_step"], **TOLD["observer"]}], ids=str)
def test_runs_are_alike(keys):
    ends = []
    for seed, scoring in ((1, "all"), (2, "paths")):
        given = {"N": 16, "num_runs": 24, "max_episodes": 100, **keys}
        result = memory_rl.train(signal="teacher", scoring=scoring, seed=seed, **given)
        ends.append(result.metrics.sort("episode").group_by("run").last())
    for column in ("episode", "bits_known", "asked_bits"):
        assert scipy.stats.ks_2samp(*(end[column].to_numpy() for end in ends)).pvalue > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("keys", [{"N": 4096}, {"N": 1024, "env_type": "multi_step"}], ids=str)
@pytest.mark.parametrize("teacher", ["secret", "observer"])
def test_a_teacher_teaches_beyond_what_can_be_listed(keys, teacher):
    more = (
        {"reward_type": "binned_log_distance", "reward_bins": 8}
        if teacher == "observer" and "env_type" not in keys
        else {}
    )
    result = memory_rl.train(signal="teacher", teacher=teacher, num_runs=2, max_episodes=400, **keys, **more)
    (summary,) = result.summary.values()
    assert summary["memorised"] == 2
