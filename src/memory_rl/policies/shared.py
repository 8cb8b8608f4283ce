"""Adapters of n parameters in all, from one up: random matrices, mixed by one trained vector.

    W x + (alpha / r) B M A x,    M_c = s_c v_g(c) / sqrt(n)

Each target matrix has frozen A (r, d_in) and B (d_out, r), uniform on +-1/sqrt(their columns), and a mix M
(r, r). The C = r^2 * matrices coefficients of all mixes are dealt out at random to the n entries of the
vector v, as evenly as that goes; coefficient c follows entry g(c), with a random sign s_c. v = 0 at the
start, so that every run begins as the base model, and n goes from 1 to C.

The frozen frame with a trained r x r matrix inside is LoRA-XS (arXiv:2405.17604), a mix that is a fixed
random linear map of one vector is TinyLoRA (arXiv:2602.04118), and the map, one entry of the vector to each
coefficient, is that of Uni-LoRA (arXiv:2506.00799): it takes C numbers where a dense one takes n C, and its
columns are orthogonal. Here A and B are random rather than singular vectors of W, as in VeRA
(arXiv:2310.11454) and in intrinsic dimension (arXiv:1804.08838), and signs make n = 1 a random direction. By
1/sqrt(n) the loss falls, to first order, by about as much in a step of Adam whatever n is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from memory_rl.errors import ModelError
from memory_rl.policies.lora import LoRASettings, LowRankAdapters, StackedLoRALinear, targets_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_VECTOR = "vector"  # its name among the tensors of an adapter


@dataclass(frozen=True)
class SharedSettings:
    """n, and the LoRA adapter (its rank, alpha, targets and layers) that the vector stands for."""

    parameters: int
    frame: LoRASettings

    def check(self, model: PreTrainedModel) -> None:
        """Refuses a model whose target layers have fewer coefficients than the vector."""
        num_targets, rank = len(targets_of(model, self.frame)), self.frame.rank
        most = num_targets * rank**2
        if self.parameters > most:
            raise ModelError(
                f"adapter_parameters={self.parameters} is more than the {most} coefficients of "
                f"{num_targets} matrices at lora_rank={rank}: "
                f"use adapter_parameters={most} or less, or a higher lora_rank."
            )

    def adapt(self, model: PreTrainedModel, seeds: Sequence[int]) -> SharedAdapters:
        """One vector for each seed, see `AdapterSettings`."""
        return SharedAdapters(model, self, seeds)


class SharedAdapters(LowRankAdapters):
    """The vectors of R runs, each with matrices of its own.

    So runs are independent, and an interval over them covers the chance in the matrices, too.

    The matrices take the memory of rank r adapters, but no gradients and no moments.

    Args:
        model: a causal LM.
        settings: n, rank, alpha, targets and layers.
        seeds: one for each run: its matrices, signs and sharing.

    Raises:
        ModelError: if n is more than the coefficients, or the model has no such target.
    """

    def __init__(self, model: PreTrainedModel, settings: SharedSettings, seeds: Sequence[int]) -> None:
        settings.check(model)
        super().__init__(model, settings.frame)
        rank, size = settings.frame.rank, settings.parameters
        layers = list(self.layers.values())
        drawn = [_draw(seed, layers, rank, size) for seed in seeds]
        # For each target matrix A (R, r, d_in) and B transposed (R, r, d_out); for each coefficient, (R, C),
        # the entry of the vector that it follows, and its sign over sqrt(n).
        *matrices, self._entry, self._factor = (
            torch.stack(parts).to(model.device) for parts in zip(*drawn, strict=True)
        )
        self._down, self._up = matrices[: len(layers)], matrices[len(layers) :]
        self.vectors = [nn.Parameter(torch.zeros(size, device=model.device)) for _ in seeds]

    @override
    def tensors(self, run: int) -> dict[str, torch.Tensor]:
        return {_VECTOR: self.vectors[run].detach(), **super().tensors(run)}

    @override
    def _pairs(
        self, runs: Sequence[int] | np.ndarray, vectors: torch.Tensor
    ) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        mixes = vectors.gather(1, self._entry[runs]) * self._factor[runs]
        by_layer = mixes.view(len(vectors), len(self.layers), self.settings.rank, -1).unbind(1)
        for mix, down, up in zip(by_layer, self._down, self._up, strict=True):
            yield down[runs], torch.bmm(mix.mT, up[runs])  # (B M) transposed


def _draw(
    seed: int, layers: Sequence[StackedLoRALinear], rank: int, parameters: int
) -> tuple[torch.Tensor, ...]:
    """What is frozen of one run: A of each layer, B transposed of each, entries and factors.

    The matrices are drawn before the sharing, so that they are the same whatever n is.
    """
    random = torch.Generator().manual_seed(seed)
    down = [_uniform(rank, layer.base.in_features, layer.base.in_features, random) for layer in layers]
    up = [_uniform(rank, layer.base.out_features, rank, random) for layer in layers]
    num_coefficients = len(layers) * rank**2
    sign = torch.randint(2, (num_coefficients,), generator=random) * 2.0 - 1.0
    entry = torch.randperm(num_coefficients, generator=random) % parameters
    return *down, *up, entry, sign / math.sqrt(parameters)


def _uniform(rows: int, columns: int, fan_in: int, random: torch.Generator) -> torch.Tensor:
    bound = 1 / math.sqrt(fan_in)
    return torch.empty(rows, columns).uniform_(-bound, bound, generator=random)
