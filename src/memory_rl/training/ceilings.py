"""What no learner of a condition can exceed, from its world alone: nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from memory_rl.information import bits, bounds, noisy_bits, questioner
from memory_rl.information.bounds import FirstEpisode
from memory_rl.information.outcomes import Outcomes
from memory_rl.information.questioner import Episodes
from memory_rl.information.questions import Askable, Beginnings, Listed, Questions, Shifted, Sums
from memory_rl.limits import MAX_TABULATED_N
from memory_rl.task import Environment, EpisodeTable
from memory_rl.training.accounts import outcomes_of

_OPTIMAL_N = 12
_GAMES = 512
_EPISODES = 50 * 256
_SIMULATED = f"greedy, simulated over {_GAMES} games"
_UNKNOWN = "not computed"
_NEVER = "none can know S"
_TIE = 1e-12
_CELLS = 2**24
"""The largest size at which the ceilings of a noisy channel are computed.

It is counted in cells: answers x secrets x classes, or a channel's rows x levels for each set of rows.
"""
_WORK = 2**33
"""The most games x secrets x classes x levels x episodes, if each told as much as the first, in ~20 s."""
_EVENTS = 2**29
"""The largest secrets x edges x edges for which the best question is sought among shifted ones, in ~20 s."""


@dataclass(frozen=True)
class Ceilings:
    """The ceilings of a condition, in bits per episode unless stated otherwise; None: not computed.

    Attributes:
        capacity: log2 of the number of signals that an episode can bring; at most log2 N in multi_step and
            SFT.
        shannon_capacity: the most that an answer can reveal, whatever is known before; at most `capacity`,
            and less with noise.
        first_episode: what the first answer reveals about a uniform secret: the best answer, and the mean
            over all.
        ideal_questioner: its expected episodes; `method` says how they were found: exact, greedy or simulated
            (greedy, too).
        optimal_to_know: the fewest expected episodes in which any questioner knows S; computed where the
            ideal questioner is only greedy and N is small enough.
        bits_by_reward: bits known by a policy that is spread evenly over all answers with the best expected
            reward, for the worst secret; None if S is not among them.
        best_answers: the most answers that share the best expected reward of one secret.
        secret_is_best: whether S always has the best expected reward.
    """

    capacity: float
    shannon_capacity: float | None
    first_episode: FirstEpisode
    ideal_questioner: Episodes | None
    method: str
    optimal_to_know: float | None
    bits_by_reward: float | None
    best_answers: int
    secret_is_best: bool

    def as_dict(self) -> dict[str, Any]:
        """As in summary.json."""
        row = asdict(self)
        for name in ("method", "best_answers", "secret_is_best"):
            del row[name]
        if self.ideal_questioner is not None:
            row["ideal_questioner"]["method"] = self.method
        return row


def ceilings(
    environment: Environment,
    table: EpisodeTable,
    certainty: float,
    random: np.random.Generator,
    *,
    sought: bool = True,
) -> Ceilings:
    """The ceilings of a condition.

    Args:
        environment: its world.
        table: of its episodes.
        certainty: the ideal questioner is to give S this probability.
        random: for what has to be simulated.
        sought: whether the policy is to answer what earns most; else nothing keeps it from S.
    """
    N = environment.space.N
    found = _closed_form(table, N, certainty)
    if found is None:
        find = _of_noisy_bits if table.kind == "bits" else _from_table
        found = find(table, N, certainty, random)
    best_answers, secret_is_best = (
        (1, True) if not sought or table.kind == "example" else _best_answers(environment)
    )
    return Ceilings(
        capacity=math.log2(table.num_signals),
        **found._asdict(),
        bits_by_reward=math.log2(N) - math.log2(best_answers) if secret_is_best else None,
        best_answers=best_answers,
        secret_is_best=secret_is_best,
    )


def warnings_about(ceilings: Ceilings, N: int, unused_levels: int) -> Iterator[str]:
    """Sentences about a channel that cannot teach all of S, or wastes what it was given."""
    if ceilings.bits_by_reward is not None and ceilings.best_answers > 1:
        yield (
            f"up to {ceilings.best_answers} answers share the top reward: "
            f"a policy spread over them knows {ceilings.bits_by_reward:.3g} of {math.log2(N):.3g} bits."
        )
    if ceilings.bits_by_reward is None:
        yield (
            "for some secrets another answer earns more than the secret itself: "
            "a policy that is paid the most does not know S."
        )
    if ceilings.method == _NEVER:
        yield (
            "some secrets earn the same as another whatever is answered: "
            "no learner can tell from this reward which of them is S."
        )
    if unused_levels:
        yield (
            f"{unused_levels} of the reward levels never occur at N={N}: "
            f"the capacity is {ceilings.capacity:.3g} bit{'' if ceilings.capacity == 1 else 's'}."
        )


def _best_answers(environment: Environment) -> tuple[int, bool]:
    """The most answers that tie for one secret's best expected reward; whether S is always among them.

    Where the reward depends on S - answer alone, secrets that are not among their own best are not counted.
    """
    channel, N, bitwise = environment.channel, environment.space.N, environment.num_choices == 2
    if channel.kind == "hit":  # class 1 is right, class 0 wrong; much noise reverses that
        right_minus_wrong = channel.mean_rewards[1] - channel.mean_rewards[0]
        if abs(right_minus_wrong) <= _TIE:
            return N, True
        return (1, True) if right_minus_wrong > 0 else (1 if bitwise else N - 1, False)
    if channel.shifted:
        return _best_differences(channel.mean_rewards[channel.by_difference(N)])
    most, secret_is_best = 1, True
    for secret in range(N):
        earned = channel.mean_rewards[channel.class_of(np.arange(N), np.array(secret))]
        best = earned >= earned.max() - _TIE
        most, secret_is_best = max(most, int(best.sum())), secret_is_best and bool(best[secret])
    return most, secret_is_best


def _best_differences(earned: np.ndarray) -> tuple[int, bool]:
    """The same from what is earned where S - answer is -(N - 1), ..., N - 1; secret s is S up to s away."""
    N = (len(earned) + 1) // 2
    below, above = earned[N - 1 :: -1], earned[N - 1 :]  # answers above and below S, from S outwards
    most_of = np.maximum(np.maximum.accumulate(above), np.maximum.accumulate(below)[::-1])
    own = most_of - _TIE <= earned[N - 1]
    as_good = np.append(0, (earned >= earned[N - 1] - _TIE).cumsum())
    ties = as_good[N:] - as_good[:N]
    return int(ties[own].max(initial=1)), bool(own.all())


class _PartitionCeilings(NamedTuple):
    """Those of the `Ceilings` that depend on how answers are told apart."""

    shannon_capacity: float | None
    first_episode: FirstEpisode
    ideal_questioner: Episodes | None
    method: str
    optimal_to_know: float | None = None


def _closed_form(table: EpisodeTable, N: int, certainty: float) -> _PartitionCeilings | None:
    bits = math.log2(N)
    exact = {
        "example": (bits, FirstEpisode(bits, bits), questioner.example),
        "hit": (1.0, bounds.binary_first_episode(N), questioner.binary),
        "distance": (bits, bounds.distance_first_episode(N), questioner.distance),
        "bits": (bits, FirstEpisode(bits, bits), questioner.distance),
    }
    if not table.certain or table.kind not in exact:
        return None
    capacity, first_episode, asked = exact[table.kind]
    return _PartitionCeilings(capacity, first_episode, asked(N, certainty), "exact")


def _of_noisy_bits(
    table: EpisodeTable, N: int, certainty: float, random: np.random.Generator
) -> _PartitionCeilings:
    """Every answer tells as much as any other, whatever is known before: it only renames what is seen."""
    outcomes, num_bits = outcomes_of(table), int(N - 1).bit_length()
    (told,), _ = bits.gains(np.full((1, N), 1 / N), np.full((1, num_bits), True), outcomes)
    played = None
    if told > _TIE:  # else a belief never changes, and no game ends
        often = {"games": _GAMES, "max_episodes": _EPISODES}
        played = noisy_bits.simulated(N, outcomes, certainty, generator=random, **often)
    return _PartitionCeilings(
        noisy_bits.capacity(N, outcomes, _CELLS),
        FirstEpisode(float(told), float(told)),
        _if_ended(played),
        _SIMULATED,
    )


def _from_table(
    table: EpisodeTable, N: int, certainty: float, random: np.random.Generator
) -> _PartitionCeilings:
    outcomes, asked, countable = outcomes_of(table), *_questions(table)
    capacity = bounds.question_capacity(countable, outcomes, _CELLS)
    first = bounds.first_episode_information(countable, outcomes)
    if asked is None:
        return _PartitionCeilings(capacity, first, None, _UNKNOWN)
    if not outcomes.certain:
        played = _simulated(asked, outcomes, certainty, random, first.best)
        return _PartitionCeilings(capacity, first, played, _SIMULATED)
    try:
        optimal = questioner.optimal_episodes_to_know(table.whole()) if N <= _OPTIMAL_N else None
        return _PartitionCeilings(capacity, first, questioner.greedy(asked, certainty), "greedy", optimal)
    except ValueError:  # some secrets can never be told apart
        return _PartitionCeilings(capacity, first, None, _NEVER)


_COUNTED: dict[str, Callable[[int], Questions]] = {"sum": Sums, "beginning": Beginnings}


def _questions(table: EpisodeTable) -> tuple[Askable | None, Questions]:
    """All questions of a table: as the best can be found among them, and as their classes can be counted."""
    shifted = None if table.by_difference is None else Shifted(table.by_difference(), table.num_classes)
    if shifted is not None and table.N * len(shifted.edges) ** 2 <= _EVENTS:
        return shifted, shifted
    listed = Listed(table.whole(), table.num_classes) if table.N <= MAX_TABULATED_N else None
    if table.kind in _COUNTED:
        return listed, _COUNTED[table.kind](table.N)
    countable = shifted or listed
    assert countable is not None  # noqa: S101  # a reward of any other kind was itself tabulated
    return listed, countable


def _simulated(
    questions: Askable, outcomes: Outcomes, certainty: float, random: np.random.Generator, first: float
) -> Episodes | None:
    """Played out, unless no answer tells anything of S, or so little of one of many that it takes minutes."""
    assert outcomes.noisy is not None  # noqa: S101
    if first <= _TIE:
        return None
    N, C = questions.num_secrets, outcomes.num_classes
    if questions.num_questions * N * C > _CELLS:
        work = _GAMES * N * outcomes.noisy.size * math.log2(N) / first
        if isinstance(questions, Listed) or work > _WORK:
            return None
    often = {"games": _GAMES, "max_episodes": 50 * N}
    return _if_ended(questioner.simulated(questions, outcomes, certainty, generator=random, **often))


def _if_ended(played: Episodes | None) -> Episodes | None:
    return None if played is None or math.isinf(played.to_reach) else played
