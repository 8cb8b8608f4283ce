"""The section of gpu_check.py about attention: which kernels take the mask of a tree."""

from __future__ import annotations

import warnings

import torch
from gpu_engine import Row, Settings, seconds
from gpu_memory import multi_step_trie, single_step_trie
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from memory_rl.policies.answer_trie import AnswerTrie
from memory_rl.policies.packed import pack_all


def attention(device: str, sizes: str, so_far: Row) -> Settings:
    """Each kernel on the masks of the trees, as a layer of the large model has them: 8 runs."""
    heads, width, runs = (32, 128, 8) if sizes == "full" else (2, 16, 2)
    tries = {
        "single_step": single_step_trie(64 if sizes == "full" else 8),
        "multi_step": multi_step_trie(6 if sizes == "full" else 3),
    }
    for kind, trie in tries.items():

        def inputs(trie: AnswerTrie = trie) -> tuple[list[torch.Tensor], torch.Tensor]:
            mask = pack_all(trie).mask.to(device, torch.bfloat16)
            mask = mask.clamp_(min=torch.finfo(torch.bfloat16).min)
            mask = mask.repeat(runs, 1, 1, 1) if len(mask) > 1 else mask.expand(runs, -1, -1, -1)
            shape = (len(mask), heads, mask.shape[-1], width)
            states = [torch.randn(shape, device=device, dtype=torch.bfloat16) for _ in range(3)]
            return [state.requires_grad_() for state in states], mask

        yield f"{kind}: what PyTorch picks", lambda inputs=inputs: picked(*inputs())
        for backend in (
            SDPBackend.EFFICIENT_ATTENTION,
            SDPBackend.FLASH_ATTENTION,
            SDPBackend.CUDNN_ATTENTION,
            SDPBackend.MATH,
        ):
            yield (
                f"{kind}: {backend.name}",
                lambda b=backend, inputs=inputs: timed_attention(device, b, *inputs()),
            )
        yield (
            f"{kind}: FLASH_ATTENTION, causal mask",
            lambda inputs=inputs: timed_attention(device, SDPBackend.FLASH_ATTENTION, inputs()[0], None),
        )


def picked(states: list[torch.Tensor], mask: torch.Tensor) -> Row:
    """The kernel that PyTorch chooses by itself."""
    choice = torch._fused_sdp_choice(*states, mask, 0.0, False)
    name = next(
        (backend.name for backend in SDPBackend.__members__.values() if int(backend) == choice), choice
    )
    return {"picked": name, "shape": list(states[0].shape)}


def timed_attention(
    device: str, backend: SDPBackend, states: list[torch.Tensor], mask: torch.Tensor | None
) -> Row:
    """Milliseconds forward and both ways; why not, if it does not take the mask."""

    def forward() -> torch.Tensor:
        return scaled_dot_product_attention(*states, attn_mask=mask, is_causal=mask is None)

    with warnings.catch_warnings(record=True) as caught, sdpa_kernel(backend):
        warnings.simplefilter("always")
        try:
            with torch.no_grad():
                there = seconds(device, forward)
            both = seconds(device, lambda: forward().sum().backward())
        except RuntimeError as error:
            reasons = [str(warning.message).split(" (Triggered")[0] for warning in caught]
            return {"taken": False, "why": " | ".join([str(error).splitlines()[0], *reasons])[:600]}
    return {"taken": True, "forward_ms": 1e3 * there, "forward_backward_ms": 1e3 * both}
