"""What teachers say of each token, against sums over answers; what a policy is moved by, against its
definition; what is told of S, against the ledger's tables."""

import itertools
from dataclasses import replace

import numpy as np
import pretrained
import pytest
import torch
from helpers import make_environment, make_trie, setting_of, walks

from memory_rl.information.entropy import entropy
from memory_rl.learning.batch import Batch
from memory_rl.learning.imitation import FLOOR, Imitation
from memory_rl.policies import tiny_model
from memory_rl.policies.answer_trie import NONE
from memory_rl.policies.base import first_prompt
from memory_rl.policies.tabular import TabularPolicy
from memory_rl.policies.teaching import OfForms, OfSecret, OfTurns, judged
from memory_rl.policies.turn_trie import build_turn_trie
from memory_rl.task import INVALID
from memory_rl.task.table import episode_table, taught_table
from memory_rl.training.accounts import Accounts
from memory_rl.training.teachers import believes, knows, make_teacher


def trie_of(kind: str, N: int, num_secrets: int = 1):
    return make_trie(make_environment(kind, N, num_secrets), tiny_model.make_tokenizer())


def digits(trie, answer: str) -> np.ndarray:
    """The edges of an answer of single_step."""
    return trie.form_edges[int(answer)][: len(answer) + 1]


def of_tokens(trie, opinion, path) -> np.ndarray:
    """What a teacher gives to the tokens of sampled paths: (R, E, L)."""
    found = opinion.on_path(trie, path)
    return np.take_along_axis(found, trie.column(path)[..., None], axis=3)[..., 0]


def of_forms(environment, opinion, blocks: int) -> np.ndarray:
    """The probability of every valid conversation, turn after turn: (R, B, F)."""
    every = np.arange(environment.num_forms)
    choices = np.tile(environment.choices(every), (len(opinion_of(opinion)), blocks, 1))
    found = opinion.of_choices(choices, environment.num_choices).prod(axis=2)
    return found.reshape(len(found), blocks, -1)


def opinion_of(opinion) -> np.ndarray:
    return opinion.forms if isinstance(opinion, OfSecret) else opinion.weights


def blank_batch(choices: np.ndarray, prompts: np.ndarray | None = None, **more) -> Batch:
    """A batch of these choices (R, E, K), whatever the tokens."""
    runs = np.arange(len(choices))
    return Batch(runs, first_prompt(runs) if prompts is None else prompts, choices, choices, runs, **more)


# The teachers


def test_one_who_knows_s_puts_its_error_evenly_on_the_others():
    environment = make_environment("single_step", 5)
    opinion = knows(environment, np.array([[3, 4], [0, 0]]), 0.2)
    expected = np.array([[0.05, 0.05, 0.05, 0.8, 0.05], [0.05] * 4 + [0.8], *[[0.8] + [0.05] * 4] * 2])
    assert of_forms(environment, opinion, 2).reshape(4, 5) == pytest.approx(expected)
    choices = np.array([[[3], [INVALID], [3], [4]]] * 2)
    assert opinion.of_choices(choices, 5)[:, :, 0] == pytest.approx(
        np.array([[0.8, 0.0, 0.05, 0.8], [0.05, 0.0, 0.05, 0.05]])
    )
    turns = opinion.turns(choices, 5)
    assert turns[:, ::2, 0] == pytest.approx(expected.reshape(2, 2, 5))
    assert np.array_equal(turns[:, :2, 0], turns[:, [0, 0], 0])


def test_one_who_knows_s_errs_in_each_bit_anew():
    environment = make_environment("multi_step", 5)  # 3 bits: 8 forms
    found = of_forms(environment, knows(environment, np.array([[0b100]]), 0.1), 1)[0, 0]
    for form, bits in enumerate(itertools.product((0, 1), repeat=3)):
        wrong = sum(bit != right for bit, right in zip(bits, (1, 0, 0), strict=True))
        assert found[form] == pytest.approx(0.9 ** (3 - wrong) * 0.1**wrong)


def test_an_observer_of_bits_answers_each_by_what_it_believes_of_it():
    environment = make_environment("multi_step", 6)
    belief = np.array([0.1, 0.2, 0.0, 0.3, 0.0, 0.4])  # of 000 to 101
    batch = blank_batch(np.zeros((1, 1, 3)), beliefs=belief[None, None])
    found = of_forms(environment, believes(environment, batch), 1)[0, 0]
    ones = 0.4, 0.3, 0.2 + 0.3 + 0.4
    for form, bits in enumerate(itertools.product((0, 1), repeat=3)):
        of_bits = [one if bit else 1 - one for bit, one in zip(bits, ones, strict=True)]
        assert found[form] == pytest.approx(np.prod(of_bits))
    assert believes(make_environment("single_step", 6), batch).weights is batch.beliefs


def test_an_observer_of_rounded_beliefs_gives_nothing_less_than_none():
    """What sums to a little more than 1 is sure."""
    environment = make_environment("multi_step", 10)
    beliefs = np.array([0.0] * 8 + [0.5, 0.5 + 1e-15])
    found = believes(environment, blank_batch(np.zeros((1, 1, 4)), beliefs=beliefs[None, None]))
    assert (found.weights >= 0).all()
    assert found.weights[0, 0, 0].tolist() == [0.0, 1.0]


def test_a_turn_is_judged_after_the_turns_before_it():
    weights = np.array([[[0.1, 0.3, 0.0, 0.0], [0.25, 0.0, 0.5, 0.25]]])  # forms 00 01 10 11, two blocks
    choices = np.array([[[0, 1], [1, INVALID], [1, 1], [0, 0]]])
    found = OfForms(weights).turns(choices, 2)[0]
    assert found[0] == pytest.approx(np.array([[0.4 / 0.4, 0.0], [0.25, 0.75]]))
    assert found[1] == pytest.approx(np.array([[1.0, 0.0], [0.5, 0.5]]))  # 1 is ruled out: then anything
    assert found[2] == pytest.approx(np.array([[0.25, 0.75], [2 / 3, 1 / 3]]))
    assert found[3] == pytest.approx(np.array([[0.25, 0.75], [1.0, 0.0]]))
    assert OfForms(weights).of_choices(choices, 2)[0] == pytest.approx(
        np.array([[1.0, 0.75], [0.0, 0.0], [0.75, 1 / 3], [0.25, 1.0]])
    )


@pytest.mark.parametrize("teacher", ["secret", "observer"])
def test_a_bit_that_is_surely_wrong_leaves_the_later_ones_as_they_were(teacher):
    """Whatever was answered before, each turn is told its own bit of S: with teacher_error=0, and by an
    observer who is sure."""
    environment, trie = make_environment("multi_step", 8), trie_of("multi_step", 8)
    sure = blank_batch(np.zeros((1, 1, 3)), beliefs=np.eye(8)[0b101][None, None])
    opinion = (
        knows(environment, np.array([[0b101]]), 0.0) if teacher == "secret" else believes(environment, sure)
    )
    path = trie.form_edges[[0b001, 0b000]][None]
    assert of_tokens(trie, opinion, path)[0] == pytest.approx(
        np.array([[0.0, 1.0, 1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0, 0.0, 1.0]])
    )


def test_in_place_of_a_reward_stands_the_log_probability_of_each_turn():
    setting = setting_of(N=4, env_type="multi_step", signal="teacher", teacher_error=0.1)
    signal, environment = setting.experiment.signal, setting.environment
    teacher = make_teacher(signal, environment, np.array([[0b01]]), None)
    choices = np.array([[[0, 1], [1, 1], [INVALID, INVALID], [0, INVALID]]])
    right, wrong, least = np.log(0.9), np.log(0.1), np.log(FLOOR)
    expected = [[right, right], [wrong, right], [least, least], [right, least]]
    assert teacher.judge(blank_batch(choices)).rewards[0] == pytest.approx(np.array(expected))
    lesson = np.array([[[0.1, 0.3, 0.2, 0.4]]])
    teacher = make_teacher(signal, environment, np.array([[0b01]]), lesson)
    expected = [
        [np.log(0.4), np.log(0.75)],
        [np.log(0.6), np.log(2 / 3)],
        [least, least],
        [np.log(0.4), least],
    ]
    assert teacher.judge(blank_batch(choices)).rewards[0] == pytest.approx(np.array(expected))


def test_each_block_is_taught_by_who_knows_its_secret():
    setting = setting_of(N=8, num_secrets=3, signal="teacher", teacher_error=0.1, batch_size=2)
    secrets = np.array([[1, 2, 3], [4, 5, 6]])
    teacher = make_teacher(setting.experiment.signal, setting.environment, secrets, None)
    batch = teacher.judge(blank_batch(np.full((2, 2, 1), 6), np.array([[0, 2], [2, 1]])))
    assert np.exp(batch.rewards[:, :, 0]) == pytest.approx(np.array([[0.1 / 7] * 2, [0.9, 0.1 / 7]]))


# Tokens


def test_a_digit_is_as_likely_as_the_answers_that_begin_with_it():
    """N = 12: 1 begins 1, 10 and 11. After a first digit that no answer of the teacher's has, all that it
    begins are equally likely."""
    trie = trie_of("single_step", 12)
    weights = np.zeros((1, 1, 12))
    weights[0, 0, [1, 10, 11, 4]] = 0.1, 0.2, 0.4, 0.3
    for answer, expected in {
        4: [0.3, 1.0],
        1: [0.7, 1 / 7],
        10: [0.7, 2 / 7, 1.0],
        11: [0.7, 4 / 7, 1.0],
        3: [0.0, 1.0],
    }.items():
        path = trie.form_edges[[[answer]]]
        assert of_tokens(trie, OfForms(weights), path)[path != NONE] == pytest.approx(expected), answer
    path = trie.form_edges[[[10]]]
    sure = OfForms(np.eye(12)[[[4]]])
    assert of_tokens(trie, sure, path)[0, 0] == pytest.approx([0.0, 1 / 3, 1.0])


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
def test_tokens_multiply_to_the_answers(kind):
    trie = trie_of(kind, 37)
    num_forms = len(trie.form_edges)
    weights = np.random.default_rng(0).dirichlet(np.ones(num_forms), size=(2, 3))
    path = np.tile(trie.form_edges, (2, 3, 1))
    tokens = np.where(path == NONE, 1.0, of_tokens(trie, OfForms(weights), path))
    assert tokens.prod(axis=2).reshape(weights.shape) == pytest.approx(weights)


def test_each_block_hears_its_own_teacher():
    trie = trie_of("multi_step", 4, num_secrets=2)
    weights = np.eye(4)[[[0b00, 0b10], [0b11, 0b01]]]
    path = np.broadcast_to(trie.form_edges[0b11], (2, 4, trie.max_edges))
    taken = of_tokens(trie, OfForms(weights), path)
    ends = np.ones(2)
    first = np.array([[0, 0, 1, 1], [1, 1, 0, 0]])
    second = np.array([[0, 0, 0, 0], [1, 1, 1, 1]])  # 00 says nothing after a 1: 1/2 each, below
    assert taken[:, :, 0] == pytest.approx(first)
    assert taken[:, :, 2][first == 1] == pytest.approx(second[first == 1])
    assert taken[:, :, 2][first == 0] == pytest.approx(0.5)
    assert taken[0, 0, [1, 3]] == pytest.approx(ends)


THREE = build_turn_trie(np.array([[7, 8], [7, 9]]), [[3], [4, 5]], [[0, 0, 2], [0, 1, 2], [1, 0, 2]])
"""Three choices a turn, two of which begin alike."""

TRIES = {
    "answers": lambda: trie_of("single_step", 112),
    "tokens of three digits": lambda: make_trie(
        make_environment("single_step", 1120), pretrained.make_tokenizer(pretrained.LLAMA)
    ),
    "listed bits": lambda: trie_of("multi_step", 11),
    "bits": lambda: build_turn_trie(np.array([[7]]), [[3], [4], [5]], [[0, 2], [1, 2]]),
    "replies of two tokens": lambda: THREE,
}


def by_listing(trie, weights: np.ndarray, path: np.ndarray) -> np.ndarray:
    """What a distribution (F,) over the conversations gives along one path (L,): from all their edges."""
    every = np.asarray(trie.form_edges[np.arange(len(trie.form_edges))])
    found = np.zeros((len(path), trie.decision_edges.shape[1]))
    for place in range((path != NONE).sum()):
        alike = (every[:, :place] == path[:place]).all(axis=1)
        at = np.where(weights[alike].sum() > 0, weights, 1.0)
        ways = trie.decision_edges[trie.edge_decision[path[place]]]
        masses = [at[alike & (every[:, place] == way)].sum() if way != NONE else 0.0 for way in ways]
        found[place] = np.array(masses) / sum(masses)
    return found


def assert_as_listed(trie, opinion, weights: np.ndarray) -> None:
    """On any paths (R, E) an opinion says what distributions (R, B, F) say."""
    path = walks(trie, (len(weights), 6), np.random.default_rng(2))
    assert trie.is_exit[path[path != NONE]].any()
    found, size = opinion.on_path(trie, path), 6 // weights.shape[1]
    assert found.shape == (*path.shape, trie.decision_edges.shape[1])
    for run, episode in np.ndindex(*path.shape[:2]):
        expected = by_listing(trie, weights[run, episode // size], path[run, episode])
        there = path[run, episode] != NONE
        np.testing.assert_allclose(found[run, episode][there], expected[there], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [kind for kind in TRIES if kind not in ("bits", "replies of two tokens")])
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_a_token_is_as_likely_as_the_answers_behind_it(kind, share):
    """Also where most of them are ruled out."""
    trie, random = TRIES[kind](), np.random.default_rng(1)
    weights = random.dirichlet(np.ones(len(trie.form_edges)), size=(2, 3))
    weights *= random.random(weights.shape) < share
    assert_as_listed(trie, OfForms(weights), weights)


@pytest.mark.parametrize("kind", ["answers", "tokens of three digits"])
@pytest.mark.parametrize("error", [0.0, 0.01, 0.4])
def test_tokens_of_one_who_knows_s_are_worked_out_without_a_list(kind, error):
    trie, secrets = TRIES[kind](), np.array([[1, 110, 7], [100, 11, 111]])
    num_forms = len(trie.form_edges)
    weights = np.full((2, 3, num_forms), error / (num_forms - 1))
    np.put_along_axis(weights, secrets[..., None], 1 - error, axis=2)
    assert_as_listed(trie, OfSecret(secrets, error, num_forms), weights)


@pytest.mark.parametrize("kind", ["listed bits", "bits", "replies of two tokens"])
def test_tokens_of_one_who_answers_turn_by_turn_are_worked_out_without_a_list(kind):
    trie = TRIES[kind]()
    forms = np.arange(len(trie.form_edges))
    choices = trie.choices(np.asarray(trie.form_edges[forms]))  # (F, K)
    of_turns = np.random.default_rng(1).dirichlet(np.ones(choices.max() + 1), size=(2, 3, choices.shape[1]))
    each = np.take_along_axis(of_turns[:, :, None], choices[None, None, ..., None], axis=4)[..., 0]
    assert_as_listed(trie, OfTurns(of_turns), each.prod(axis=3))


def test_of_an_unfinished_turn_only_the_exit_is_judged():
    trie = trie_of("multi_step", 4)
    path = np.array([[trie.form_edges[0b10].copy() for _ in range(3)]])
    path[0, 1, 1:] = NONE  # "1", and then no end of the turn
    path[0, 1, 1] = trie.decision_edges[trie.edge_decision[trie.form_edges[0b10][1]]].max()
    path[0, 2, 3] = trie.decision_edges[trie.edge_decision[trie.form_edges[0b10][3]]].max()
    assert trie.is_exit[path[0, 1, 1]]
    found = judged(trie, path)
    assert found.tolist() == [[[True] * 4, [False, True, False, False], [True, True, False, True]]]


# What moves the policy


def a_pair(shape=(2, 3, 2, 5)):
    """Log-probabilities and a teacher, the last choice of which is none."""
    random = torch.Generator().manual_seed(0)
    log_probs = torch.randn(shape, generator=random, dtype=torch.float64)
    log_probs[..., -1] = -torch.inf
    taught = torch.rand(shape, generator=random, dtype=torch.float64)
    taught[..., -1] = 0.0
    taught[..., 0] = 0.0  # ruled out, and yet finite
    return log_probs.log_softmax(-1).requires_grad_(), taught / taught.sum(-1, keepdim=True)


def kl(one: np.ndarray, other: np.ndarray) -> float:
    other = np.maximum(other, FLOOR)
    return sum(p * np.log(max(p, FLOOR) / q) for p, q in zip(one, other, strict=True) if p > 0)


@pytest.mark.parametrize("divergence", ["reverse", "forward"])
@pytest.mark.parametrize("k", [None, 1, 2, 3, 5, 9])
def test_the_loss_is_the_divergence_at_the_tokens_that_are_judged(divergence, k):
    log_probs, taught = a_pair()
    judges = torch.ones(log_probs.shape[:3], dtype=torch.bool)
    judges[1, 2, 0] = False
    learner = Imitation(told="whole" if k is None else "top_k", k=k or 1, divergence=divergence)
    chosen = torch.zeros(log_probs.shape[:3], dtype=torch.int64)
    loss = learner.tokens_loss(log_probs, chosen, taught, judges)
    expected = 0.0
    for place in itertools.product(*map(range, judges.shape)):
        p, q = log_probs[place].exp().detach().numpy(), taught[place].numpy()
        if k is not None and k < len(q):
            top = np.argsort(-q, kind="stable")[:k]
            p, q = np.append(p[top], 1 - p[top].sum()), np.append(q[top], 1 - q[top].sum())
        pair = (p, q) if divergence == "reverse" else (q, p)
        expected += bool(judges[place]) * kl(*pair) / judges.shape[1]
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, log_probs)
    assert gradient.isfinite().all()


def gradient_of(told: str, logits: np.ndarray, choices: list[int], taught: np.ndarray, **more) -> np.ndarray:
    """Of the loss of these answers by the logits."""
    leaf = torch.tensor(logits, requires_grad=True)
    shape = 1, len(choices), 1
    log_probs = leaf.log_softmax(0).expand(*shape, -1)
    chosen, judges = torch.tensor(choices).view(shape), torch.ones(shape, dtype=torch.bool)
    loss = Imitation(told=told, **more).tokens_loss(
        log_probs, chosen, torch.tensor(taught).expand(*shape, -1), judges
    )
    return torch.autograd.grad(loss, leaf)[0].numpy()


def test_sampled_tokens_are_an_unbiased_estimate_of_what_the_whole_distribution_tells():
    """The mean over the policy's own answers is the gradient of KL(policy || teacher), and of no other."""
    logits, taught = np.array([0.3, -1.0, 0.8, 0.0]), np.array([0.1, 0.2, 0.65, 0.05])
    p = np.exp(logits) / np.exp(logits).sum()
    each = [gradient_of("sampled", logits, [answer], taught) for answer in range(4)]
    surplus = np.log(p / taught)
    by_hand = p * (surplus - p @ surplus)
    assert p @ np.array(each) == pytest.approx(by_hand)
    assert gradient_of("whole", logits, [0], taught) == pytest.approx(by_hand)
    assert gradient_of("whole", logits, [0], taught, divergence="forward") == pytest.approx(p - taught)
    assert gradient_of("sampled", logits, [1], taught) == pytest.approx(
        (np.log(p[1]) - np.log(taught[1])) * (np.eye(4)[1] - p)
    )


def test_what_is_told_beyond_the_likeliest_token_of_one_who_knows_s_is_nothing():
    """All others being equally likely, the rest as one says the same: forward, to the last digit."""
    logits, taught = np.array([0.3, -1.0, 0.8, 0.0]), np.array([0.02, 0.02, 0.94, 0.02])
    p = np.exp(logits) / np.exp(logits).sum()
    found = gradient_of("top_k", logits, [0], taught, k=1, divergence="forward")
    rest = np.where(np.arange(4) == 2, 0.94, 0.06 * p / (1 - p[2]))
    assert found == pytest.approx(p - rest)


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
@pytest.mark.parametrize("told", ["sampled", "top_k", "whole"])
@pytest.mark.parametrize("divergence", ["reverse", "forward"])
def test_a_transformer_is_moved_by_the_gradient_of_plain_log_softmax(make_policy, kind, told, divergence):
    """Of the same loss, written out token by token from the logits of the whole vocabulary."""
    policy, plain = (make_policy(kind, 16, moved=True) for _ in range(2))
    runs, trie = np.arange(2), policy.trie
    batch = policy.sample(runs, first_prompt(runs), 3)
    opinion = OfForms(np.random.default_rng(1).dirichlet(np.ones(len(trie.form_edges)), size=(2, 1)))
    learner = Imitation(told=told, k=2, divergence=divergence)
    batch = replace(batch, taught=opinion)
    taught, exits = opinion.on_path(trie, batch.path), trie.is_exit
    plain.adapters.activate(runs)
    total = 0.0
    for run, episode in itertools.product(range(2), range(3)):
        edges = [edge for edge in batch.path[run, episode] if edge != NONE]
        for place, edge in enumerate(edges):
            in_turn = trie.edge_step[edge] == trie.edge_step[edges[-1]]
            if told == "sampled" and exits[edges[-1]] and in_turn and not exits[edge]:
                continue  # nothing is said of what an unfinished turn begins with
            decision = trie.edge_decision[edge]
            tokens, node = [], trie.decision_node[decision]
            while node != NONE:
                tokens.insert(0, trie.node_token[node])
                node = trie.node_parent[node]
            row = torch.tensor([[*trie.prompt.tolist(), *map(int, tokens)]]).expand(2, -1)
            log_probs = plain.model(row).logits[run, -1].double().log_softmax(0)
            columns = [column for column in trie.decision_edges[decision] if column != NONE]
            own = [trie.edge_token[column] for column in columns if not exits[column]]
            others = [token for token in range(len(log_probs)) if token not in own]
            values = [
                log_probs[others].logsumexp(0) if exits[column] else log_probs[trie.edge_token[column]]
                for column in columns
            ]
            p, q = torch.stack(values), torch.tensor(taught[run, episode, place][: len(columns)])
            total = total + one_token(learner, p, q, columns.index(edge)) / 3
    total.backward()
    policy.imitate(batch, learner)
    for one, other in zip(policy.adapters.vectors, plain.adapters.vectors, strict=True):
        scale = other.grad.abs().max().item()
        assert one.grad.numpy() == pytest.approx(other.grad.numpy(), abs=2e-4 * scale)
    assert policy.updates.tolist() == [1, 1]


def one_token(learner, log_probs, taught, chosen: int):
    """Minus log-ratio times log-probability, or the divergence."""
    floor = taught.clamp(min=FLOOR).log()
    if learner.told == "sampled":
        return -(floor[chosen] - log_probs[chosen].detach()) * log_probs[chosen]
    if learner.told == "top_k" and len(taught) > learner.k:
        top = taught.argsort(descending=True, stable=True)
        first, rest = top[: learner.k], top[learner.k :]
        log_probs = torch.cat([log_probs[first], log_probs[rest].logsumexp(0)[None]])
        taught = torch.cat([taught[first], taught[rest].sum()[None]])
        floor = taught.clamp(min=FLOOR).log()
    surplus = log_probs - floor
    return (log_probs.exp() * surplus).sum() if learner.divergence == "reverse" else -(taught * surplus).sum()


def test_a_table_learns_from_the_episodes_of_each_secret_alone():
    forms = np.arange(4)[:, None]
    settings = {"num_runs": 1, "num_prompts": 2, "optimiser": "sgd", "learning_rate": 1.0, "seed": 0}
    policy = TabularPolicy(forms, 4, **settings)
    weights = np.array([[[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]]])
    batch = blank_batch(np.array([[[0], [1], [3], [2]]]), np.array([[0, 1]]), taught=OfForms(weights))
    policy.imitate(batch, Imitation(divergence="forward"))
    expected = 0.5 * (weights[0] - 0.25)  # half of the episodes of the update are about each
    assert policy.logits[:, 0].numpy() == pytest.approx(expected)


# What is told of S


def said(trie, opinion, path: np.ndarray) -> tuple:
    """What a teacher says of the sampled tokens of one path."""
    path = path[None, None]
    return tuple(np.round(of_tokens(trie, opinion, path), 12)[judged(trie, path)])


def lessons(environment, secrets) -> list:
    """One teacher for each of these secrets."""
    return [knows(environment, np.array([[secret]]), 0.01) for secret in secrets]


@pytest.mark.parametrize("N", [7, 12, 37, 120])
def test_the_classes_of_sampled_digits_are_what_a_teacher_tells_apart(N):
    """For each answer, two secrets are in one class if and only if all that is said is the same."""
    environment, trie = make_environment("single_step", N), trie_of("single_step", N)
    table = taught_table(environment, sampled=True, spelt=True)
    for answer in range(0, N, 1 if N < 100 else 7):
        of_secret = [said(trie, each, trie.form_edges[answer]) for each in lessons(environment, range(N))]
        classes = table.classes(np.array([answer]), np.arange(N))
        pairs = set(zip(of_secret, classes.tolist(), strict=True))
        assert len(pairs) == len({word for word, _ in pairs}) == len({number for _, number in pairs})


@pytest.mark.parametrize("N", [120, 1200])
def test_characters_tell_no_less_apart_than_tokens_of_three_digits(N):
    """An upper bound: secrets of one class are told apart by no token, and some of two classes are not."""
    environment = make_environment("single_step", N)
    trie = make_trie(environment, pretrained.make_tokenizer(pretrained.LLAMA))
    assert (trie.form_edges[[7, 111]] != NONE).sum(axis=1).tolist() == [
        2,
        2,
    ]  # a number and the end of the turn
    table = taught_table(environment, sampled=True, spelt=True)
    few = np.arange(0, N, N // 60)
    coarser = False
    for answer in few[::12]:
        of_secret = [said(trie, each, trie.form_edges[answer]) for each in lessons(environment, few)]
        pairs = {*zip(of_secret, table.classes(np.array([answer]), np.arange(N))[few].tolist(), strict=True)}
        assert len(pairs) == len({number for _, number in pairs})
        coarser |= len(pairs) > len({word for word, _ in pairs})
    assert coarser


def test_the_classes_of_sampled_bits_are_what_a_teacher_tells_apart():
    environment, trie = make_environment("multi_step", 11), trie_of("multi_step", 11)
    table = taught_table(environment, sampled=True, spelt=True)
    for form in range(16):
        of_secret = [said(trie, each, trie.form_edges[form]) for each in lessons(environment, range(11))]
        classes = table.classes(environment.choices(form), np.arange(11))
        pairs = set(zip(of_secret, classes.tolist(), strict=True))
        assert len(pairs) == len({word for word, _ in pairs}) == len({number for _, number in pairs})


def test_an_unfinished_answer_is_not_told_how_it_begins():
    environment, trie = make_environment("single_step", 12), trie_of("single_step", 12)
    path = np.full(trie.max_edges, NONE)
    path[0] = digits(trie, "10")[0]
    path[1] = trie.decision_edges[trie.edge_decision[digits(trie, "10")[1]]].max()
    assert {said(trie, each, path) for each in lessons(environment, range(12))} == {(0.0,)}


def test_sampled_digits_tell_more_than_hit_or_miss_and_less_than_s():
    """N = 12, the first answer 10: S is 10 (hit), 1 or 11 (one digit), or another (none)."""
    environment = make_environment("single_step", 12)
    told = entropy(np.array([1, 2, 9]) / 12)
    classes = taught_table(environment, sampled=True, spelt=True).classes(np.array([10]), np.arange(12))
    assert entropy(np.bincount(classes) / 12) == pytest.approx(told)
    hits = taught_table(environment, sampled=True, spelt=False).classes(np.array([10]), np.arange(12))
    assert np.flatnonzero(hits).tolist() == [10]
    assert entropy(np.bincount(hits) / 12) < told < np.log2(12)
    shown = taught_table(environment, sampled=False, spelt=True)
    assert shown.classes(np.array([10]), np.arange(12)).tolist() == list(range(12))


def entered(table, choices: list[int], N: int, secret: int, rewards: list[float] | None = None) -> dict:
    """What the ledger says after these answers to one run."""
    accounts = Accounts(np.array([[secret]]), N, 0.5, table)
    runs, episodes = np.zeros(1, dtype=np.int64), np.array([[[choice] for choice in choices]])
    earned = np.zeros(episodes.shape) if rewards is None else np.array(rewards).reshape(episodes.shape)
    batch = Batch(runs, first_prompt(runs), episodes, episodes, runs, rewards=earned)
    accounts.enter(batch, np.ones(1, dtype=np.int64))
    return {name: float(values[0]) for name, values in accounts.sums(runs).items()}


def test_an_invalid_answer_is_told_nothing_of_its_tokens_and_yet_shown_s():
    environment = make_environment("single_step", 16)
    sampled, whole = (taught_table(environment, sampled=sampled, spelt=True) for sampled in (True, False))
    assert entered(sampled, [INVALID], 16, 5) == {"asked_bits": 0, "asked_variance": 0, "observer_bits": 0}
    assert entered(whole, [INVALID], 16, 5) == {"asked_bits": 4, "asked_variance": 0, "observer_bits": 4}


@pytest.mark.parametrize("answers", [[3, 3, 7, 1, 0], [3, 5, 7]])
def test_sampled_answers_of_a_table_are_worth_as_much_as_binary_rewards(answers):
    environment = make_environment("single_step", 16)
    told = taught_table(environment, sampled=True, spelt=False)
    rewards = [float(answer == 5) for answer in answers]
    found, wanted = (
        entered(told, answers, 16, 5),
        entered(episode_table(environment), answers, 16, 5, rewards),
    )
    assert found == pytest.approx(wanted)
    misses = len({*answers[: answers.index(5) if 5 in answers else None]})
    assert found["observer_bits"] == pytest.approx(4.0 if 5 in answers else np.log2(16 / (16 - misses)))
