"""The cache of warmed-up base models: used when it matches, rebuilt when it is missing, damaged or foreign, never required."""

import json
from pathlib import Path

import numpy as np
import pytest

import memory_rl
from memory_rl.policies.base_model import cache_directory


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MEMORY_RL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(**settings):
    result = memory_rl.train(**{"N": 8, "num_runs": 1, "max_episodes": 20, **settings})
    return result.summary["binary"]["warmup"], result.metrics["bits_known"].to_numpy()


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
