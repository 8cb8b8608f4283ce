"""A device that is not the CPU, on machines that have none: fake tensors, which know shape, type and device,
and no values.

Two that are on different devices cannot meet in an operation, and only one on the CPU becomes an array. Run
by test_devices.py in a process of its own, since it registers the device with PyTorch.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers import make_environment, make_trie
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, cache_utils

from memory_rl.learning.learners import Reinforce
from memory_rl.learning.ratios import PPO
from memory_rl.policies import paths, tiny_model
from memory_rl.policies.answer_trie import NONE
from memory_rl.policies.base import first_prompt
from memory_rl.policies.base_model import recompute_layers
from memory_rl.policies.lora import LoRASettings
from memory_rl.policies.paths import PathPolicy
from memory_rl.policies.pretrained_warmup import merge, warm_up_by_adapter
from memory_rl.policies.transformer import AdaptedTransformer, TransformerPolicy
from memory_rl.policies.warmup import WarmupSettings, warm_up

FAR = "far:0"
RUNS = np.arange(2)
VALUES: Iterator[float] = iter(())  # what .item() says, one after the other


def to_array(tensor: FakeTensor) -> np.ndarray:
    """Stands for the values that are not there."""
    assert tensor.device.type == "cpu", tensor
    return np.full(tuple(tensor.shape), -1.0)


class _Torch:
    """PyTorch without what fake tensors cannot do: the inference mode, and to be made from a list, which here
    is empty."""

    inference_mode = staticmethod(torch.no_grad)
    tensor = staticmethod(lambda data, dtype, device: torch.empty(len(data), dtype=dtype, device=device))

    def __getattr__(self, name: str) -> object:
        return getattr(torch, name)


paths.torch = cache_utils.torch = _Torch()
FakeTensor.numpy = to_array
FakeTensor.item = lambda tensor: next(VALUES)


def far_model(mode: FakeTensorMode, dtype: torch.dtype) -> PreTrainedModel:
    """A small Llama with fake parameters on the far device."""
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    with unset_fake_temporarily():
        model = (
            LlamaForCausalLM(LlamaConfig(vocab_size=len(tiny_model.make_tokenizer()), **shape))
            .to(dtype)
            .to("meta")
        )
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = torch.nn.Parameter(
                    FakeTensor(mode, parameter.detach(), torch.device(FAR))
                )
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = FakeTensor(mode, buffer, torch.device(FAR))
    return model


def check_policy(policy: AdaptedTransformer) -> None:
    """Asks and moves a policy in every way there is."""
    vectors, trie = policy.adapters.vectors, policy.trie
    path = trie.form_edges[np.array([[1, 5], [7, 2]])].copy()
    path[:, 0, 1:], path[:, 0, 0] = (
        NONE,
        trie.decision_edges[0][trie.decision_edges[0] != NONE][-1],
    )  # episodes that leave the tree at once
    rollout = policy._of_path(RUNS, first_prompt(RUNS), path)
    for learner in (Reinforce(), PPO()):
        policy.update(rollout, np.ones(rollout.choices.shape), learner)
    policy.assess(RUNS, np.array([[3], [4]]), 8)
    if isinstance(policy, TransformerPolicy):
        policy.sample(RUNS, first_prompt(RUNS), 4)
        policy.invalid(RUNS, first_prompt(RUNS))
        policy.distil(RUNS, first_prompt(RUNS), np.full((2, 1, 8), 1 / 8), 1)
    elif isinstance(policy, PathPolicy):
        policy.sample_others(RUNS, np.array([3, 4]), 12)
        policy.log_probs_of(RUNS, np.array([[3], [4]]))
    moments = policy.optimiser.state[vectors[0]]
    assert {
        (str(tensor.device), tensor.dtype) for tensor in (*vectors, vectors[0].grad, moments["exp_avg"])
    } == {(FAR, torch.float32)}
    policy.restore(policy.state())
    assert {str(tensor.device) for tensor in policy.optimiser.state[vectors[0]].values()} == {FAR}


def check_warm_up(mode: FakeTensorMode, trie, dtype: torch.dtype) -> None:
    """One step of each kind, then done."""
    global VALUES
    wanted = WarmupSettings(head_steps=2, max_steps=2, adapter_rank=2)
    model = far_model(mode, dtype)
    VALUES = itertools.chain([9.0] * 4, itertools.repeat(0.0))
    assert warm_up(model, trie, 8, wanted).steps == 1
    VALUES = itertools.chain([9.0], itertools.repeat(0.0))
    report, changes = warm_up_by_adapter(model, trie, 8, wanted)
    assert report.steps == 1
    assert {tensor.device.type for tensor in changes.values()} == {"cpu"}
    merge(model, changes)
    VALUES = itertools.chain([9.0] * 3, itertools.repeat(0.0))  # the adapter does not suffice
    report, changes = warm_up_by_adapter(model, trie, 8, wanted)
    assert (report.steps, report.whole_steps) == (2, 1)
    assert {tensor.device.type for tensor in changes.values()} == {"cpu"}
    assert {(str(weight.device), weight.dtype) for weight in model.parameters()} == {(FAR, dtype)}
    merge(model, changes)


def main() -> None:
    _setup_privateuseone_for_python_backend("far")
    torch.far.get_amp_supported_dtype = lambda: [
        torch.bfloat16,
        torch.float16,
    ]  # asked when layers are recomputed
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    for kind in ("single_step", "multi_step"):
        trie = make_trie(make_environment(kind, 8), tiny_model.make_tokenizer())
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            with mode:
                check_warm_up(mode, trie, dtype)
                for policy in (
                    (TransformerPolicy, PathPolicy) if kind == "single_step" else (TransformerPolicy,)
                ):
                    model = far_model(mode, dtype)
                    recompute_layers(model)
                    check_policy(
                        policy(model, trie, num_runs=2, lora=LoRASettings(rank=2), learning_rate=1e-3, seed=0)
                    )
    with mode, pytest.raises(Exception, match="to be on the same device"):  # a mistake would be seen
        far_model(mode, torch.float32).model.embed_tokens.weight + torch.zeros(1, 32)
    sys.stdout.write("all on one device\n")


if __name__ == "__main__":
    main()
