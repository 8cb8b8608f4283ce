"""Low-rank adapters for R runs on one frozen model (LoRA, Hu et al. 2021, arXiv:2106.09685).

Axis 0 of every adapter matrix and of the model's batch is the run: row r of a batch goes through adapter r. A run's adapters are one flat vector, so
that one optimiser parameter is one run. W x + (alpha / r) B A x, with A uniform on +-1/sqrt(d_in) (the initialisation of PEFT) and B = 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from memory_rl.errors import ModelError

TARGETS: dict[str, tuple[str, ...]] = {
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}
TARGETS["all"] = TARGETS["attention"] + TARGETS["mlp"]


@dataclass(frozen=True)
class LoRASettings:
    """Rank r, alpha (the adapter is scaled by alpha / r) and which matrices get an adapter: a key of `TARGETS`."""

    rank: int = 8
    alpha: float = 32.0
    targets: str = "all"


class StackedLoRALinear(nn.Module):
    """A frozen linear layer and one adapter for each row of the batch."""

    def __init__(self, base: nn.Linear, scale: float) -> None:
        super().__init__()
        self.base = base
        self.scale = scale
        self.down: torch.Tensor | None = None  # (R, rank, d_in)
        self.up: torch.Tensor | None = None  # (R, d_out, rank)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps (R, T, d_in) to (R, T, d_out)."""
        outputs: torch.Tensor = self.base(inputs)
        if self.down is None or self.up is None:
            return outputs
        inner = torch.bmm(inputs, self.down.mT)
        return torch.baddbmm(outputs, inner, self.up.mT, alpha=self.scale)


@dataclass(frozen=True)
class _Site:
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
        self._sites = _install(model, settings)
        self.size = self._sites[-1].start + self._sites[-1].down_size + self._sites[-1].up_size
        self.vectors = [nn.Parameter(self._initial(seed)) for seed in seeds]

    def _initial(self, seed: int) -> torch.Tensor:
        random = torch.Generator().manual_seed(seed)
        vector = torch.zeros(self.size)
        for site in self._sites:
            bound = 1 / math.sqrt(site.layer.base.in_features)
            vector[site.start : site.start + site.down_size].uniform_(-bound, bound, generator=random)
        return vector

    def activate(self, runs: Sequence[int] | np.ndarray) -> None:
        """From now on row i of a batch goes through the adapter of run `runs[i]`."""
        stacked = torch.stack([self.vectors[run] for run in runs])
        for site in self._sites:
            middle, end = site.start + site.down_size, site.start + site.down_size + site.up_size
            site.layer.down = stacked[:, site.start : middle].unflatten(1, (self.settings.rank, -1))
            site.layer.up = stacked[:, middle:end].unflatten(1, (-1, self.settings.rank))

    def matrices(self, run: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """A (rank, d_in) and B (d_out, rank) of one run by the name of the adapted layer, as views."""
        vector, rank = self.vectors[run].detach(), self.settings.rank
        return {
            site.name: (
                vector[site.start :][: site.down_size].view(rank, -1),
                vector[site.start + site.down_size :][: site.up_size].view(-1, rank),
            )
            for site in self._sites
        }


def _install(model: PreTrainedModel, settings: LoRASettings) -> list[_Site]:
    targets = [
        (name, module) for name, module in model.named_modules() if name.rpartition(".")[2] in TARGETS[settings.targets] and isinstance(module, nn.Linear)
    ]
    if not targets:
        names = ", ".join(TARGETS["all"])
        raise ModelError(f"lora_targets={settings.targets!r} names no layer of {type(model).__name__}: use a Llama-style model, with layers {names}.")
    sites, start = [], 0
    for name, base in targets:
        layer = StackedLoRALinear(base, settings.alpha / settings.rank)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
        site = _Site(name, layer, start, settings.rank * base.in_features, settings.rank * base.out_features)
        start += site.down_size + site.up_size
        sites.append(site)
    return sites
