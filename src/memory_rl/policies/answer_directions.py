"""The directions along which the head tells answers apart, and a model that writes nothing along them.

A random body writes something along them behind every prompt. To make all answers equally likely nonetheless,
a head that is trained alone gives up the differences between the rows of the answers' tokens, as soon as
prompts and turns span its input: then no adapter beneath it can tell answers apart. Body and head trained
together keep the rows, but make all prompts look the same (docs/findings.md). So both are left as they are,
but for two things: the last matrix of the body is changed as little as will do, and the head is trained in
all other directions alone.

For models of the Llama kind whose last norm still has the gain 1; that is, for the built-in one before its
warm-up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from memory_rl.policies.answer_trie import NONE, AnswerTrie
from memory_rl.policies.packed import decision_states, pack_all

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_RANK_CUTOFF = 1e-3  # of the largest singular value: what is smaller would ask for huge weights


def open_answers(model: PreTrainedModel, trie: AnswerTrie) -> Callable[[], None]:
    """Makes all answers' tokens equally likely at each choice between them, in place.

    This is exact up to what the last matrix of the body can do.

    The logits of a and b differ by (w_a - w_b) . h / rms(h). The span of all (w_a - w_b), of A tokens, is
    taken out of h at the decisions that have several of them to choose from, by the least change of the last
    MLP's output matrix: least squares of the least norm, exact while such decisions are no more than its
    inputs.

    Returns:
        What puts the head's rows back, along these directions, to what they are now; to be called after each
        step of its training.
    """
    head = model.get_output_embeddings().weight
    tokens = np.unique(trie.edge_token[~trie.is_exit])
    rows = head.detach()[tokens]
    basis = torch.linalg.qr((rows[1:] - rows[0]).T).Q  # (d, A - 1)
    _write_nothing_along(basis, model, trie)
    kept = rows @ basis

    def keep() -> None:
        with torch.no_grad():
            head[tokens] += (kept - head[tokens] @ basis) @ basis.T

    return keep


def _write_nothing_along(basis: torch.Tensor, model: PreTrainedModel, trie: AnswerTrie) -> None:
    """Takes these directions (d, C) out of the hidden state at each choice, by the last MLP's output."""
    pack, prompts, edges = pack_all(trie), range(trie.num_prompts), trie.decision_edges
    is_choice = torch.from_numpy(((edges != NONE) & ~trie.is_exit[edges]).sum(axis=1) > 1)
    last = model.base_model.layers[-1].mlp.down_proj
    inputs, written = (
        decision_states(model, trie, pack, prompts, module)[:, is_choice].flatten(0, 1).cpu().double()
        for module in (last, model.base_model.norm)
    )
    change = torch.linalg.lstsq(
        inputs, -written @ basis.cpu().double(), rcond=_RANK_CUTOFF, driver="gelsd"
    ).solution  # (inner, C)
    with torch.no_grad():
        last.weight += basis @ change.T.to(basis)
