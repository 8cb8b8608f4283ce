"""Another trainer's runs beside the reference: runs of our engine, under the name of another trainer."""

from __future__ import annotations

import json

import polars as pl
import pytest

import memory_rl
from memory_rl.analysis.collect import find_cells
from memory_rl.analysis.reference import estimator_of
from memory_rl.reporting.drawing import live
from memory_rl.reporting.implementation import implementation, soundness
from memory_rl.reporting.pictures import draw
from memory_rl.reporting.study import make_study

TRAINER = {
    "library": "trl",
    "name": "GRPOTrainer",
    "settings": {"loss_type": "dr_grpo", "scale_rewards": "none"},
}


def recorded(folder, change=None, **keys):
    """A run directory of six runs, whose manifest says that a trainer of TRL's made it."""
    memory_rl.train(
        N=16, num_runs=6, seed=77, max_episodes=400, ledger=False, figures=False, log_path=str(folder), **keys
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    for part in (manifest["config"], manifest["resolved"]):
        part["algorithm"] = "trl:GRPOTrainer"
    (folder / "manifest.json").write_text(json.dumps({**manifest, "trainer": TRAINER}))
    if change is not None:
        metrics = pl.read_parquet(folder / "metrics.parquet").with_columns(bits_known=change)
        metrics.write_parquet(folder / "metrics.parquet")
    return make_study(find_cells([folder]))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return recorded(tmp_path_factory.mktemp("sound") / "run")


def test_a_sound_one_is_inside(sound):
    (sentence,) = soundness(sound)
    assert sentence.startswith(
        "The 6 runs of trl's GRPOTrainer lie inside the band of 128 reference runs (p = 0."
    )
    assert sentence.endswith("it behaves as a sound one does, if it began from the built-in base model.")


def test_one_that_unlearns_is_outside(tmp_path):
    study = recorded(tmp_path / "run", change=-pl.col("bits_known").abs())
    (sentence,) = soundness(study)
    assert "lie below 128 reference runs, by" in sentence
    assert "(p < 0.001): it does not behave as a sound one does" in sentence


def test_other_settings_are_named_and_nothing_is_judged(tmp_path):
    (sentence,) = soundness(recorded(tmp_path / "run", learning_rate=0.002, lora_rank=4))
    assert "says nothing of its soundness" in sentence
    assert "learning_rate=0.002 and not 0.0005, lora_rank=4 and not 8" in sentence


def test_the_figure_shows_band_median_and_runs(sound):
    (panel,) = implementation(sound).panels
    spec = live(panel, sound, "about")
    band, median, runs = spec["layer"]
    assert len({row["run"] for row in runs["data"]["values"]}) == 6
    at_end = band["data"]["values"][-1]
    assert at_end["low"] <= at_end["median"] <= at_end["high"] < 4.1
    assert median["data"]["values"] == band["data"]["values"]
    ((name, drawing),) = draw(implementation(sound), sound)
    assert name == "implementation.svg"
    for words in ("90 % of 128 runs of a sound implementation", "black: their median", "GRPOTrainer"):
        assert words in drawing.decode().replace("\n", " ")


def test_what_has_no_reference_has_no_panel(tmp_path):
    study = recorded(tmp_path / "run", env_type="single_step", reward_type="log_distance")
    assert not implementation(study).panels
    (sentence,) = soundness(study)
    assert sentence.endswith("have no reference runs beside them: none are of this N and estimator.")


@pytest.mark.parametrize(
    ("settings", "estimator"),
    [
        ({"scale_rewards": "group"}, "grpo"),
        ({"scale_rewards": "none"}, "reinforce"),
        ({"loss_type": "cispo"}, "cispo"),
        ({"num_iterations": 4}, "ppo"),
        ({"num_iterations": 4, "importance_sampling_level": "sequence"}, "gspo"),
    ],
)
def test_the_estimator_of_a_trainer(settings, estimator):
    assert estimator_of({"trainer": {"name": "GRPOTrainer", "settings": settings}}) == estimator
    assert estimator_of({"trainer": {"name": "Another", "settings": settings}}) is None
