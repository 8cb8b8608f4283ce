"""Makes the environment of a world and a signal, for experiments and for the adapters to other libraries."""

from __future__ import annotations

from memory_rl.config import Secrets, Signal, Wording, World
from memory_rl.keys import name_of
from memory_rl.seeding import generator
from memory_rl.task.environment import Environment
from memory_rl.task.multi_step import MultiStep
from memory_rl.task.own_reward import as_reward, load_reward, tabulate
from memory_rl.task.rewards import RewardChannel, make_channel, with_noise
from memory_rl.task.secret_space import SecretSpace
from memory_rl.task.single_step import SingleStep
from memory_rl.task.table import EpisodeTable, episode_table, taught_table


def make_environment(
    world: World, signal: Signal, wording: Wording | None = None, channel: RewardChannel | None = None
) -> Environment:
    """The environment.

    Args:
        world: the secret and its turns.
        signal: how answers are rewarded; where S is shown, the channel is never asked.
        wording: how it asks, if the world leaves that open.
        channel: used in place of the one that the signal names.

    Raises:
        ConfigError: if the reward is the user's own and cannot be used.
    """
    space, asks = SecretSpace(world.N), world.wording or wording or "terse"
    if world.multi_step:
        return MultiStep.with_noise(space, signal.reward_noise, num_secrets=_count(world), wording=asks)
    return SingleStep(space, channel or _channel(world, signal), _count(world), asks)


def table_of_signal(environment: Environment, signal: Signal, *, spelt: bool) -> EpisodeTable:
    """The table of an environment's episodes, whatever the signal; `spelt` as in `taught_table`.

    What a teacher says who observes the run's own rewards follows from these. What the policy of another run
    says, in numbers that could be anything, is bounded by S itself.
    """
    if signal.teaches and not signal.observed:
        sampled = signal.told == "sampled" and signal.taught_by is None
        return taught_table(environment, sampled=sampled, spelt=spelt)
    return episode_table(environment, shows_answer=signal.shows_answer, credit=signal.credit)


def secrets_of_run(world: World, run: int = 0) -> list[int]:
    """The M secrets of a run: `fixed_secret`, or drawn from the seed."""
    if world.fixed_secret is not None:
        return [world.fixed_secret]
    space, stream = SecretSpace(world.N), generator(world.seed, "secrets", run)
    return [space.draw(stream) for _ in range(_count(world))]


def _count(world: World) -> int:
    return world.num_secrets if isinstance(world, Secrets) else 1


def _channel(world: World, signal: Signal) -> RewardChannel:
    if not signal.own_reward:
        return make_channel(signal.channel_name(world), world.N, signal.reward_bins, signal.reward_noise)
    given, name = signal.reward_type, name_of(signal.reward_type)
    reward = as_reward(load_reward(given) if isinstance(given, str) else given, world.N, name)
    return with_noise(tabulate(reward, world.N, name), signal.reward_noise)
