"""Conversations as tokens: which tokens the user's turns force, and which the model has to choose.

An instruct model gets its chat template, a base model the plain text. A reply ends with the token that the
template itself ends an assistant's turn with (Llama 3's is not its end of text), in plain text with the
tokenizer's end-of-sequence token. A conversation only grows: each turn is written as the template writes it
when it is asked, and stays as it is, also where the template would leave out later what it wrote before
(Qwen3's empty thoughts).

Nothing in it depends on the day: a template that asks for the date gets a fixed one. That the model can read
each question is checked, since a template or a vocabulary may lose it without a word.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import TemplateError

from memory_rl.errors import ModelError, one_line
from memory_rl.policies.answer_trie import AnswerTrie, TokenTurn, build_trie
from memory_rl.policies.turn_trie import build_turn_trie

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase

Turn = tuple[str, str]

_REPLIES_AT_ONCE = 2**16
_OTHER = "use another model"
_PROBE = "3141592653"  # a reply that no template writes of its own accord
_TODAY = datetime(2024, 7, 26, 12)
_IN_ENGLISH = {
    "%a": "Fri", "%A": "Friday", "%b": "Jul", "%h": "Jul", "%B": "July", "%p": "PM", "%x": "07/26/24",
    "%X": "12:00:00", "%c": "Fri Jul 26 12:00:00 2024", "%r": "12:00:00 PM", "%s": "1721995200",
}  # fmt: skip
"""What else depends on the machine's language or place."""
_CODES = ["%-" + code for code in "dmyHIMSj"] + ["%" + code for code in "YmdyHMSjIUWwueCDFTRVGgklPfzZ"]
_DATES = {**{code: _TODAY.strftime(code) for code in _CODES}, "%P": "pm", **_IN_ENGLISH, "%%": "%"}
# In Jinja, since transformers hands a template no functions of ours. It writes nothing, and ends with what no
# line break behind it is taken off for.
_FIXED_DAY = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f".replace({code!r}, {written!r})" for code, written in _DATES.items())
    + " }}{%- endmacro -%}{{ '' }}"
)
# No thoughts before the answer; and Llama 3's templates may be given the date.
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
        ModelError: if the tokenizer or its template cannot write a reply or loses a question, or writes two
            answers, two turns or two prompts in the same way, or M prompts in different lengths.
    """
    writer = _writer(tokenizer)
    with _refused(tokenizer):
        tokens = _tokenise(writer, conversations)
        if not _all_different([forced for forced, _ in tokens[0]]):
            raise ValueError("two turns of the user have the same tokens")
        trie = build_trie(tokens, choices)
        return trie if first_prompts is None else replace(trie, prompts=_prompts(writer, first_prompts))


def tokenise_turns(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Turn]],
    replies: Sequence[str],
    first_prompts: Sequence[str],
) -> AnswerTrie:
    """The answer trie of all conversations whose turns are answered alike, from a few of them.

    Args:
        tokenizer: of the model.
        conversations: a few of K turns, with one first turn of the user: those on which it is checked that
            the turns are written in the same way whatever was answered before.
        replies: C, of which each turn takes one.
        first_prompts: M first turns of the user.

    Raises:
        ModelError: as `tokenise_all`, or if a turn is written in several ways, or its replies in several
            lengths.
    """
    writer = _writer(tokenizer)
    with _refused(tokenizer):
        written = dict(zip(replies, writer.replies(replies), strict=True))
        turns = _tokenise(writer, conversations)
        forced = [tokens for tokens, _ in turns[0]]
        if not _all_different(forced):
            raise ValueError("two turns of the user have the same tokens")
        for conversation, tokens in zip(conversations, turns, strict=True):
            if tokens != [
                (asked, written[reply]) for asked, (_, reply) in zip(forced, conversation, strict=True)
            ]:
                raise ValueError("a turn's tokens depend on earlier answers")
        return build_turn_trie(_prompts(writer, first_prompts), forced[1:], [*written.values()])


def _prompts(writer: _Writer, first_prompts: Sequence[str]) -> np.ndarray:
    """(M, P) the tokens of the first turns."""
    asked = [writer.forced(prompt) for prompt in first_prompts]
    if len({len(tokens) for tokens in asked}) > 1:
        raise ValueError("the prompts of several secrets have different lengths")
    if not _all_different(asked):
        raise ValueError("the prompts of two secrets have the same tokens")
    return np.array(asked)


@contextmanager
def _refused(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """A ValueError in its block is what is wrong with the tokenizer."""
    try:
        yield
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


def read_back(tokenizer: PreTrainedTokenizerBase, conversation: Sequence[Turn]) -> str:
    """A conversation as the model reads it, its tokens as text, with {answer} for each reply."""
    read = functools.partial(tokenizer.backend_tokenizer.decode, skip_special_tokens=False)
    turns = tokenise(tokenizer, conversation)
    return "".join(f"{read(forced)}{{answer}}{read(reply[-1:])}" for forced, reply in turns)


def _all_different(turns: Sequence[Sequence[int]]) -> bool:
    return len(set(map(tuple, turns))) == len(turns)


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
        """The tokens between the last reply, if there are earlier turns, and the reply to the question.

        What the tokenizer adds of its own accord stands before the question: an end would stand behind it.
        """
        text = self._render(question, earlier)
        if question not in text:
            raise _refusal(self.tokenizer, f"chat template that leaves out {one_line(question)!r}: {_OTHER}")
        if earlier:
            text = text[self._end_of_last_reply(text, question, earlier[-1][1]) :]
        adds = not earlier and self.tokenizer.chat_template is None
        written = self.tokenizer(text, add_special_tokens=adds).encodings[0]
        self._check_read(written, text.rfind(question), question)
        added = itertools.takewhile(lambda one: adds and one, reversed(written.special_tokens_mask))
        ids: list[int] = written.ids[: len(written.ids) - sum(added)]
        return ids

    def _check_read(self, written: Encoding, start: int, question: str) -> None:
        """Refuses a tokenizer that cuts a question, or that writes most of its letters as unknown.

        Judged by where each token stands in the text, so that lower case, spaces and the like may change.
        """
        known, seen, unknown = set[int](), set[int](), self.tokenizer.unk_token_id
        for token, (first, last) in zip(written.ids, written.offsets, strict=True):
            seen.update(range(first, last))
            known.update(range(first, last) if token != unknown else ())
        letters = {start + place for place, letter in enumerate(question) if letter.isalnum()}
        if not letters <= seen or 2 * len(letters & known) < len(letters):
            raise _refusal(self.tokenizer, f"tokenizer that cannot write {one_line(question)!r}: {_OTHER}")

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
    _make_plain(tokenizer.backend_tokenizer)
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


def _make_plain(fast: Tokenizer) -> None:
    """Has a tokenizer write texts whole, as they are, and always in the same way."""
    fast.no_truncation()
    fast.no_padding()
    if getattr(fast.model, "dropout", None):  # of merges, drawn anew for each text
        fast.model.dropout = None


def _apply_template(tokenizer: PreTrainedTokenizerBase, *texts: str) -> str:
    """What the user and the model say in turn, up to where the reply begins if the user spoke last."""
    roles = itertools.cycle(("user", "assistant"))
    messages = [{"role": role, "content": said} for role, said in zip(roles, texts, strict=False)]
    try:
        template = tokenizer.get_chat_template()
        text: str = tokenizer.apply_chat_template(
            messages,
            chat_template=_FIXED_DAY + template if "strftime_now" in template else template,
            tokenize=False,
            add_generation_prompt=len(texts) % 2 == 1,
            **_TEMPLATE_SWITCHES,
        )
    except Exception as error:  # whatever it is that a template does
        why = one_line(f"{error}" if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}")
        raise _refusal(tokenizer, f"chat template that fails ({why}): {_OTHER}") from error
    return text


def _refusal(tokenizer: PreTrainedTokenizerBase, why: str) -> ModelError:
    return ModelError(f"model_name={tokenizer.name_or_path!r} has a {why}.")
