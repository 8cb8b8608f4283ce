"""The entropy bonus and the pull to the base: against autograd of what they are, by brute force over a few
answers, and on the built-in model against plain forward passes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import make_environment, make_trie, merged

import memory_rl
from memory_rl.learning.learners import Reinforce
from memory_rl.learning.penalty import Penalty
from memory_rl.policies import tiny_model
from memory_rl.policies.base import first_prompt
from memory_rl.policies.lora import LoRASettings
from memory_rl.policies.packed import all_edge_log_probs
from memory_rl.policies.tabular import TabularPolicy
from memory_rl.policies.transformer import TransformerPolicy
from memory_rl.reporting import pictures

TERMS = {"entropy": Penalty(entropy_bonus=0.3), "base": Penalty(kl_to_base=0.7), "both": Penalty(0.3, 0.7)}
RATE = 0.5


def tabular(kind: str, N: int, penalty: Penalty, *, num_prompts: int = 1, prefixes: bool = False):
    """A policy whose logits have moved away from the base's, which are 0."""
    environment = make_environment(kind, N)
    forms = environment.choices(np.arange(environment.num_forms))
    settings = {"num_runs": 2, "num_prompts": num_prompts, "prefixes": prefixes, "penalty": penalty}
    policy = TabularPolicy(
        forms, environment.num_choices, optimiser="sgd", learning_rate=RATE, seed=1, **settings
    )
    random = torch.Generator().manual_seed(0)
    policy.logits += torch.randn(policy.logits.shape, generator=random, dtype=torch.float64)
    return policy


def equal_rewards(policy, batch) -> None:
    """An update whose groups are all equal, so that nothing but the penalty moves."""
    returns = np.ones(batch.choices.shape)
    returns = returns.reshape(len(batch.runs), 1, *returns.shape[1:])
    Reinforce().learn(policy, replace(batch, rewards=returns[:, 0], returns=returns))


def of_decision(logits: torch.Tensor, chosen: int, penalty: Penalty) -> torch.Tensor:
    """What one decision adds to the loss, as the terms are written, with a uniform base."""
    chances = logits.softmax(dim=0)
    ratio = 1 / len(logits) / chances[chosen]
    entropy = -sum(chance * chance.log() for chance in chances)
    return -penalty.entropy_bonus * entropy + penalty.kl_to_base * (ratio - ratio.log() - 1)


def by_hand(start: torch.Tensor, episodes, decisions_of, penalty: Penalty, num_episodes: int) -> torch.Tensor:
    """The logits (D, C) of one row after a plain step: mean over all episodes of a run, own ones alone."""
    leaf = start.clone().requires_grad_()
    loss = sum(
        of_decision(leaf[decision], chosen, penalty)
        for choices in episodes
        for decision, chosen in zip(decisions_of(choices), choices, strict=True)
    )
    return start - RATE * torch.autograd.grad(loss / num_episodes, leaf)[0]


def prefix_decisions(choices) -> list[int]:
    """Numbered level by level: 0, then 1 + first bit, then 3 + the first two."""
    return [2**step - 1 + int("0" + "".join(map(str, choices[:step])), 2) for step in range(len(choices))]


@pytest.mark.parametrize("penalty", TERMS.values(), ids=TERMS)
@pytest.mark.parametrize(
    ("kind", "prefixes", "decisions_of"),
    [
        ("single_step", False, lambda choices: [0]),
        ("multi_step", False, lambda choices: range(len(choices))),
        ("multi_step", True, prefix_decisions),
    ],
    ids=["single_step", "positions", "prefixes"],
)
def test_a_tabular_step_is_that_of_the_terms_as_they_are_written(kind, prefixes, decisions_of, penalty):
    policy = tabular(kind, 8, penalty, prefixes=prefixes)
    start, runs = policy.logits.clone(), np.arange(2)
    batch = policy.sample(runs, first_prompt(runs), 5)
    equal_rewards(policy, batch)
    for run in runs:
        expected = by_hand(start[run], batch.choices[run].tolist(), decisions_of, penalty, 5)
        torch.testing.assert_close(policy.logits[run], expected, atol=1e-12, rtol=0)
    assert (policy.logits != start).any()


@pytest.mark.parametrize("penalty", TERMS.values(), ids=TERMS)
def test_episodes_about_another_secret_do_not_count(penalty):
    policy = tabular("single_step", 4, penalty, num_prompts=3)
    start, runs = policy.logits.clone(), np.arange(2)
    prompts = np.array([[0, 2, 0], [1, 1, 1]])
    batch = policy.sample(runs, prompts, 6)
    equal_rewards(policy, batch)
    for run, prompt in np.ndindex(2, 3):
        own = batch.choices[run][batch.asked[run] == prompt].tolist()
        row = 3 * run + prompt
        expected = by_hand(start[row], own, lambda _: [0], penalty, 6) if own else start[row]
        torch.testing.assert_close(policy.logits[row], expected, atol=1e-12, rtol=0)


def expected_step(penalty: Penalty) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean step over all answers with their probabilities, and the logits before it: (N,)."""
    mean, policy = 0.0, tabular("single_step", 5, penalty)
    start, runs = policy.logits.clone(), np.arange(2)
    chances = start[0, 0].softmax(dim=0)
    for answer in range(5):
        policy = tabular("single_step", 5, penalty)
        equal_rewards(policy, policy.demonstrate(runs, first_prompt(runs), np.full((2, 1), answer)))
        mean = mean + chances[answer] * (policy.logits[0, 0] - start[0, 0])
    return mean, start[0, 0]


def test_the_mean_step_of_the_bonus_climbs_the_entropy():
    step, start = expected_step(TERMS["entropy"])
    leaf = start.clone().requires_grad_()
    (-(leaf.softmax(dim=0) * leaf.log_softmax(dim=0)).sum()).backward()
    torch.testing.assert_close(step, RATE * 0.3 * leaf.grad)


def test_the_mean_step_of_k3_descends_the_divergence_of_the_base_from_the_policy():
    """Its value estimates KL(policy || base); its gradient, on samples, is that of KL(base || policy)."""
    step, start = expected_step(TERMS["base"])
    leaf, base = start.clone().requires_grad_(), torch.full((5,), 0.2, dtype=torch.float64)
    torch.nn.functional.kl_div(leaf.log_softmax(dim=0), base, reduction="sum").backward()
    torch.testing.assert_close(step, -RATE * 0.7 * leaf.grad)
    chances = start.softmax(dim=0)
    ratio = base / chances
    mean = (chances * (ratio - ratio.log() - 1)).sum()
    torch.testing.assert_close(mean, (chances * (chances / base).log()).sum())


# On the built-in model


def transformer(kind: str, penalty: Penalty, num_secrets: int = 1) -> TransformerPolicy:
    trie = make_trie(make_environment(kind, 4, num_secrets), tiny_model.make_tokenizer())
    policy = TransformerPolicy(
        tiny_model.make_model(0),
        trie,
        num_runs=2,
        lora=LoRASettings(rank=4),
        learning_rate=1.0,
        seed=0,
        optimiser="sgd",
        penalty=penalty,
    )
    random = torch.Generator().manual_seed(0)
    for vector in policy.adapters.vectors:
        vector.data += 0.03 * torch.randn(vector.shape, generator=random)
    return policy


def plain_edges(model, trie, prompt: int, path) -> list[tuple[torch.Tensor, int]]:
    """Log-probabilities of the edges of each decision on a path, and the one taken; a pass for each."""
    found = []
    for edge in path[path != -1]:
        decision = int(trie.edge_decision[edge])
        tokens, node = [], int(trie.decision_node[decision])
        while node != -1:
            tokens, node = [int(trie.node_token[node]), *tokens], int(trie.node_parent[node])
        with torch.no_grad():
            logits = model(torch.tensor([[*trie.prompts[prompt].tolist(), *tokens]])).logits[0, -1].double()
        log_probs, edges = logits.log_softmax(dim=0), trie.decision_edges[decision]
        edges = edges[edges != -1]
        valid = [int(trie.edge_token[each]) for each in edges if not trie.is_exit[each]]
        others = torch.ones(len(log_probs), dtype=torch.bool)
        others[valid] = False
        values = [log_probs[token] for token in valid] + [log_probs[others].logsumexp(dim=0)]
        found.append((torch.stack(values), [*edges].index(edge)))
    return found


def paths_of(policy, prompts: np.ndarray):
    """Two valid answers and two that were sampled (of a model that was not warmed up: exits) for each run."""
    runs = np.arange(2)
    shown = policy.demonstrate(runs, prompts, np.array([[0, 3], [2, 1]]))
    drawn = policy.sample(runs, prompts, 2)
    if prompts.shape[1] == 1:
        path, choices = (
            np.concatenate(pair, axis=1)
            for pair in ((shown.path, drawn.path), (shown.choices, drawn.choices))
        )
        return replace(shown, path=path, choices=choices)
    return shown


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
@pytest.mark.parametrize("prompts", [np.zeros((2, 1), int), np.array([[0, 1], [1, 1]])], ids=["one", "two"])
def test_on_a_transformer_the_terms_are_those_of_plain_passes(kind, prompts):
    policy = transformer(kind, TERMS["both"], num_secrets=1 + int(prompts.max()))
    batch, base = paths_of(policy, prompts), tiny_model.make_model(0).eval()
    with torch.no_grad():
        policy.adapters.activate(np.arange(2))
        _, added = policy._penalised(batch.path, batch.prompts)
    total = 0.0
    for run in range(2):
        plain = merged(policy, run)
        for path, prompt in zip(batch.path[run], batch.asked[run], strict=True):
            now, before = (plain_edges(model, policy.trie, prompt, path) for model in (plain, base))
            for (log_probs, taken), (of_base, _) in zip(now, before, strict=True):
                entropy = -(log_probs.exp() * log_probs).sum().item()
                log_ratio = (of_base[taken] - log_probs[taken]).item()
                total += (-0.3 * entropy + 0.7 * (np.exp(log_ratio) - log_ratio - 1)) / batch.path.shape[1]
    assert added.item() == pytest.approx(total, abs=2e-5)
    assert prompts.shape[1] == 2 or (batch.path == -1).any()


@pytest.mark.parametrize("penalty", TERMS.values(), ids=TERMS)
def test_on_a_transformer_a_step_is_down_their_gradient(penalty):
    """By autograd through the pass over the whole tree, which an update does not use."""
    policy = transformer("multi_step", penalty)
    batch, trie = paths_of(policy, first_prompt(np.arange(2))), policy.trie
    before = [vector.detach().clone() for vector in policy.adapters.vectors]
    reference = transformer("multi_step", penalty)
    for vector in reference.adapters.vectors:
        vector.data[:] = 0
    policy.adapters.activate([0])
    edges = all_edge_log_probs(policy.model, trie, policy._pack, np.array([0]))[0]
    base = torch.from_numpy(reference.log_probs_of_path(batch))[0]
    loss = 0.0
    for episode, path in enumerate(batch.path[0]):
        for place, edge in enumerate(path[path != -1]):
            here = trie.decision_edges[trie.edge_decision[edge]]
            of_all = edges[torch.from_numpy(here[here != -1])]
            log_ratio = base[episode, place] - edges[int(edge)]
            k3 = log_ratio.exp() - log_ratio - 1
            loss = loss + penalty.entropy_bonus * (of_all.exp() * of_all).sum() + penalty.kl_to_base * k3
    (expected,) = torch.autograd.grad(loss / len(batch.path[0]), policy.adapters.vectors[0])
    equal_rewards(policy, batch)
    step = before[0] - policy.adapters.vectors[0].detach()
    torch.testing.assert_close(step, expected.float(), atol=1e-5, rtol=1e-3)
    assert expected.abs().max() > 1e-3


@pytest.mark.parametrize("more", [{"gradient_checkpointing": True}, {"dtype": "bfloat16"}], ids=str)
def test_it_goes_with_whatever_the_base_computes_in(more, monkeypatch):
    monkeypatch.setattr(pictures, "draw_run", lambda _: [])
    keys = {"N": 4, "num_runs": 2, "max_episodes": 16, "entropy_bonus": 0.1, "kl_to_base": 0.1}
    plain, other = (memory_rl.train(log_path=name, **keys, **of) for name, of in (("a", {}), ("b", more)))
    known = [
        one.metrics.filter(one.metrics["update"] == 1)["bits_known"].to_numpy() for one in (plain, other)
    ]
    np.testing.assert_allclose(*known, atol=1e-4 if "dtype" not in more else 0.3)
    assert other.metrics["update"].max() == 4  # equal rewards, too, are an update
