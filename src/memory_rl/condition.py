"""A condition, worked out from its keys without training: its world, its table and its ceilings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memory_rl.catalogue import bounds_keys
from memory_rl.config import Signal, Threshold, Wording, World, with_threshold
from memory_rl.errors import ConfigError
from memory_rl.key_files import with_file
from memory_rl.keys import fill, read
from memory_rl.limits import MAX_LISTED_N, MAX_N_OF_PATHS
from memory_rl.seeding import generator
from memory_rl.task import Environment, EpisodeTable, make_environment, table_of_signal
from memory_rl.training.ceilings import Ceilings, ceilings, warnings_about


@dataclass(frozen=True)
class Condition:
    """What is asked and what is shown, worked out.

    Attributes:
        world: its keys.
        signal: its keys.
        memorised_at: the probability from which on S counts as memorised.
        environment: what asks, parses and rewards.
        table: of its episodes.
        ceilings: of what it can carry.
    """

    world: World
    signal: Signal
    memorised_at: float
    environment: Environment
    table: EpisodeTable
    ceilings: Ceilings


def condition_of(given: Mapping[str, Any], *, typed: bool) -> Condition:
    """A condition from its keys, given as Python values or as texts."""
    given = with_file(given, bounds_keys(), {})
    values = with_threshold(read(bounds_keys(), given, typed=typed))
    world, signal, threshold = fill(World, values), fill(Signal, values), fill(Threshold, values)
    threshold.check(world.N)
    most = _largest_N(world, signal)
    if most < world.N:
        raise ConfigError(f"N={world.N} is too large to tabulate this channel: use N={most} or less.")
    return make_condition(world, signal, threshold.memorised_at)


def _largest_N(world: World, signal: Signal) -> int:
    """The most answers with which the ceilings of a signal are computed."""
    if signal.shows_answer or (signal.teaches and not signal.observed and signal.told != "sampled"):
        return MAX_LISTED_N
    known = signal.channel_name(world) in ("binary", "log_distance", "per_bit") and not signal.own_reward
    summed = signal.credit == "episode"
    return MAX_LISTED_N if known and not (summed or signal.reward_noise or signal.teaches) else MAX_N_OF_PATHS


def make_condition(
    world: World,
    signal: Signal,
    memorised_at: float,
    wording: Wording | None = None,
    *,
    spelt: bool = True,
) -> Condition:
    """The condition of these keys.

    Args:
        world: its keys.
        signal: its keys.
        memorised_at: the probability from which on S counts as memorised.
        wording: how it asks, if the world leaves that open.
        spelt: whether an answer is written in several tokens, see `taught_table`.

    Raises:
        ConfigError: if the reward is the user's own and cannot be used.
    """
    environment = make_environment(world, signal, wording)
    table = table_of_signal(environment, signal, spelt=spelt)
    random = generator(world.seed, "questioner")
    found = ceilings(environment, table, memorised_at, random, sought=signal.signal == "reward")
    return Condition(world, signal, memorised_at, environment, table, found)


def show_ceilings(condition: Condition) -> None:
    """Prints the ceilings, and what the channel cannot teach."""
    from memory_rl.reporting.sheets import say, show
    from memory_rl.reporting.terminal import ceilings_sheet

    world, signal, found = condition.world, condition.signal, condition.ceilings
    show(ceilings_sheet(signal.condition(world), world.N, condition.memorised_at, found.as_dict()))
    for sentence in channel_notes(condition):
        say(f"note: {sentence}")


def channel_notes(condition: Condition) -> list[str]:
    """Sentences about what the channel cannot teach, if anything."""
    bins, N = condition.signal.reward_bins, condition.world.N
    unused = 0 if bins is None else bins - len(condition.environment.channel.levels)
    return [*warnings_about(condition.ceilings, N, unused)]
