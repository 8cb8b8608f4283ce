"""When a secret counts as memorised, when a run ends, and how often it is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from memory_rl.errors import ConfigError
from memory_rl.keys import key
from memory_rl.limits import EPISODES, RUNS


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """When S counts as memorised."""

    memorised_at: float = key(
        0.5,
        "S is memorised at the first episode after which P(S) is at least this. "
        "Default: 0.5, and 0.75 at N=2.",
        above=0,
        below=1,
    )

    def check(self, N: int) -> None:
        """Raises a ConfigError if a uniform guess would already be there."""
        if self.memorised_at <= 1 / N:
            raise ConfigError(
                f"memorised_at={self.memorised_at:g} is not between 1/N = {1 / N:g} and 1: "
                "use a probability such as memorised_at=0.9."
            )


def with_threshold(values: dict[str, Any]) -> dict[str, Any]:
    """The values with the default threshold at N = 2, which is higher: a guess is right half of the time."""
    return {"memorised_at": 0.75, **values} if values.get("N") == 2 else values


@dataclass(frozen=True, kw_only=True)
class Stop(Threshold):
    """When a run ends, and how often it is measured."""

    stop_at: float = key(0.95, "A run ends once P(S) is at least this.", above=0, below=1)
    memorised_share: float = key(
        0.95, "The share of several secrets to be memorised.", (1e-6, 1), needs="num_secrets>1"
    )
    max_episodes: int | None = key(
        None,
        "Budget of each run: episodes, or examples shown. Default: 4000, or 60 N if that is more, "
        "for each of its secrets; 1000 examples for each.",
        EPISODES,
    )
    num_runs: int = key(
        16,
        "Independent learners in lockstep, each with its own parameters and random streams.",
        RUNS,
    )
    evaluate_every: int | None = key(
        None,
        "Updates of a run between two evaluations. Default: 1, or a quarter of the number of secrets if "
        "that is more.",
        EPISODES,
    )
    ledger: bool = key(True, "Keep account of what an ideal observer of the same episodes knows.")

    def __post_init__(self) -> None:
        if self.stop_at < self.memorised_at:
            raise ConfigError(
                f"stop_at={self.stop_at:g} is not in [memorised_at, 1) = [{self.memorised_at:g}, 1): use "
                "stop_at=0.95."
            )
