"""Conversations as tokens: which tokens the user's turns force, and which the model has to choose.

An instruct model gets its chat template, a base model the plain text. A reply ends with the token that the
template itself ends an assistant's turn with (Llama 3's is not its end of text), in plain text with the
tokenizer's end-of-sequence token. A conversation only grows: each turn is written as the template writes it
when it is asked, and stays as it is, also where the template would leave out later what it wrote before
(Qwen3's empty thoughts).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jinja2
import numpy as np

from memory_rl.errors import ModelError
from memory_rl.policies.answer_trie import AnswerTrie, TokenTurn, build_trie

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
        trie = build_trie(_tokenise(writer, conversations), choices)
        if first_prompts is None:
            return trie
        asked = [writer.forced(prompt) for prompt in first_prompts]
        if len({len(tokens) for tokens in asked}) > 1:
            raise ValueError("the prompts of several secrets have different lengths")
        return replace(trie, prompts=np.array(asked))
    except ModelError:
        raise
    except ValueError as error:
        raise _refusal(tokenizer, f"tokenizer in which {error}: use another model") from error


def tokenise(tokenizer: PreTrainedTokenizerBase, conversation: Sequence[Turn]) -> list[TokenTurn]:
    """The tokens of each turn: those of the user, which are forced, and those of the reply with its end.

    Raises:
        ModelError: if the tokenizer cannot write a reply, or its template drops or changes the replies of
            earlier turns.
    """
    return _tokenise(_writer(tokenizer), [conversation])[0]


def _tokenise(writer: _Writer, conversations: Sequence[Sequence[Turn]]) -> list[list[TokenTurn]]:
    replies = iter(writer.replies([reply for conversation in conversations for _, reply in conversation]))
    forced = functools.cache(writer.forced)  # a million conversations may share their prompt
    return [
        [
            (forced(question, *conversation[:step]), next(replies))
            for step, (question, _) in enumerate(conversation)
        ]
        for conversation in conversations
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

    def forced(self, question: str, *earlier: Turn) -> list[int]:
        """The tokens between the last reply, if there are earlier turns, and the reply to the question."""
        text = self._render(question, earlier)
        if earlier:
            text = text[self._end_of_last_reply(text, question, earlier[-1][1]) :]
        ids: list[int] = self.tokenizer.encode(
            text, add_special_tokens=not earlier and self.tokenizer.chat_template is None
        )
        return ids

    def _render(self, question: str, earlier: Sequence[Turn]) -> str:
        """The text up to where the reply to the question begins."""
        if self.tokenizer.chat_template is not None:
            return _apply_template(self.tokenizer, *itertools.chain(*earlier), question)
        return "".join(f"{said}\n{reply}{self.end_text}" for said, reply in earlier) + f"{question}\n"

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
        tokens = [
            encoding.ids
            for start in range(0, len(replies), _REPLIES_AT_ONCE)
            for encoding in fast.encode_batch_fast(
                replies[start : start + _REPLIES_AT_ONCE], add_special_tokens=False
            )
        ]
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
        text = _apply_template(tokenizer, "?", _PROBE)
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


def _apply_template(tokenizer: PreTrainedTokenizerBase, *texts: str) -> str:
    """What the user and the model say in turn, up to where the reply begins if the user spoke last."""
    roles = itertools.cycle(("user", "assistant"))
    messages = [{"role": role, "content": said} for role, said in zip(roles, texts, strict=False)]
    try:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=len(texts) % 2 == 1, **_TEMPLATE_SWITCHES
        )
    except jinja2.TemplateError as error:
        raise _refusal(tokenizer, f"chat template that fails ({error}): use another model") from error
    return text


def _refusal(tokenizer: PreTrainedTokenizerBase, why: str) -> ModelError:
    return ModelError(f"model_name={tokenizer.name_or_path!r} has a {why}.")
