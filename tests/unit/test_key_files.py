"""Keys from a file: a manifest or YAML gives the same experiment as typing them, and what is typed wins."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import memory_rl
from memory_rl.cli import main
from memory_rl.experiment import command_line, make_experiment, parse_experiment

SMALL = {"N": 8, "backend": "tabular", "num_runs": 2, "max_episodes": 40, "figures": False}
RUNS = {
    "binary": {"algorithm": "ppo", "ppo_clip": 0.3, "learning_rate": 0.25, "seed": 3},
    "bins": {"reward_type": "binned_log_distance", "reward_bins": 4, "reward_noise": 0.1},
    "turns": {"env_type": "multi_step", "credit": "episode", "ledger": False},
    "example": {"signal": "example", "fixed_secret": 3, "data_dir": "my data"},
    "taught": {"signal": "teacher", "told": "sampled", "teacher_error": 0.02},
}


def manifest_of(name: str, tmp_path: Path) -> Path:
    """A manifest as a run writes it."""
    from memory_rl.runs.manifest import make_manifest

    keys = {**SMALL, **RUNS[name], "log_path": "runs/mine", "quiet": True}
    (tmp_path / name).mkdir()
    path = tmp_path / name / "manifest.json"
    path.write_text(json.dumps(make_manifest(make_experiment(keys)), indent=2))
    return path


def write(text: str, name: str = "keys.yaml") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return f"config={name}"


@pytest.mark.parametrize("name", RUNS)
def test_a_manifest_gives_its_experiment_again_but_not_its_folder(name, tmp_path):
    path, wanted = manifest_of(name, tmp_path), make_experiment({**SMALL, **RUNS[name]})
    for given in (path, path.parent):
        again = parse_experiment([f"config={given}"])
        assert again.resolved() == wanted.resolved()
        assert again.flat() == {**wanted.flat(), "quiet": False, "log_path": None}
        assert make_experiment({"config": str(given)}).resolved() == wanted.resolved()


@pytest.mark.parametrize("name", RUNS)
def test_the_command_in_a_manifest_makes_the_same_experiment(name, tmp_path):
    manifest = json.loads(manifest_of(name, tmp_path).read_text())
    program, command, *words = shlex.split(manifest["command"])
    assert (program, command) == ("memory-rl", "sft-train" if name == "example" else "train")
    again = parse_experiment(words, "sft" if command == "sft-train" else "train")
    assert again.resolved() == manifest["resolved"]
    assert again.keep.figures is False  # which changes no number, but belongs to it
    assert "log_path" not in manifest["command"]


def test_the_command_of_a_run_runs(tmp_path):
    result = memory_rl.train(**SMALL, **RUNS["binary"], log_path="one")
    words = shlex.split(result.manifest["command"])[1:]
    subprocess.run(
        [sys.executable, "-m", "memory_rl", *words, "log_path=two", "quiet=True"], check=True, cwd=tmp_path
    )
    assert memory_rl.load("two").metrics.equals(result.metrics)


def test_no_command_makes_a_run_of_an_object_in_python():
    class Mine:
        def reward(self, answer, secret):
            return float(answer == secret)

    assert command_line(make_experiment({**SMALL, "reward_type": Mine})) is None
    own = {**SMALL, "reward_type": "my rewards.py:Mine"}
    assert "'reward_type=my rewards.py:Mine'" in command_line(make_experiment(own))


def test_yaml_is_read_as_words_are():
    """PyYAML would take 1e-3 for a text, 010 for eight and no for False."""
    word = write(
        "N: 010\nlearning_rate: 1e-3\nseed: '7'\nbackend: tabular\nledger: False\nreward_noise: 0.5e-1\n"
    )
    words = ["N=010", "learning_rate=1e-3", "seed=7", "backend=tabular", "ledger=False", "reward_noise=0.05"]
    assert parse_experiment([word]) == parse_experiment(words)
    assert make_experiment({"config": "keys.yaml", "seed": 7}) == parse_experiment(words)


def test_what_is_given_wins_and_costs_what_has_no_meaning_beside_it():
    write("reward_type: binned_log_distance\nreward_bins: 8\nN: 64\nalgorithm: ppo\nppo_clip: 0.3\n")
    assert parse_experiment(["config=keys.yaml", "N=16"]).world.N == 16
    binary = parse_experiment(["config=keys.yaml", "reward_type=binary"])
    assert binary.flat() == parse_experiment(["reward_type=binary", "algorithm=ppo", "ppo_clip=0.3"]).flat()
    turns = parse_experiment(["config=keys.yaml", "env_type=multi_step", "algorithm=grpo"])
    assert turns.flat() == parse_experiment(["env_type=multi_step", "algorithm=grpo"]).flat()
    write("save_adapters: True\nsave_base: True\n")
    assert "save_base" not in parse_experiment(["config=keys.yaml", "backend=tabular"]).flat()


def test_a_key_that_has_a_meaning_only_beside_what_is_given_is_kept():
    write("reward_bins: 8")
    given = ["config=keys.yaml", "reward_type=binned_log_distance"]
    assert parse_experiment(given).signal.reward_bins == 8


def test_every_command_takes_what_is_its_own(capsys):
    write("N: 16\nreward_type: binned_log_distance\nreward_bins: 4\nlearning_rate: 0.5\nmemorised_at: 0.6\n")
    typed = memory_rl.bounds(N=16, reward_type="binned_log_distance", reward_bins=4, memorised_at=0.6)
    assert memory_rl.bounds(config="keys.yaml") == typed
    assert main(["bounds", "config=keys.yaml"]) == 0
    assert "binned_log_distance B=4, N = 16" in capsys.readouterr().out
    write("N: 16\nfixed_secret: 5\nlearning_rate: 0.5\nbackend: tabular\n", "sft.yaml")
    folder = memory_rl.generate_sft_data(config="sft.yaml")
    assert main(["sft-data-gen", "config=sft.yaml", "num_train=7"]) == 0
    assert str(folder) in capsys.readouterr().out
    result = memory_rl.sft(config="sft.yaml", num_runs=2, figures=False)
    assert (result.config["fixed_secret"], result.config["learning_rate"]) == (5, 0.5)


def test_a_manifest_of_supervised_learning_is_made_again_by_both_commands(tmp_path):
    path = manifest_of("example", tmp_path)
    assert parse_experiment([f"config={path}"]) == parse_experiment([f"config={path}"], "sft")


def test_the_file_may_hold_axes_of_a_sweep(tmp_path):
    from memory_rl.experiments.sweep import make_plan

    write("conditions: [sft, binary]\nN: [8, 16]\nbackend: tabular\ngroup_size: 8\ntune: True\nnum_runs: 2\n")
    plan, typed = (
        make_plan(["config=keys.yaml", "N=8"]),
        make_plan(
            ["conditions=sft,binary", "N=8", "backend=tabular", "group_size=8", "tune=True", "num_runs=2"]
        ),
    )
    assert [cell.id for cell in plan.cells] == [cell.id for cell in typed.cells]
    assert plan.tuning == typed.tuning
    assert set(plan.command.split()) == set(typed.command.split())  # it holds without the file
    again = make_plan([f"config={manifest_of('bins', tmp_path)}", "conditions=sft,binary", "seed=0,1"])
    assert len(again.cells) == 4
    assert {cell.values["num_runs"] for cell in again.cells} == {2}
    assert make_plan(shlex.split(again.command)[2:]).cells == again.cells


FILES = {
    "no file": (None, "cannot be read (No such file or directory): give a run directory, its manifest.json"),
    "an unknown key": ("learning_rat: 0.1", "has the unknown key learning_rat: did you mean learning_rate?"),
    "a bad value": ("N: many", "config=keys.yaml: N=many is not an integer"),
    "an integer as a power": ("N: 1e3", "config=keys.yaml: N=1e3 is not an integer"),
    "no meaning": ("reward_bins: 8", "config=keys.yaml: reward_bins=8 belongs to reward_type=binned"),
    "a list": ("N: [16, 64]", "N=[16, 64] is not one value: give one, or use memory-rl sweep."),
    "a mapping": ("N: {a: 1}", "N={a: 1} is not one value"),
    "not YAML": ("N: [", "is not valid YAML (line 1"),
    "twice": ("N: 8\nN: 16", "is not valid YAML (line 2: N is there twice)"),
    "no keys": ("- 8", "holds no keys: give a run directory"),
    "nothing": ("", "holds no keys"),
    "no text": ("N: \x07", "is not valid YAML"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_one_sentence_that_names_it(name, capsys):
    content, part = FILES[name]
    if content is not None:
        write(content)
    assert main(["train", "config=keys.yaml"]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "config=keys.yaml" in said.err
    assert part in said.err
    assert not Path("runs").exists()


def test_other_bad_files(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "swept").mkdir()
    (tmp_path / "swept/sweep.json").write_text("{}")
    write('{"N": 8', "cut.json")
    write("N: 8\nprotocol: quick", "grid.yaml")
    sentences = {
        "train config=empty": "config=empty holds no manifest.json: give a run directory",
        "train config=swept": "config=swept is a sweep: give one of its cells",
        "train config=cut.json": "config=cut.json cannot be read (Expecting",
        "train config=": "config= is empty: type for example",
        "train config=grid.yaml": "has the unknown key protocol",
        "sweep config=grid.yaml protocol=quick": "config=grid.yaml has no meaning with protocol=quick",
        "sft-train config=cut.json N=8 N=16": "N is given twice",
    }
    for words, sentence in sentences.items():
        assert main(words.split()) == 2
        said = capsys.readouterr().err
        assert sentence in said
        assert said.count("\n") == 1


def test_a_manifest_of_a_newer_version_is_not_half_read(tmp_path):
    path = manifest_of("binary", tmp_path)
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "config": {**manifest["config"], "warp": 9}}))
    with pytest.raises(memory_rl.ConfigError, match="has the unknown key warp"):
        make_experiment({"config": str(path)})


def test_a_manifest_of_version_0_1_with_keys_without_a_meaning(tmp_path):
    path = manifest_of("turns", tmp_path)
    manifest = json.loads(path.read_text())
    old = {**manifest["config"], "reward_bins": 8, "lora_rank": 8}
    path.write_text(json.dumps({**manifest, "config": old}))
    assert parse_experiment([f"config={path}"]).resolved() == manifest["resolved"]
