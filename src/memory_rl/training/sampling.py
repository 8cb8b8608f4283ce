"""How the episodes of the next update come about: one after the other, or with the silent updates before it skipped.

While no group of a run carries a signal its parameters stand still, and so does the distribution of its answers. How many updates pass like that, what was
answered in them, and what is answered in the first one with a signal can then be drawn from their exact laws, without asking the policy again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from memory_rl.config import TrainConfig
from memory_rl.learning.silence import GroupLaw, draw
from memory_rl.policies.base import Policy, Rollout
from memory_rl.seeding import RunStreams, generator
from memory_rl.task import INVALID, Environment, RewardChannel

_TRIES = 256


@dataclass(frozen=True)
class SilentEpisodes:
    """Episodes of one run that were skipped, in silent updates. In a channel without chance, equal answers are one row, where the first of them stands.

    Attributes:
        run: whose.
        update: the optimiser steps it had made.
        episode: (T,) the number of each row's first episode, from 1.
        answers: (T,) `INVALID` where there was none.
        rewards: (T,).
        counts: (T,) how many episodes each row stands for.
    """

    run: int
    update: int
    episode: np.ndarray
    answers: np.ndarray
    rewards: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Update:
    """The episodes that lead to the next update of some runs.

    Attributes:
        rollout: the episodes of the runs that have an update within their budget: E = B G of each.
        rewards: (R', E, K) of the rollout.
        episode: (R,) how many episodes each of all the runs has had after it.
        skipped: silent episodes before it.
    """

    rollout: Rollout
    rewards: np.ndarray
    episode: np.ndarray
    skipped: list[SilentEpisodes]


class Sampling(Protocol):
    """Gives the next update of each run."""

    def next_update(self, runs: np.ndarray) -> Update:
        """The episodes of these runs (R,) from where they stand to their next update, or to the end of their budget."""


class StepByStep:
    """Samples every episode from the policy."""

    def __init__(self, config: TrainConfig, environment: Environment, policy: Policy, secrets: np.ndarray) -> None:
        self._config, self._environment, self._policy, self._secrets = config, environment, policy, secrets
        self._chance = RunStreams(config.seed, "reward noise", config.num_runs)
        self._episode = np.zeros(config.num_runs, dtype=np.int64)

    def next_update(self, runs: np.ndarray) -> Update:
        """See `Sampling`."""
        rollout = self._policy.sample(runs, self._config.episodes_per_update)
        uniforms = None if self._environment.channel.certain else self._chance.random(runs, *rollout.choices.shape[1:])
        rewards = self._environment.rewards(rollout.choices, self._secrets[runs], uniforms)
        self._episode[runs] += self._config.episodes_per_update
        return Update(rollout, rewards, self._episode[runs], [])


class SkipAhead:
    """Draws the silent updates and the next one with a signal from their laws. For one answer an episode, rewarded against its group."""

    def __init__(self, config: TrainConfig, environment: Environment, policy: Policy, secrets: np.ndarray) -> None:
        self._config, self._environment, self._policy, self._secrets = config, environment, policy, secrets
        self._random = [generator(config.seed, "skip-ahead", run) for run in range(config.num_runs)]
        self._episode = np.zeros(config.num_runs, dtype=np.int64)

    def next_update(self, runs: np.ndarray) -> Update:
        """See `Sampling`."""
        leaps = [self._leap(int(run), row) for run, row in zip(runs, np.exp(self._policy.log_probs(runs)), strict=True)]
        lands = np.array([answers is not None for _, answers, _ in leaps])
        answers = np.array([answers for _, answers, _ in leaps if answers is not None], dtype=np.int64).reshape(-1, self._config.episodes_per_update)
        rewards = np.array([rewards for _, answers, rewards in leaps if answers is not None]).reshape(*answers.shape, 1)
        skipped = [silent for silent, _, _ in leaps if silent is not None]
        return Update(self._rollout(runs[lands], answers), rewards, self._episode[runs], skipped)

    def _leap(self, run: int, probabilities: np.ndarray) -> tuple[SilentEpisodes | None, np.ndarray | None, np.ndarray | None]:
        """The skipped episodes of a run, and answers and rewards (E,) of the update in which it lands, if its budget allows one."""
        config, channel, random = self._config, self._environment.channel, self._random[run]
        options = np.append(np.arange(config.N), INVALID)
        weights = np.append(probabilities, max(0.0, 1.0 - probabilities.sum()))
        classes = channel.classes(options, self._secrets[run])
        by_class = np.bincount(classes, weights, minlength=channel.num_classes)
        by_level = by_class if channel.outcomes is None else by_class @ channel.outcomes
        law = GroupLaw(by_level / by_level.sum(), config.group_size, config.batch_size)

        left = (config.budget - int(self._episode[run])) // config.episodes_per_update
        skipped = law.silent_updates(random, at_most=left)
        silent = None
        if skipped:
            levels = law.draw_silent(skipped, random).ravel()
            silent = self._skipped(run, options[_given(levels, weights, classes, channel, random)], channel.levels[levels])
        self._episode[run] += min(skipped + 1, left) * config.episodes_per_update
        if skipped == left:
            return silent, None, None
        levels = law.draw_informative(random)
        return silent, options[_given(levels, weights, classes, channel, random)], channel.levels[levels]

    def _skipped(self, run: int, answers: np.ndarray, rewards: np.ndarray) -> SilentEpisodes:
        places, counts = np.arange(len(answers)), np.ones(len(answers), dtype=np.int64)
        if self._environment.channel.certain:
            _, places, counts = np.unique(answers, return_index=True, return_counts=True)
            order = places.argsort()
            places, counts = places[order], counts[order]
        first = int(self._episode[run]) + 1
        return SilentEpisodes(run, int(self._policy.updates[run]), first + places, answers[places], rewards[places], counts)

    def _rollout(self, runs: np.ndarray, answers: np.ndarray) -> Rollout:
        """The episodes that give these answers (R, E). How an invalid answer went is drawn until one comes, which is as rare as its probability is low."""
        rollout = self._policy.demonstrate(runs, np.where(answers == INVALID, 0, answers))
        for row, place in np.argwhere(answers == INVALID):
            tried = self._policy.sample(runs[[row]], _TRIES)
            while not (tried.choices[0, :, 0] == INVALID).any():
                tried = self._policy.sample(runs[[row]], _TRIES)
            first = int((tried.choices[0, :, 0] == INVALID).argmax())
            rollout.choices[row, place], rollout.path[row, place] = tried.choices[0, first], tried.path[0, first]
        return rollout


def _given(levels: np.ndarray, weights: np.ndarray, classes: np.ndarray, channel: RewardChannel, random: np.random.Generator) -> np.ndarray:
    """Which option was answered, given the level that was seen: levels (T,) to places (T,), where the options have these weights and classes."""
    places = np.empty(len(levels), dtype=np.int64)
    for level in np.unique(levels):
        likelihood = classes == level if channel.outcomes is None else channel.outcomes[classes, level]
        here = levels == level
        places[here] = draw(weights * likelihood, (int(here.sum()),), random)
    return places


def why_not_skip(config: TrainConfig) -> str | None:
    """Why silent updates cannot be skipped exactly, or None if they can."""
    if config.env_type == "multi_step":
        return "in multi_step nearly every group carries a signal"
    if config.algorithm == "posterior":
        return "algorithm=posterior trains after every group"
    if config.baseline == "none":
        return "without a baseline equal rewards carry a signal"
    return None


def make_sampling(config: TrainConfig, environment: Environment, policy: Policy, secrets: np.ndarray) -> Sampling:
    """Skips ahead where that was asked for and is exact."""
    kind = SkipAhead if config.skips_ahead and why_not_skip(config) is None else StepByStep
    return kind(config, environment, policy, secrets)
