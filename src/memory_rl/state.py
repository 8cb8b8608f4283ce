"""What a checkpoint holds: each part of an experiment names what it keeps, and can be restored from that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

State = dict[str, Any]
"""A tree of dicts by name, whose leaves are arrays, polars frames, `SavedModel`s and what JSON can hold."""


@dataclass(frozen=True)
class SavedModel:
    """What one run has trained: a LoRA adapter in PEFT's names and shapes, or a whole model in transformers'.

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
        if self.whole:
            return "config.json", "model.safetensors"
        return "adapter_config.json", "adapter_model.safetensors"


class Stateful:
    """Something that can be restored to where it stood: what follows is then the same to the bit.

    A subclass names its attributes in `kept`. They may be arrays and tensors (restored in place), random
    generators and lists of them, other `Stateful`s, dicts of all these, and whatever JSON can hold.
    """

    kept: tuple[str, ...] = ()
    grows = False
    """Whether its arrays and dicts may have grown since it was made, as what a learner remembers may."""

    def state(self) -> State:
        """Where it stands; to be used before it moves on, since arrays may not be copies."""
        return {name.lstrip("_"): _state_of(getattr(self, name)) for name in self.kept}

    def restore(self, state: State) -> None:
        """Restores what `state` returned, in an object made from the same configuration."""
        for name in self.kept:
            setattr(self, name, _restored(getattr(self, name), state[name.lstrip("_")], self.grows))


def _state_of(value: Any) -> Any:
    if isinstance(value, Stateful):
        return value.state()
    if isinstance(value, np.random.Generator):
        return dict(value.bit_generator.state)
    if isinstance(value, dict):
        return {name: _state_of(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_state_of(part) for part in value]
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def _restored(value: Any, saved: Any, grows: bool) -> Any:
    """The value as it was saved, changed in place where that is possible."""
    if isinstance(value, Stateful):
        value.restore(saved)
    elif isinstance(value, np.random.Generator):
        value.bit_generator.state = saved
    elif isinstance(value, np.ndarray):
        if grows and value.shape != np.shape(saved):
            return saved
        value[...] = saved
    elif hasattr(value, "detach"):
        value.detach().copy_(value.new_tensor(saved))
    elif isinstance(value, dict):
        news = {name: part for name, part in saved.items() if grows and name not in value}
        return {name: _restored(part, saved[name], grows) for name, part in value.items()} | news
    elif isinstance(value, list) and len(value) == len(saved):
        return [_restored(part, old, grows) for part, old in zip(value, saved, strict=True)]
    else:
        return saved
    return value
