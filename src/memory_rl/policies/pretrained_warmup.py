"""The warm-up of a pretrained model: through an adapter, and where that does not suffice of all parameters.

The adapter takes little memory, and little room in the cache. It does not suffice where the frozen head can
hardly prefer a token, as with random weights, or where the model is so small that rank 8 is little of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from memory_rl.errors import ModelError
from memory_rl.policies.answer_trie import AnswerTrie
from memory_rl.policies.lora import LoRASettings, StackedAdapters
from memory_rl.policies.warmup import Lesson, WarmupSettings, Watch, learn, make_lesson
from memory_rl.policies.warmup_report import WarmupReport

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MOST_ROUNDED = 0.05  # bits from the target that are accepted after rounding to the type of the weights
_LONGER = 4  # times as many steps a fall for all parameters as for an adapter
_MOST_PARAMETERS = 2**30  # trained whole; gradients and moments take 12 bytes of each


def warm_up_by_adapter(
    model: PreTrainedModel,
    trie: AnswerTrie,
    num_answers: int,
    settings: WarmupSettings,
    watch: Watch | None = None,
    prior: np.ndarray | None = None,
) -> tuple[WarmupReport, dict[str, torch.Tensor]]:
    """As `warm_up`, through an adapter that is then added to the weights.

    Where it does not suffice, or the model has no layer for it, all parameters are trained from there, unless
    they are more than 2^30: what that takes would fit on few machines, and what is done must not depend on
    the machine.

    Returns:
        The report, and what `merge` needs: the adapter, or all parameters.
    """
    started, lesson = time.monotonic(), make_lesson(model, trie, num_answers, settings, watch, prior)
    steps, whole_steps, reached, changes = 0, 0, False, dict[str, torch.Tensor]()
    with suppress(ModelError):  # no layer has room for an adapter
        steps, reached, changes = _by_adapter(model, settings, lesson)
    if not reached and sum(weight.numel() for weight in model.parameters()) <= _MOST_PARAMETERS:
        whole = replace(settings, max_steps=_LONGER * settings.max_steps)
        whole_steps, reached = _whole(model, whole, lesson)
        changes = {name: weight.detach().cpu().contiguous() for name, weight in model.named_parameters()}
    seconds, steps = time.monotonic() - started, steps + whole_steps
    report = lesson.report(0, steps, seconds, whole_steps=whole_steps, reached=reached)
    rounded = report.divergence > lesson.tolerance + _MOST_ROUNDED
    return replace(report, reached=reached and not rounded), changes


def _by_adapter(
    model: PreTrainedModel, settings: WarmupSettings, lesson: Lesson
) -> tuple[int, bool, dict[str, torch.Tensor]]:
    """Trains an adapter and adds it to the weights: the steps, whether that sufficed, and the adapter."""
    adapters = StackedAdapters(model, LoRASettings(settings.adapter_rank), [0])

    def loss() -> tuple[torch.Tensor, float]:
        adapters.activate([0])
        return lesson()

    try:
        steps, reached = learn(settings, lesson, loss, adapters.vectors)
    finally:
        for name, layer in adapters.layers.items():
            model.set_submodule(name, layer.base)
    changes = {
        f"{name}.{part}": matrix.cpu().contiguous()
        for name, (down, up) in adapters.matrices(0).items()
        for part, matrix in (("down", down), ("up", adapters.layers[name].scale * up))
    }
    merge(model, changes)
    return steps, reached, changes


def _whole(model: PreTrainedModel, settings: WarmupSettings, lesson: Lesson) -> tuple[int, bool]:
    """Trains all parameters, in float32: small steps would be rounded away in half precision."""
    parameters, kind = list(model.requires_grad_(True).parameters()), model.dtype
    for weight in parameters:
        weight.data = weight.data.float()
    try:
        return learn(settings, lesson, lesson, parameters)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            "the format warm-up of all parameters, to which an adapter of rank "
            f"{settings.adapter_rank} does not suffice, needs more memory than there is: use device=cpu or "
            "a smaller model_name."
        ) from error
    finally:
        for weight in parameters:
            weight.data, weight.grad = weight.data.to(kind), None


def merge(model: PreTrainedModel, changes: Mapping[str, torch.Tensor]) -> None:
    """Does to the weights of the model that they were made for what `warm_up_by_adapter` did."""
    if changes.keys() & dict(model.named_parameters()).keys():
        model.load_state_dict(dict(changes), strict=False)  # tied weights are there once
        return
    with torch.no_grad():
        for name in sorted({name.rpartition(".")[0] for name in changes}):
            weight, change = (
                model.get_parameter(f"{name}.weight"),
                changes[f"{name}.up"] @ changes[f"{name}.down"],
            )
            weight.copy_(weight.float() + change.to(weight.device))
