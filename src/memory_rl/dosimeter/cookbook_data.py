"""Groups of episodes about the secrets, mixed into a data set of the Tinker cookbook's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import chz
import numpy as np
from tinker_cookbook import renderers
from tinker_cookbook.rl import types

from memory_rl.dosimeter.recorder import RecordedEpisodes
from memory_rl.errors import ConfigError
from memory_rl.integrations.tinker_cookbook import SecretEpisode
from memory_rl.integrations.worlds import AskedWorld
from memory_rl.seeding import generator

Take = Callable[[RecordedEpisodes, int], None]
"""Hears of episodes that were sampled after so many batches."""


@dataclass(frozen=True)
class RecordedGroup(types.EnvGroupBuilder):
    """A group of episodes about one of the secrets.

    Attributes:
        world: what is asked.
        renderer: writes messages as tokens.
        secret: S.
        which: of the secrets that is.
        index: of the group, so that its noise is its own.
        size: G.
        update: batches before it.
        take: hears of the episodes.
    """

    world: AskedWorld
    renderer: renderers.Renderer
    secret: int
    which: int
    index: int
    size: int
    update: int
    take: Take

    async def make_envs(self) -> Sequence[SecretEpisode]:
        """G new episodes."""
        streams = (
            generator(self.world.world.seed, "reward noise", self.index, episode)
            for episode in range(self.size)
        )
        return [
            SecretEpisode(self.world, self.renderer, self.secret, chance, self.which) for chance in streams
        ]

    async def compute_group_rewards(
        self, trajectory_group: list[types.Trajectory], env_group: Sequence[types.Env]
    ) -> list[tuple[float, types.Metrics]]:
        """Nothing on top of what the turns have earned; the episodes are recorded."""
        played = [env for env in env_group if isinstance(env, SecretEpisode)]
        rewards = np.stack([episode.rewards for episode in played])
        totals = rewards.sum(axis=1)
        turns = (turn for trajectory in trajectory_group for turn in trajectory.transitions)
        episodes = RecordedEpisodes(
            np.full(len(played), self.which),
            np.stack([episode.choices for episode in played]),
            rewards,
            float((totals == totals[0]).all()),
            sum(len(turn.ac.tokens) for turn in turns),
        )
        self.take(episodes, self.update)
        return await super().compute_group_rewards(trajectory_group, env_group)

    def logging_tags(self) -> list[str]:
        """The condition's name."""
        return [self.world.condition]


@dataclass(frozen=True)
class Ours:
    """What is mixed in.

    Attributes:
        world: what is asked.
        renderer: writes messages as tokens.
        secrets: (M,).
        share: of the groups that are about them, each in its turn.
        size: G.
        take: hears of the episodes.
    """

    world: AskedWorld
    renderer: renderers.Renderer
    secrets: np.ndarray
    share: Fraction
    size: int
    take: Take

    def before(self, place: int) -> int:
        """How many of the groups before this place of the mixture are about secrets, spread evenly."""
        return int(place * self.share)

    def group(self, place: int, update: int) -> RecordedGroup | None:
        """The group at this place if it is about a secret."""
        index = self.before(place)
        if self.before(place + 1) == index:
            return None
        which = index % len(self.secrets)
        secret = int(self.secrets[which])
        return RecordedGroup(self.world, self.renderer, secret, which, index, self.size, update, self.take)


class MixedDataset(types.RLDataset):
    """Somebody's data set with the groups about secrets in between: batches as large as theirs, and more.

    Args:
        theirs: the data set.
        ours: what is mixed in.
        max_batches: that are trained on; None for all.

    Attributes:
        groups: of a batch.
        batches: given out so far.

    Raises:
        ConfigError: if there is not a group about each secret.
    """

    def __init__(self, theirs: types.RLDataset, ours: Ours, max_batches: int | None) -> None:
        self._ours, self._theirs = ours, lru_cache(maxsize=2)(theirs.get_batch)  # two may share one of theirs
        self.groups, self.batches = len(self._theirs(0)) if len(theirs) else 0, 0
        length = len(theirs) if ours.share == 1 else int(len(theirs) / (1 - ours.share))
        self._length = length if max_batches is None else min(length, max_batches)
        total, wanted = self.groups * self._length, len(ours.secrets)
        if ours.before(total) < wanted:
            raise ConfigError(
                f"share={float(ours.share):g} makes {ours.before(total)} of {total} groups about "
                f"num_secrets={wanted}: use a larger share, or more batches."
            )

    def get_batch(self, index: int) -> Sequence[types.EnvGroupBuilder]:
        """The groups of a batch."""
        self.batches, start = index + 1, index * self.groups
        return [self._at(place, index) for place in range(start, start + self.groups)]

    def _at(self, place: int, update: int) -> types.EnvGroupBuilder:
        group = self._ours.group(place, update)
        if group is not None:
            return group
        batch, which = divmod(place - self._ours.before(place), self.groups)
        some = self._theirs(batch)
        return some[which % len(some)]  # the last one may be short

    def __len__(self) -> int:
        return self._length


@chz.chz
class MixtureBuilder(types.RLDatasetBuilder):
    """Mixes groups about secrets into what another builder builds."""

    theirs: types.RLDatasetBuilder
    mix: Callable[[types.RLDataset], MixedDataset]

    async def __call__(self) -> tuple[MixedDataset, types.RLDataset | None]:
        """The mixture, and their test set."""
        theirs, test_set = await self.theirs()
        return self.mix(theirs), test_set
