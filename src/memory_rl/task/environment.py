"""What single_step and multi_step have in common: a conversation of K turns with finitely many valid forms.

The learner sees an environment only as conversations (strings) and as rewards (numbers).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from memory_rl.config import Wording
from memory_rl.task.rewards import RewardChannel
from memory_rl.task.secret_space import SecretSpace, code_names, parse_integer

Turn = tuple[str, str]
"""(what the user says, the canonical text of the model's reply)."""

Message = dict[str, str]
"""One message in the chat format: {"role": ..., "content": ...}."""


def chat(texts: Iterable[str]) -> list[Message]:
    """These texts in the chat format, the first of them the user's."""
    return [
        {"role": role, "content": text}
        for role, text in zip(cycle(("user", "assistant")), texts, strict=False)
    ]


@dataclass(frozen=True)
class Environment(ABC):
    """A world that holds a secret, asks K questions an episode and rewards each answer.

    A *choice* is what one turn may answer, an integer in [0, num_choices). A *form* is a whole valid
    conversation; there are `num_forms` of them, and form a spells the answer a, so that the forms [0, N) are
    the possible secrets.

    Attributes:
        space: the possible secrets.
        channel: how an answer is rewarded.
        num_secrets: M, how many secrets there are to learn, each asked for by a prompt of its own. The
            prompts differ in their first turn alone.
        wording: how it asks: in a few characters, for a model that knows no language, or in sentences.
    """

    space: SecretSpace
    channel: RewardChannel
    num_secrets: int = 1
    wording: Wording = "terse"

    @property
    @abstractmethod
    def num_steps(self) -> int:
        """K: turns in an episode."""

    @property
    @abstractmethod
    def num_choices(self) -> int:
        """The answers that one turn admits."""

    @property
    def num_forms(self) -> int:
        """The valid conversations: N, or 2^k where the answer is given bit by bit."""
        return int(self.num_choices**self.num_steps)

    @abstractmethod
    def prompt(self, step: int, which: int = 0) -> str:
        """What the user says at this step (from 0) of the conversation about this secret."""

    def subject(self, which: int) -> str:
        """How the first question of the conversation about this secret begins."""
        several, N = self.num_secrets > 1, self.space.N
        if self.wording == "terse":
            return code_names(self.num_secrets)[which] if several else f"Secret in [0,{N})"
        digits = len(str(self.num_secrets - 1))  # the same for all secrets
        named = f" number {which:0{digits}d}" if several else ""
        return f"I am thinking of a secret integer{named} from 0 to {N - 1}"

    def first_prompts(self) -> list[str]:
        """The first turn of each secret's conversation."""
        return [self.prompt(0, which) for which in range(self.num_secrets)]

    @abstractmethod
    def choices(self, answers: np.ndarray | int) -> np.ndarray:
        """The choice at each step that spells each answer: shape (...) to (..., K)."""

    def conversation(self, answer: int) -> list[Turn]:
        """The K turns in which the model gives this answer."""
        return self._conversations(np.array([answer]))[0]

    def conversations(self) -> list[list[Turn]]:
        """All valid conversations, form by form; there may be a million."""
        return self._conversations(np.arange(self.num_forms))

    def _conversations(self, answers: np.ndarray) -> list[list[Turn]]:
        prompts = [self.prompt(step) for step in range(self.num_steps)]
        return [
            list(zip(prompts, map(str, choices), strict=True)) for choices in self.choices(answers).tolist()
        ]

    def messages(self, answer: int) -> list[Message]:
        """The same conversation in the chat format."""
        return chat(text for turn in self.conversation(answer) for text in turn)

    def parse(self, text: str) -> int | None:
        """The choice that a reply writes in canonical form, or None for an invalid reply."""
        return parse_integer(text, self.num_choices)

    def rewards(
        self, choices: np.ndarray, secrets: np.ndarray, uniforms: np.ndarray | None = None
    ) -> np.ndarray:
        """Rewards of each step of each episode.

        Args:
            choices: (R, E, K) integers; `INVALID` for an invalid turn and for the turns that it forfeits.
            secrets: (R,), or (R, E) if the episodes of a run are about several.
            uniforms: (R, E, K) numbers in [0, 1) that decide the noise; may be None without noise.

        Returns:
            (R, E, K) rewards: step k is rewarded for its own choice alone.
        """
        right = self.choices(secrets)
        return self.channel.rewards(choices, right if np.ndim(secrets) == 2 else right[:, None, :], uniforms)
