"""What a run leaves behind, loaded by transformers and PEFT: it is what was trained."""

import json
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from helpers import all_log_probs, complaint, make_trie, plain_log_prob
from pretrained import SMOL, make_model, make_tokenizer, make_world
from safetensors.numpy import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    Glm4MoeConfig,
    Glm4MoeForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

import memory_rl
from memory_rl.assembly import make_setting
from memory_rl.errors import RunDirectoryError
from memory_rl.experiment import make_experiment
from memory_rl.policies import base_model, lora, saved
from memory_rl.policies.base_model import hash_weights
from memory_rl.policies.lora import LoRASettings
from memory_rl.policies.saved import check_saved, describe_base
from memory_rl.policies.shared import SharedSettings
from memory_rl.policies.tokenisation import tokenise
from memory_rl.policies.transformer import TransformerPolicy
from memory_rl.policies.warmup import WarmupSettings
from memory_rl.runs.store import RunDirectory

NO_SPECIAL = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24, "first_k_dense_replace": 1}
EXPERTS |= {"n_routed_experts": 4, "n_group": 1, "topk_group": 1}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}


def every_head(**keys) -> DeepseekV3Config:
    """Its heads share no keys."""
    return DeepseekV3Config(**{**keys, "num_key_value_heads": keys["num_attention_heads"]})


FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "phi3": (Phi3ForCausalLM, Phi3Config, NO_SPECIAL),
    "gemma": (GemmaForCausalLM, GemmaConfig, {"head_dim": 12}),
    "qwen3 moe": (
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig,
        {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    ),
    "glm4 moe": (Glm4MoeForCausalLM, Glm4MoeConfig, {**EXPERTS, "head_dim": 16}),
    "deepseek v3": (DeepseekV3ForCausalLM, every_head, {**EXPERTS, **LATENT, "v_head_dim": 12}),
}
N = 4
TOKENIZER = make_tokenizer(SMOL)
SETTINGS = WarmupSettings(adapter_rank=8, learning_rate=3e-3, tolerance=0.01, max_steps=150)


def family(name: str):
    kind, settings, more = FAMILIES[name]
    return make_model(kind, settings, more, len(TOKENIZER))


def moved(name: str, settings=None) -> TransformerPolicy:
    """A policy whose adapters are no longer zero."""
    policy = TransformerPolicy(
        family(name),
        make_trie(make_world("single_step", N), TOKENIZER),
        num_runs=2,
        lora=settings or LoRASettings(4),
        learning_rate=1e-2,
        seed=0,
    )
    random = torch.Generator().manual_seed(1)
    for vector in policy.adapters.vectors:
        vector.data += 0.05 * torch.randn(vector.shape, generator=random)
    return policy


def write(policy: TransformerPolicy) -> Path:
    RunDirectory(Path.cwd() / "run").write_adapters(policy.adapters.state())
    return Path.cwd() / "run" / "adapters"


def plain_log_probs(model, tokenizer, num_answers: int, wording: str = "plain") -> list[float]:
    world = make_setting(make_experiment({"N": num_answers, "wording": wording, "memorised_at": 0.9}))
    return [
        plain_log_prob(model, tokenise(tokenizer, world.environment.conversation(answer)))
        for answer in range(num_answers)
    ]


@pytest.mark.parametrize("size", [{}, {"layers": (1,)}, {"targets": "mlp"}])
@pytest.mark.parametrize("name", FAMILIES)
def test_peft_loads_the_adapters_of_every_family(name, size):
    if name == "qwen3 moe" and size.get("targets") == "mlp":
        size = {"targets": "attention"}  # its experts are no matrices of their own
    policy = moved(name, LoRASettings(4, **size))
    ours, folder = all_log_probs(policy, np.arange(2)), write(policy)
    check_saved(policy.adapters, policy.model, folder, ["run-0", "run-1"])
    np.testing.assert_array_equal(all_log_probs(policy, np.arange(2)), ours)  # the check left it as it was
    for run in range(2):
        loaded = peft.PeftModel.from_pretrained(family(name), folder / f"run-{run}").eval()
        theirs = plain_log_probs(loaded, TOKENIZER, N)
        np.testing.assert_allclose(ours[run], theirs, rtol=0, atol=2e-5)
        assert np.abs(ours[run] - plain_log_probs(family(name), TOKENIZER, N)).max() > 0.1


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_adapters_stay_float32_in_peft_on_a_base_of_half_precision(kind):
    policy = moved("llama")
    policy.model.to(kind)
    drawn = torch.random.get_rng_state()
    check_saved(policy.adapters, policy.model, write(policy), ["run-0"])
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_a_model_that_was_read_from_a_quantised_file_is_saved_as_what_it_is_now(tmp_path):
    more = {"tie_word_embeddings": True, "head_dim": 16}
    model = make_model(Qwen3ForCausalLM, Qwen3Config, more, len(TOKENIZER))
    model.config.quantization_config = {"quant_method": "gguf"}
    base = base_model.BaseModel(model, TOKENIZER, SETTINGS)
    record = describe_base(base, {"model_name": "small.gguf", "made_here": False}, tmp_path / "base")
    config = json.loads((tmp_path / "base/config.json").read_text())
    assert "quantization_config" not in config
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert record["sha256"] == hash_weights(again).hexdigest() == hash_weights(model).hexdigest()
    assert model.config.quantization_config == {"quant_method": "gguf"}  # and the model is as it was


def test_the_vector_of_shared_adapters_is_read_back_too():
    policy = moved("deepseek v3", SharedSettings(20, LoRASettings(4)))
    check_saved(policy.adapters, policy.model, write(policy), ["run-0", "run-1"])


def other_number(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] += 1
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})


def one_missing(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors.popitem()
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "words"), [(other_number, "is not as it was"), (one_missing, "is missing or too many")]
)
def test_tensors_that_are_not_what_was_trained_are_noticed(damage, words):
    policy = moved("llama")
    damage(write(policy) / "run-1")
    with pytest.raises(RunDirectoryError, match=words):
        check_saved(policy.adapters, policy.model, Path("run/adapters"), ["run-0", "run-1"])


def test_names_that_select_other_layers_are_noticed_without_peft(monkeypatch):
    monkeypatch.setattr(saved, "is_installed", lambda library: False)
    policy = moved("llama")
    policy.adapters.config["target_modules"] = ["q_proj", "lm_head"]
    with pytest.raises(RunDirectoryError, match=r"PEFT would not adapt the same layers, as lm_head\)"):
        check_saved(policy.adapters, policy.model, write(policy), ["run-0"])


def test_a_module_of_the_same_name_that_is_not_adapted_needs_full_names():
    """A linear layer in an int8 or other class of its own is left alone, and PEFT is told so."""
    model = family("llama")
    model.model.layers[0].mlp.up_proj = torch.nn.Sequential(model.model.layers[0].mlp.up_proj)
    config = LoRASettings(4, targets="mlp").adapt(model, [0]).config
    assert config["target_modules"] == [
        f"model.layers.{layer}.mlp.{part}_proj"
        for layer, parts in enumerate([("down", "gate"), ("down", "gate", "up")])
        for part in parts
    ]


def save_model(name: str, folder: Path) -> str:
    family(name).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return str(folder)


def test_adapters_that_peft_would_load_otherwise_are_refused_before_any_work(tmp_path, monkeypatch, capsys):
    """PEFT takes the shared experts' names for those of the experts: the names of before."""
    name, leaves = save_model("deepseek v3", tmp_path / "model"), ["down_proj", "gate_proj", "up_proj"]
    monkeypatch.setattr(lora, "_names", lambda *given: {"target_modules": leaves})
    words = f"N=4 memorised_at=0.9 model_name={name} warmup=False save_adapters=True save_base=True"
    capsys.readouterr()
    sentence = complaint("train", f"{words} lora_targets=mlp log_path={tmp_path}/run", capsys)
    assert "PEFT does not adapt the same layers, as model.layers.0.mlp.down_proj" in sentence
    assert not (tmp_path / "run").exists()


def check_bits(result, num_answers: int) -> None:
    """Base and adapters, loaded by transformers and PEFT alone, know what the run knew at its end."""
    adapters = result.path / "adapters"
    ends = result.metrics.sort("episode").group_by("run", maintain_order=True).last().sort("run")
    base = json.loads((adapters / "base.json").read_text())
    for run, secret, bits in ends.select("run", "secret", "bits_known").iter_rows():
        plain = AutoModelForCausalLM.from_pretrained(adapters / "base")
        assert hash_weights(plain).hexdigest() == base["sha256"]
        loaded = peft.PeftModel.from_pretrained(plain, adapters / f"run-{run}")
        again = peft.AutoPeftModelForCausalLM.from_pretrained(adapters / f"run-{run}")  # finds it by its name
        tokenizer = AutoTokenizer.from_pretrained(adapters / "base")
        for model in (loaded, again):
            log_prob = plain_log_probs(model, tokenizer, num_answers, base["wording"])[secret]
            assert np.log2(num_answers) + log_prob / np.log(2) == pytest.approx(bits, abs=1e-4)
        assert bits > 0.9


SHORT = {"num_runs": 2, "save_adapters": True, "save_base": True, "max_episodes": 30}


def test_base_and_adapters_of_the_built_in_model_give_exactly_the_runs_probability():
    result = memory_rl.sft(N=8, memorised_at=0.8, stop_at=0.8, **SHORT)
    check_bits(result, 8)
    assert result.metrics.equals(memory_rl.sft(N=8, memorised_at=0.8, stop_at=0.8, num_runs=2).metrics)


def test_base_and_adapters_of_a_pretrained_model_that_was_warmed_up(tmp_path, monkeypatch):
    """With random weights an adapter does not suffice to warm it up; its embeddings are its head."""
    monkeypatch.setattr(base_model, "_PRETRAINED_WARMUP", SETTINGS)
    more = {"tie_word_embeddings": True, "head_dim": 16}
    make_model(Qwen3ForCausalLM, Qwen3Config, more, len(TOKENIZER)).save_pretrained(tmp_path / "model")
    TOKENIZER.save_pretrained(tmp_path / "model")
    name = str(tmp_path / "model")
    result = memory_rl.sft(N=4, model_name=name, memorised_at=0.6, stop_at=0.6, learning_rate=1e-2, **SHORT)
    check_bits(result, 4)


def test_a_base_that_is_not_saved_is_named_so_that_no_other_is_taken_for_it(tmp_path):
    result = memory_rl.sft(N=8, num_runs=1, max_episodes=3, save_adapters=True)
    base = json.loads((result.path / "adapters/base.json").read_text())
    config = json.loads((result.path / "adapters/run-0/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == f"tiny#{base['sha256'][:16]}"
    facts = {"model_name": "tiny", "base_seed": 0, "N": 8, "wording": "terse", "env_type": "single_step"}
    assert facts.items() <= base.items()
    assert base["warmup_report"]["divergence"] == result.summary["sft"]["warmup"]["divergence"]
    assert {"torch", "transformers", "memory-rl"} == base["versions"].keys()
    with pytest.raises(OSError, match="tiny#"):
        peft.AutoPeftModelForCausalLM.from_pretrained(result.path / "adapters/run-0")


def test_a_raw_pretrained_model_keeps_its_own_name(tmp_path):
    name = save_model("llama", tmp_path / "model")
    keys = {"N": 4, "memorised_at": 0.9, "num_runs": 1, "max_episodes": 1, "save_adapters": True}
    result = memory_rl.sft(model_name=name, warmup=False, **keys)
    config = json.loads((result.path / "adapters/run-0/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == name
    assert not (result.path / "adapters/base").exists()


def test_a_base_that_would_not_load_as_it_was_is_refused_and_leaves_nothing_behind(monkeypatch, capsys):
    class Other:
        @staticmethod
        def from_pretrained(folder, dtype):
            return family("llama")

    monkeypatch.setattr(saved, "AutoModelForCausalLM", Other)
    capsys.readouterr()
    sentence = complaint("sft-train", "N=8 save_adapters=True save_base=True log_path=run", capsys)
    assert "run/adapters/base cannot be written (transformers does not load it as it was)" in sentence
    assert not Path("run").exists()


def test_a_base_goes_with_adapters(capsys):
    assert "add save_adapters=True" in complaint("train", "N=8 save_base=True", capsys)
