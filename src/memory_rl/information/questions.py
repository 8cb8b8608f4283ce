"""All questions that may be asked, for the ceilings: how each sorts the secrets into classes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from memory_rl.information.outcomes import Outcomes, class_masses

_CELLS_A_CHUNK = 2**22
_EVENTS_A_CHUNK = 2**21
_TIE = 1e-12  # bits


class Questions(Protocol):
    """A questions about N secrets, each with classes in [0, C)."""

    @property
    def num_classes(self) -> int:
        """C."""

    def counts(self) -> Iterator[np.ndarray]:
        """How many secrets each question puts into each class: (A', C) of some of the questions at a time."""


class Askable(Questions, Protocol):
    """Questions among which the best for any belief can be found."""

    @property
    def num_secrets(self) -> int:
        """N."""

    @property
    def num_questions(self) -> int:
        """A."""

    def classes(self, questions: np.ndarray, secrets: np.ndarray) -> np.ndarray:
        """The class of each secret under each question; the shapes broadcast."""

    def best(self, secrets: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """The most informative question for each of G sets of candidates, answered without noise: (G,).

        Of several such questions it is the smallest that may be S, else the smallest.

        Args:
            secrets: (T,) the candidates of all sets, one set behind the other, ascending in each.
            starts: (G + 1,) where each set begins, and T.
        """

    def masses(self, posterior: np.ndarray) -> Iterator[np.ndarray]:
        """How much of each of these beliefs (R, N) falls into each class of each question: R times (A, C)."""


@dataclass(frozen=True)
class Listed:
    """Questions of any kind: `table` (A, N) holds the class of each secret; the first N are the secrets'."""

    table: np.ndarray
    num_classes: int

    @property
    def num_secrets(self) -> int:
        """N."""
        return self.table.shape[1]

    @property
    def num_questions(self) -> int:
        """A."""
        return len(self.table)

    def counts(self) -> Iterator[np.ndarray]:
        """By going through the table."""
        step = max(1, _CELLS_A_CHUNK // max(self.num_secrets, self.num_classes))
        for start in range(0, len(self.table), step):
            some = self.table[start : start + step]
            yield class_masses(some, np.ones(some.shape), self.num_classes)

    def classes(self, questions: np.ndarray, secrets: np.ndarray) -> np.ndarray:
        """Looked up."""
        return np.asarray(self.table[questions, secrets])

    def best(self, secrets: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """By trying all questions on each set."""
        return np.array([most_informative(self, some) for some in np.split(secrets, starts[1:-1])])

    def masses(self, posterior: np.ndarray) -> Iterator[np.ndarray]:
        """By one product of matrices."""
        shape = (len(posterior), len(self.table), self.num_classes)
        yield from (posterior @ self._sorted_into).reshape(shape)

    @cached_property
    def _sorted_into(self) -> np.ndarray:
        """(N, A C) 1 where a secret is in a class of a question."""
        sorted_into = np.zeros((self.num_secrets, len(self.table), self.num_classes))
        np.put_along_axis(sorted_into, self.table.T[:, :, None], 1.0, axis=2)
        return sorted_into.reshape(self.num_secrets, -1)


@dataclass(frozen=True)
class Asked:
    """The classes (R, N) of all secrets under R of the questions, made when they are looked up."""

    questions: Askable
    which: np.ndarray

    def __getitem__(self, some: slice) -> np.ndarray:
        """(R', N) of the questions in this slice."""
        return self.questions.classes(self.which[some, None], np.arange(self.questions.num_secrets))


def most_informative(questions: Listed, candidates: np.ndarray) -> int:
    """The question that tells most about these candidates; which of several, `Askable.best` says."""
    among = Listed(questions.table[:, candidates], questions.num_classes)
    information = uniform_information(among, Outcomes(questions.num_classes))
    best = np.nonzero(information >= information.max() - _TIE)[0]
    possible = best[np.isin(best, candidates)]
    return int(possible[0] if len(possible) else best[0])


@dataclass(frozen=True)
class Shifted:
    """Questions of which the class depends on S - answer alone: runs of differences that share one.

    An answer's classes are then intervals of secrets, which move along with it. What it tells about a set of
    candidates changes only where one of them crosses an edge, so that no more answers need be looked at.

    Attributes:
        by_difference: (2 N - 1,) the class where S - answer is -(N - 1), ..., N - 1.
        num_classes: C.
    """

    by_difference: np.ndarray
    num_classes: int

    @property
    def num_secrets(self) -> int:
        """N."""
        return (len(self.by_difference) + 1) // 2

    @property
    def num_questions(self) -> int:
        """N, too."""
        return self.num_secrets

    @cached_property
    def edges(self) -> np.ndarray:
        """(J - 1,) the differences at which another class begins."""
        return np.nonzero(np.diff(self.by_difference))[0] + 2 - self.num_secrets

    @cached_property
    def _class_of_interval(self) -> np.ndarray:
        """(J,) of the intervals before, between and behind the edges."""
        return self.by_difference[np.append(0, self.edges + self.num_secrets - 1)]

    def counts(self) -> Iterator[np.ndarray]:
        """From where the intervals of each answer begin and end."""
        yield from self._sums(np.arange(self.num_secrets + 1))

    def masses(self, posterior: np.ndarray) -> Iterator[np.ndarray]:
        """From prefix sums of the belief."""
        for belief in posterior:
            yield np.concatenate([*self._sums(np.append(0.0, belief.cumsum()))])

    def _sums(self, below: np.ndarray) -> Iterator[np.ndarray]:
        """(A', C) from what lies below each secret, and below N: (N + 1,)."""
        N = self.num_secrets
        step = max(1, _CELLS_A_CHUNK // (len(self.edges) + self.num_classes))
        for start in range(0, N, step):
            answers = np.arange(start, min(N, start + step))
            sums = np.zeros((self.num_classes, len(answers)), dtype=below.dtype)
            reached = below[np.clip(answers + self.edges[:, None], 0, N)]
            for number, to in zip(self._class_of_interval, [*reached, below[-1:]], strict=True):
                sums[number] += to
            for number, since in zip(self._class_of_interval[1:], reached, strict=True):
                sums[number] -= since
            yield sums.T

    def classes(self, questions: np.ndarray, secrets: np.ndarray) -> np.ndarray:
        """Looked up by the difference."""
        return np.asarray(self.by_difference[secrets - questions + self.num_secrets - 1])

    def best(self, secrets: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """By going through the answers at which a candidate crosses an edge, many sets at a time."""
        answers, first = [], 0
        while first < len(starts) - 1:
            fits = np.searchsorted(starts, starts[first] + _EVENTS_A_CHUNK // (len(self.edges) + 1), "right")
            last = max(first + 1, int(fits) - 1)
            some = slice(starts[first], starts[last])
            answers.append(self._best(secrets[some], starts[first : last + 1] - starts[first]))
            first = last
        return np.concatenate(answers)

    def _best(self, secrets: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """The same for some sets, by sorting all events (set, answer, edge) at which a candidate crosses."""
        sizes, width, bits = np.diff(starts), int(self.num_secrets).bit_length(), len(self.edges).bit_length()
        numbers = np.arange(len(sizes)) << width
        of_secret = np.repeat(numbers, sizes)
        crossed = np.clip(secrets[:, None] - self.edges + 1, 0, self.num_secrets)
        events = ((of_secret[:, None] + crossed) << bits) + np.arange(1, len(self.edges) + 1)
        events = np.sort(np.append(events, numbers << bits))  # all sets are looked at from answer 0 on
        places = events >> bits
        changes = np.append(places[1:] != places[:-1], True)
        changes &= (places & ((1 << width) - 1)) < self.num_secrets
        edge, places = events & ((1 << bits) - 1), places[changes]
        which = places >> width
        alike = self._alike(edge, changes, starts[which], sizes[which])
        begins = np.searchsorted(which, np.arange(len(sizes)))
        least = np.minimum.reduceat(alike, begins)
        good = alike <= (least + _TIE * sizes)[which]
        smallest = places[good][np.searchsorted(which[good], np.arange(len(sizes)))]
        # a secret that is a best answer lies behind the last change at or before it
        possible = good[np.searchsorted(places, of_secret + secrets, "right") - 1]
        at = np.nonzero(possible)[0]
        first = np.searchsorted(at, starts[:-1])
        found = at[np.minimum(first, len(at) - 1)] if len(at) else np.zeros(len(sizes), dtype=np.int64)
        has = (first < np.searchsorted(at, starts[1:])) if len(at) else np.full(len(sizes), False)
        return np.where(has, secrets[found], smallest & ((1 << width) - 1))

    def _alike(
        self, edge: np.ndarray, changes: np.ndarray, start: np.ndarray, size: np.ndarray
    ) -> np.ndarray:
        """The sum over classes of n log2 n, n candidates in each, at each change: the less, the more is told.

        Args:
            edge: (E,) of each event, from 1, or 0.
            changes: (E,) bool, P of them true.
            start: (P,) candidates of the sets before.
            size: (P,) candidates of the set.
        """
        before, passed = np.zeros(len(start), dtype=np.int32), []
        for number in range(1, len(self.edges) + 1):
            passed.append(np.cumsum(edge == number, dtype=np.int32)[changes] - start.astype(np.int32))
        passed.append(size.astype(np.int32))
        total = np.zeros(len(start))
        intervals: dict[int, np.ndarray] = {}
        for number, now in zip(self._class_of_interval.tolist(), passed, strict=True):
            intervals[number] = intervals.get(number, 0) + (now - before)
            before = now
        most = int(size.max())
        table = np.arange(most + 1) * np.log2(np.maximum(np.arange(most + 1), 1))
        for counted in intervals.values():
            total += table[counted]
        return total


@dataclass(frozen=True)
class Sums:
    """Answers of k bits that are shown how many of them are right: [0, N) as blocks of all lower bits.

    Attributes:
        num_secrets: N <= 2^k.
    """

    num_secrets: int

    @property
    def num_classes(self) -> int:
        """K + 1."""
        return self._num_bits + 1

    @property
    def _num_bits(self) -> int:
        return int(self.num_secrets - 1).bit_length()

    def counts(self) -> Iterator[np.ndarray]:
        """From each block: its higher bits are right for all its secrets or for none, the others binomial."""
        N, k = self.num_secrets, self._num_bits
        step = max(1, _CELLS_A_CHUNK // self.num_classes)
        for start in range(0, 2**k, step):
            answers = np.arange(start, min(2**k, start + step))
            counts = np.zeros((len(answers), k + 1))
            for free in (place for place in range(k + 1) if N >> place & 1):
                right = k - free - np.bitwise_count((answers ^ (N - (1 << free))) >> free)
                ways = np.array([math.comb(free, number) for number in range(free + 1)], dtype=float)
                shifted = np.zeros((k - free + 1, k + 1))
                for base in range(k - free + 1):
                    shifted[base, base : base + free + 1] = ways
                counts += shifted[right]
            yield counts


@dataclass(frozen=True)
class Beginnings:
    """Answers of which is shown with how many digits of S they begin; the last class is S itself.

    Attributes:
        num_secrets: N.
    """

    num_secrets: int

    @property
    def num_classes(self) -> int:
        """The digits of N - 1, and one more."""
        return len(str(self.num_secrets - 1)) + 1

    def counts(self) -> Iterator[np.ndarray]:
        """From how many secrets begin with one digit of the answer, with two, and so on."""
        N, width = self.num_secrets, self.num_classes - 1
        answers = np.arange(N)
        length = 1 + (answers[:, None] >= 10 ** np.arange(1, width)).sum(axis=1)
        alike = np.zeros((N, width + 2), dtype=np.int64)  # with so many digits alike at least
        alike[:, 0] = N
        for number in range(1, width + 1):
            begins = answers // 10 ** np.maximum(length - number, 0)
            for more in range(width):  # nothing but 0 begins with 0
                few = np.clip((np.stack([begins, begins + 1]) * 10**more), 0, N)
                alike[:, number] += np.where((begins > 0) | (more == 0), few[1] - few[0], 0)
            alike[length < number, number] = 0
        counts = alike[:, :-1] - alike[:, 1:]
        counts[answers, length] -= 1
        counts[:, width] += 1
        yield counts


def uniform_information(questions: Questions, outcomes: Outcomes) -> np.ndarray:
    """I(S; level) of each question while every secret is equally likely: (A,) bits."""
    each = [outcomes.information(counts / counts.sum(axis=1, keepdims=True)) for counts in questions.counts()]
    return np.concatenate(each)
