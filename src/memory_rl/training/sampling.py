"""How the episodes of the next update come about: shown, one by one, or with silent updates skipped.

While no group of a run carries a signal, its parameters stand still, and so does the distribution of its
answers. How many updates pass like that, what was answered in them, and what is answered in the first one
with a signal can then be drawn from their exact laws, without asking the policy again.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from memory_rl.learning.batch import UNLISTED, Batch, SilentEpisodes
from memory_rl.learning.silence import GroupLaw, draw
from memory_rl.policies.base import first_prompt
from memory_rl.seeding import RunStreams
from memory_rl.state import Stateful
from memory_rl.task import INVALID, Environment, RewardChannel, credit_rewards
from memory_rl.training.accounts import Beliefs
from memory_rl.training.prompts import Prompts

_TRIES = 256
_LEAPS_A_SECRET_SPACE = 1024  # a leap of fewer than N over this many episodes does not ask the panel again


@dataclass(frozen=True)
class Schedule:
    """The episodes of a run.

    Attributes:
        group_size: G episodes share a baseline; an example is a group of its own.
        batch_size: groups an update.
        budget: the most episodes of one run.
        num_runs: R.
        seed: of all random streams.
    """

    group_size: int
    batch_size: int
    budget: int
    num_runs: int
    seed: int

    @property
    def update(self) -> int:
        """E: episodes of one run between two updates."""
        return self.group_size * self.batch_size


@dataclass(eq=False, kw_only=True)
class Sampling(Stateful):
    """Gives each run the episodes that lead to its next update.

    Attributes:
        schedule: of each run.
        policy: what answers.
        secrets: (R, M).
        environment: rewards the answers.
        prompts: which secret is asked for.
        credit: of each step.
        beliefs: of the ideal observers, for learners that want them.
        answers: (D,) of the examples in the order in which they are shown, repeated if there are fewer than
            the budget; None to show each run its own secrets.
        panel: (Q,) answers that the ledger asks about where not all are scored; None without a ledger.
    """

    schedule: Schedule
    policy: Any
    secrets: np.ndarray
    environment: Environment
    prompts: Prompts
    credit: str = "step"
    beliefs: Beliefs | None = None
    answers: np.ndarray | None = None
    panel: np.ndarray | None = None

    kept = ("_episode", "_random", "prompts", "beliefs")
    _stream: ClassVar[str] = "reward noise"

    def __post_init__(self) -> None:
        self._episode = np.zeros(self.schedule.num_runs, dtype=np.int64)  # how many each run has had
        self._random = RunStreams(self.schedule.seed, self._stream, self.schedule.num_runs)

    @abstractmethod
    def next(self, runs: np.ndarray) -> Batch:
        """The episodes of these runs (R,) up to their next update, or the end of their budget."""

    def _advance(self, runs: np.ndarray, updates: np.ndarray | int, batch: Batch, **more: Any) -> Batch:
        """The batch, after so many updates (R,) of each of these runs, the silent ones included."""
        self._episode[runs] += updates * self.schedule.update
        return replace(batch, active=runs, episodes=self._episode[runs], **more)

    def _rewarded(self, rewards: np.ndarray) -> dict[str, np.ndarray]:
        """Rewards (R, E, K), and what each step is credited with, by group."""
        shape = (len(rewards), self.schedule.batch_size, self.schedule.group_size, rewards.shape[2])
        return {"rewards": rewards, "returns": credit_rewards(rewards.reshape(shape), self.credit)}

    def _asked(self, runs: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        """The secret that each episode is about: (R, E)."""
        return np.repeat(
            self.secrets[runs[:, None], prompts], self.schedule.update // prompts.shape[1], axis=1
        )


class Shown(Sampling):
    """Supervised learning: each episode is an example, and shows the answer."""

    @override
    def next(self, runs: np.ndarray) -> Batch:
        prompts = self.prompts.next(runs)
        shown = self._asked(runs, prompts)
        if self.answers is not None:  # all runs have then seen equally many
            places = self._episode[runs[0]] + np.arange(self.schedule.update)
            shown = np.broadcast_to(self.answers[places % len(self.answers)], shown.shape)
        return self._advance(runs, 1, self.policy.demonstrate(runs, prompts, shown))


class StepByStep(Sampling):
    """Samples every episode from the policy."""

    @override
    def next(self, runs: np.ndarray) -> Batch:
        prompts = self.prompts.next(runs)
        batch = self.policy.sample(runs, prompts, self.schedule.update)
        certain = self.environment.channel.certain
        uniforms = None if certain else self._random.random(runs, *batch.choices.shape[1:])
        rewards = self.environment.rewards(batch.choices, self._asked(runs, prompts), uniforms)
        batch = self._advance(runs, 1, batch, **self._rewarded(rewards))
        return batch if self.beliefs is None else replace(batch, beliefs=self.beliefs.after(batch))


class SkipAhead(Sampling):
    """Draws the silent updates and the next one with a signal from their laws.

    For one answer per episode, which is rewarded against its group.
    """

    _stream = "skip-ahead"

    @override
    def next(self, runs: np.ndarray) -> Batch:
        prompts = first_prompt(runs)
        of_answers = np.exp(self.policy.log_probs(runs, prompts)[:, 0])
        laws = np.append(of_answers, self.policy.invalid(runs, prompts), axis=1)
        leaps = [self._leap(int(run), row) for run, row in zip(runs, laws, strict=True)]
        landed = [(answers, levels) for _, _, answers, levels in leaps if answers is not None]
        lands = np.array([answers is not None for _, _, answers, _ in leaps])
        answers, levels = (
            np.array([pair[part] for pair in landed], dtype=np.int64).reshape(-1, self.schedule.update)
            for part in (0, 1)
        )
        batch = self._landing(runs[lands], answers)
        rewards = self._rewarded(self.environment.channel.levels[levels][:, :, None])
        skipped = [silent for _, silent, _, _ in leaps if silent is not None]
        return self._advance(
            runs, np.array([count for count, *_ in leaps]), batch, skipped=skipped, **rewards
        )

    def _leap(
        self, run: int, weights: np.ndarray
    ) -> tuple[int, SilentEpisodes | None, np.ndarray | None, np.ndarray | None]:
        """How many updates a run makes, its skipped episodes, and the update at which it lands.

        Of that update the answers and levels (E,) are returned, or None where the budget allows none.
        `weights` (N + 1,) are the probabilities of all answers and, last, of an invalid one.
        """
        schedule, channel, random = self.schedule, self.environment.channel, self._random[run]
        options = np.append(np.arange(len(weights) - 1), INVALID)
        classes = channel.classes(options, self.secrets[run, 0])
        by_class = np.bincount(classes, weights, minlength=channel.num_classes)
        by_level = by_class if channel.outcomes is None else by_class @ channel.outcomes
        law = GroupLaw(by_level / by_level.sum(), schedule.group_size, schedule.batch_size)

        def answered(levels: np.ndarray) -> np.ndarray:
            return np.asarray(options[_given(levels, weights, classes, channel, random)])

        left = (schedule.budget - int(self._episode[run])) // schedule.update
        count, silent = law.silent_updates(random, at_most=left), None
        if count:
            levels = law.draw_silent(count, random).ravel()
            silent = self._skipped(run, answered(levels), channel.levels[levels])
        if count == left:
            return count, silent, None, None
        levels = law.draw_informative(random)
        return count + 1, silent, answered(levels), levels

    def _skipped(self, run: int, answers: np.ndarray, rewards: np.ndarray) -> SilentEpisodes:
        places, counts = np.arange(len(answers)), np.ones(len(answers), dtype=np.int64)
        if self.environment.channel.certain:
            _, places, counts = np.unique(answers, return_index=True, return_counts=True)
            order = places.argsort()
            places, counts = places[order], counts[order]
        first, update = int(self._episode[run]) + 1, int(self.policy.updates[run])
        return SilentEpisodes(run, update, first + places, answers[places], rewards[places], counts)

    def _landing(self, runs: np.ndarray, answers: np.ndarray) -> Batch:
        """The episodes that give these answers (R, E).

        How an invalid answer went is drawn until one comes, which is as rare as its probability is low.
        """
        prompts = first_prompt(runs)
        batch: Batch = self.policy.demonstrate(runs, prompts, np.where(answers == INVALID, 0, answers))
        for row, place in np.argwhere(answers == INVALID):
            invalid = np.zeros(0, dtype=np.int64)
            while len(invalid) == 0:
                tried = self.policy.sample(runs[[row]], prompts[[row]], _TRIES)
                invalid = np.nonzero(tried.choices[0, :, 0] == INVALID)[0]
            batch.choices[row, place], batch.path[row, place] = (
                tried.choices[0, invalid[0]],
                tried.path[0, invalid[0]],
            )
        return batch


class HitsAndMisses(Sampling):
    """Skips ahead where a reward only says hit or miss and the policy cannot score every answer.

    What was answered in the silent updates is not drawn. Instead the policy is asked, before a leap that
    could try a thousandth of the answers, how likely those of the ledger's panel are.
    """

    _stream = "skip-ahead"

    @override
    def next(self, runs: np.ndarray) -> Batch:
        schedule = self.schedule
        seen = self.policy.assess(runs, self.secrets[runs], self.environment.space.N)
        hit, valid = np.exp(seen.of_form[:, 0]), np.exp(seen.of_valid[:, 0])
        laws = [GroupLaw(np.array([1 - p, p]), schedule.group_size, schedule.batch_size) for p in hit]
        left = (schedule.budget - self._episode[runs]) // schedule.update
        each = list(zip(runs, laws, left, strict=True))
        skipped = np.array([law.silent_updates(self._random[run], int(most)) for run, law, most in each])
        panels = self._ask_panel(runs, np.log1p(-hit), skipped * schedule.update)
        invalid = np.clip((1 - valid) / (1 - hit), 0.0, 1.0)
        silent = [
            self._silent(run, law, count, share, panels.get(int(run)))
            for (run, law, _), count, share in zip(each, skipped, invalid, strict=True)
            if count
        ]
        drawn = [
            law.draw_informative(self._random[run])
            for (run, law, most), count in zip(each, skipped, strict=True)
            if count < most
        ]
        hits = np.array(drawn, dtype=np.int64).reshape(-1, schedule.update)
        batch = self._landing(runs[skipped < left], hits == 1)
        rewards = self._rewarded(self.environment.channel.levels[hits][:, :, None])
        return self._advance(runs, np.minimum(skipped + 1, left), batch, skipped=silent, **rewards)

    def _ask_panel(
        self, runs: np.ndarray, log_miss: np.ndarray, episodes: np.ndarray
    ) -> dict[int, np.ndarray]:
        """Log-probabilities of the panel's answers in case of a miss, by run, for those about to leap far."""
        far = np.nonzero(episodes * _LEAPS_A_SECRET_SPACE >= self.environment.space.N)[0]
        if self.panel is None or len(far) == 0:
            return {}
        asked = np.broadcast_to(self.panel, (len(far), len(self.panel)))
        log_probs = self.policy.log_probs_of(runs[far], asked) - log_miss[far, None]
        return dict(zip(runs[far].tolist(), log_probs, strict=True))

    def _silent(
        self, run: int, law: GroupLaw, updates: int, invalid: float, panel: np.ndarray | None
    ) -> SilentEpisodes:
        """The episodes of silent updates: misses, valid and invalid, and hits."""
        schedule, random = self.schedule, self._random[run]
        groups = updates * schedule.batch_size
        miss, hit = law.probabilities**schedule.group_size
        all_hit = random.binomial(groups, hit / (miss + hit))
        first_hit = int(random.choice(groups, all_hit, replace=False).min()) if all_hit else 0
        misses = (groups - all_hit) * schedule.group_size
        garbled = random.binomial(misses, invalid)
        first = int(self._episode[run]) + 1
        rows = [(first, UNLISTED, 0, misses - garbled), (first, INVALID, 0, garbled)]
        of_hit = first + first_hit * schedule.group_size
        rows.append((of_hit, int(self.secrets[run, 0]), 1, all_hit * schedule.group_size))
        episode, answers, level, counts = np.array([row for row in rows if row[3]]).T
        update = int(self.policy.updates[run])
        return SilentEpisodes(
            int(run), update, episode, answers, self.environment.channel.levels[level], counts, panel
        )

    def _landing(self, runs: np.ndarray, hits: np.ndarray) -> Batch:
        """Episodes of which those marked (R, E) answer S, and the others do not."""
        secrets = self.secrets[runs, 0]
        shown = np.broadcast_to(secrets[:, None], hits.shape)
        batch: Batch = self.policy.demonstrate(runs, first_prompt(runs), shown)
        if len(runs) == 0:
            return batch
        others, chosen = self.policy.sample_others(runs, secrets, hits.shape[1]), hits[:, :, None]
        choices = np.where(chosen, batch.choices, others.choices)
        return replace(batch, choices=choices, path=np.where(chosen, batch.path, others.path))


def _given(
    levels: np.ndarray,
    weights: np.ndarray,
    classes: np.ndarray,
    channel: RewardChannel,
    random: np.random.Generator,
) -> np.ndarray:
    """Draws which option was answered, given the level that was seen: levels (T,) to places (T,).

    The options have these weights and classes.
    """
    places = np.empty(len(levels), dtype=np.int64)
    for level in np.unique(levels):
        likelihood = classes == level if channel.outcomes is None else channel.outcomes[classes, level]
        here = levels == level
        places[here] = draw(weights * likelihood, (int(here.sum()),), random)
    return places
