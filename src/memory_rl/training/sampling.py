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
from memory_rl.training.teachers import Teacher

_TRIES = 256
_LEAPS_A_SECRET_SPACE = 1024  # a leap of fewer than N over this many episodes does not ask the panel again


@dataclass(eq=False, kw_only=True)
class Sampling(Stateful):
    """Gives each run the episodes that lead to its next update.

    Attributes:
        group_size: G episodes share a baseline; an example is a group of its own.
        batch_size: groups an update.
        budget: the most episodes of one run.
        seed: of all random streams.
        policy: what answers.
        learner: asks it.
        secrets: (R, M).
        environment: rewards the answers.
        prompts: which secret is asked for.
        credit: of each step.
        beliefs: of the ideal observers, for learners that want them.
        teacher: judges the answers, if there is one.
        answers: (D,) of the examples in the order in which they are shown, repeated if there are fewer than
            the budget; None to show each run its own secrets.
        panel: (Q,) answers that the ledger asks about where not all are scored; None without a ledger.
    """

    group_size: int
    batch_size: int
    budget: int
    seed: int
    policy: Any
    learner: Any
    secrets: np.ndarray
    environment: Environment
    prompts: Prompts
    credit: str = "step"
    beliefs: Beliefs | None = None
    teacher: Teacher | None = None
    answers: np.ndarray | None = None
    panel: np.ndarray | None = None

    kept = ("_episode", "_random", "prompts", "beliefs")
    _stream: ClassVar[str] = "reward noise"

    def __post_init__(self) -> None:
        self.update = self.group_size * self.batch_size  # E: episodes of one run between two updates
        self._episode = np.zeros(len(self.secrets), dtype=np.int64)  # how many each run has had
        self._random = RunStreams(self.seed, self._stream, len(self.secrets))

    @property
    def episodes(self) -> np.ndarray:
        """(R,) how many episodes each run has had."""
        return self._episode

    @abstractmethod
    def next(self, runs: np.ndarray) -> Batch:
        """The episodes of these runs (R,) up to their next update, or the end of their budget."""

    def _advance(self, runs: np.ndarray, updates: np.ndarray | int, batch: Batch, **more: Any) -> Batch:
        """The batch, after so many updates (R,) of each of these runs, the silent ones included."""
        self._episode[runs] += updates * self.update
        return replace(batch, active=runs, episodes=self._episode[runs], **more)

    def _rewarded(self, rewards: np.ndarray) -> dict[str, np.ndarray]:
        """Rewards (R, E, K), and what each step is credited with, by group."""
        shape = (len(rewards), self.batch_size, self.group_size, rewards.shape[2])
        return {"rewards": rewards, "returns": credit_rewards(rewards.reshape(shape), self.credit)}

    def _asked(self, runs: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        """The secret that each episode is about: (R, E)."""
        return np.repeat(self.secrets[runs[:, None], prompts], self.update // prompts.shape[1], axis=1)


class Shown(Sampling):
    """Supervised learning: each episode is an example, and shows the answer."""

    @override
    def next(self, runs: np.ndarray) -> Batch:
        prompts = self.prompts.next(runs)
        shown = self._asked(runs, prompts)
        if self.answers is not None:  # all runs have then seen equally many
            places = self._episode[runs[0]] + np.arange(self.update)
            shown = np.broadcast_to(self.answers[places % len(self.answers)], shown.shape)
        return self._advance(runs, 1, self.policy.demonstrate(runs, prompts, shown))


class StepByStep(Sampling):
    """Samples every episode from the policy."""

    @override
    def next(self, runs: np.ndarray) -> Batch:
        prompts = self.prompts.next(runs)
        batch = self.learner.sample(self.policy, runs, prompts, self.update)
        certain = self.environment.channel.certain
        uniforms = None if certain else self._random.random(runs, *batch.choices.shape[1:])
        rewards = self.environment.rewards(batch.choices, self._asked(runs, prompts), uniforms)
        batch = self._advance(runs, 1, batch, **self._rewarded(rewards))
        return batch if self.beliefs is None else replace(batch, beliefs=self.beliefs.after(batch))


class Taught(StepByStep):
    """Samples every episode from the policy, and has a teacher judge it; an observer is rewarded, too."""

    @override
    def next(self, runs: np.ndarray) -> Batch:
        assert self.teacher is not None  # noqa: S101  # made with one
        if self.beliefs is not None:
            return self.teacher.judge(super().next(runs))
        prompts = self.prompts.next(runs)
        return self.teacher.judge(self._advance(runs, 1, self.policy.sample(runs, prompts, self.update)))


@dataclass(frozen=True, kw_only=True)
class AnswerLaw(GroupLaw):
    """The rewards of a run whose answers are all scored.

    Attributes:
        weights: (N + 1,) the probability of each answer and, last, of an invalid one.
        classes: (N + 1,) of these answers under the run's secret.
        channel: rewards them.
    """

    weights: np.ndarray
    classes: np.ndarray
    channel: RewardChannel

    def draw_answers(self, levels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Draws what was answered, given the level that was seen: levels (T,) to answers (T,)."""
        answers, outcomes = np.empty(len(levels), dtype=np.int64), self.channel.outcomes
        for level in np.unique(levels):
            likelihood = self.classes == level if outcomes is None else outcomes[self.classes, level]
            here = levels == level
            answers[here] = draw(self.weights * likelihood, (int(here.sum()),), random)
        return np.where(answers == len(self.weights) - 1, INVALID, answers)


class SkipAhead(Sampling):
    """Draws the silent updates and the next one with a signal from their laws.

    For one answer per episode, which is rewarded against its group.
    """

    _stream = "skip-ahead"

    @override
    def next(self, runs: np.ndarray) -> Batch:
        laws = dict(zip(runs.tolist(), self._laws(runs), strict=True))
        left = (self.budget - self._episode[runs]) // self.update
        each = zip(laws.items(), left.tolist(), strict=True)
        silent = np.array([law.silent_updates(self._random[run], most) for (run, law), most in each])
        skipped = self._skipped(laws, silent)
        landing = runs[silent < left]
        drawn = [laws[run].draw_informative(self._random[run]) for run in landing.tolist()]
        levels = np.array(drawn, dtype=np.int64).reshape(-1, self.update)
        batch = self._landing(landing, laws, levels)
        rewards = self._rewarded(self.environment.channel.levels[levels][:, :, None])
        return self._advance(runs, np.minimum(silent + 1, left), batch, skipped=skipped, **rewards)

    def _laws(self, runs: np.ndarray) -> list[Any]:
        """The law of each run's rewards, from what its policy would answer now."""
        prompts, channel = first_prompt(runs), self.environment.channel
        of_answers = np.exp(self.policy.log_probs(runs, prompts)[:, 0])
        each = np.append(of_answers, self.policy.invalid(runs, prompts), axis=1)
        options, laws = np.append(np.arange(of_answers.shape[1]), INVALID), []
        for secret, weights in zip(self.secrets[runs, 0], each, strict=True):
            classes = channel.classes(options, secret)
            by_class = np.bincount(classes, weights, minlength=channel.num_classes)
            by_level = by_class if channel.outcomes is None else by_class @ channel.outcomes
            levels = (by_level / by_level.sum(), self.group_size, self.batch_size)
            laws.append(AnswerLaw(*levels, weights=weights, classes=classes, channel=channel))
        return laws

    def _skipped(self, laws: dict[int, Any], updates: np.ndarray) -> list[SilentEpisodes]:
        """The episodes of so many silent updates (R,) of each run."""
        each = zip(laws.items(), updates.tolist(), strict=True)
        return [self._silent(run, law, count) for (run, law), count in each if count]

    def _silent(self, run: int, law: Any, updates: int) -> SilentEpisodes:
        """The episodes of silent updates of one run: without noise, equal answers share a row."""
        channel, random = self.environment.channel, self._random[run]
        levels = law.draw_silent(updates, random).ravel()
        answers = law.draw_answers(levels, random)
        alike = answers if channel.certain else np.arange(len(answers))
        _, places, counts = np.unique(alike, return_index=True, return_counts=True)
        order = places.argsort()
        places, counts = places[order], counts[order]
        first, update = int(self._episode[run]) + 1, int(self.policy.updates[run])
        rewards = channel.levels[levels[places]]
        return SilentEpisodes(run, update, first + places, answers[places], rewards, counts)

    def _landing(self, runs: np.ndarray, laws: dict[int, Any], levels: np.ndarray) -> Batch:
        """Episodes of these runs that carry a signal: they earn these levels (R, E).

        How an invalid answer went is drawn until one comes, which is as rare as its probability is low.
        """
        each = zip(runs.tolist(), levels, strict=True)
        drawn = [laws[run].draw_answers(row, self._random[run]) for run, row in each]
        answers, prompts = np.array(drawn, dtype=np.int64).reshape(levels.shape), first_prompt(runs)
        batch: Batch = self.policy.demonstrate(runs, prompts, np.where(answers == INVALID, 0, answers))
        for row, place in np.argwhere(answers == INVALID):
            invalid = np.zeros(0, dtype=np.int64)
            while len(invalid) == 0:
                tried = self.policy.sample(runs[[row]], prompts[[row]], _TRIES)
                invalid = np.nonzero(tried.choices[0, :, 0] == INVALID)[0]
            batch.choices[row, place] = tried.choices[0, invalid[0]]
            batch.path[row, place] = tried.path[0, invalid[0]]
        return batch


@dataclass(frozen=True, kw_only=True)
class HitLaw(GroupLaw):
    """The rewards of a run of which only P(S) is known: those of misses and hits.

    Attributes:
        invalid: the probability that a miss is an invalid answer.
    """

    invalid: float


class HitsAndMisses(SkipAhead):
    """Skips ahead where a reward only says hit or miss and the policy cannot score every answer.

    What was answered in the silent updates is not drawn. Instead the policy is asked, before a leap that
    could try a thousandth of the answers, how likely those of the ledger's panel are.
    """

    @override
    def _laws(self, runs: np.ndarray) -> list[Any]:
        sizes = self.group_size, self.batch_size
        seen = self.policy.assess(runs, self.secrets[runs], self.environment.space.N)
        hit, valid = np.exp(seen.of_form[:, 0]), np.exp(seen.of_valid[:, 0])
        invalid = np.clip((1 - valid) / (1 - hit), 0.0, 1.0)
        return [
            HitLaw(np.array([1 - p, p]), *sizes, invalid=share) for p, share in zip(hit, invalid, strict=True)
        ]

    @override
    def _skipped(self, laws: dict[int, Any], updates: np.ndarray) -> list[SilentEpisodes]:
        """Where a run is about to leap far, with what the panel says of its misses."""
        skipped = super()._skipped(laws, updates)
        far = np.nonzero(updates * self.update * _LEAPS_A_SECRET_SPACE >= self.environment.space.N)[0]
        if self.panel is None or len(far) == 0:
            return skipped
        runs, hit = np.array([*laws]), np.array([law.probabilities[1] for law in laws.values()])
        asked = np.broadcast_to(self.panel, (len(far), len(self.panel)))
        log_probs = self.policy.log_probs_of(runs[far], asked) - np.log1p(-hit)[far, None]
        panels = dict(zip(runs[far].tolist(), log_probs, strict=True))
        return [replace(some, panel=panels.get(some.run)) for some in skipped]

    @override
    def _silent(self, run: int, law: Any, updates: int) -> SilentEpisodes:
        """The episodes of silent updates: misses, valid and invalid, and hits."""
        random = self._random[run]
        groups = updates * self.batch_size
        miss, hit = law.probabilities**self.group_size
        all_hit = random.binomial(groups, hit / (miss + hit))
        first_hit = int(random.choice(groups, all_hit, replace=False).min()) if all_hit else 0
        misses = (groups - all_hit) * self.group_size
        garbled = random.binomial(misses, law.invalid)
        first = int(self._episode[run]) + 1
        of_hit = first + first_hit * self.group_size
        rows = [
            (first, UNLISTED, 0, misses - garbled),
            (first, INVALID, 0, garbled),
            (of_hit, int(self.secrets[run, 0]), 1, all_hit * self.group_size),
        ]
        episode, answers, level, counts = np.array([row for row in rows if row[3]]).T
        update, rewards = int(self.policy.updates[run]), self.environment.channel.levels[level]
        return SilentEpisodes(run, update, episode, answers, rewards, counts)

    @override
    def _landing(self, runs: np.ndarray, laws: dict[int, Any], levels: np.ndarray) -> Batch:
        """Episodes of these runs that answer S where they earn level 1 (R, E), and do not elsewhere."""
        secrets, chosen = self.secrets[runs, 0], levels[:, :, None] == 1
        shown = np.broadcast_to(secrets[:, None], levels.shape)
        batch: Batch = self.policy.demonstrate(runs, first_prompt(runs), shown)
        if len(runs) == 0:
            return batch
        others = self.policy.sample_others(runs, secrets, levels.shape[1])
        choices = np.where(chosen, batch.choices, others.choices)
        return replace(batch, choices=choices, path=np.where(chosen, batch.path, others.path))
