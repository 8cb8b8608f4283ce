"""What a run trains, whatever its kind: one flat vector, which one optimiser parameter moves.

R vectors lie side by side; the model's batch is R equal parts, and part i goes through the parameters of one
run.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import torch
from torch import nn

from memory_rl.state import SavedModel, State, Stateful

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Adapters(Stateful):
    """What R runs train, on one model whose layers are replaced in place and whose own parameters are frozen.

    Attributes:
        vectors: R flat vectors, what the optimiser moves. Every run starts as the base model.
        config: what PEFT or transformers must know of what is saved.
        whole: whether that is a whole model, and no adapter.
    """

    vectors: list[nn.Parameter]
    config: dict[str, Any]
    whole: ClassVar[bool] = False

    @abstractmethod
    def activate(self, runs: Sequence[int] | np.ndarray) -> None:
        """From now on part i of a batch of the model, of `len(runs)` equal parts, is of run `runs[i]`."""

    @abstractmethod
    def _holders(self) -> Iterable[tuple[nn.Module, str]]:
        """The replaced layers, each with the name of the attribute that holds what is active in it."""

    @contextmanager
    def off(self) -> Iterator[None]:
        """In its block the model is the base, whichever runs are active."""
        active = [(layer, name, getattr(layer, name)) for layer, name in self._holders()]
        for layer, name, _ in active:
            setattr(layer, name, None)
        try:
            yield
        finally:
            for layer, name, own in active:
                setattr(layer, name, own)

    @abstractmethod
    def tensors(self, run: int) -> dict[str, torch.Tensor]:
        """What one run has trained, as PEFT or transformers names it; views of its vector if possible."""

    def state(self) -> State:
        """A `SavedModel` of each run."""
        trained = [self.tensors(run) for run in range(len(self.vectors))]
        return {
            f"run-{run}": SavedModel(
                self.config, {name: tensor.cpu().numpy() for name, tensor in tensors.items()}, self.whole
            )
            for run, tensors in enumerate(trained)
        }

    def restore(self, state: State) -> None:
        """Takes back what `state` gave.

        Raises:
            ValueError: if it is of another model or kind of adapter.
        """
        for run in range(len(self.vectors)):
            saved, tensors = state[f"run-{run}"].tensors, self.tensors(run)
            for name, tensor in tensors.items():
                if name not in saved or saved[name].shape != tuple(tensor.shape):
                    raise ValueError(f"it has no {name} of shape {tuple(tensor.shape)}")
                tensor.copy_(torch.from_numpy(saved[name]))


class AdapterSettings(Protocol):
    """A kind of adapters, and how large they are."""

    def check(self, model: PreTrainedModel) -> None:
        """Refuses a model with no layer, or no room, for what the settings ask.

        Raises:
            ModelError: if it is one.
        """

    def adapt(self, model: PreTrainedModel, seeds: Sequence[int]) -> Adapters:
        """Adapters of this kind on a model, one for each seed.

        Raises:
            ModelError: if the model has no layer, or no room, for what the settings ask.
        """
