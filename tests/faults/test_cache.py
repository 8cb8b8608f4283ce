"""The cache of warmed-up base models: used when it matches, rebuilt when it is missing, damaged or foreign,
never required."""

import errno
import json
import os
import resource
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import memory_rl
from memory_rl.errors import CacheWarning
from memory_rl.policies import base_model, tiny_model
from memory_rl.policies.model_cache import cache_directory, read_cache, write_cache
from memory_rl.policies.warmup import WarmupSettings
from memory_rl.policies.warmup_report import WarmupReport


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
    with pytest.warns(CacheWarning, match="cannot be cached"):
        about, _ = run()
    assert not about["from_cache"]


REPORT = WarmupReport(1, 2, 0.5, 0.25)


def keep(folder: Path) -> None:
    write_cache({"weight": torch.ones(1000)}, folder, "warmup", asdict(REPORT))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("step", ["mkdir", "write_bytes", "replace"])
def test_whatever_fails_on_a_full_or_foreign_disk_is_a_warning(number, step, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(*((os, step) if step == "replace" else (Path, step)), fail)
    with pytest.warns(CacheWarning, match=os.strerror(number)):
        keep(tmp_path / "cache")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_disk_that_is_full_for_files_of_this_size_is_a_warning(tmp_path):
    """A real one: the system refuses to write more than so many bytes to any file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        with pytest.warns(CacheWarning, match="File too large"):
            keep(tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert read_cache(tmp_path / "cache", "warmup", WarmupReport) is None


def test_a_cache_that_vanishes_in_between_is_a_warning(tmp_path, monkeypatch):
    replace = os.replace

    def vanish(source, target):
        shutil.rmtree(tmp_path / "cache")
        replace(source, target)

    monkeypatch.setattr(os, "replace", vanish)
    with pytest.warns(CacheWarning, match="No such file"):
        keep(tmp_path / "cache")


def test_a_user_without_a_home_has_no_cache_and_no_folder_named_tilde(tmp_path, monkeypatch):
    monkeypatch.delenv("MEMORY_RL_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where no such user is known
    with pytest.warns(CacheWarning, match="home directory"):
        keep(cache_directory())
    assert read_cache(cache_directory(), "warmup", WarmupReport) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["model.safetensors", "warmup.json"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "huge file"])
def test_what_is_no_file_of_the_cache_is_not_waited_for_and_not_read(kind, name, tmp_path):
    keep(tmp_path)
    found = read_cache(tmp_path, "warmup", WarmupReport)
    assert found is not None
    assert (found[0], found[1]["weight"].sum()) == (REPORT, 1000)
    (tmp_path / name).unlink()
    if kind == "pipe":
        os.mkfifo(tmp_path / name)
    elif kind == "folder":
        (tmp_path / name).mkdir()
    else:
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**40 if name == "model.safetensors" else 10**6)  # of holes; reading makes it real
    assert read_cache(tmp_path, "warmup", WarmupReport) is None


def test_the_default_place_is_the_users_cache(monkeypatch):
    monkeypatch.delenv("MEMORY_RL_CACHE")
    assert cache_directory().name == "memory-rl"
    assert Path.home() in cache_directory().parents
