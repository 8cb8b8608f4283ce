"""The performance profile of ranked learners: one band each, in the colours of their order."""

from __future__ import annotations

import numpy as np
import polars as pl

from memory_rl.analysis.ranking import Ranking
from memory_rl.reporting.drawing import INTERVAL, Figure, Panel, axis, band, chunks, color_scale, log_axis

_TIPS = {"learner": "learner", "share": "share of the ceiling", "above": "runs above", **INTERVAL}


def profile(ranking: Ranking) -> Figure:
    """The share of each learner's runs that reach more than each share of the ceiling."""
    frame = profile_frame(ranking)
    names = [one.name for one in ranking.learners]
    x = log_axis("share", "share of the ceiling", (min(frame["share"]), _last(frame)))
    y = axis("above", "runs that reach more", (0, 1), format="%")
    panels = [
        Panel(
            frame.filter(pl.col("learner").is_in(part)),
            {"x": x, "y": y, "color": color_scale("learner", names, part)},
            band(),
            _TIPS,
            title=f"learners from place {names.index(part[0]) + 1}" if len(part) < len(names) else "",
            form=".3~g",
            height=340,
        )
        for part in chunks(names)
    ]
    return Figure("profile", panels)


def _last(frame: pl.DataFrame) -> float:
    """The end of the axis: the ceiling, or what the best run that is shown reaches."""
    reached = frame.filter(pl.col("above") > 0)["share"].to_list()
    return max([1.0, *reached])


def profile_frame(ranking: Ranking) -> pl.DataFrame:
    """One row per learner and share of the ceiling: the share of runs above, with its interval."""
    shares = 2.0 ** np.array(ranking.taus)
    frames = []
    for one in ranking.learners:
        above, low, high = one.profile
        frames.append(
            {"learner": [one.name] * len(shares), "share": shares, "above": above, "low": low, "high": high}
        )
    return pl.concat([pl.DataFrame(columns) for columns in frames])
