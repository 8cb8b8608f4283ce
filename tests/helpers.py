"""What several tests need: environments and their tries, and the sentence of a command that refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

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
