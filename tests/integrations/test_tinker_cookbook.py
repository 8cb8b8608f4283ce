"""The Tinker cookbook: groups of episodes by its own rollout loop, with a tokenizer and a policy that live
here."""

import asyncio
import math

import pytest
import scipy.stats

pytest.importorskip(
    "tinker_cookbook", reason="the Tinker cookbook is not installed: pip install 'memory-rl[tinker-cookbook]'"
)
from byte_tokenizer import make_tokenizer
from helpers import secrets_of
from tinker_cookbook import tokenizer_utils
from tinker_cookbook.completers import TokenCompleter, TokensWithLogprobs
from tinker_cookbook.rl.data_processing import compute_advantages, trajectory_to_data
from tinker_cookbook.rl.rollouts import do_group_rollout

from memory_rl.errors import ConfigError
from memory_rl.integrations.tinker_cookbook import SecretDatasetBuilder

pytestmark = pytest.mark.integrations

TOKENIZER = make_tokenizer()
tokenizer_utils.register_tokenizer("bytes", make_tokenizer)


class Listed(TokenCompleter):
    """Gives these replies, one after the other, and remembers what it was shown."""

    def __init__(self, *replies, ended=True):
        self._replies, self._end, self.shown = list(replies), [TOKENIZER.eos_token_id] if ended else [], []

    async def __call__(self, model_input, stop, *, max_tokens=None):
        assert stop == [TOKENIZER.eos_token_id]
        self.shown.append(TOKENIZER.decode(model_input.to_ints()))
        tokens = TOKENIZER.encode(self._replies[len(self.shown) - 1], add_special_tokens=False) + self._end
        return TokensWithLogprobs(tokens=tokens, maybe_logprobs=[-1.0] * len(tokens))


def make_dataset(**keys):
    dataset, test_set = asyncio.run(
        SecretDatasetBuilder(model_name_for_tokenizer="bytes", renderer_name="llama3", **keys)()
    )
    assert test_set is None
    return dataset


def roll(policy, index=0, **keys):
    (group,) = make_dataset(**keys).get_batch(index)
    return asyncio.run(do_group_rollout(group, policy))


def rewards(group):
    return [[step.reward for step in trajectory.transitions] for trajectory in group.trajectories_G]


def test_a_group_of_integers_is_rewarded_by_distance():
    policy = Listed("5", " 4", "05", "1")
    group = roll(policy, N=8, reward_type="log_distance", fixed_secret=5)
    expected = [1.0, 1 - math.log2(2) / 3, 0.0, 1 - math.log2(5) / 3]
    assert [reward for (reward,) in rewards(group)] == pytest.approx(expected)
    assert {text.count("Secret in [0,8)?") for text in policy.shown} == {1}
    assert [
        step.metrics["valid"] for trajectory in group.trajectories_G for step in trajectory.transitions
    ] == [1, 1, 0, 1]


def test_bits_are_steps_with_rewards_of_their_own_until_the_loop_sums_them():
    policy = Listed("1", "1", "0", "0", "1", "1")
    group = roll(
        policy, N=8, env_type="multi_step", fixed_secret=0b110, group_size=2
    )  # the episodes of a group take turns
    answers = [
        [TOKENIZER.decode(step.ac.tokens[:-1]) for step in trajectory.transitions]
        for trajectory in group.trajectories_G
    ]
    assert rewards(group) == [
        [float(said == right) for said, right in zip(bits, "110", strict=True)] for bits in answers
    ]
    assert sum(len(bits) for bits in answers) == 6
    totals = group.get_total_rewards()
    (advantages,) = compute_advantages([group])
    assert advantages.tolist() == pytest.approx([total - sum(totals) / 2 for total in totals])
    (datum,) = trajectory_to_data(
        group.trajectories_G[0], 0.5
    )  # one conversation, one datum; one advantage for all that was sampled
    mask = datum.loss_fn_inputs["mask"].tolist()
    assert sum(mask) == 6  # a bit and the end of the turn, three times
    assert [
        a for a, sampled in zip(datum.loss_fn_inputs["advantages"].tolist(), mask, strict=True) if sampled
    ] == [0.5] * 6


def test_the_conversation_holds_the_earlier_bits():
    policy = Listed("1", "0", "1")
    roll(policy, N=8, env_type="multi_step", group_size=1)
    turns = [
        part.split("<|end_header_id|>")[1].strip()
        for part in policy.shown[-1].split("<|start_header_id|>")[1:]
    ]
    assert [turn.removesuffix("<|eot_id|>") for turn in turns] == [
        "Secret in [0,8), bit 1?",
        "1",
        "2?",
        "0",
        "3?",
        "",
    ]


@pytest.mark.parametrize("policy", [Listed("1", "2"), Listed("1", "1 or 0")], ids=["2", "1 or 0"])
def test_an_invalid_bit_ends_the_episode(policy):
    assert rewards(roll(policy, N=8, env_type="multi_step", fixed_secret=0b111, group_size=1)) == [[1.0, 0.0]]


def test_a_reply_that_was_cut_off_is_invalid():
    assert rewards(roll(Listed("12", ended=False), N=128, fixed_secret=12, group_size=1)) == [[0.0]]


def test_the_secret_is_that_of_the_run_of_an_experiment():
    dataset = make_dataset(N=1000, seed=4, run=2, batch_size=3, n_batches=7)
    assert dataset.secret == secrets_of(N=1000, seed=4, num_runs=3)[2, 0]
    assert len(dataset) == 7
    assert [group.index for group in dataset.get_batch(2)] == [6, 7, 8]


def test_noise_flips_as_often_as_it_says():
    keys = {"N": 4, "fixed_secret": 3, "reward_noise": 0.25, "group_size": 300}
    flipped = [rewards(roll(Listed(*["3"] * 300), index, **keys)).count([0.0]) for index in (0, 1, 0)]
    assert flipped[0] == flipped[2]  # a batch is what its index says
    assert scipy.stats.binomtest(flipped[0] + flipped[1], 600, 0.25).pvalue > 1e-3


def test_a_bad_key_is_one_sentence():
    with pytest.raises(ConfigError, match="reward_bins=4 belongs to reward_type=binned_log_distance: add"):
        make_dataset(reward_bins=4)
