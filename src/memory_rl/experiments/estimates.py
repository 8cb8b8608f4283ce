"""What a sweep will cost, before it is run: right to a factor of about three at the default rates.

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
from collections.abc import Container, Sequence
from dataclasses import asdict

from memory_rl.catalogue import learner_keys
from memory_rl.experiment import Experiment
from memory_rl.experiments import large
from memory_rl.experiments.contests import Halved
from memory_rl.experiments.grid import GridCell
from memory_rl.experiments.results import varying_keys
from memory_rl.experiments.tuning import Contest
from memory_rl.files import Json
from memory_rl.information.closed_forms import binary_episodes
from memory_rl.keys import shown
from memory_rl.reporting.sheets import Sheet
from memory_rl.reporting.values import counted, duration, table_rows

_BINARY, _STUCK = 1.5, 0.3
_EPISODES_PER_BIT = {"sft": 2.2, "multi_step": 20.0, "posterior": 3.0, "teacher": 5.0}
_SIGNALS_PER_BIT = {"binary": 3.5, "distance": 12.0}
_SECONDS_PER_CELL, _SECONDS_OF_FIGURES = 0.4, 1.6
_SECONDS_OF_PATHS = {"single_step": 0.05, "multi_step": 0.1}
"""Of 16 runs together where some answers alone are scored, at N = 256; it grows as (log2 N)^2."""

_SECONDS_PER_UPDATE = {
    ("tabular", "single_step"): (4e-4, 1e-6),
    ("tabular", "multi_step"): (6e-4, 4e-6),
    ("local", "single_step"): (0.022, 3.5e-4),
    ("local", "multi_step"): (0.025, 9e-4),
    ("tinker", "single_step"): (4.0, 0.0),  # of a local server; a hosted one has its own pace
    ("tinker", "multi_step"): (8.0, 0.0),
}
"""Of 16 runs together: a constant, and so much times N."""

_FIELDS = {
    *("id", "command", "condition", "N", "seed", "learning_rate"),
    *("learner", "part", "runs", "episodes", "seconds"),
    *("sampled", "prefilled", "trained", "memory"),
}
"""What is said of every cell; after it come the keys in which cells differ."""

_OF_TOKENS = ("sampled", "prefilled", "trained", "memory")
"""What is said of cells on pretrained or hosted models alone, see `large.Need`."""

_SHARE_OF_A_STEP = 0.4
"""Of that time: what each further step on the same episodes adds."""

_BITS_PER_PARAMETER = 0.7
"""About what a shared vector of few parameters stores."""


_AT_MOST = (
    " Of the tuning the costliest candidates are taken to stay; what is added where the best lies at an edge "
    "comes on top."
)


def estimate_all(
    cells: Sequence[GridCell], contests: Sequence[Contest | Halved], known: Container[str] = ()
) -> list[Json]:
    """What each cell will cost, about: of the tuning cells that are not known, then of the reported ones.

    learner is "" for supervised cells. id and learning_rate are None where the rate is still to be chosen,
    part is "tuning" or "reported";
    episodes are those of all runs together, seconds on one core. The keys in which cells differ come last.
    """
    candidates = [cell for contest in contests for cell in contest.at_most(seconds_of, known)]
    tuning = [_estimate(cell, "tuning") for cell in candidates]
    unknown = {"id": None, "learning_rate": None} if contests else {}
    reported = [{**_estimate(cell, "reported"), **(unknown if cell.tuned else {})} for cell in cells]
    varying = varying_keys(cells)
    return [
        {**cost, **{key: cell.values.get(key) for key in varying}}
        for cost, cell in zip(tuning + reported, [*candidates, *cells], strict=True)
    ]


def _estimate(cell: GridCell, part: str) -> Json:
    experiment, num_runs = cell.experiment, cell.experiment.stop.num_runs
    episodes = episodes_of_a_run(experiment)
    need = _need(experiment)
    return {
        **cell.about,
        "learner": cell.learner,
        "part": part,
        "runs": num_runs,
        "episodes": round(episodes * num_runs),
        "seconds": round(seconds_of(cell), 1),
        **(asdict(need) if need else {}),
    }


def _need(experiment: Experiment) -> large.Need | None:
    """Of a cell on a pretrained or hosted model."""
    if not large.is_large(experiment):
        return None
    episodes = episodes_of_a_run(experiment)
    return large.need_of(experiment, episodes, _updates(experiment, episodes))


def seconds_of(cell: GridCell) -> float:
    """About how long a cell takes on one core."""
    experiment = cell.experiment
    fixed = _SECONDS_PER_CELL + _SECONDS_OF_FIGURES * experiment.keep.figures
    steps = _updates(experiment, episodes_of_a_run(experiment))
    if large.is_large(experiment) and experiment.policy.backend == "local":
        return fixed + large.seconds_of(experiment, steps)
    return fixed + steps * _seconds_per_update(experiment)


def _kind(experiment: Experiment) -> str:
    if experiment.signal.shows_answer:
        return "sft"
    if experiment.signal.teaches:
        return "teacher" if experiment.signal.tells_much(experiment.world) else "binary"
    if experiment.updates.algorithm == "posterior":
        return "posterior"
    if experiment.world.multi_step:
        return "multi_step"
    return "binary" if experiment.signal.channel_name(experiment.world) == "binary" else "distance"


def _slowness(experiment: Experiment) -> float:
    return max(1.0, experiment.own_step_size / experiment.step_size)


def episodes_of_a_run(experiment: Experiment) -> float:
    """About how many episodes a run has until it ends: at least one update's, at most its budget."""
    kind, budget, world = _kind(experiment), experiment.budget, experiment.world
    if _overfull(experiment):
        episodes: float = budget
    else:
        one = (
            _EPISODES_PER_BIT[kind] * math.log2(world.N)
            if kind in _EPISODES_PER_BIT
            else _BINARY * binary_episodes(world.N, 1.0, experiment.stop.stop_at)
        )
        episodes = min(one * _slowness(experiment) * world.num_secrets, budget)
    if kind == "distance":
        episodes = (1 - _STUCK) * episodes + _STUCK * budget
    return min(max(episodes, experiment.episodes_an_update), budget)


def _overfull(experiment: Experiment) -> bool:
    """Whether there is more to learn than a shared vector holds, so that no run will have memorised."""
    size = experiment.policy.adapter_parameters
    return size is not None and experiment.bits > size * _BITS_PER_PARAMETER


def _updates(experiment: Experiment, episodes: float) -> float:
    """Steps of the whole population, whose slowest run counts."""
    kind, budget = _kind(experiment), experiment.budget
    slowest = budget if kind == "distance" else min(2 * episodes, budget)
    taken = slowest / experiment.episodes_an_update
    if not experiment.skips_ahead or experiment.signal.reward_noise or kind not in _SIGNALS_PER_BIT:
        return taken
    return min(taken, _SIGNALS_PER_BIT[kind] * math.log2(experiment.world.N) * _slowness(experiment))


def _seconds_per_update(experiment: Experiment) -> float:
    world = experiment.world
    constant, slope = _SECONDS_PER_UPDATE[experiment.policy.backend, world.env_type]
    evaluated = world.num_secrets / experiment.updates_an_evaluation
    rows = 1.0 if world.num_secrets == 1 else (experiment.updates.batch_size + evaluated) / 2
    passes = 1 if _kind(experiment) == "posterior" else experiment.learner.epochs
    more = 1 + _SHARE_OF_A_STEP * (passes - 1)
    once = constant + slope * world.N
    if experiment.policy.backend == "local" and not experiment.scores_all:
        once = _SECONDS_OF_PATHS[world.env_type] * (math.log2(world.N) / 8) ** 2
    return once * rows * more * max(experiment.stop.num_runs / 16, 1 / 16)


def costs_sheet(costs: Sequence[Json]) -> Sheet:
    """One row per cell."""
    learner = ["learner"] if len({cost["learner"] for cost in costs} - {""}) > 1 else []
    varying = [key for key in costs[0] if key not in _FIELDS.union(learner_keys() if learner else ())]
    keys = ["condition", "N", *learner, *varying]
    tokens = [name for name in _OF_TOKENS if any(cost.get(name) is not None for cost in costs)]
    columns = ("part", *keys, "seed", "rate", "runs", "episodes", *tokens, "time")
    rows = [
        {
            **cost,
            **{key: shown(cost[key]) for key in varying if cost[key] is not None},
            "seed": str(cost["seed"]),
            "rate": cost["learning_rate"] or "to be tuned",
            "time": duration(cost["seconds"]),
        }
        for cost in costs
    ]
    return Sheet(
        columns,
        table_rows(rows, {name: (name,) for name in columns}),
        keys=keys,
        spare=("part", "seed", "rate", "runs"),
        words=("part", "condition", *keys[2:]),
        title="nothing was run; episodes and time are estimates",
        caption=large.ASSUMED if tokens else "",
    )


def total(costs: Sequence[Json], workers: int, at_most: bool = False) -> str:
    """The sum of all cells as a sentence.

    Args:
        costs: of each.
        workers: that share them.
        at_most: whether it depends on what is measured how many of them are run.
    """
    seconds, episodes = (sum(cost[name] for cost in costs) for name in ("seconds", "episodes"))
    shared = f", {duration(seconds / workers)} on {workers}" if workers > 1 else ""
    tokens = sum(cost.get(name) or 0 for cost in costs for name in _OF_TOKENS[:3])
    where = "one after the other" if tokens else "on one core"
    episodes_and = f"{episodes:,} episodes{f', {tokens:,} tokens' if tokens else ''} and"
    return (
        f"{'at most ' if at_most else ''}{counted(len(costs), 'cell')}, about {episodes_and} "
        f"{duration(seconds)} {where}{shared}: estimates from closed forms, earlier runs and a measured time "
        f"per update, right to a factor of about three.{_AT_MOST if at_most else ''}"
    )
