"""The cache of warmed-up base models: used when it matches, rebuilt when it is missing, damaged or foreign,
never required."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import memory_rl
from memory_rl.policies import base_model, tiny_model
from memory_rl.policies.base_model import cache_directory
from memory_rl.policies.warmup import WarmupSettings


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MEMORY_RL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(**settings):
    result = memory_rl.train(**{"N": 8, "num_runs": 1, "max_episodes": 20, **settings})
    return {
        **result.summary["binary"]["warmup"],
        "from_cache": result.manifest["warmup_from_cache"],
    }, result.metrics["bits_known"].to_numpy()


def test_the_second_run_finds_the_model_of_the_first(cache):
    made, first = run()
    found, second = run()
    assert (made["from_cache"], found["from_cache"]) == (False, True)
    assert made["divergence"] == found["divergence"] < 0.1
    np.testing.assert_array_equal(first, second)


def test_another_size_environment_or_seed_gets_another_model(cache):
    run()
    assert not run(N=9)[0]["from_cache"]
    assert not run(base_seed=1)[0]["from_cache"]
    assert run()[0]["from_cache"]


def test_a_model_from_a_directory_with_tied_weights_is_warmed_and_cached(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(
        base_model, "_PRETRAINED_WARMUP", WarmupSettings(learning_rate=1e-3)
    )  # it is small and was never trained
    torch.manual_seed(0)
    tokenizer = tiny_model.make_tokenizer()
    shape = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "tie_word_embeddings": True,
    }
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.1, **shape)).save_pretrained(
        tmp_path / "model"
    )
    tokenizer.save_pretrained(tmp_path / "model")
    made, first = run(model_name=str(tmp_path / "model"), N=4, memorised_at=0.9)
    found, second = run(model_name=str(tmp_path / "model"), N=4, memorised_at=0.9)
    assert (made["from_cache"], found["from_cache"]) == (False, True)
    assert made["head_steps"] == 0  # the head is the embedding: no part of it is trained apart
    np.testing.assert_array_equal(first, second)
    assert abs(first[0]) < 0.1


@pytest.mark.parametrize("damage", ["truncated", "foreign weights", "no record", "foreign record"])
def test_a_damaged_cache_is_rebuilt(cache, damage):
    _, first = run()
    weights, record = next(cache.rglob("model.safetensors")), next(cache.rglob("warmup.json"))
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "foreign weights":
        weights.write_bytes(b"something else")
    elif damage == "no record":
        record.unlink()
    else:
        record.write_text(json.dumps({"sha256": "0"}))
    about, second = run()
    assert not about["from_cache"]
    np.testing.assert_array_equal(first, second)
    assert run()[0]["from_cache"]


def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("MEMORY_RL_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="could not be cached"):
        about, _ = run()
    assert not about["from_cache"]


def test_the_default_place_is_the_users_cache(monkeypatch):
    monkeypatch.delenv("MEMORY_RL_CACHE")
    assert cache_directory().name == "memory-rl"
    assert Path.home() in cache_directory().parents
