"""The base model's turns must be told apart, or dense RL learns the majority bit of S instead of S
(docs/findings.md)."""

import importlib.util
from pathlib import Path

import pytest
from helpers import make_environment, make_trie

from memory_rl.policies import tiny_model
from memory_rl.policies.warmup import WarmupSettings, warm_up


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location(
        "turn_interference", Path(__file__).parents[2] / "studies/turn_interference.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_exact_tabular_learner_memorises_every_secret(study):
    assert study.linear_policy(cosine=0.0) == (64, [])


def test_turns_that_look_alike_learn_the_majority_bit(study):
    memorised, missed = study.linear_policy(cosine=0.99)
    assert memorised < 8
    assert 0b111011 in missed
    assert not {0b000000, 0b111111} & set(missed)  # all bits are the majority


def test_the_built_in_model_tells_its_turns_apart(study):
    trie = make_trie(make_environment("multi_step", 64), tiny_model.make_tokenizer())
    model = tiny_model.make_model(0)
    warm_up(model, trie, 64, WarmupSettings(head_steps=1000))
    assert study.turn_cosine(model, trie) < 0.6
