"""The Tinker cookbook: an `RLDatasetBuilder`, so that its own training loop can train on these worlds.

    from memory_rl.integrations.tinker_cookbook import SecretDatasetBuilder
    dataset_builder = SecretDatasetBuilder(
        env_type="multi_step", N=64, model_name_for_tokenizer=..., renderer_name="llama3"
    )

In multi_step each turn is a step of the `Env` with a reward of its own, and the trajectory keeps them apart.
What becomes of them is up to the loop: the cookbook's `compute_advantages` takes their sum and gives all
tokens of an episode the same advantage, which is what we call credit=episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from memory_rl.errors import require
from memory_rl.integrations.worlds import AskedWorld, keys_of_world, make_world
from memory_rl.seeding import generator
from memory_rl.task import INVALID, Message

require("tinker_cookbook", "tinker-cookbook", "memory_rl.integrations.tinker_cookbook")

import chz  # noqa: E402  # the absence of the cookbook is said first
import tinker  # noqa: E402
from tinker_cookbook import renderers, tokenizer_utils  # noqa: E402
from tinker_cookbook.rl import types  # noqa: E402


class SecretEpisode(types.Env):
    """One episode: K questions, each answered by a sampled message and rewarded at once.

    A reply that is not a canonical answer, or that was cut off, ends the episode; the turns that it forfeits
    are never sampled and earn nothing.

    Args:
        world: what is asked.
        renderer: writes messages as tokens.
        secret: S.
        chance: of the noise.
        which: of several secrets it is about.

    Attributes:
        choices: (K,) what each turn answered, `INVALID` where it was none.
        rewards: (K,).
    """

    def __init__(
        self,
        world: AskedWorld,
        renderer: renderers.Renderer,
        secret: int,
        chance: np.random.Generator,
        which: int = 0,
    ) -> None:
        self._world, self._renderer, self._secret, self._chance = world, renderer, secret, chance
        self._which, self._replies = which, list[str]()
        self.choices, self.rewards = np.full(world.num_steps, INVALID), np.zeros(world.num_steps)

    async def initial_observation(self) -> tuple[types.Observation, Any]:
        """The first question."""
        return self._observation(), self._renderer.get_stop_sequences()

    async def step(self, action: types.Action, *, extra: types.ActionExtra | None = None) -> types.StepResult:
        """Reads one reply and rewards only its own bit or answer."""
        step, choice = len(self._replies), self._read(action)
        self._replies.append(str(choice))
        reward = self._world.score_step(choice, step, self._secret, self._chance)
        self.choices[step], self.rewards[step] = choice, reward
        metrics = {"valid": float(choice != INVALID)}
        if self._world.num_steps > 1:
            metrics[f"reward_{step + 1}"] = reward
        done = choice == INVALID or len(self._replies) == self._world.num_steps
        return types.StepResult(
            reward=reward,
            episode_done=done,
            next_observation=tinker.ModelInput.empty() if done else self._observation(),
            next_stop_condition=self._renderer.get_stop_sequences(),
            metrics=metrics,
        )

    def _read(self, action: types.Action) -> int:
        message, termination = self._renderer.parse_response(action)
        choice = (
            self._world.environment.parse(renderers.get_text_content(message))
            if termination.is_clean
            else None
        )
        return INVALID if choice is None else choice

    def _observation(self) -> types.Observation:
        return self._renderer.build_generation_prompt(
            as_messages(self._world.messages(self._replies, self._which))
        )


def as_messages(chat: Sequence[Message]) -> list[renderers.Message]:
    """A chat as the cookbook has it."""
    return [renderers.Message(role=message["role"], content=message["content"]) for message in chat]


@dataclass(frozen=True)
class SecretGroupBuilder(types.EnvGroupBuilder):
    """A group of episodes with the same secret.

    Attributes:
        keys: of `make_world`; the world is made where the episodes are.
        secret: S.
        renderer: writes messages as tokens.
        group_size: G.
        index: of the group in the dataset, so that its noise is its own.
    """

    keys: dict[str, Any]
    secret: int
    renderer: renderers.Renderer
    group_size: int
    index: int

    async def make_envs(self) -> Sequence[types.Env]:
        """G new episodes."""
        world = make_world(**self.keys)
        streams = [
            generator(world.world.seed, "reward noise", self.index, episode)
            for episode in range(self.group_size)
        ]
        return [SecretEpisode(world, self.renderer, self.secret, chance) for chance in streams]

    def logging_tags(self) -> list[str]:
        """The condition's name."""
        return [make_world(**self.keys).condition]


@dataclass(frozen=True)
class SecretDataset(types.RLDataset):
    """Batches of groups, all about one secret.

    Attributes:
        first: the group with index 0, of which the others are copies.
        batch_size: groups a batch.
        n_batches: updates.
    """

    first: SecretGroupBuilder
    batch_size: int
    n_batches: int

    @property
    def secret(self) -> int:
        """S."""
        return self.first.secret

    def get_batch(self, index: int) -> Sequence[types.EnvGroupBuilder]:
        """The groups of an update."""
        start = index * self.batch_size
        return [replace(self.first, index=start + group) for group in range(self.batch_size)]

    def __len__(self) -> int:
        return self.n_batches


@chz.chz
class SecretDatasetBuilder(types.RLDatasetBuilder):
    """What the cookbook's `train.Config` takes as `dataset_builder`.

    There is no test set: P(S) is the test.
    """

    model_name_for_tokenizer: str = chz.field(doc="Whose tokenizer.")
    renderer_name: str = chz.field(doc="A renderer of the cookbook, such as llama3.")
    env_type: str = chz.field(
        default="single_step", doc="single_step: one answer an episode. multi_step: k turns of one bit each."
    )
    N: int = chz.field(default=64, doc="The secret is uniform on [0, N).")
    reward_type: str | None = chz.field(
        default=None, doc="binary, log_distance, binned_log_distance, or file.py:Name."
    )
    reward_bins: int | None = chz.field(default=None, doc="B of binned_log_distance.")
    reward_noise: float = chz.field(
        default=0.0, doc="Probability that a reward is replaced by a different level."
    )
    seed: int = chz.field(default=0, doc="Of the secret and the noise.")
    fixed_secret: int | None = chz.field(default=None, doc="The secret, if it is not to be drawn.")
    run: int = chz.field(default=0, doc="The secret is that of this run of an experiment with the same seed.")
    batch_size: int = chz.field(default=1, doc="Groups an update.")
    group_size: int = chz.field(default=4, doc="Episodes a group.")
    n_batches: int = chz.field(default=1000, doc="Updates.")

    async def __call__(self) -> tuple[SecretDataset, None]:
        """Builds the dataset.

        Raises:
            ConfigError: one sentence about the first bad value.
        """
        keys = keys_of_world(self)
        secret = make_world(**keys).secret(self.run)
        renderer = renderers.get_renderer(
            self.renderer_name, tokenizer=tokenizer_utils.get_tokenizer(self.model_name_for_tokenizer)
        )
        first = SecretGroupBuilder(keys, secret, renderer, self.group_size, 0)
        return SecretDataset(first, self.batch_size, self.n_batches), None
