"""What the live tests stand on: a model that is not to blame for what they blame on the service, and an
environment for the server, or one sentence."""

from __future__ import annotations

import subprocess
from pathlib import Path

import live_model
import live_server
import pytest
import torch

import memory_rl


def test_no_world_prefers_an_answer_and_binary_reward_teaches_every_run():
    network, tokenizer = live_model.make_live_model()
    with torch.no_grad():
        for trie, N in live_model.tries_of(tokenizer):
            logits = network.get_output_embeddings()(live_model.states_of(network, trie))
            assert live_model.bits_from_uniform(trie, logits, N) < 0.01
    network.save_pretrained("model")
    tokenizer.save_pretrained("model")
    result = memory_rl.train(
        N=16,
        num_runs=16,
        max_episodes=600,
        learning_rate=1e-3,
        model_name="model",
        wording="terse",
        warmup=False,
    )
    summary = result.summary["binary"]
    assert summary["memorised"] == 16
    assert summary["episodes_to_memorise"]["median"] <= 40  # 24 on a base for this world alone


def test_an_environment_that_cannot_be_made_is_one_sentence(monkeypatch):
    def fail(words, **more):
        said = b"WARNING: slow\nERROR: No matching distribution found for jax==0.10.2\n[notice] a new pip\n"
        return subprocess.CompletedProcess(words, 1, stderr=said)

    monkeypatch.delenv(live_server.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path.cwd()))
    monkeypatch.setattr(live_server.venv, "create", lambda *_, **__: None)
    monkeypatch.setattr(live_server.subprocess, "run", fail)
    with pytest.raises(live_server.NoEnvironmentError) as told:
        live_server.find_environment()
    assert str(told.value) == (
        f"the environment of the live server cannot be made in {live_server.cache_directory()}/skyrl-0.4.0 "
        "(ERROR: No matching distribution found for jax==0.10.2): make one as docs/tinker.md says and name "
        "it in MEMORY_RL_SKYRL."
    )
