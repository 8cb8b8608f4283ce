"""What a checkpoint holds: each part of an experiment gives its state as a tree, and takes it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

State = dict[str, Any]
"""A tree of dicts by name. Its leaves are arrays, polars frames, `Adapter`s, and whatever JSON can hold."""


@dataclass(frozen=True)
class Adapter:
    """What one learner has trained: a LoRA adapter as PEFT names and shapes it, or a whole model as
    transformers does.

    Attributes:
        config: of adapter_config.json, or config.json.
        tensors: of adapter_model.safetensors, or model.safetensors.
        whole: whether it is a whole model.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]
    whole: bool = False

    @property
    def files(self) -> tuple[str, str]:
        """What its two files are called."""
        return (
            ("config.json", "model.safetensors")
            if self.whole
            else ("adapter_config.json", "adapter_model.safetensors")
        )


class Stateful(Protocol):
    """Something that can be put back to where it stood: what follows is then the same to the bit."""

    def state(self) -> State:
        """Where it stands; to be used before it moves on, since arrays may be its own."""

    def restore(self, state: State) -> None:
        """Takes back what `state` gave, in an object made from the same configuration."""
