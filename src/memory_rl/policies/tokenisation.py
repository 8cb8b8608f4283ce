"""Conversations as tokens: which tokens the user's turns force, and which the model has to choose.

An instruct model gets its chat template, a base model the plain text. A reply ends with the tokenizer's end-of-sequence token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from memory_rl.errors import ModelError
from memory_rl.policies.answer_trie import AnswerTrie, TokenTurn, build_trie, build_trie_of_replies

Turn = tuple[str, str]

_REPLIES_AT_ONCE = 2**16


def tokenise_all(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Turn]], choices: np.ndarray, first_prompts: Sequence[str] | None = None
) -> AnswerTrie:
    """The answer trie of all valid conversations, as this tokenizer writes them.

    Args:
        tokenizer: of the model.
        conversations: F conversations of K turns, with one first turn of the user.
        choices: (F, K) what each turn of each conversation answers.
        first_prompts: M first turns of the user, if there are others beside that of the conversations.

    Raises:
        ModelError: if the tokenizer cannot write a reply, or writes two answers in the same way, or M prompts in different lengths.
    """
    try:
        if choices.shape[1] == 1:
            trie = _trie_of_replies(tokenizer, conversations, choices)
        else:
            trie = build_trie([tokenise(tokenizer, conversation) for conversation in conversations], choices)
        return trie if first_prompts is None else replace(trie, prompts=_tokens_of_prompts(tokenizer, first_prompts, conversations[0][0][1]))
    except ValueError as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"model_name={tokenizer.name_or_path!r} has a tokenizer in which {error}: use another model.") from error


def _trie_of_replies(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Turn]], choices: np.ndarray) -> AnswerTrie:
    """Conversations of one turn: the prompt is written once, and the replies thousands at a time."""
    [(prompt, _)] = tokenise(tokenizer, conversations[0])
    replies = [conversation[0][1] for conversation in conversations]
    tokens = [ids for start in range(0, len(replies), _REPLIES_AT_ONCE) for ids in _tokens_of_replies(tokenizer, replies[start : start + _REPLIES_AT_ONCE])]
    return build_trie_of_replies(prompt, tokens, choices)


def _tokens_of_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], reply: str) -> np.ndarray:
    """(M, P) tokens of each first turn of the user."""
    tokens = [tokenise(tokenizer, [(prompt, reply)])[0][0] for prompt in prompts]
    if len({len(ids) for ids in tokens}) > 1:
        raise ValueError("the prompts of several secrets have different lengths")
    return np.array(tokens)


def tokenise(tokenizer: PreTrainedTokenizerBase, conversation: Sequence[Turn]) -> list[TokenTurn]:
    """The tokens of each turn: (forced tokens of the user's turn, tokens of the reply with its end-of-turn token).

    Raises:
        ModelError: if the tokenizer cannot write a reply, or its template rewrites earlier turns.
    """
    if tokenizer.eos_token is None:
        raise ModelError(f"model_name={tokenizer.name_or_path!r} has a tokenizer without an end-of-sequence token: use a model that has one.")
    turns, written = [], ""
    for step in range(len(conversation)):
        prompt = _render(tokenizer, conversation, step)
        if not prompt.startswith(written):
            raise ModelError(
                f"model_name={tokenizer.name_or_path!r} has a chat template that rewrites earlier turns: use env_type=single_step or another model."
            )
        forced = tokenizer.encode(prompt[len(written) :], add_special_tokens=step == 0 and tokenizer.chat_template is None)
        turns.append((forced, *_tokens_of_replies(tokenizer, [conversation[step][1]])))
        written = prompt + conversation[step][1] + tokenizer.eos_token
    return turns


def _render(tokenizer: PreTrainedTokenizerBase, conversation: Sequence[Turn], step: int) -> str:
    """The text up to where the reply of this step begins."""
    if tokenizer.chat_template is None:
        earlier = "".join(f"{said}\n{reply}{tokenizer.eos_token}" for said, reply in conversation[:step])
        return f"{earlier}{conversation[step][0]}\n"
    messages = [message for said, reply in conversation[:step] for message in (_message("user", said), _message("assistant", reply))]
    messages.append(_message("user", conversation[step][0]))
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _tokens_of_replies(tokenizer: PreTrainedTokenizerBase, replies: Sequence[str]) -> list[list[int]]:
    """The tokens of each reply and the end-of-sequence token."""
    fast = tokenizer.backend_tokenizer
    tokens = [encoding.ids for encoding in fast.encode_batch_fast(replies, add_special_tokens=False)]
    for reply, written in zip(replies, fast.decode_batch(tokens, skip_special_tokens=False), strict=True):
        if written.strip() != reply:
            raise ModelError(
                f"model_name={tokenizer.name_or_path!r} has a tokenizer that cannot write the answer {reply}: use a model whose vocabulary has the ten digits."
            )
    return [[*ids, tokenizer.eos_token_id] for ids in tokens]
