"""What groups bring, at known pass rates and under uniform answers, against all outcomes and simulations."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from memory_rl.config import Signal, World
from memory_rl.information.first_hits import episodes_to_hit, rollouts_to_hit, steps_to_hit
from memory_rl.information.reward_laws import advantage_bits, signal_bits, silent_chance
from memory_rl.learning.learners import Reinforce
from memory_rl.learning.silence import GroupLaw
from memory_rl.reporting.group_plan import Pricing
from memory_rl.reporting.rate_plan import best_size, plan_size
from memory_rl.rollouts.pass_rates import RateLaw, one_rate
from memory_rl.task import credit_rewards, make_environment
from memory_rl.training.first_groups import level_shares

MIXED = RateLaw(np.array([0.0, 0.03, 0.4, 0.9]), np.array([0.2, 0.3, 0.4, 0.1]), "")


def environment_of(env_type, N, **signal):
    return make_environment(World(env_type=env_type, N=N), Signal(**signal))


def outcomes(rate, size):
    """All outcomes of a group, with their chances."""
    for passed in itertools.product((0, 1), repeat=size):
        hits = sum(passed)
        yield np.array(passed), rate**hits * (1 - rate) ** (size - hits)


def entropy(masses):
    return -sum(mass * math.log2(mass) for mass in masses if mass > 0)


@pytest.mark.parametrize("size", [2, 3, 8, 11])
@pytest.mark.parametrize("rate", [0.01, 0.18, 0.5, 0.93])
def test_what_a_group_brings_is_what_all_its_outcomes_say(rate, size):
    signal, wrong, right, advantages = 0.0, 0.0, 0.0, Counter()
    for passed, chance in outcomes(rate, size):
        moves = passed - passed.mean()
        advantages[tuple(moves.round(9) + 0.0)] += chance
        signal += chance * bool(moves.any())
        wrong += chance * (not passed.any())
        right += chance * passed.all()
    moving = [chance / signal for moves, chance in advantages.items() if any(moves)]
    found = plan_size(one_rate(rate), size, Pricing(500.0, 0.4))
    assert found.signal_chance == pytest.approx(signal) == pytest.approx(1 - rate**size - (1 - rate) ** size)
    assert (found.all_wrong, found.all_right) == pytest.approx((wrong, right))
    assert found.advantage_bits_per_rollout == pytest.approx(entropy(advantages.values()) / size)
    bits = signal * entropy(moving) / size
    assert found.signal_bits_per_rollout == pytest.approx(bits)
    assert found.share_of_most == pytest.approx(bits / entropy([rate, 1 - rate]))
    assert found.bits_per_1000_tokens == pytest.approx(2 * bits)
    assert found.bits_per_dollar == pytest.approx(bits / (500 * 0.4e-6))
    assert found.rollouts_to_first_hit == pytest.approx(1 / rate)


def test_over_prompts_each_number_is_a_mean():
    parts = [plan_size(one_rate(rate), 6, Pricing(None, None)) for rate in MIXED.points[1:]]
    found = plan_size(MIXED, 6, Pricing(None, None))
    for name in ("signal_chance", "all_right", "advantage_bits_per_rollout", "signal_bits_per_rollout"):
        mean = MIXED.weights[1:] @ [getattr(part, name) for part in parts]  # a rate of 0 brings nothing
        assert getattr(found, name) == pytest.approx(mean)
    assert found.all_wrong == pytest.approx(0.2 + MIXED.weights[1:] @ [part.all_wrong for part in parts])


@pytest.mark.parametrize("bits", [signal_bits, advantage_bits])
def test_more_rollouts_a_group_never_carry_less(bits):
    rates = np.concatenate([np.geomspace(1e-4, 0.5, 30), 1 - np.geomspace(1e-4, 0.5, 30)])
    each = np.array([bits(rates, np.eye(len(rates)), size) for size in range(2, 200)])
    assert (np.diff(each, axis=0) > -1e-12).all()


@pytest.mark.parametrize("law", [one_rate(0.18), one_rate(0.5), one_rate(0.97), MIXED])
def test_the_best_size_is_the_first_with_95_percent_of_any(law):
    shares = {size: plan_size(law, size, Pricing(None, None)).share_of_most for size in range(2, 400)}
    assert best_size(law) == min(size for size, share in shares.items() if share >= 0.95)
    assert shares[399] > 0.99


def test_a_best_size_beyond_all_bounds_is_none():
    assert best_size(one_rate(1e-9)) is None


@pytest.mark.parametrize("size", [1, 4])
def test_the_first_hit_is_where_simulated_rollouts_have_it(size):
    random, runs, groups = np.random.default_rng(size), 20_000, 60
    rates = random.choice(MIXED.points, size=(runs, groups), p=MIXED.weights)
    hits = (random.random((runs, groups, size)) < rates[:, :, None]).reshape(runs, -1)
    assert hits.any(axis=1).all()
    first = hits.argmax(axis=1) + 1
    expected = rollouts_to_hit(MIXED.points, MIXED.weights, size)
    assert first.mean() == pytest.approx(expected, abs=4 * first.std() / math.sqrt(runs))
    steps = np.ceil(first / (3 * size))
    assert steps.mean() == pytest.approx(
        steps_to_hit(MIXED.points, MIXED.weights, size, 3), abs=4 * steps.std() / math.sqrt(runs)
    )


def test_where_nothing_ever_passes_there_is_no_first_hit():
    never, sure = (np.array([0.0]), np.ones(1)), (np.array([1.0]), np.ones(1))
    assert rollouts_to_hit(*never, 8) == steps_to_hit(*never, 8, 4) == math.inf
    assert rollouts_to_hit(*sure, 8) == steps_to_hit(*sure, 8, 4) == 1


@pytest.mark.parametrize("rate", [1 / 2, 1 / 64, 0.18])
@pytest.mark.parametrize("chance", [0.5, 0.75, 0.95])
def test_episodes_with_a_chance_are_the_first_that_reach_it(rate, chance):
    counted = next(n for n in itertools.count(1) if 1 - (1 - rate) ** n >= chance - 1e-12)
    assert episodes_to_hit(rate, chance) == counted


CHANNELS = {
    "binary": {},
    "log_distance": {"reward_type": "log_distance"},
    "binned": {"reward_type": "binned_log_distance", "reward_bins": 3},
    "noisy binary": {"reward_noise": 0.1},
    "noisy binned": {"reward_type": "binned_log_distance", "reward_bins": 3, "reward_noise": 0.2},
}


@pytest.mark.parametrize("signal", CHANNELS.values(), ids=CHANNELS)
def test_groups_of_uniform_answers_are_those_of_all_answers_and_levels(signal):
    N, size = 5, 3
    environment = environment_of("single_step", N, **signal)
    channel, silent = environment.channel, 0.0
    rows = np.eye(len(channel.levels)) if channel.outcomes is None else channel.outcomes
    for secret in range(N):
        laws = [rows[channel.class_of(np.array(answer), np.array(secret))] for answer in range(N)]
        for group in itertools.product(range(N), repeat=size):
            for levels in itertools.product(range(rows.shape[1]), repeat=size):
                if len({*levels}) == 1:
                    silent += math.prod(laws[a][level] for a, level in zip(group, levels, strict=True))
    found = level_shares(environment, "step")
    assert found.chance_of_signal(size) == pytest.approx(1 - silent / N**size / N)


def test_a_binary_group_has_the_chance_of_a_pass_rate_of_1_in_N_and_of_the_learner():
    shares = level_shares(environment_of("single_step", 64), "step")
    for size in (2, 4, 64):
        rate = np.array([1 / 64])
        assert shares.chance_of_signal(size) == pytest.approx(1 - silent_chance(rate, np.ones(1), size))
        law = GroupLaw(np.array([63 / 64, 1 / 64]), size)  # by which the learner skips silent groups
        assert shares.chance_of_signal(size) == pytest.approx(law.signal)


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("credit", ["step", "reward_to_go", "episode"])
@pytest.mark.parametrize("N", [8, 5])
def test_turns_carry_a_signal_as_often_as_the_learner_moves(N, credit, noise):
    random, groups, size = np.random.default_rng(N), 20_000, 2
    environment = environment_of("multi_step", N, reward_noise=noise)
    shape = (groups, size, environment.num_steps)
    choices, secrets = random.integers(2, size=shape), random.integers(N, size=groups)
    rewards = environment.rewards(choices, secrets, random.random(shape))
    returns = credit_rewards(rewards, credit)[:, None]  # (R, B, G, K)
    moved = (np.abs(Reinforce().advantages(returns)) > 1e-9).any(axis=(1, 2, 3)).mean()
    expected = level_shares(environment, credit).chance_of_signal(size)
    assert moved == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / groups))


def test_answers_that_are_too_many_to_count_have_no_shares():
    assert level_shares(environment_of("single_step", 5000, reward_type="log_distance"), "step") is None
    assert level_shares(environment_of("single_step", 5000), "step") is not None
