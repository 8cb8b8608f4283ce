"""The completions that TRL's GRPOTrainer logs: a Parquet file a logged step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory_rl.errors import DataError, first_few, suggest
from memory_rl.files import Json, failures
from memory_rl.rollouts.rows import Rollouts, about_files, about_unscored, schema

if TYPE_CHECKING:
    import polars as pl

_REWARDS, _MEAN = "rewards/", "/mean"
_REPEAT = "files repeat the rollouts of the one before them and are"


def read_trl(files: Sequence[Path], history: Sequence[Json], reward: str | None = None) -> Rollouts:
    """The rollouts of a run.

    A file holds the last generation batch before it was logged; where batches are generated less often than
    logged, the next one holds the same again and is left out.

    Args:
        files: in the order of steps.
        history: `log_history` of the trainer's state, which names the rewards; may be empty.
        reward: the one that is meant; None for the sum of all.

    Raises:
        DataError: if no file can be read, or has no reward.
    """
    import polars as pl

    lengths = {
        one["step"]: one["completions/mean_length"] for one in history if "completions/mean_length" in one
    }
    parts, damaged, repeated, before, names = list[pl.DataFrame](), list[str](), 0, None, list[str]()
    for path in files:
        try:
            scan = pl.scan_parquet(path, glob=False)
            names = _rewards_of(scan.collect_schema(), history, reward)
            part = _narrow(scan, names, alone=reward is None).collect(engine="streaming")
        except failures():
            damaged.append(path.name)
            continue
        if before is not None and part.drop("step").equals(before):
            repeated += 1
            continue
        before = part.drop("step")
        parts.append(part.drop("answer"))
    if not parts:
        raise DataError(f"none of the {len(files)} Parquet files in {files[0].parent} can be read.")
    whole = pl.concat(parts)
    frame = whole.drop_nulls("reward").with_columns(
        tokens=pl.col("step").replace_strict(lengths, default=None, return_dtype=pl.Float64)
    )
    notes = [*_about(names, damaged, repeated, bool(lengths)), *about_unscored(len(whole) - len(frame))]
    notes += _about_steps(whole["step"].unique().sort())
    return Rollouts(frame.select(*schema()).lazy(), "TRL", len(files), notes, grouped="in rows")


def _narrow(scan: pl.LazyFrame, names: Sequence[str], *, alone: bool) -> pl.LazyFrame:
    """Its numbers, with texts as hashes; the reward is the sum of those that are not NaN, as in TRL."""
    import polars as pl

    scored = [pl.col(name).cast(pl.Float64).fill_nan(None) for name in names]
    return scan.select(
        pl.col("step").cast(pl.Int64),
        pl.lit(None, pl.UInt64).alias("group"),
        pl.col("prompt").hash().alias("prompt"),
        pl.col("completion").hash().alias("answer"),
        pl.when(pl.any_horizontal(one.is_not_null() for one in scored))
        .then(pl.sum_horizontal(scored))
        .alias("reward"),
        # Of several rewards an advantage may depend on more than their sum.
        (pl.col("advantage") if alone and len(names) == 1 else pl.lit(None))
        .cast(pl.Float64)
        .alias("advantage"),
    )


def _rewards_of(columns: Mapping[str, Any], history: Sequence[Json], reward: str | None) -> list[str]:
    """The columns of rewards: those that the state logs means of, else all numbers after the completion."""
    if reward is not None and reward not in columns:
        raise DataError(f"reward={reward} is no column of these completions: {suggest(reward, [*columns])}")
    logged = {key[len(_REWARDS) : -len(_MEAN)] for one in history for key in one if _names_reward(key)}
    names = [name for name in columns if name in logged] if reward is None else [reward]
    if not names:
        after = [*columns][[*columns].index("completion") + 1 :] if "completion" in columns else []
        names = [name for name in after if columns[name].is_numeric() and name != "advantage"]
    if not names or not {"step", "prompt", "completion", "advantage"} <= {*columns}:
        raise DataError(
            f"these completions of TRL have the columns {first_few([*columns])}, and no reward among them: "
            "name it as reward=NAME."
        )
    return names


def _names_reward(key: str) -> bool:
    return key.startswith(_REWARDS) and key.endswith(_MEAN)


def _about(names: Sequence[str], damaged: Sequence[str], repeated: int, known: bool) -> Iterator[str]:
    if len(names) > 1:
        summed = f"the sum of {first_few(names)}, each with weight 1"
        yield f"The reward is {summed}; for one alone type reward={names[0]}."
    yield from about_files(damaged)
    if repeated:
        one = repeated == 1
        files = "file repeats the rollouts of the one before it and is" if one else _REPEAT
        yield f"{repeated} {files} left out."
    if known:
        yield "Tokens are the mean length of the step, which TRL logs, for each of its rollouts."


def _about_steps(steps: pl.Series) -> Iterator[str]:
    """Says so if batches between the logged steps are not in the log."""
    apart = steps.diff().drop_nulls().median()
    if isinstance(apart, float) and apart > 1:
        yield (
            f"The log has one batch every {apart:.0f} steps: what was sampled in between is not here, unless "
            "batches serve that many steps."
        )
