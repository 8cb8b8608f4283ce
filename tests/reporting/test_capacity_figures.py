"""The figures of capacity: their numbers against the run directories, what they draw, and that a report
without such cells does not change."""

import json

import numpy as np
import polars as pl
import pytest
import vl_convert
from reporting_helpers import is_named, wait_until_drawn

import memory_rl
from memory_rl.analysis.collect import find_cells
from memory_rl.cli import main
from memory_rl.reporting import capacity_charts
from memory_rl.reporting.capacity import (
    capacities_frame,
    capacity_tables,
    cells_of,
    interference_frame,
    points_frame,
)
from memory_rl.reporting.capacity_charts import CAPACITY_FIGURES
from memory_rl.reporting.charts import FIGURES
from memory_rl.reporting.drawing import live
from memory_rl.reporting.printing import key, sheet
from memory_rl.reporting.report import save_capacity_figures
from memory_rl.reporting.study import make_study

NAMES = [make.__name__ for make in CAPACITY_FIGURES]


@pytest.fixture(scope="module")
def cells_folder(tmp_path_factory):
    """Vectors of 1 and 32 parameters on the tiny model, with 1, 2 and 4 secrets; one learns them in blocks,
    one has no time to memorise anything."""
    folder = tmp_path_factory.mktemp("capacity")
    common = {"N": 4, "num_runs": 3, "adapter": "shared", "learning_rate": 0.1, "quiet": True}
    for size in (1, 32):
        for M in (1, 2):
            path = str(folder / f"sft-{size}-{M}")
            memory_rl.sft(
                **common,
                num_secrets=M,
                adapter_parameters=size,
                batch_size=M,
                max_episodes=40 * M,
                evaluate_every=10,
                log_path=path,
            )
    blocks = {
        "num_secrets": 4,
        "order": "blocks",
        "adapter_parameters": 32,
        "max_episodes": 80,
        "evaluate_every": 5,
    }
    memory_rl.sft(**common, **blocks, log_path=str(folder / "blocks"))
    memory_rl.train(
        **common,
        num_secrets=2,
        adapter_parameters=1,
        max_episodes=8,
        skip_ahead=False,
        log_path=str(folder / "binary"),
    )
    return folder


@pytest.fixture(scope="module")
def study(cells_folder):
    return make_study(find_cells([cells_folder]))


@pytest.fixture(scope="module")
def frame(cells_folder):
    return points_frame(find_cells([cells_folder]))


def rows_of(frame, condition, size, M, order="mixed"):
    (row,) = frame.filter(condition=condition, size=size, num_secrets=M, order=order).rows(named=True)
    return row


def test_a_point_has_the_numbers_of_its_run_directory(cells_folder, frame):
    """Stored is the sum over the secrets, from another file than the one it is read from."""
    (cell,) = find_cells([cells_folder / "sft-32-2"])
    row = rows_of(frame, "sft", "adapter_parameters=32", 2)
    of_secrets = pl.read_parquet(cells_folder / "sft-32-2" / "secrets.parquet")
    last = of_secrets.filter(pl.col("episode") == pl.col("episode").max().over("run"))
    assert row["stored"] == pytest.approx(
        last.group_by("run").agg(pl.col("bits_known").sum())["bits_known"].mean(), rel=1e-3
    )
    rate = cell.summary["bits_per_episode"]
    assert [row["rate"] or 0.0, row["rate_high"] or row["bound"]] == pytest.approx(
        [rate["estimate"], rate["ci95"][1]], rel=1e-3
    )
    assert (row["parameters"], row["bytes"], row["bits_to_learn"], row["learning_rate"]) == (
        32,
        128,
        4.0,
        0.1,
    )
    assert (row["memorised"], row["runs"]) == (cell.summary["memorised"], 3)


def test_a_cell_in_which_no_run_memorised_has_a_bound_and_no_rate(frame):
    """No event in 3 runs x 8 episodes: at the exact Poisson bound, -ln 0.025 events of 2 secrets x 2 bits."""
    row = rows_of(frame, "binary", "adapter_parameters=1", 2)
    assert (row["memorised"], row["rate"]) == (0, None)
    assert row["bound"] == pytest.approx(-np.log(0.025) * 4 / 24, rel=1e-3)


@pytest.mark.parametrize("make", CAPACITY_FIGURES)
def test_every_line_is_in_the_legend_or_the_key_or_has_its_name_beside_it(study, make):
    figure = make(study)
    for panel in figure.panels:
        assert all(is_named(panel.layers, place) for place in range(len(panel.layers)))
    title = sheet(figure, study)["title"]
    assert " ".join(title["subtitle"]) == key(figure.panels) != ""


def test_blocks_are_in_the_table_and_in_no_figure_but_interference(study, frame):
    assert frame.filter(order="blocks").select("size", "num_secrets").rows() == [("adapter_parameters=32", 4)]
    for name in ("capacity", "parameters", "size"):
        layers = [layer for panel in getattr(capacity_charts, name)(study).panels for layer in panel.layers]
        drawn = json.dumps([layer.frame.to_dicts() for layer in layers if "runs" in layer.frame.columns])
        assert '"num_secrets": 2' in drawn
        assert '"num_secrets": 4' not in drawn


def test_cells_come_by_condition_size_and_secrets(study):
    assert [entry.label for entry in study.entries] == [
        *(
            f"sft adapter_parameters={size} {secrets}"
            for size in (1, 32)
            for secrets in ("num_secrets=1", "num_secrets=2")
        ),
        "sft adapter_parameters=32 num_secrets=4 order=blocks",
        "binary adapter_parameters=1 num_secrets=2",
    ]


def test_interference_at_the_end_of_a_block_is_what_was_known_then(cells_folder):
    """80 examples for 4 secrets: the first two were taught until 20 and 40."""
    known = pl.read_parquet(cells_folder / "blocks" / "secrets.parquet")
    ends = pl.concat([known.filter(prompt=prompt, episode=20 * (prompt + 1)) for prompt in (0, 1)])
    (row,) = interference_frame(find_cells([cells_folder])).filter(blocks=1.0).rows(named=True)
    assert row["mean"] == pytest.approx(ends["bits_known"].mean(), rel=1e-3)
    assert (row["secrets"], row["information"]) == (2, 2.0)


def test_a_panel_a_condition_and_the_colours_of_sizes_are_the_same_in_all(study):
    figures = {make.__name__: make(study) for make in CAPACITY_FIGURES}
    assert {name: [panel.title for panel in figure.panels] for name, figure in figures.items()} == {
        "capacity": ["sft", "binary"],
        "parameters": ["sft", "binary"],
        "size": ["sft", "binary"],
        "interference": ["sft"],
    }
    panels = [*figures["capacity"].panels, *figures["interference"].panels]
    encodings = [layer["encoding"] for panel in panels for layer in live(panel, study.plain(), "")["layer"]]
    scales = [encoding["color"]["scale"] for encoding in encodings if "color" in encoding]
    assert len(scales) > 6
    assert all(
        scale == {"domain": ["adapter_parameters=1", "adapter_parameters=32"], "range": "ordinal"}
        for scale in scales
    )


def test_the_lines_of_known_capacities_are_2_and_3_6_bits_a_parameter(study):
    panel = capacity_charts.parameters(study).panels[0]
    lines = [layer.frame for layer in panel.layers if layer.mark["type"] == "line"]
    assert [(line["stored"] / line["parameters"]).to_list() for line in lines] == [
        pytest.approx([bits, bits]) for bits in (2.0, 3.6)
    ]


def test_only_saturated_sizes_have_diamonds(study, cells_folder):
    wanted = (
        capacities_frame(find_cells([cells_folder])).filter("saturated", condition="sft")["size"].to_list()
    )
    assert wanted == ["adapter_parameters=1"]
    for name in ("capacity", "parameters"):
        panel = next(panel for panel in getattr(capacity_charts, name)(study).panels if panel.title == "sft")
        (diamonds,) = [layer.frame for layer in panel.layers if layer.mark.get("shape") == "diamond"]
        assert diamonds["size"].to_list() == wanted


@pytest.mark.parametrize("make", CAPACITY_FIGURES, ids=NAMES)
def test_each_is_drawn_for_page_and_print(make, study):
    """With as many lines as there are curves."""
    figure, plain = make(study), study.plain()
    drawing = vl_convert.vegalite_to_svg(sheet(figure, plain))
    assert all(panel.title in drawing for panel in figure.panels)
    assert "NaN" not in drawing
    for panel in figure.panels:
        assert "NaN" not in vl_convert.vegalite_to_svg({**live(panel, plain, ""), "width": 300})


def test_figures_are_saved_by_a_function(cells_folder, tmp_path):
    made = save_capacity_figures([cells_folder], tmp_path / "new" / "figures")
    assert [path.name for path in made] == [f"{name}.{kind}" for name in NAMES for kind in ("svg", "png")]
    assert [path.read_bytes()[1:4] for path in made if path.suffix == ".png"] == [b"PNG"] * len(NAMES)


def test_other_cells_are_called_and_drawn_as_they_were(sweep, cells_folder):
    alone, both = (make_study(find_cells(paths)) for paths in ([sweep], [sweep, cells_folder]))
    plain = both.plain()
    assert plain.labels == alone.labels
    assert [(entry.label, entry.cell.path) for entry in plain.entries] == [
        (entry.label, entry.cell.path) for entry in alone.entries
    ]
    for make in FIGURES:
        drawn = [[live(panel, study, "") for panel in make(study).panels] for study in (alone, plain)]
        assert drawn[0] == drawn[1]
    assert not cells_of(alone)
    assert len(both.entries) == len(alone.entries) + 6


def test_a_report_without_such_cells_says_nothing_of_them(report):
    assert not (report.parent / "capacity.csv").exists()
    page, summary = report.read_text(), (report.parent / "summary.md").read_text()
    for words in ("Capacities", "figure-capacity", "figure-interference", "Sizes and secrets"):
        assert words not in page.partition("<script>")[0]
        assert words not in summary


@pytest.fixture(scope="module")
def made(cells_folder, tmp_path_factory):
    """A report of such cells alone."""
    out = tmp_path_factory.mktemp("made") / "report"
    assert main(["report", f"runs={cells_folder}", f"out={out}", "quiet=True"]) == 0
    return out


def test_a_report_of_such_cells_alone_leaves_the_other_figures_out_and_says_why(made):
    assert {path.name for path in (made / "figures").iterdir()} == {f"{name}.svg" for name in NAMES}
    text = (made / "summary.md").read_text()
    page = (made / "index.html").read_text()
    assert page.count("(each cell has several secrets or another adapter than LoRA, and") == len(FIGURES)
    assert "### Capacities" in text
    assert text.count(r"| adapter\_parameters=1 | 1 | 4 | ") == 3  # of sft at two M, and of binary
    assert "none; at most 0.615" in text
    frame = pl.read_csv(made / "capacity.csv")
    assert frame.filter(pl.col("order") == "mixed")["capacity"].null_count() == 0
    assert frame.height == 6


def test_the_page_draws_them_without_a_complaint(made, chromium):
    page = chromium.new_page()
    heard = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.goto((made / "index.html").as_uri())
    wait_until_drawn(page)
    for name in NAMES:
        for chart in page.locator(f"#figure-{name} .chart").all():
            assert chart.locator("svg.marks").bounding_box()["width"] > 200
    assert page.locator("#results h3").all_inner_texts() == ["Capacities", "Sizes and secrets"]
    page.locator("#theme").click()
    wait_until_drawn(page)
    page.close()
    assert heard == []


def test_a_table_without_rows_is_not_shown(cells_folder, tmp_path):
    """The tabular learner grows with what there is to learn, and so has no capacity."""
    memory_rl.sft(
        N=4, num_secrets=2, num_runs=2, backend="tabular", figures=False, log_path=str(tmp_path / "table")
    )
    titles = {
        folder: [table.title for table in capacity_tables(make_study(find_cells([folder])))]
        for folder in (cells_folder, tmp_path)
    }
    assert titles == {cells_folder: ["Capacities", "Sizes and secrets"], tmp_path: ["Sizes and secrets"]}
