"""Makes all figures of the pages, in docs/figures/.

python docs/make_figures.py       (under a minute)
    Runs five conditions at N = 64: all of them for the README; bits known of three, and the ledger of two.
python docs/make_figures.py quick=sweeps/quick capacity=sweeps/capacity
    Draws what the pages show of two sweeps, or of one, that were run as the pages say:
    python sweep.py protocol=quick log_path=sweeps/quick           (minutes)
    python sweep.py protocol=capacity log_path=sweeps/capacity     (an hour)
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import altair as alt
import polars as pl

import memory_rl
from memory_rl.analysis.collect import find_cells
from memory_rl.reporting.capacity_charts import capacity
from memory_rl.reporting.charts import scaling, waterfall
from memory_rl.reporting.headline import share_of_ceiling
from memory_rl.reporting.lettering import drawn
from memory_rl.reporting.pictures import draw
from memory_rl.reporting.study import make_study
from memory_rl.reporting.themes import GROUND, PALETTE, vega_config

FIGURES = Path(__file__).parent / "figures"
CONDITIONS = {
    "binary": {"env_type": "single_step", "reward_type": "binary"},
    "binned": {"env_type": "single_step", "reward_type": "binned_log_distance", "reward_bins": 8},
    "log_distance": {"env_type": "single_step", "reward_type": "log_distance"},
    "multi_step": {"env_type": "multi_step"},
}
WANTED = {
    "binary": ("bits_known", "ledger"),
    "binned": ("ledger",),
    "log_distance": ("bits_known",),
    "multi_step": ("bits_known",),
}


SWEEPS = {
    "quick": {scaling: "quick_scaling.svg", waterfall: "quick_waterfall.svg"},
    "capacity": {capacity: "capacity.svg"},
}
"""What the pages show of a sweep, by the name of its protocol."""

_TICK = "M-0.12,-1.2H0.12V1.2H-0.12Z"
NAMES = {
    "sft": "the answer itself (SFT)",
    "multi_step": "a reward for each bit",
    "binary": "hit or miss (binary)",
    "binned": "log-distance in 8 levels",
    "log_distance": "log-distance",
}
MARKS = {
    "policy": ("learned [95 %]", PALETTE["light"][0]),
    "questioner": ("an ideal learner", PALETTE["light"][4]),
    "capacity": ("naive ceiling", "#57606a"),
}


def conditions_chart(results: Mapping[str, memory_rl.Result]) -> alt.LayerChart:
    """Bits per episode of every condition against its ceilings, on a logarithmic scale."""
    rows = []
    for name, title in NAMES.items():
        ((summary,), mark) = results[name].summary.values(), "what"
        for mind, (what, _) in MARKS.items():
            rate = summary["rates"][mind]
            low, high = rate.get("ci95") or (None, None)
            row = {"condition": title, mark: what, "bits": rate["estimate"], "low": low, "high": high}
            rows.append({**row, "share": f"{share_of_ceiling(summary)} of the ceiling"})
    learned = MARKS["policy"][0]
    scale = alt.Scale(type="log", domain=[0.001, 10])
    x = alt.X("bits:Q", scale=scale, axis=alt.Axis(format="~g", values=[0.001, 0.01, 0.1, 1, 10]))
    y = alt.Y("condition:N", sort=[*NAMES.values()], title=None, axis=alt.Axis(labelLimit=400))
    kinds = [what for what, _ in MARKS.values()]
    legend = alt.Legend(title=None, orient="bottom", columns=3, labelLimit=400)
    color = alt.Color("what:N", legend=legend).scale(
        domain=kinds, range=[color for _, color in MARKS.values()]
    )
    shape = alt.Shape("what:N", legend=legend).scale(domain=kinds, range=["circle", "diamond", _TICK])
    base = alt.Chart(pl.DataFrame(rows)).encode(x.title("bits per episode, of 6 to learn"), y)
    policy = base.transform_filter(alt.datum.what == learned)
    spread = policy.mark_rule(strokeWidth=2, color=MARKS["policy"][1]).encode(alt.X("low:Q"), x2="high:Q")
    points = base.mark_point(filled=True, size=110, opacity=1).encode(color=color, shape=shape)
    words = policy.mark_text(dy=-13).encode(text="share:N")
    title = alt.Title("What an episode teaches, by what it tells", subtitle="N = 64, 16 runs a condition")
    chart = alt.layer(spread, points, words, title=title, width=420, height=alt.Step(44))
    # Laid out with a wide font, so that nothing is cut where a reader has another.
    return chart.configure(**{**vega_config("light", [], ground=GROUND["light"]), "font": "DejaVu Sans"})


def of_sweep(name: str, folder: str | Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of the figures of one of `SWEEPS`."""
    study = make_study(find_cells([folder]))
    for make, file in SWEEPS[name].items():
        figure = make(study.plain().shown() if name == "quick" else study)
        yield from ((file, content) for _, content in draw(figure, study))


def of_conditions() -> None:
    """Runs the conditions with their defaults and keeps the wanted figures."""
    with tempfile.TemporaryDirectory() as folder:
        results = {"sft": memory_rl.sft(N=64, log_path=f"{folder}/sft")}
        for name, settings in CONDITIONS.items():
            results[name] = memory_rl.train(N=64, log_path=f"{folder}/{name}", **settings)
            for figure in WANTED[name]:
                shutil.copy(
                    results[name].path / f"figures/{figure}.svg",
                    FIGURES / (f"{name}.svg" if figure == "bits_known" else f"{name}_{figure}.svg"),
                )
        drawing = drawn(conditions_chart(results).to_dict())
        (FIGURES / "conditions.svg").write_text(drawing, encoding="utf-8")
        print(*results.values(), sep="\n")


def main(words: Sequence[str]) -> None:
    """The figures of the sweeps that are named, or else those of runs of their own."""
    FIGURES.mkdir(exist_ok=True)
    for name, _, folder in (word.partition("=") for word in words):
        for file, content in of_sweep(name, folder):
            (FIGURES / file).write_bytes(content)
    if not words:
        of_conditions()


if __name__ == "__main__":
    main(sys.argv[1:])
