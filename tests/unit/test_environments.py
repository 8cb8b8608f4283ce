"""Environments: what is said, what counts as an answer, what each step is rewarded for."""

import numpy as np
import pytest

from memory_rl.task import INVALID, MultiStep, SecretSpace, SingleStep, make_channel


def test_single_step_is_one_question_and_one_reward():
    environment = SingleStep(SecretSpace(64), make_channel("binary", 64))
    assert environment.messages(42) == [
        {"role": "user", "content": "Secret in [0,64)?"},
        {"role": "assistant", "content": "42"},
    ]
    rewards = environment.rewards(np.array([[[42], [41], [INVALID]]]), np.array([42]))
    assert rewards.tolist() == [[[1.0], [0.0], [0.0]]]


def test_multi_step_holds_the_earlier_bits_and_asks_for_one_more():
    environment = MultiStep.with_noise(SecretSpace(5))
    assert environment.messages(4) == [
        {"role": "user", "content": "Secret in [0,5), bit 1?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "2?"},
        {"role": "assistant", "content": "0"},
        {"role": "user", "content": "3?"},
        {"role": "assistant", "content": "0"},
    ]


@pytest.mark.parametrize("N", [2, 3, 16, 37, 64])
def test_multi_step_rewards_each_bit_for_itself(N):
    environment = MultiStep.with_noise(SecretSpace(N))
    secrets = np.arange(N)
    choices = environment.choices(np.arange(environment.num_forms))  # (F, K)
    rewards = environment.rewards(np.broadcast_to(choices, (N, *choices.shape)), secrets)
    k = environment.num_steps
    for secret in secrets:
        for form in range(environment.num_forms):
            expected = [
                float(a == b) for a, b in zip(format(form, f"0{k}b"), format(secret, f"0{k}b"), strict=True)
            ]
            assert rewards[secret, form].tolist() == expected


def test_an_invalid_turn_and_those_it_forfeits_earn_the_lowest_level():
    environment = MultiStep.with_noise(SecretSpace(8))
    assert environment.rewards(np.array([[[1, INVALID, INVALID]]]), np.array([0b111])).tolist() == [
        [[1.0, 0.0, 0.0]]
    ]


def test_a_turn_is_parsed_by_what_it_may_answer():
    bits, numbers = (
        MultiStep.with_noise(SecretSpace(64)),
        SingleStep(SecretSpace(64), make_channel("binary", 64)),
    )
    assert [bits.parse(text) for text in ("0", " 1 ", "2", "01", "")] == [0, 1, None, None, None]
    assert [numbers.parse(text) for text in ("0", " 63", "64", "01", "")] == [0, 63, None, None, None]
