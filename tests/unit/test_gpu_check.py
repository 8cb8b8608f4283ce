"""benchmarks/gpu_check.py on the CPU, on a machine that has nothing but PyTorch, transformers and numpy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BARE = """
import re, runpy, sys
from importlib import metadata

needed, todo = set(), ["torch", "transformers", "numpy"]
while todo:
    name = re.sub("[-_.]+", "-", todo.pop()).lower()
    if name not in needed:
        needed.add(name)
        try:
            wanted = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        todo += [re.match("[A-Za-z0-9._-]+", line)[0] for line in wanted if "extra ==" not in line]
there = metadata.packages_distributions()

class Refuses:
    def find_spec(self, name, path=None, target=None):
        frame = sys._getframe(1)
        while "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        by, owners = frame.f_globals.get("__name__", ""), there.get(name.split(".")[0], [])
        ours = by.startswith(("memory_rl", "gpu_", "__main__")) and "memory-rl" not in owners and owners
        owners = {re.sub("[-_.]+", "-", each).lower() for each in owners}
        if name == "polars" or (ours and not needed & owners):
            raise ModuleNotFoundError(f"{by} asks for {name}, which is not there")

sys.meta_path.insert(0, Refuses())
script, *words = sys.argv[1:]
sys.argv = [script, *words]
sys.path.insert(0, script.rpartition("/")[0])
runpy.run_path(script, run_name="__main__")
"""


def run(tmp_path, *words):
    """The script's rows by section, its output and its errors."""
    path = tmp_path / "out" / "check.json"
    script = str(BENCHMARKS / "gpu_check.py")
    done = subprocess.run(
        [sys.executable, "-c", BARE, script, "--json", str(path), "--device", "cpu", *words],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(path.read_text())["sections"], done.stdout


def test_every_section_runs_without_other_packages(tmp_path):
    sections, output = run(tmp_path)
    assert list(sections) == ["matmul", "correctness", "attention", "large", "lockstep", "profile"]
    rows = [row for rows in sections.values() for row in rows]
    assert [row for row in rows if "error" in row or "settings" in row] == []
    assert all(row["passed"] for row in sections["correctness"])
    assert len(sections["correctness"]) == 3 * 2 * 2 + 2
    assert all(row["setting"] in output for row in rows)


def test_no_setting_begins_once_the_time_is_up(tmp_path):
    sections, _ = run(tmp_path, "--seconds", "0", "--sections", "matmul", "lockstep")
    assert {name: [row["setting"] for row in rows] for name, rows in sections.items()} == {
        "matmul": ["skipped, since the time was up"],
        "lockstep": ["skipped, since the time was up"],
    }
    assert len(sections["lockstep"][0]["settings"]) > 3


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_check
    import gpu_engine

    yield gpu_check, gpu_engine
    for name in ("gpu_check", "gpu_engine", "gpu_attention", "gpu_lockstep", "gpu_memory"):
        sys.modules.pop(name, None)


def test_an_error_is_a_row_and_the_next_setting_is_measured(gpu, tmp_path, monkeypatch, capsys):
    import torch

    gpu_check, _ = gpu

    def fails(error):
        raise error

    def section(device, sizes, so_far):
        yield "broken", lambda: fails(ValueError("no such kernel"))
        yield "full", lambda: fails(torch.cuda.OutOfMemoryError("80 GiB asked"))
        yield "fine", lambda: {"value": 1.0}

    monkeypatch.setitem(gpu_check.SECTIONS, "matmul", (section, 1.0))
    gpu_check.main(["--sections", "matmul", "--device", "cpu", "--json", str(tmp_path / "o.json")])
    broken, full, fine = json.loads((tmp_path / "o.json").read_text())["sections"]["matmul"]
    assert broken["error"] == "ValueError: no such kernel"
    assert broken["where"].endswith("fails")
    assert full["out_of_memory"] == "80 GiB asked"
    assert fine["value"] == 1.0


def test_a_wrong_number_does_not_pass(gpu, monkeypatch):
    _, gpu_engine = gpu
    right = gpu_engine.answers_of
    calls = []

    def second_is_wrong(*given):
        seen = right(*given)
        calls.append(given)
        return seen | {"log_p": seen["log_p"] + 0.01} if len(calls) == 2 else seen

    monkeypatch.setattr(gpu_engine, "answers_of", second_is_wrong)
    _, measure = next(gpu_engine.correctness("cpu", "tiny", {}))
    row = measure()
    assert not row["passed"]
    assert row["log_p_nats"] == pytest.approx(0.01)


def test_the_large_model_is_as_before_after_each_setting(gpu):
    import torch

    _, gpu_engine = gpu
    large = gpu_engine.Large("cpu", "tiny")
    large.make()
    names, tokens = [name for name, _ in large.model.named_modules()], torch.arange(8)[None]
    before = large.model(tokens).logits
    row = gpu_engine.large_row(large, gpu_engine.single_step_trie(4), 2, recompute=True, rate=1.0)
    assert [name for name, _ in large.model.named_modules()] == names
    assert torch.equal(large.model(tokens).logits, before)
    assert row["evaluation_tokens"] == 2 * (60 + 4)
    body = sum(weight.numel() for name, weight in large.model.named_parameters() if "embed" not in name)
    body -= large.model.lm_head.weight.numel()
    operations = 2 * (body * 2 * 64 + large.model.lm_head.weight.numel() * 2 * 5)
    assert row["evaluation_TFLOP_s"] * row["evaluation_s"] == pytest.approx(operations / 1e12)
