"""The numbers behind the report's figures, thinned for drawing: entries in, a frame with a `series` out.

Thinning leaves measured values as they are and only takes fewer of them; each function says how many.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any

import numpy as np
import polars as pl

from memory_rl.analysis.statistics import CURVE_RESAMPLES, Estimate, mean_interval, resampled_means
from memory_rl.analysis.survival import survival_curve
from memory_rl.catalogue import KEEP
from memory_rl.information.closed_forms import binary_episodes
from memory_rl.reporting.study import Entry
from memory_rl.reporting.values import MINDS, STEPS, loss_interval, loss_words

LINEAR_UP_TO = 10
"""Axes of episodes are linear up to this one and logarithmic beyond."""

CURVE_POINTS = 80
"""The most points of a curve over episodes."""

FILM_COLUMNS = 120
"""The most snapshots of a film."""

SINGLE_RUNS = 64
"""The most runs that are drawn as lines of their own."""

_BINS_A_BIT = 2
_LEAST_RUNS = 2
_DIGITS = 4
_KINDS: dict[str, Any] = {
    **dict.fromkeys(
        ("series", "step", "from", "to", "words", "condition", "size", "order", "line"), pl.String
    ),
    **dict.fromkeys(
        ("N", "lane", "rank", "runs", "memorised", "parameters", "bytes", "num_secrets", "secrets"), pl.Int64
    ),
    "saturated": pl.Boolean,
}

CURVES = {
    "asked_bits": "the questions could tell",
    "observer_bits": "the ideal observer knows",
    "bits_known": "the policy knows",
}
"""What the ledger keeps of each run; from the column of metrics.parquet to its name."""


def episode_grid(episodes: np.ndarray, points: int = CURVE_POINTS) -> np.ndarray:
    """At most `points` of the measured episodes, evenly on an axis that is linear, then logarithmic."""
    places = np.log1p(episodes / LINEAR_UP_TO)
    wanted = np.linspace(places[0], places[-1], points)
    return np.asarray(episodes[np.unique(np.searchsorted(places, wanted).clip(max=len(episodes) - 1))])


def rounded(frame: pl.DataFrame) -> pl.DataFrame:
    """Numbers with as many digits as a figure can show."""
    return frame.with_columns(pl.selectors.float().round_sig_figs(_DIGITS))


def _together(entries: Sequence[Entry], make: Callable[[Entry], pl.DataFrame]) -> pl.DataFrame:
    """The frames of all entries under their labels, rounded to what a figure can show."""
    return rounded(pl.concat([make(entry).with_columns(series=pl.lit(entry.label)) for entry in entries]))


def _of_each(make: Callable[[Entry], pl.DataFrame]) -> Callable[[Sequence[Entry]], pl.DataFrame]:
    """A function of one entry as a function of several, which puts their frames together."""
    return wraps(make)(lambda entries: _together(entries, make))


def on_grid(entry: Entry, grid: np.ndarray, column: str) -> pl.DataFrame:
    """Each run's latest value of a column at each grid episode, and the last episode of the run as `end`.

    By run, then by episode.
    """
    measured = entry.cell.metrics.sort("episode")
    latest = measured.select("run", "episode", column, end=pl.col("episode").max().over("run"))
    places = pl.DataFrame({"episode": grid}).join(measured.select("run").unique(), how="cross")
    return places.join_asof(latest, on="episode", by="run", check_sortedness=False).sort("run", "episode")


def bits_known(entries: Sequence[Entry]) -> pl.DataFrame:
    """Mean bits known against episodes with intervals, and its ceiling: at most `CURVE_POINTS` per cell.

    A cell that ends before the others keeps its last value up to the end of the axis.
    """
    last = _last_episode(entries)

    def curve(entry: Entry) -> pl.DataFrame:
        ceiling = pl.col("episode") * _most_per_episode(entry)
        return _mean_over_runs(entry, "bits_known", last).with_columns(
            ceiling=ceiling.clip(upper_bound=entry.cell.bits_to_learn)
        )

    return _together(entries, curve)


def _last_episode(entries: Sequence[Entry]) -> int:
    return max(_episodes(entry)[-1] for entry in entries)


def _episodes(entry: Entry) -> np.ndarray:
    """The episodes at which some run was measured, ascending."""
    return entry.cell.metrics["episode"].unique().sort().to_numpy()


def _mean_over_runs(entry: Entry, column: str, *further: int) -> pl.DataFrame:
    """With its interval, at the grid episodes of the entry and at further ones."""
    grid = np.union1d(episode_grid(_episodes(entry)), further).astype(np.int64)
    values = on_grid(entry, grid, column)[column].to_numpy().reshape(-1, len(grid))
    mean, low, high = mean_interval(values, entry.cell.times.units if entry.cell.measured else None)
    return pl.DataFrame({"episode": grid, "mean": mean, "low": low, "high": high}, nan_to_null=True)


@_of_each
def single_runs(entry: Entry) -> pl.DataFrame:
    """Bits known of the first `SINGLE_RUNS` runs of a cell, each up to its end."""
    lines = on_grid(entry, episode_grid(_episodes(entry)), "bits_known")
    shown = lines.filter(pl.col("run").rank("dense") <= SINGLE_RUNS, pl.col("episode") <= pl.col("end"))
    return shown.select("run", "episode", bits="bits_known")


@_of_each
def ledger(entry: Entry) -> pl.DataFrame:
    """What the questions could tell, the ideal observer knows and the policy knows, against episodes.

    Means over runs with intervals; `curve` says of what, with a name of `CURVES`.
    """
    return pl.concat(
        [_mean_over_runs(entry, column).with_columns(curve=pl.lit(name)) for column, name in CURVES.items()]
    )


def ceilings(entries: Sequence[Entry]) -> pl.DataFrame:
    """min(log2 N, episodes x Shannon capacity) of each cell, up to its bend and on to the end of the axis."""
    last = float(_last_episode(entries))

    def bend(entry: Entry) -> pl.DataFrame:
        told, information = _most_per_episode(entry), entry.cell.bits_to_learn
        grid = np.unique(np.concatenate([np.linspace(0, information / told, 24), [last]]))
        return pl.DataFrame({"episode": grid, "bits": np.minimum(information, told * grid)})

    return _together(entries, bend)


def _most_per_episode(entry: Entry) -> float:
    """Shannon capacity, or an upper bound of it; infinite for a cell that is not completed, and has none."""
    ceilings = entry.summary.get("ceilings", {"capacity": np.inf})
    return float(ceilings.get("shannon_capacity") or ceilings["capacity"])


def waterfall(entries: Sequence[Entry]) -> pl.DataFrame:
    """The rates above and below each step, the factor lost and its words: one row per cell and step.

    Cells without a ledger have none.
    """
    rows = [row for entry in entries if "rates" in entry.summary for row in _steps(entry)]
    ends = ("step", "lane", "from", "to", "words", "above", "below", "low", "high", "factor")
    return frame_of(rows, "series", *ends)


def _steps(entry: Entry) -> Iterable[dict[str, object]]:
    rates, lost = entry.summary["rates"], entry.summary["losses"]
    for lane, (step, (above, below)) in enumerate(STEPS.items(), start=1):
        high, low = rates[above]["estimate"], rates[below]["estimate"]
        interval = rates[below]["ci95"] or (None, None)
        yield {
            "series": entry.label,
            "step": step,
            "lane": lane,
            "from": MINDS[above],
            "to": MINDS[below],
            "words": loss_words(step, lost[step], high, loss_interval(entry.summary, step)),
            "above": high or None,
            "below": low or None,
            "low": interval[0] or None,
            "high": interval[1],
            "factor": lost[step],
        }


@_of_each
def survival(entry: Entry) -> pl.DataFrame:
    """Kaplan-Meier curves of the episodes to memorise, every step, with pointwise 95 % bands (log-log)."""
    return survival_curve(entry.cell.times)


@_of_each
def censored(entry: Entry) -> pl.DataFrame:
    """The runs that were censored, and the share not memorised there: one row per cell and episode."""
    times = entry.cell.times
    episodes, runs = np.unique(times.episodes[~times.memorised].astype(float), return_counts=True)
    return pl.DataFrame({"episode": episodes, "runs": runs}).join_asof(survival([entry]), on="episode")


def scaling(entries: Sequence[Entry]) -> pl.DataFrame:
    """Bits per episode of policy and ideal questioner, and in closed form: one row per cell."""
    rows = [
        {
            "series": entry.label,
            "N": entry.N,
            **_rate(entry),
            "questioner": _questioner(entry),
            "closed_form": _closed_form(entry),
        }
        for entry in entries
    ]
    return rounded(frame_of(rows, *rows[0]))


def _rate(entry: Entry) -> dict[str, float | None]:
    """Bits per episode with its interval; what is 0 has no place on a logarithmic axis."""
    rate = entry.summary["bits_per_episode"]
    low, high = rate["ci95"]
    return {"rate": rate["estimate"] or None, "low": low or None, "high": high}


def _questioner(entry: Entry) -> float | None:
    asker = entry.summary["ceilings"]["ideal_questioner"]
    return entry.cell.bits_to_learn / asker["to_reach"] if asker and asker["to_reach"] else None


_EXACT = {
    "backend": "tabular",
    "optimiser": "sgd",
    "algorithm": "reinforce",
    "baseline": "none",
    "group_size": 1,
    "batch_size": 1,
    "reward_noise": 0.0,
    "prior_skew": 0.0,
}


def _closed_form(entry: Entry) -> float | None:
    """What exact softmax policy gradient would do, for a cell that is exactly that, with a binary reward."""
    config = entry.cell.config
    if entry.cell.condition != "binary" or any(
        config.get(key, value) != value for key, value in _EXACT.items()
    ):
        return None
    episodes = binary_episodes(entry.N, config.get("learning_rate") or 1.0, config["memorised_at"])
    return entry.cell.bits_to_learn / episodes


def one_hit(sizes: Sequence[int]) -> pl.DataFrame:
    """log2 N / N: a policy that guesses evenly until its first hit, and knows S then."""
    room = 1.0 if len(sizes) > 1 else 1.5
    grid = np.geomspace(min(sizes) / room, max(sizes) * room, 24)
    return pl.DataFrame({"N": grid, "rate": np.log2(grid) / grid})


@_of_each
def absorption(entry: Entry) -> pl.DataFrame:
    """Bits absorbed per episode against the P(S) before it, in bins of half a bit.

    In a bin it is the sum of the changes of bits known over the sum of the episodes between evaluations: not
    the mean of their ratios, which would count quick lucky hits too high. The interval is a bootstrap over
    runs; bins with fewer than two runs are left out.
    """
    gain, spent = (-pl.col(name).diff(-1).over("run") for name in ("bits_known", "episode"))
    log2_p = pl.col("bits_known") - entry.cell.bits_to_learn
    steps = entry.cell.metrics.sort("run", "episode").select("run", gain=gain, spent=spent, log2_p=log2_p)
    by_run = (
        steps.filter(pl.col("spent") > 0)
        .group_by("run", bin=(pl.col("log2_p") * _BINS_A_BIT).floor())
        .agg(pl.col("gain", "spent").sum(), place=(pl.col("log2_p") * pl.col("spent")).sum())
        .sort("bin", "run")
    )
    rows = [
        _ratio(bin_) for bin_ in by_run.partition_by("bin", maintain_order=True) if len(bin_) >= _LEAST_RUNS
    ]
    return frame_of(rows, "p", "absorbed", "low", "high", "runs")


def _ratio(rows: pl.DataFrame) -> dict[str, Any]:
    """Of what was gained over what was spent in a bin, from the sums of each run."""
    sums = rows.select("gain", "spent", "place").to_numpy().astype(float)  # (R, 3)
    gain, spent, place = sums.sum(axis=0)
    drawn = resampled_means(sums, CURVE_RESAMPLES)
    absorbed = Estimate.from_bootstrap(gain / spent, drawn[:, 0] / drawn[:, 1], len(sums))
    return {"p": 2.0 ** (place / spent), **absorbed.as_row("absorbed"), "runs": len(sums)}


def answer_information(N: int) -> pl.DataFrame:
    """h(p) and -log2 p, from half of 1/N to nearly 1."""
    p = np.unique(np.concatenate([np.geomspace(0.5 / N, 0.9, 60), 1 - np.geomspace(1e-4, 0.1, 24)]))
    laws = {
        "h(p): what a yes or no can tell": -p * np.log2(p) - (1 - p) * np.log2(1 - p),
        "-log2 p: what is left to know": -np.log2(p),
    }
    return pl.DataFrame({"p": p, **laws}).unpivot(index="p", variable_name="curve", value_name="bits")


def ranks(entries: Sequence[Entry]) -> pl.DataFrame:
    """Bits per episode against LoRA rank, for cells that differ from others of their N in nothing else.

    `series` is the label of the first of them.
    """
    rows = [
        {"series": family[0].label, "rank": _rank_of(entry), **_rate(entry)}
        for family in rank_families(entries)
        for entry in family
    ]
    return frame_of(rows, "series", "rank", "rate", "low", "high").sort("series", "rank")


def rank_families(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Groups of cells that differ in their LoRA rank alone, two ranks at least; the shortest label first."""
    families = defaultdict(list)
    for entry in sorted(entries, key=lambda entry: (len(entry.label), entry.label)):
        config = entry.cell.config
        if "lora_rank" in config and config.get("backend") != "tabular":
            alike = frozenset((key, str(config[key])) for key in config.keys() - {*KEEP, "lora_rank"})
            families[entry.cell.kind, alike].append(entry)
    return [family for family in families.values() if len({*map(_rank_of, family)}) > 1]


def _rank_of(entry: Entry) -> int:
    return int(entry.cell.config["lora_rank"])


def film(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """A belief over answers as it changed: rectangles of answer, first and last episode, and probability.

    At most `FILM_COLUMNS` snapshots are kept, evenly spread on the axis of episodes. Neighbouring snapshots
    with the same value are one rectangle.

    Args:
        frame: episode, answer and the column, of one run.
        column: policy or observer.
    """
    episodes = frame["episode"].unique().sort().to_numpy()
    kept = episode_grid(episodes, FILM_COLUMNS)
    ends = pl.DataFrame({"episode": kept, "end": [*kept[1:], episodes[-1] + 1]})
    return (
        frame.with_columns(p=pl.col(column).round_sig_figs(2))
        .join(ends, on="episode")
        .sort("answer", "episode")
        .group_by(pl.struct("answer", "p").rle_id().alias("stretch"), maintain_order=True)
        .agg(pl.col("answer", "episode").first(), pl.col("end").last(), pl.col("p").first())
        .drop("stretch")
    )


def frame_of(rows: Iterable[Mapping[str, Any]], *columns: str) -> pl.DataFrame:
    """Rows as a frame, whose columns have their types even if there is no row; most hold fractions."""
    kinds = {column: _KINDS.get(column, pl.Float64) for column in columns}
    return pl.DataFrame(list(rows), schema=kinds).fill_nan(None)
