"""The Gymnasium environments: the library's own checker, rewards by hand, and the secret's life."""

import math

import numpy as np
import pytest
import scipy.stats

pytest.importorskip("gymnasium", reason="Gymnasium is not installed: pip install 'memory-rl[gymnasium]'")
import gymnasium
from gymnasium.utils.env_checker import check_env
from helpers import secrets_of

from memory_rl.errors import ConfigError
from memory_rl.integrations.gymnasium import UNSAID

INTEGER, BITS = "memory_rl/SecretInteger-v0", "memory_rl/SecretBits-v0"
CASES = [
    (INTEGER, {"N": 16}),
    (INTEGER, {"N": 37, "reward_type": "log_distance"}),
    (INTEGER, {"N": 16, "reward_type": "binned_log_distance", "reward_bins": 4, "reward_noise": 0.3}),
    (BITS, {"N": 16}),
    (BITS, {"N": 37, "reward_noise": 0.2}),
]


@pytest.mark.parametrize(("name", "keys"), CASES, ids=str)
def test_the_checker_has_nothing_to_say(name, keys):
    check_env(gymnasium.make(name, **keys).unwrapped)  # what it warns of is an error here


def play(environment, actions, **reset):
    """(observation, reward, terminated, info) of each step, after those of the reset."""
    observation, info = environment.reset(**reset)
    told = [(observation, None, False, info)]
    for action in actions:
        observation, reward, terminated, truncated, info = environment.step(action)
        assert not truncated
        told.append((observation, reward, terminated, info))
    return told


@pytest.mark.parametrize("N", [2, 5, 16])
def test_an_integer_earns_what_its_distance_says(N):
    environment = gymnasium.make(INTEGER, N=N, reward_type="log_distance")
    assert environment.action_space == gymnasium.spaces.Discrete(N)
    for secret in range(N):
        for answer in range(N):
            (_, (_, reward, terminated, _)) = play(environment, [answer], options={"secret": secret})
            assert reward == pytest.approx(max(0.0, 1 - math.log2(1 + abs(answer - secret)) / math.log2(N)))
            assert terminated


def test_bits_are_rewarded_one_by_one_and_seen_once_said():
    environment = gymnasium.make(BITS, N=6, secret=0b101)
    told = play(environment, [1, 1, 0])
    assert [observation.tolist() for observation, *_ in told] == [
        [UNSAID] * 3,
        [1, UNSAID, UNSAID],
        [1, 1, UNSAID],
        [1, 1, 0],
    ]
    assert [reward for _, reward, _, _ in told[1:]] == [1.0, 0.0, 0.0]
    assert [terminated for _, _, terminated, _ in told] == [False, False, False, True]
    assert [info["prompt"] for *_, info in told] == ["Secret in [0,6), bit 1?", "2?", "3?", None]
    assert {info["bits"] for *_, info in told} == {math.log2(6)}


@pytest.mark.parametrize(("name", "actions"), [(INTEGER, [3]), (BITS, [0, 1, 1])])
def test_nothing_but_the_reward_depends_on_the_secret(name, actions):
    seen = []
    for secret in range(8):
        told = play(gymnasium.make(name, N=8, secret=secret), actions, seed=0)
        seen.append(
            [
                (np.asarray(observation).tolist(), terminated, info)
                for observation, _, terminated, info in told
            ]
        )
    assert all(other == seen[0] for other in seen)


def secret_of(environment) -> int:
    """Found as a learner would: by asking."""
    N = int(environment.action_space.n)
    (secret,) = [answer for answer in range(N) if play(environment, [answer])[1][1] == 1]
    return secret


def test_a_seed_gives_the_secret_of_an_experiment():
    environment = gymnasium.make(INTEGER, N=20)
    for seed in (4, 5, 4):
        environment.reset(seed=seed)
        assert secret_of(environment) == secrets_of(N=20, seed=seed)[0, 0]


def test_the_secret_lasts_until_another_is_asked_for():
    environment = gymnasium.make(INTEGER, N=50)
    first = secret_of(environment)  # asks in 50 episodes, of which each is reset
    assert secret_of(environment) == first
    environment.reset(options={"secret": (first + 1) % 50})
    environment.reset(seed=1)  # one that was given is not drawn again
    assert secret_of(environment) == (first + 1) % 50
    environment.reset(seed=1, options={"secret": None})
    drawn = []
    for _ in range(10):
        environment.reset(options={"secret": None})
        drawn.append(secret_of(environment))
    assert len(set(drawn)) > 4  # 10 of 50, uniform: 4 or fewer different ones have a chance of 2e-6


def test_secrets_are_uniform():
    environment = gymnasium.make(INTEGER, N=6)
    environment.reset(seed=0)
    drawn = []
    for _ in range(1200):
        environment.reset(options={"secret": None})
        drawn.append(environment.unwrapped._secret)
    assert scipy.stats.chisquare(np.bincount(drawn, minlength=6)).pvalue > 1e-3


def test_noise_flips_as_often_as_it_says_and_follows_the_seed():
    environment = gymnasium.make(BITS, N=1024, reward_noise=0.25, secret=0)
    rewards = [
        [reward for _, reward, _, _ in play(environment, [0] * 10, seed=None if episode else 0)[1:]]
        for episode in range(200)
    ]
    assert scipy.stats.binomtest(int(2000 - np.sum(rewards)), 2000, 0.25).pvalue > 1e-3
    assert [reward for _, reward, _, _ in play(environment, [0] * 10, seed=0)[1:]] == rewards[0]


def test_misuse_is_told():
    with pytest.raises(ConfigError, match=r"secret=16 is not in \[0, 16\): use an integer from 0 to 15"):
        gymnasium.make(INTEGER, N=16, secret=16)
    environment = gymnasium.make(BITS, N=4).unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        environment.step(0)
    environment.reset()
    with pytest.raises(gymnasium.error.InvalidAction, match="2 is not in"):
        environment.step(2)
