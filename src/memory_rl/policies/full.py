"""Full fine-tuning of R runs at once: every run has all weights of the model to itself.

Axis 0 of every weight is the run; the model's batch is R equal parts, and part r goes through weights r.
Every module that holds weights itself (linear layers, embeddings, norms) is called for all runs together by
`torch.func.vmap`, so that any transformer will do whose modules take the batch as axis 0. A run's weights are
one flat vector, so that one optimiser parameter is one run; weights that the model ties are in it once.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from typing_extensions import override

from memory_rl.errors import ModelError
from memory_rl.policies.adapters import Adapters

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class FullSettings:
    """All weights: there is nothing to choose."""

    def check(self, model: PreTrainedModel) -> None:
        """Refuses a model of which some weights cannot be stacked, such as the experts of a mixture."""
        _own_weights(model)

    def adapt(self, model: PreTrainedModel, seeds: Sequence[int]) -> StackedWeights:
        """All weights once for each seed, see `AdapterSettings`."""
        return StackedWeights(model, len(seeds))


class StackedModule(nn.Module):
    """A module with weights of its own for each run.

    The batch is a stack of R equal parts, the rows of one run together.
    """

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.weights: dict[str, torch.Tensor] | None = None  # (R, ...) each

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps (batch, ...) as the base does, where the batch is a multiple of R."""
        if self.weights is None:
            outputs: torch.Tensor = self.base(inputs)
            return outputs
        num_runs = len(next(iter(self.weights.values())))
        by_run = inputs.reshape(num_runs, -1, *inputs.shape[1:])
        return torch.func.vmap(partial(functional_call, self.base))(self.weights, by_run).flatten(0, 1)


class StackedWeights(Adapters):
    """All weights of R runs.

    Args:
        model: a causal LM; its own weights are where every run starts.
        num_runs: R.
    """

    whole = True

    def __init__(self, model: PreTrainedModel, num_runs: int) -> None:
        model.requires_grad_(False)
        self.config = json.loads(model.config.to_json_string(use_diff=False))
        self._named = dict(model.named_parameters())  # tied weights once
        self._layers = _install(model, {id(weight): name for name, weight in self._named.items()})
        start = torch.cat([weight.detach().flatten() for weight in self._named.values()])
        self.vectors = [nn.Parameter(start.clone()) for _ in range(num_runs)]

    @override
    def activate(self, runs: Sequence[int] | np.ndarray) -> None:
        parts = self._split(torch.stack([self.vectors[run] for run in runs]))
        for layer, names in self._layers:
            layer.weights = {own: parts[name] for own, name in names.items()}

    @override
    def _holders(self) -> Iterable[tuple[nn.Module, str]]:
        return ((layer, "weights") for layer, _ in self._layers)

    @override
    def tensors(self, run: int) -> dict[str, torch.Tensor]:
        return {name: part[0] for name, part in self._split(self.vectors[run].detach()[None]).items()}

    def _split(self, stacked: torch.Tensor) -> dict[str, torch.Tensor]:
        """The weights (R', ...) by name from flat vectors (R', P)."""
        parts = stacked.split([weight.numel() for weight in self._named.values()], dim=1)
        return {
            name: part.view(len(stacked), *weight.shape)
            for (name, weight), part in zip(self._named.items(), parts, strict=True)
        }


def _own_weights(model: PreTrainedModel) -> dict[str, dict[str, nn.Parameter]]:
    """The weights that each module holds itself, by the module's name and their own.

    Raises:
        ModelError: if one of the modules cannot be called for all runs together.
    """
    found = {}
    for name, base in model.named_modules():
        if own := dict(base.named_parameters(recurse=False)):
            if len(own) < len(list(base.parameters())) or len(_inputs(base)) > 1:
                raise ModelError(
                    f"adapter=full does not work with {type(model).__name__}, whose {name} is more than one "
                    "layer: use adapter=lora."
                )
            found[name] = own
    return found


def _install(model: PreTrainedModel, names: dict[int, str]) -> list[tuple[StackedModule, dict[str, str]]]:
    """Puts a stacked module in the place of each one that holds weights itself.

    With each come its weights' own names and those in the model.
    """
    layers = []
    for name, own in _own_weights(model).items():
        layer = StackedModule(model.get_submodule(name))
        model.set_submodule(name, layer)
        layers.append((layer, {key: names[id(weight)] for key, weight in own.items()}))
    return layers


def _inputs(module: nn.Module) -> list[inspect.Parameter]:
    """What its forward pass must be given."""
    given = inspect.signature(module.forward).parameters.values()
    return [one for one in given if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
