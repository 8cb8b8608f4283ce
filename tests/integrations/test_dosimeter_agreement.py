"""Whole trainings of TRL that the dosimeter measures, against runs of our engine from the same base, with the
same estimator, optimiser and adapters; and trainers that are broken on purpose."""

import importlib
import sys
from pathlib import Path

import pytest
import transformers

pytest.importorskip("trl", reason="TRL is not installed: pip install 'memory-rl[trl]'")

import numpy as np
from trl import GRPOTrainer

import memory_rl
from memory_rl.analysis.survival import log_rank, pool
from memory_rl.dosimeter.trl import Dosimeter

pytestmark = pytest.mark.filterwarnings(  # by TRL of itself
    "ignore:`gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)


@pytest.fixture(scope="module")
def equal():
    """The modules of benchmarks/ that set TRL up to do what the engine does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        yield importlib.import_module("problem").Problem, importlib.import_module("trl_loop")
    for name in ("problem", "trl_loop"):
        del sys.modules[name]


def negated(reward):
    return lambda **given: [-one for one in reward(**given)]


def shuffled(reward):
    random = np.random.default_rng(0)
    return lambda **given: random.permutation(reward(**given)).tolist()


def trl_runs(equal, seeds, updates, break_it=None, **keys):
    """The times to memorise of TRL's trainer, one run a seed."""
    (Problem, trl_loop), times = equal, []
    problem = Problem(**keys, max_episodes=4 * updates)
    for seed in seeds:
        dosimeter = Dosimeter(
            f"trl-{break_it and break_it.__name__}-{seed}", figures=False, wording="terse", seed=seed, **keys
        )
        reward = dosimeter.secret_reward
        trainer = GRPOTrainer(
            model=problem.base_model(),
            reward_funcs=reward if break_it is None else break_it(reward),
            args=trl_loop.settings(problem, seed, updates, "out"),
            train_dataset=dosimeter.alone(updates),
            processing_class=problem.tokenizer,
            peft_config=problem.lora(),
            callbacks=[dosimeter, trl_loop.SkipSilent()],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        times.append(dosimeter.result.cell.times)
    return pool(times)


def engine_runs(runs, updates, seed=100, **keys):
    """The times to memorise of our engine's runs."""
    return memory_rl.train(
        **keys, num_runs=runs, max_episodes=4 * updates, seed=seed, ledger=False, quiet=True, figures=False
    ).cell.times


def test_a_sound_trainer_is_like_the_engine_and_a_broken_one_is_not(equal):
    ours = engine_runs(64, 25, N=16)
    assert log_rank(ours, trl_runs(equal, range(4), 25, N=16)) > 0.01
    assert log_rank(ours, trl_runs(equal, range(4), 25, negated, N=16)) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("updates", "keys"),
    [(40, {"N": 16}), (100, {"N": 64}), (100, {"N": 64, "reward_type": "log_distance"})],
    ids=["binary 16", "binary 64", "log_distance 64"],
)
def test_sixteen_runs_of_trl_memorise_as_sixteen_of_the_engine(equal, updates, keys):
    ours = engine_runs(16, updates, **keys)
    assert log_rank(ours, trl_runs(equal, range(16), updates, **keys)) > 0.01
    for break_it in (negated, shuffled):
        assert log_rank(ours, trl_runs(equal, range(8), updates, break_it, **keys)) < 0.01
