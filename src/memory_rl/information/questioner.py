"""The ideal questioner: the episodes of a learner that knows the channel and chooses its answers well.

It forgets nothing. Without noise it knows a set of candidates, all equally likely. It *knows* S when one
candidate is left, it *hits* S when it answers S, and it *reaches* a certainty p when at most 1 / p candidates
are left; all counts include the episode in which it happens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from memory_rl.information.observer import Observer, Partition
from memory_rl.information.outcomes import Outcomes
from memory_rl.information.questions import Askable, Asked

_TIE = 1e-12  # bits


@dataclass(frozen=True)
class Episodes:
    """Expected episodes of a questioner, over uniform secrets.

    Attributes:
        to_know: until one candidate is left; None where noise never lets it be certain.
        to_hit: until it has answered S; None where that was not computed.
        to_reach: until P(S) is at least the certainty that was asked for. With certainty 1 it is `to_know`.
    """

    to_know: float | None
    to_hit: float | None
    to_reach: float


def candidates_at(certainty: float) -> int:
    """The most candidates of which each can have at least this probability."""
    return math.floor(1 / certainty + 1e-9)


def binary(N: int, certainty: float = 1.0) -> Episodes:
    """The questioner of the binary channel tries one candidate after the other.

    It hits S after (N + 1) / 2 episodes on average. It then also knows S, except that one episode decides
    between the last two candidates, so that the mean is (N - 1)(N + 2) / (2 N). In general it has reached m
    candidates once it has hit S or has T = N - m misses: (T (T + 1) / 2 + m T) / N episodes.
    """

    def until(left: int) -> float:
        misses = N - left
        return (misses * (misses + 1) / 2 + left * misses) / N

    return Episodes(until(1), (N + 1) / 2, until(min(N, candidates_at(certainty))))


def distance(N: int, certainty: float = 1.0) -> Episodes:
    """Where |answer - S| or each right bit is shown, any end point or string of bits reveals S.

    With probability 1 / N it has already hit S; else the next episode does.
    """
    return Episodes(1.0, 2.0 - 1.0 / N, float(candidates_at(certainty) < N))


def example(N: int, certainty: float = 1.0) -> Episodes:
    """Shown S once, the learner knows it; its next answer hits."""
    return Episodes(1.0, 2.0, float(candidates_at(certainty) < N))


def greedy(questions: Askable, certainty: float = 1.0) -> Episodes:
    """The questioner that always gives the answer whose reward has the highest entropy.

    Of several such answers it gives the smallest that may be S, else the smallest. All sets of candidates
    that it may be left with after as many episodes are looked at together.

    Args:
        questions: that it may ask, answered without noise; the first N are the secrets'.
        certainty: the P(S) that `Episodes.to_reach` counts to.

    Raises:
        ValueError: if no answer tells some candidates apart, so that S is never known.
    """
    num_secrets, enough = questions.num_secrets, candidates_at(certainty)
    to_know = to_hit = to_reach = 0  # episodes, summed over the secrets
    # candidates, set by set, whether each was tried on the way there, and where each set begins
    secrets, tried = np.arange(num_secrets), np.zeros(num_secrets, dtype=bool)
    starts = np.array([0, num_secrets])
    while len(secrets):
        # those that were tried have been hit, even if others look like them
        to_hit += int((~tried).sum())
        sizes = np.diff(starts)
        is_open = np.repeat(sizes > 1, sizes)
        secrets, tried, sizes = secrets[is_open], tried[is_open], sizes[sizes > 1]
        if len(secrets) == 0:
            break
        to_know += len(secrets)
        to_reach += int(sizes[sizes > enough].sum())
        answers = np.repeat(questions.best(secrets, np.append(0, sizes.cumsum())), sizes)
        seen = questions.classes(answers, secrets)
        of_set = np.repeat(np.arange(len(sizes)), sizes)
        order = np.lexsort((seen, of_set))  # keeps the secrets of a group ascending
        secrets, tried, seen, of_set = (
            secrets[order],
            (tried | (answers == secrets))[order],
            seen[order],
            of_set,
        )
        begins = np.append(True, (np.diff(seen) != 0) | (np.diff(of_set) != 0))
        starts = np.append(np.nonzero(begins)[0], len(secrets))
        alike = np.nonzero(np.bincount(of_set[begins]) == 1)[0]
        if len(alike):
            raise ValueError(f"no answer tells the secrets {secrets[of_set == alike[0]].tolist()} apart")
    return Episodes(to_know / num_secrets, to_hit / num_secrets, to_reach / num_secrets)


def simulated(
    questions: Askable,
    outcomes: Outcomes,
    certainty: float,
    *,
    games: int,
    generator: np.random.Generator,
    max_episodes: int,
) -> Episodes:
    """The greedy questioner of a noisy channel, by playing games.

    It keeps exact posteriors and asks what is expected to reveal the most; ties go to the smallest answer. A
    game that has not reached the certainty by `max_episodes` counts as under a constant rate: episodes played
    / games that ended.

    Args:
        questions: that it may ask.
        outcomes: p(level | class), noisy.
        certainty: a game ends when P(S) is at least this.
        games: how many are played, each with a secret of its own.
        generator: draws secrets and levels.
        max_episodes: the longest a game may be.

    Returns:
        Only `to_reach`; infinite if no game ended.
    """
    num_secrets = questions.num_secrets
    observer, secrets = Observer(games, num_secrets), generator.integers(num_secrets, size=games)
    threshold = np.log2(num_secrets * certainty) - 1e-9

    def play(playing: np.ndarray) -> np.ndarray:
        answers = np.array([_most(outcomes, m) for m in questions.masses(observer.posterior(playing))])
        levels = outcomes.draw(questions.classes(answers, secrets[playing]), generator.random(len(playing)))
        observer.observe(playing, Partition(Asked(questions, answers)), outcomes, levels)
        return observer.bits_known(playing, secrets[playing]) < threshold

    return play_out(games, play, max_episodes) if threshold > 0 else Episodes(None, None, 0.0)


def play_out(games: int, play: Callable[[np.ndarray], np.ndarray], max_episodes: int) -> Episodes:
    """Plays games until they end; `Episodes.to_reach` is infinite if none does.

    Args:
        games: how many begin.
        play: an episode of these games (R,); says which of them go on, (R,) bool.
        max_episodes: the longest a game may be.
    """
    playing, spent = np.arange(games), 0
    for _ in range(max_episodes):
        if len(playing) == 0:
            break
        spent += len(playing)
        playing = playing[play(playing)]
    ended = games - len(playing)
    return Episodes(None, None, spent / ended if ended else math.inf)


def _most(outcomes: Outcomes, masses: np.ndarray) -> int:
    """The smallest of the questions that tell most, from the mass of each class: (A, C)."""
    information = outcomes.information(masses)
    return int((information >= information.max() - _TIE).argmax())


def optimal_episodes_to_know(classes: np.ndarray) -> float:
    """The fewest expected episodes in which any questioner knows S.

    By dynamic programming over sets of candidates.

    Args:
        classes: (A, N) integers; the cost grows like 2^N, so N up to about 16.

    Raises:
        ValueError: if some candidates can never be told apart.
    """
    num_secrets = classes.shape[1]
    masks = [
        [sum(1 << s for s in range(num_secrets) if row[s] == level) for level in np.unique(row)]
        for row in classes.tolist()
    ]

    @cache
    def least(candidates: int) -> float:
        size = candidates.bit_count()
        if size == 1:
            return 0.0
        splits = ([part for mask in answer if (part := candidates & mask)] for answer in masks)
        costs = [
            sum(part.bit_count() * least(part) for part in parts) / size for parts in splits if len(parts) > 1
        ]
        if not costs:
            raise ValueError("some secrets can never be told apart")
        return 1.0 + min(costs)

    return least((1 << num_secrets) - 1)
