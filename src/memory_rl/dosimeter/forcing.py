"""How likely a model in training is to give certain replies, by teacher forcing; leaves no trace in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from memory_rl.policies.base import Assessment, assess_all

_NUMBERS = 2**27
"""The most numbers of the logits of one pass: half a gigabyte."""


@dataclass(frozen=True)
class Question:
    """What a model is asked about each of its secrets, as tokens.

    Attributes:
        prompts: (M,) the tokens up to where the reply begins.
        replies: (N,) the tokens of each answer, without an end.
        ends: the tokens that end a reply.
    """

    prompts: Sequence[Sequence[int]]
    replies: Sequence[Sequence[int]]
    ends: Sequence[int]

    def assess(self, model: Any, secrets: np.ndarray, *, every_answer: bool) -> Assessment:
        """What the model makes of its secrets (M,), in nats: (1, M).

        Args:
            model: a causal language model as transformers has it.
            secrets: S of each prompt.
            every_answer: whether all N answers are scored; else of_valid and of_best are NaN.
        """
        prompts, N = range(len(self.prompts)), len(self.replies)
        answers = [range(N) if every_answer else [secret] for secret in secrets.tolist()]
        asked = [
            (self.prompts[prompt], self.replies[answer]) for prompt in prompts for answer in answers[prompt]
        ]
        log_probs = reply_log_probs(model, asked, self.ends).reshape(1, len(self.prompts), -1)
        if every_answer:
            return assess_all(log_probs, secrets[None])
        unknown = np.full(log_probs.shape[:2], np.nan)
        return Assessment(log_probs[:, :, 0], unknown, unknown)


def reply_log_probs(
    model: Any, asked: Sequence[tuple[Sequence[int], Sequence[int]]], ends: Sequence[int]
) -> np.ndarray:
    """The log-probability in nats of each reply and any of its ends behind its prompt: (B,), float64.

    All in one batch, unless its logits would not fit into memory.

    Args:
        model: a causal language model as transformers has it.
        asked: B pairs of the tokens of a prompt and of a reply.
        ends: tokens of which one ends a reply.
    """
    longest = max(len(prompt) + len(reply) for prompt, reply in asked)
    rows = max(1, _NUMBERS // (longest * model.get_input_embeddings().weight.shape[0]))
    with _looked_at(model):
        parts = [_score(model, asked[start : start + rows], ends) for start in range(0, len(asked), rows)]
    return np.concatenate(parts)


def _score(
    model: Any, asked: Sequence[tuple[Sequence[int], Sequence[int]]], ends: Sequence[int]
) -> np.ndarray:
    """Of the rows of one pass."""
    device = model.get_input_embeddings().weight.device
    tokens = _padded([[*prompt, *reply] for prompt, reply in asked], device)
    starts, lengths = (torch.tensor([*map(len, part)], device=device) for part in zip(*asked, strict=True))
    mask = torch.arange(tokens.shape[1], device=device) < (starts + lengths)[:, None]
    logits = model(input_ids=tokens, attention_mask=mask.long(), use_cache=False).logits
    steps = torch.arange(int(lengths.max()) + 1, device=device)  # one more than a reply has: its end
    places = (starts[:, None] - 1 + steps).clamp(max=tokens.shape[1] - 1)
    rows = torch.arange(len(asked), device=device)
    log_probs = logits[rows[:, None], places].float().log_softmax(dim=2)
    replies = _padded([reply for _, reply in asked], device)
    said = log_probs[:, :-1].gather(2, replies[:, :, None])[:, :, 0]
    said = torch.where(steps[:-1] < lengths[:, None], said, 0.0).sum(dim=1)
    ended = log_probs[rows, lengths][:, torch.tensor(ends, device=device)].logsumexp(dim=1)
    return np.asarray((said + ended).cpu().numpy(), dtype=np.float64)


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """Rows of tokens as one tensor, with zeros behind the shorter ones."""
    written = [torch.tensor(row, dtype=torch.long) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(written, batch_first=True).to(device)


@contextmanager
def _looked_at(model: Any) -> Iterator[None]:
    """In its block the model is in eval mode and keeps no gradient; then each part is as it was."""
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True
