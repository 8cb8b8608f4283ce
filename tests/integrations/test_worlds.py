"""What the adapters share, against the experiment's own functions and by hand."""

import numpy as np
import pytest
from helpers import likelihoods_of, secrets_of, setting_of

from memory_rl.errors import ConfigError
from memory_rl.integrations.worlds import make_world
from memory_rl.task import INVALID

CHANCE = np.random.default_rng(0)


def own_reward(answer: int, secret: int) -> float:
    return (answer * secret) % 5 / 4


@pytest.mark.parametrize(
    "keys",
    [
        {"reward_type": "binary"},
        {"reward_type": "log_distance"},
        {"reward_type": "binned_log_distance", "reward_bins": 3},
        {"reward_type": "binary", "reward_noise": 0.2},
        {"reward_type": own_reward},
        {"env_type": "multi_step", "reward_noise": 0.1},
    ],
    ids=["binary", "log_distance", "binned", "noisy", "own", "bits"],
)
def test_it_is_the_world_of_an_experiment(keys):
    world, theirs = make_world(N=11, **keys), setting_of(N=11, **keys).environment
    answers, secrets = np.arange(theirs.num_choices)[:, None], np.arange(theirs.num_choices)
    assert np.array_equal(world.environment.channel.levels, theirs.channel.levels)
    assert np.array_equal(
        likelihoods_of(world.environment.channel, answers, secrets),
        likelihoods_of(theirs.channel, answers, secrets),
    )
    assert world.environment.conversations() == theirs.conversations()


def test_its_secrets_are_those_of_the_runs_of_an_experiment():
    world = make_world(N=1000, seed=3)
    assert [world.secret(run) for run in range(4)] == secrets_of(N=1000, seed=3, num_runs=4)[:, 0].tolist()
    assert make_world(N=1000, fixed_secret=7).secret(run=2) == 7


def test_the_first_invalid_turn_forfeits_the_rest():
    world = make_world(env_type="multi_step", N=16)
    assert world.read(["1", " 0\n", "1", "1"]).tolist() == [1, 0, 1, 1]
    assert world.read(["1", "2", "1", "1"]).tolist() == [1, INVALID, INVALID, INVALID]
    assert world.read(["1", None]).tolist() == [1, INVALID, INVALID, INVALID]
    assert world.score(world.read(["1", "0", "x", "1"]), 0b1111, CHANCE).tolist() == [1, 0, 0, 0]
    assert [world.score_step(choice, 1, 0b0100, CHANCE) for choice in (0, 1, INVALID)] == [0, 1, 0]


def test_the_conversation_is_that_of_the_examples():
    world = make_world(env_type="multi_step", N=5)
    assert world.messages(["1", "0", "0"]) == world.environment.messages(4)
    assert world.messages(["1"]) == world.environment.messages(4)[:3]


def test_a_bad_key_is_one_sentence():
    with pytest.raises(ConfigError, match=r"reward_type=binar is not a choice: did you mean binary\?"):
        make_world(reward_type="binar")
    with pytest.raises(ConfigError, match="credit=episode has no meaning here"):
        make_world(env_type="multi_step", credit="episode")
