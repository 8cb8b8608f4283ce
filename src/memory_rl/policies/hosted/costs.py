"""What hosted runs will cost, from the tokens of their conversations alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from memory_rl.policies.hosted.conversations import Conversations
from memory_rl.policies.hosted.settings import HostedSettings
from memory_rl.policies.hosted.spending import Cost

WINDOW = 16
"""Samples of a run that its mass on valid answers is estimated from, at least."""

WARMUP_STEPS, WARMUP_ANSWERS, WARMUP_LOOK = 300, 128, 10
"""At most so many steps of so many answers, with a look every so many steps."""

_SAMPLER = Cost(requests=1)  # a new one after each update


@dataclass(frozen=True)
class Costs:
    """What a population's requests cost at most.

    That is with answers of the greatest length, an optimiser step in every update, and no run done before its
    budget is spent.
    """

    conversations: Conversations
    settings: HostedSettings

    def samples(self, seen: int) -> int:
        """Samples behind each prompt that a measurement of a run wants, if so many are known.

        With one secret these are its next episodes, or enough for an estimate.
        """
        settings, num_prompts = self.settings, self.conversations.trie.num_prompts
        if num_prompts > 1:
            return 0 if settings.scores_all else math.ceil(WINDOW / num_prompts)
        episodes = settings.episodes if settings.sampled else 0
        return episodes if episodes and seen >= WINDOW else max(WINDOW, episodes)

    @cached_property
    def start(self) -> Cost:
        """Measuring all runs before the first update."""
        return (self._measuring(0) + Cost(requests=2)) * self.settings.num_runs

    @cached_property
    def learning(self) -> Cost:
        """One update of one run: its episodes and its optimiser steps."""
        settings = self.settings
        cost = (self.training * settings.episodes + Cost(requests=2)) * settings.epochs
        if settings.sampled:
            cost += self._sampling(settings.episodes // settings.blocks) * settings.blocks
        return cost + _SAMPLER * (settings.every > 1)  # one more where the last update was not measured

    @cached_property
    def measurement(self) -> Cost:
        """Of one run, after an update."""
        return self._measuring(WINDOW) + _SAMPLER

    @property
    def update(self) -> Cost:
        """One update of one run, with the measurement after it."""
        return self.learning + self.measurement

    @property
    def least(self) -> int:
        """Tokens without which not one update of all runs can be made; a warm-up comes on top."""
        return (self.start + self.update * self.settings.num_runs).tokens

    def measurements(self, updates: int) -> int:
        """Of one run that makes this many updates: as many, unless several lie between two of them."""
        # It is optimiser steps that lie between two measurements.
        return min(updates, updates * self.settings.epochs // self.settings.every + 1)

    def most(self, updates: int) -> Cost:
        """This many updates of all runs."""
        of_run = self.learning * updates + self.measurement * self.measurements(updates)
        return self.warmup + self.start + of_run * self.settings.num_runs

    def sentences(self, updates: int) -> list[str]:
        """What is said before the start of so many updates."""
        warmup, runs = self.warmup, self.settings.num_runs
        return [
            *([f"the format warm-up of the base model costs at most {warmup}."] if warmup.tokens else ()),
            f"an update of one run costs at most {self.update}; measuring all {runs} runs before the first "
            f"one costs {self.start}.",
            f"all {runs} runs together cost at most {self.most(updates)}, if none is done before its "
            f"{updates:,} updates: max_tokens_total= stops earlier.",
        ]

    @property
    def scoring(self) -> Cost:
        """Of the probability of one answer; a token that nobody wants comes with it."""
        return Cost(prefilled=self.conversations.longest, sampled=1, requests=1)

    @property
    def training(self) -> Cost:
        """Of a pass over one episode."""
        return Cost(trained=self.conversations.longest - 1)

    def _measuring(self, seen: int) -> Cost:
        forms = self.settings.num_answers if self.settings.scores_all else 1
        of_prompt = self.scoring * forms + self._sampling(self.samples(seen))
        return of_prompt * self.conversations.trie.num_prompts

    @property
    def warmup(self) -> Cost:
        """All steps that a format warm-up may take."""
        answers, looks = min(self.settings.num_answers, WARMUP_ANSWERS), 1 + WARMUP_STEPS // WARMUP_LOOK
        learning = (self.training * answers + Cost(requests=2)) * WARMUP_STEPS
        looking = (self.scoring * answers + Cost(requests=1)) * looks
        return (learning + looking + Cost(requests=2)) * self.settings.warms_up

    def _sampling(self, count: int) -> Cost:
        """Of so many conversations that share their prompt."""
        cost = Cost()
        for begins in self.conversations.turns:
            asked = min(count, len(begins))
            cost += Cost(
                prefilled=asked * max(len(self.conversations.before(decision)) for decision in begins),
                sampled=count * int(self.conversations.longest_reply[begins].max()),
                requests=asked,
            )
        return cost
