"""Before anything is measured: does the packed pass give what a plain forward pass gives?

A tree of answers behind one prompt is scored with a mask and positions of its own (packed.py). Layers that
carry a state from token to token, or that see a window of them, take no heed of these, and the answers would
run into each other without a word. So a few conversations are scored in every way that the policy uses, and
each is compared with a forward pass over its tokens alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._pytree import tree_map

from memory_rl.errors import ModelError, hushed, one_line
from memory_rl.policies.answer_trie import NONE, AnswerTrie
from memory_rl.policies.asking import step_by_step
from memory_rl.policies.lean import LeanLlama, lean
from memory_rl.policies.packed import all_edge_log_probs, chosen_log_probs, form_log_probs, pack_all

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLERANCE = 1e-3
"""Bits by which two ways of scoring an answer may differ, in float32: rounding alone makes less than 1e-4."""
_SHARE, _ROUNDING = 3e-4, 2e-5
_TRIED = 2**10
_HALVES = (torch.bfloat16, torch.float16)
_SUCH_AS = "such as a Llama, Qwen3, Mistral, Gemma or OLMo 2"


def check_packed_pass(model: PreTrainedModel, trie: AnswerTrie, *, scores_all: bool) -> None:
    """Compares the log-probability of a few answers with that of a plain pass over each conversation.

    Args:
        model: as it was loaded, without adapters.
        trie: the valid conversations.
        scores_all: whether the policy scores all answers; else it asks token by token, with a cache.

    Raises:
        ModelError: if they differ by more than `TOLERANCE`, or by more than a part of what the model's own
            log-probabilities differ by where that is little, as in a model of small random weights; or if the
            model cannot be asked in that way.
    """
    kind = f"model_name={str(model.name_or_path)!r} is a {type(model).__name__}"
    try:
        with hushed("transformers"):  # about kernels that are not installed
            bits, spread = _difference(model, trie, scores_all)
    except Exception as error:  # whatever a family raises that does not know our mask, positions or cache
        why = one_line(f"{type(error).__name__}: {error}")
        otherwise = "" if scores_all else ", or scoring=all with an N for which it works"
        raise ModelError(
            f"{kind}, which cannot score answers that share their prompt ({why}): use a model that attends "
            f"to the whole conversation in every layer, {_SUCH_AS}{otherwise}."
        ) from error
    if not np.isfinite(bits):
        instead = "dtype=float32" if model.dtype in _HALVES else "weights that are not damaged"
        raise ModelError(f"{kind} that gives no finite log-probability in {model.dtype}: use {instead}.")
    if bits > np.clip(_SHARE * spread, _ROUNDING, TOLERANCE):
        raise ModelError(
            f"{kind}, whose answers would be scored up to {bits:.2g} bits wrongly, as happens with recurrent "
            "or convolutional layers and windows of attention: use a model that attends to the whole "
            f"conversation in every layer, {_SUCH_AS}."
        )


def _difference(model: PreTrainedModel, trie: AnswerTrie, scores_all: bool) -> tuple[float, float]:
    """The most in bits by which a way of scoring a few answers differs from the plain pass.

    And, in bits, the mean standard deviation over the vocabulary of the log-probabilities of that pass.
    """
    passes = model if scores_all else lean(model) or model
    forms, prompts = _some_forms(trie), np.unique([0, trie.num_prompts // 2, trie.num_prompts - 1])
    paths = np.repeat(trie.form_edges[forms][None], len(prompts), axis=0)
    with torch.no_grad():
        if not chosen_log_probs(passes, trie, paths, prompts).isfinite().all():
            return np.inf, 0.0
        with _in_float32(model):
            seen = np.array([[_plain(model, trie, prompt, form) for form in forms] for prompt in prompts])
            moved = chosen_log_probs(passes, trie, paths, prompts).sum(dim=2).cpu().double().numpy()
            asked = (_asked if scores_all else _stepped)(passes, trie, prompts, forms)
    off = np.max([np.abs(way - seen[..., 0]).max() for way in (moved, asked)])
    return float(off / np.log(2)), float(seen[..., 1].mean() / np.log(2))


@contextmanager
def _in_float32(model: PreTrainedModel) -> Iterator[None]:
    """A model in half precision computes in float32, where a difference is no rounding.

    Weights are converted while their module computes, so that a large model needs little more memory.
    """
    halves = dict[torch.nn.Parameter, torch.Tensor]()

    def widen(module: torch.nn.Module, given: Any, named: Any) -> Any:
        for weight in module.parameters(recurse=False):
            if weight.dtype in _HALVES:
                halves[weight], weight.data = weight.data, weight.data.float()
        return tree_map(
            lambda part: part.float() if getattr(part, "dtype", None) in _HALVES else part, (given, named)
        )

    def narrow(module: torch.nn.Module, *_: Any) -> None:
        for weight in module.parameters(recurse=False):
            weight.data = halves.pop(weight, weight.data)

    with ExitStack() as hooks:
        for module in model.modules() if model.dtype in _HALVES else ():
            hooks.enter_context(module.register_forward_pre_hook(widen, with_kwargs=True))
            hooks.enter_context(module.register_forward_hook(narrow, always_call=True))
        yield


def _some_forms(trie: AnswerTrie) -> np.ndarray:
    """The shortest conversation and the longest of the first, the last and some others, and two of these."""
    last, random = len(trie.form_edges) - 1, np.random.default_rng(0)
    forms = np.concatenate([random.integers(last + 1, size=_TRIED), [0, last]])
    edges = trie.form_edges[forms]
    ends = np.take_along_axis(edges, (edges != NONE).sum(axis=1, keepdims=True) - 1, axis=1)
    depth = trie.node_depth[trie.decision_node[trie.edge_decision[ends[:, 0]]]]
    return np.unique(forms[[depth.argmin(), depth.argmax(), 0, 1]])


def _plain(model: PreTrainedModel, trie: AnswerTrie, prompt: int, form: int) -> tuple[float, float]:
    """Log-probability in nats of all replies of a conversation, by transformers' own means alone.

    And the mean standard deviation of the log-probabilities over the vocabulary.
    """
    edges = trie.form_edges[form][trie.form_edges[form] != NONE]
    asked = trie.decision_node[trie.edge_decision[edges]]
    nodes = [asked[-1]]
    while nodes[-1] != NONE:
        nodes.append(trie.node_parent[nodes[-1]])
    tokens = np.concatenate(
        [trie.prompts[prompt], trie.node_token[nodes[-2::-1]], trie.edge_token[edges[-1:]]]
    )
    place = len(trie.prompt) + np.where(asked == NONE, NONE, trie.node_depth[asked])
    logits = model(input_ids=torch.from_numpy(tokens)[None].to(model.device), use_cache=False).logits[
        0, place
    ]
    log_probs = logits.double().cpu().log_softmax(dim=1)
    of_replies = log_probs[np.arange(len(edges)), trie.edge_token[edges]].sum()
    return float(of_replies), float(log_probs.std(dim=1).mean())


def _asked(
    model: PreTrainedModel | LeanLlama, trie: AnswerTrie, prompts: np.ndarray, forms: np.ndarray
) -> np.ndarray:
    """Log-probabilities in nats behind some prompts (P,) of some forms (F,), as all are scored: (P, F)."""
    pack, last = pack_all(trie), int(forms.max()) + 1
    of_prompts = [
        form_log_probs(trie, all_edge_log_probs(model, trie, pack, prompt), last)[0].cpu().double().numpy()
        for prompt in prompts[:, None]
    ]
    return np.stack(of_prompts)[:, forms]


def _stepped(
    model: PreTrainedModel | LeanLlama, trie: AnswerTrie, prompts: np.ndarray, forms: np.ndarray
) -> np.ndarray:
    """The same token by token, as where only some are scored."""
    return np.stack([step_by_step(model, trie, prompt, forms) for prompt in prompts])
