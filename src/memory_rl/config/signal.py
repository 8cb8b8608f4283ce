"""What an episode shows of the secret: a reward, the answer, or what a teacher thinks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from memory_rl.config.world import World
from memory_rl.errors import ConfigError, check_name
from memory_rl.keys import key, name_of, name_or_path
from memory_rl.limits import SIZES

REWARD_TYPES = ("binary", "binned_log_distance", "log_distance")
"""The built-in reward channels of single_step."""

TEACHERS = ("secret", "observer")
"""The teachers that are no run directory."""

_OF_REWARDS = "signal=reward|teacher=observer"


@dataclass(frozen=True, kw_only=True)
class Signal:
    """What an episode shows of the secret."""

    signal: Literal["reward", "example", "teacher"] = key(
        "reward",
        "reward: the policy answers and is rewarded. example: it is shown the answer (sft-train). "
        "teacher: it answers, and a teacher says how likely each token was.",
    )
    reward_type: Any = name_or_path(
        None,
        f"The reward channel of single_step: {', '.join(REWARD_TYPES)}, or your own as file.py:Name. "
        "Default: binary. (multi_step rewards each bit.)",
        needs=f"{_OF_REWARDS} env_type=single_step",
    )
    reward_bins: int | None = key(
        None,
        "B, the levels of binned_log_distance.",
        (2, 2**20),
        needs=f"{_OF_REWARDS} env_type=single_step reward_type=binned_log_distance",
    )
    reward_noise: float = key(
        0.0,
        "Probability that a reward is replaced by a different level, drawn uniformly.",
        (0, None),
        below=1,
        needs=_OF_REWARDS,
    )
    credit: Literal["step", "reward_to_go", "episode"] = key(
        "step",
        "What a step is credited with: its own reward, all rewards to come, or the episode's sum.",
        needs=f"{_OF_REWARDS} env_type=multi_step",
    )
    teacher: str = name_or_path(
        "secret",
        "secret knows S; observer is the ideal observer of the run's own rewards; the path of another run "
        "directory is the policy that was trained there, run by run.",
        needs="signal=teacher",
    )
    teacher_error: float = key(
        0.01,
        "The probability that the teacher does not give to S, spread evenly over the other answers; "
        "in multi_step that of a wrong bit.",
        (0, None),
        below=0.5,
        needs="signal=teacher teacher=secret",
    )
    told: Literal["sampled", "top_k", "whole"] = key(
        "whole",
        "What the teacher tells at each token: its probability of the token that was sampled, its likeliest "
        "tokens, or its whole distribution.",
        needs="signal=teacher",
    )
    teacher_top_k: int = key(
        2,
        "How many of the teacher's likeliest tokens; the others are one.",
        SIZES,
        needs="signal=teacher told=top_k",
    )
    divergence: Literal["reverse", "forward"] = key(
        "reverse",
        "What is minimised at each token: KL(policy || teacher), or forward, KL(teacher || policy).",
        needs="signal=teacher told=top_k,whole",
    )

    def __post_init__(self) -> None:
        given = self.reward_type
        check_name("reward_type", given, REWARD_TYPES)
        if not (given is None or isinstance(given, str) or callable(given) or hasattr(given, "reward")):
            raise ConfigError(
                f"reward_type={given} is not a reward: give a name, a function reward(answer, secret), "
                "or a class with such a method."
            )
        if given == "binned_log_distance" and self.reward_bins is None:
            raise ConfigError(
                "reward_type=binned_log_distance needs the number of levels: add reward_bins=8."
            )

    @property
    def shows_answer(self) -> bool:
        """Whether this is supervised learning."""
        return self.signal == "example"

    @property
    def teaches(self) -> bool:
        """Whether a teacher judges the policy's answers."""
        return self.signal == "teacher"

    @property
    def observed(self) -> bool:
        """Whether the teacher is the ideal observer of rewards."""
        return self.teaches and self.teacher == "observer"

    @property
    def taught_by(self) -> str | None:
        """The run directory whose policies are the teachers; None without one."""
        return self.teacher if self.teaches and self.teacher not in TEACHERS else None

    def tells_much(self, world: World) -> bool:
        """Whether a teacher tells more than whether an answer is right, about."""
        rewarded = self.observed and self.channel_name(world) == "binary"
        return world.multi_step or (self.told != "sampled" and not rewarded)

    @property
    def own_reward(self) -> bool:
        """Whether the reward is the user's own."""
        return self.reward_type is not None and self.reward_type not in REWARD_TYPES

    def channel_name(self, world: World) -> str:
        """The name of the reward channel: per_bit for multi_step, the name of a user's own reward."""
        if world.multi_step:
            return "per_bit"
        return (
            name_of(self.reward_type).rpartition(":")[2] if self.own_reward else self.reward_type or "binary"
        )

    def condition(self, world: World) -> str:
        """What tables and figures call the condition."""
        if self.shows_answer:
            return "sft multi_step" if world.multi_step else "sft"
        if not self.teaches:
            return self._rewarded(world)
        told = {
            "told": None if self.told == "whole" else self.told,
            "k": self.teacher_top_k if self.told == "top_k" else None,
            "divergence": None if self.divergence == "reverse" else self.divergence,
        }
        words = [
            "teacher" if self.teacher == "secret" else "teacher=run" if self.taught_by else "teacher=observer"
        ]
        words += [self._rewarded(world)] if self.observed else ["multi_step"] * world.multi_step
        return _with_names(" ".join(words), told)

    def _rewarded(self, world: World) -> str:
        named = {
            "B": self.reward_bins,
            "credit": None if self.credit == "step" else self.credit,
            "noise": f"{self.reward_noise:g}" if self.reward_noise else None,
        }
        return _with_names(world.env_type if world.multi_step else self.channel_name(world), named)


def _with_names(first: str, named: dict[str, Any]) -> str:
    return " ".join([first, *(f"{name}={value}" for name, value in named.items() if value is not None)])
