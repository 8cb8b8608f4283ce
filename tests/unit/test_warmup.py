"""The format warm-up of models that were not made here: what is done where an adapter does not suffice, when
it gives up, what it says then, and how a run that starts all the same is told apart."""

import io
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from helpers import complaint, make_trie, plain_log_prob
from pretrained import SMOL, make_tokenizer, make_world
from rich.console import Console
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import memory_rl
from memory_rl.analysis.summary import about_prior
from memory_rl.errors import ModelError
from memory_rl.policies import base_model, pretrained_warmup
from memory_rl.policies.base_model import BaseModel, find_base_model, warm_up_cached
from memory_rl.policies.pretrained_warmup import warm_up_by_adapter
from memory_rl.policies.tokenisation import tokenise
from memory_rl.policies.warmup import WarmupSettings, learn, warm_up
from memory_rl.policies.warmup_report import WarmupReport
from memory_rl.reporting.progress import Progress
from memory_rl.reporting.terminal import answer_sheet

SMALL = WarmupSettings(adapter_rank=8, learning_rate=1e-2, tolerance=0.03, max_steps=100)
TOKENIZER = make_tokenizer(SMOL)
NO_SPECIAL = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
TINIEST = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
GPT2 = {"n_embd": 48, "n_layer": 2, "n_head": 4, **NO_SPECIAL}
RANDOM = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "llama of 16": (LlamaForCausalLM, LlamaConfig, TINIEST),
    "tied qwen3": (Qwen3ForCausalLM, Qwen3Config, {"tie_word_embeddings": True, "head_dim": 16}),
    "tied qwen3 of 16": (
        Qwen3ForCausalLM,
        Qwen3Config,
        {"tie_word_embeddings": True, "head_dim": 8, **TINIEST},
    ),
    "gemma": (GemmaForCausalLM, GemmaConfig, {"head_dim": 12}),
    "mistral": (MistralForCausalLM, MistralConfig, {}),
    "phi3": (Phi3ForCausalLM, Phi3Config, NO_SPECIAL),
    "gpt2": (GPT2LMHeadModel, GPT2Config, GPT2),
}


def random_model(name: str = "tied qwen3"):
    """As tests have them: the usual standard deviation of 0.02, a vocabulary of more than 1000 tokens."""
    kind, settings, more = RANDOM[name]
    shape = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape = {} if name == "gpt2" else {**shape, "num_key_value_heads": 2}
    assert len(TOKENIZER) > 1000
    torch.manual_seed(0)
    return kind(settings(vocab_size=len(TOKENIZER), initializer_range=0.02, **{**shape, **more})).eval()


def from_uniform(model, environment, N: int) -> float:
    """KL(uniform || model) in bits, by ordinary forward passes."""
    turns = (tokenise(TOKENIZER, environment.conversation(answer)) for answer in range(N))
    return -np.mean([plain_log_prob(model, one) for one in turns]) / math.log(2) - math.log2(N)


def warmed(model, N=4, kind="single_step", settings=SMALL, **more):
    environment = make_world(kind, N)
    trie = make_trie(environment, TOKENIZER)
    report, _ = warm_up_cached(BaseModel(model, TOKENIZER, settings), trie, N, **more)
    return report, from_uniform(model, environment, N)


@pytest.fixture
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMORY_RL_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "single_step") for name in ("llama", "llama of 16", "gemma", "gpt2")),
        ("tied qwen3", "multi_step"),
    ],
)
def test_random_weights_are_warmed_up(name, kind):
    """Their head can hardly prefer a token, whatever an adapter does beneath it."""
    model = random_model(name)
    assert from_uniform(model, make_world(kind, 4), 4) > 10
    report, left = warmed(model, kind=kind)
    assert left == pytest.approx(report.divergence, abs=1e-4)
    assert left < 0.0301
    assert report.reached
    assert 0 < report.whole_steps <= report.steps
    assert report.steps - report.whole_steps < 100  # the adapter's: nothing improved
    assert (report.steps == report.whole_steps) == (name == "gpt2")  # no layer of the adapter's names
    again = random_model(name)
    cached, _ = warmed(again, kind=kind)
    assert cached == report
    assert all(torch.equal(ours, again.state_dict()[key]) for key, ours in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize("world", [("single_step", 16), ("single_step", 64), ("multi_step", 8)])
@pytest.mark.parametrize("name", RANDOM)
def test_random_weights_are_warmed_up_as_users_do(name, world):
    report, left = warmed(random_model(name), world[1], world[0], base_model._PRETRAINED_WARMUP)
    assert left < 0.0101
    # Before the adapter's rate has fallen once: Phi-3's, on two matrices a layer, improves for 200 steps.
    assert report.steps - report.whole_steps < base_model._PRETRAINED_WARMUP.max_steps / 2


@pytest.mark.usefixtures("_cache")
def test_half_precision_is_trained_in_float32_and_rounded_once():
    model = random_model().to(torch.bfloat16)
    report, _ = warmed(model, accepted=0.2)
    assert report.whole_steps > 0
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert report.divergence < 0.1
    assert all(weight.grad is None for weight in model.parameters())


def test_a_model_of_more_parameters_than_can_be_trained_is_left_at_what_the_adapter_reached(monkeypatch):
    monkeypatch.setattr(pretrained_warmup, "_MOST_PARAMETERS", 1000)
    model = random_model()
    report, changes = warm_up_by_adapter(model, make_trie(make_world("single_step", 4), TOKENIZER), 4, SMALL)
    assert (report.whole_steps, report.reached) == (0, False)
    assert {name.rpartition(".")[2] for name in changes} == {"down", "up"}  # the cache stays small
    left = from_uniform(model, make_world("single_step", 4), 4)
    assert left == pytest.approx(report.divergence, abs=1e-3)


def test_memory_that_does_not_suffice_is_one_sentence(monkeypatch):
    def full(*given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    learn = pretrained_warmup.learn
    monkeypatch.setattr(
        pretrained_warmup,
        "learn",
        lambda settings, *given: (learn if settings.max_steps == SMALL.max_steps else full)(settings, *given),
    )
    with pytest.raises(ModelError, match=r"needs more memory than there is: use device=cpu"):
        warm_up_by_adapter(random_model(), make_trie(make_world("single_step", 4), TOKENIZER), 4, SMALL)


def test_the_built_in_model_may_stand_still_while_its_rate_is_high():
    """As at N = 512: its falls end when they are over. A pretrained model's end where nothing improves,
    unless it is nearly there."""
    steps = {}
    for rank, divergence in ((0, 14.0), (8, 14.0), (8, 0.015)):
        weight = torch.nn.Parameter(torch.zeros(1))
        lesson = SimpleNamespace(tolerance=0.01)
        settings = WarmupSettings(adapter_rank=rank, max_steps=50, falls=2)
        told = learn(settings, lesson, lambda: (weight.sum(), divergence), [weight])  # noqa: B023
        assert not told[1]
        steps[rank, divergence] = told[0]
    assert steps == {(0, 14.0): 100, (8, 14.0): 11, (8, 0.015): 100}


def test_steps_are_told_as_they_are_made():
    told: list[tuple[int, float]] = []
    report = warm_up(
        random_model(),
        make_trie(make_world("single_step", 4), TOKENIZER),
        4,
        WarmupSettings(learning_rate=3e-3, tolerance=0.5, max_steps=200),
        lambda steps, bits: told.append((steps, bits)),
    )
    assert [steps for steps, _ in told] == list(range(report.steps + 1))
    assert told[0][1] > 10
    assert told[-1][1] == pytest.approx(report.divergence)
    progress = Progress(quiet=True)
    progress.warm_up(*told[-1])
    shown = Console(width=120, file=io.StringIO(), record=True)
    shown.print(progress)
    line = f"{report.steps} steps, {report.divergence:.3f} bits from its target, 0 s so far"
    assert shown.export_text().startswith("warming up the base model (done once, then cached) " + line)


def test_a_refusal_names_a_tolerance_that_would_do():
    for bits, words in ((0.0561, "0.057"), (1.0, "1"), (14.43, "15"), (0.01999, "0.02"), (123.4, "130")):
        report = WarmupReport(0, 1500, bits, reached=False)
        sentence = f"stopped {bits:.3f} bits from uniform after 1500 steps: add warmup_tolerance={words} to "
        with pytest.raises(ModelError, match=sentence):
            report.check(None, "another model_name or N")
        with pytest.raises(ModelError, match=sentence):
            report.check(bits * 0.99, "another model_name or N")
        report.check(float(words), "another model_name or N")
    with pytest.raises(ModelError, match=r"stopped nan bits from uniform after 7 steps: use another N\."):
        WarmupReport(0, 7, math.nan, reached=False).check(5.0, "another N")


@pytest.fixture
def stuck(tmp_path, monkeypatch) -> str:
    """A model that is far from uniform when its warm-up stops: it may take a few steps only."""
    monkeypatch.setenv("MEMORY_RL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        base_model,
        "_PRETRAINED_WARMUP",
        WarmupSettings(adapter_rank=8, learning_rate=3e-3, tolerance=0.01, max_steps=10, falls=1),
    )
    random_model().save_pretrained(tmp_path / "model")
    TOKENIZER.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_a_run_starts_from_a_loosened_tolerance_and_tells_the_priors_bits_apart(stuck, capsys):
    """Bits known, and those gained on the base's own prior: against P(S) and P0(S) by plain passes."""
    keys = {"N": 4, "memorised_at": 0.9, "num_runs": 3, "learning_rate": 3e-3, "max_episodes": 10}
    words = " ".join(f"{word}={value}" for word, value in keys.items()) + f" model_name={stuck}"
    capsys.readouterr()
    tolerance = complaint("sft-train", words, capsys).split("warmup_tolerance=")[1].split(" ")[0]
    result = memory_rl.sft(model_name=stuck, warmup_tolerance=float(tolerance), **keys)
    assert result.manifest["warmup_from_cache"]  # nothing is computed twice
    summary = result.summary["sft"]
    assert summary["warmup"]["reached"] is False
    assert 0.01 < summary["warmup"]["divergence"] <= float(tolerance)

    base = find_base_model(stuck, 0)
    warm_up_cached(base, make_trie(make_world("single_step", 4), TOKENIZER), 4, float(tolerance))
    world, secrets = (
        make_world("single_step", 4),
        result.metrics.group_by("run").first().sort("run")["secret"],
    )
    log_prior = [
        plain_log_prob(base.model, tokenise(TOKENIZER, world.conversation(secret))) / math.log(2)
        for secret in secrets
    ]
    last = result.metrics.sort("episode").group_by("run", maintain_order=True).last().sort("run")
    relative, known = summary["relative_to_prior"], last["bits_known"].to_numpy()
    np.testing.assert_allclose(relative["prior_bits"]["runs"], -np.array(log_prior), rtol=0, atol=1e-4)
    np.testing.assert_allclose(
        relative["gained_bits"]["runs"], (known - 2) - np.array(log_prior), rtol=0, atol=1e-4
    )
    assert relative["bits_known"]["runs"] == known.tolist()
    assert (np.array(relative["gained_bits"]["runs"]) - known).min() > 0.5  # the prior was worse than uniform
    line = about_prior(summary)
    means = ((relative[name]["estimate"], name) for name in ("bits_known", "gained_bits", "prior_bits"))
    assert all(f"{value:.3g}" in line for value, _ in means)
    assert line in repr(result)
    assert line in answer_sheet(result.cell).caption


def test_bits_gained_are_bits_known_where_the_prior_is_uniform():
    result = memory_rl.train(N=16, num_runs=2, backend="tabular", max_episodes=40)
    summary = result.summary["binary"]
    relative = summary["relative_to_prior"]
    assert relative["gained_bits"] == relative["bits_known"]
    assert relative["prior_bits"]["runs"] == [4, 4]
    assert about_prior(summary) is None
    assert about_prior({"device": "cpu", "warmup": {"divergence": 0.001}}) is None  # as of version 0.1


def test_a_tolerance_below_that_of_the_warm_up_takes_its_place():
    loose, strict = (WarmupSettings().within(accepted) for accepted in (0.5, 0.001))
    assert loose == WarmupSettings()  # and the same place in the cache
    assert (strict.tolerance, strict.sampled_tolerance) == (0.001, 0.001)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("warmup_tolerance=0", "warmup_tolerance=0 is not in (0, 1000]"),
        ("warmup_tolerance=nan", "warmup_tolerance=nan"),
        ("warmup_tolerance=1001", "warmup_tolerance=1001 is not in (0, 1000]"),
        ("warmup_tolerance=0.1 warmup=False", "use warmup=True"),
        ("warmup_tolerance=0.1 backend=tabular", "use backend=local"),
    ],
)
def test_the_range_of_the_tolerance(words, answer, capsys):
    assert answer in complaint("train", f"N=8 {words}", capsys)


def test_layers_that_a_run_could_not_adapt_are_refused_before_the_warm_up(tmp_path, monkeypatch, capsys):
    random_model("gpt2").save_pretrained(tmp_path / "model")
    TOKENIZER.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(base_model, "warm_up_by_adapter", None)
    words = f"N=4 memorised_at=0.9 model_name={tmp_path}/model"
    capsys.readouterr()
    assert "names no layer of GPT2LMHeadModel" in complaint("train", words, capsys)


def test_a_small_model_needs_no_rank_of_8_to_be_warmed_up(tmp_path, monkeypatch):
    """With lora_rank=2 it has room for the run's own adapters, though not for those of the warm-up."""
    monkeypatch.setenv("MEMORY_RL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(base_model, "_PRETRAINED_WARMUP", replace(SMALL, max_steps=5, falls=1))
    torch.manual_seed(0)
    shape = {"hidden_size": 6, "intermediate_size": 6, "num_attention_heads": 1, "num_hidden_layers": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(TOKENIZER), **shape)).save_pretrained(tmp_path / "model")
    TOKENIZER.save_pretrained(tmp_path / "model")
    keys = {"N": 4, "memorised_at": 0.9, "num_runs": 1, "lora_rank": 2, "max_episodes": 4}
    result = memory_rl.train(model_name=str(tmp_path / "model"), warmup_tolerance=50, **keys)
    assert result.summary["binary"]["warmup"]["whole_steps"] > 0


def test_what_the_cache_held_before_is_still_read(tmp_path, monkeypatch):
    """A record of before lacks the new fields; the model that it belongs to had reached its tolerance."""
    monkeypatch.setenv("MEMORY_RL_CACHE", str(tmp_path))
    first = memory_rl.train(N=8, num_runs=1, max_episodes=8)
    record = next(tmp_path.rglob("warmup.json"))
    about = json.loads(record.read_text())
    for field in ("whole_steps", "reached"):
        del about["report"][field]
    record.write_text(json.dumps(about))
    second = memory_rl.train(N=8, num_runs=1, max_episodes=8)
    assert second.manifest["warmup_from_cache"]
    assert second.summary["binary"]["warmup"] == first.summary["binary"]["warmup"]
    assert second.metrics.select(pl.exclude("learning_rate")).equals(
        first.metrics.select(pl.exclude("learning_rate"))
    )
