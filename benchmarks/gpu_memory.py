"""How much memory an update and an evaluation take, computed by running the very code on fake tensors.

They have shapes and no values.

    python benchmarks/gpu_memory.py                       Llama-3.1-8B, several settings (minutes on one core)
    python benchmarks/gpu_memory.py 8 bfloat16 True       num_runs, dtype, gradient_checkpointing

What is counted is every byte of every tensor that is alive at once. What a real device needs beside it is
not: its context, the workspace of its matrix multiplications, and what its allocator cannot use. Attention is
counted as PyTorch computes it where there is no fused kernel, so that a GPU needs less. The tests compare the
count with the memory that the same code takes on a CPU.
"""

from __future__ import annotations

import sys
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from memory_rl.learning.learners import Reinforce
from memory_rl.policies.answer_trie import AnswerTrie, build_trie
from memory_rl.policies.base import first_prompt
from memory_rl.policies.base_model import recompute_layers
from memory_rl.policies.lora import LoRASettings
from memory_rl.policies.packed import all_edge_log_probs
from memory_rl.policies.transformer import TransformerPolicy

LLAMA_8B = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}
PROMPT, TURN = (
    60,
    14,
)  # tokens of the first question and of each later one, in a chat template with a system message


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made under it, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation and counts what it returns."""
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.count(leaf)
        return result

    def count(self, tensor: torch.Tensor) -> None:
        """Counts a tensor's storage, once, until it dies."""
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._seen:
            return
        self._seen.add(key)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


@dataclass(frozen=True)
class Memory:
    """Bytes: of the base model's weights, and at the most while a population is evaluated and updated."""

    weights: int
    evaluation: int
    update: int


def single_step_trie(num_answers: int) -> AnswerTrie:
    """Answers of one token each, as Llama 3 writes numbers below 1000."""
    prompt = list(range(PROMPT))
    return build_trie(
        [[(prompt, [PROMPT + answer, 0])] for answer in range(num_answers)],
        np.arange(num_answers)[:, None],
    )


def multi_step_trie(num_bits: int) -> AnswerTrie:
    """As many questions of one bit."""
    bits = (np.arange(2**num_bits)[:, None] >> np.arange(num_bits - 1, -1, -1)) & 1
    turns = [
        [(list(range(PROMPT if step == 0 else TURN)), [100 + int(bit), 0]) for step, bit in enumerate(row)]
        for row in bits
    ]
    return build_trie(turns, bits)


class UncheckedPolicy(TransformerPolicy):
    """Fake tensors have no values that could be finite."""

    def _check_step(self, runs: np.ndarray, loss: torch.Tensor) -> None: ...


def exercise(
    model: PreTrainedModel, trie: AnswerTrie, live: LiveBytes, num_runs: int, group_size: int = 4
) -> Memory:
    """An evaluation of all runs and two updates; the second has the optimiser's moments."""
    weights = live.now
    policy = UncheckedPolicy(model, trie, num_runs=num_runs, lora=LoRASettings(), learning_rate=1e-3, seed=0)
    runs, edges = (
        np.arange(num_runs),
        np.random.default_rng(0).integers(len(trie.form_edges), size=(num_runs, group_size)),
    )
    batch = policy.demonstrate(runs, first_prompt(runs), edges)
    peaks = []
    for _ in range(2):
        live.peak = live.now
        policy.update(batch, np.ones(batch.choices.shape), Reinforce())
        peaks.append(live.peak)
    live.peak = live.now
    with torch.no_grad():
        for chunk in policy._chunks(num_runs, *policy._pack.tokens.shape):
            policy.adapters.activate(runs[chunk])
            all_edge_log_probs(model, trie, policy._pack, first_prompt(runs[chunk]).ravel())
    return Memory(weights, live.peak, max(peaks))


def fake_memory(
    config: LlamaConfig,
    trie: AnswerTrie,
    num_runs: int,
    dtype: torch.dtype = torch.float32,
    recompute: bool = False,
) -> Memory:
    """The same without values."""
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        for parameter in model.parameters():
            live.count(parameter)
        if recompute:
            recompute_layers(model)
        live.now = sum(parameter.nbytes for parameter in model.parameters())
        return exercise(model, trie, live, num_runs)


def main(words: list[str]) -> None:
    """Prints a row a setting."""
    cases = [(8, "bfloat16", False), (8, "bfloat16", True), (1, "bfloat16", False)]
    if words:
        cases = [(int(words[0]), words[1], words[2] == "True")]
    for name, trie in (("single_step", single_step_trie(64)), ("multi_step", multi_step_trie(6))):
        for num_runs, dtype, recompute in cases:
            memory = fake_memory(LlamaConfig(**LLAMA_8B), trie, num_runs, getattr(torch, dtype), recompute)
            sizes = "  ".join(
                f"{part} {getattr(memory, part) / 2**30:6.1f} GiB"
                for part in ("weights", "evaluation", "update")
            )
            sys.stdout.write(
                f"{name:12} N=64 num_runs={num_runs} {dtype:9} "
                f"gradient_checkpointing={recompute!s:5}  {sizes}\n"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
