"""Models and tokenizers as people really have them: whole, or refused in one sentence before any work; and
the same in however many threads."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import complaint
from pretrained import SMOL, make_model, make_tokenizer
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

import memory_rl
from memory_rl.policies import base_model, tiny_model
from memory_rl.policies.lora import LoRASettings, StackedAdapters

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A small random Llama with its tokenizer."""
    folder, tokenizer = tmp_path_factory.mktemp("saved") / "model", make_tokenizer(SMOL)
    make_model(LlamaForCausalLM, LlamaConfig, {}, len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def model(saved) -> Path:
    """A copy of it, to be damaged, in the working directory."""
    copy = Path("model")
    copy.mkdir()
    for file in saved.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def refusal(capsys, more: str = "") -> str:
    sentence = complaint("train", f"N=4 memorised_at=0.9 model_name=model warmup=False {more}", capsys)
    assert "model_name='model'" in sentence
    return sentence


def change_weights(model: Path, change) -> None:
    weights = load_file(model / WEIGHTS)
    save_file(change(weights), model / WEIGHTS, metadata={"format": "pt"})


def change_json(file: Path, **values) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def without(part: str):
    return lambda weights: {name: weight for name, weight in weights.items() if part not in name}


def test_the_model_itself_is_fine(model):
    result = memory_rl.train(
        N=4, memorised_at=0.9, model_name="model", warmup=False, num_runs=1, max_episodes=8
    )
    assert len(result.metrics) > 1


WRONG_WEIGHTS = {
    "a prefix": (
        lambda weights: {f"module.{name}": weight for name, weight in weights.items()},
        "lack lm_head.weight and 20 more",
    ),
    "no head": (without("lm_head"), "lack lm_head.weight:"),
    "no layer": (without("layers.1."), "lack model.layers.1.input_layernorm.weight and 8 more"),
    "another shape": (
        lambda weights: {**weights, "model.norm.weight": torch.ones(47)},
        "have model.norm.weight of shape [47] instead of [48]:",
    ),
    "a layer too many": (
        lambda weights: {**weights, "model.layers.2.mlp.up_proj.weight": torch.ones(64, 48)},
        "have, beyond what config.json describes, model.layers.2.mlp.up_proj.weight:",
    ),
    "norms that the model has not": (
        lambda weights: {**weights, "model.layers.0.self_attn.q_norm.weight": torch.ones(12)},
        "have, beyond what config.json describes, model.layers.0.self_attn.q_norm.weight:",
    ),
}


@pytest.mark.parametrize(("change", "part"), WRONG_WEIGHTS.values(), ids=WRONG_WEIGHTS)
def test_weights_that_do_not_match_the_configuration(change, part, model, capsys):
    change_weights(model, change)
    assert part in refusal(capsys)


def test_fewer_layers_in_the_configuration_than_in_the_file(model, capsys):
    change_json(model / "config.json", num_hidden_layers=1)
    assert "beyond what config.json describes, model.layers.1." in refusal(capsys)


def test_buffers_and_other_heads_may_be_left_over(model):
    more = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6),
        "v_head.summary.weight": torch.ones(1),
    }
    change_weights(model, lambda weights: {**weights, **more})
    test_the_model_itself_is_fine(model)


def test_a_tied_head_need_not_be_there(model):
    change_json(model / "config.json", tie_word_embeddings=True)
    change_weights(model, without("lm_head"))
    test_the_model_itself_is_fine(model)


NO_WEIGHTS = {
    "empty": (b"", "is empty; download it again"),
    "a pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5\n",
        "fetch the file with git lfs pull",
    ),
    "a page": (b"<!DOCTYPE html><html><body>Not found</body></html>", "is a web page"),
    "noise": (bytes(range(256)), "is cut off or damaged"),
}


@pytest.mark.parametrize(("content", "part"), NO_WEIGHTS.values(), ids=NO_WEIGHTS)
def test_files_that_hold_no_weights(content, part, model, capsys):
    (model / WEIGHTS).write_bytes(content)
    sentence = refusal(capsys)
    assert WEIGHTS in sentence
    assert part in sentence


def test_weights_that_are_cut_off(model, capsys):
    (model / WEIGHTS).write_bytes((model / WEIGHTS).read_bytes()[:-1000])
    assert f"{WEIGHTS} is cut off or damaged" in refusal(capsys)


@pytest.mark.parametrize(("content", "part"), NO_WEIGHTS.values(), ids=NO_WEIGHTS)
def test_files_that_are_no_gguf(content, part, capsys):
    pytest.importorskip("gguf")
    Path("model.gguf").write_bytes(content)
    sentence = complaint("train", "N=4 memorised_at=0.9 model_name=model.gguf", capsys)
    assert "model_name='model.gguf' cannot be loaded: model.gguf" in sentence
    assert part.replace("cut off or damaged", "not in GGUF format") in sentence


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", "<html>", "null", '{"model": 3}', '{"model_type": "nope"}']
)
def test_damaged_descriptions(file, content, model, capsys):
    (model / file).write_text(content)
    if (file, content) in HARMLESS:
        test_the_model_itself_is_fine(model)
    else:
        refusal(capsys)


HARMLESS = {
    ("tokenizer_config.json", content) for content in ("{}", '{"model": 3}', '{"model_type": "nope"}')
}


@pytest.mark.parametrize(
    ("index", "part"),
    [
        ("{}", "is damaged"),
        ("{", "is damaged"),
        (
            '{"weight_map": {"lm_head.weight": "model-1.safetensors"}}',
            "names model-1.safetensors, which is not",
        ),
    ],
)
def test_an_index_of_files_that_are_not_there(index, part, model, capsys):
    (model / WEIGHTS).unlink()
    (model / f"{WEIGHTS}.index.json").write_text(index)
    assert part in refusal(capsys)


@pytest.mark.parametrize("missing", ["config.json", WEIGHTS, "tokenizer.json"])
def test_missing_files(missing, model, capsys):
    (model / missing).unlink()
    refusal(capsys)


def test_more_tokens_than_the_model_has(model, capsys):
    tokenizer = make_tokenizer(SMOL)
    tokenizer.add_tokens([AddedToken("Reply with the integer alone.")])
    tokenizer.save_pretrained(model)
    number = len(tokenizer) - 1
    assert f"has {number} tokens, and its tokenizer writes number {number}" in refusal(
        capsys, "wording=plain"
    )


def test_a_tokenizer_without_a_fast_form(model, capsys):
    for file in model.glob("tokenizer*"):
        file.unlink()
    change_json(model / "config.json", tokenizer_class="CanineTokenizer")
    (model / "tokenizer_config.json").write_text('{"tokenizer_class": "CanineTokenizer"}')
    assert "without a fast form (CanineTokenizer)" in refusal(capsys)


def test_a_model_that_gives_no_numbers(model, capsys):
    change_weights(model, lambda weights: {**weights, "model.norm.weight": torch.full((48,), torch.nan)})
    assert "gives no finite log-probability in torch.float32" in refusal(capsys)


def with_pictures(**more) -> Gemma3ForConditionalGeneration:
    text = {
        "vocab_size": len(make_tokenizer(SMOL)),
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        **more,
    }
    pictures = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    return Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=pictures, mm_tokens_per_image=4)
    )


def test_a_model_that_sees_pictures_too(capsys):
    """Its numbers of layers and tokens are those of its text, and only that gets adapters."""
    torch.manual_seed(0)
    save(with_pictures(), capsys)
    test_the_model_itself_is_fine(Path("model"))
    adapted = StackedAdapters(with_pictures(), LoRASettings(), [0]).layers
    assert {name.partition(".layers.")[0] for name in adapted} == {"model.language_model"}


@pytest.mark.parametrize("warmup", [True, False])
def test_all_weights_where_some_cannot_be_stacked(warmup, monkeypatch, capsys):
    """Refused before the warm-up, which may take minutes."""
    monkeypatch.setattr(base_model, "warm_up_cached", None)
    save(with_pictures(), capsys)
    words = f"N=4 memorised_at=0.9 model_name=model warmup={warmup} adapter=full"
    assert "Gemma3ForConditionalGeneration, whose model.vision_tower.head" in complaint(
        "train", words, capsys
    )
    save(
        make_model(
            Qwen3MoeForCausalLM,
            Qwen3MoeConfig,
            {"num_experts": 4, "num_experts_per_tok": 2},
            len(make_tokenizer(SMOL)),
        ),
        capsys,
    )
    assert "Qwen3MoeForCausalLM, whose model.layers.0.mlp.experts is" in complaint("train", words, capsys)


def test_a_window_of_a_model_that_sees_pictures_too(capsys):
    save(with_pictures(sliding_window=8), capsys)
    assert "sees 8 tokens at a time" in refusal(capsys)


def test_a_model_with_layers_that_do_not_attend(capsys):
    """The self-check, from outside: tests/parity/test_families.py has it for many families."""
    more = {"layer_types": ["conv", "full_attention"]}
    save(make_model(Lfm2ForCausalLM, Lfm2Config, more, len(make_tokenizer(SMOL))), capsys)
    for words in ("", "env_type=multi_step", "num_secrets=2", "scoring=paths"):
        sentence = refusal(capsys, words)
        assert "is a Lfm2ForCausalLM, wh" in sentence
        assert (
            "use a model that attends to the whole conversation in every layer, such as a Llama" in sentence
        )


def save(model, capsys) -> None:
    model.save_pretrained("model")
    make_tokenizer(SMOL).save_pretrained("model")
    capsys.readouterr()


def test_one_block_is_missing_in_a_gguf_file(capsys):
    gguf = pytest.importorskip("gguf")
    tokenizer = make_tokenizer(None)
    model = make_model(Qwen2ForCausalLM, Qwen2Config, {"tie_word_embeddings": True}, len(tokenizer))
    for missing in (None, "blk.1.ffn_up"):
        write_gguf(gguf, Path("model.gguf"), model, tokenizer, missing)
        words = "N=4 memorised_at=0.9 model_name=model.gguf warmup=False num_runs=1 max_episodes=8 quiet=True"
        if missing:
            sentence = complaint("train", f"{words} log_path=refused", capsys)
            assert "weights lack model.layers.1.mlp.up_proj.weight:" in sentence
        else:
            assert memory_rl.cli.main(["train", *words.split(), "log_path=fine"]) == 0
            capsys.readouterr()


def write_gguf(gguf, file: Path, model, tokenizer, missing: str | None) -> None:
    config, writer = model.config, gguf.GGUFWriter(str(file), "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in content["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if name != "lm_head.weight" and not (missing and theirs.startswith(missing)):
            writer.add_tensor(theirs, weight.numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_nothing_is_drawn_from_the_global_generator(monkeypatch):
    """Nor is it set, since threads share it; the numbers are those that transformers would draw from it."""
    config = tiny_model.make_model(0).config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        theirs = LlamaForCausalLM(config)
        torch.nn.init.normal_(theirs.lm_head.weight, std=0.15)
    for name in ("manual_seed", "set_rng_state"):
        monkeypatch.setattr(torch.random, name, None)
        monkeypatch.setattr(torch, name, None)
    before = torch.get_rng_state()
    torch.testing.assert_close(tiny_model.make_model(5).state_dict(), theirs.state_dict(), rtol=0, atol=0)
    assert torch.equal(before, torch.get_rng_state())


def test_three_threads_at_once_give_what_one_alone_gives(monkeypatch):
    def train(name: str) -> None:
        memory_rl.train(N=8, num_runs=2, max_episodes=40, warmup=False, log_path=name)

    train("alone")
    together, make_config = threading.Barrier(3), tiny_model.LlamaConfig

    def wait_and_make(**settings):
        together.wait(60)
        return make_config(**settings)

    monkeypatch.setattr(tiny_model, "LlamaConfig", wait_and_make)
    names = ["one", "two", "three"]
    threads = [threading.Thread(target=train, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for file in ("metrics.parquet", "episodes.parquet", "film.parquet"):
        assert {(Path(name) / file).read_bytes() for name in names} == {(Path("alone") / file).read_bytes()}
