"""The estimators: advantages against groups computed by hand, losses against autograd of what their sources
write, and what coincides with what."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import advantages_of, make_environment

from memory_rl.config import LEARNERS
from memory_rl.errors import ConfigError
from memory_rl.learning.batch import Batch
from memory_rl.learning.learners import Learner, Reinforce
from memory_rl.learning.ratios import CISPO, DPPO, GSPO, PPO, SAPO, Pairs
from memory_rl.policies.base import first_prompt
from memory_rl.policies.tabular import TabularPolicy
from memory_rl.seeding import generator

GROUPS = np.array([[[[1.0], [0.0], [0.5], [0.5]], [[0.25], [0.25], [0.25], [0.25]]]])  # (1, 2, 4, 1)
WHOLE = GROUPS[:, :1]


def of(algorithm: str, rewards=GROUPS, credit="step", **settings) -> np.ndarray:
    return advantages_of(np.asarray(rewards), algorithm, credit, **settings)[0, :, :, 0]


# Advantages, by hand


def test_reinforce_plus_plus_whitens_over_the_batch():
    mean, deviation = 3 / 8, math.sqrt((4 * 0.125**2 + 0.625**2 + 0.375**2 + 2 * 0.125**2) / 8)
    np.testing.assert_allclose(of("reinforce_plus_plus"), (GROUPS[0, :, :, 0] - mean) / deviation)


def test_its_baseline_variant_subtracts_the_groups_mean_first():
    deviation = math.sqrt(2 * 0.5**2 / 8)  # of 0.5, -0.5, 0, 0 and four zeros
    expected = np.array([[0.5, -0.5, 0, 0], [0, 0, 0, 0]]) / deviation
    np.testing.assert_allclose(of("reinforce_plus_plus", baseline="group"), expected)


@pytest.mark.parametrize("value", [0.1, 0.3, 1.0])
def test_a_batch_of_equal_rewards_is_not_whitened_into_noise(value):
    assert not of("reinforce_plus_plus", np.full((1, 1, 3, 1), value)).any()


def test_maxrl_divides_by_the_mean_and_is_0_where_there_is_none():
    np.testing.assert_allclose(of("maxrl"), [[1, -1, 0, 0], [0, 0, 0, 0]])
    assert not of("maxrl", WHOLE - 0.5).any()  # mean 0
    assert not of("maxrl", WHOLE - 1).any()  # mean below 0


def test_corpo_compares_with_a_right_answer_until_the_group_is_better():
    np.testing.assert_allclose(of("corpo"), [[0, -1, -0.5, -0.5], [-0.75] * 4])
    np.testing.assert_allclose(of("corpo", threshold=0.25), [[0.5, -0.5, 0, 0], [0] * 4])
    assert not of("corpo", np.full((1, 1, 3, 1), 0.1), threshold=0.05).any()  # rounding makes no signal


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({}, [0, -0.5, 0, 0]),
        ({"positive_weight": 0.1}, [0.05, -0.5, 0, 0]),
        ({"positive_weight": 1.0, "negative_weight": 0.0}, [0.5, 0, 0, 0]),
        ({"positive_weight": 1.0}, [0.5, -0.5, 0, 0]),
    ],
)
def test_signs_are_weighed(weights, expected):
    np.testing.assert_allclose(of("signs", **weights)[0], expected)


def test_signs_with_no_weight_at_all_are_refused():
    with pytest.raises(ConfigError, match="use negative_weight=1"):
        LEARNERS["signs"](negative_weight=0.0)


def test_raft_imitates_the_best_and_equals_share():
    np.testing.assert_array_equal(of("raft"), [[4, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(of("raft", [[[[1.0], [0.0], [1.0], [0.5]]]]), [[2, 0, 2, 0]])


def test_only_the_best_of_k_counts_and_by_how_much_it_is_better():
    np.testing.assert_array_equal(of("pass_at_k"), [[0.5, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(of("pass_at_k", [[[[1.0], [0.0], [1.0], [0.5]]]]), [[0, 0, 0, 0]])


def test_pairs_count_those_that_are_worse_less_those_that_are_better():
    np.testing.assert_array_equal(of("pairs"), [[3, -3, 0, 0], [0, 0, 0, 0]])
    turns = np.array([[[[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]]])  # an answer is judged by its sum
    np.testing.assert_array_equal(advantages_of(turns, "pairs", "step")[0, 0], [[0, 0], [-2, -2], [2, 2]])


def moving_average(rewards, decay: float = 0.95) -> np.ndarray:
    """Advantages of updates (T, R, E): less a plain sum of powers."""
    expected = np.empty_like(rewards)
    flat = rewards.transpose(1, 0, 2).reshape(rewards.shape[1], -1)
    for last in range(flat.shape[1]):
        powers = (1 - decay) * decay ** np.arange(last, -1, -1)
        update, episode = divmod(last, rewards.shape[2])
        expected[update, :, episode] = flat[:, last] - flat[:, : last + 1] @ powers
    return expected


def test_the_moving_average_is_of_the_runs_own_returns_in_turn():
    rewards = np.random.default_rng(0).random((3, 2, 4))
    learner, moved = LEARNERS["moving_average"](), []
    learner.start(0, 5)
    policy = SimpleNamespace(update=lambda batch, advantages, learner: moved.append(advantages[:, :, 0]))
    runs = np.array([1, 3])  # the others have ended
    for update in rewards:
        choices = np.zeros((2, 4, 1), dtype=np.int64)
        returns = update.reshape(2, 2, 2, 1)
        learner.learn(policy, Batch(runs, first_prompt(runs), choices, choices, runs, returns=returns))
    np.testing.assert_allclose(moved, moving_average(rewards), atol=1e-12)


# Losses, as their sources write them

SHAPE = (2, 4, 3)
PADDING = torch.ones(SHAPE, dtype=torch.bool)
PADDING[0, 1, 2] = PADDING[1, 3, 1] = PADDING[1, 3, 2] = False  # False: not a token


def tokens(seed: int = 0, spread: float = 0.5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities now and before, and an advantage for each answer, 0 at the padding."""
    random = torch.Generator().manual_seed(seed)
    before = -torch.rand(SHAPE, generator=random, dtype=torch.float64) - 0.3
    now = before + spread * torch.randn(SHAPE, generator=random, dtype=torch.float64)
    advantages = torch.randn(SHAPE[:2], generator=random, dtype=torch.float64)[:, :, None].expand(SHAPE)
    return tuple(part * PADDING for part in (now.clamp(max=-0.01), before, advantages))


def gradient_of(loss, now: torch.Tensor) -> tuple[float, torch.Tensor]:
    leaf = now.clone().requires_grad_()
    value = loss(leaf)
    return value.item(), torch.autograd.grad(value, leaf)[0]


def each_token(formula):
    """The sum over tokens, mean over episodes and sum over runs of a formula of one token, in plain loops."""

    def loss(now, before, advantages):
        total = now.new_zeros(())
        for run, episode, place in itertools.product(*map(range, SHAPE)):
            if PADDING[run, episode, place]:
                where = run, episode, place
                total = total + formula(now[where], before[where], advantages[where].item()) / SHAPE[1]
        return total

    return loss


def lesser(ratio, advantage: float, low: float, high: float):
    """min(ratio A, clip(ratio) A); a clipped one has no gradient."""
    bounded = min(max(ratio.item(), 1 - low), 1 + high) * advantage
    return ratio * advantage if ratio.item() * advantage <= bounded else bounded


def clipped(low: float, high: float):
    def formula(now, before, advantage):
        ratio = (now - before).exp()
        return -lesser(ratio, advantage, low, high)

    return each_token(formula)


def cispo(clip: float):
    return each_token(lambda now, before, one: -min((now - before).exp().item(), clip) * one * now)


def dppo(clip: float, pull: float):
    def formula(now, before, advantage):
        moved = (now.exp() - before.exp()).item()
        too_far = moved > clip if advantage > 0 else moved < -clip
        return pull * (now - before) ** 2 - (not too_far) * (now - before).exp() * advantage

    return each_token(formula)


def sapo(positive: float, negative: float):
    def formula(now, before, advantage):
        tau = positive if advantage > 0 else negative
        return -4 / tau / (1 + (-tau * ((now - before).exp() - 1)).exp()) * advantage

    return each_token(formula)


def gspo(low: float, high: float):
    """Eq. 5 and 7 of arXiv:2507.18071: one term an answer."""

    def loss(now, before, advantages):
        total = now.new_zeros(())
        for run, episode in itertools.product(*map(range, SHAPE[:2])):
            here = PADDING[run, episode]
            ratio = (now[run, episode] - before[run, episode])[here].mean().exp()
            advantage = advantages[run, episode, 0].item()
            total = total - lesser(ratio, advantage, low, high) / SHAPE[1]
        return total

    return loss


def pairs(beta: float, groups: int, order: torch.Tensor):
    """DPO for each pair, by hand."""

    def loss(now, before, advantages):
        total, size, moved = now.new_zeros(()), SHAPE[1] // groups, (now - before).sum(dim=2)
        for run, group in itertools.product(range(SHAPE[0]), range(groups)):
            chosen = range(group * size, (group + 1) * size)
            terms = [
                -torch.nn.functional.logsigmoid(beta * (moved[run, one] - moved[run, two]))
                for one, two in itertools.permutations(chosen, 2)
                if order[run, one] > order[run, two]
            ]
            total = total + sum(terms) / max(1, len(terms)) / groups
        return total

    return loss


LOSSES = {
    "ppo": (PPO(), clipped(0.2, 0.2)),
    "dapo": (PPO(clip_high=0.28), clipped(0.2, 0.28)),
    "gspo, clipped": (GSPO(), gspo(3e-4, 4e-4)),
    "gspo, wide": (GSPO(clip=0.3, clip_high=0.4), gspo(0.3, 0.4)),
    "cispo": (CISPO(clip=1.2), cispo(1.2)),
    "cispo, as by default": (CISPO(), cispo(5.0)),
    "dppo": (DPPO(), dppo(0.2, 1e-3)),
    "dppo, pulled": (DPPO(clip=0.05, pull=0.5), dppo(0.05, 0.5)),
    "sapo": (SAPO(), sapo(1.0, 1.05)),
    "sapo, cold": (SAPO(positive=3.0, negative=7.0), sapo(3.0, 7.0)),
}


@pytest.mark.parametrize(("learner", "written"), LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("seed", range(3))
def test_a_loss_and_its_gradient_are_those_of_its_source(learner, written, seed):
    now, before, advantages = tokens(seed)
    value, gradient = gradient_of(lambda leaf: learner.loss(leaf, before, advantages), now)
    expected, slope = gradient_of(lambda leaf: written(leaf, before, advantages), now)
    assert value == pytest.approx(expected, abs=1e-12)
    assert torch.allclose(gradient * PADDING, slope, atol=1e-12)
    assert not gradient[~PADDING].any()


@pytest.mark.parametrize("groups", [1, 2])
def test_pairs_are_preferences(groups):
    now, before, _ = tokens()
    order = torch.tensor([[2.0, -1.0, -1.0, 0.0], [0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    learner = Pairs(beta=0.7)
    learner._num_groups = groups
    given = order[:, :, None] * PADDING
    value, gradient = gradient_of(lambda leaf: learner.loss(leaf, before, given), now)
    expected, slope = gradient_of(lambda leaf: pairs(0.7, groups, order)(leaf, before, None), now)
    assert value == pytest.approx(expected, abs=1e-12)
    assert torch.allclose(gradient, slope, atol=1e-12)


def test_an_advantage_of_its_own_stays_with_its_token_under_one_ratio_an_answer():
    """GSPO-token, eq. 13 and 14: unclipped at rho = 1 it is the policy gradient over the answer's length."""
    now, _, _ = tokens()
    advantages = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) * PADDING
    _, gradient = gradient_of(lambda leaf: GSPO().loss(leaf, now, advantages), now)
    assert torch.allclose(gradient, -advantages / PADDING.sum(dim=2, keepdim=True) / SHAPE[1])


def test_a_token_that_is_not_this_rows_own_is_not_pulled():
    """The tabular policy hands over a run's episodes about other secrets with advantage 0."""
    now, before, advantages = tokens()
    advantages[:, 2:] = 0
    _, gradient = gradient_of(lambda leaf: DPPO(pull=1.0).loss(leaf, before, advantages), now)
    assert gradient[:, :2].any()
    assert not gradient[:, 2:].any()


# What coincides


@pytest.mark.parametrize("learner", [PPO(), PPO(clip_high=0.28), CISPO(), DPPO(), SAPO()], ids=repr)
def test_in_the_first_step_the_ratios_have_the_gradient_of_reinforce(learner):
    now, _, advantages = tokens()
    _, gradient = gradient_of(lambda leaf: learner.loss(leaf, now, advantages), now)
    _, plain = gradient_of(lambda leaf: Reinforce().loss(leaf, now, advantages), now)
    assert torch.allclose(gradient, plain, atol=1e-12)


def test_in_the_first_step_gspo_is_reinforce_over_the_length_of_each_answer():
    now, _, advantages = tokens()
    _, gradient = gradient_of(lambda leaf: GSPO().loss(leaf, now, advantages), now)
    _, plain = gradient_of(lambda leaf: Reinforce().loss(leaf, now, advantages), now)
    assert torch.allclose(gradient, plain / PADDING.sum(dim=2, keepdim=True), atol=1e-12)


def test_in_the_first_step_pairs_are_a_policy_gradient_of_ranks():
    now, _, _ = tokens()
    order = torch.tensor([[3.0, 1.0, -1.0, -3.0]] * 2, dtype=torch.float64)  # six pairs
    given = order[:, :, None] * PADDING
    _, gradient = gradient_of(lambda leaf: Pairs(beta=0.1).loss(leaf, now, given), now)
    assert torch.allclose(gradient * PADDING, -0.1 / 2 * given / 6, atol=1e-12)


def tabular(kind: str = "single_step", N: int = 8, **settings) -> TabularPolicy:
    environment = make_environment(kind, N)
    forms = environment.choices(np.arange(environment.num_forms))
    return TabularPolicy(
        forms, environment.num_choices, num_runs=3, seed=0, **{"learning_rate": 0.1, **settings}
    )


def trained(learner, kind: str, updates: int = 5, batch_size: int = 1, **settings) -> torch.Tensor:
    """The logits after some updates with graded rewards."""
    policy, learner_random = tabular(kind, **settings), generator(0, "rewards")
    runs = np.arange(3)
    learner.start(0, 3)
    for _ in range(updates):
        batch = policy.sample(runs, first_prompt(runs), 4 * batch_size)
        rewards = learner_random.integers(4, size=batch.choices.shape) / 3.0
        returns = rewards.reshape(3, batch_size, 4, -1)
        learner.learn(policy, replace(batch, rewards=rewards, returns=returns))
    return policy.logits.clone()


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
@pytest.mark.parametrize("name", ["ppo", "cispo", "dppo", "sapo"])
def test_with_one_epoch_a_policy_goes_where_reinforce_takes_it(name, kind):
    plain = trained(Reinforce(), kind)
    assert plain.abs().max() > 0.1
    assert torch.allclose(trained(LEARNERS[name](epochs=1), kind), plain, atol=1e-9)
    assert not torch.allclose(trained(LEARNERS[name](epochs=4), kind), plain, atol=1e-2)


def test_with_one_epoch_and_answers_of_one_token_gspo_is_reinforce_too():
    plain = trained(Reinforce(), "single_step")
    assert torch.allclose(trained(LEARNERS["gspo"](epochs=1), "single_step"), plain, atol=1e-9)
    turns = trained(LEARNERS["gspo"](epochs=1), "multi_step", optimiser="sgd", learning_rate=1.5)
    plain = trained(Reinforce(), "multi_step", optimiser="sgd", learning_rate=0.5)
    assert torch.allclose(turns, plain, atol=1e-9)  # three tokens an answer


def test_whitening_over_one_group_is_grpo():
    grpo = trained(LEARNERS["grpo"](), "single_step")
    for baseline in ("batch", "group"):
        whole = LEARNERS["reinforce_plus_plus"](baseline=baseline)
        assert torch.allclose(trained(whole, "single_step"), grpo, atol=1e-9)
        two = trained(whole, "single_step", batch_size=2)
        assert not torch.allclose(two, trained(LEARNERS["grpo"](), "single_step", batch_size=2), atol=1e-3)


def test_rloo_is_reinforce_with_a_longer_step():
    longer = trained(Reinforce(), "single_step", optimiser="sgd", learning_rate=0.4)
    rloo = trained(LEARNERS["rloo"](), "single_step", optimiser="sgd", learning_rate=0.3)
    assert torch.allclose(longer, rloo, atol=1e-12)
    assert torch.allclose(
        trained(Reinforce(), "single_step"), trained(LEARNERS["rloo"](), "single_step"), atol=1e-5
    )  # Adam does not see the scale


def test_adam_sees_what_grpo_does_only_where_groups_differ_in_their_deviation():
    one = {"updates": 1}  # a first step of Adam is a sign
    for name in ("grpo", "maxrl"):
        first = trained(LEARNERS[name](), "single_step", **one)
        assert torch.allclose(trained(Reinforce(), "single_step", **one), first, atol=1e-5)
    five = trained(LEARNERS["grpo"](), "single_step")
    assert not torch.allclose(trained(Reinforce(), "single_step"), five, atol=1e-3)


def test_signs_of_equal_weight_and_an_own_threshold_of_0_are_reinforce():
    plain = of("reinforce")
    np.testing.assert_array_equal(of("signs", positive_weight=1.0), plain)
    np.testing.assert_allclose(of("corpo", threshold=0.0), plain)  # whose groups are never below it
    np.testing.assert_allclose(of("maxrl")[0] * 0.5, plain[0])  # the mean of that group is 0.5


@pytest.mark.parametrize("size", [2, 3])
def test_pass_at_k_is_the_gradient_of_the_best_of_k(size):
    """By enumeration of all groups: the expected update is the gradient of E[max of k rewards]."""
    rewards = torch.tensor([0.0, 1.0, 0.25, 0.5], dtype=torch.float64)
    logits = torch.tensor([0.3, -1.0, 0.7, 0.0], dtype=torch.float64, requires_grad=True)
    chances, update, best = logits.softmax(dim=0), 0.0, 0.0
    for group in map(list, itertools.product(range(4), repeat=size)):
        chance = chances[group].prod()
        best = best + chance * rewards[group].max()
        given = torch.from_numpy(of("pass_at_k", rewards[group].numpy().reshape(1, 1, size, 1)))
        log_probs = chances.log()[group].reshape(1, size, 1)
        update = update - size * chance.detach() * Learner().loss(
            log_probs, log_probs.detach(), given[:, :, None]
        )
    (expected,) = torch.autograd.grad(best, logits, retain_graph=True)
    (got,) = torch.autograd.grad(update, logits)
    assert torch.allclose(got, expected, atol=1e-12)
