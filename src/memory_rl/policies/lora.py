"""Low-rank adapters for R runs on one frozen model (LoRA, Hu et al. 2021, arXiv:2106.09685).

Axis 0 of every adapter matrix is the run; the model's batch is R equal parts, and part r goes through adapter
r. A run's adapters are one flat vector, so that one optimiser parameter is one run. W x + (alpha / r) B A x,
with A uniform on +-1/sqrt(d_in) (the initialisation of PEFT) and B = 0.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from memory_rl.errors import ModelError
from memory_rl.policies.adapters import Adapters

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TARGETS: dict[str, tuple[str, ...]] = {
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}
TARGETS["all"] = TARGETS["attention"] + TARGETS["mlp"]


@dataclass(frozen=True)
class LoRASettings:
    """The size of the adapters: rank r and alpha (they are scaled by alpha / r), and where they are.

    targets is a key of `TARGETS`; layers are numbers from 0, None for all.
    """

    rank: int = 8
    alpha: float = 32.0
    targets: str = "all"
    layers: tuple[int, ...] | None = None

    def check(self, model: PreTrainedModel) -> None:
        """Refuses a model without a target layer, or whose layers have no room for the rank."""
        targets_of(model, self)

    def adapt(self, model: PreTrainedModel, seeds: Sequence[int]) -> StackedAdapters:
        """One adapter for each seed, see `AdapterSettings`."""
        return StackedAdapters(model, self, seeds)


def _adapted(
    inputs: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    down: torch.Tensor,
    up: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """W x + c + scale * B A x, and A x.

    Everything adds up in place, and every product has the long axis where a matrix multiplication is fast.
    """
    inner = torch.bmm(inputs, down.mT)
    return nn.functional.linear(inputs, weight, bias).baddbmm_(inner, up, alpha=scale), inner


class _AdaptedLinear(torch.autograd.Function):
    """`_adapted` with its graph, in one step."""

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
        outputs, inner = _adapted(inputs, weight, bias, down, up, scale)
        ctx.save_for_backward(inputs, weight, down, up, inner)
        ctx.scale = scale
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, weight, down, up, inner = ctx.saved_tensors
        of_inner = torch.bmm(gradient, up.mT).mul_(ctx.scale)
        of_inputs = None
        if ctx.needs_input_grad[0]:
            of_inputs = torch.matmul(gradient, weight).baddbmm_(of_inner, down)
        of_down, of_up = torch.bmm(of_inner.mT, inputs), torch.bmm(inner.mT, gradient).mul_(ctx.scale)
        return of_inputs, None, None, of_down, of_up, None


class StackedLoRALinear(nn.Module):
    """A frozen linear layer and one adapter for each run.

    The batch is a stack of R equal parts, the rows of one run together.
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
        given = by_run, self.base.weight, self.base.bias, down, up, self.scale
        outputs: torch.Tensor = (
            _AdaptedLinear.apply(*given)  # type: ignore[no-untyped-call]
            if torch.is_grad_enabled()
            else _adapted(*given)[0]
        )
        return outputs.view(*inputs.shape[:-1], -1)


class LowRankAdapters(Adapters):
    """The adapters of R runs that are a pair of matrices for each target layer; subclasses say which pairs.

    Args:
        model: a causal LM.
        settings: rank, alpha, targets and layers.

    Attributes:
        settings: these.
        layers: the adapted layers by name.

    Raises:
        ModelError: if the model has no layer of the target names, or no room for the rank.
    """

    def __init__(self, model: PreTrainedModel, settings: LoRASettings) -> None:
        targets, scale = targets_of(model, settings), settings.alpha / settings.rank
        self.settings = settings
        self.layers = {name: StackedLoRALinear(base, scale) for name, base in targets.items()}
        self.config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": str(model.name_or_path),
            "r": settings.rank,
            "lora_alpha": settings.alpha,
            "lora_dropout": 0.0,
            "bias": "none",
            "inference_mode": True,
            **_names(model, set(targets), settings.layers),
        }
        model.requires_grad_(False)
        for name, layer in self.layers.items():
            model.set_submodule(name, layer)

    @abstractmethod
    def _pairs(
        self, runs: Sequence[int] | np.ndarray, vectors: torch.Tensor
    ) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        """A (R', rank, d_in) and B transposed (R', rank, d_out) of each layer, from vectors (R', P)."""

    @override
    def activate(self, runs: Sequence[int] | np.ndarray) -> None:
        stacked = torch.stack([self.vectors[run] for run in runs])
        for layer, (down, up) in zip(self.layers.values(), self._pairs(runs, stacked), strict=True):
            kind = layer.base.weight.dtype  # the vectors are float32 whatever the model computes in
            layer.adapters = down.to(kind), up.to(kind)

    @override
    def _holders(self) -> Iterable[tuple[nn.Module, str]]:
        return ((layer, "adapters") for layer in self.layers.values())

    def matrices(self, run: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """A (rank, d_in) and B (d_out, rank) of one run by the name of the adapted layer."""
        pairs = self._pairs([run], self.vectors[run].detach()[None])
        return {name: (down[0], up[0].T) for name, (down, up) in zip(self.layers, pairs, strict=True)}

    @override
    def tensors(self, run: int) -> dict[str, torch.Tensor]:
        return {
            f"base_model.model.{name}.lora_{letter}.weight": matrix
            for name, pair in self.matrices(run).items()
            for letter, matrix in zip("AB", pair, strict=True)
        }


class StackedAdapters(LowRankAdapters):
    """LoRA adapters. In a vector, A and B transposed of one target matrix follow those of another.

    Args:
        model: a causal LM.
        settings: rank, alpha, targets and layers.
        seeds: one for each run: its initial A matrices.
    """

    def __init__(self, model: PreTrainedModel, settings: LoRASettings, seeds: Sequence[int]) -> None:
        super().__init__(model, settings)
        self._sizes = [
            settings.rank * width
            for layer in self.layers.values()
            for width in (layer.base.in_features, layer.base.out_features)
        ]
        self.vectors = [nn.Parameter(self._initial(seed).to(model.device)) for seed in seeds]

    def _initial(self, seed: int) -> torch.Tensor:
        random = torch.Generator().manual_seed(seed)
        vector = torch.zeros(sum(self._sizes))
        for layer, down in zip(self.layers.values(), vector.split(self._sizes)[::2], strict=True):
            bound = 1 / math.sqrt(layer.base.in_features)
            down.uniform_(-bound, bound, generator=random)
        return vector

    @override
    def _pairs(
        self, runs: Sequence[int] | np.ndarray, vectors: torch.Tensor
    ) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        # One split, so that its gradient is one concatenation.
        parts = [
            part.view(len(vectors), self.settings.rank, -1) for part in vectors.split(self._sizes, dim=1)
        ]
        return zip(parts[::2], parts[1::2], strict=True)


def targets_of(model: PreTrainedModel, settings: LoRASettings) -> dict[str, nn.Linear]:
    """The matrices that get an adapter, by name."""
    kind, text = type(model).__name__, set(model.get_decoder().modules())  # without what sees pictures
    named = {
        name: module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in TARGETS[settings.targets]
        and isinstance(module, nn.Linear)
        and module in text
    }
    if not named:
        raise ModelError(
            f"lora_targets={settings.targets!r} names no layer of {kind}: "
            f"use a Llama-style model, with layers {', '.join(TARGETS['all'])}."
        )
    if settings.layers is not None:
        last = max(map(_layer_of, named))
        if max(settings.layers) > last:
            raise ModelError(
                f"lora_layers names layer {max(settings.layers)}, and the last one of {kind} is {last}: "
                f"use 0 to {last}."
            )
        named = {name: module for name, module in named.items() if _layer_of(name) in settings.layers}
    widest = max(min(module.in_features, module.out_features) for module in named.values())
    if settings.rank > widest:
        raise ModelError(
            f"lora_rank={settings.rank} is more than any target matrix of {kind} can have: "
            f"use lora_rank={widest} or less."
        )
    return named


def _names(model: PreTrainedModel, adapted: set[str], layers: tuple[int, ...] | None) -> dict[str, Any]:
    """How PEFT is told which layers are adapted: by the last part of their names, if that selects them.

    Else in full. Where a model holds its experts in one parameter, PEFT takes gate_proj, up_proj, down_proj
    for theirs, under full names too, but not the names of parameters, from 0.17 on.
    """
    fused = any(name.endswith(".gate_up_proj") for name, _ in model.named_parameters())
    as_parameters = {name for name in adapted if fused and name.rpartition(".")[2] in TARGETS["mlp"]}
    if as_parameters:
        named = sorted(f"{name}.weight" for name in as_parameters)
        return {"target_modules": sorted(adapted - as_parameters), "target_parameters": named}
    short: dict[str, Any] = {"target_modules": sorted({name.rpartition(".")[2] for name in adapted})}
    if layers is not None:
        short["layers_to_transform"] = list(layers)
    selects = peft_selects(short, (name for name, _ in model.named_modules())) == adapted
    return short if selects else {"target_modules": sorted(adapted)}


def peft_selects(config: Mapping[str, Any], modules: Iterable[str]) -> set[str]:
    """Those of these modules that a configuration selects, as PEFT documents it."""
    targets, layers = config["target_modules"], config.get("layers_to_transform")
    by_name = {
        name
        for name in modules
        if any(f".{name}".endswith(f".{target}") for target in targets)
        and (layers is None or _layer_of(name) in layers)
    }
    return by_name | {name.removesuffix(".weight") for name in config.get("target_parameters", [])}


def _layer_of(name: str) -> int:
    """The first number in a module's name: model.layers.3.mlp.up_proj is in layer 3."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), 0)
