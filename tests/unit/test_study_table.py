"""A study's table gives back what its run directories say."""

import numpy as np
import polars as pl
import pytest

import memory_rl
from memory_rl.analysis.bottleneck import loss
from memory_rl.analysis.collect import find_cells
from memory_rl.analysis.samples import gather
from memory_rl.analysis.study_table import TABLE, from_table, to_table
from memory_rl.errors import ConfigError

KEYS = {"N": 16, "backend": "tabular", "num_runs": 6, "max_episodes": 150, "figures": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    memory_rl.sft(log_path=str(folder / "sft"), **KEYS)
    for seed in (1, 2):
        memory_rl.train(log_path=str(folder / f"binary{seed}"), seed=seed, **KEYS)
    memory_rl.train(log_path=str(folder / "bare"), ledger=False, reward_type="log_distance", **KEYS)
    return folder


def test_samples_rates_losses_and_laws_are_the_same(folder, tmp_path):
    to_table(find_cells([folder])).write_parquet(tmp_path / "table.parquet")
    table = pl.read_parquet(tmp_path / "table.parquet")
    assert dict(table.schema) == TABLE
    before, after = (
        {sample.first.condition: sample for sample in gather(cells)}
        for cells in (find_cells([folder]), from_table(table))
    )
    assert before.keys() == after.keys() == {"sft", "binary", "log_distance"}
    assert (after["binary"].runs, after["sft"].runs) == (12, 6)
    for name, sample in before.items():
        assert after[name].rate == sample.rate
        assert after[name].ceilings == sample.ceilings
        assert after[name].laws == sample.laws
        assert after[name].first.settings == sample.first.settings
        assert after[name].stuck == sample.stuck
        assert after[name].times.memorised.tolist() == sample.times.memorised.tolist()
    assert loss(after["binary"], "absorption") == loss(before["binary"], "absorption")
    assert after["log_distance"].observed is None


def test_the_observer_of_a_run_is_the_one_of_its_ledger(folder):
    (cell,) = find_cells([folder / "binary1"])
    known = memory_rl.load(folder / "binary1").summary["binary"]["episodes_to_know"]
    assert [at if at else -1 for at in known] == [
        int(episode) if knew else -1
        for episode, knew in zip(cell.observer.episodes, cell.observer.memorised, strict=True)
    ]
    rate = cell.summary["rates"]["observer"]["estimate"]
    assert rate == pytest.approx(4 * cell.observer.memorised.sum() / cell.observer.episodes.sum())


def test_a_larger_cell_replaces_the_smaller_one_of_its_seed(folder, tmp_path):
    memory_rl.train(log_path=str(tmp_path / "more"), seed=1, **{**KEYS, "num_runs": 9})
    table = to_table(find_cells([folder, tmp_path]))
    assert sorted(np.unique(table["cell"])) == ["bare", "binary2", "more", "sft"]


def test_two_run_directories_of_one_name_are_refused(folder, tmp_path):
    """Their runs would be taken for those of the first."""
    memory_rl.train(log_path=str(tmp_path / "sft"), **KEYS)
    with pytest.raises(ConfigError, match="have one name"):
        to_table(find_cells([folder, tmp_path]))


def test_two_cells_of_one_name_are_refused_from_a_table_too(folder, tmp_path):
    (cell,) = find_cells([folder / "binary1"])
    memory_rl.train(log_path=str(tmp_path / "binary1"), seed=7, **KEYS)
    for others in (find_cells([tmp_path]), from_table(to_table(find_cells([tmp_path])))):
        with pytest.raises(ConfigError, match="have one name and unlike settings"):
            to_table([*from_table(to_table([cell])), *others])
