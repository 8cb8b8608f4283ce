"""Expected updates, by enumeration of all groups, against the exact gradient of the expected reward."""

import itertools

import numpy as np
import pytest
import torch
from helpers import advantages_of, demonstrate, sample

from memory_rl.learning.learners import Reinforce

REWARDS = torch.tensor([0.0, 1.0, 0.25, 0.5], dtype=torch.float64)
LOGITS = torch.tensor([0.3, -1.0, 0.7, 0.0], dtype=torch.float64)


def expected_update(algorithm: str, group_size: int) -> torch.Tensor:
    """Minus the expected gradient of the loss over all groups of this size."""
    logits = LOGITS.clone().requires_grad_()
    probabilities = LOGITS.softmax(dim=0)
    total = torch.zeros((), dtype=torch.float64)
    for group in itertools.product(range(4), repeat=group_size):
        rewards = REWARDS[list(group)].numpy().reshape(1, 1, group_size, 1)
        advantages = torch.from_numpy(advantages_of(rewards, algorithm, "step")[:, 0])  # (R, G, K = L)
        log_probs = logits.log_softmax(dim=0)[list(group)].reshape(1, group_size, 1)
        total = total - probabilities[list(group)].prod() * Reinforce().loss(
            log_probs, log_probs.detach(), advantages
        )
    total.backward()
    return logits.grad


def exact_gradient() -> torch.Tensor:
    logits = LOGITS.clone().requires_grad_()
    (logits.softmax(dim=0) * REWARDS).sum().backward()
    return logits.grad


@pytest.mark.parametrize("group_size", [2, 3, 4])
def test_rloo_is_unbiased(group_size):
    assert torch.allclose(expected_update("rloo", group_size), exact_gradient(), atol=1e-12)


@pytest.mark.parametrize("group_size", [2, 3, 4])
def test_the_groups_own_mean_shrinks_the_gradient_by_one_part_in_g(group_size):
    assert torch.allclose(
        expected_update("reinforce", group_size), exact_gradient() * (group_size - 1) / group_size, atol=1e-12
    )


def all_paths(trie) -> np.ndarray:
    """Every course that an episode can take, those that end in an exit with the reward of their first turns
    included: edge ids, padded with -1."""
    complete, open_paths = [], [([], 0)]
    while open_paths:
        path, decision = open_paths.pop()
        for edge in trie.decision_edges[decision][trie.decision_edges[decision] != -1]:
            longer = [*path, edge]
            if trie.edge_next[edge] == -1:
                complete.append(longer + [-1] * (trie.max_edges - len(longer)))
            else:
                open_paths.append((longer, trie.edge_next[edge]))
    return np.array(complete)


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
def test_the_transformers_mean_update_is_the_gradient_of_its_expected_reward(make_policy, kind):
    """rloo over many sampled groups against autograd through the exact answer distribution."""
    from helpers import make_environment

    from memory_rl.policies.packed import all_edge_log_probs, chosen_log_probs

    policy = make_policy(kind, 4, num_runs=1, moved=True)
    environment, secret, run = make_environment(kind, 4), np.array([2]), np.array([0])
    paths, vector = all_paths(policy.trie), policy.adapters.vectors[0]

    policy.adapters.activate(run)
    exact = all_edge_log_probs(policy.model, policy.trie, policy._pack, np.array([0]))[0]
    padded = torch.cat([exact, exact.new_zeros(1)])
    choices = policy.trie.choices(paths)
    value = torch.from_numpy(environment.rewards(choices[None], secret)[0].sum(axis=1)).float()
    probabilities = padded[torch.from_numpy(paths)].sum(dim=1).exp()
    assert probabilities.sum().item() == pytest.approx(1.0, abs=1e-5)
    (probabilities * value).sum().backward()
    gradient, vector.grad = vector.grad.clone(), None

    groups, size = 2000, 4
    rollout = sample(policy, run, groups * size)
    rewards = environment.rewards(rollout.choices, secret).reshape(1, groups, size, -1)
    advantages = advantages_of(rewards, "rloo", "episode").reshape(rollout.choices.shape)
    per_token = torch.from_numpy(policy.trie.per_token(rollout.path, advantages)).float()
    policy.adapters.activate(run)
    log_probs = chosen_log_probs(policy.model, policy.trie, rollout.path)
    Reinforce().loss(log_probs, log_probs.detach(), per_token).backward()
    cosine = torch.nn.functional.cosine_similarity(-vector.grad, gradient, dim=0)
    assert cosine > 0.98
    assert -vector.grad @ gradient / (gradient @ gradient) == pytest.approx(1.0, abs=0.1)


def credit_gradients(credit: str, rewards: np.ndarray) -> torch.Tensor:
    """d loss / d log-probability of each step of each episode, for rewards (G, K): (G, K)."""
    advantages = advantages_of(rewards[None, None], "reinforce", credit)[:, 0]
    log_probs = torch.zeros(advantages.shape, dtype=torch.float64, requires_grad=True)
    Reinforce().loss(
        log_probs, log_probs.detach(), torch.from_numpy(np.ascontiguousarray(advantages))
    ).backward()
    return log_probs.grad[0]


@pytest.mark.parametrize(
    ("credit", "moved_steps"),
    [("step", {1}), ("reward_to_go", {0, 1}), ("episode", {0, 1, 2})],
)
def test_which_steps_feel_another_steps_reward(credit, moved_steps):
    """One reward at step 1 changes; with credit=step no other step's gradient does."""
    rewards = np.array([[1.0, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 0]])
    changed = rewards.copy()
    changed[0, 1] = 1.0
    difference = (credit_gradients(credit, rewards) - credit_gradients(credit, changed)).abs().sum(dim=0)
    assert {step for step in range(3) if difference[step] > 0} == moved_steps


@pytest.mark.parametrize(("credit", "feels"), [("step", False), ("episode", True)])
def test_the_adapters_feel_the_other_steps_only_with_episode_credit(make_policy, credit, feels):
    """The same through the real model: what the tokens of step 0 contribute to the adapters' gradient, when
    the rewards of step 2 change."""
    from memory_rl.policies.packed import chosen_log_probs

    policy = make_policy("multi_step", 8, num_runs=1, moved=True)
    rollout = demonstrate(policy, np.array([0]), np.array([[0b000, 0b011, 0b101, 0b110]]))
    first = policy.trie.edge_step[rollout.path] == 0

    def gradient(rewards):
        advantages = advantages_of(rewards[None, None], "reinforce", credit)[:, 0]
        weights = torch.from_numpy(
            np.where(first, policy.trie.per_token(rollout.path, advantages), 0.0)
        ).float()
        policy.adapters.vectors[0].grad = None
        policy.adapters.activate([0])
        log_probs = chosen_log_probs(policy.model, policy.trie, rollout.path)
        Reinforce().loss(log_probs, log_probs.detach(), weights).backward()
        return policy.adapters.vectors[0].grad.clone()

    rewards = np.array([[1.0, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 0]])
    changed = rewards.copy()
    changed[:, 2] = [0, 1, 0, 1]
    same = torch.equal(gradient(rewards), gradient(changed))
    assert same is not feels
