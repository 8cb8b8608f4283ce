"""The trie that is worked out turn by turn is the one that lists all conversations."""

import numpy as np
import pytest
import torch
from helpers import make_environment, make_trie

from memory_rl.policies import tiny_model
from memory_rl.policies.answer_trie import NONE, build_trie
from memory_rl.policies.asking import draw
from memory_rl.policies.lean import lean
from memory_rl.policies.packed import pack_nodes
from memory_rl.policies.turn_trie import build_turn_trie

PROMPTS, FORCED = np.array([[7, 8], [7, 9]]), [[3], [4, 5], [6]]
REPLIES = {"bits": [[0, 2], [1, 2]], "three of two tokens": [[0, 0, 2], [0, 1, 2], [1, 0, 2]]}


def both(replies):
    """The same conversations, listed and worked out; the listed one's paths by form."""
    forms = np.arange(len(replies) ** 4)
    choices = forms[:, None] // len(replies) ** np.arange(4)[::-1] % len(replies)
    turns = [
        [(forced, replies[choice]) for forced, choice in zip([[7, 8], *FORCED], row, strict=True)]
        for row in choices.tolist()
    ]
    return build_trie(turns, choices), build_turn_trie(PROMPTS, FORCED, replies)


def context(trie, node):
    """The tokens up to a node, and the depth of each."""
    found = []
    while node != NONE:
        found.append((int(trie.node_token[node]), int(trie.node_depth[node])))
        node = int(trie.node_parent[node])
    return tuple(found[::-1])


def at_decision(trie, decision):
    """What is known of a decision, whatever the numbers."""
    edges = trie.decision_edges[decision]
    edges = edges[edges != NONE]
    return context(trie, int(trie.decision_node[decision])), sorted(map(int, trie.edge_token[edges]))


@pytest.mark.parametrize("kind", REPLIES)
def test_every_conversation_takes_the_same_way(kind):
    listed, computed = both(REPLIES[kind])
    assert len(computed.form_edges) == len(listed.form_edges)
    assert computed.max_edges == listed.max_edges
    assert computed.num_steps == listed.num_steps == 4
    for form in range(len(listed.form_edges)):
        paths = [np.asarray(trie.form_edges[form]) for trie in (listed, computed)]
        for one, other in zip(*paths, strict=True):
            for name in ("edge_token", "edge_step", "edge_choice", "is_exit"):
                assert getattr(listed, name)[one] == getattr(computed, name)[other]
            ways = [
                at_decision(trie, int(trie.edge_decision[edge]))
                for trie, edge in ((listed, one), (computed, other))
            ]
            assert ways[0] == ways[1]
            assert listed.column(one) == computed.column(other)
            after = [int(trie.edge_next[edge]) for trie, edge in ((listed, one), (computed, other))]
            assert (after[0] == NONE) == (after[1] == NONE)
            if after[0] != NONE:
                assert at_decision(listed, after[0]) == at_decision(computed, after[1])
        assert np.array_equal(
            *(trie.choices(path) for trie, path in zip((listed, computed), paths, strict=True))
        )


@pytest.mark.parametrize("kind", REPLIES)
def test_numbers_are_of_one_thing_each(kind):
    listed, computed = both(REPLIES[kind])
    assert computed.num_nodes == len(computed.node_token)
    decisions = [at_decision(computed, one) for one in range(len(computed.decision_node))]
    assert len(decisions) == len(set(map(str, decisions))) == len(listed.decision_node)
    assert len(computed.edge_token) == len(listed.edge_token)
    every = np.arange(len(computed.edge_token))
    assert (computed.decision_edges[computed.edge_decision[every]] == every[:, None]).any(axis=1).all()
    exits = every[computed.is_exit[every]]
    assert (computed.edge_next[exits] == NONE).all()
    assert (computed.edge_choice[exits] == NONE).all()


@pytest.mark.parametrize("kind", REPLIES)
def test_the_share_of_an_edge_is_that_of_the_listed_trie(kind):
    listed, computed = both(REPLIES[kind])
    num_forms = len(listed.form_edges)
    for weights in (
        np.ones(num_forms),
        np.random.default_rng(0).random(num_forms),
        np.arange(num_forms) < 11,
    ):
        with np.errstate(invalid="ignore"):  # behind what no form with a weight comes to
            shares = listed.edge_share(weights.astype(float)), computed.edge_share(weights[weights > 0])
        some = np.nonzero(weights)[0]
        np.testing.assert_allclose(
            *(
                share[np.asarray(trie.form_edges[some])]
                for share, trie in zip(shares, (listed, computed), strict=True)
            ),
            rtol=1e-12,
        )


def test_a_pack_of_some_conversations_is_the_same():
    listed, computed = both(REPLIES["bits"])
    forms = np.array([[3, 3, 9], [0, 15, 4]])
    packs = []
    for trie in (listed, computed):
        edges = np.asarray(trie.form_edges[forms])
        rows = np.broadcast_to(np.arange(2)[:, None, None], edges.shape)
        packs.append(pack_nodes(trie, rows.ravel(), trie.decision_node[trie.edge_decision[edges]].ravel(), 2))
    for row in range(2):
        seen = [
            sorted(
                zip(
                    pack.positions[row].tolist(),
                    pack.tokens[row].tolist(),
                    pack.mask[row, 0].eq(0).sum(1).tolist(),
                    strict=True,
                )
            )
            for pack in packs
        ]
        assert seen[0] == seen[1]


@pytest.mark.parametrize("leanly", [True, False])
def test_samples_are_the_same(leanly):
    """The same tokens, and the same probabilities, with much asked for ahead and with little."""
    model, forms = tiny_model.make_model(0).eval(), np.array([[5], [9]])
    passes, uniforms = lean(model) if leanly else model, np.random.default_rng(0).random((2, 5, 8, 2))
    tokens, drawn = [], []
    for trie, spare in zip(both(REPLIES["bits"]), (0, 40), strict=True):
        passes.spare_tokens = spare
        with torch.no_grad():
            drawn.append(draw(passes, trie, np.zeros(2, dtype=int), forms, uniforms, avoid=True))
        paths = drawn[-1].paths
        tokens.append(np.where(paths == NONE, NONE - 1, trie.edge_token[paths]))
    np.testing.assert_array_equal(*tokens)
    for name in ("of_forms", "of_staying", "of_valid_path"):
        np.testing.assert_allclose(*(getattr(one, name) for one in drawn), rtol=1e-6, atol=1e-5)


def test_the_built_in_model_s_conversations_are_such():
    environment = make_environment("multi_step", 16)
    listed = make_trie(environment, tiny_model.make_tokenizer())
    assert len(listed.form_edges) == 16
    assert (listed.form_edges != NONE).all()


def test_replies_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match="different lengths"):
        build_turn_trie(PROMPTS, FORCED, [[0, 2], [1, 1, 2]])
