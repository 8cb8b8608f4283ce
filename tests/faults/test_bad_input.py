"""Every bad input stops before any work: one sentence that names the key, the value and what to type instead;
exit code 2; nothing written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import complaint

import memory_rl

ROOT = Path(__file__).parents[2]

BAD_TRAIN = {
    "N too small": ("N=1", ["N=1 ", "N=2 or more"]),
    "N negative": ("N=-5", ["N=-5", "N=2 or more"]),
    "N a fraction": ("N=3.5", ["N=3.5", "integer", "N=64"]),
    "N a word": ("N=many", ["N=many", "integer"]),
    "secret too large": ("N=64 fixed_secret=64", ["fixed_secret=64", "0 to 63"]),
    "secret negative": ("N=64 fixed_secret=-1", ["fixed_secret=-1", "fixed_secret=0 or more"]),
    "bins missing": ("reward_type=binned_log_distance", ["reward_type=binned_log_distance", "reward_bins=8"]),
    "bins too few": ("reward_type=binned_log_distance reward_bins=1", ["reward_bins=1", "reward_bins=2"]),
    "bins without the binned channel": (
        "reward_type=binary reward_bins=8",
        ["reward_bins=8", "binned_log_distance"],
    ),
    "bins with multi_step": (
        "env_type=multi_step reward_bins=8",
        ["reward_bins=8", "use env_type=single_step", "leave reward_bins out"],
    ),
    "reward with multi_step": (
        "env_type=multi_step reward_type=binary",
        ["reward_type=binary", "use env_type=single_step", "leave reward_type out"],
    ),
    "unknown reward": ("reward_type=binery", ["reward_type=binery", "binary"]),
    "unknown algorithm": ("algorithm=gpro", ["algorithm=gpro", "did you mean grpo?"]),
    "unknown credit": (
        "env_type=multi_step credit=turn",
        ["credit=turn", "step", "reward_to_go", "episode"],
    ),
    "unknown environment": ("env_type=many_step", ["env_type=many_step", "multi_step"]),
    "unknown backend": ("backend=cloud", ["backend=cloud", "local"]),
    "unknown key": ("reward_typ=binary", ["reward_typ=binary", "reward_type"]),
    "not key=value": ("N", ["'N'", "key=value"]),
    "a key twice": ("N=64 N=32", ["N", "twice"]),
    "no signal possible": ("group_size=1 batch_size=8", ["group_size=1", "batch_size=8", "group_size=4"]),
    "group size zero": ("group_size=0", ["group_size=0"]),
    "noise one": ("reward_noise=1", ["reward_noise=1", "reward_noise=0.1"]),
    "noise negative": ("reward_noise=-0.1", ["reward_noise=-0.1"]),
    "noise not a number": ("reward_noise=nan", ["reward_noise=nan"]),
    "learning rate zero": ("learning_rate=0", ["learning_rate=0", "positive", "learning_rate=0.001"]),
    "learning rate negative": ("learning_rate=-1e-3", ["learning_rate=-0.001"]),
    "learning rate infinite": ("learning_rate=inf", ["learning_rate=inf"]),
    "rank zero": ("lora_rank=0", ["lora_rank=0", "lora_rank=1"]),
    "rank beyond the matrices": ("lora_rank=129 warmup=False", ["lora_rank=129", "lora_rank=128 or less"]),
    "layers that are no list": ("lora_layers=0..1", ["lora_layers=0..1", "lora_layers=0-3,8"]),
    "layers the wrong way round": ("lora_layers=3-1", ["lora_layers=3-1", "lora_layers=0-3"]),
    "layers the model lacks": ("lora_layers=0-2 warmup=False", ["lora_layers", "layer 2", "0 to 1"]),
    "layers for a table": (
        "lora_layers=1 backend=tabular",
        ["lora_layers=1", "use backend=local", "leave lora_layers out"],
    ),
    "unknown adapter": ("adapter=lore", ["adapter=lore", "lora"]),
    "a shared adapter of no size": ("adapter=shared", ["adapter=shared", "add adapter_parameters=13"]),
    "a size for another adapter": ("adapter_parameters=13", ["adapter_parameters=13", "adapter=shared"]),
    "a shared adapter of nothing": (
        "adapter=shared adapter_parameters=0",
        ["adapter_parameters=0", "adapter_parameters=1"],
    ),
    "a shared adapter too large": (
        "adapter=shared adapter_parameters=897 warmup=False",
        ["adapter_parameters=897", "adapter_parameters=896", "lora_rank"],
    ),
    "rank of all weights": (
        "adapter=full lora_rank=1",
        ["lora_rank=1", "use adapter=lora", "leave lora_rank out"],
    ),
    "layers of all weights": (
        "adapter=full lora_layers=0",
        ["lora_layers=0", "use adapter=lora", "leave lora_layers out"],
    ),
    "all weights of a table": (
        "adapter=full backend=tabular",
        ["adapter=full", "use backend=local", "leave adapter out"],
    ),
    "no runs": ("num_runs=0", ["num_runs=0", "num_runs=1"]),
    "budget under one update": ("max_episodes=3", ["max_episodes=3", "max_episodes=4"]),
    "threshold at chance": ("N=2 memorised_at=0.5", ["memorised_at=0.5", "memorised_at=0.9"]),
    "stop before memorised": ("stop_at=0.4", ["stop_at=0.4", "stop_at=0.95"]),
    "N beyond the local policy": ("N=2000000", ["N=2000000", "N=1048576"]),
    "N beyond what scores all answers": (
        "N=100000 algorithm=posterior",
        ["N=100000", "algorithm=posterior", "N=2048"],
    ),
    "paths where all answers matter": (
        "scoring=paths algorithm=posterior",
        ["scoring=paths", "algorithm=posterior", "leave scoring out"],
    ),
    "paths for a table": (
        "scoring=paths backend=tabular",
        ["scoring=paths", "use backend=local", "leave scoring out"],
    ),
    "a flag that is not one": ("quiet=yes", ["quiet=yes", "True or False"]),
    "an empty path": ("log_path=", ["log_path= is empty", "type for example log_path=name"]),
    "no such model": ("model_name=no/such-model", ["model_name='no/such-model'", "tiny"]),
    "no such file": ("model_name=./nowhere.gguf", ["model_name='./nowhere.gguf'", ".gguf file"]),
    "unknown type": ("dtype=double", ["dtype=double", "float32, bfloat16, float16"]),
    "unknown device": ("device=gpu", ["device=gpu", "did you mean cuda?"]),
    "no such device": ("device=mps", ["device=mps", "device=cpu"]),
    "unknown wording": ("wording=pain", ["wording=pain", "plain"]),
    "a type for a table": (
        "backend=tabular dtype=bfloat16",
        ["dtype=bfloat16", "use backend=local", "leave dtype out"],
    ),
    "no such directory": ("model_name=./nowhere", ["model_name='./nowhere'", "directory"]),
}


@pytest.mark.parametrize(("words", "parts"), BAD_TRAIN.values(), ids=BAD_TRAIN.keys())
def test_train_refuses(words, parts, capsys):
    sentence = complaint("train", words, capsys)
    for part in parts:
        assert part in sentence
    assert not list(Path("runs").glob("*"))  # nothing was left behind


@pytest.mark.parametrize(
    ("command", "words", "parts"),
    [
        ("trian", "", ["'trian'", "train"]),
        ("sft-data-gen", "N=64 fixed_secret=70", ["fixed_secret=70"]),
        ("sft-data-gen", "num_train=0", ["num_train=0", "num_train=1"]),
        ("sft-data-gen", "reward_type=binary", ["reward_type=binary is not a known key"]),
        ("sft-train", "batch_size=0", ["batch_size=0"]),
        (
            "sft-train",
            "N=64 fixed_secret=42 wording=plain",
            ["sft-N64-secret42-plain", "python sft_data_gen.py N=64 fixed_secret=42 wording=plain"],
        ),
        (
            "sft-train",
            "N=64 fixed_secret=42 model_name=.",
            ["python sft_data_gen.py N=64 fixed_secret=42 wording=plain"],
        ),
        (
            "sft-train",
            "N=64 fixed_secret=42",
            ["sft-N64-secret42", "python sft_data_gen.py N=64 fixed_secret=42"],
        ),
    ],
)
def test_other_commands_refuse(command, words, parts, capsys):
    sentence = complaint(command, words, capsys)
    for part in parts:
        assert part in sentence


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"N": "64"}, ["N=64", "integer"]),
        ({"N": True}, ["N=True", "integer"]),
        ({"reward": "binary"}, ["reward", "reward_type"]),
        ({"algorithm": "sarsa"}, ["algorithm=sarsa"]),
        ({"learning_rate": 0}, ["learning_rate=0"]),
    ],
)
def test_the_same_from_python(settings, parts):
    with pytest.raises(memory_rl.ConfigError) as caught:
        memory_rl.train(**settings)
    for part in parts:
        assert part in str(caught.value)
    assert not Path("runs").exists()


def data_lines(N=8, secret=3) -> list[str]:
    folder = memory_rl.generate_sft_data(N=N, fixed_secret=secret, num_train=5, num_test=2)
    return (folder / "train.jsonl").read_text().splitlines()


def put_line(number: int, line: str, N: int = 8, secret: int = 3) -> None:
    lines = data_lines(N, secret)
    lines[number - 1] = line
    Path(f"data/sft-N{N}-secret{secret}/train.jsonl").write_text("\n".join(lines) + "\n")


ALIEN = {
    "not JSON": ("{", ["line 4", "JSON"]),
    "no messages": ('{"text": "3"}', ["line 4", "messages"]),
    "wrong roles": (
        json.dumps({"messages": [{"role": "user", "content": "Secret in [0,8)?"}]}),
        ["line 4", "roles"],
    ),
    "another N": (
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": "Secret in [0,64)?"},
                    {"role": "assistant", "content": "3"},
                ]
            }
        ),
        ["line 4", "another N"],
    ),
    "another secret": (
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": "Secret in [0,8)?"},
                    {"role": "assistant", "content": "5"},
                ]
            }
        ),
        ["line 4", "another secret", "'5'"],
    ),
    "an empty line": ("", ["line 4"]),
}


@pytest.mark.parametrize(("line", "parts"), ALIEN.values(), ids=ALIEN.keys())
def test_malformed_data_name_the_line(line, parts, capsys):
    put_line(4, line)
    sentence = complaint("sft-train", "N=8 fixed_secret=3", capsys)
    for part in parts:
        assert part in sentence
    assert not Path("runs").exists()


def test_empty_data_and_missing_test_data(capsys):
    data_lines()
    train = Path("data/sft-N8-secret3/train.jsonl")
    train.write_text("")
    assert "is empty" in complaint("sft-train", "N=8 fixed_secret=3", capsys)
    data_lines()
    train.with_name("test.jsonl").unlink()
    assert "test.jsonl" in complaint("sft-train", "N=8 fixed_secret=3", capsys)


def test_a_tokenizer_that_cannot_write_an_answer(tmp_path, capsys):
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1, "1": 2, "Secret": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>").save_pretrained(
        tmp_path / "model"
    )
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=4, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
        )
    ).save_pretrained(tmp_path / "model")
    capsys.readouterr()
    sentence = complaint("train", f"N=4 model_name={tmp_path / 'model'}", capsys)
    assert "cannot write the answer 0" in sentence
    assert "model_name" in sentence
    assert not list(Path("runs").glob("*"))


def test_a_script_at_the_root_says_it_the_same_way():
    done = subprocess.run([sys.executable, ROOT / "train.py", "N=1"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("memory-rl: N=1 ")
    assert done.stderr.count("\n") == 1
