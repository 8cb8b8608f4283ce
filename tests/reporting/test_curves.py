"""The numbers behind the report's figures, against closed forms and by hand."""

import math
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
import scipy.stats
from reporting_helpers import write_film

from memory_rl.analysis.collect import Cell, find_cells
from memory_rl.information.closed_forms import binary_episodes
from memory_rl.reporting import curves
from memory_rl.reporting.charts import FIGURES, absorption, bits_known, scaling, survival, waterfall
from memory_rl.reporting.study import Entry, Label, make_study


class Told(Cell):
    """A cell with metrics given by hand."""

    def __init__(self, metrics: dict, N: int = 16, summary: dict | None = None, **config) -> None:
        settled = {"N": N, "memorised_at": 0.5, "lora_rank": 8, "backend": "local", **config}
        manifest = {"kind": "train", "condition": "binary", "status": "completed", "config": settled}
        super().__init__(path=None, manifest=manifest, summary=summary or {})
        self.__dict__["metrics"] = pl.DataFrame(metrics)


def summary_of(rate, to_reach, low=None, high=None):
    return {
        "bits_per_episode": {"estimate": rate, "ci95": [low, high]},
        "ceilings": {"ideal_questioner": to_reach and {"to_reach": to_reach}},
    }


def test_absorption_is_what_was_gained_over_what_was_spent():
    """Two runs at P(S) = 1/16: one gains 0.4 bits in 1 episode, the other 0.1 bits in 9. Together 0.05 an
    episode; the mean of the ratios would be 0.206."""
    cell = Told({"run": [0, 0, 1, 1], "episode": [0, 1, 0, 9], "bits_known": [0.0, 0.4, 0.0, 0.1]})
    (row,) = curves.absorption([Entry("binary", cell)]).rows(named=True)
    assert (row["absorbed"], row["p"], row["runs"]) == (0.05, 1 / 16, 2)
    assert row["low"] <= 0.05 <= row["high"]


def test_absorption_keeps_apart_what_was_known_before():
    """Bins of half a bit: from 0 bits known to 0.6, and from there to 1.2, is two bins."""
    cell = Told({"run": [0, 0, 0, 1, 1, 1], "episode": [0, 2, 4] * 2, "bits_known": [0.0, 0.6, 1.2] * 2})
    frame = curves.absorption([Entry("binary", cell)])
    assert frame["p"].to_list() == pytest.approx([1 / 16, 2**-3.4], rel=1e-3)
    assert frame["absorbed"].to_list() == pytest.approx([0.3, 0.3])


def test_bins_that_one_run_alone_has_met_are_left_out():
    cell = Told({"run": [0, 0, 1, 1], "episode": [0, 1, 0, 1], "bits_known": [0.0, 0.1, 2.0, 2.1]})
    assert curves.absorption([Entry("binary", cell)]).is_empty()


def test_the_laws_over_absorption_are_the_entropies_of_scipy():
    frame = curves.answer_information(64)
    entropy, surprise = (frame.filter(pl.col("curve").str.starts_with(start)) for start in ("h", "-"))
    p = entropy["p"].to_numpy()
    assert entropy["bits"].to_numpy() == pytest.approx(scipy.stats.entropy([p, 1 - p], base=2))
    assert surprise["bits"].to_numpy() == pytest.approx(np.log2(1 / p))
    assert p.min() == pytest.approx(1 / 128)


def test_bits_known_holds_the_last_value_up_to_the_end_of_the_axis():
    """One run ends at episode 3 with 4 bits, another condition goes on to episode 50."""
    fast = Told(
        {"run": [0, 0], "episode": [0, 3], "bits_known": [0.0, 4.0]},
        summary={"ceilings": {"shannon_capacity": 0.5, "capacity": 1.0}},
    )
    slow = Told(
        {"run": [0, 0], "episode": [0, 50], "bits_known": [0.0, 1.0]},
        summary={"ceilings": {"shannon_capacity": None, "capacity": 1.0}},
    )
    frame = curves.bits_known([Entry("fast", fast), Entry("slow", slow)])
    assert frame.filter(pl.col("series") == "fast").select("episode", "mean", "ceiling").rows() == [
        (0, 0.0, 0.0),
        (3, 4.0, 1.5),
        (50, 4.0, 4.0),
    ]
    assert frame.filter(pl.col("series") == "slow")["ceiling"].to_list() == [
        0.0,
        4.0,
    ]  # 1 bit an episode, but never more than log2 N


def test_a_curve_is_thinned_to_measured_episodes():
    episodes = np.arange(0, 10_000, 4)
    grid = curves.episode_grid(episodes)
    assert len(grid) <= curves.CURVE_POINTS
    assert set(grid) <= set(episodes)
    assert (grid[0], grid[-1]) == (0, 9996)


def test_the_waterfall_falls_from_capacity_to_policy_by_the_factors_on_its_bars(sweep):
    study = make_study(find_cells([sweep]))
    for entry in study.at(16):
        rows = curves.waterfall([entry])
        rates = entry.summary["rates"]
        assert rows["above"].to_list() == [
            rates[mind]["estimate"] for mind in ("capacity", "questioner", "observer")
        ]
        assert rows["below"].to_list() == [
            rates[mind]["estimate"] for mind in ("questioner", "observer", "policy")
        ]
        assert rates["capacity"]["estimate"] / np.prod(rows["factor"].to_numpy()) == pytest.approx(
            rates["policy"]["estimate"]
        )


@pytest.mark.parametrize(
    ("factor", "above", "words"),
    [
        (2.0781, 1.0, "loss \u00f72.08"),
        (4480.2, 1.0, "loss \u00f74,480"),
        (0.5, 1.0, "loss \u00d72 (a gain)"),
        (None, None, "loss: unknown"),
        (0.0, 0.0, "loss: unknown"),
        (None, 1.0, "loss: all lost"),
    ],
)
def test_the_words_on_a_bar(factor, above, words):
    assert curves.loss_words("loss", factor, above) == words


def test_scaling_draws_the_ideal_questioner_of_each_cell():
    """Binary at N = 16 needs 8.3125 episodes to P(S) >= 0.5: 4 / 8.3125 bits an episode."""
    frame = curves.scaling(
        [
            Entry("a", Told({}, summary=summary_of(0.1, 8.3125))),
            Entry("b", Told({}, summary=summary_of(0.0, None))),
        ]
    )
    assert frame["questioner"].to_list() == [0.4812, None]
    assert frame["rate"].to_list() == [0.1, None]  # a rate of 0 has no place on a logarithmic axis


def test_scaling_draws_exact_policy_gradient_where_a_cell_is_just_that():
    exact = {
        "backend": "tabular",
        "optimiser": "sgd",
        "algorithm": "reinforce",
        "baseline": "none",
        "group_size": 1,
        "batch_size": 1,
        "reward_noise": 0.0,
    }
    cells = [
        Told({}, summary=summary_of(0.1, 8.3125), learning_rate=2.0, **{**exact, **other})
        for other in ({}, {"group_size": 4}, {"prior_skew": 1.0})
    ]
    frame = curves.scaling([Entry("a", cell) for cell in cells])
    assert frame["closed_form"].to_list() == [
        pytest.approx(4 / binary_episodes(16, 2.0, 0.5), rel=1e-3),
        None,
        None,
    ]


def test_one_hit_is_the_mean_wait_of_a_geometric_law():
    frame = curves.one_hit([16, 256])
    assert frame["rate"].to_numpy() == pytest.approx(
        [math.log2(N) / scipy.stats.geom(1 / N).mean() for N in frame["N"]]
    )


def test_ranks_join_cells_that_differ_in_their_rank_alone():
    entries = [
        Entry(f"r{rank} s{seed}", Told({}, summary=summary_of(rank / 10, 8), lora_rank=rank, seed=seed))
        for rank, seed in [(8, 0), (1, 0), (8, 1)]
    ]
    assert [[entry.label for entry in family] for family in curves.rank_families(entries)] == [
        ["r1 s0", "r8 s0"]
    ]
    assert curves.ranks(entries).select("rank", "rate").rows() == [(1, 0.1), (8, 0.8)]


def test_a_film_in_rectangles_is_the_film(tmp_path):
    write_film(tmp_path, N=16)
    frame = pl.read_parquet(tmp_path / "film.parquet")
    rectangles = curves.film(frame, "observer")
    painted = np.full((16, 16), np.nan)
    for answer, episode, end, p in rectangles.rows():
        assert np.isnan(painted[answer, episode:end]).all()  # none over another
        painted[answer, episode:end] = p
    wanted = frame.sort("answer", "episode")["observer"].to_numpy().reshape(16, 16)
    assert painted == pytest.approx(wanted, rel=0.05)
    assert len(curves.film(frame, "policy")) == 16  # a policy that stands still is one rectangle an answer


def domains(make, study, channel):
    return {tuple(panel.channels[channel]["scale"]["domain"]) for panel in make(study).panels}


def test_panels_that_are_compared_share_their_axes(sweep):
    study = make_study(find_cells([sweep]))
    for make in (bits_known, survival, absorption, scaling):
        for channel in ("x", "y"):
            assert len(domains(make, study, channel)) == 1
    assert len(domains(waterfall, study, "x")) == 1


class Study(NamedTuple):
    """As much of a study as its figures ask for."""

    entries: list[Entry]
    labels: list[Label]

    @property
    def sizes(self):
        return sorted({entry.N for entry in self.entries})

    def at(self, N):
        return [entry for entry in self.entries if entry.N == N]

    def charts(self):
        yield "", self


def sinking(to: float, N: int = 16, runs: int = 1) -> Told:
    """Runs that learn all there is but for the first, which sinks."""
    last = [to] + [math.log2(N)] * (runs - 1)
    times = {"run": [run for run in range(runs) for _ in range(2)], "episode": [0, 9] * runs}
    known = [bits for end in last for bits in (0.0, end)]
    return Told({**times, "bits_known": known}, N, {"ceilings": {"shannon_capacity": 1.0, "capacity": 1.0}})


def bits_figure(**cells):
    return bits_known(Study([Entry(name, cell) for name, cell in cells.items()], []))


def test_an_axis_of_bits_known_is_not_stretched_by_runs_that_sank():
    """Of 4 and 6 bits the axis goes from -3 to 6.6; what is cut off is named, there and on the axis."""
    near = bits_figure(a=sinking(-2.9, N=64), b=sinking(4.0))
    assert ([*near.notes], near.panels[0].channels["y"]["title"]) == ([], "bits known")
    far = bits_figure(a=sinking(-5.0, N=64), b=sinking(4.0), c=sinking(-20.0, runs=8), d=sinking(1.0, runs=2))
    for panel in far.panels:
        assert panel.channels["y"]["scale"]["domain"] == pytest.approx([-3, 6.6])
        assert panel.channels["y"]["title"] == "bits known (cut off below \u22123)"
        assert all(layer.mark["clip"] for layer in panel.layers)
    assert far.notes == [
        "What lies below \u22123 bits is cut off: the mean of a at N = 64, and ends of intervals or single "
        "runs. It comes into view when the figure is moved."
    ]
    only_an_end = bits_figure(c=sinking(-20.0, runs=8))  # its mean ends at 1
    assert only_an_end.notes[0].startswith("What lies below \u22122 bits is cut off: ends of intervals")


def test_a_median_of_7_is_read_off_a_linear_axis_and_other_scales_say_what_they_are(sweep):
    fast = make_study([cell for cell in find_cells([sweep]) if cell.path.name in ("sft-16", "multi-16")])
    for make in (bits_known, survival):
        near, far = (make(study).panels[0].channels["x"] for study in (fast, make_study(find_cells([sweep]))))
        assert max(near["scale"]["domain"]) <= 105
        assert (near["scale"].get("type"), near["title"]) == (None, "episodes")
        assert far["scale"]["type"] == "symlog"
        assert "linear to 10, then logarithmic" in far["title"]


@pytest.mark.parametrize("make", [make for make in FIGURES if make.__name__ not in ("waterfall", "film")])
@pytest.mark.parametrize("names", [("sft-16",), ("binary-16", "sft-16"), ("binary-8", "binary-16", "sft-8")])
def test_no_chart_has_one_point_on_its_axis(make, names, sweep):
    study = make_study([cell for cell in find_cells([sweep]) if cell.path.name in names])
    for panel in make(study).panels:
        column = panel.channels["x"]["field"]
        assert panel.frame[column].n_unique() > 1


def test_words_of_the_waterfall_stand_where_there_is_room(sweep):
    """On the side of the bar that has more room, of an axis that ends where its domain does."""
    for panel in waterfall(make_study(find_cells([sweep]))).panels:
        low, high = panel.channels["x"]["scale"]["domain"]
        for row in panel.frame.rows(named=True):
            ends = [row[name] for name in ("above", "below", "low", "high") if row[name]]
            room = (min(ends) / low, high / max(ends))
            assert room[0 if row["is_left"] else 1] == max(room)
        frames = [layer.frame for layer in panel.layers if layer.frame is not None]
        headings = [frame["lane"].max() for frame in frames if "heading" in frame.columns]
        assert max(headings) < panel.frame["lane"].min()
