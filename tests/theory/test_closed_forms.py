"""Closed forms of exact softmax policy gradient against a simulation of their own learner, written here from
its definition."""

import math

import closed_forms
import numpy as np
import pytest
import scipy.integrate

from memory_rl.information.closed_forms import binary_episodes


def simulate_binary(N: int, step_size: float, target: float, runs: int) -> np.ndarray:
    """Episodes until P(S) >= target of exact softmax learners, step by step (the secret is answer 0)."""
    rng = np.random.default_rng(0)
    logits, episodes, active = np.zeros((runs, N)), np.zeros(runs), np.ones(runs, dtype=bool)
    while active.any():
        probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        active &= probabilities[:, 0] < target
        hits = active & (rng.random(runs) < probabilities[:, 0])
        logits[hits] += step_size * (np.eye(N)[0] - probabilities[hits])
        episodes += active
    return episodes


@pytest.mark.parametrize(
    ("N", "step_size", "target"), [(16, 1.0, 0.9), (16, 0.1, 0.5), (64, 1.0, 0.9), (64, 1.0, 0.5)]
)
def test_binary_episodes_are_those_of_the_simulated_learner(N, step_size, target):
    episodes = simulate_binary(N, step_size, target, runs=2000)
    standard_error = episodes.std() / math.sqrt(len(episodes))
    assert binary_episodes(N, step_size, target) == pytest.approx(episodes.mean(), abs=4 * standard_error)


def simulate_dense(num_bits: int, step_size: float, target: float, runs: int) -> np.ndarray:
    """Episodes until P(S) >= target with reward +-1 a bit and two logits a bit (the secret is all ones)."""
    rng = np.random.default_rng(0)
    logits, episodes, active = np.zeros((runs, num_bits, 2)), np.zeros(runs), np.ones(runs, dtype=bool)
    while active.any():
        right = 1 / (1 + np.exp(logits[..., 0] - logits[..., 1]))
        active &= right.prod(axis=1) < target
        bits = (rng.random((runs, num_bits)) < right).astype(int)
        score = np.eye(2)[bits] - np.stack([1 - right, right], axis=2)
        logits[active] += (step_size * (2 * bits - 1)[..., None] * score)[active]
        episodes += active
    return episodes


def test_dense_episodes_are_those_of_the_simulated_learner():
    assert simulate_dense(6, 1.0, 0.9, runs=2000).mean() == pytest.approx(
        closed_forms.dense_episodes(6, 1.0, 0.9), rel=0.05
    )
    assert simulate_dense(6, 0.1, 0.9, runs=500).mean() == pytest.approx(
        closed_forms.dense_episodes(6, 0.1, 0.9), rel=0.02
    )


@pytest.mark.parametrize("N", [16, 64, 256])
def test_small_steps_meet_the_integral(N):
    exact, limit = (
        binary_episodes(N, 0.001, 0.9),
        closed_forms.binary_episodes_small_step(N, 0.001, 0.9),
    )
    assert exact == pytest.approx(limit, rel=0.01)


def test_thepotential_is_the_integral_it_is_said_to_be():
    integral, _ = scipy.integrate.quad(lambda p: 1 / (p * (1 - p)) ** 2, 0.1, 0.9)
    assert closed_forms.potential(0.9) - closed_forms.potential(0.1) == pytest.approx(integral)


def test_known_numbers():
    assert binary_episodes(64, 1.0, 0.9) == pytest.approx(117, abs=0.5)
    assert closed_forms.dense_episodes(6, 1.0, 0.9) == pytest.approx(16.1, abs=0.05)


def test_signal_fraction_counts_the_groups_whose_rewards_differ():
    probabilities = [0.7, 0.2, 0.1]
    draws = np.random.default_rng(0).choice(3, p=probabilities, size=(100_000, 4))
    measured = (draws.min(axis=1) != draws.max(axis=1)).mean()
    assert closed_forms.signal_fraction(probabilities, 4) == pytest.approx(measured, abs=0.006)
