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
from typing import TYPE_CHECKING

import jinja2
import numpy as np

from memory_rl.errors import ModelError
from memory_rl.policies.answer_trie import AnswerTrie, TokenTurn, build_trie, build_trie_of_replies

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turn = tuple[str, str]

_REPLIES_AT_ONCE = 2**16
_PROBE = "3141592653"  # a reply that no template writes of its own accord
# No thoughts before the answer; and Llama 3's templates write the date, which must not change with the day.
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
    writer = _writer(tokenizer)
    try:
        if choices.shape[1] == 1:
            trie = _trie_of_replies(writer, conversations, choices)
        else:
            trie = build_trie([_tokenise(writer, conversation) for conversation in conversations], choices)
        if first_prompts is None:
            return trie
        asked = [writer.forced([(prompt, "")], 0) for prompt in first_prompts]
        if len({len(tokens) for tokens in asked}) > 1:
            raise ValueError("the prompts of several secrets have different lengths")
        return replace(trie, prompts=np.array(asked))
    except ModelError:
        raise
    except ValueError as error:
        raise _refusal(tokenizer, f"tokenizer in which {error}: use another model") from error


def _trie_of_replies(
    writer: _Writer, conversations: Sequence[Sequence[Turn]], choices: np.ndarray
) -> AnswerTrie:
    """Conversations of one turn: the prompt is written once, and the replies thousands at a time."""
    replies = [conversation[0][1] for conversation in conversations]
    tokens = [
        ids
        for start in range(0, len(replies), _REPLIES_AT_ONCE)
        for ids in writer.replies(replies[start : start + _REPLIES_AT_ONCE])
    ]
    return build_trie_of_replies(writer.forced(conversations[0], 0), tokens, choices)


def tokenise(tokenizer: PreTrainedTokenizerBase, conversation: Sequence[Turn]) -> list[TokenTurn]:
    """The tokens of each turn: those of the user, which are forced, and those of the reply with its end.

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
            raise _refusal(
                self.tokenizer,
                "chat template that rewrites earlier turns: use env_type=single_step or another model",
            )
        return found + len(ending)

    def replies(self, replies: Sequence[str]) -> list[list[int]]:
        """The tokens of each reply and the token that ends it."""
        fast = self.tokenizer.backend_tokenizer
        tokens = [encoding.ids for encoding in fast.encode_batch_fast(replies, add_special_tokens=False)]
        for reply, written in zip(replies, fast.decode_batch(tokens, skip_special_tokens=False), strict=True):
            if written.strip() != reply:
                raise _refusal(
                    self.tokenizer,
                    f"tokenizer that cannot write the answer {reply}: use a model whose vocabulary has the "
                    "ten digits",
                )
        return [[*ids, self.end] for ids in tokens]


def _writer(tokenizer: PreTrainedTokenizerBase) -> _Writer:
    """With the first special token that the template writes after a reply, or the end of sequence."""
    if tokenizer.chat_template is not None:
        text = _apply_template(tokenizer, _messages([("?", _PROBE)]), prompt=False)
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
        raise _refusal(tokenizer, "tokenizer without an end-of-sequence token: use a model that has one")
    return _Writer(tokenizer, tokenizer.eos_token_id, tokenizer.eos_token)


def _render(tokenizer: PreTrainedTokenizerBase, conversation: Sequence[Turn], end_text: str) -> str:
    """The text up to where the reply of the last turn begins."""
    if tokenizer.chat_template is not None:
        return _apply_template(tokenizer, _messages(conversation)[:-1], prompt=True)
    *earlier, (question, _) = conversation
    return "".join(f"{said}\n{reply}{end_text}" for said, reply in earlier) + f"{question}\n"


def _apply_template(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, prompt: bool
) -> str:
    try:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=prompt, **_TEMPLATE_SWITCHES
        )
    except jinja2.TemplateError as error:
        raise _refusal(tokenizer, f"chat template that fails ({error}): use another model") from error
    return text


def _messages(conversation: Sequence[Turn]) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [
        {"role": role, "content": said}
        for turn in conversation
        for role, said in zip(roles, turn, strict=True)
    ]


def _refusal(tokenizer: PreTrainedTokenizerBase, why: str) -> ModelError:
    return ModelError(f"model_name={tokenizer.name_or_path!r} has a {why}.")
