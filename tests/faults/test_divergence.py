"""A run whose numbers cease to be finite fails its experiment, which says which one and since when."""

import json
from pathlib import Path

import numpy as np
import pytest

import memory_rl
from memory_rl import populations
from memory_rl.cli import main
from memory_rl.errors import DivergedError, NotFiniteError
from memory_rl.learning.divergence import check_finite, check_loss

TABULAR = {"backend": "tabular", "N": 16, "num_runs": 4, "max_episodes": 400}
LOCAL = {"N": 8, "num_runs": 2, "max_episodes": 200}
HUGE = 1e38  # the largest rate that is accepted; times a gradient of some size it is beyond float32

CASES = {
    "tabular": ("train", TABULAR),
    "tabular skipping": ("train", {**TABULAR, "skip_ahead": True}),
    "tabular posterior": ("train", {**TABULAR, "algorithm": "posterior", "reward_type": "log_distance"}),
    "tabular bits": ("train", {**TABULAR, "env_type": "multi_step"}),
    "tabular sft": ("sft", TABULAR),
    "several secrets": ("train", {**TABULAR, "num_secrets": 3}),
    "transformer": ("train", LOCAL),
    "transformer, step by step": ("train", {**LOCAL, "skip_ahead": False}),
    "transformer ppo": ("train", {**LOCAL, "algorithm": "ppo"}),
    "transformer posterior": ("train", {**LOCAL, "algorithm": "posterior", "reward_type": "log_distance"}),
    "transformer sft": ("sft", LOCAL),
    "all weights": ("sft", {**LOCAL, "adapter": "full"}),
    "seldom measured": ("sft", {**LOCAL, "evaluate_every": 20}),
    "paths": ("train", {**LOCAL, "scoring": "paths"}),
    "paths sft": ("sft", {**LOCAL, "scoring": "paths"}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_huge_learning_rate_is_found_at_the_first_update(name, monkeypatch):
    command, keys = CASES[name]
    if "tabular" in keys.values():  # float64, in which no rate that is accepted is too large
        common = populations._common
        monkeypatch.setattr(populations, "_common", lambda one: {**common(one), "learning_rate": 1e308})
    with pytest.raises(DivergedError, match=r"run \d diverged at its update 1 \(episode \d+\)") as caught:
        getattr(memory_rl, command)(**keys, learning_rate=HUGE, log_path="run")
    assert "use a learning_rate below 1e+38." in str(caught.value)
    result = memory_rl.load("run")
    assert result.outcome is memory_rl.Outcome.FAILED
    assert result.manifest["why"] == f"DivergedError: {caught.value}"
    assert np.isfinite(result.metrics["bits_known"].to_numpy()).all()


def test_finite_weights_with_infinite_outputs_are_found_too():
    """1e30 is a number in float32, and the products of such weights are not."""
    with pytest.raises(DivergedError, match=r"update 1 .* where its probabilities are not finite"):
        memory_rl.train(**LOCAL, learning_rate=1e30)
    with pytest.raises(DivergedError, match=r"update 1 .* where its probabilities are not finite"):
        memory_rl.train(**LOCAL, learning_rate=1e30, skip_ahead=False, evaluate_every=50)


OWN = """
import numpy as np
from memory_rl import Learner

class Later(Learner):
    def learn(self, policy, batch):
        self.broken = bool((batch.updates >= 10).any())
        return super().learn(policy, batch)

class Advantages(Later):
    def advantages(self, returns):
        found = super().advantages(returns)
        return np.where(returns > 0, np.nan, found) if getattr(self, "broken", False) else found

class Loss(Later):
    def loss(self, log_probs, before, advantages):
        found = super().loss(log_probs, before, advantages)
        return found + float("inf") if getattr(self, "broken", False) else found
"""


@pytest.mark.parametrize("backend", ["tabular", "local"])
@pytest.mark.parametrize(("kind", "what"), [("Advantages", "parameters are"), ("Loss", "loss is")])
def test_an_own_learner_that_fails_later(kind, what, backend):
    Path("own.py").write_text(OWN)
    keys = {**LOCAL, "backend": backend, "algorithm": f"own.py:{kind}", "skip_ahead": False}
    said = rf"at its update 11 .* its {what} not finite, .*, or repair algorithm=own\.py:{kind}\."
    with pytest.raises(DivergedError, match=said):
        memory_rl.train(**keys, log_path="run", reward_type="log_distance")
    assert memory_rl.load("run").metrics["update"].max() == 10


def test_the_command_says_it_in_one_sentence_and_reports_go_on(capsys):
    words = "N=8 num_runs=2 learning_rate=1e38 log_path=a/bad quiet=True"
    assert main(["sft-train", *words.split()]) == 2
    said = capsys.readouterr().err
    assert said.startswith("memory-rl: run 0 diverged at its update 1 (episode 1), where its ")
    assert said.count("\n") == 1
    assert json.loads(Path("a/bad/manifest.json").read_text())["status"] == "failed"
    memory_rl.train(**TABULAR, log_path="a/good")
    page = memory_rl.report(runs="a")
    assert "a/bad (failed: DivergedError: run " in page.read_text()
    assert "a/bad (failed: DivergedError: run " in (page.parent / "summary.md").read_text()


SWEEP = "conditions=sft N=8 num_runs=2 max_episodes=20 log_path=sweep quiet=True"


def test_a_sweep_goes_on_and_names_the_cell(capsys):
    assert main(["sweep", *SWEEP.split(), "learning_rate=0.003,1e38"]) == 1
    assert " failed: run 0 diverged at its update 1 (episode 1)" in capsys.readouterr().err
    cells = json.loads(Path("sweep/summary.json").read_text())["cells"]
    assert [cell["status"] for cell in cells] == ["completed", "failed"]


def test_a_candidate_that_diverges_is_never_chosen_and_spoils_no_tuning():
    assert main(["sweep", *SWEEP.split(), "tune=True", "tune_rates=0.001,0.003,1e38"]) == 0
    summary = json.loads(Path("sweep/summary.json").read_text())
    (choice,), (cell,) = summary["tuning"], summary["cells"]
    assert [score["learning_rate"] for score in choice["scores"]] == [0.001, 0.003]
    assert cell["status"] == "completed"
    assert choice["at_edge"] == (choice["learning_rate"] == 0.001)  # beyond the other is one that diverged


def test_a_sum_that_overflows_is_no_divergence():
    check_finite(np.full((2, 3), 1e308), "parameters are", np.arange(2), np.zeros(2))
    with pytest.raises(NotFiniteError, match="of run 7 at update 5"):
        check_finite(np.array([[1.0], [np.inf]]), "parameters are", [3, 7], np.arange(8) - 2)
    with pytest.raises(NotFiniteError, match="of run None at update 4"):
        check_loss(float("nan"), np.array([1, 2]), np.array([0, 4, 3]))


def test_a_number_beyond_all_use_is_short():
    from memory_rl.reporting.values import number

    assert number(1e308) == "1e+308"
