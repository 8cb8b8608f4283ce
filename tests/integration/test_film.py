"""The film is what metrics.parquet says of run 0, for all answers, at every 2^j-th evaluation and the
last."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import memory_rl
from memory_rl.cli import main
from memory_rl.runs.columns import FILM_SCHEMA
from memory_rl.training.film import MAX_PICTURES

CONDITIONS = {
    "binary": ("train", {"N": 16, "max_episodes": 400}),
    "noisy": (
        "train",
        {
            "N": 11,
            "reward_type": "log_distance",
            "reward_noise": 0.2,
            "backend": "tabular",
            "max_episodes": 400,
        },
    ),
    "multi_step": ("train", {"N": 11, "env_type": "multi_step", "max_episodes": 120}),
    "sft": ("sft", {"N": 16, "learning_rate": 1e-4}),
    "long": ("train", {"N": 16, "backend": "tabular", "learning_rate": 1e-3, "max_episodes": 4000}),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_the_film_agrees_with_the_metrics(name):
    kind, settings = CONDITIONS[name]
    N = settings["N"]
    result = getattr(memory_rl, kind)(num_runs=2, **settings)
    film = pl.read_parquet(result.path / "film.parquet")
    metrics = result.metrics.filter(pl.col("run") == 0).sort("episode")
    assert dict(film.schema) == {key: dtype() for key, dtype in FILM_SCHEMA.items()}

    episodes = film["episode"].unique().sort()
    evaluations = metrics["episode"]
    stride = 1
    while len(set(evaluations.gather_every(stride)) | {evaluations[-1]}) > MAX_PICTURES:
        stride *= 2
    assert episodes.to_list() == sorted({*evaluations.gather_every(stride), evaluations[-1]})
    assert (stride > 1) == (name == "long")

    assert film.select("episode", "answer").rows() == [
        (episode, answer) for episode in episodes for answer in range(N)
    ]
    at = metrics.filter(pl.col("episode").is_in(episodes.to_list()))
    of_secret = film.filter(pl.col("answer") == metrics["secret"][0])
    np.testing.assert_allclose(N * of_secret["policy"].cast(pl.Float64), 2.0 ** at["bits_known"], rtol=1e-5)
    np.testing.assert_allclose(
        N * of_secret["observer"].cast(pl.Float64), 2.0 ** at["observer_bits"], rtol=1e-5
    )
    totals = film.group_by("episode", maintain_order=True).agg(pl.col("policy", "observer").sum())
    np.testing.assert_allclose(totals["policy"], 2.0 ** at["format_bits"], rtol=1e-4)
    np.testing.assert_allclose(totals["observer"], 1.0, rtol=1e-5)


def test_the_report_shows_a_real_film(capsys):
    memory_rl.train(N=16, backend="tabular", num_runs=2, max_episodes=100, log_path="runs/one")
    assert main(["report", "runs=runs", "out=out", "quiet=True"]) == 0
    assert "<svg" in Path("out/figures/film.svg").read_text()
    assert "Left out: no run directory holds film.parquet" not in Path("out/index.html").read_text()


@pytest.mark.parametrize("settings", [{"N": 257}, {"N": 16, "ledger": False}], ids=str)
def test_no_film_where_there_is_nothing_to_see(settings):
    result = memory_rl.train(backend="tabular", num_runs=1, max_episodes=8, **settings)
    assert not (result.path / "film.parquet").exists()
