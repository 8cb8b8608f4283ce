"""One forward pass over a prompt and a tree of tokens behind it, for a causal language model of the Llama kind.

Each tree token attends to the prompt and to its ancestors, and its position is its depth, so that its output is the one that a plain forward pass
over its own conversation would give.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from memory_rl.policies.answer_trie import NONE, AnswerTrie

_NODES_A_PROMPT_TOKEN = 8  # of a piece of a large tree: an eighth of the work is repeated for its prompt


@dataclass(frozen=True)
class Pack:
    """Token rows for B sequences of the same length T.

    Attributes:
        tokens, positions: (B, T).
        mask: (B, 1, T, T) additive attention mask.
        slot: (B, M + 1) where each node of the trie stands; the last column is the prompt's last token (node -1). -1 where a node is left out.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    slot: np.ndarray


def pack_nodes(trie: AnswerTrie, needed: np.ndarray) -> Pack:
    """Packs the prompt and some nodes of the trie.

    Args:
        trie: the tree.
        needed: (B, M) bool, each row closed under ancestors. Rows are padded to the longest.
    """
    batch, prompt_length = len(needed), len(trie.prompt)
    width = int(needed.sum(axis=1).max(initial=0))
    order = np.argsort(~needed, axis=1, kind="stable")[:, :width]  # the needed nodes first, parents before children
    real = np.take_along_axis(needed, order, axis=1)
    tokens = np.concatenate([np.broadcast_to(trie.prompt, (batch, prompt_length)), np.where(real, trie.node_token[order], trie.prompt[-1])], axis=1)
    positions = np.concatenate(
        [np.broadcast_to(np.arange(prompt_length), (batch, prompt_length)), np.where(real, prompt_length + trie.node_depth[order], 0)], axis=1
    )
    allowed = np.zeros((batch, tokens.shape[1], tokens.shape[1]), dtype=bool)
    allowed[:, :, :prompt_length] = True
    allowed[:, :prompt_length, :prompt_length] = np.tri(prompt_length, dtype=bool)
    allowed[:, prompt_length:, prompt_length:] = trie.ancestors[order[:, :, None], order[:, None, :]] & real[:, :, None]
    slot = np.full((batch, trie.num_nodes + 1), NONE)
    np.put_along_axis(slot, order, np.where(real, prompt_length + np.arange(width), NONE), axis=1)
    slot[:, NONE] = prompt_length - 1
    mask = torch.zeros(allowed.shape).masked_fill_(~torch.from_numpy(allowed), torch.finfo(torch.float32).min)
    return Pack(torch.from_numpy(tokens), torch.from_numpy(positions), mask[:, None], slot)


def pack_all(trie: AnswerTrie) -> Pack:
    """The whole tree: one sequence, or for a large tree several, since attention costs the square of the length.

    Each piece repeats the prompt and the ancestors of its nodes; with so many nodes a piece, that is little.
    """
    pieces = -(-trie.num_nodes // (_NODES_A_PROMPT_TOKEN * len(trie.prompt))) or 1
    return pack_nodes(trie, np.stack([trie.ancestors[part].any(axis=0) for part in np.array_split(np.arange(trie.num_nodes), pieces)]))


def forward(model: PreTrainedModel, pack: Pack, batch: int, keep: torch.Tensor) -> torch.Tensor:
    """Logits (batch B, T', V) of the kept places of a pack of B rows, for each member of a batch."""
    logits: torch.Tensor = model(
        input_ids=pack.tokens.repeat(batch, 1),
        attention_mask=pack.mask.repeat(batch, 1, 1, 1) if len(pack.mask) > 1 else pack.mask.expand(batch, -1, -1, -1),
        position_ids=pack.positions.repeat(batch, 1),
        use_cache=False,
        logits_to_keep=keep,
    ).logits
    return logits


def all_edge_log_probs(model: PreTrainedModel, trie: AnswerTrie, pack: Pack, batch: int) -> torch.Tensor:
    """Log-probability in nats of every edge given its decision: (batch, E)."""
    row, place = decision_slots(trie, pack)
    keep, kept = np.unique(place, return_inverse=True)
    logits = forward(model, pack, batch, torch.from_numpy(keep)).unflatten(0, (batch, -1))[:, torch.from_numpy(row), torch.from_numpy(kept)]
    return edge_log_probs(trie, logits)


def decision_slots(trie: AnswerTrie, pack: Pack) -> tuple[np.ndarray, np.ndarray]:
    """(D,) the row and (D,) the place in it where each decision stands in a pack of the whole tree."""
    slots = pack.slot[:, trie.decision_node]
    row = (slots != NONE).argmax(axis=0)
    return row, slots[row, np.arange(len(row))]


def decision_states(model: PreTrainedModel, trie: AnswerTrie, pack: Pack) -> torch.Tensor:
    """What the model's head sees at each decision, without its graph: (1, D, d)."""
    with torch.no_grad():
        states = model.base_model(input_ids=pack.tokens, attention_mask=pack.mask, position_ids=pack.positions, use_cache=False).last_hidden_state
    return states[decision_slots(trie, pack)][None]


def edge_log_probs(trie: AnswerTrie, logits: torch.Tensor) -> torch.Tensor:
    """From the logits at all decisions, (batch, D, V), to the log-probability in nats of every edge, (batch, E)."""
    logits = logits.float()
    normaliser = logits.logsumexp(dim=2)
    exits = logits.masked_fill(on_tree_tokens(trie, np.arange(logits.shape[1]), logits.shape[2]), -torch.inf).logsumexp(dim=2)
    decision = torch.from_numpy(trie.edge_decision)
    is_exit = torch.from_numpy(trie.is_exit)
    token = torch.from_numpy(np.where(trie.is_exit, 0, trie.edge_token))
    return torch.where(is_exit, exits[:, decision], logits[:, decision, token]) - normaliser[:, decision]


def form_log_probs(trie: AnswerTrie, edge_log_probs: torch.Tensor) -> torch.Tensor:
    """Log-probability in nats of every valid conversation, with its graph: (batch, E) to (batch, F)."""
    padded = torch.cat([edge_log_probs, edge_log_probs.new_zeros(len(edge_log_probs), 1)], dim=1)
    return padded[:, torch.from_numpy(trie.form_edges)].sum(dim=2)


def on_tree_tokens(trie: AnswerTrie, decisions: np.ndarray, vocabulary: int) -> torch.Tensor:
    """(len(decisions), V) bool: the tokens that some valid conversation continues with at these decisions."""
    edges = trie.decision_edges[decisions]
    row, column = np.nonzero((edges != NONE) & ~trie.is_exit[edges])
    table = torch.zeros(len(decisions), vocabulary, dtype=torch.bool)
    table[torch.from_numpy(row), torch.from_numpy(trie.edge_token[edges[row, column]])] = True
    return table


def chosen_log_probs(model: PreTrainedModel, trie: AnswerTrie, edges: np.ndarray) -> torch.Tensor:
    """Log-probabilities in nats of sampled edges, with their graph, from one pass over the sampled conversations alone.

    Args:
        model: a model whose batch axis is the run.
        trie: the tree.
        edges: (R, G, L) edge ids, padded with -1.

    Returns:
        (R, G, L), zero at the padding.
    """
    pack = pack_nodes(trie, np.stack([trie.nodes_for(run) for run in edges]))
    run, episode, position = np.nonzero(edges != NONE)
    chosen = edges[run, episode, position]
    decision = trie.edge_decision[chosen]
    keep, place = np.unique(pack.slot[run, trie.decision_node[decision]], return_inverse=True)
    logits = forward(model, pack, 1, torch.from_numpy(keep)).float()  # (R, T', V)
    token = np.where(trie.is_exit[chosen], 0, trie.edge_token[chosen])
    scores = logits[run, place, token]
    left = np.nonzero(trie.is_exit[chosen])[0]
    if len(left):
        rows = logits[run[left], place[left]].masked_fill(on_tree_tokens(trie, decision[left], logits.shape[2]), -torch.inf)
        scores = scores.index_put((torch.from_numpy(left),), rows.logsumexp(dim=1))
    scores = scores - logits.logsumexp(dim=2)[run, place]
    return torch.zeros(edges.shape).index_put((torch.from_numpy(run), torch.from_numpy(episode), torch.from_numpy(position)), scores)
