"""What the exercise of benchmarks/gpu_memory.py takes on this CPU: prints counted bytes on fake tensors, on
real ones, and the growth of the process.

python resident_memory.py '{"vocab_size": ...}' num_runs single_step|multi_step gradient_checkpointing
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

spec = importlib.util.spec_from_file_location(
    "gpu_memory", Path(__file__).parents[1] / "benchmarks" / "gpu_memory.py"
)
gpu_memory = importlib.util.module_from_spec(spec)
sys.modules["gpu_memory"] = gpu_memory
spec.loader.exec_module(gpu_memory)


def peak() -> int:
    """The most memory this process has held so far: what getrusage reports may be that of the process which
    started it."""
    [line] = [
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")
    ]
    return int(line.split()[1]) * 1024


def main(shape: str, num_runs: int, kind: str, recompute: bool) -> None:
    torch.set_num_threads(1)
    config = LlamaConfig(**json.loads(shape))
    trie = gpu_memory.single_step_trie(64) if kind == "single_step" else gpu_memory.multi_step_trie(4)
    fake = gpu_memory.fake_memory(config, trie, num_runs, recompute=recompute)
    # A first small exercise loads what PyTorch loads once.
    small = LlamaConfig(
        vocab_size=1024, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    with gpu_memory.LiveBytes() as live:
        gpu_memory.exercise(LlamaForCausalLM(small), trie, live, 1)
    before = peak()
    with gpu_memory.LiveBytes() as live:
        model = LlamaForCausalLM(config)
        if recompute:
            gpu_memory.recompute_layers(model)
        live.now = live.peak = sum(parameter.nbytes for parameter in model.parameters())
        real = gpu_memory.exercise(model, trie, live, num_runs)
    grown = peak() - before
    sys.stdout.write(
        json.dumps(
            {
                "fake": max(fake.evaluation, fake.update),
                "real": max(real.evaluation, real.update),
                "grown": grown,
            }
        )
        + "\n"
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4] == "True")
