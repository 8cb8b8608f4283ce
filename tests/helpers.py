"""What several tests need: environments and their tries, and the sentence of a command that refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from memory_rl.cli import main
from memory_rl.policies.answer_trie import AnswerTrie
from memory_rl.policies.tokenisation import tokenise_all
from memory_rl.task import Environment, MultiStep, SecretSpace, SingleStep, make_channel


def make_environment(kind: str, N: int) -> Environment:
    space = SecretSpace(N)
    return MultiStep.with_noise(space) if kind == "multi_step" else SingleStep(space, make_channel("binary", N))


def make_trie(environment: Environment, tokenizer) -> AnswerTrie:
    return tokenise_all(tokenizer, environment.conversations(), environment.choices(np.arange(environment.num_forms)))


def complaint(command: str, words: str, capsys) -> str:
    """The one sentence on standard error of a command that must refuse."""
    assert main([command, *words.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert captured.err.count("\n") == 1
    assert captured.err.endswith((".\n", "?\n"))
    assert not list(Path("runs").glob("*"))  # nothing was left behind
    return captured.err


def plain_log_prob(model, turns) -> float:
    """Teacher-forced log P of all replies of one conversation, in nats, by one ordinary causal forward pass."""
    tokens, scored = [], []
    for forced, reply in turns:
        tokens += forced
        scored += range(len(tokens), len(tokens) + len(reply))
        tokens += reply
    with torch.no_grad():
        log_probs = model(torch.tensor([tokens])).logits[0].double().log_softmax(dim=1)
    return sum(log_probs[place - 1, tokens[place]].item() for place in scored)
