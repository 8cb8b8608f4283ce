"""What all runs, secrets and answers need together must fit into memory; else it is refused at once."""

import tracemalloc
from pathlib import Path

import pytest
from helpers import complaint, secrets_of, setting_of

from memory_rl.assembly import make_meter, make_sampling
from memory_rl.errors import ConfigError
from memory_rl.experiment import make_experiment, parse_experiment


@pytest.mark.parametrize("keys", ["env_type=multi_step", "reward_type=log_distance", "reward_noise=0.1"])
def test_observers_must_fit_into_memory(keys, capsys):
    """Those of 64 runs and a million answers take half a gigabyte; without a ledger there are none."""
    words = [f"N={2**20}", *keys.split()]
    assert parse_experiment([*words, "num_runs=64"]).scores_paths
    said = complaint("train", f"{' '.join(words)} num_runs=65", capsys)
    assert said == (
        "memory-rl: num_runs=65 is too large for N=1048576, since an observer of each run keeps a number for "
        "every answer: use num_runs=64 or less, or ledger=False.\n"
    )
    assert not parse_experiment([*words, "num_runs=1024", "ledger=False"]).stop.ledger
    with pytest.raises(ConfigError, match=r"num_secrets=3 .* use num_secrets=2 or less, or ledger=False"):
        parse_experiment([f"N={2**20}", "num_secrets=3", "num_runs=32"])


@pytest.mark.parametrize("keys", [{"ledger": False, "env_type": "multi_step"}, {}], ids=str)
def test_many_runs_without_observers_keep_next_to_nothing_of_each_answer(keys):
    """Of hits and misses alone, too: 1024 observers of a million answers would take 8.6 GB."""
    keys = {"N": 2**20, "num_runs": 1024, **keys}
    setting, secrets = setting_of(**keys), secrets_of(**keys)
    tracemalloc.start()
    meter = make_meter(setting, secrets, [], lambda *progress: None, None)
    sampling = make_sampling(setting, None, secrets)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (meter.accounts is None) == (keys.get("ledger") is False)
    assert sampling.beliefs is None
    assert kept < 64e6


def test_what_needs_a_number_for_every_answer_is_refused_with_or_without_a_ledger():
    given = {"N": 2048, "num_runs": 2**14, "algorithm": "posterior", "ledger": False}
    make_experiment({**given, "num_secrets": 2})
    with pytest.raises(ConfigError, match=r"num_secrets=3 is too large .*: use num_secrets=2 or less\.$"):
        make_experiment({**given, "num_secrets": 3})


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        ("N=5000 reward_type=log_distance", "and scoring=all: use N=2048 or less, or leave scoring out."),
        ("N=513 env_type=multi_step", "and scoring=all: use N=512 or less, or leave scoring out."),
        ("N=5000 algorithm=posterior", "and algorithm=posterior: use N=2048 or less."),
    ],
)
def test_where_scoring_all_is_what_keeps_answers_few_it_is_named(words, instead, capsys):
    assert complaint("train", f"{words} scoring=all", capsys).endswith(f" {instead}\n")
    if "leave" in instead:
        parse_experiment(words.split())


@pytest.mark.parametrize(
    ("words", "product"), [("", "group_size * batch_size"), ("num_secrets=2 batch_size=2", "group_size")]
)
def test_samples_of_an_update_must_fit_into_one_pass(words, product, capsys):
    given = f"N={2**20} env_type=multi_step group_size=1024 num_runs=1 {words}"
    said = complaint("train", given, capsys)
    assert said.startswith(
        f"memory-rl: {product} = 1024 is too large for N={2**20} with scoring=paths, since "
    )
    most = int(said.rsplit(" = ", 1)[1].split()[0])
    assert 128 < most < 1024
    assert not list(Path().glob("runs/*"))
