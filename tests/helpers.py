"""What several tests build: environments and their tries."""

from __future__ import annotations

import numpy as np

from memory_rl.policies.answer_trie import AnswerTrie
from memory_rl.policies.tokenisation import tokenise_all
from memory_rl.task import Environment, MultiStep, SecretSpace, SingleStep, make_channel


def make_environment(kind: str, N: int) -> Environment:
    space = SecretSpace(N)
    return MultiStep.with_noise(space) if kind == "multi_step" else SingleStep(space, make_channel("binary", N))


def make_trie(environment: Environment, tokenizer) -> AnswerTrie:
    return tokenise_all(tokenizer, environment.conversations(), environment.choices(np.arange(environment.num_forms)))
