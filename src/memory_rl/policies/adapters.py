"""What a run trains on top of a model: low-rank adapters, one shared vector, or all weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from memory_rl.policies.full import FullSettings, StackedWeights
from memory_rl.policies.lora import LoRASettings, StackedAdapters
from memory_rl.policies.shared import SharedAdapters, SharedSettings
from memory_rl.state import Adapter

AdapterSettings = LoRASettings | SharedSettings | FullSettings
"""The kind, and how large it is."""


class Adapters(Protocol):
    """What R runs train, on one model whose layers it has replaced.

    Attributes:
        size: parameters of one run.
        vectors: R flat vectors of so many parameters, what the optimiser moves.
    """

    size: int
    vectors: list[nn.Parameter]

    def activate(self, runs: Sequence[int] | np.ndarray) -> None:
        """From now on part i of a batch of the model, of `len(runs)` equal parts, is of run `runs[i]`."""

    def state(self) -> dict[str, Adapter]:
        """What each run has trained, in the layout of PEFT or transformers."""

    def restore(self, state: Mapping[str, Adapter]) -> None:
        """Takes back what `state` gave."""


def make_adapters(model: PreTrainedModel, settings: AdapterSettings, seeds: Sequence[int]) -> Adapters:
    """Adapters of the kind of these settings; each begins as the base model.

    Args:
        model: its layers are replaced in place, and all its own parameters are frozen.
        settings: of that kind.
        seeds: one for each run.

    Raises:
        ModelError: if the model has no layer, or no room, for what the settings ask.
    """
    if isinstance(settings, FullSettings):
        return StackedWeights(model, len(seeds))
    return (
        SharedAdapters(model, settings, seeds)
        if isinstance(settings, SharedSettings)
        else StackedAdapters(model, settings, seeds)
    )
