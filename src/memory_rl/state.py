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
    """One learner's LoRA adapter as PEFT names and shapes it.

    Attributes:
        config: of adapter_config.json.
        tensors: of adapter_model.safetensors.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]


class Stateful(Protocol):
    """Something that can be put back to where it stood: what follows is then the same to the bit."""

    def state(self) -> State:
        """Where it stands; to be used before it moves on, since arrays may be its own."""

    def restore(self, state: State) -> None:
        """Takes back what `state` gave, in an object made from the same configuration."""
