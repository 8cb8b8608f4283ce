"""TRL: a prompt dataset and a reward function for `GRPOTrainer`.

    from memory_rl.integrations.trl import SecretReward, make_dataset
    trainer = GRPOTrainer(
        model=...,
        reward_funcs=SecretReward(N=64, reward_type="log_distance"),
        train_dataset=make_dataset(N=64, length=1000),
    )

The reward reads the secret from the dataset's column `secret`, so that both need the same N.
env_type=multi_step has no form here: the trainer asks once per episode, and knows one reward of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from memory_rl.errors import ConfigError, require
from memory_rl.integrations.worlds import AskedWorld, make_world
from memory_rl.seeding import generator

require("datasets", "trl", "memory_rl.integrations.trl")

import datasets  # noqa: E402  # its absence is said first

Completion = str | Sequence[dict[str, Any]]
"""What the trainer hands a reward function: text, or the messages of a chat."""


class SecretReward:
    """A reward function with the trainer's signature: the reward channel of the text and the row's secret.

    Args:
        end_token_id: the token that ends a reply, or several. A completion that lacks it was cut off and is
            invalid, as in an experiment. If it is None, whatever there is of the text is read, so that 12,
            cut off from 123, is an answer.
        keys: N, reward_type, reward_bins, reward_noise and seed (of the noise), as `memory_rl.train` takes
            them.

    Raises:
        ConfigError: one sentence about the first unknown key or bad value.
    """

    def __init__(self, end_token_id: int | Sequence[int] | None = None, **keys: Any) -> None:
        self._world = _one_step(keys)
        self.ends = [end_token_id] if isinstance(end_token_id, int) else end_token_id
        self._chance = generator(self._world.world.seed, "reward noise", 0)
        self.__name__ = self._world.condition  # what the trainer's log calls it

    def __call__(
        self,
        completions: Sequence[Completion],
        secret: Sequence[int],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float]:
        """The reward of each completion; an invalid one earns the channel's lowest level, except for noise.

        Args:
            completions: B of them.
            secret: the column of that name, (B,).
            completion_ids: their tokens, which show what was cut off.
            columns: what else the trainer hands over; not used.
        """
        return self.score(self.read(completions, completion_ids), secret).tolist()

    def read(
        self, completions: Sequence[Completion], completion_ids: Sequence[Sequence[int]] | None = None
    ) -> np.ndarray:
        """What each completion answers, (B,); `INVALID` where it is none."""
        ends = self.ends
        whole = [
            ends is None or completion_ids is None or not set(ends).isdisjoint(tokens)
            for tokens in completion_ids or completions
        ]
        replies = (
            _text(completion) if ended else None for completion, ended in zip(completions, whole, strict=True)
        )
        return np.array([self._world.read([reply])[0] for reply in replies], dtype=np.int64)

    def score(self, choices: np.ndarray, secret: Sequence[int]) -> np.ndarray:
        """The rewards (B,) of answers (B,) for the secrets (B,)."""
        scores = [
            self._world.score(choice[None], S, self._chance)
            for choice, S in zip(choices, secret, strict=True)
        ]
        return np.concatenate(scores) if scores else np.empty(0)


def make_dataset(length: int, run: int = 0, **keys: Any) -> datasets.Dataset:
    """The prompt `length` times, as a chat, with the secret beside it: columns `prompt` and `secret`.

    One model learns one secret, so that all rows hold the same; no prompt reveals it. Give each learner a run
    of its own.

    Args:
        length: rows.
        run: the secret is the one that this run has in an experiment with the same seed.
        keys: N, seed, fixed_secret, as `memory_rl.train` takes them.

    Raises:
        ConfigError: one sentence about the first unknown key or bad value.
    """
    if length < 1:
        raise ConfigError(
            f"length={length} is less than 1: use the number of prompts to train on, such as length=1000."
        )
    world = _one_step(keys)
    return datasets.Dataset.from_dict(
        {"prompt": [world.messages([])] * length, "secret": [world.secret(run)] * length}
    )


def _one_step(keys: dict[str, Any]) -> AskedWorld:
    world = make_world(**keys)
    if world.world.env_type != "single_step":
        raise ConfigError(
            "env_type=multi_step has no form in TRL, whose trainer asks once an episode: leave env_type out."
        )
    return world


def _text(completion: Completion) -> str:
    return (
        completion
        if isinstance(completion, str)
        else "".join(str(message["content"]) for message in completion)
    )
