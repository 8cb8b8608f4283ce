"""Conversations as tokens: which tokens the user's turns force, and which the model has to choose.

An instruct model gets its chat template, a base model the plain text. A reply ends with the token that the
template itself ends an assistant's turn with (Llama 3's is not its end of text), in plain text with the
tokenizer's end-of-sequence token. A conversation only grows: each turn is written as the template writes it
when it is asked, and stays as it is, also where the template would leave out later what it wrote before
(Qwen3's empty thoughts).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jinja2
import numpy as np
from transformers import PreTrainedTokenizerBase

from memory_rl.errors import ModelError
from memory_rl.policies.answer_trie import AnswerTrie, TokenTurn, build_trie, build_trie_of_replies

Turn = tuple[str, str]

_REPLIES_AT_ONCE = 2**16
_PROBE = "3141592653"  # a reply that no template writes on its own account
# No thoughts before the answer; and Llama 3's templates write the date, which must not change from day to
# day.
_TEMPLATE_SWITCHES = {"enable_thinking": False, "date_string": "26 Jul 2024"}


def tokenise_all(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Turn]],
    choices: np.ndarray,
    first_prompts: Sequence[str] | None = None,
) -> AnswerTrie:
    """The answer trie of all valid conversations, as this tokenizer writes them.

    Args:
        tokenizer: of the model.
        conversations: F conversations of K turns, with one first turn of the user.
        choices: (F, K) what each turn of each conversation answers.
        first_prompts: M first turns of the user, if there are others beside that of the conversations.

    Raises:
        ModelError: if the tokenizer cannot write a reply, or writes two answers in the same way, or M prompts
            in different lengths.
    """
    try:
        if choices.shape[1] == 1:
            trie = _trie_of_replies(tokenizer, conversations, choices)
        else:
            writer = _writer(tokenizer)
            trie = build_trie([_tokenise(writer, conversation) for conversation in conversations], choices)
        return (
            trie
            if first_prompts is None
            else replace(trie, prompts=_tokens_of_prompts(tokenizer, first_prompts, conversations[0][0][1]))
        )
    except ValueError as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"model_name={tokenizer.name_or_path!r} has a tokenizer in which {error}: use another model."
        ) from error


def _trie_of_replies(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Turn]], choices: np.ndarray
) -> AnswerTrie:
    """Conversations of one turn: the prompt is written once, and the replies thousands at a time."""
    writer = _writer(tokenizer)
    [(prompt, _)] = _tokenise(writer, conversations[0])
    replies = [conversation[0][1] for conversation in conversations]
    tokens = [
        ids
        for start in range(0, len(replies), _REPLIES_AT_ONCE)
        for ids in writer.replies(replies[start : start + _REPLIES_AT_ONCE])
    ]
    return build_trie_of_replies(prompt, tokens, choices)


def _tokens_of_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], reply: str) -> np.ndarray:
    """(M, P) tokens of each first turn of the user."""
    tokens = [tokenise(tokenizer, [(prompt, reply)])[0][0] for prompt in prompts]
    if len({len(ids) for ids in tokens}) > 1:
        raise ValueError("the prompts of several secrets have different lengths")
    return np.array(tokens)


def tokenise(tokenizer: PreTrainedTokenizerBase, conversation: Sequence[Turn]) -> list[TokenTurn]:
    """The tokens of each turn: (forced tokens of the user's turn, tokens of the reply with its end-of-turn
    token).

    Raises:
        ModelError: if the tokenizer cannot write a reply, or its template drops or changes the replies of
            earlier turns.
    """
    return _tokenise(_writer(tokenizer), conversation)


def _tokenise(writer: _Writer, conversation: Sequence[Turn]) -> list[TokenTurn]:
    return [
        (writer.forced(conversation, step), writer.replies([reply])[0])
        for step, (_, reply) in enumerate(conversation)
    ]


@dataclass(frozen=True)
class _Writer:
    """A tokenizer, and the token that ends a reply.

    Attributes:
        tokenizer: of the model.
        end: the token's id.
        end_text: how it is written.
    """

    tokenizer: PreTrainedTokenizerBase
    end: int
    end_text: str

    def forced(self, conversation: Sequence[Turn], step: int) -> list[int]:
        """The tokens between the end of the last reply and the beginning of the next."""
        text = _render(self.tokenizer, conversation[: step + 1], self.end_text)
        if step > 0:
            text = text[self._end_of_last_reply(text, conversation[step][0], conversation[step - 1][1]) :]
        ids: list[int] = self.tokenizer.encode(
            text, add_special_tokens=step == 0 and self.tokenizer.chat_template is None
        )
        return ids

    def _end_of_last_reply(self, text: str, question: str, reply: str) -> int:
        ending = reply + self.end_text
        found = text.rfind(ending, 0, max(0, text.rfind(question)))
        if found < 0:
            raise ModelError(
                f"model_name={self.tokenizer.name_or_path!r} has a chat template that rewrites earlier turns: use env_type=single_step or another model."
            )
        return found + len(ending)

    def replies(self, replies: Sequence[str]) -> list[list[int]]:
        """The tokens of each reply and the token that ends it."""
        fast = self.tokenizer.backend_tokenizer
        tokens = [encoding.ids for encoding in fast.encode_batch_fast(replies, add_special_tokens=False)]
        for reply, written in zip(replies, fast.decode_batch(tokens, skip_special_tokens=False), strict=True):
            if written.strip() != reply:
                raise ModelError(
                    f"model_name={self.tokenizer.name_or_path!r} has a tokenizer that cannot write the answer {reply}: "
                    "use a model whose vocabulary has the ten digits."
                )
        return [[*ids, self.end] for ids in tokens]


def _writer(tokenizer: PreTrainedTokenizerBase) -> _Writer:
    """With the first special token that the chat template writes after a reply, or else the end of
    sequence.
    """
    if tokenizer.chat_template is not None:
        text = _apply_template(
            tokenizer, [_message("user", "?"), _message("assistant", _PROBE)], prompt=False
        )
        tail = text[text.rfind(_PROBE) + len(_PROBE) :] if _PROBE in text else ""
        special = {
            str(token): index
            for index, token in tokenizer.added_tokens_decoder.items()
            if token.special and str(token) in tail
        }
        if special:
            first = min(special, key=lambda token: (tail.index(token), -len(token)))
            return _Writer(tokenizer, special[first], tail[: tail.index(first)] + first)
    if tokenizer.eos_token is None:
        raise ModelError(
            f"model_name={tokenizer.name_or_path!r} has a tokenizer without an end-of-sequence token: use a model that has one."
        )
    return _Writer(tokenizer, tokenizer.eos_token_id, tokenizer.eos_token)


def _render(tokenizer: PreTrainedTokenizerBase, conversation: Sequence[Turn], end_text: str) -> str:
    """The text up to where the reply of the last turn begins."""
    *earlier, (question, _) = conversation
    if tokenizer.chat_template is None:
        return "".join(f"{said}\n{reply}{end_text}" for said, reply in earlier) + f"{question}\n"
    messages = [
        message
        for said, reply in earlier
        for message in (_message("user", said), _message("assistant", reply))
    ]
    return _apply_template(tokenizer, [*messages, _message("user", question)], prompt=True)


def _apply_template(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], *, prompt: bool
) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=prompt, **_TEMPLATE_SWITCHES
            )
        )
    except jinja2.TemplateError as error:
        raise ModelError(
            f"model_name={tokenizer.name_or_path!r} has a chat template that fails ({error}): use another model."
        ) from error


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
