"""Replay and evolution strategies: each step against numbers worked out beside it, and both resumed to the
byte."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
from helpers import measured, stopped_at

import memory_rl
from memory_rl.learning.batch import Batch
from memory_rl.learning.evolution import Evolution
from memory_rl.learning.learners import Reinforce
from memory_rl.learning.replay import Replay
from memory_rl.policies import tiny_model
from memory_rl.policies.base import first_prompt
from memory_rl.policies.full import FullSettings
from memory_rl.policies.lora import LoRASettings
from memory_rl.policies.packed import chosen_log_probs
from memory_rl.policies.shared import SharedSettings
from memory_rl.policies.tabular import TabularPolicy
from memory_rl.policies.transformer import TransformerPolicy
from memory_rl.reporting import pictures
from memory_rl.seeding import noise

N, RUNS = 6, np.arange(2)


def tabular(optimiser: str = "sgd", learning_rate: float = 0.5, num_prompts: int = 1) -> TabularPolicy:
    forms = np.arange(N)[:, None]
    settings = {"num_runs": 2, "num_prompts": num_prompts, "optimiser": optimiser, "seed": 3}
    return TabularPolicy(forms, N, learning_rate=learning_rate, **settings)


def update(learner, policy, returns: np.ndarray, prompts=None) -> Batch:
    """One update of both runs with these returns (E,); groups of three."""
    prompts = first_prompt(RUNS) if prompts is None else prompts
    batch = learner.sample(policy, RUNS, prompts, len(returns))
    rewards = np.broadcast_to(returns[:, None], (2, len(returns), 1)).copy()
    batch = replace(batch, rewards=rewards, returns=rewards.reshape(2, -1, 3, 1))
    learner.learn(policy, batch)
    return batch


# Replay


def gradient(logits: torch.Tensor, answers, advantages, weights) -> torch.Tensor:
    """Of the mean of -weight times advantage times log-probability, by hand: (N,)."""
    onehot = torch.eye(N, dtype=torch.float64)[torch.as_tensor(answers)]
    each = onehot - logits.softmax(dim=0)
    factors = torch.as_tensor(np.asarray(weights) * np.asarray(advantages))
    return -(factors[:, None] * each).mean(dim=0)


@pytest.mark.parametrize("truncation", [2.0, 1.05])
def test_a_replayed_answer_weighs_as_much_as_its_probability_has_grown(truncation):
    policy, learner = tabular(learning_rate=2.0), Replay(truncation=truncation, size=3, choice="recent")
    learner.start(0, 2)
    first = update(learner, policy, np.array([1.0, 0.0, 0.0]))
    then, middle = torch.zeros(N, dtype=torch.float64).log_softmax(dim=0), policy.logits[0, 0].clone()
    second = update(learner, policy, np.array([0.0, 0.0, 0.0]))  # which moves nothing itself
    answers, advantages = first.choices[0, :, 0], np.array([2, -1, -1]) / 3
    ratio = (middle.log_softmax(dim=0) - then).exp()[torch.as_tensor(answers)].numpy()
    weights = np.minimum(ratio, truncation)
    assert (weights < ratio).any() == (truncation < 2)
    expected = middle - 2.0 * gradient(middle, answers, advantages, weights)
    torch.testing.assert_close(policy.logits[0, 0], expected, atol=1e-12, rtol=0)
    assert second.updates[0] == 1
    assert policy.updates.tolist() == [2, 2]


def test_the_first_update_is_that_of_reinforce():
    ours, theirs = tabular("adam"), tabular("adam")
    learner = Replay()
    learner.start(0, 2)
    for one, policy in ((learner, ours), (Reinforce(), theirs)):
        update(one, policy, np.array([1.0, 0.0, 0.5]))
    assert torch.equal(ours.logits, theirs.logits)
    assert ours.logits.any()


VALUE = np.array([[0.5, 1.0, 0.1, 0.7, 1.0, 0.2, 0.7]] * 2)
SIGNAL = np.array([[1.0, 0.0, -1.0, 1.0, 0.0, -1.0, 1.0]] * 2)[:, :, None]  # none at 1 and 4


def replayed(choice: str, seed: int) -> tuple[int, ...]:
    """Which two of seven remembered episodes."""
    learner, picked = Replay(choice=choice, size=2), []
    learner.start(seed, 2)
    path, zeros = np.arange(7)[None, :, None] + 0 * VALUE[:, :, None].astype(int), np.zeros((2, 7), dtype=int)
    learner._memory = {"path": path, "choices": path, "prompts": zeros, "before": 0.0 * SIGNAL}
    learner._memory |= {"advantages": SIGNAL, "value": VALUE}

    def note(batch, advantages, _):
        picked.append(batch.path[0, :, 0])
        np.testing.assert_array_equal(advantages[0], SIGNAL[0, picked[0]])

    learner._replay(SimpleNamespace(update=note), Batch(RUNS, first_prompt(RUNS), path, path, RUNS))
    return tuple(picked[0].tolist())


@pytest.mark.parametrize(("choice", "expected"), [("best", (6, 3)), ("recent", (6, 5))])
def test_which_episodes_are_replayed(choice, expected):
    assert {replayed(choice, seed) for seed in range(5)} == {expected}


def test_any_episodes_are_replayed_at_random():
    picked = [replayed("random", seed) for seed in range(400)]
    counts = np.bincount(np.ravel(picked), minlength=7)
    assert not counts[[1, 4]].any()
    assert scipy.stats.chisquare(counts[[0, 2, 3, 5, 6]]).pvalue > 0.01


def test_it_forgets_the_oldest_and_keeps_runs_apart():
    policy, learner = tabular(), Replay(memory=4)
    learner.start(0, 2)
    batches = [update(learner, policy, np.array([1.0, 0.0, 0.5]) * scale) for scale in (1, 2, 3)]
    paths = np.concatenate([batch.path for batch in batches], axis=1)[:, -4:]
    np.testing.assert_array_equal(learner._memory["path"], paths)
    np.testing.assert_allclose(learner._memory["value"][0], [1.0, 3.0, 0.0, 1.5])


def test_what_is_replayed_moves_the_row_of_its_own_secret():
    policy, learner = tabular(num_prompts=2), Replay(size=3)
    learner.start(0, 2)
    update(learner, policy, np.array([1.0, 0.0, 0.5]), np.array([[1], [0]]))
    before = policy.logits.clone()
    update(learner, policy, np.zeros(3), np.array([[0], [1]]))
    changed = (policy.logits != before).flatten(1).any(dim=1)  # rows (run, prompt)
    assert changed.tolist() == [False, True, True, False]


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
def test_what_is_known_of_chosen_tokens_is_what_a_pass_gives(make_policy, kind):
    policy = make_policy(kind, 8, num_secrets=2, moved=True)
    prompts = np.array([[0, 1], [1, 1]])
    batch = policy.sample(RUNS, prompts, 6)
    policy.adapters.activate(RUNS)
    with torch.no_grad():
        paths = batch.path.reshape(4, 3, -1)
        passed = chosen_log_probs(policy.model, policy.trie, paths, prompts.ravel()).view(batch.path.shape)
    np.testing.assert_allclose(policy.log_probs_of_path(batch), passed.numpy(), atol=1e-5)


# Evolution


def test_with_hardly_any_noise_it_samples_what_the_policy_would():
    ours, theirs = tabular(), tabular()
    learner = Evolution(sigma=1e-6)
    learner.start(0, 2)
    given = learner.sample(ours, RUNS, first_prompt(RUNS), 9)
    np.testing.assert_array_equal(given.choices, theirs.sample(RUNS, first_prompt(RUNS), 9).choices)
    assert given.path.shape == given.choices.shape == (2, 9, 1)
    loud = Evolution(sigma=100.0)
    loud.start(0, 2)
    assert (loud.sample(ours, RUNS, first_prompt(RUNS), 9).choices != given.choices).any()


def test_a_step_follows_z_scored_returns_times_their_noise():
    policy, learner = tabular(learning_rate=0.7), Evolution(sigma=0.5)
    learner.start(5, 2)
    returns = np.array([0.0, 1.0, 0.25, 0.5, 1.0, 0.0])
    update(learner, policy, returns)
    score = (returns - returns.mean()) / returns.std()
    for run in range(2):
        drawn = np.stack([noise(seed, N) for seed in learner._seeds[run]])
        np.testing.assert_allclose(policy.logits[run, 0].numpy(), 0.7 * (score @ drawn) / 6, atol=1e-12)
    assert len({*learner._seeds.ravel()}) == 12  # each run and each episode has noise of its own


def test_equal_returns_move_nothing_and_are_silent():
    policy, learner = tabular(), Evolution()
    learner.start(0, 2)
    batch = learner.sample(policy, RUNS, first_prompt(RUNS), 3)
    silent = learner.learn(policy, replace(batch, returns=np.full((2, 1, 3, 1), 0.1)))
    assert silent.tolist() == [1.0, 1.0]
    assert not policy.logits.any()
    assert policy.updates.tolist() == [0, 0]


def test_its_mean_step_is_the_gradient_of_the_smoothed_reward():
    """Stein: E[r noise] = sigma times the gradient of E[reward of softmax(logits + sigma noise)]."""
    runs, sigma, start = 2000, 1.0, torch.tensor([0.5, 0.0, -0.5, 0.2], dtype=torch.float64)
    policy = TabularPolicy(
        np.arange(4)[:, None], 4, num_runs=runs, learning_rate=1.0, optimiser="sgd", seed=0
    )
    policy.logits[:] = start
    policy._stale[:] = True
    rewards, learner = np.array([0.0, 1.0, 0.2, 0.5]), Evolution(sigma=sigma)
    learner.start(0, runs)
    batch = learner.sample(policy, np.arange(runs), first_prompt(np.arange(runs)), 30)
    earned = rewards[batch.choices].reshape(runs, 1, 30, 1)
    deviation = earned.std()
    learner.learn(policy, replace(batch, returns=earned))
    step = (policy.logits[:, 0] - start).mean(dim=0) * deviation
    around = start + sigma * torch.from_numpy(np.random.default_rng(0).standard_normal((200_000, 4)))
    around = around.requires_grad_()
    (around.softmax(dim=1) @ torch.from_numpy(rewards)).mean().backward()
    expected = sigma * around.grad.sum(dim=0)
    torch.testing.assert_close(step, expected, atol=0.006, rtol=0.1)
    assert expected.abs().max() > 0.05


@pytest.mark.parametrize(
    "settings",
    [LoRASettings(rank=2), SharedSettings(5, LoRASettings(rank=2)), FullSettings()],
    ids=["lora", "shared", "full"],
)
def test_every_kind_of_adapter_is_put_back_and_moved_along_its_noise(make_policy, settings):
    trie = make_policy("single_step", 8).trie
    policy = TransformerPolicy(
        tiny_model.make_model(0), trie, num_runs=2, lora=settings, learning_rate=0.01, seed=0, optimiser="sgd"
    )
    learner = Evolution(sigma=0.05)
    learner.start(0, 2)
    known = policy.log_probs(RUNS, first_prompt(RUNS))
    vectors = [vector.detach().clone() for vector in policy.adapters.vectors]
    with policy.perturbed(RUNS, np.array([1, 2]), 0.05):
        assert (policy.log_probs(RUNS, first_prompt(RUNS)) != known).any(axis=(1, 2)).all()
        drawn = 0.05 * torch.from_numpy(noise(2, vectors[1].numel())).float()
        torch.testing.assert_close(policy.adapters.vectors[1].detach(), vectors[1] + drawn)
    np.testing.assert_array_equal(policy.log_probs(RUNS, first_prompt(RUNS)), known)
    assert all(torch.equal(*pair) for pair in zip(policy.adapters.vectors, vectors, strict=True))
    returns = np.array([1.0, 0.0, 0.5])
    update(learner, policy, returns)
    score = (returns - returns.mean()) / returns.std()
    for run in range(2):
        drawn = score @ np.stack([noise(seed, vectors[run].numel()) for seed in learner._seeds[run]]) / 3
        expected = vectors[run] + 0.01 * torch.from_numpy(drawn).float()
        torch.testing.assert_close(policy.adapters.vectors[run].detach(), expected, atol=1e-7, rtol=1e-5)
    assert (policy.log_probs(RUNS, first_prompt(RUNS)) != known).any()


# Whole experiments

GRADED = {"reward_type": "binned_log_distance", "reward_bins": 8, "N": 16, "num_runs": 3}
RESUMED = {
    "replay": {"algorithm": "replay", "replay_choice": "random", "replay_memory": 9},
    "evolution": {"algorithm": "evolution", "group_size": 6},
    "evolution, several secrets": {"algorithm": "evolution", "num_secrets": 2, "batch_size": 2},
    "moving average": {"algorithm": "moving_average"},
    "pairs": {"algorithm": "pairs"},
    "entropy and the base": {"entropy_bonus": 0.01, "kl_to_base": 0.1},
}


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    """Drawing takes most of a small run's time."""
    monkeypatch.setattr(pictures, "draw_run", lambda _: [])


def resumes(settings) -> None:
    whole = memory_rl.train(log_path="whole", **settings)
    with stopped_at(settings["max_episodes"] // 2):
        memory_rl.train(log_path="parts", checkpoint_every=0, **settings)
    assert memory_rl.load("parts").outcome is memory_rl.Outcome.FAILED
    memory_rl.train(log_path="parts", resume=True, **settings)
    assert measured("parts") == measured("whole")
    assert whole.metrics["update"].max() > 2


@pytest.mark.parametrize("settings", RESUMED.values(), ids=RESUMED)
def test_it_is_resumed_to_the_byte(settings):
    resumes({**GRADED, "backend": "tabular", "max_episodes": 72, **settings})


@pytest.mark.parametrize("name", ["replay", "evolution", "entropy and the base"])
def test_on_a_transformer_too(name):
    resumes({**GRADED, "N": 8, "num_runs": 2, "max_episodes": 24, **RESUMED[name]})
