"""Protocols: what a valid one holds, and one sentence about each way in which it may be wrong."""

import hashlib

import pytest
import yaml

from memory_rl.analysis.hypotheses import TESTS, Hypothesis, RateRatio
from memory_rl.analysis.protocol import load_protocol, shipped_protocols
from memory_rl.analysis.samples import fits
from memory_rl.errors import ConfigError
from memory_rl.experiment import make_experiment

RATIO = {
    "id": "X",
    "test": "rate_ratio",
    "claim": "c",
    "of": {"condition": "sft"},
    "to": {"condition": "binary"},
    "N": [16],
    "expected": 1,
    "margin": 1.5,
}
RANK = {
    "id": "Y",
    "test": "same_along",
    "claim": "c",
    "cells": [{"N": 4}],
    "along": {"lora_rank": [1, 2]},
    "margin": 2,
}
SMALL = {"name": "small", "grid": [{"command": "sft", "N": 4}], "hypotheses": [RATIO]}


def write(tmp_path, content) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def test_a_protocol_is_known_by_the_hash_of_its_bytes(tmp_path):
    path = write(tmp_path, SMALL)
    protocol = load_protocol(path)
    assert protocol.sha256 == hashlib.sha256((tmp_path / "mine.yaml").read_bytes()).hexdigest()
    assert protocol.text == (tmp_path / "mine.yaml").read_text()
    assert (protocol.name, protocol.grid, protocol.tune, protocol.minimum_runs, protocol.alpha) == (
        "small",
        [{"command": "sft", "N": 4}],
        None,
        64,
        0.05,
    )
    assert protocol.hypotheses == [RateRatio(**RATIO)]


@pytest.mark.parametrize("name", shipped_protocols())
def test_shipped_protocols_judge_the_five_claims_on_cells_of_their_own_grid(name):
    protocol = load_protocol(name)
    assert protocol.name == name
    claims = {
        "answer-8b": ["H1", "H2", "H3"],
        "capacity": ["H5-SFT", "H5-binary", "H5-binned", "H5-dense"],
        **{study: ["H1", "H2", "H3", "H4", "H5"] for study in ("quick", "thorough")},
        "answer": [
            *("H1", "H2-default", "H2-law-default", "H3-step-default", "H3-episode-default", "H4-default"),
            *("H2-best", "H2-law-best", "H3-step-best", "H3-episode-best", "H4-best", "H5"),
            *("H6-channel", "H6-absorption", "H6-closed-dense", "H6-closed-bins"),
        ],
    }
    claims["answer-text"] = [one for one in claims["answer"] if not one.startswith(("H4", "H5"))]
    assert [hypothesis.id for hypothesis in protocol.hypotheses] == claims.get(name, [])
    assert protocol.minimum_runs >= (8 if name == "capacity" else 64 if protocol.hypotheses else 32)
    for entry in protocol.grid:
        bases = entry.get("base_seed")
        entry = {key: value[0] if isinstance(value, list) else value for key, value in entry.items()}
        command = entry.pop("command")
        entry.pop("tune", None)
        make_experiment(entry, command)  # does not raise
        runs = entry["num_runs"] * (len(bases) if isinstance(bases, list) else 1)
        assert runs >= protocol.minimum_runs


WRONG = {
    "[1, 2]": "holds list, not keys",
    "name: [": r"is not valid YAML \(line 1",
    "grid: []": "lacks name",
}


@pytest.mark.parametrize(("content", "sentence"), WRONG.items(), ids=WRONG.keys())
def test_a_malformed_file_is_said_in_one_sentence(tmp_path, content, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_protocol(write(tmp_path, content))


CHANGED = [
    ({"minimal_runs": 3}, r"unknown key minimal_runs: did you mean minimum_runs\?"),
    ({"minimum_runs": 1}, r"minimum_runs=1: give an integer of 2 or more"),
    ({"minimum_runs": True}, r"minimum_runs=true: give an integer"),
    ({"alpha": 0.9}, r"alpha=0.9: give a probability up to 0.2"),
    ({"grid": [{"command": "trian", "N": 4}]}, "a list of entries with command: train or sft"),
    ({"grid": []}, "a list of entries with command: train or sft"),
    ({"learners": [{"ppo_clip": 0.3}]}, "a list of learners with an algorithm each"),
    (
        {"learners": [{"algorithm": "ppo", "ppo_klip": 0.3}]},
        r"has learners with ppo_klip: did you mean ppo_clip\?",
    ),
    ({"learners": [{"algorithm": "ppo", "N": 16}]}, "has learners with N"),
    (
        {"exclusions": [{"lora_rnak": 3}]},
        r"selects cells by lora_rnak, which is no key of a configuration: did you mean lora_rank\?",
    ),
    ({"hypotheses": [RATIO, RATIO]}, "two hypotheses with id=X"),
    (
        {"hypotheses": [{**RATIO, "test": "rate_ration"}]},
        r"hypothesis X has test=rate_ration, which is unknown: did you mean rate_ratio\?",
    ),
    ({"hypotheses": [{**RATIO, "margin": 0.9}]}, r"hypothesis X has margin=0.9: give a factor above 1"),
    ({"hypotheses": [{**RATIO, "margins": 2}]}, r"unknown key margins: did you mean margin\?"),
    ({"hypotheses": [{**RATIO, "expected": "log2N"}]}, "expected=log2N: give log2_N, or a positive number"),
    ({"hypotheses": [{**RATIO, "N": [1]}]}, r"N=\[1\]: give a list of N"),
    (
        {"hypotheses": [{**RATIO, "of": {"conditon": "sft"}}]},
        r"selects cells by conditon.*did you mean condition\?",
    ),
    (
        {"hypotheses": [{key: value for key, value in RATIO.items() if key != "claim"}]},
        "hypothesis X lacks claim: give a text",
    ),
    (
        {
            "hypotheses": [
                {
                    "id": "Y",
                    "test": "same_along",
                    "claim": "c",
                    "cells": [{"N": 4}],
                    "along": {"lora_rank": [1]},
                    "margin": 2,
                }
            ]
        },
        "with two values or more",
    ),
]


@pytest.mark.parametrize(("change", "sentence"), CHANGED, ids=[sentence for _, sentence in CHANGED])
def test_a_bad_key_or_value_is_said_in_one_sentence(tmp_path, change, sentence):
    with pytest.raises(ConfigError, match=sentence) as raised:
        load_protocol(write(tmp_path, {**SMALL, **change}))
    assert str(raised.value).endswith((".", "?"))
    assert "\n" not in str(raised.value)


def test_an_unknown_name_or_a_missing_file_names_the_shipped_ones(tmp_path):
    with pytest.raises(ConfigError, match=r"protocol=quik is not a shipped protocol: did you mean quick\?"):
        load_protocol("quik")
    with pytest.raises(ConfigError, match=r"nowhere.yaml cannot be read \(No such file or directory\)"):
        load_protocol(tmp_path / "nowhere.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    with pytest.raises(ConfigError, match="not a text in UTF-8"):
        load_protocol(tmp_path / "latin.yaml")


def test_tests_are_found_by_their_names():
    of_rates = {"below_ceiling", "rate_ratio", "rises_along", "same_along"}
    assert set(TESTS) == of_rates | {"episodes_grow", "gap_share", "loss_closed"}
    assert all(issubclass(test, Hypothesis) for test in TESTS.values())


def test_defaults_of_a_test_are_filled_in(tmp_path):
    rises = {
        "id": "Z",
        "test": "rises_along",
        "claim": "c",
        "cells": {"N": 4},
        "along": {"lora_rank": [1, 2]},
    }
    rank, rising = load_protocol(write(tmp_path, {**SMALL, "hypotheses": [RANK, rises]})).hypotheses
    assert (rank.over, rising.factor) == (None, 1.0)


SPELLED = {
    **SMALL,
    "alpha": "5e-2",
    "minimum_runs": "012",
    "exclusions": [{"learning_rate": "3e-1"}, {"learning_rate": ["0.30", "1e-1"], "fixed_secret": None}],
    "hypotheses": [
        {**RATIO, "of": {"learning_rate": "1e-1", "skip_ahead": "true"}, "N": ["016"], "expected": "1e0"},
        {
            **RANK,
            "margin": "2e0",
            "along": {"lora_rank": ["01", "2"]},
            "over": {"learning_rate": ["1e-1", "0.3"]},
        },
    ],
}


def test_numbers_mean_the_same_however_they_are_written(tmp_path):
    plain = yaml.safe_dump(SPELLED).replace("'", "")  # as YAML 1.1 takes 1e-1 for a text
    for text in (plain, yaml.safe_dump(SPELLED)):
        protocol = load_protocol(write(tmp_path, text))
        assert (protocol.alpha, protocol.minimum_runs) == (0.05, 12)
        assert protocol.exclusions == [
            {"learning_rate": 0.3},
            {"learning_rate": [0.3, 0.1], "fixed_secret": None},
        ]
        ratio, rank = protocol.hypotheses
        assert ratio.of == {"learning_rate": 0.1, "skip_ahead": True}
        assert (ratio.N, ratio.expected) == ([16], 1.0)
        assert (rank.margin, rank.along, rank.over) == (
            2.0,
            {"lora_rank": [1, 2]},
            {"learning_rate": [0.1, 0.3]},
        )
        assert fits({"learning_rate": 0.3}, protocol.exclusions[0])


UNTYPED = [
    ({"exclusions": [{"learning_rate": "fast"}]}, "selects cells by learning_rate=fast is not a number"),
    ({"exclusions": [{"N": 64.0}]}, r"selects cells by N=64\.0 is not an integer"),
    ({"exclusions": [{"lora_rank": [8, 0]}]}, "selects cells by lora_rank=0 is too small"),
    ({"exclusions": [{"N": []}]}, r"selects cells by N=\[\] is no value"),
    ({"exclusions": [{"reward_type": {"a": "b"}}]}, "selects cells by reward_type={a: b} is no value"),
    (
        {"exclusions": [{"kind": "trian"}]},
        r"kind=trian is not a choice: did you mean train\?",
    ),
    ({"hypotheses": [{**RATIO, "of": {"backend": "cloud"}}]}, "backend=cloud is not a choice"),
    ({"hypotheses": [{**RATIO, "margin": 1e308}]}, "margin=.*: give a factor above 1"),
    ({"hypotheses": [{**RATIO, "margin": ".inf"}]}, r"margin=\.inf: give a factor above 1"),
    ({"hypotheses": [{**RATIO, "expected": 1e-320}]}, "expected=.*: give log2_N"),
    ({"hypotheses": [{**RATIO, "N": [10**400]}]}, r"N=\[10+\.\.\.: give a list of N"),
    ({"minimum_runs": 10**30}, "minimum_runs=10+: give an integer"),
    ({"alpha": "nan"}, "alpha=nan: give a probability"),
]


@pytest.mark.parametrize(("change", "sentence"), UNTYPED, ids=[sentence for _, sentence in UNTYPED])
def test_what_no_cell_can_have_selects_none_and_is_said(tmp_path, change, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_protocol(write(tmp_path, {**SMALL, **change}))


@pytest.mark.parametrize("name", ["a\0b", "a\0.yaml", "a" * 5000, "a" * 5000 + ".yaml", ".", "../.."])
def test_a_name_that_is_no_file_is_said_in_one_sentence(name):
    with pytest.raises(ConfigError, match=r"is not a shipped protocol|cannot be read") as caught:
        load_protocol(name)
    assert "\n" not in str(caught.value)
