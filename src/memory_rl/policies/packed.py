"""One forward pass over a prompt and a tree of tokens behind it, for a causal language model of the Llama
kind.

Each tree token attends to the prompt and to its ancestors, and its position is its depth, so that its output
is the one that a plain forward pass over its own conversation would give.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import PreTrainedModel

from memory_rl.policies.answer_trie import EXIT_TOKEN, NONE, AnswerTrie

_NODES_A_PROMPT_TOKEN = 8  # of a piece of a large tree: an eighth of the work is repeated for its prompt


@dataclass(frozen=True)
class Pack:
    """Token rows for B sequences of the same length P + W: the prompt, and up to W nodes of the trie.

    Attributes:
        tokens, positions: (B, P + W).
        mask: (B, 1, P + W, P + W) additive attention mask.
        keys: sorted, row (M + 1) + node for each node of each row; M is the number of nodes of the trie.
        places: where each of them stands in its row.
        num_nodes: M.
        prompt_length: P.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    keys: np.ndarray
    places: np.ndarray
    num_nodes: int
    prompt_length: int

    def slots(self, rows: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        """Where these nodes, which must be there, stand in these rows; node -1 is the prompt's last token."""
        found = np.searchsorted(self.keys, rows * (self.num_nodes + 1) + nodes).clip(
            max=max(0, len(self.keys) - 1)
        )
        return np.where(nodes == NONE, self.prompt_length - 1, self.places[found] if len(self.keys) else 0)

    def first_rows(self, nodes: np.ndarray) -> np.ndarray:
        """A row in which each of these nodes stands; the prompt's last token stands in all."""
        row, node = np.divmod(self.keys, self.num_nodes + 1)
        order = np.lexsort((row, node))
        found = np.searchsorted(node[order], nodes).clip(max=max(0, len(order) - 1))
        return np.where(nodes == NONE, 0, row[order][found] if len(order) else 0)


def pack_nodes(trie: AnswerTrie, rows: np.ndarray, nodes: np.ndarray, batch: int) -> Pack:
    """Packs the prompt and some nodes of the trie, with all their ancestors.

    Args:
        trie: the tree.
        rows: (n,) which of the B rows wants the node.
        nodes: (n,) nodes, in any order and with repetitions; -1 is the prompt's last token, which is always
            there.
        batch: B.
    """
    keys = _with_ancestors(trie, rows, nodes)
    row, node = np.divmod(keys, trie.num_nodes + 1)
    counts = np.bincount(row, minlength=batch)
    width, prompt_length = int(counts.max(initial=0)), len(trie.prompt)
    column = (
        np.arange(len(keys)) - (counts.cumsum() - counts)[row]
    )  # parents before children, since they have the lower numbers
    tokens = np.full((batch, prompt_length + width), trie.prompt[-1])
    positions = np.zeros_like(tokens)
    tokens[:, :prompt_length], positions[:, :prompt_length] = trie.prompt, np.arange(prompt_length)
    tokens[row, prompt_length + column] = trie.node_token[node]
    positions[row, prompt_length + column] = prompt_length + trie.node_depth[node]
    allowed = np.zeros((batch, prompt_length + width, prompt_length + width), dtype=bool)
    allowed[:, :, :prompt_length] = True
    allowed[:, :prompt_length, :prompt_length] = np.tri(prompt_length, dtype=bool)
    pack = Pack(
        torch.from_numpy(tokens),
        torch.from_numpy(positions),
        torch.zeros(allowed.shape),
        keys,
        prompt_length + column,
        trie.num_nodes,
        prompt_length,
    )
    viewer, seen = np.arange(len(keys)), node
    while len(viewer):
        allowed[row[viewer], pack.places[viewer], pack.slots(row[viewer], seen)] = True
        seen = trie.node_parent[seen]
        viewer, seen = viewer[seen != NONE], seen[seen != NONE]
    pack.mask.masked_fill_(~torch.from_numpy(allowed), torch.finfo(torch.float32).min)
    return replace(pack, mask=pack.mask[:, None])


def _with_ancestors(trie: AnswerTrie, rows: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Sorted keys of the nodes and of all that they descend from; see `Pack`."""
    found = []
    rows, nodes = rows[nodes != NONE], nodes[nodes != NONE]
    while len(nodes):
        keys = np.unique(rows * (trie.num_nodes + 1) + nodes)
        found.append(keys)
        rows, nodes = np.divmod(keys, trie.num_nodes + 1)
        nodes = trie.node_parent[nodes]
        rows, nodes = rows[nodes != NONE], nodes[nodes != NONE]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)


def pack_all(trie: AnswerTrie) -> Pack:
    """The whole tree: one sequence, or for a large tree several, since attention costs the square of the
    length.

    Each piece repeats the prompt and the ancestors of its nodes; with so many nodes a piece, that is little.
    """
    pieces = math.ceil(trie.num_nodes / (_NODES_A_PROMPT_TOKEN * len(trie.prompt))) or 1
    parts = np.array_split(np.arange(trie.num_nodes), pieces)
    return pack_nodes(
        trie, np.repeat(np.arange(pieces), [len(part) for part in parts]), np.arange(trie.num_nodes), pieces
    )


def tensor_beside(other: torch.Tensor, array: np.ndarray) -> torch.Tensor:
    """The array on the device of a tensor."""
    return torch.from_numpy(array).to(other.device)


def attention_mask(model: PreTrainedModel, mask: torch.Tensor) -> torch.Tensor:
    """An additive mask on the model's device and in its type, in whose range it stays."""
    return (
        mask.to(model.device, model.dtype).clamp_(min=torch.finfo(model.dtype).min)
        if model.dtype != mask.dtype
        else mask.to(model.device)
    )


def forward(
    model: PreTrainedModel, pack: Pack, batch: int, keep: torch.Tensor, prompts: np.ndarray | None = None
) -> torch.Tensor:
    """Logits (batch B, T', V) of the kept places of a pack of B rows, on the model's device.

    Each member of a batch begins with its own of the prompts (batch, P), if there are some.
    """
    tokens = pack.tokens.repeat(batch, 1)
    if prompts is not None:
        tokens[:, : pack.prompt_length] = torch.from_numpy(prompts).repeat_interleave(len(pack.tokens), dim=0)
    mask = attention_mask(model, pack.mask)
    logits: torch.Tensor = model(
        input_ids=tokens.to(model.device),
        attention_mask=mask.repeat(batch, 1, 1, 1) if len(mask) > 1 else mask.expand(batch, -1, -1, -1),
        position_ids=pack.positions.to(model.device).repeat(batch, 1),
        use_cache=False,
        logits_to_keep=keep.to(model.device),
    ).logits
    return logits


def all_edge_log_probs(
    model: PreTrainedModel, trie: AnswerTrie, pack: Pack, batch: int, prompts: np.ndarray | None = None
) -> torch.Tensor:
    """Log-probability in nats of every edge given its decision: (batch, E); each member of the batch begins
    with its own of the trie's prompts (batch,).
    """
    row, place = decision_slots(trie, pack)
    keep, kept = np.unique(place, return_inverse=True)
    begin = None if prompts is None else trie.prompts[prompts]
    logits = forward(model, pack, batch, torch.from_numpy(keep), begin).unflatten(0, (batch, -1))
    return edge_log_probs(trie, logits[:, tensor_beside(logits, row), tensor_beside(logits, kept)])


def decision_slots(trie: AnswerTrie, pack: Pack) -> tuple[np.ndarray, np.ndarray]:
    """(D,) the row and (D,) the place in it where each decision stands in a pack of the whole tree."""
    row = pack.first_rows(trie.decision_node)
    return row, pack.slots(row, trie.decision_node)


def decision_states(
    model: PreTrainedModel,
    trie: AnswerTrie,
    pack: Pack,
    prompts: np.ndarray | None = None,
    module: torch.nn.Module | None = None,
) -> torch.Tensor:
    """What the model's head, or a module beneath it, sees at each decision behind some of the trie's prompts
    (batch,), without its graph: (batch, D, d).
    """
    states, inputs = [], list[torch.Tensor]()
    with (
        torch.no_grad(),
        nullcontext()
        if module is None
        else module.register_forward_pre_hook(lambda _, given: inputs.append(given[0])),
    ):
        mask, positions = attention_mask(model, pack.mask), pack.positions.to(model.device)
        row, place = decision_slots(trie, pack)
        for prompt in [0] if prompts is None else prompts:
            tokens = pack.tokens.clone()
            tokens[:, : pack.prompt_length] = torch.from_numpy(trie.prompts[prompt])
            seen = model.base_model(
                input_ids=tokens.to(model.device),
                attention_mask=mask,
                position_ids=positions,
                use_cache=False,
            ).last_hidden_state
            if module is not None:
                seen = inputs.pop()
            states.append(seen[tensor_beside(seen, row), tensor_beside(seen, place)])
    return torch.stack(states)


def edge_log_probs(trie: AnswerTrie, logits: torch.Tensor) -> torch.Tensor:
    """From the logits at all decisions, (batch, D, V), to the log-probability in nats of every edge, (batch,
    E).
    """
    logits = logits.float()
    normaliser = logits.logsumexp(dim=2)
    exits = logits.masked_fill(
        on_tree_tokens(trie, np.arange(logits.shape[1]), logits.shape[2]).to(logits.device), -torch.inf
    ).logsumexp(dim=2)
    decision = tensor_beside(logits, trie.edge_decision)
    is_exit = tensor_beside(logits, trie.is_exit)
    token = tensor_beside(logits, np.where(trie.is_exit, 0, trie.edge_token))
    return torch.where(is_exit, exits[:, decision], logits[:, decision, token]) - normaliser[:, decision]


def form_log_probs(trie: AnswerTrie, edge_log_probs: torch.Tensor) -> torch.Tensor:
    """Log-probability in nats of every valid conversation, with its graph: (batch, E) to (batch, F)."""
    padded = torch.cat([edge_log_probs, edge_log_probs.new_zeros(len(edge_log_probs), 1)], dim=1)
    return padded[:, tensor_beside(padded, trie.form_edges)].sum(dim=2)


def on_tree_tokens(trie: AnswerTrie, decisions: np.ndarray, vocabulary: int) -> torch.Tensor:
    """(len(decisions), V) bool: the tokens that some valid conversation continues with at these decisions."""
    edges = trie.decision_edges[decisions]
    row, column = np.nonzero((edges != NONE) & ~trie.is_exit[edges])
    table = torch.zeros(len(decisions), vocabulary, dtype=torch.bool)
    table[torch.from_numpy(row), torch.from_numpy(trie.edge_token[edges[row, column]])] = True
    return table


def decision_log_probs(trie: AnswerTrie, decisions: np.ndarray, logits: torch.Tensor) -> torch.Tensor:
    """Log-probability in nats of each edge of some decisions, the exits with them, -inf at the padding.

    Args:
        trie: the tree.
        decisions: (n,).
        logits: (n, V) at these decisions.

    Returns:
        (n, C), in the order of `AnswerTrie.decision_edges`.
    """
    edges = trie.decision_edges[decisions]
    token = trie.edge_token[edges]
    logits = logits.float()
    scores = logits.gather(1, tensor_beside(logits, np.where(token == EXIT_TOKEN, 0, token)))
    exits = logits.masked_fill(
        on_tree_tokens(trie, decisions, logits.shape[1]).to(logits.device), -torch.inf
    ).logsumexp(dim=1)
    scores = (
        torch.where(tensor_beside(logits, trie.is_exit[edges]), exits[:, None], scores)
        - logits.logsumexp(dim=1)[:, None]
    )
    return scores.masked_fill(tensor_beside(logits, edges == NONE), -torch.inf)


def chosen_log_probs(
    model: PreTrainedModel, trie: AnswerTrie, edges: np.ndarray, prompts: np.ndarray | None = None
) -> torch.Tensor:
    """Log-probabilities in nats of sampled edges, with their graph, from one pass over the sampled
    conversations alone.

    Args:
        model: a model whose batch axis is the run.
        trie: the tree.
        edges: (R, G, L) edge ids, padded with -1.
        prompts: (R,) which of the trie's prompts each row begins with; without it, the first.

    Returns:
        (R, G, L), zero at the padding.
    """
    run, episode, position = np.nonzero(edges != NONE)
    chosen = edges[run, episode, position]
    decision = trie.edge_decision[chosen]
    pack = pack_nodes(trie, run, trie.decision_node[decision], len(edges))
    keep, place = np.unique(pack.slots(run, trie.decision_node[decision]), return_inverse=True)
    if prompts is not None:
        pack.tokens[:, : pack.prompt_length] = torch.from_numpy(trie.prompts[prompts])
    logits = forward(model, pack, 1, torch.from_numpy(keep)).float()  # (R, T', V)
    token = np.where(trie.is_exit[chosen], 0, trie.edge_token[chosen])
    at_run, at_place = tensor_beside(logits, run), tensor_beside(logits, place)
    scores = logits[at_run, at_place, tensor_beside(logits, token)]
    left = np.nonzero(trie.is_exit[chosen])[0]
    if len(left):
        at_left = tensor_beside(logits, left)
        on_tree = on_tree_tokens(trie, decision[left], logits.shape[2]).to(logits.device)
        rows = logits[at_run[at_left], at_place[at_left]].masked_fill(on_tree, -torch.inf)
        scores = scores.index_put((at_left,), rows.logsumexp(dim=1))
    scores = scores - logits.logsumexp(dim=2)[at_run, at_place]
    where = (at_run, tensor_beside(scores, episode), tensor_beside(scores, position))
    return torch.zeros(edges.shape, device=scores.device).index_put(where, scores)
