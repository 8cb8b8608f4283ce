"""Sections of gpu_check.py about single evaluations and updates.

The rate of products, correctness, and an 8-billion model.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from gpu_memory import LLAMA_8B, multi_step_trie, single_step_trie
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen3Config

from memory_rl.learning.learners import Reinforce
from memory_rl.policies import tiny_model
from memory_rl.policies.answer_trie import AnswerTrie
from memory_rl.policies.base import first_prompt
from memory_rl.policies.base_model import recompute_layers
from memory_rl.policies.lora import LoRASettings
from memory_rl.policies.paths import PathPolicy
from memory_rl.policies.tokenisation import tokenise_all
from memory_rl.policies.transformer import AdaptedTransformer, TransformerPolicy
from memory_rl.policies.warmup import WarmupSettings, warm_up

Row = dict[str, Any]
Settings = Iterator[tuple[str, Callable[[], Row]]]
SMALL = {
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
    "initializer_range": 0.1,  # at the usual 0.02 all answers are all but equally likely
}
CHECKED_RUNS, GROUP = 3, 4


def synchronise(device: str) -> None:
    """Waits for what the device was told."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds(device: str, act: Callable[[], Any], repeats: int = 3, rehearsals: int = 1) -> float:
    """The median of some wall times, after rehearsals."""
    times = []
    for repeat in range(rehearsals + repeats):
        synchronise(device)
        start = time.perf_counter()
        act()
        synchronise(device)
        if repeat >= rehearsals:
            times.append(time.perf_counter() - start)
    return float(np.median(times))


def matmul(device: str, sizes: str, so_far: Row) -> Settings:
    """Operations a second of square products."""
    kinds = ((torch.bfloat16, 8192), (torch.float32, 4096)) if sizes == "full" else ((torch.bfloat16, 64),)
    for dtype, width in kinds:

        def measure(dtype: torch.dtype = dtype, width: int = width) -> Row:
            left, right = (torch.randn(width, width, device=device, dtype=dtype) for _ in range(2))
            each = seconds(device, lambda: [left @ right for _ in range(20)], repeats=5, rehearsals=3) / 20
            return {"seconds": each, "TFLOP_s": 2 * width**3 / each / 1e12}

        yield f"{width}^3 {dtype}", measure


def rate_of_products(so_far: Row) -> float:
    """TFLOP/s of the large bfloat16 products; NaN if that was not measured."""
    return float(next((row["TFLOP_s"] for row in so_far.get("matmul", []) if "TFLOP_s" in row), np.nan))


def tiny_trie(kind: str, num_bits: int) -> AnswerTrie:
    """2^num_bits answers in the tokens of the tiny model."""
    answers = np.arange(2**num_bits)[:, None]
    if kind == "single_step":
        conversations, choices = [[("Which number?", str(answer))] for answer in answers[:, 0]], answers
    else:
        choices = (answers >> np.arange(num_bits - 1, -1, -1)) & 1
        conversations = [
            [(f"Bit {step}?", str(bit)) for step, bit in enumerate(bits)] for bits in choices.tolist()
        ]
    return tokenise_all(tiny_model.make_tokenizer(), conversations, choices)


def small_models(
    sizes: str,
) -> Iterator[tuple[str, Callable[[], PreTrainedModel], Callable[[str], AnswerTrie]]]:
    """Name, maker on the CPU in float32, and tries of the models whose numbers are compared."""
    bits = 6 if sizes == "full" else 3
    shape = SMALL if sizes == "full" else SMALL | {"hidden_size": 32, "intermediate_size": 48}

    def other(kind: str) -> AnswerTrie:
        return single_step_trie(2**bits) if kind == "single_step" else multi_step_trie(bits)

    def made(config: Any) -> PreTrainedModel:
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)

    yield "tiny", lambda: tiny_model.make_model(0), lambda kind: tiny_trie(kind, bits)
    yield "llama", lambda: made(LlamaConfig(**shape)), other
    yield "qwen3", lambda: made(Qwen3Config(**shape, head_dim=shape["hidden_size"] // 8)), other


def answers_of(model: PreTrainedModel, trie: AnswerTrie, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """What a policy says and does on a device: before, in, and after two updates of Adam."""
    policy = new_policy(copy.deepcopy(model).to(device=device, dtype=dtype), trie, CHECKED_RUNS)
    runs, random = np.arange(CHECKED_RUNS), np.random.default_rng(0)
    asked = first_prompt(runs)
    forms = random.integers(len(trie.form_edges), size=(CHECKED_RUNS, GROUP))
    advantages = random.standard_normal((CHECKED_RUNS, GROUP, 1))
    seen: dict[str, Any] = {"log_p": policy.log_probs(runs, asked), "invalid": policy.invalid(runs, asked)}
    sampled = policy.sample(runs, asked, 64)
    seen["sampled"] = sampled.choices
    for update in (1, 2):  # in the first, the gradient of all A is zero, since B is
        batch = policy.demonstrate(runs, asked, forms)
        policy.update(batch, np.broadcast_to(advantages, batch.choices.shape), Reinforce())
        gradients = [policy.adapters.vectors[run].grad for run in runs]
        seen[f"gradient_{update}"] = torch.stack(gradients).cpu().double().numpy()
    seen["log_p_after"] = policy.log_probs(runs, asked)
    return seen


def new_policy(
    model: PreTrainedModel,
    trie: AnswerTrie,
    num_runs: int,
    kind: type[AdaptedTransformer] = TransformerPolicy,
) -> Any:
    """Adapters of rank 8 on all matrices, Adam."""
    return kind(model, trie, num_runs=num_runs, lora=LoRASettings(), learning_rate=1e-3, seed=0)


def distance(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """The worst differences: in nats of any answer, of any P(S), and of gradients, over their norm."""
    apart: dict[str, float] = {}
    for key in ("log_p", "log_p_after"):
        apart[f"{key}_nats"] = float(np.abs(one[key] - other[key]).max())
    apart["p_secret"] = float(np.abs(np.exp(one["log_p"]) - np.exp(other["log_p"])).max())
    apart["p_invalid"] = float(np.abs(one["invalid"] - other["invalid"]).max())
    for key in ("gradient_1", "gradient_2"):
        norm = np.linalg.norm(other[key], axis=1)
        apart[key] = float((np.linalg.norm(one[key] - other[key], axis=1) / norm).max())
    return apart


EXACT = {"log_p_nats": 1e-3, "log_p_after_nats": 1e-2, "p_secret": 1e-4, "p_invalid": 1e-4}
EXACT |= {"gradient_1": 1e-3, "gradient_2": 1e-2}
"""Tolerances in float32. After an Adam step, rounding may turn the sign of entries that were all but zero."""
_ROUNDING = 4.0  # times the error of bfloat16 on the CPU that bfloat16 on the device may have


def correctness(device: str, sizes: str, so_far: Row) -> Settings:
    """Each model in each environment and type against the CPU in float32."""
    for name, make, trie_of in small_models(sizes):
        for kind in ("single_step", "multi_step"):

            def in_float32(make: Any = make, trie_of: Any = trie_of, kind: str = kind) -> Row:
                model, trie = make(), trie_of(kind)
                right = answers_of(model, trie, "cpu", torch.float32)
                here = answers_of(model, trie, device, torch.float32)
                apart = distance(here, right)
                passed = all(apart[key] <= EXACT[key] for key in EXACT)
                same = float((here["sampled"] == right["sampled"]).all(axis=2).mean())
                return {"passed": passed, **apart, "same_samples": same, "tolerance": EXACT}

            def in_bfloat16(make: Any = make, trie_of: Any = trie_of, kind: str = kind) -> Row:
                model, trie = make(), trie_of(kind)
                right = answers_of(model, trie, "cpu", torch.float32)
                on_cpu = distance(answers_of(model, trie, "cpu", torch.bfloat16), right)
                here = distance(answers_of(model, trie, device, torch.bfloat16), right)
                passed = all(here[key] <= _ROUNDING * on_cpu[key] + EXACT[key] for key in EXACT)
                return {"passed": passed, **here, "of_bfloat16_on_cpu": on_cpu, "tolerance": f"{_ROUNDING} x"}

            yield f"{name} {kind} float32", in_float32
            yield f"{name} {kind} bfloat16", in_bfloat16
    yield "tiny single_step scoring=paths float32", lambda: check_paths(device, sizes)
    yield "tiny single_step warm-up", lambda: check_warm_up(device, sizes)


def check_paths(device: str, sizes: str) -> Row:
    """P(S) of the policy that scores the secret's path, beside that of the one that scores all answers."""
    model, trie = tiny_model.make_model(0), tiny_trie("single_step", 6 if sizes == "full" else 3)
    runs, forms = np.arange(2), np.array([[1], [5]])
    right = new_policy(copy.deepcopy(model), trie, 2).log_probs(runs, first_prompt(runs))[:, 0]
    policy = new_policy(model.to(device), trie, 2, PathPolicy)
    seen = policy.assess(runs, forms, len(trie.form_edges)).of_form
    worst = float(np.abs(seen[:, 0] - right[runs, forms[:, 0]]).max())
    others = policy.sample_others(runs, forms[:, 0], 16)
    none_is_secret = bool((others.choices[:, :, 0] != forms).all())
    return {"passed": worst < EXACT["log_p_nats"] and none_is_secret, "log_p_nats": worst}


def check_warm_up(device: str, sizes: str) -> Row:
    """Bits from uniform after steps of the head and of all weights, here and on the CPU."""
    head, steps, bits = (300, 50, 6) if sizes == "full" else (4, 2, 3)
    wanted, trie = WarmupSettings(head_steps=head, max_steps=steps, falls=1), tiny_trie("single_step", bits)
    row: Row = {}
    for name, where in (("cpu", "cpu"), ("device", device)):
        report = warm_up(tiny_model.make_model(0).to(where), trie, 2**bits, wanted)
        row |= {f"{name}_bits_from_uniform": report.divergence, f"{name}_s": report.seconds}
        row[f"{name}_steps"] = report.head_steps + report.steps
    apart = abs(row["device_bits_from_uniform"] - row["cpu_bits_from_uniform"])
    return {"passed": apart < 0.01 + 0.1 * row["cpu_bits_from_uniform"], **row}


class Operations:
    """Counts what goes through a model: tokens, and places whose logits are asked for."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.tokens = self.places = 0
        config = model.config
        self._head = model.get_output_embeddings().weight.numel()
        embedded = model.get_input_embeddings().weight.numel()
        self._body = sum(weight.numel() for weight in model.parameters()) - self._head - embedded
        self.vocabulary = config.vocab_size
        self._hook = model.register_forward_hook(self._count, with_kwargs=True)

    def _count(self, model: Any, args: Any, named: Any, output: Any) -> None:
        self.tokens += named["input_ids"].numel()
        self.places += output.logits.numel() // self.vocabulary

    def taken(self) -> tuple[int, float]:
        """Tokens since the last call, and the operations of a forward pass over them.

        2 for each weight that a token meets (embeddings are looked up, and the head is for the places asked),
        without attention and without adapters.
        """
        taken = self.tokens, 2.0 * (self._body * self.tokens + self._head * self.places)
        self.tokens = self.places = 0
        return taken

    def remove(self) -> None:
        """Counts no more."""
        self._hook.remove()


class Large:
    """The large model, made once on the device when first asked for."""

    def __init__(self, device: str, sizes: str) -> None:
        small = SMALL | {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4}
        self.device, self.shape = device, LLAMA_8B if sizes == "full" else small
        self.model: PreTrainedModel | None = None

    def make(self) -> Row:
        """Draws the weights."""
        start = time.perf_counter()
        with torch.device(self.device):
            made = AutoModelForCausalLM.from_config(LlamaConfig(**self.shape), dtype=torch.bfloat16)
        self.model = made.to(self.device)
        synchronise(self.device)
        parameters = sum(weight.numel() for weight in made.parameters())
        return {"parameters": parameters, **memory(self.device), "seconds": time.perf_counter() - start}

    @contextmanager
    def policy(self, trie: AnswerTrie, num_runs: int, recompute: bool) -> Iterator[Any]:
        """A policy on it; afterwards the model is as before."""
        if self.model is None:
            raise RuntimeError("the large model could not be made: see its row")
        if recompute:
            recompute_layers(self.model)
        policy = new_policy(self.model, trie, num_runs)
        try:
            yield policy
        finally:
            for name, layer in policy.adapters.layers.items():
                self.model.set_submodule(name, layer.base)
            for module in self.model.modules():
                module.__dict__.pop("forward", None)  # what recompute_layers put there


def memory(device: str) -> Row:
    """GiB since the peak was last reset."""
    if not device.startswith("cuda"):
        return {}
    return {
        "peak_GiB": torch.cuda.max_memory_allocated() / 2**30,
        "reserved_GiB": torch.cuda.max_memory_reserved() / 2**30,
    }


def reset_peak(device: str) -> None:
    """From here on."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def large(device: str, sizes: str, so_far: Row) -> Settings:
    """Evaluation and update by environment, R and gradient_checkpointing."""
    model, rate = Large(device, sizes), rate_of_products(so_far)
    yield "made", model.make
    counts = ((8, 1, 16, 4), (8, 16, 1, 4)) if sizes == "full" else ((2, 1), (2,))
    tries = {
        "multi_step": multi_step_trie(6 if sizes == "full" else 3),
        "single_step": single_step_trie(64 if sizes == "full" else 8),
    }
    for recompute, runs in zip((False, True), counts, strict=True):
        for num_runs in runs:
            for kind, trie in tries.items():
                setting = f"{kind} R={num_runs} gradient_checkpointing={recompute}"
                yield setting, lambda s=(trie, num_runs, recompute): large_row(model, *s, rate)


def large_row(model: Large, trie: AnswerTrie, num_runs: int, recompute: bool, rate: float) -> Row:
    """Seconds, memory, tokens a second and utilisation of evaluations and updates of all runs."""
    device, runs = model.device, np.arange(num_runs)
    asked, row = first_prompt(runs), dict[str, Any]()
    with model.policy(trie, num_runs, recompute) as policy:
        edges = np.random.default_rng(0).integers(len(trie.form_edges), size=(num_runs, GROUP))
        batch = policy.demonstrate(runs, asked, edges)
        advantages = np.random.default_rng(1).standard_normal(batch.choices.shape)
        counted = Operations(policy.model)

        def evaluate() -> None:
            policy._stale[:] = True
            policy.log_probs(runs, asked)

        acts: dict[str, tuple[Callable[[], None], float]] = {
            "evaluation": (evaluate, 1.0),
            "update": (lambda: policy.update(batch, advantages, Reinforce()), 3.0 if recompute else 2.0),
        }
        try:
            for name, (act, passes) in acts.items():
                reset_peak(device)
                act()  # a rehearsal, and of updates the one that makes the moments
                tokens, operations = counted.taken()
                took = seconds(device, act, repeats=2, rehearsals=0)
                counted.taken()
                done = operations * passes / took / 1e12
                row |= {f"{name}_s": took, f"{name}_tokens": tokens, f"{name}_tokens_s": tokens / took}
                row |= {f"{name}_TFLOP_s": done, f"{name}_of_products": done / rate}
                row |= {f"{name}_{key}": value for key, value in memory(device).items()}
        finally:
            counted.remove()
    return row
