"""Where the model computes: chosen, told, and never mixed."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import memory_rl
from memory_rl.errors import ModelError
from memory_rl.policies.base_model import choose_device

TESTS = Path(__file__).parents[1]


def test_nothing_is_left_on_the_cpu():
    """Every way to ask and to move a policy, on fake tensors of another device: see far_device.py."""
    done = subprocess.run(
        [sys.executable, "far_device.py"], cwd=TESTS, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.strip().splitlines()[-1:] == ["all on one device"], done.stderr[:2000]


def test_the_fastest_device_is_chosen(monkeypatch):
    there = {"cuda": True, "mps": True}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there["cuda"])
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: there["mps"])
    assert choose_device("some/model", None) == "cuda"
    assert choose_device("tiny", None) == "cpu"
    assert choose_device("tiny", "cuda") == "cuda"
    there["cuda"] = False
    assert choose_device("some/model", None) == "mps"
    there["mps"] = False
    assert choose_device("some/model", None) == "cpu"
    with pytest.raises(
        ModelError,
        match="device=mps cannot be used, since PyTorch finds none on this machine: use device=cpu",
    ):
        choose_device("some/model", "mps")


def test_device_and_type_are_told_and_kept(capsys):
    result = memory_rl.train(
        N=4, num_runs=1, max_episodes=4, memorised_at=0.9, quiet=False, verbose=True, dtype="bfloat16"
    )
    summary = result.summary["binary"]
    assert (summary["device"], summary["dtype"]) == ("cpu", "bfloat16")
    assert "device: the model computes on cpu in bfloat16." in capsys.readouterr().out
    assert abs(summary["before_training"]["mean_bits_known"]) < 0.1  # rounded after it was warmed up
