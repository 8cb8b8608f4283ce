"""Other families than the built-in model: small random Llamas, Qwen3s and Mistrals with their real chat
templates' traits, each against plain transformers."""

import numpy as np
import pytest
import torch
from helpers import all_log_probs, demonstrate, invalid_mass, make_environment, make_trie, plain_log_prob
from pretrained import FAMILIES, LLAMA, QWEN, SHAPE, SMOL, make_model, make_tokenizer, make_world
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import memory_rl
from memory_rl.errors import ModelError
from memory_rl.learning.learners import Reinforce
from memory_rl.policies import base_model, packed, self_check
from memory_rl.policies.base_model import check_fits, find_base_model, recompute_layers
from memory_rl.policies.lora import LoRASettings
from memory_rl.policies.self_check import check_packed_pass
from memory_rl.policies.shared import SharedSettings
from memory_rl.policies.tokenisation import tokenise
from memory_rl.policies.transformer import TransformerPolicy


@pytest.mark.parametrize(("kind", "N"), [("single_step", 120), ("multi_step", 11)])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_answers_log_probability(family, kind, N):
    model_class, config_class, more, template, end = FAMILIES[family]
    tokenizer = make_tokenizer(template)
    model = make_model(model_class, config_class, more, len(tokenizer))
    environment = make_world(kind, N)
    conversations = [
        tokenise(tokenizer, environment.conversation(form)) for form in range(environment.num_forms)
    ]
    assert {reply[-1] for turns in conversations for _, reply in turns} == {
        tokenizer.convert_tokens_to_ids(end)
    }
    if kind == "single_step":
        assert [len(turns[0][1]) for turns in conversations] == [2] * N  # "42" and "119" are one token each
    plain = [plain_log_prob(model, turns) for turns in conversations]
    policy = TransformerPolicy(
        model,
        make_trie(environment, tokenizer),
        num_runs=1,
        lora=LoRASettings(rank=1),
        learning_rate=1e-3,
        seed=0,
    )
    np.testing.assert_allclose(all_log_probs(policy, np.array([0]))[0], plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("grouped", [True, False])
def test_numbers_of_several_digits_are_distinct_paths(grouped):
    """Whatever a number's tokens, sampling finds it as often as its conversation is likely: all answers and
    the exits make up 1."""
    tokenizer = make_tokenizer(SMOL, grouped=grouped)
    lengths = [
        len(turns[0][1]) - 1
        for turns in (tokenise(tokenizer, [("?", str(number))]) for number in (7, 42, 640))
    ]
    assert lengths == ([1, 1, 1] if grouped else [1, 2, 3])
    model = make_model(LlamaForCausalLM, LlamaConfig, {}, len(tokenizer))
    policy = TransformerPolicy(
        model,
        make_trie(make_world("single_step", 120), tokenizer),
        num_runs=1,
        lora=LoRASettings(),
        learning_rate=1e-3,
        seed=0,
    )
    run = np.array([0])
    assert np.exp(all_log_probs(policy, run)).sum() + invalid_mass(policy, run)[0] == pytest.approx(
        1, abs=1e-6
    )


def test_the_first_turn_is_the_templates_own_text_and_the_rest_is_what_it_appends():
    turns = [("What?", "1"), ("Digit 2?", "0"), ("Digit 3?", "1")]
    for template in (SMOL, LLAMA):
        tokenizer = make_tokenizer(template)
        switches = {"date_string": "26 Jul 2024"}
        messages = [
            {"role": role, "content": text}
            for turn in turns
            for role, text in zip(("user", "assistant"), turn, strict=True)
        ]
        whole = tokenizer.apply_chat_template(messages, tokenize=False, **switches)
        ours = [token for forced, reply in tokenise(tokenizer, turns) for token in (*forced, *reply)]
        assert whole.startswith(tokenizer.decode(ours, skip_special_tokens=False))
        assert ours == tokenizer.encode(whole, add_special_tokens=False)[: len(ours)]
    qwen = make_tokenizer(QWEN)
    asked = [qwen.decode(forced, skip_special_tokens=False) for forced, _ in tokenise(qwen, turns)]
    assert asked[0] == "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert (
        asked[1] == "\n<|im_start|>user\nDigit 2?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_templates_that_cannot_be_used():
    drops = make_tokenizer("{{ messages[-1]['content'] }}<|im_end|>")
    with pytest.raises(ModelError, match="rewrites earlier turns"):
        tokenise(drops, [("What?", "1"), ("Digit 2?", "0")])
    fails = make_tokenizer("{{ raise_exception('no system message') }}")
    with pytest.raises(ModelError, match="fails \\(no system message\\)"):
        tokenise(fails, [("What?", "1")])


def small(kind: str, more: dict, size: int, spread: float = 0.2):
    """A small random model of any family that transformers knows."""
    torch.manual_seed(0)
    shape = {**SHAPE, "head_dim": 12, "pad_token_id": None}
    settings = AutoConfig.for_model(kind, vocab_size=size, initializer_range=spread, **{**shape, **more})
    return AutoModelForCausalLM.from_config(settings).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(None)


@pytest.fixture(scope="module")
def tries(tokenizer) -> dict:
    """One of single_step, one of multi_step, one with several prompts."""
    return {
        "single": make_trie(make_world("single_step", 120), tokenizer),
        "multi": make_trie(make_world("multi_step", 8), tokenizer),
        "prompts": make_trie(make_environment("single_step", 12, 3), tokenizer),
    }


def mixture(**more) -> dict:
    return {
        "num_experts": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
    } | more


LATENT = {
    "head_dim": 8,
    "num_key_value_heads": 4,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "first_k_dense_replace": 1,
    "n_routed_experts": 4,
    "n_group": 2,
    "topk_group": 1,
}
EXACT = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {},
    "phi3": {},
    "gemma2": {},
    "gemma3_text": {},
    "granite": {},
    "olmo2": {},
    "smollm3": {},
    "cohere2": {},
    "gpt_oss": mixture(),
    "gpt2": {},
    "gpt_neox": {},
    "qwen3_moe": mixture(),
    "deepseek_v3": mixture(**LATENT),
}


@pytest.mark.parametrize("kind", EXACT)
def test_families_that_attend_to_the_whole_conversation(kind, tokenizer, tries):
    model = small(kind, EXACT[kind], len(tokenizer))
    for trie in tries.values():
        check_packed_pass(model, trie, scores_all=True)
    check_packed_pass(model, tries["single"], scores_all=False)


HALF = {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]}
WRONG = {
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "qwen3_next": mixture(**HALF),
    "qwen3_5_text": HALF,
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, **mixture()},
    "recurrent_gemma": {},
    "bamba": {"mamba_n_heads": 6, "mamba_d_head": 16, "attn_layer_indices": [1]},
    "granitemoehybrid": {"mamba_n_heads": 6, "mamba_d_head": 16, "layer_types": ["mamba", "attention"]},
    "minimax": mixture(),
    "gpt_neo": {"window_size": 8, "attention_types": [[["global", "local"], 1]]},
    "mpt": {},
    "bert": {},
}


@pytest.mark.parametrize("kind", WRONG)
def test_families_that_do_not(kind, tokenizer, tries):
    """Each with its name, and by how many bits the answers would be off."""
    model = small(kind, WRONG[kind], len(tokenizer))
    for trie in tries.values():
        with pytest.raises(ModelError, match=rf"{type(model).__name__}, whose answers would be scored up to"):
            check_packed_pass(model, trie, scores_all=True)
    with pytest.raises(ModelError, match=f"is a {type(model).__name__}, w"):
        check_packed_pass(model, tries["single"], scores_all=False)


@pytest.mark.parametrize("kind", ["lfm2", "jamba", "bert", "minimax", "qwen3_next"])
def test_small_random_weights_hide_no_layer(kind, tokenizer, tries):
    """As transformers draws them: log-probabilities that hardly differ must differ by less still."""
    for trie in tries.values():
        check_packed_pass(small("llama", {}, len(tokenizer), 0.02), trie, scores_all=True)
        with pytest.raises(ModelError, match="bits wrongly"):
            check_packed_pass(small(kind, WRONG[kind], len(tokenizer), 0.02), trie, scores_all=True)


@pytest.mark.parametrize("kind", ["bloom", "mamba"])
def test_families_that_cannot_be_asked_at_all(kind, tokenizer, tries):
    with pytest.raises(ModelError, match="which cannot score answers that share their prompt"):
        check_packed_pass(small(kind, {}, len(tokenizer)), tries["single"], scores_all=True)


@pytest.mark.parametrize("kind", ["mistral", "gemma2", "gemma3_text", "ministral", "llama4_text", "olmo3"])
def test_a_window_is_refused_once_it_is_too_narrow(kind, tokenizer, tries):
    """By its usual name before anything is computed, and by whatever name when it is."""
    longest = len(tries["multi"].prompt) + int(max(tries["multi"].node_depth)) + 1
    name = "attention_chunk_size" if kind == "llama4_text" else "sliding_window"
    more = {**mixture(), "num_hidden_layers": 4, name: 8}
    wide, narrow = (small(kind, {**more, name: size}, len(tokenizer)) for size in (longest, 8))
    check_fits(wide, tries["multi"])
    check_packed_pass(wide, tries["multi"], scores_all=True)
    with pytest.raises(ModelError, match=f"sees 8 tokens at a time, and a conversation has {longest}:"):
        check_fits(narrow, tries["multi"])
    with pytest.raises(ModelError, match="bits wrongly"):
        check_packed_pass(narrow, tries["multi"], scores_all=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_checked_in_float32(dtype, tokenizer, tries):
    """Where rounding hides nothing; the weights are afterwards what they were."""
    model = small("qwen3", {}, len(tokenizer)).to(dtype)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    for trie in tries.values():
        check_packed_pass(model, trie, scores_all=True)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    slightly = small("lfm2", {"layer_types": ["full_attention", "full_attention"]}, len(tokenizer)).to(dtype)
    check_packed_pass(slightly, tries["single"], scores_all=True)
    recurrent = small("lfm2", WRONG["lfm2"], len(tokenizer)).to(dtype)
    with pytest.raises(ModelError, match="bits wrongly"):
        check_packed_pass(recurrent, tries["single"], scores_all=True)
    with torch.no_grad():
        model.model.norm.weight.fill_(6e4)
    if dtype == torch.float16:
        with pytest.raises(ModelError, match=r"in torch\.float16: use dtype=float32"):
            check_packed_pass(model, tries["single"], scores_all=True)


def test_the_check_sees_less_than_a_hundredth_of_a_bit(tokenizer, tries, monkeypatch):
    """As if the tree began one position too late."""
    model, pack_nodes = small("llama", {}, len(tokenizer)), packed.pack_nodes

    def shifted(trie, *given):
        pack = pack_nodes(trie, *given)
        pack.positions[:, len(trie.prompt) :] += 1
        return pack

    monkeypatch.setattr(packed, "pack_nodes", shifted)
    for trie in tries.values():
        with pytest.raises(ModelError, match="bits wrongly"):
            check_packed_pass(model, trie, scores_all=True)


@pytest.mark.parametrize("words", [{}, {"env_type": "multi_step"}, {"scoring": "paths"}, {"num_secrets": 3}])
def test_a_run_begins_with_the_check(words, tokenizer, monkeypatch):
    """Before the warm-up, of the built-in model, too."""
    seen = []

    def check(model, trie, *, scores_all):
        seen.append(scores_all)
        raise ModelError("enough")

    monkeypatch.setattr(self_check, "check_packed_pass", check)
    monkeypatch.setattr(base_model, "warm_up_cached", None)
    with pytest.raises(ModelError, match="enough"):
        memory_rl.train(N=16, num_runs=1, **words)
    assert seen == [words.get("scoring") != "paths"]


def gradients(model, trie, path) -> torch.Tensor:
    policy = TransformerPolicy(
        model, trie, num_runs=2, lora=LoRASettings(rank=2), learning_rate=1e-3, seed=0, optimiser="sgd"
    )
    for vector in policy.adapters.vectors:
        vector.data += 0.1 * torch.randn(vector.shape, generator=torch.Generator().manual_seed(1))
    before = torch.stack([vector.detach().clone() for vector in policy.adapters.vectors])
    rollout = demonstrate(policy, np.arange(2), path)
    policy.update(rollout, np.ones(rollout.choices.shape), Reinforce())
    return before - torch.stack(list(policy.adapters.vectors))


@pytest.mark.parametrize("family", ["smollm2", "qwen3"])
def test_recomputed_layers_give_the_same_gradients_with_less_memory(family):
    model_class, config_class, more, template, _ = FAMILIES[family]
    tokenizer = make_tokenizer(template)
    trie, path = make_trie(make_world("multi_step", 8), tokenizer), np.array([[1, 5], [7, 2]])
    kept: dict[bool, int] = {}
    steps = {}
    for recompute in (False, True):
        model = make_model(
            model_class, config_class, {**more, "attention_dropout": 0.5}, len(tokenizer)
        )  # dropout stays off
        if recompute:
            recompute_layers(model)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.nbytes) or tensor, lambda tensor: tensor
        ):
            steps[recompute] = gradients(model, trie, path)
        kept[recompute] = sum(sizes)
    torch.testing.assert_close(steps[True], steps[False], rtol=0, atol=0)
    assert steps[False].abs().max() > 1e-6
    assert kept[True] < 0.5 * kept[False]


@pytest.mark.parametrize("adapters", [LoRASettings(), SharedSettings(20, LoRASettings())])
def test_adapters_stay_float32_on_a_model_of_half_precision(adapters):
    """The same answers within the precision of bfloat16, 8 bits, and steps that would vanish in it."""
    tokenizer = make_tokenizer(SMOL)
    trie, run = make_trie(make_world("single_step", 16), tokenizer), np.array([0])
    full, half = (
        make_model(LlamaForCausalLM, LlamaConfig, {}, len(tokenizer)).to(dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    policies = [
        TransformerPolicy(
            model, trie, num_runs=1, lora=adapters, learning_rate=1e-5, seed=0, optimiser="adam"
        )
        for model in (full, half)
    ]
    exact, rounded = (all_log_probs(policy, run) for policy in policies)
    np.testing.assert_allclose(rounded, exact, atol=0.3)
    assert np.abs(rounded - exact).max() > 1e-6
    for policy in policies:
        assert {vector.dtype for vector in policy.adapters.vectors} == {torch.float32}
        before = policy.adapters.vectors[0].detach().clone()
        rollout = demonstrate(policy, run, np.array([[3]]))
        for _ in range(3):
            policy.update(rollout, np.ones(rollout.choices.shape), Reinforce())
        moved = (policy.adapters.vectors[0] - before).abs().max().item()
        assert 1e-5 < moved <= 3.1e-5  # three steps of Adam


def test_a_model_from_a_directory_in_half_precision(tmp_path):
    tokenizer = make_tokenizer(QWEN)
    make_model(Qwen3ForCausalLM, Qwen3Config, {}, len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    base = find_base_model(str(tmp_path / "model"), 0, "bfloat16")
    assert base.model.dtype == torch.bfloat16
    assert tokenise(base.tokenizer, [("?", "42")]) == tokenise(tokenizer, [("?", "42")])


def test_wordings():
    assert make_environment("single_step", 64).prompt(0) == "Secret in [0,64)?"
    assert (
        make_world("single_step", 64).prompt(0)
        == "I am thinking of a secret integer from 0 to 63. Reply with the integer alone."
    )
    assert [make_world("multi_step", 64).prompt(step) for step in (0, 5)] == [
        "I am thinking of a secret integer from 0 to 63, written with 6 binary digits. "
        "Reply with one digit at a time, 0 or 1, alone. Digit 1?",
        "Digit 6?",
    ]
