"""The packed forward pass against plain transformers, one conversation at a time."""

import numpy as np
import pytest
import torch
from helpers import all_log_probs, bits_known, make_environment, make_trie, merged, plain_log_prob, sample
from transformers import LlamaConfig, LlamaForCausalLM

from memory_rl.information.entropy import LN2
from memory_rl.policies import tiny_model
from memory_rl.policies.answer_trie import NONE
from memory_rl.policies.lora import LoRASettings
from memory_rl.policies.packed import chosen_log_probs
from memory_rl.policies.tokenisation import tokenise
from memory_rl.policies.transformer import TransformerPolicy

TOKENIZER = tiny_model.make_tokenizer()


@pytest.mark.parametrize(("kind", "N"), [("single_step", 64), ("multi_step", 16), ("multi_step", 11)])
def test_every_answers_log_probability(make_policy, kind, N):
    policy = make_policy(kind, N, num_runs=2, moved=True)
    environment = make_environment(kind, N)
    packed = all_log_probs(policy, np.arange(2))
    for run in range(2):
        model = merged(policy, run)
        plain = [plain_log_prob(model, tokenise(TOKENIZER, environment.conversation(a))) for a in range(N)]
        np.testing.assert_allclose(packed[run, :N], plain, rtol=0, atol=1e-4)

        secret = N // 3  # the split into format and content bits, from the plain probabilities
        bits = bits_known(packed[run : run + 1, :N], np.array([secret]))
        valid = np.log(np.exp(plain).sum())
        assert bits.format[0] == pytest.approx(valid / LN2, abs=2e-4)
        assert bits.content[0] == pytest.approx(np.log2(N) + (plain[secret] - valid) / LN2, abs=2e-4)
        assert bits.total[0] == pytest.approx(np.log2(N) + plain[secret] / LN2, abs=2e-4)


@pytest.mark.parametrize("kind", ["single_step", "multi_step"])
def test_sampled_paths_score_as_they_were_sampled(make_policy, kind):
    policy = make_policy(kind, 16, num_runs=3, moved=True)
    rollout = sample(policy, np.arange(3), 40)
    policy.adapters.activate(np.arange(3))
    with torch.no_grad():
        again = chosen_log_probs(policy.model, policy.trie, rollout.path).numpy()
    sampled = np.where(
        rollout.path == NONE, 0.0, np.take_along_axis(policy._edge_log_probs, rollout.path, axis=2)
    )
    np.testing.assert_allclose(again, sampled, rtol=0, atol=1e-5)


def test_exits_are_all_the_other_tokens(make_policy):
    """From an untrained model nearly every token is an exit; its log-probability is that of all other tokens
    together."""
    environment = make_environment("single_step", 10)
    trie = make_trie(environment, TOKENIZER)
    policy = TransformerPolicy(
        tiny_model.make_model(3), trie, num_runs=1, lora=LoRASettings(), learning_rate=1e-3, seed=0
    )
    rollout = sample(policy, np.array([0]), 30)
    left = rollout.choices[0, :, 0] == NONE
    assert left.sum() > 5
    with torch.no_grad():
        probabilities = (
            tiny_model.make_model(3)(torch.tensor([trie.prompt.tolist()]))
            .logits[0, -1]
            .double()
            .softmax(dim=0)
        )
    digits = TOKENIZER.convert_tokens_to_ids(list("0123456789"))
    expected = 1 - probabilities[digits].sum().item()
    exit_edge = trie.decision_edges[0][trie.decision_edges[0] != NONE][-1]
    assert np.exp(policy._edge_log_probs[0, 0, exit_edge]) == pytest.approx(expected, abs=1e-5)
    policy.adapters.activate([0])
    scored = chosen_log_probs(policy.model, trie, rollout.path)
    first_exit = np.nonzero(rollout.path[0, :, 0] == exit_edge)[0][0]
    assert scored[0, first_exit, 0].exp().item() == pytest.approx(expected, abs=1e-5)


def test_a_model_from_a_directory_with_grouped_queries_and_no_chat_template(tmp_path):
    """A Llama-style model of another shape, saved and found again by its path."""
    from memory_rl.policies.base_model import find_base_model

    torch.manual_seed(0)
    tokenizer = tiny_model.make_tokenizer()
    tokenizer.chat_template = None
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    base = find_base_model(str(tmp_path / "model"), seed=0)
    environment = make_environment("multi_step", 8)
    trie = make_trie(environment, base.tokenizer)
    policy = TransformerPolicy(
        base.model, trie, num_runs=1, lora=LoRASettings(rank=1), learning_rate=1e-3, seed=0
    )
    packed = all_log_probs(policy, np.array([0]))[0]
    model = merged(policy, 0)
    plain = [plain_log_prob(model, tokenise(base.tokenizer, environment.conversation(a))) for a in range(8)]
    np.testing.assert_allclose(packed, plain, rtol=0, atol=1e-4)
