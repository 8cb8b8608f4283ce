"""How the episodes of the next update come about: one after the other, or with the silent updates before it
skipped.

While no group of a run carries a signal its parameters stand still, and so does the distribution of its
answers. How many updates pass like that, what was answered in them, and what is answered in the first one
with a signal can then be drawn from their exact laws, without asking the policy again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, cast

import numpy as np

from memory_rl.config import TrainConfig
from memory_rl.learning.silence import GroupLaw, draw
from memory_rl.policies.base import Policy, Rollout, ScoresAll, ScoresPaths
from memory_rl.seeding import RunStreams, generator, restore_all, states_of
from memory_rl.state import State, Stateful
from memory_rl.task import INVALID, Environment, RewardChannel
from memory_rl.training.episodes import UNLISTED, SilentEpisodes
from memory_rl.training.prompts import make_prompts
from memory_rl.training.questions import panel_of

_TRIES = 256
_LEAPS_A_SECRET_SPACE = 1024  # a leap of fewer than N over this many episodes does not ask the panel again


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


class Sampling(Stateful, Protocol):
    """Gives the next update of each run."""

    def next_update(self, runs: np.ndarray) -> Update:
        """The episodes of these runs (R,) from where they stand to their next update, or to the end of their
        budget.
        """


class StepByStep:
    """Samples every episode from the policy."""

    def __init__(
        self, config: TrainConfig, environment: Environment, policy: ScoresAll, secrets: np.ndarray
    ) -> None:
        self._config, self._environment, self._policy, self._secrets = config, environment, policy, secrets
        self._prompts = make_prompts(config)
        self._chance = RunStreams(config.seed, "reward noise", config.num_runs)
        self._episode = np.zeros(config.num_runs, dtype=np.int64)

    def next_update(self, runs: np.ndarray) -> Update:
        """See `Sampling`."""
        prompts = self._prompts.next(runs)  # (R, B)
        rollout = self._policy.sample(
            runs, self._config.episodes_per_update, prompts if self._config.num_secrets > 1 else None
        )
        uniforms = (
            None
            if self._environment.channel.certain
            else self._chance.random(runs, *rollout.choices.shape[1:])
        )
        asked = np.repeat(self._secrets[runs[:, None], prompts], self._config.group_size, axis=1)
        rewards = self._environment.rewards(rollout.choices, asked, uniforms)
        self._episode[runs] += self._config.episodes_per_update
        return Update(rollout, rewards, self._episode[runs], [])

    def state(self) -> State:
        """See `memory_rl.state.Stateful`."""
        return {"streams": self._chance.state(), "prompts": self._prompts.state(), "episode": self._episode}

    def restore(self, state: State) -> None:
        """See `memory_rl.state.Stateful`."""
        self._prompts.restore(state["prompts"])
        self._chance.restore(state["streams"])
        self._episode[:] = state["episode"]


class _Leaps:
    """What all that skip have in common: a stream of chance and a count of episodes for each run."""

    def __init__(self, config: TrainConfig) -> None:
        self._random = [generator(config.seed, "skip-ahead", run) for run in range(config.num_runs)]
        self._episode = np.zeros(config.num_runs, dtype=np.int64)

    def state(self) -> State:
        """See `memory_rl.state.Stateful`."""
        return {"streams": states_of(self._random), "episode": self._episode}

    def restore(self, state: State) -> None:
        """See `memory_rl.state.Stateful`."""
        restore_all(self._random, state["streams"])
        self._episode[:] = state["episode"]


class SkipAhead(_Leaps):
    """Draws the silent updates and the next one with a signal from their laws. For one answer an episode,
    rewarded against its group.
    """

    def __init__(
        self, config: TrainConfig, environment: Environment, policy: ScoresAll, secrets: np.ndarray
    ) -> None:
        super().__init__(config)
        self._config, self._environment, self._policy, self._secrets = (
            config,
            environment,
            policy,
            secrets[:, 0],
        )

    def next_update(self, runs: np.ndarray) -> Update:
        """See `Sampling`."""
        laws = np.append(np.exp(self._policy.log_probs(runs)), self._policy.invalid(runs)[:, None], axis=1)
        leaps = [self._leap(int(run), row) for run, row in zip(runs, laws, strict=True)]
        lands = np.array([answers is not None for _, answers, _ in leaps])
        answers = np.array(
            [answers for _, answers, _ in leaps if answers is not None], dtype=np.int64
        ).reshape(-1, self._config.episodes_per_update)
        rewards = np.array([rewards for _, answers, rewards in leaps if answers is not None]).reshape(
            *answers.shape, 1
        )
        skipped = [silent for silent, _, _ in leaps if silent is not None]
        return Update(self._rollout(runs[lands], answers), rewards, self._episode[runs], skipped)

    def _leap(
        self, run: int, weights: np.ndarray
    ) -> tuple[SilentEpisodes | None, np.ndarray | None, np.ndarray | None]:
        """The skipped episodes of a run, and answers and rewards (E,) of the update in which it lands, if its
        budget allows one.

        `weights` (N + 1,) are the probabilities of all answers and, last, of an invalid one.
        """
        config, channel, random = self._config, self._environment.channel, self._random[run]
        options = np.append(np.arange(config.N), INVALID)
        classes = channel.classes(options, self._secrets[run])
        by_class = np.bincount(classes, weights, minlength=channel.num_classes)
        by_level = by_class if channel.outcomes is None else by_class @ channel.outcomes
        law = GroupLaw(by_level / by_level.sum(), config.group_size, config.batch_size)

        left = (config.budget - int(self._episode[run])) // config.episodes_per_update
        skipped = law.silent_updates(random, at_most=left)
        silent = None
        if skipped:
            levels = law.draw_silent(skipped, random).ravel()
            silent = self._skipped(
                run, options[_given(levels, weights, classes, channel, random)], channel.levels[levels]
            )
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
        return SilentEpisodes(
            run, int(self._policy.updates[run]), first + places, answers[places], rewards[places], counts
        )

    def _rollout(self, runs: np.ndarray, answers: np.ndarray) -> Rollout:
        """The episodes that give these answers (R, E). How an invalid answer went is drawn until one comes,
        which is as rare as its probability is low.
        """
        rollout = self._policy.demonstrate(runs, np.where(answers == INVALID, 0, answers))
        for row, place in np.argwhere(answers == INVALID):
            tried = self._policy.sample(runs[[row]], _TRIES)
            while not (tried.choices[0, :, 0] == INVALID).any():
                tried = self._policy.sample(runs[[row]], _TRIES)
            first = int((tried.choices[0, :, 0] == INVALID).argmax())
            rollout.choices[row, place], rollout.path[row, place] = (
                tried.choices[0, first],
                tried.path[0, first],
            )
        return rollout


class HitsAndMisses(_Leaps):
    """As `SkipAhead`, for a reward that says no more than hit or miss, from a policy that cannot score every
    answer.

    What was answered in the silent updates is not drawn. Instead the policy is asked, before a leap that
    could try a thousandth of the answers, how likely those of the ledger's panel are.
    """

    def __init__(
        self, config: TrainConfig, environment: Environment, policy: ScoresPaths, secrets: np.ndarray
    ) -> None:
        super().__init__(config)
        self._config, self._levels, self._policy, self._secrets = (
            config,
            environment.channel.levels,
            policy,
            secrets[:, 0],
        )
        self._panel = panel_of(config) if config.ledger else None

    def next_update(self, runs: np.ndarray) -> Update:
        """See `Sampling`."""
        config = self._config
        seen = self._policy.assess(runs, self._secrets[runs, None], config.N)
        hit, valid = np.exp(seen.of_form[:, 0]), np.exp(seen.of_valid[:, 0])
        laws = [GroupLaw(np.array([1 - p, p]), config.group_size, config.batch_size) for p in hit]
        left = (config.budget - self._episode[runs]) // config.episodes_per_update
        skipped = np.array(
            [
                law.silent_updates(self._random[run], int(most))
                for law, run, most in zip(laws, runs, left, strict=True)
            ]
        )
        panels = self._ask_panel(runs, np.log1p(-hit), skipped * config.episodes_per_update)
        invalid = np.clip((1 - valid) / (1 - hit), 0.0, 1.0)
        silent = [
            self._silent(run, law, n, q)
            for run, law, n, q in zip(runs, laws, skipped, invalid, strict=True)
            if n
        ]
        self._episode[runs] += np.minimum(skipped + 1, left) * config.episodes_per_update
        lands = skipped < left
        hits = np.array(
            [
                law.draw_informative(self._random[run])
                for law, run, on in zip(laws, runs, lands, strict=True)
                if on
            ],
            dtype=np.int64,
        )
        hits = hits.reshape(-1, config.episodes_per_update)
        return Update(
            self._rollout(runs[lands], hits == 1),
            self._levels[hits][:, :, None],
            self._episode[runs],
            [replace(s, panel=panels.get(s.run)) for s in silent],
        )

    def _ask_panel(
        self, runs: np.ndarray, log_miss: np.ndarray, episodes: np.ndarray
    ) -> dict[int, np.ndarray]:
        """Log-probabilities of the panel's answers, given a miss, by run, for those about to leap far."""
        far = np.nonzero(episodes * _LEAPS_A_SECRET_SPACE >= self._config.N)[0]
        if self._panel is None or len(far) == 0:
            return {}
        log_probs = (
            self._policy.log_probs_of(runs[far], np.broadcast_to(self._panel, (len(far), len(self._panel))))
            - log_miss[far, None]
        )
        return dict(zip(runs[far].tolist(), log_probs, strict=True))

    def _silent(self, run: int, law: GroupLaw, updates: int, invalid: float) -> SilentEpisodes:
        """The episodes of silent updates: misses, valid and invalid, and hits."""
        config, random = self._config, self._random[run]
        groups = updates * config.batch_size
        miss, hit = law.probabilities**config.group_size
        all_hit = random.binomial(groups, hit / (miss + hit))
        first_hit = int(random.choice(groups, all_hit, replace=False).min()) if all_hit else 0
        misses = (groups - all_hit) * config.group_size
        garbled = random.binomial(misses, invalid)
        first = int(self._episode[run]) + 1
        rows = [(first, UNLISTED, 0, misses - garbled), (first, INVALID, 0, garbled)]
        rows.append(
            (first + first_hit * config.group_size, int(self._secrets[run]), 1, all_hit * config.group_size)
        )
        episode, answers, level, counts = np.array([row for row in rows if row[3]]).T
        return SilentEpisodes(
            run, int(self._policy.updates[run]), episode, answers, self._levels[level], counts
        )

    def _rollout(self, runs: np.ndarray, hits: np.ndarray) -> Rollout:
        """Episodes of which those marked (R, E) answer S, and the others do not."""
        secrets = self._secrets[runs]
        rollout = self._policy.demonstrate(runs, np.broadcast_to(secrets[:, None], hits.shape))
        if len(runs) == 0:
            return rollout
        others = self._policy.sample_others(runs, secrets, hits.shape[1])
        chosen = hits[:, :, None]
        return Rollout(
            rollout.runs,
            np.where(chosen, rollout.choices, others.choices),
            np.where(chosen, rollout.path, others.path),
        )


def _given(
    levels: np.ndarray,
    weights: np.ndarray,
    classes: np.ndarray,
    channel: RewardChannel,
    random: np.random.Generator,
) -> np.ndarray:
    """Which option was answered, given the level that was seen: levels (T,) to places (T,), where the options
    have these weights and classes.
    """
    places = np.empty(len(levels), dtype=np.int64)
    for level in np.unique(levels):
        likelihood = classes == level if channel.outcomes is None else channel.outcomes[classes, level]
        here = levels == level
        places[here] = draw(weights * likelihood, (int(here.sum()),), random)
    return places


def why_not_skip(config: TrainConfig) -> str | None:
    """Why silent updates cannot be skipped exactly, or None if they can."""
    if config.num_secrets > 1:
        return "the next group may be about another secret"
    if config.env_type == "multi_step":
        return "in multi_step nearly every group carries a signal"
    if config.algorithm == "posterior":
        return "algorithm=posterior trains after every group"
    if config.baseline == "none":
        return "without a baseline equal rewards carry a signal"
    return None


def make_sampling(
    config: TrainConfig, environment: Environment, policy: Policy, secrets: np.ndarray
) -> Sampling:
    """Skips ahead where that was asked for and is exact."""
    if config.scores_paths:
        return HitsAndMisses(config, environment, cast(ScoresPaths, policy), secrets)
    kind = SkipAhead if config.skips_ahead and why_not_skip(config) is None else StepByStep
    return kind(config, environment, cast(ScoresAll, policy), secrets)
