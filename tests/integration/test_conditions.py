"""The five commands of the project, word for word, at their full size, and what they must show."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

import memory_rl
from memory_rl.analysis.survival import memorisation_times

ROOT = Path(__file__).parents[2]


def run(command: str, cwd: Path) -> tuple[str, float]:
    """Runs a script of the root in a folder; returns what it printed and the seconds it took."""
    script, *words = command.split()[1:]
    started = time.monotonic()
    done = subprocess.run([sys.executable, ROOT / script, *words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(line.endswith((" so far", " left")) for line in done.stderr.splitlines())  # how far it is
    return done.stdout, time.monotonic() - started


def result_of(output: str, cwd: Path) -> memory_rl.Result:
    return memory_rl.load(cwd / output.split("run directory:")[1].strip())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("commands")


def measure(command: str, folder: Path):
    output, seconds = run(command, folder)
    assert seconds < 60  # the first format warm-up included
    result = result_of(output, folder)
    summary = next(iter(result.summary.values()))
    assert summary["runs"] == 16
    assert abs(summary["before_training"]["mean_bits_known"]) < 0.1
    assert summary["before_training"]["least_valid_mass"] > 0.99
    assert output.splitlines()[0].startswith(f"{summary['memorised']} of 16 runs memorised the ")
    for words in ("naive capacity ", "ideal questioner ", "ideal observer ", "policy ", "absorption "):
        assert words in output
    return result, summary


def test_binary(folder):
    _, summary = measure("python train.py env_type=single_step N=64 reward_type=binary", folder)
    assert summary["memorised"] >= 15
    assert 30 <= summary["episodes_to_memorise"]["median"] <= 400
    assert summary["ceilings"]["capacity"] == 1.0


def test_binned_log_distance(folder):
    """That it runs and is measured; how well it learns is a finding, not a requirement."""
    result, summary = measure(
        "python train.py env_type=single_step N=64 reward_type=binned_log_distance reward_bins=8", folder
    )
    assert summary["memorised"] + summary["censored"] == 16
    assert summary["ceilings"]["capacity"] == 3.0
    assert result.metrics["episode"].max() <= 4000


def test_multi_step(folder):
    _, summary = measure("python train.py env_type=multi_step N=64", folder)
    assert summary["memorised"] >= 15
    assert summary["ceilings"]["capacity"] == 6.0


def test_sft(folder):
    output, _ = run("python sft_data_gen.py N=64 fixed_secret=42", folder)
    assert "1000 training and 200 test examples" in output
    assert len((folder / "data/sft-N64-secret42/train.jsonl").read_text().splitlines()) == 1000
    assert len((folder / "data/sft-N64-secret42/test.jsonl").read_text().splitlines()) == 200
    result, summary = measure("python sft_train.py N=64 fixed_secret=42", folder)
    assert summary["memorised"] == 16
    assert memorisation_times(result.metrics, information=6.0, memorised_at=0.5).episodes.max() <= 20
    assert summary["ceilings"]["capacity"] == 6.0
