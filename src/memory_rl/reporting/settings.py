"""The keys of the commands that look at what is there: report, list, compare, plan and audit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from memory_rl.errors import ConfigError
from memory_rl.files import expand, split_paths
from memory_rl.keys import key, path_key
from memory_rl.limits import SIZES

if TYPE_CHECKING:
    from memory_rl.analysis.power import Demand
    from memory_rl.rollouts.tables import Columns


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Which run directories are put on the page, and where it goes."""

    runs: str = key(
        "runs",
        "Run directories, or folders that hold some (a sweep, or several), separated by commas; or one after "
        "the other, without runs=. A comma in the name of one that exists separates nothing.",
    )
    out: str = path_key(
        "report",
        "The folder of the report. An earlier report there is replaced; other files are never touched.",
    )
    title: str | None = key(
        None, "The heading of the page. Default: the name of the protocol, or of the first folder."
    )
    watch: bool = key(
        False,
        "Follow what runs: the page is built anew where something has changed and loads itself again, until "
        "all has ended, or Ctrl-C. Also --watch.",
    )
    theme: Literal["light", "paper"] = key(
        "light",
        "Of the figures that are saved: light, or paper, in the width of a column with type of 8 pt.",
    )
    png: bool = key(False, "Save each figure as PNG, too.")
    quiet: bool = key(False, "Print nothing.")

    def __post_init__(self) -> None:
        if not self.paths:
            raise ConfigError(f"runs={self.runs} names no folder: type for example runs=runs.")
        if not self.out.strip():
            raise ConfigError("out= names no folder: type for example out=report.")

    @property
    def paths(self) -> list[str]:
        """The folders, one by one."""
        return [expand(path, "runs") for path in split_paths(self.runs)]


@dataclass(frozen=True, kw_only=True)
class ListConfig:
    """What is listed, and in which order."""

    runs: str | None = key(
        None,
        "Run directories, sweeps, or folders that hold some, separated by commas; or one after the other, "
        "without runs=. Default: runs and sweeps.",
    )
    sort: str | None = key(
        None,
        "A column (when, rate, memorised, episodes, ended, path ...) or a key of the runs, such as N or "
        "learning_rate; -N turns the order round. Default: the newest first.",
    )
    cells: bool = key(
        False, "List every cell of a sweep; else a sweep is one row, unless it is given itself."
    )


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What is compared, and with what."""

    runs: str | None = key(
        None,
        "Run directories, cells, or folders that hold some, separated by commas; or one after the other, "
        "without runs=.",
    )
    to: Literal["best", "first"] = key(
        "best", "What ratios and tests are against: the fastest, or the first of those that were given."
    )


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """What is to be seen, and in which pilot it is looked up how much runs differ."""

    runs: str | None = key(
        None,
        "The pilot: run directories, a sweep, or folders that hold some, separated by commas; or one after "
        "the other, without runs=.",
    )
    ratio: float = key(
        1.5,
        "Of two rates: the ratio of the faster to the slower one that is to be seen.",
        (None, 1000),
        above=1,
    )
    power: float = key(0.8, "The chance that it is seen, if it is there.", above=0, below=1)
    alpha: float = key(
        0.05,
        "The chance that two equal rates are told apart; for each of k comparisons 0.05 / k.",
        above=0,
        below=1,
    )
    width: float | None = key(
        None,
        "How many runs the 95 % interval of a rate needs, to be from the rate / this to the rate x this.",
        (None, 1000),
        above=1,
    )

    def __post_init__(self) -> None:
        if self.power <= self.alpha:
            raise ConfigError(
                f"power={self.power:g} is no more than alpha={self.alpha:g}, which needs no runs at all: "
                "use for example power=0.8."
            )

    @property
    def demand(self) -> Demand:
        """What is to be seen."""
        from memory_rl.analysis.power import Demand

        return Demand(self.ratio, self.power, self.alpha)


@dataclass(frozen=True, kw_only=True)
class GroupPlanConfig:
    """In groups of which size is sampled, at what price."""

    group_size: int | None = key(
        None, "Rollouts of a group, G. Default: 8; that of the audit; 4 for N=, as in train.", (2, 2**20)
    )
    tokens: float | None = key(
        None,
        "Tokens of a rollout, those of its prompt too if they are paid. Default: the audit's.",
        (0, 1e9),
        above=0,
    )
    price: float | None = key(None, "Dollars for a million tokens.", (0, 1e6), above=0)
    out: str | None = path_key(
        None,
        "The folder for the picture, plan.svg, a page and plan.json. An earlier plan there is replaced; "
        "other files are never touched.",
    )


@dataclass(frozen=True, kw_only=True)
class RatePlanConfig(GroupPlanConfig):
    """Which pass rates prompts have, and how many groups a step has."""

    p: float | str | None = path_key(
        None,
        "A pass rate, or a CSV, JSON or Parquet file with one for each prompt (in a column p), or an audit.",
        above=0,
        below=1,
    )
    groups: int | None = key(None, "Groups of a training step.", SIZES)


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """How rollouts are read, and where the audit goes."""

    step: str | None = key(
        None, "The column of the training step, in a CSV, JSON Lines or Parquet file. Default: step."
    )
    group: str | None = key(
        None,
        "The column that tells the groups of a step apart. Default: group, or else rewards of one prompt "
        "in one step.",
    )
    prompt: str | None = key(None, "The column of prompts, texts or numbers. Default: prompt.")
    reward: str | None = key(None, "The column of rewards. Default: reward.")
    tokens: str | None = key(None, "The column with the number of sampled tokens. Default: tokens.")
    group_size: int | None = key(
        None,
        "Rewards of a group, where those of a prompt in one step are several groups, one after the other.",
        (2, None),
    )
    stretches: int = key(10, "In how many stretches of equally many steps training is looked at.", (1, 100))
    out: str | None = path_key(
        None,
        "The folder for audit.json, stretches.csv and a page, index.html. An earlier audit there is "
        "replaced; other files are never touched.",
    )

    @property
    def columns(self) -> Columns:
        """The columns that were named."""
        from memory_rl.rollouts.tables import Columns

        return Columns(self.step, self.group, self.prompt, self.reward, self.tokens)


def with_paths(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Parts the arguments of a command into paths, which may be given without a key, and key=value."""
    paths = [word for word in words if "=" not in word or os.path.lexists(word)]
    others = [word for word in words if word not in paths]
    listed = [word.partition("=")[2] for word in others if word.startswith("runs=")]
    named = [path for text in listed for path in split_paths(text)]
    return (
        [expand(path, "runs") for path in [*paths, *named]],
        [word for word in others if not word.startswith("runs=")],
    )
