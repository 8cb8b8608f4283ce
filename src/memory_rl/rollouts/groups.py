"""From rollouts to groups: which rewards share a baseline, and what can be counted of each group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memory_rl.errors import DataError
from memory_rl.rollouts.rows import Rollouts

if TYPE_CHECKING:
    import polars as pl

_DIGITS = 6
"""Rewards are the same if this many digits are: sums of 32-bit numbers differ in the eighth."""

MOST_LEVELS = 16
"""Up to this many levels of a reward each has a law of its own; of more one law serves all."""

_MANY_ALONE = 0.5
"""Levels of a prompt cannot be counted if a greater part of its rewards are the only ones of their level."""

_ODD = 0.01
"""Advantages of equal rewards in one group differ by less than this part of the greatest."""


@dataclass(frozen=True)
class Groups:
    """The groups of a run.

    Attributes:
        frame: one row a group, in the order of the log: group (a number of its own), step, prompt (0, 1, ...
            in the order of the log; of its own where the log names none), size, distinct (levels of reward in
            it), silent (one level), right, wrong and between (of the highest, the lowest or another level of
            the run), best (rewards at the highest level), reward (the mean) and tokens.
        levels: group, level (0, 1, ... from the lowest) and hits (rewards of the group that have it).
        values: the levels, from the lowest.
        notes: a sentence on each thing that limits what can be said.
        names_prompts: whether the log does.
        countable: whether groups can show how many levels of reward a prompt has.
    """

    frame: pl.DataFrame
    levels: pl.DataFrame
    values: Sequence[float]
    notes: Sequence[str]
    names_prompts: bool
    countable: bool

    @property
    def tells_tokens(self) -> bool:
        """Whether the log says how many tokens were sampled."""
        return bool(self.frame["tokens"].sum())

    @property
    def graded(self) -> bool:
        """Whether a reward is more than pass or fail."""
        return len(self.values) > 2


def group_rollouts(rollouts: Rollouts, group_size: int | None = None) -> Groups:
    """Sorts rollouts into groups.

    Args:
        rollouts: of one run.
        group_size: where a prompt's rewards in one step are several groups of so many, one after the other.

    Raises:
        DataError: if rewards are not finite, groups cannot be told apart, or none has two rewards.
    """
    import polars as pl

    frame = rollouts.frame.with_columns(pl.col("reward").round_sig_figs(_DIGITS) + 0.0).collect(
        engine="streaming"
    )
    _refuse_rewards(frame, rollouts)
    frame, notes = _complete(frame, rollouts)
    frame = _number_groups(frame, rollouts, group_size)
    values = _levels(frame["reward"])
    lowest = int(frame["reward"].min() == values[1]) if len(values) == 2 else 0
    frame = frame.with_columns(level=pl.col("reward").rank("dense").cast(pl.Int64) - 1 + lowest)
    groups = _count(frame, len(values))
    _refuse_mixed(frame, groups)
    kept = groups.filter(pl.col("size") > 1)
    if not len(kept):
        raise DataError(
            f"every group of {rollouts.source} has one reward, so that nothing is known of how much rewards "
            "of a prompt differ: name what several answers share as prompt=NAME or group=NAME."
        )
    levels = frame.join(kept.select("group"), on="group", how="semi").group_by("group", "level").len("hits")
    named = frame["prompt"].null_count() == 0
    kept = kept.with_columns(pl.coalesce("prompt", "group").rank("dense").cast(pl.Int64) - 1)
    countable = _countable(levels, kept, len(values))
    return Groups(
        kept, levels.sort("group", "level"), values, [*notes, *_about_sizes(groups, kept)], named, countable
    )


def _levels(rewards: pl.Series) -> list[float]:
    """The levels of a reward, from the lowest: at least two, of which a run may have met one alone."""
    values: list[float] = rewards.unique().sort().to_list()
    if len(values) > 1:
        return values
    return [0.0, values[0]] if values[0] > 0 else [values[0], values[0] + 1]


def _countable(levels: pl.DataFrame, groups: pl.DataFrame, num_levels: int) -> bool:
    """Whether groups are large enough to show how many levels a prompt has."""
    alone = int((levels["hits"] == 1).sum())
    usual = int(groups["size"].median())  # type: ignore[arg-type]
    return num_levels <= usual or alone <= _MANY_ALONE * int(groups["size"].sum())


def _refuse_rewards(frame: pl.DataFrame, rollouts: Rollouts) -> None:
    if not len(frame):
        raise DataError(f"{rollouts.source} holds no rollout with a reward: give a log that does.")
    odd = frame.filter(~frame["reward"].is_finite())
    if len(odd):
        step, reward = odd.select("step", "reward").row(0)
        are = "reward is" if len(odd) == 1 else "rewards are"
        raise DataError(
            f"{len(odd):,} {are} not finite in {rollouts.source}, the first of them {reward} in step {step}: "
            "leave such rollouts out."
        )


def _complete(frame: pl.DataFrame, rollouts: Rollouts) -> tuple[pl.DataFrame, list[str]]:
    """Leaves out rollouts whose group is not named, and fills in tokens that are not logged."""
    import polars as pl

    notes = []
    key = "group" if frame["group"].null_count() < len(frame) else "prompt"
    named = frame.drop_nulls(key)
    if not len(named):
        raise DataError(
            f"groups cannot be told apart: no rollout of {rollouts.source} has a prompt or a group; name a "
            "column that does as prompt=NAME or group=NAME."
        )
    if lost := len(frame) - len(named):
        have, are = ("rollout has", "is") if lost == 1 else ("rollouts have", "are")
        notes.append(f"{lost:,} {have} no {key} and {are} left out.")
    missing = named["tokens"].null_count()
    if 0 < missing < len(named):
        mean = float(named["tokens"].mean())  # type: ignore[arg-type]
        named = named.with_columns(pl.col("tokens").fill_null(mean))
        notes.append(
            f"Tokens of {missing:,} of {len(named):,} rollouts are not in the log, and are taken as the mean "
            f"of the others, {mean:,.0f}."
        )
    return named, notes


def _number_groups(frame: pl.DataFrame, rollouts: Rollouts, size: int | None) -> pl.DataFrame:
    """Numbers groups in the order of the log, and prompts likewise."""
    import polars as pl

    named = frame["group"].null_count() < len(frame)
    key = ["step", "group"] if named else ["step", "prompt"]
    if rollouts.grouped == "in the run":
        key = ["group"]
    if size is None and rollouts.grouped == "in rows":
        frame = frame.with_columns(run=pl.struct("step", "prompt").rle_id())
        key, size = ["run"], frame["run"].value_counts()["count"].mode().min()  # type: ignore[assignment]
        whole = pl.len().over("run") % size == 0
    else:
        whole = pl.lit(value=True)
    if size is not None:
        part = pl.when(whole).then(pl.int_range(pl.len()).over(key) // size).otherwise(0)
        frame = frame.with_columns(part=part)
        key = [*key, "part"]
    first = pl.int_range(pl.len()).alias("row")
    return frame.with_columns(first).with_columns(
        pl.col("row").min().over(key).rank("dense").cast(pl.Int64).alias("group"),
        pl.when(pl.col("prompt").is_null())
        .then(None)
        .otherwise(pl.col("row").min().over("prompt"))
        .alias("prompt"),
    )


def _count(frame: pl.DataFrame, num_levels: int) -> pl.DataFrame:
    """What is counted of each group, with what shows that several were taken for one."""
    import polars as pl

    same, top = pl.col("level").n_unique() == 1, num_levels - 1
    tokens = pl.col("tokens").sum() if frame["tokens"].null_count() < len(frame) else pl.col("tokens").first()
    return (
        frame.group_by("group")
        .agg(
            pl.col("step", "prompt").first(),
            pl.len().cast(pl.Int64).alias("size"),
            pl.col("level").n_unique().cast(pl.Int64).alias("distinct"),
            (same & (pl.col("level").first() == top)).alias("right"),
            (same & (pl.col("level").first() == 0)).alias("wrong"),
            pl.col("reward").mean(),
            tokens,
            pl.col("prompt").n_unique().alias("prompts"),
        )
        .with_columns(silent=pl.col("distinct") == 1)
        .with_columns(between=pl.col("silent") & ~pl.col("right") & ~pl.col("wrong"))
        .sort("group")
    )


def _refuse_mixed(frame: pl.DataFrame, groups: pl.DataFrame) -> None:
    """Refuses groups that are several: with several prompts, or another advantage for the same reward."""
    import polars as pl

    several = groups.filter(pl.col("prompts") > 1)
    if len(several):
        raise DataError(
            f"groups cannot be told apart: {len(several):,} of {len(groups):,} hold several prompts, the "
            f"first in step {several['step'][0]}; name as group=NAME what only answers to one prompt share."
        )
    tolerance = _ODD * pl.lit(frame["advantage"].abs().max())
    spread = frame.group_by("group", "level").agg(
        pl.col("step").first(), odd=_spread(pl.col("advantage")) > tolerance
    )
    odd = spread.filter("odd")
    if len(odd):
        raise DataError(
            f"groups cannot be told apart: in {odd['group'].n_unique():,} of {len(groups):,}, the first in "
            f"step {odd.sort('step')['step'][0]}, equal rewards have unequal advantages, so that several "
            "groups share a prompt; type how many rewards a group has as group_size=NUMBER."
        )


def _spread(values: pl.Expr) -> pl.Expr:
    return values.max() - values.min()


def _about_sizes(groups: pl.DataFrame, kept: pl.DataFrame) -> Iterator[str]:
    import polars as pl

    if alone := len(groups) - len(kept):
        are = "group has one reward and is" if alone == 1 else "groups have one reward and are"
        yield f"{alone:,} {are} left out."
    sizes = kept["size"].value_counts().sort("count", descending=True)
    if len(sizes) > 1:
        usual, share = sizes["size"][0], sizes["count"][0] / len(kept)
        least, most = sizes.select(pl.col("size").min(), most=pl.col("size").max()).row(0)
        yield (
            f"Groups have {least} to {most} rewards, {100 * share:.0f} % of "
            f"them {usual}; each counts with its own size."
        )
