"""Advantages against groups computed by hand."""

import numpy as np
import pytest
from helpers import advantages_of


def one_group(*episodes: list[float]) -> np.ndarray:
    """Rewards (G, K) as one run and one group: (1, 1, G, K)."""
    return np.array(episodes, dtype=float)[None, None]


GROUP = one_group([1.0], [0.0], [0.0], [0.0])


def test_reinforce_subtracts_the_mean():
    np.testing.assert_allclose(advantages_of(GROUP, "reinforce", "step").ravel(), [0.75, -0.25, -0.25, -0.25])


def test_grpo_divides_by_the_standard_deviation():
    deviation = np.sqrt(3) / 4  # of 1, 0, 0, 0
    np.testing.assert_allclose(
        advantages_of(GROUP, "grpo", "step").ravel(), np.array([0.75, -0.25, -0.25, -0.25]) / deviation
    )


def test_rloo_subtracts_the_mean_of_the_others():
    np.testing.assert_allclose(advantages_of(GROUP, "rloo", "step").ravel(), [1.0, -1 / 3, -1 / 3, -1 / 3])


def test_ppo_uses_the_mean_baseline():
    np.testing.assert_array_equal(
        advantages_of(GROUP, "ppo", "step"), advantages_of(GROUP, "reinforce", "step")
    )


BITS = one_group([1, 0, 1], [1, 1, 0])


@pytest.mark.parametrize(
    ("credit", "expected"),
    [
        ("step", [[0, -0.5, 0.5], [0, 0.5, -0.5]]),
        ("reward_to_go", [[0, 0, 0.5], [0, 0, -0.5]]),  # returns 2 1 1 and 2 1 0
        ("episode", [[0, 0, 0], [0, 0, 0]]),  # returns 2 and 2
    ],
)
def test_credit_decides_what_a_step_is_held_to(credit, expected):
    np.testing.assert_allclose(advantages_of(BITS, "reinforce", credit)[0, 0], expected)


def test_episode_credit_is_the_same_at_every_step():
    rewards = one_group([1, 1, 1], [0, 0, 1], [0, 0, 0])
    np.testing.assert_allclose(
        advantages_of(rewards, "reinforce", "episode")[0, 0],
        np.repeat([[5 / 3], [-1 / 3], [-4 / 3]], 3, axis=1),
    )


@pytest.mark.parametrize("algorithm", ["reinforce", "grpo", "rloo", "ppo"])
def test_equal_rewards_carry_exactly_no_signal(algorithm):
    value = 0.1  # its mean over 3 is not itself in floating point
    rewards = np.full((2, 5, 3, 1), value)
    assert (rewards.mean(axis=2) != value).any()
    assert not advantages_of(rewards, algorithm, "step").any()


def test_groups_and_runs_do_not_mix():
    rewards = np.random.default_rng(0).random((3, 4, 5, 2))
    together = advantages_of(rewards, "grpo", "reward_to_go")
    for run in range(3):
        for group in range(4):
            alone = advantages_of(rewards[run : run + 1, group : group + 1], "grpo", "reward_to_go")
            np.testing.assert_allclose(together[run, group], alone[0, 0])
