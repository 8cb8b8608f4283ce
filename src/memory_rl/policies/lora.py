"""Low-rank adapters for R runs on one frozen model (LoRA, Hu et al. 2021, arXiv:2106.09685).

Axis 0 of every adapter matrix is the run; the model's batch is R equal parts, and part r goes through adapter
r. A run's adapters are one flat vector, so that one optimiser parameter is one run. W x + (alpha / r) B A x,
with A uniform on +-1/sqrt(d_in) (the initialisation of PEFT) and B = 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from memory_rl.errors import ModelError
from memory_rl.state import Adapter

TARGETS: dict[str, tuple[str, ...]] = {
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}
TARGETS["all"] = TARGETS["attention"] + TARGETS["mlp"]


@dataclass(frozen=True)
class LoRASettings:
    """Rank r, alpha (the adapter is scaled by alpha / r), which matrices get an adapter (a key of `TARGETS`)
    and in which layers (None: in all).
    """

    rank: int = 8
    alpha: float = 32.0
    targets: str = "all"
    layers: tuple[int, ...] | None = None


class _AdaptedLinear(torch.autograd.Function):
    """W x + c + scale * B A x in one step: everything adds up in place, and every product has the long axis
    where a matrix multiplication is fast.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        inner = torch.bmm(inputs, down.mT)
        ctx.save_for_backward(inputs, weight, down, up, inner)
        ctx.scale = scale
        return _adapted(inputs, weight, bias, inner, up, scale)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, weight, down, up, inner = ctx.saved_tensors
        of_inner = torch.bmm(gradient, up.mT).mul_(ctx.scale)
        of_inputs = (
            torch.matmul(gradient, weight).baddbmm_(of_inner, down) if ctx.needs_input_grad[0] else None
        )
        return (
            of_inputs,
            None,
            None,
            torch.bmm(of_inner.mT, inputs),
            torch.bmm(inner.mT, gradient).mul_(ctx.scale),
            None,
        )


def _adapted(
    inputs: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    inner: torch.Tensor,
    up: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    return nn.functional.linear(inputs, weight, bias).baddbmm_(inner, up, alpha=scale)


class StackedLoRALinear(nn.Module):
    """A frozen linear layer and one adapter for each run: the batch is a stack of R equal parts, the rows of
    one run together.
    """

    def __init__(self, base: nn.Linear, scale: float) -> None:
        super().__init__()
        self.base = base
        self.scale = scale
        self.adapters: tuple[torch.Tensor, torch.Tensor] | None = (
            None  # A (R, rank, d_in) and B transposed (R, rank, d_out)
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps (batch, T, d_in) to (batch, T, d_out), where the batch is a multiple of R."""
        if self.adapters is None:
            return self.base(inputs)
        down, up = self.adapters
        by_run = inputs.reshape(len(down), -1, inputs.shape[-1])
        if not torch.is_grad_enabled():
            return _adapted(
                by_run, self.base.weight, self.base.bias, torch.bmm(by_run, down.mT), up, self.scale
            ).view(*inputs.shape[:-1], -1)
        outputs: torch.Tensor = _AdaptedLinear.apply(
            by_run, self.base.weight, self.base.bias, down, up, self.scale
        )  # type: ignore[no-untyped-call]
        return outputs.view(*inputs.shape[:-1], -1)


@dataclass(frozen=True)
class Site:
    """Where one adapted matrix lies in a run's flat vector."""

    name: str
    layer: StackedLoRALinear
    start: int
    down_size: int
    up_size: int


class StackedAdapters:
    """The adapters of R runs.

    Args:
        model: a causal LM; its target layers are replaced in place and all its own parameters are frozen.
        settings: rank, alpha and targets.
        seeds: one for each run: its initial A matrices.

    Raises:
        ModelError: if the model has no layer of the target names.
    """

    def __init__(self, model: PreTrainedModel, settings: LoRASettings, seeds: Sequence[int]) -> None:
        model.requires_grad_(False)
        self.settings = settings
        self._config, self._dtype = peft_config(model, settings), model.dtype
        self._sites = install(model, settings)
        self.size = self._sites[-1].start + self._sites[-1].down_size + self._sites[-1].up_size
        self.vectors = [nn.Parameter(self._initial(seed).to(model.device)) for seed in seeds]

    def _initial(self, seed: int) -> torch.Tensor:
        random = torch.Generator().manual_seed(seed)
        vector = torch.zeros(self.size)
        for site in self._sites:
            bound = 1 / math.sqrt(site.layer.base.in_features)
            vector[site.start : site.start + site.down_size].uniform_(-bound, bound, generator=random)
        return vector

    def activate(self, runs: Sequence[int] | np.ndarray) -> None:
        """From now on part i of a batch, of `len(runs)` equal parts, goes through the adapter of run
        `runs[i]`.
        """
        stacked = torch.stack([self.vectors[run] for run in runs]).to(
            self._dtype
        )  # they are float32 whatever the model computes in
        sizes = [size for site in self._sites for size in (site.down_size, site.up_size)]
        parts = (
            part.view(len(stacked), self.settings.rank, -1) for part in stacked.split(sizes, dim=1)
        )  # one split: its gradient is one concatenation
        for site, down, up in zip(self._sites, parts, parts, strict=True):
            site.layer.adapters = down, up

    def matrices(self, run: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """A (rank, d_in) and B (d_out, rank) of one run by the name of the adapted layer, as views."""
        vector, rank = self.vectors[run].detach(), self.settings.rank
        return {
            site.name: (
                vector[site.start :][: site.down_size].view(rank, -1),
                vector[site.start + site.down_size :][: site.up_size].view(rank, -1).T,
            )
            for site in self._sites
        }

    def state(self) -> dict[str, Adapter]:
        """The adapter of each run, as PEFT has it."""
        return {
            f"run-{run}": Adapter(self._config, peft_tensors(self.matrices(run)))
            for run in range(len(self.vectors))
        }

    def restore(self, state: Mapping[str, Adapter]) -> None:
        """Takes back what `state` gave."""
        with torch.no_grad():
            for run in range(len(self.vectors)):
                tensors = state[f"run-{run}"].tensors
                for name, (down, up) in self.matrices(run).items():
                    down.copy_(torch.from_numpy(tensors[_PEFT_NAME.format(name, "A")]))
                    up.copy_(torch.from_numpy(tensors[_PEFT_NAME.format(name, "B")]))


_PEFT_NAME = "base_model.model.{}.lora_{}.weight"


def peft_tensors(matrices: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> dict[str, np.ndarray]:
    """A and B of each layer, by the names that PEFT gives them."""
    return {
        _PEFT_NAME.format(name, letter): matrix.cpu().numpy()
        for name, pair in matrices.items()
        for letter, matrix in zip("AB", pair, strict=True)
    }


def peft_config(model: PreTrainedModel, settings: LoRASettings) -> dict[str, Any]:
    """What PEFT has to know of an adapter."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(model.name_or_path),
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name.rpartition(".")[2] for name, _ in _targets(model, settings)}),
        "inference_mode": True,
    }
    return config if settings.layers is None else {**config, "layers_to_transform": list(settings.layers)}


def install(model: PreTrainedModel, settings: LoRASettings) -> list[Site]:
    """Puts a layer with room for adapters in the place of each target; see `StackedAdapters`."""
    sites, start = [], 0
    for name, base in _targets(model, settings):
        layer = StackedLoRALinear(base, settings.alpha / settings.rank)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
        site = Site(name, layer, start, settings.rank * base.in_features, settings.rank * base.out_features)
        start += site.down_size + site.up_size
        sites.append(site)
    return sites


def _targets(model: PreTrainedModel, settings: LoRASettings) -> list[tuple[str, nn.Linear]]:
    """The matrices that get an adapter, by name."""
    named = [
        (name, module)
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in TARGETS[settings.targets] and isinstance(module, nn.Linear)
    ]
    if not named:
        names = ", ".join(TARGETS["all"])
        raise ModelError(
            f"lora_targets={settings.targets!r} names no layer of {type(model).__name__}: use a Llama-style model, with layers {names}."
        )
    if settings.layers is not None:
        last = max(_layer_of(name) for name, _ in named)
        if max(settings.layers) > last:
            raise ModelError(
                f"lora_layers names layer {max(settings.layers)}, and the last one of {type(model).__name__} is {last}: use 0 to {last}."
            )
        named = [(name, module) for name, module in named if _layer_of(name) in settings.layers]
    widest = max(min(module.in_features, module.out_features) for _, module in named)
    if settings.rank > widest:
        raise ModelError(
            f"lora_rank={settings.rank} is more than any target matrix of {type(model).__name__} can have: use lora_rank={widest} or less."
        )
    return named


def _layer_of(name: str) -> int:
    """The first number in a module's name: model.layers.3.mlp.up_proj is in layer 3."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), 0)
