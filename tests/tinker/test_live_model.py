"""The model of the live tests: what they blame on the service must not be the model's."""

from __future__ import annotations

import live_model
import pytest
import torch

import memory_rl


@pytest.mark.parametrize("seed", [0, 1])
def test_no_world_prefers_an_answer_and_binary_reward_teaches_every_run(seed, tmp_path):
    network, tokenizer = live_model.make_live_model(seed)
    with torch.no_grad():
        for trie, N in live_model.tries_of(tokenizer):
            logits = network.get_output_embeddings()(live_model.states_of(network, trie))
            assert live_model.bits_from_uniform(trie, logits, N) < 0.01
    network.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    result = memory_rl.train(
        N=16,
        num_runs=16,
        max_episodes=600,
        learning_rate=1e-3,
        model_name=str(tmp_path / "model"),
        wording="terse",
        warmup=False,
    )
    summary = result.summary["binary"]
    assert summary["memorised"] == 16
    assert summary["episodes_to_memorise"]["median"] <= 40  # 24 on a base for this world alone
