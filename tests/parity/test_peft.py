"""Stacked adapters of three runs against three separate PEFT models."""

import copy

import numpy as np
import peft
import pytest
import torch
from helpers import all_log_probs, sample

from memory_rl.learning.learners import Reinforce
from memory_rl.learning.ratios import PPO
from memory_rl.policies.answer_trie import NONE
from memory_rl.policies.lora import TARGETS
from memory_rl.policies.packed import chosen_log_probs

R = 3


def as_peft(policy, base, run):
    """A PEFT model with the weights of one run's adapters."""
    settings = policy.adapters.settings
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=list(TARGETS[settings.targets]),
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(copy.deepcopy(base), config)
    for name, (down, up) in policy.adapters.matrices(run).items():
        layer = model.get_submodule(f"base_model.model.{name}")
        layer.lora_A["default"].weight.data.copy_(down)
        layer.lora_B["default"].weight.data.copy_(up)
    return model


def unwrap(policy):
    """The base model as it was before its layers were replaced."""
    base = copy.deepcopy(policy.model)
    for name in policy.adapters.matrices(0):
        parent, _, child = name.rpartition(".")
        setattr(base.get_submodule(parent), child, base.get_submodule(name).base)
    return base


def path_tokens(trie, path):
    """One sampled single_step answer as the tokens behind the prompt."""
    return trie.edge_token[path[path != NONE]].tolist()


@pytest.mark.parametrize(
    "lora",
    [
        {"rank": 4},
        {"rank": 1},
        {"rank": 8, "targets": "attention"},
        {"rank": 2, "targets": "mlp", "alpha": 3.0},
    ],
)
def test_log_probabilities_and_gradients(make_policy, lora):
    policy = make_policy("single_step", 64, num_runs=R, moved=True, **lora)
    base, trie = unwrap(policy), policy.trie
    rng = np.random.default_rng(0)
    path = trie.form_edges[rng.integers(64, size=(R, 4))]  # (R, G, L)
    advantages = torch.from_numpy(np.where(path == NONE, 0.0, rng.normal(size=(R, 4, 1)))).float()

    policy.adapters.activate(range(R))
    log_probs = chosen_log_probs(policy.model, trie, path)
    Reinforce().loss(log_probs, log_probs.detach(), advantages).backward()

    for run in range(R):
        model = as_peft(policy, base, run)
        loss = 0.0
        for episode in range(4):
            tokens = path_tokens(trie, path[run, episode])
            logits = model(torch.tensor([trie.prompt.tolist() + tokens])).logits[0].log_softmax(dim=1)
            scores = logits[len(trie.prompt) - 1 : -1].gather(1, torch.tensor(tokens)[:, None])[:, 0]
            np.testing.assert_allclose(
                log_probs[run, episode, : len(tokens)].detach(), scores.detach(), rtol=0, atol=1e-4
            )
            loss = loss - advantages[run, episode, 0] * scores.sum() / 4
        loss.backward()
        flat = policy.adapters.vectors[run]
        ours = dict(policy.adapters.matrices(run))
        flat.data, kept = flat.grad, flat.data  # the views of a vector's gradient
        gradients = policy.adapters.matrices(run)
        flat.data = kept
        assert ours.keys() == gradients.keys()
        for name, (down, up) in gradients.items():
            layer = model.get_submodule(f"base_model.model.{name}")
            for mine, theirs in ((down, layer.lora_A), (up, layer.lora_B)):
                theirs = theirs["default"].weight.grad
                # in shares of the greatest slope: rounding grows with it, and differs by processor
                np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4 * max(1.0, theirs.abs().max()))
        assert flat.grad.abs().max() > 1e-2  # the comparison was not one of zeros


def test_initial_adapters_have_pefts_scale_and_differ_by_run(make_policy):
    policy = make_policy(num_runs=2)
    for name, (down, up) in policy.adapters.matrices(0).items():
        bound = down.shape[1] ** -0.5
        assert down.abs().max() <= bound
        assert down.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
        assert not up.any()
        assert not torch.equal(down, policy.adapters.matrices(1)[name][0])


def test_a_runs_update_is_the_same_alone_and_in_company(make_policy):
    together, alone = make_policy(num_runs=3), make_policy(num_runs=1)
    everyone, first = np.arange(3), np.array([0])
    for _ in range(3):
        rollout, single = sample(together, everyone, 4), sample(alone, first, 4)
        assert np.array_equal(rollout.path[:1], single.path)
        advantages = np.array([1.0, -1.0, 0.5, -0.5])[None, :, None]
        together.update(rollout, np.repeat(advantages, 3, axis=0), Reinforce())
        alone.update(single, advantages, Reinforce())
    np.testing.assert_allclose(all_log_probs(together, first), all_log_probs(alone, first), rtol=0, atol=1e-4)


def test_a_run_without_signal_stands_still(make_policy):
    policy = make_policy(num_runs=2, moved=True)
    rollout = sample(policy, np.arange(2), 4)
    advantages = np.zeros((2, 4, 1))
    advantages[1] = [[1.0], [-1.0], [0.0], [0.0]]
    for _ in range(3):  # with momentum from the first step, the third would drift
        before = [vector.detach().clone() for vector in policy.adapters.vectors]
        policy.update(rollout, advantages, Reinforce())
        assert torch.equal(before[0], policy.adapters.vectors[0])
        assert not torch.equal(before[1], policy.adapters.vectors[1])
    policy.update(rollout, np.flip(advantages, axis=0), Reinforce())
    stood = policy.adapters.vectors[1].detach().clone()
    policy.update(rollout, np.flip(advantages, axis=0), Reinforce())
    assert torch.equal(stood, policy.adapters.vectors[1])
    assert policy.updates.tolist() == [2, 3]


def test_every_epoch_of_ppo_is_an_update(make_policy):
    policy = make_policy(num_runs=2)
    rollout = sample(policy, np.arange(2), 2)
    advantages = np.array([[[1.0], [-1.0]], [[0.0], [0.0]]])
    policy.update(rollout, advantages, PPO(epochs=3))
    assert policy.updates.tolist() == [3, 0]
    steps = [policy.optimiser.state[vector].get("step") for vector in policy.adapters.vectors]
    assert (steps[0].item(), steps[1]) == (3.0, None)
