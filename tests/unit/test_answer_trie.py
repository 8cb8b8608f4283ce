"""The answer trie: its paths, its sampling, and what it refuses."""

import numpy as np
import pytest
import scipy.stats
from helpers import make_environment, make_trie

from memory_rl.policies import tiny_model
from memory_rl.policies.answer_trie import NONE, build_trie

TOKENIZER = tiny_model.make_tokenizer()


def random_probabilities(trie, seed=0, num_runs=1):
    """A random distribution at each decision, as (R, E)."""
    rng = np.random.default_rng(seed)
    probabilities = np.zeros((num_runs, len(trie.edge_token)))
    for edges in trie.decision_edges:
        edges = edges[edges != NONE]
        probabilities[:, edges] = rng.dirichlet(np.ones(len(edges)), size=num_runs)
    return probabilities


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
@pytest.mark.parametrize("N", [2, 5, 16, 37])
def test_a_path_spells_its_conversation(kind, N):
    environment = make_environment(kind, N)
    trie = make_trie(environment, TOKENIZER)
    for form in range(environment.num_forms):
        edges = trie.form_edges[form]
        edges = edges[edges != NONE]
        chosen = TOKENIZER.decode(trie.edge_token[edges]).replace("<eos>", "|")
        assert chosen == "".join(f"{choice}|" for choice in environment.choices(form))
        assert trie.choices(trie.form_edges[form]).tolist() == environment.choices(form).tolist()


def test_the_context_of_a_decision_is_the_conversation_so_far():
    environment = make_environment("multi_step", 8)
    trie = make_trie(environment, TOKENIZER)
    last = trie.form_edges[0b101][trie.form_edges[0b101] != NONE][-2]  # the third bit
    node, context = trie.decision_node[trie.edge_decision[last]], []
    while node != NONE:
        context.insert(0, trie.node_token[node])
        node = trie.node_parent[node]
    assert (
        TOKENIZER.decode(np.concatenate([trie.prompt, context]))
        == "<bos>Secret in [0,8), bit 1?<reply>1<eos>2?<reply>0<eos>3?<reply>"
    )


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
def test_forms_and_exits_share_all_probability(kind):
    environment = make_environment(kind, 11)
    trie = make_trie(environment, TOKENIZER)
    probabilities = random_probabilities(trie)
    forms = np.exp(trie.form_log_probs(np.log(probabilities))).sum()
    reach = {0: 1.0}  # probability of coming to each decision
    left = 0.0
    for decision in range(len(trie.decision_node)):
        for edge in trie.decision_edges[decision][trie.decision_edges[decision] != NONE]:
            mass = reach[decision] * probabilities[0, edge]
            if trie.is_exit[edge]:
                left += mass
            elif trie.edge_next[edge] != NONE:
                reach[trie.edge_next[edge]] = mass
    assert forms + left == pytest.approx(1.0)


@pytest.mark.parametrize(("kind", "N"), [("single_step", 13), ("multi_step", 8)])
def test_sampled_answers_follow_the_exact_distribution(kind, N):
    environment = make_environment(kind, N)
    trie = make_trie(environment, TOKENIZER)
    probabilities = random_probabilities(trie, seed=3)
    uniforms = np.random.default_rng(1).random((1, 100_000, trie.max_edges))
    sampled = trie.choices(trie.sample(probabilities, uniforms))[0]
    exact = np.exp(trie.form_log_probs(np.log(probabilities)))[0]
    counts = [
        (sampled == environment.choices(form)).all(axis=1).sum() for form in range(environment.num_forms)
    ]
    observed = np.array([*counts, len(sampled) - sum(counts)])
    assert (sampled == NONE).any(axis=1).sum() == observed[-1]  # the rest are the invalid ones
    expected = np.array([*exact, 1 - exact.sum()]) * len(sampled)
    assert scipy.stats.chisquare(observed, expected).pvalue > 0.001


def test_an_exit_forfeits_the_later_turns():
    environment = make_environment("multi_step", 8)
    trie = make_trie(environment, TOKENIZER)
    probabilities = np.zeros((1, len(trie.edge_token)))
    first = trie.form_edges[0b111]
    probabilities[0, first[:2]] = 1.0  # the first bit is 1 for certain
    probabilities[0, trie.is_exit & (np.arange(len(trie.edge_token)) != NONE)] = 1e-12
    second = trie.decision_edges[trie.edge_next[first[1]]]
    probabilities[0, second[second != NONE][-1]] = 1.0  # then something else
    edges = trie.sample(probabilities, np.full((1, 1, trie.max_edges), 0.5))
    assert trie.choices(edges).tolist() == [[[1, NONE, NONE]]]
    assert (edges != NONE).sum() == 3


@pytest.mark.parametrize(("kind", "N"), [("single_step", 137), ("multi_step", 16)])
def test_the_shares_of_the_edges_make_forms_as_likely_as_they_weigh(kind, N):
    trie = make_trie(make_environment(kind, N), TOKENIZER)
    for weights in (np.ones(N), np.random.default_rng(0).exponential(size=N)):
        share = trie.edge_share(weights)
        with np.errstate(divide="ignore"):  # exits have no share
            log_probs = trie.form_log_probs(np.log(share))
        np.testing.assert_allclose(np.exp(log_probs), weights / weights.sum())
        assert (share[trie.is_exit] == 0).all()


def test_ambiguous_answers_are_refused():
    with pytest.raises(ValueError, match="same tokens"):
        build_trie([[([1], [5, 2])], [([1], [5, 2])]], np.array([[0], [1]]))
    with pytest.raises(ValueError, match="begin another"):
        build_trie([[([1], [5])], [([1], [5, 6])]], np.array([[0], [1]]))
