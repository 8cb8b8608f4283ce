"""The study of a real model: what it looks at, its warm-up, and the numbers that the docs have from it."""

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrained import FAMILIES, make_model, make_tokenizer, make_world

from memory_rl.policies.packed import pack_all
from memory_rl.policies.tokenisation import tokenise_all
from memory_rl.policies.warmup import WarmupSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study():
    sys.path.insert(0, str(ROOT / "studies"))
    try:
        yield importlib.import_module("real_model")
    finally:
        sys.path.remove(str(ROOT / "studies"))


def small():
    kind, settings, more, template, _ = FAMILIES["smollm2"]
    tokenizer, world = make_tokenizer(template), make_world("multi_step", 4)
    model = make_model(kind, settings, more, len(tokenizer))
    trie = tokenise_all(tokenizer, world.conversations(), world.choices(np.arange(world.num_forms)))
    return model, trie


def test_turns_and_cosines_by_hand(study):
    _, trie = small()
    choices, turn = study.turns_of(trie)
    assert turn.tolist() == [0, 1, 1]  # the first bit, and the second behind either
    assert len(set(choices)) == 3
    pairs = torch.from_numpy(turn[:, None] != turn[None])
    states = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    assert sorted(study.cosines(states, pairs).tolist()) == pytest.approx([0, 0, 2**-0.5, 2**-0.5])


def test_a_warm_up_that_keeps_turns_apart_is_fined_for_cosines(study, monkeypatch):
    monkeypatch.setattr(study, "APART", -0.5)
    model, trie = small()
    lesson = study.apart_lesson("head")(model, trie, 4, WarmupSettings(), None, None)
    with study.turn_states(model, trie, pack_all(trie), "head") as (kept, pairs):
        plain, uniform = type(lesson).__mro__[1]._step(lesson)
    fine = 10 * np.mean([max(0.0, one + 0.5) ** 2 for one in study.cosines(kept[0], pairs).tolist()])
    loss, divergence = lesson()
    assert fine > 0.1
    assert (loss - plain).item() == pytest.approx(fine, rel=1e-4)
    assert divergence - uniform == pytest.approx(fine, rel=1e-4)
    before = fine
    for _ in range(20):
        model.zero_grad()
        lesson()[0].backward()
        with torch.no_grad():
            for weight in model.parameters():
                weight -= 0.01 * torch.nn.functional.normalize(weight.grad, dim=-1)
    assert (lesson()[1] - type(lesson).__mro__[1]._step(lesson)[1]) < before / 2
    assert not model.base_model.norm._forward_hooks  # nothing is left behind


def test_the_numbers_of_the_docs_are_those_of_the_rows():
    rows = json.loads((ROOT / "benchmarks/results/real_model_h200.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs/pretrained.md").read_text(encoding="utf-8")
    named = {
        "SFT": "SFT",
        "teacher, whole": "teacher whole",
        "teacher, sampled": "teacher sampled",
        "binary": "binary",
        "binary with 5 % noise": "noisy binary",
        "8 bins": "8 bins",
        "log distance": "log distance",
    }
    for shown, name in named.items():
        [line] = re.findall(rf"^\| {re.escape(shown)}, [0-9]+ \|.*$", text, re.MULTILINE)
        expected = []
        for rate in ("0.001", "0.0003"):
            row = rows[f"{name} N=64 {rate}"]
            assert row["runs"] - sum(row["memorised"]) == row["stuck"]
            _, low, high = row["share stuck"]
            times = [t for t, done in zip(row["episodes"], row["memorised"], strict=True) if done]
            expected += [f"{row['stuck']} ({100 * low:.0f} to {100 * high:.0f} %)", f"{np.median(times):.0f}"]
        assert [cell.strip() for cell in line.split("|")[2:6]] == expected
