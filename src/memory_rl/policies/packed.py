"""One forward pass over a prompt and a tree of tokens behind it, for models of the Llama kind.

Each tree token attends to the prompt and to its ancestors, and its position is its depth, so that its output
is the one that a plain forward pass over its own conversation would give.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from memory_rl.policies.answer_trie import NONE, AnswerTrie
from memory_rl.policies.lean import LeanLlama

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

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
        if len(self.keys) == 0:
            return np.full(len(nodes), self.prompt_length - 1)
        found = np.searchsorted(self.keys, rows * (self.num_nodes + 1) + nodes).clip(max=len(self.keys) - 1)
        return np.where(nodes == NONE, self.prompt_length - 1, self.places[found])

    def kept(self, rows: np.ndarray, nodes: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """The places that a pass must give logits for, and which of them each of these nodes stands at."""
        keep, which = np.unique(self.slots(rows, nodes), return_inverse=True)
        return torch.from_numpy(keep), which

    def first_rows(self, nodes: np.ndarray) -> np.ndarray:
        """A row in which each of these nodes stands; the prompt's last token stands in all."""
        row, node = np.divmod(self.keys, self.num_nodes + 1)
        rows = np.zeros(self.num_nodes + 1, dtype=np.int64)  # its last entry is for node -1
        rows[node[::-1]] = row[::-1]
        return rows[nodes]


def ranks(rows: np.ndarray, num_rows: int) -> np.ndarray:
    """The number of each thing among those of its row, of things in order of rows (n,): (n,)."""
    counts = np.bincount(rows, minlength=num_rows)
    return np.arange(len(rows)) - (counts.cumsum() - counts)[rows]


def kept_places(
    model: PreTrainedModel | LeanLlama, rows: np.ndarray, places: np.ndarray, num_rows: int
) -> tuple[torch.Tensor, np.ndarray]:
    """The places that a pass must give logits for, and which of them each of these (n,) is.

    Each row's own (B, T') where the pass can, else those of any row (T',).
    """
    if not isinstance(model, LeanLlama):
        shared, which = np.unique(places, return_inverse=True)
        return torch.from_numpy(shared), which
    size = int(places.max()) + 1
    different, which = np.unique(rows * size + places, return_inverse=True)
    row, place = np.divmod(different, size)
    rank = ranks(row, num_rows)
    keep = np.zeros((num_rows, int(rank.max()) + 1), dtype=np.int64)
    keep[row, rank] = place
    return torch.from_numpy(keep), rank[which]


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
    length = len(trie.prompt)
    # Parents stand before their children, since they have the lower numbers.
    place = length + np.arange(len(keys)) - (counts.cumsum() - counts)[row]
    tokens = np.full((batch, length + int(counts.max(initial=0))), trie.prompt[-1])
    positions = np.zeros_like(tokens)
    tokens[:, :length], positions[:, :length] = trie.prompt, np.arange(length)
    tokens[row, place], positions[row, place] = trie.node_token[node], length + trie.node_depth[node]
    allowed = np.zeros((*tokens.shape, tokens.shape[1]), dtype=bool)
    allowed[:, :, :length] = True
    allowed[:, :length, :length] = np.tri(length, dtype=bool)
    mask = torch.zeros(allowed.shape)
    pack = Pack(
        torch.from_numpy(tokens),
        torch.from_numpy(positions),
        mask[:, None],
        keys,
        place,
        trie.num_nodes,
        length,
    )
    above, depth = pack.slots(row, trie.node_parent[node]), trie.node_depth[node]
    for level in np.unique(depth):  # a node sees what its parent sees, and itself
        at = np.nonzero(depth == level)[0]
        allowed[row[at], place[at]] = allowed[row[at], above[at]]
        allowed[row[at], place[at], place[at]] = True
    mask.masked_fill_(~torch.from_numpy(allowed), torch.finfo(torch.float32).min)
    return pack


def _with_ancestors(trie: AnswerTrie, rows: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Sorted keys of the nodes and of all that they descend from, see `Pack`."""
    found, size = np.zeros(0, dtype=np.int64), trie.num_nodes + 1
    while len(nodes):
        new = np.setdiff1d((rows * size + nodes)[nodes != NONE], found)
        found = np.union1d(found, new)
        rows, nodes = np.divmod(new, size)
        nodes = trie.node_parent[nodes]
    return found


def pack_all(trie: AnswerTrie) -> Pack:
    """The whole tree: one sequence, or several, since attention costs the square of the length.

    Each piece repeats the prompt and the ancestors of its nodes; with so many nodes a piece, that is little.
    """
    pieces = math.ceil(trie.num_nodes / (_NODES_A_PROMPT_TOKEN * len(trie.prompt))) or 1
    nodes = np.arange(trie.num_nodes)
    sizes = [len(part) for part in np.array_split(nodes, pieces)]
    return pack_nodes(trie, np.repeat(np.arange(pieces), sizes), nodes, pieces)


def tensor_beside(other: torch.Tensor, array: np.ndarray) -> torch.Tensor:
    """The array on the device of a tensor."""
    return torch.from_numpy(array).to(other.device)


def attention_mask(model: PreTrainedModel | LeanLlama, mask: torch.Tensor) -> torch.Tensor:
    """An additive mask on the model's device and in its type, in whose range it stays."""
    moved = mask.to(model.device, model.dtype)
    return moved if moved.dtype == mask.dtype else moved.clamp_(min=torch.finfo(model.dtype).min)


def ask(
    model: PreTrainedModel | LeanLlama,
    tokens: torch.Tensor,
    positions: torch.Tensor,
    mask: torch.Tensor,
    keep: torch.Tensor,
    cache: Cache | None = None,
) -> torch.Tensor:
    """Logits (B, T', V) of the kept places of rows of tokens (B, T), on the model's device.

    See `kept_places`. If there is a cache, the rows continue what it holds, and it takes them in.
    """
    tokens, positions, keep = (part.to(model.device) for part in (tokens, positions, keep))
    if isinstance(model, LeanLlama):
        return model(tokens, positions, mask, keep, cache)
    logits: torch.Tensor = model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=keep,
    ).logits
    return logits


def forward(
    model: PreTrainedModel | LeanLlama, pack: Pack, keep: torch.Tensor, begin: np.ndarray, batch: int = 1
) -> torch.Tensor:
    """Logits (batch B, T', V) of the kept places of a pack of B rows, on the model's device.

    Args:
        model: a model whose batch axis is the run.
        pack: that is repeated as a batch.
        keep: (T',) places.
        begin: the tokens of the prompt (P,), or of each row's own (batch B, P).
        batch: how often the pack is repeated.
    """
    tokens = pack.tokens.repeat(batch, 1)
    tokens[:, : pack.prompt_length] = torch.from_numpy(begin)
    mask = attention_mask(model, pack.mask)
    masks = mask.repeat(batch, 1, 1, 1) if len(mask) > 1 else mask.expand(batch, -1, -1, -1)
    return ask(model, tokens, pack.positions.repeat(batch, 1), masks, keep)


def all_edge_log_probs(
    model: PreTrainedModel | LeanLlama, trie: AnswerTrie, pack: Pack, prompts: np.ndarray
) -> torch.Tensor:
    """Log-probability in nats of every edge behind each of these prompts (batch,): (batch, E)."""
    row = pack.first_rows(trie.decision_node)
    keep, place = pack.kept(row, trie.decision_node)
    begin = trie.prompts[np.repeat(prompts, len(pack.tokens))]
    logits = forward(model, pack, keep, begin, len(prompts)).unflatten(0, (len(prompts), -1))
    return edge_log_probs(trie, logits[:, row, place])


def decision_states(
    model: PreTrainedModel,
    trie: AnswerTrie,
    pack: Pack,
    prompts: Iterable[int] = (0,),
    module: torch.nn.Module | None = None,
) -> torch.Tensor:
    """What the head, or a module beneath it, sees at each decision: (batch, D, d), without its graph.

    For some of the trie's prompts (batch,).
    """
    row = pack.first_rows(trie.decision_node)
    place = pack.slots(row, trie.decision_node)
    states = list[torch.Tensor]()

    def keep(_: torch.nn.Module, given: tuple[torch.Tensor]) -> None:
        states.append(given[0][row, place])

    watched = model.get_output_embeddings() if module is None else module
    with torch.no_grad(), watched.register_forward_pre_hook(keep):
        for prompt in prompts:
            forward(model, pack, torch.arange(pack.tokens.shape[1]), trie.prompts[prompt])
    return torch.stack(states)


def edge_log_probs(trie: AnswerTrie, logits: torch.Tensor) -> torch.Tensor:
    """From the logits at all decisions to the log-probabilities of edges: (batch, D, V) to (batch, E)."""
    logits, chosen = logits.float(), ~trie.is_exit
    normaliser = logits.logsumexp(dim=2)
    exits = _exit_scores(trie, np.arange(logits.shape[1]), logits)
    scores = logits[:, trie.edge_decision[chosen], trie.edge_token[chosen]]
    return torch.cat([scores, exits], dim=1) - normaliser[:, trie.edge_decision]


def form_log_probs(trie: AnswerTrie, edge_log_probs: torch.Tensor, num_forms: int) -> torch.Tensor:
    """Log-probability in nats of the first forms, with its graph: (batch, E) to (batch, num_forms)."""
    padded = torch.nn.functional.pad(edge_log_probs, (0, 1))  # the padding of a path is its last entry, -1
    return padded[:, trie.form_edges[:num_forms]].sum(dim=2)


def on_tree_tokens(trie: AnswerTrie, decisions: np.ndarray, vocabulary: int) -> torch.Tensor:
    """(len(decisions), V) bool: the tokens that some valid conversation continues with at these decisions."""
    edges = trie.decision_edges[decisions]
    row, column = np.nonzero((edges != NONE) & ~trie.is_exit[edges])
    table = torch.zeros(len(decisions), vocabulary, dtype=torch.bool)
    table[torch.from_numpy(row), torch.from_numpy(trie.edge_token[edges[row, column]])] = True
    return table


def _exit_scores(trie: AnswerTrie, decisions: np.ndarray, logits: torch.Tensor) -> torch.Tensor:
    """The logits of all tokens that leave the tree at these decisions: (..., D, V) to (..., D)."""
    on_tree = on_tree_tokens(trie, decisions, logits.shape[-1]).to(logits.device)
    return logits.masked_fill(on_tree, -torch.inf).logsumexp(dim=-1)


def decision_log_probs(trie: AnswerTrie, decisions: np.ndarray, logits: torch.Tensor) -> torch.Tensor:
    """Log-probability in nats of each edge of some decisions, the exits with them, -inf at the padding.

    Args:
        trie: the tree.
        decisions: (n,).
        logits: (n, V) at these decisions.

    Returns:
        (n, C), in the order of `AnswerTrie.decision_edges`.
    """
    edges, logits = trie.decision_edges[decisions], logits.float()
    scores = logits.gather(1, tensor_beside(logits, np.where(trie.is_exit[edges], 0, trie.edge_token[edges])))
    exits, is_exit = _exit_scores(trie, decisions, logits), tensor_beside(logits, trie.is_exit[edges])
    scores = torch.where(is_exit, exits[:, None], scores) - logits.logsumexp(dim=1)[:, None]
    return scores.masked_fill(tensor_beside(logits, edges == NONE), -torch.inf)


@dataclass(frozen=True)
class PathLogits:
    """The logits at each token of sampled conversations, with their graph.

    Attributes:
        where: (run, episode, position) of each of n tokens.
        chosen: (n,) the edge that each takes.
        logits: (R, T', V) at the places that were kept.
        place: (n,) which of them each token was chosen from.
        shape: (R, G, L).
    """

    where: tuple[np.ndarray, ...]
    chosen: np.ndarray
    logits: torch.Tensor
    place: np.ndarray
    shape: tuple[int, ...]

    @classmethod
    def of_edges(
        cls,
        model: PreTrainedModel | LeanLlama,
        trie: AnswerTrie,
        edges: np.ndarray,
        prompts: np.ndarray | int,
    ) -> PathLogits:
        """By a pass over these conversations alone, see `chosen_log_probs`."""
        where = np.nonzero(edges != NONE)
        chosen = edges[where]
        nodes = trie.decision_node[trie.edge_decision[chosen]]
        pack = pack_nodes(trie, where[0], nodes, len(edges))
        keep, place = kept_places(model, where[0], pack.slots(where[0], nodes), len(edges))
        logits = forward(model, pack, keep, trie.prompts[prompts]).float()
        return cls(where, chosen, logits, place, edges.shape)

    def at(self, tokens: np.ndarray | slice = slice(None)) -> torch.Tensor:
        """The logits that some of the tokens were chosen from: (n, V)."""
        return self.logits[self.where[0][tokens], self.place[tokens]]


def chosen_log_probs(
    model: PreTrainedModel | LeanLlama, trie: AnswerTrie, edges: np.ndarray, prompts: np.ndarray | int = 0
) -> torch.Tensor:
    """Log-probabilities in nats of sampled edges, with their graph, by a pass over them alone.

    Args:
        model: a model whose batch axis is the run.
        trie: the tree.
        edges: (R, G, L) edge ids, padded with -1.
        prompts: which of the trie's prompts all rows begin with, or each of them (R,).

    Returns:
        (R, G, L), zero at the padding.
    """
    path = PathLogits.of_edges(model, trie, edges, prompts)
    chosen, logits, run = path.chosen, path.logits, path.where[0]
    token = np.where(trie.is_exit[chosen], 0, trie.edge_token[chosen])
    scores = logits[run, path.place, token]
    left = np.nonzero(trie.is_exit[chosen])[0]
    if len(left):
        scores[left] = _exit_scores(trie, trie.edge_decision[chosen[left]], path.at(left))
    log_probs = torch.zeros(edges.shape, device=logits.device)
    log_probs[path.where] = scores - logits.logsumexp(dim=2)[run, path.place]
    return log_probs


def path_decision_log_probs(
    model: PreTrainedModel | LeanLlama, trie: AnswerTrie, edges: np.ndarray, prompts: np.ndarray | int = 0
) -> torch.Tensor:
    """Log-probabilities in nats of all edges of each decision on sampled paths, see `chosen_log_probs`.

    Returns:
        (R, G, L, C), in the order of `AnswerTrie.decision_edges`; -inf for edges that do not exist, and at
        the padding for all but the first, which is sure.
    """
    path = PathLogits.of_edges(model, trie, edges, prompts)
    log_probs = torch.full((*edges.shape, trie.decision_edges.shape[1]), -torch.inf)
    log_probs[..., 0] = 0.0
    log_probs = log_probs.to(path.logits.device)
    log_probs[path.where] = decision_log_probs(trie, trie.edge_decision[path.chosen], path.at())
    return log_probs
