"""How a tree is cut into forward passes changes nothing but the time they take."""

import numpy as np
import pytest
import torch
from helpers import all_log_probs, make_environment, make_trie, sample

from memory_rl.learning.learners import Reinforce
from memory_rl.policies import packed, tiny_model, transformer
from memory_rl.policies.answer_trie import NONE
from memory_rl.policies.packed import (
    all_edge_log_probs,
    decision_states,
    on_tree_tokens,
    pack_all,
    pack_nodes,
)

R = 3


def all_edges_and_gradients(policy, pack):
    """The log-probability of every edge in each run, and the gradient of an arbitrary function of them."""
    policy.adapters.activate(range(R))
    edges = all_edge_log_probs(policy.model, policy.trie, pack, np.zeros(R, dtype=int))
    for vector in policy.adapters.vectors:
        vector.grad = None
    (edges * torch.linspace(-1, 1, edges.shape[1])).sum().backward()
    return edges.detach().numpy(), torch.stack([vector.grad for vector in policy.adapters.vectors]).numpy()


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
def test_pieces_of_a_tree_give_the_same_numbers_as_the_whole(make_policy, monkeypatch, kind):
    policy = make_policy(kind, 37, num_runs=R, moved=True)
    monkeypatch.setattr(packed, "_NODES_A_PROMPT_TOKEN", 1000)
    whole = pack_all(policy.trie)
    monkeypatch.setattr(packed, "_NODES_A_PROMPT_TOKEN", 0.5)
    pieces = pack_all(policy.trie)
    assert len(whole.tokens) == 1
    assert len(pieces.tokens) > 3
    edges, gradients = all_edges_and_gradients(policy, whole)
    again, same = all_edges_and_gradients(policy, pieces)
    np.testing.assert_allclose(again, edges, rtol=0, atol=1e-4)
    np.testing.assert_allclose(same, gradients, rtol=0, atol=1e-4 * np.abs(gradients).max())


def test_a_pack_holds_what_its_nodes_descend_from_and_no_more():
    tokenizer = tiny_model.make_tokenizer()
    trie = make_trie(make_environment("single_step", 100), tokenizer)
    edges = trie.form_edges[[42, 47, 5, 7]]
    nodes = trie.decision_node[trie.edge_decision[edges]]
    pack = pack_nodes(
        trie, np.repeat([0, 0, 1, 1], 3)[edges.ravel() != NONE], nodes.ravel()[edges.ravel() != NONE], 3
    )
    written = ["".join(tokenizer.convert_ids_to_tokens(row[len(trie.prompt) :])) for row in pack.tokens]
    assert written == ["427", "57<reply>", "<reply>" * 3]  # padded with the prompt's last token
    assert pack.positions[0, -3:].tolist() == [len(trie.prompt), len(trie.prompt) + 1, len(trie.prompt) + 1]


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
def test_a_node_attends_to_the_prompt_and_to_the_walk_to_the_root(kind):
    trie = make_trie(make_environment(kind, 16), tiny_model.make_tokenizer())
    pack, length = pack_all(trie), len(trie.prompt)
    row, node = np.divmod(pack.keys, trie.num_nodes + 1)
    for r, here, place in zip(row, node, pack.places, strict=True):
        walk = []
        while here != NONE:
            walk.append(here)
            here = trie.node_parent[here]
        expected = {*range(length), *pack.slots(np.full(len(walk), r), np.array(walk))}
        assert set(np.nonzero(pack.mask[r, 0, place].numpy() == 0)[0]) == expected
        assert pack.tokens[r, place] == trie.node_token[walk[0]]
        assert pack.positions[r, place] == length + len(walk) - 1


def test_every_decision_stands_in_the_piece_that_it_is_looked_up_in(monkeypatch):
    trie = make_trie(make_environment("multi_step", 16), tiny_model.make_tokenizer())
    model = tiny_model.make_model(0)
    states = decision_states(model, trie, pack_all(trie))
    monkeypatch.setattr(packed, "_NODES_A_PROMPT_TOKEN", 0.5)
    pack = pack_all(trie)
    row = pack.first_rows(trie.decision_node)
    place = pack.slots(row, trie.decision_node)
    assert (row > 0).any()
    node = trie.decision_node
    expected = np.where(node == NONE, trie.prompt[-1], trie.node_token[node])
    assert pack.tokens.numpy()[row, place].tolist() == expected.tolist()
    assert torch.allclose(decision_states(model, trie, pack), states, atol=1e-4)


def test_large_trees_come_in_pieces_of_bounded_length():
    trie = make_trie(make_environment("single_step", 1000), tiny_model.make_tokenizer())
    pack = pack_all(trie)
    assert len(pack.tokens) > 3
    assert pack.tokens.shape[1] < 12 * len(trie.prompt)
    assert pack.tokens.numel() < 1.4 * (trie.num_nodes + len(trie.prompt))


@pytest.mark.parametrize(("name", "bound"), [("_TOKENS_ON_A_CPU", 1), ("_FLOATS_A_PASS", 1)])
def test_runs_taken_one_by_one_move_as_they_do_together(make_policy, monkeypatch, name, bound):
    together, apart = (make_policy("multi_step", 8, num_runs=R, moved=True) for _ in range(2))
    runs, advantages = np.arange(R), np.random.default_rng(0).normal(size=(R, 4, 3))
    rollout = sample(together, runs, 4)
    together.update(rollout, advantages, Reinforce())
    expected = all_log_probs(together, runs)
    monkeypatch.setattr(transformer, name, bound)
    apart.update(rollout, advantages, Reinforce())
    np.testing.assert_allclose(all_log_probs(apart, runs), expected, rtol=0, atol=1e-3)


def test_tokens_on_the_tree_are_those_of_the_edges_that_are_no_exits():
    trie = make_trie(make_environment("single_step", 37), tiny_model.make_tokenizer())
    decisions = np.array([3, 0, 3])
    table = on_tree_tokens(trie, decisions, 100)
    for decision, row in zip(decisions, table.numpy(), strict=True):
        tokens = trie.edge_token[(trie.edge_decision == decision) & ~trie.is_exit]
        assert np.nonzero(row)[0].tolist() == sorted(tokens.tolist())
