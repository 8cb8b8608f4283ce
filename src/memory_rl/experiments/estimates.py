"""What a sweep will cost, told before it is run. Rough: right to a factor of about three at the default
rates.

Episodes until a run ends. Binary: the closed form of exact softmax policy gradient at step 1 (see
`memory_rl.information.closed_forms`), times 1.5, which is what the transformer and the tabular learner need
more of with groups of 4 and Adam. SFT and multi_step: proportional to log2 N, measured at N = 16, 64 and 256.
Distances: as binary, but three runs in ten are stuck until their budget is spent (docs/findings.md). A rate
below the default one takes longer in proportion. Time: updates times what one took on one core, measured with
16 runs at those N, and what it takes to start and sum up. A base model that is not in the cache yet takes
some seconds more, up to a minute.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from memory_rl.config import Experiment, SFTConfig, episodes_an_update
from memory_rl.experiments.grid import Cell
from memory_rl.experiments.tuning import Contest
from memory_rl.information.closed_forms import binary_episodes

_BINARY, _STUCK = 1.5, 0.3
_EPISODES_A_BIT = {"sft": 2.2, "multi_step": 20.0, "posterior": 3.0}
_SIGNALS_A_BIT = {"sft": 2.5, "multi_step": 3.3, "binary": 3.5, "distance": 12.0}
_SECONDS_A_CELL = 2.0
_SECONDS_AN_UPDATE = {("tabular", "single_step"): (4e-4, 1e-6), ("tabular", "multi_step"): (6e-4, 4e-6)} | {
    ("local", "single_step"): (0.022, 3.5e-4),
    ("local", "multi_step"): (0.025, 9e-4),
}
_SECONDS_AN_UPDATE |= {
    ("tinker", "single_step"): (4.0, 0.0),
    ("tinker", "multi_step"): (8.0, 0.0),
}  # of a local server; a hosted one has its own pace
"""Of 16 runs together: a constant, and so much times N."""


@dataclass(frozen=True)
class CostEstimate:
    """What a cell will cost, about.

    Attributes:
        id: the cell's; None if its rate is still to be chosen.
        part: "tuning" or "reported".
        condition: its name.
        N: the size of the secret space.
        seed: of the cell.
        learning_rate: None if it is still to be chosen.
        runs: in lockstep.
        episodes: of all runs together.
        seconds: on one core.
    """

    id: str | None
    part: str
    condition: str
    N: int
    seed: int
    learning_rate: float | None
    runs: int
    episodes: int
    seconds: float


_BITS_A_PARAMETER = 0.7
"""About what a shared vector of few parameters stores."""


def estimate_all(cells: Sequence[Cell], contests: Sequence[Contest]) -> list[CostEstimate]:
    """Of the tuning cells, then of the reported ones."""
    tuning = [estimate(cell, "tuning") for contest in contests for cell in contest.candidates]
    return tuning + [estimate(cell, "reported", tuned=bool(contests)) for cell in cells]


def estimate(cell: Cell, part: str, *, tuned: bool = False) -> CostEstimate:
    """The cost of one cell; with tuned, its rate is still to be chosen."""
    config = cell.config
    episodes = episodes_of_a_run(config)
    return CostEstimate(
        id=None if tuned else cell.id,
        part=part,
        condition=config.condition,
        N=config.N,
        seed=config.seed,
        learning_rate=None if tuned else config.step_size,
        runs=config.num_runs,
        episodes=round(episodes * config.num_runs),
        seconds=round(_SECONDS_A_CELL + _updates(config, episodes) * _seconds_an_update(config), 1),
    )


def _kind(config: Experiment) -> str:
    if isinstance(config, SFTConfig):
        return "sft"
    if config.algorithm == "posterior":
        return "posterior"
    if config.env_type == "multi_step":
        return "multi_step"
    return "binary" if config.channel_name == "binary" else "distance"


def _slowness(config: Experiment) -> float:
    return max(1.0, config.own_step_size / config.step_size)


def episodes_of_a_run(config: Experiment) -> float:
    """About how many episodes a run has until it ends: at least one update's, at most its budget."""
    kind, information = _kind(config), math.log2(config.N)
    episodes = (
        _EPISODES_A_BIT[kind] * information
        if kind in _EPISODES_A_BIT
        else _BINARY * binary_episodes(config.N, 1.0, config.stop_at)
    )
    episodes = (
        config.budget
        if _overfull(config)
        else min(episodes * _slowness(config) * config.num_secrets, config.budget)
    )
    if kind == "distance":
        episodes = (1 - _STUCK) * episodes + _STUCK * config.budget
    return min(max(episodes, episodes_an_update(config)), config.budget)


def _overfull(config: Experiment) -> bool:
    """Whether there is more to learn than a shared vector holds, so that no run will have memorised."""
    return (
        config.adapter_parameters is not None
        and config.information > config.adapter_parameters * _BITS_A_PARAMETER
    )


def _updates(config: Experiment, episodes: float) -> float:
    """Steps of the whole population, whose slowest run counts."""
    kind = _kind(config)
    slowest = config.budget if kind == "distance" else min(2 * episodes, config.budget)
    taken = slowest / episodes_an_update(config)
    if (
        isinstance(config, SFTConfig)
        or not config.skips_ahead
        or kind not in _SIGNALS_A_BIT
        or kind == "multi_step"
    ):
        return taken
    return min(taken, _SIGNALS_A_BIT[kind] * math.log2(config.N) * _slowness(config))


def _seconds_an_update(config: Experiment) -> float:
    constant, slope = _SECONDS_AN_UPDATE[config.backend, config.env_type]
    rows = (
        1.0
        if config.num_secrets == 1
        else (config.batch_size + config.num_secrets / config.updates_an_evaluation) / 2
    )
    return (constant + slope * config.N) * rows * max(config.num_runs / 16, 1 / 16)


def costs_table(costs: Sequence[CostEstimate]) -> Table:
    """A row a cell."""
    table = Table(title="nothing was run; episodes and time are estimates", title_justify="left")
    for heading in ("part", "condition", "N", "seed", "rate", "runs", "episodes", "time", "id"):
        table.add_column(
            heading, justify="left" if heading in ("part", "condition", "id") else "right", no_wrap=True
        )
    for cost in costs:
        rate = "to be tuned" if cost.learning_rate is None else f"{cost.learning_rate:.3g}"
        numbers = (
            str(cost.N),
            str(cost.seed),
            rate,
            str(cost.runs),
            f"{cost.episodes:,}",
            duration(cost.seconds),
        )
        table.add_row(cost.part, cost.condition, *numbers, cost.id or "")
    return table


def total(costs: Sequence[CostEstimate], workers: int) -> str:
    """The sum of all cells as a sentence."""
    seconds = sum(cost.seconds for cost in costs)
    return (
        f"{len(costs)} cells, about {sum(cost.episodes for cost in costs):,} episodes and {duration(seconds)} on one core, {duration(seconds / workers)} on "
        f"{workers}: estimates from closed forms, earlier runs and a measured time an update, right to a factor of about three."
    )


def duration(seconds: float) -> str:
    """A time as it is told."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
