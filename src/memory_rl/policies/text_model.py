"""The model `tiny-text`: the built-in architecture, drawn and pretrained as any language model is.

A body of standard deviation 0.02 and a head of 1 / sqrt(width), AdamW with a warm-up and a half cosine,
next-character cross-entropy on synthetic text, each character read once. Nothing here keeps turns or features
apart.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, get_cosine_schedule_with_warmup

from memory_rl.policies import tiny_model
from memory_rl.policies.model_cache import cache_directory, made_once, read_cache, write_cache
from memory_rl.policies.synthetic_text import documents

_VERSION = 1  # raise it when what is done with the text changes; the text and the first weights are hashed
_HASHED = 2**16  # characters of the text
_STD = 0.02  # what transformers draws with, unless told otherwise
_HEAD_STD = 128**-0.5  # 1 / sqrt(width); at 0.02 the frozen head can give no more than 0.56 to the digit 6
_LN_2 = math.log(2)
_RECENT = 20  # steps over which the loss that is told is averaged

Watch = Callable[[int, float, int], object]
"""Is told the steps so far, the loss in bits a character, and how many steps there will be."""


@dataclass(frozen=True)
class Pretraining:
    """How to pretrain: `steps` of AdamW, each on `rows` stretches of `length` characters."""

    steps: int = 1500
    rows: int = 8
    length: int = 128
    learning_rate: float = 3e-3
    warmup_share: float = 0.05
    weight_decay: float = 0.01


def characters(seed: int, number: int) -> np.ndarray:
    """(number,) tokens of the text of a seed, from its beginning."""
    known = tiny_model.make_tokenizer().get_vocab()
    special = sorted((word for word in known if len(word) > 1), key=len, reverse=True)
    stream = chain.from_iterable(_tokens(text, known, special) for text in documents(seed))
    return np.fromiter(stream, dtype=np.int64, count=number)


def _tokens(text: str, known: dict[str, int], special: list[str]) -> Iterator[int]:
    place = 0
    while place < len(text):
        word = text[place]
        if word == "<":
            word = next(word for word in special if text.startswith(word, place))
        yield known[word]
        place += len(word)


def pretrained(
    seed: int, settings: Pretraining | None = None, watch: Watch | None = None
) -> LlamaForCausalLM:
    """As `pretrain`, from the cache where it is there; two processes do not make the same model at once."""
    how, model = settings or Pretraining(), tiny_model.make_model(seed, _STD, _HEAD_STD)
    folder = cache_directory() / "pretrained-models" / _key(model, seed, how)
    found = read_cache(folder, "pretraining", dict[str, Any])
    if found is None:
        with made_once(folder):
            found = read_cache(folder, "pretraining", dict)  # another process may just have made it
            if found is None:
                return _pretrain_and_keep(seed, how, watch, folder)
    model.load_state_dict(found[1])
    return model.eval()


def _pretrain_and_keep(seed: int, how: Pretraining, watch: Watch | None, folder: Path) -> LlamaForCausalLM:
    started = time.monotonic()
    model = pretrain(seed, how, watch)
    tensors = {name: weight.detach().contiguous() for name, weight in model.named_parameters()}
    write_cache(tensors, folder, "pretraining", asdict(how) | {"seconds": time.monotonic() - started})
    return model


def _key(model: LlamaForCausalLM, seed: int, how: Pretraining) -> str:
    digest = hashlib.sha256(json.dumps([_VERSION, asdict(how), model.config.to_dict()], default=str).encode())
    for weight in model.parameters():
        digest.update(weight.detach().numpy().data)
    digest.update(characters(seed, _HASHED).data)
    return digest.hexdigest()[:32]


def pretrain(seed: int, settings: Pretraining | None = None, watch: Watch | None = None) -> LlamaForCausalLM:
    """The pretrained model; the same seed gives the same weights, and the same text.

    Args:
        seed: of the weights and of the text.
        settings: how; None as `tiny-text` is.
        watch: is told of each step.
    """
    how = settings or Pretraining()
    model = tiny_model.make_model(seed, _STD, _HEAD_STD)
    text = torch.from_numpy(characters(seed, how.steps * how.rows * how.length))
    batches = text.view(how.steps, how.rows, how.length)
    optimiser = torch.optim.AdamW(
        model.parameters(),
        lr=how.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=how.weight_decay,
        fused=True,
    )
    rising = round(how.warmup_share * how.steps)
    schedule = get_cosine_schedule_with_warmup(optimiser, rising, how.steps)
    recent = math.nan
    with _alike():
        for step, batch in enumerate(batches):
            loss = _loss(model, batch)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            bits = loss.item() / _LN_2
            recent = bits if step == 0 else recent + (bits - recent) / min(step + 1, _RECENT)
            if watch is not None:
                watch(step + 1, recent, how.steps)
    return model.eval()


def bits_a_character(model: LlamaForCausalLM, text: np.ndarray, length: int = 128) -> float:
    """Cross-entropy of the next character, in bits, over stretches of a text."""
    rows = torch.from_numpy(text[: len(text) // length * length]).view(-1, length)
    with torch.no_grad():
        return float(np.mean([_loss(model, some).item() for some in rows.split(16)])) / _LN_2


def _loss(model: LlamaForCausalLM, rows: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each character but the first of its row, in nats."""
    logits = model(rows, use_cache=False).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


@contextmanager
def _alike() -> Iterator[None]:
    """Computes alike whatever the process did before: one thread, and no denormal numbers.

    More threads would add up in another order, and are of no use to so small a model.
    """
    threads, denormal = torch.get_num_threads(), np.array([np.finfo(float).smallest_subnormal]) * 1 > 0
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(not denormal)
