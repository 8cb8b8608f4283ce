"""What hosted runs will cost, from the tokens of their conversations alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from memory_rl.policies.hosted.conversations import Conversations
from memory_rl.policies.hosted.service import HostedSettings
from memory_rl.policies.hosted.spending import Cost, CostRange

WINDOW = 16
"""Samples of a run that its mass on valid answers is estimated from, at least."""

WARMUP_STEPS, WARMUP_ANSWERS, WARMUP_LOOK = 300, 128, 10
"""At most so many steps of so many answers, with a look every so many steps."""


@dataclass(frozen=True)
class Costs:
    """The costs of a population's requests."""

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

    def estimate(self, updates: int) -> CostRange:
        """What this many updates of all runs cost at most."""
        settings = self.settings
        # A sampler is new after each update, and once more where that was not measured.
        sampler, each = Cost(requests=1), settings.episodes // settings.blocks
        learning = (self.training * settings.episodes + Cost(requests=2)) * settings.epochs
        learning += self._sampling(each) * (settings.blocks if settings.sampled else 0)
        learning += sampler * (settings.every > 1)
        first = self._measuring(0) + Cost(requests=2)
        # It is optimiser steps that lie between two measurements.
        measurements = min(updates, updates * settings.epochs // settings.every + 1)
        after, runs = self._measuring(WINDOW) + sampler, settings.num_runs
        return CostRange(first * runs, learning, after, runs, updates, measurements, self._warmup())

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

    def _warmup(self) -> Cost:
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
