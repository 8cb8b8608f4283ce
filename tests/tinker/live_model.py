"""The tiny model of the live tests: one base for several worlds, none of whose answers it prefers."""

from __future__ import annotations

import math

import torch
from helpers import make_environment, make_trie
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from memory_rl.policies import tiny_model
from memory_rl.policies.answer_trie import AnswerTrie
from memory_rl.policies.packed import decision_states, edge_log_probs, form_log_probs, pack_all

WORLDS = ("single_step", 16, 1), ("single_step", 16, 4), ("multi_step", 8, 1)
"""Environment, N and number of secrets."""
UNIFORM = 0.005
"""KL(uniform || answers) in bits that each world is brought to."""


def make_live_model(seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model, uniform over the answers of all worlds at once, and its tokenizer.

    The head alone learns, from all worlds in every step. One world after the other will not do: each spoils
    the others by bits, and a secret to which the base gives one chance in a thousand is hardly ever rewarded
    (docs/findings.md).

    Raises:
        RuntimeError: if it does not come to that.
    """
    network, tokenizer = tiny_model.make_model(seed), tiny_model.make_tokenizer()
    head = network.get_output_embeddings()
    lessons = [(trie, states_of(network, trie), N) for trie, N in tries_of(tokenizer)]
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(1000):
        bits = torch.stack([bits_from_uniform(trie, head(states), N) for trie, states, N in lessons])
        if bits.max() < UNIFORM:
            return network, tokenizer
        optimiser.zero_grad()
        bits.sum().backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimiser.step()
    raise RuntimeError(f"the model of the live tests stays {bits.max():.3f} bits from uniform")


def tries_of(tokenizer: PreTrainedTokenizerBase) -> list[tuple[AnswerTrie, int]]:
    """The valid conversations and N of each world."""
    return [(make_trie(make_environment(*world), tokenizer), world[1]) for world in WORLDS]


def states_of(network: PreTrainedModel, trie: AnswerTrie) -> torch.Tensor:
    """The hidden states that the head sees behind all prompts."""
    return decision_states(network, trie, pack_all(trie), range(trie.num_prompts))


def bits_from_uniform(trie: AnswerTrie, logits: torch.Tensor, N: int) -> torch.Tensor:
    """KL(uniform || answers), the mean over prompts."""
    return -form_log_probs(trie, edge_log_probs(trie, logits), N).mean() / math.log(2) - math.log2(N)
