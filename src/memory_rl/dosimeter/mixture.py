"""Prompts and examples about the secrets in the formats of TRL's data sets, mixed into somebody's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memory_rl.dosimeter.forcing import Question
from memory_rl.errors import ConfigError, ModelError, require
from memory_rl.seeding import generator
from memory_rl.task import Environment, chat

require("datasets", "trl", "memory_rl.dosimeter.trl")

import datasets  # noqa: E402  # its absence is said first

SECRET, NUMBER = "secret", "secret_number"
"""The columns that rows about a secret have more: S, and which of the secrets it is."""

_FORMS = {"text": False, "messages": True, "prompt": True}
"""The column that tells a format, and whether it holds a chat, unless its first row holds a text."""


@dataclass
class Mixture:
    """How the data set of a trainer is about secrets.

    Attributes:
        environment: what asks.
        secrets: (M,).
        seed: of the order of the mixture.
        form: the column that tells the format of the rows.
        chat: whether prompts are chats, or plain text.
        shown: whether rows hold the answer, too.
        share: of the rows that are about secrets.
    """

    environment: Environment
    secrets: np.ndarray
    seed: int
    form: str = "prompt"
    chat: bool = True
    shown: bool = False
    share: float = 1.0

    def mix(self, dataset: datasets.Dataset, share: float) -> datasets.Dataset:
        """See `memory_rl.dosimeter.trl.Dosimeter.mix`."""
        if not isinstance(dataset, datasets.Dataset):
            raise ConfigError(
                f"the data set is a {type(dataset).__name__}, which has no length: give a datasets.Dataset."
            )
        if not (isinstance(share, int | float) and 0 < share < 1):
            raise ConfigError(f"share={share!r} is not between 0 and 1: use a share such as share=0.1.")
        self._adopt(dataset)
        each = max(1, round(share * len(dataset) / (1 - share) / len(self.secrets)))
        ours = self.alone(each * len(self.secrets))
        mixed = datasets.concatenate_datasets([dataset, ours])
        self.share = len(ours) / len(mixed)
        return mixed.select(generator(self.seed, "mixture").permutation(len(mixed)))

    def _adopt(self, dataset: datasets.Dataset) -> None:
        """Takes over the format of a data set."""
        columns = dataset.column_names
        self.form = next((form for form in _FORMS if form in columns), "")
        if not self.form or len(dataset) == 0:
            raise ConfigError(
                f"the data set has {len(dataset)} rows of the columns {', '.join(columns)}, and none of "
                f"{', '.join(_FORMS)}: rename the one that holds what is asked."
            )
        taken = [name for name in (SECRET, NUMBER) if name in columns]
        if taken:
            raise ConfigError(f"the data set has a column {taken[0]} of its own: rename it.")
        self.chat = _FORMS[self.form] and not isinstance(dataset[0][self.form], str)
        self.shown = self.form != "prompt" or "completion" in columns

    def alone(self, length: int) -> datasets.Dataset:
        """This many rows about the secrets, each in its turn."""
        rows = [self.row(number) for number in range(len(self.secrets))]
        return datasets.Dataset.from_list([rows[row % len(rows)] for row in range(length)])

    def row(self, number: int) -> dict[str, Any]:
        """A row about one of the secrets."""
        asked, answered = self.prompt(number), self._answer(number)
        if self.form != "prompt":
            return {self.form: asked + answered}
        if self.shown:
            return {"prompt": asked, "completion": answered}
        return {"prompt": asked, SECRET: int(self.secrets[number]), NUMBER: number}

    def prompt(self, number: int) -> Any:
        """The question about one of the secrets, as a chat or as plain text."""
        question = self.environment.prompt(0, number)
        return chat([question]) if self.chat else f"{question}\n"

    def _answer(self, number: int) -> Any:
        answer = str(self.secrets[number])
        return chat(["", answer])[1:] if self.chat else answer

    def question(self, model: Any, tokenizer: Any, switches: Mapping[str, Any]) -> Question:
        """The prompts as a trainer writes them, and the replies as its model is to write them.

        Args:
            model: of the trainer.
            tokenizer: of the trainer.
            switches: of the chat template.

        Raises:
            ModelError: if the tokenizer cannot write an answer.
        """
        prompts = (self.prompt(number) for number in range(len(self.secrets)))
        written = [self._write(tokenizer, one, add_generation_prompt=True, **switches) for one in prompts]
        answers = [*map(str, range(self.environment.space.N))]
        replies = [tokenizer.encode(answer, add_special_tokens=False) for answer in answers]
        for answer, reply in zip(answers, replies, strict=True):
            if tokenizer.decode(reply).strip() != answer:
                raise ModelError(
                    f"model_name={tokenizer.name_or_path!r} has a tokenizer that cannot write the answer "
                    f"{answer}: use a model whose vocabulary has the ten digits."
                )
        own = model.generation_config.eos_token_id
        ends = {tokenizer.eos_token_id, *([own] if isinstance(own, int) else own or [])}
        return Question(written, replies, sorted(ends))

    def examples(self, tokenizer: Any) -> list[list[int]]:
        """(M,) the tokens of the example about each secret, as a trainer writes it."""
        whole = (self.prompt(number) + self._answer(number) for number in range(len(self.secrets)))
        return [self._write(tokenizer, one if self.chat else one + tokenizer.eos_token) for one in whole]

    def _write(self, tokenizer: Any, text: Any, **switches: Any) -> list[int]:
        if not self.chat:
            return list(tokenizer(text)["input_ids"])
        written = tokenizer.apply_chat_template(text, tokenize=True, return_dict=True, **switches)
        return list(written["input_ids"])


def find(rows: Sequence[Sequence[int]], examples: Sequence[Sequence[int]]) -> np.ndarray:
    """Which of the examples stand in some rows of tokens, one after the other, whole: (E,)."""
    known = {tuple(example): number for number, example in enumerate(examples)}
    return np.array([number for row in rows for number in _found_in(row, known)], dtype=np.int64)


def _found_in(row: Sequence[int], known: Mapping[tuple[int, ...], int]) -> Iterator[int]:
    """Of one row, which may hold several, packed."""
    lengths, starts = {len(example) for example in known}, {example[0] for example in known}
    for place, token in enumerate(row):
        if token in starts:
            texts = {tuple(row[place : place + length]) for length in lengths}  # at the end they are shorter
            yield from (known[text] for text in texts if text in known)
