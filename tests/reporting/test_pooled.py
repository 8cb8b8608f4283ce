"""Run directories that differ in seed and base alone: one condition of a page, with all their runs."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.stats

import memory_rl
from memory_rl.analysis.collect import find_cells
from memory_rl.analysis.samples import gather
from memory_rl.reporting import curves
from memory_rl.reporting.answer import make_answer
from memory_rl.reporting.claims import over, over_what
from memory_rl.reporting.study import make_study
from memory_rl.reporting.tables import about, cells_frame, tables

SEEDS = (3, 4, 5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three seeds of one condition, some of whose runs are stuck, and another condition."""
    made = tmp_path_factory.mktemp("seeds")
    keys = {"N": 8, "backend": "tabular", "num_runs": 4, "figures": False}
    for seed in SEEDS:
        memory_rl.train(**keys, seed=seed, max_episodes=40, log_path=str(made / f"binary-{seed}"))
    memory_rl.sft(**keys, log_path=str(made / "sft"))
    return made


def with_bases(folder: Path, to: Path) -> list:
    """The binary cells, as if each were of a base model of its own."""
    for seed in SEEDS:
        path = to / f"binary-{seed}"
        path.mkdir()
        for file in (folder / path.name).iterdir():
            if file.is_file():
                (path / file.name).write_bytes(file.read_bytes())
        manifest = json.loads((path / "manifest.json").read_text())
        for part in ("config", "resolved"):
            manifest[part] |= {"backend": "local", "base_seed": seed}
        (path / "manifest.json").write_text(json.dumps(manifest))
    return find_cells([to])


def test_a_page_has_one_line_for_all_seeds_and_every_run_in_it(folder):
    cells = find_cells([folder])
    study = make_study(cells)
    assert [entry.label for entry in study.entries] == ["sft", "binary"]
    binary = study.entries[1]
    single = [cell for cell in cells if cell.condition == "binary"]
    episodes = np.concatenate([cell.times.episodes for cell in single])
    memorised = np.concatenate([cell.times.memorised for cell in single])
    assert 0 < memorised.sum() < len(memorised) == 12
    summary = binary.summary
    assert (summary["runs"], summary["memorised"]) == (12, memorised.sum())
    rate = 3 * memorised.sum() / episodes.sum()
    assert summary["bits_per_episode"]["estimate"] == pytest.approx(rate)
    assert summary["of_memorised"]["bits_per_episode"]["estimate"] == pytest.approx(
        3 / episodes[memorised].mean()
    )
    stuck = scipy.stats.binomtest(int((~memorised).sum()), 12).proportion_ci(method="exact")
    assert summary["stuck"]["ci95"] == pytest.approx([*stuck])
    assert binary.cell.metrics["run"].n_unique() == 12
    assert sum(cell.metrics.height for cell in single) == binary.cell.metrics.height
    known = [episode for cell in single for episode in cell.summary["episodes_to_know"]]
    assert summary["episodes_to_know"] == known
    last = curves.survival([binary]).filter(pl.col("episode") == 40)["surviving"].item()
    assert last == pytest.approx((~memorised).mean(), rel=1e-3)  # four digits are drawn
    assert about(study).startswith("4 cells with 16 runs of 2 conditions")
    (table, *_) = tables(study, make_answer(study))
    assert len(table.rows) == 2
    frame = cells_frame(study)  # nothing of a run directory is lost
    assert sorted(frame.filter(label="binary")["config.seed"].to_list()) == [*SEEDS]
    assert f"{(~memorised).sum()} of 12 runs" in make_answer(study).charts[0].rows[-1].stuck


def test_over_several_bases_intervals_are_over_bases(folder, tmp_path):
    cells = with_bases(folder, tmp_path)
    (entry,) = make_study(cells).entries
    d = np.array([cell.times.memorised.sum() for cell in cells])
    t = np.array([cell.times.episodes.sum() for cell in cells])
    ratio = d.sum() / t.sum()
    excess = (d - ratio * t) / d.mean()  # Cochran's linearisation of a ratio of cluster totals
    reach = scipy.stats.t.ppf(0.975, 2) * excess.std(ddof=1) / math.sqrt(3)
    found = entry.summary["bits_per_episode"]
    assert found["ci95"] == pytest.approx([3 * ratio * math.exp(side * reach) for side in (-1, 1)])
    assert make_answer(make_study(cells)).over == "over 3 base models"
    frame = curves.bits_known([entry]).filter(pl.col("episode") == 40)
    ends = np.array([cell.stored.mean() for cell in cells])
    assert frame["mean"].item() == pytest.approx(ends.mean(), rel=1e-3)
    assert frame["low"].item() >= ends.min() - 1e-3  # means of drawn bases lie between theirs
    assert frame["high"].item() <= ends.max() + 1e-3


def test_bases_that_share_secrets_are_not_taken_for_a_statement_about_others(folder, tmp_path):
    cells = with_bases(folder, tmp_path)
    (sample,) = gather(cells)
    assert not sample.shares_secrets
    assert sample.reach == "over 3 base models"
    for cell in cells:
        for part in ("config", "resolved"):
            cell.manifest[part]["seed"] = SEEDS[0]
    (shared,) = gather(cells)
    assert shared.runs == sample.runs
    assert shared.reach == "over 3 base models, and too narrow for other secrets, since these share theirs"
    assert over_what([shared]) == "over 3 base models with the same secrets"


def test_cells_of_an_older_version_with_a_ledger_stay_apart_and_have_no_intervals_of_losses(folder, tmp_path):
    for cell in with_bases(folder, tmp_path):
        path = cell.path / "summary.json"
        summary = json.loads(path.read_text())
        for name in ("stuck", "of_memorised", "losses_ci95", "episodes_to_know"):
            del summary["conditions"]["binary"][name]
        path.write_text(json.dumps(summary))
    study = make_study(find_cells([tmp_path]))
    assert len(study.entries) == 3
    (table, *_) = tables(study, make_answer(study))
    place = table.headings.index("absorption \u00f7")
    assert all("[" not in row[place] for row in table.rows)
    assert any("runs" in row.stuck for row in make_answer(study).charts[0].rows)  # counted anew


@pytest.mark.parametrize(
    ("bases", "said"),
    [
        ([], "over runs"),
        ([1, 1], "over runs of one base model each"),
        ([3, 3], "over 3 base models"),
        ([3, 2], "over 2 or 3 base models"),  # one base of a condition is missing
        ([1, 3, 2], "over 2 or 3 base models, or runs where there is one"),
    ],
)
def test_what_intervals_are_over_is_true_of_every_condition(bases, said):
    assert over(bases) == said
