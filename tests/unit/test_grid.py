"""The cells of a grid: which there are, which are the same, and which rate wins."""

import hashlib
import itertools
import json
import math

import pytest

from memory_rl.errors import ConfigError
from memory_rl.experiments.grid import COMMANDS, GridCell, cells_of_axes, cells_of_entries, make_cell, merge
from memory_rl.experiments.settings import FACTORS, Tuning, read_arguments, read_tuning
from memory_rl.experiments.sweep import make_plan
from memory_rl.experiments.tuning import Contest, choose, make_contests
from memory_rl.limits import STEP_SIZES

FIVE = "sft,binary,log_distance,binned_log_distance,multi_step"


def cell(command: str = "train", **texts) -> GridCell:
    return make_cell({**COMMANDS[command], "backend": "tabular", "N": "16", **texts})


def rate_of(cell: GridCell) -> float | None:
    return cell.experiment.updates.learning_rate


def test_a_grid_is_the_product_of_its_axes():
    cells = cells_of_axes(
        FIVE,
        {"N": "16,64", "reward_bins": "8", "learning_rate": "0.001,0.003", "seed": "0,1", "num_runs": "16"},
    )
    found = {
        (cell.experiment.condition, cell.values["N"], rate_of(cell), cell.values["seed"]) for cell in cells
    }
    conditions = ("sft", "binary", "log_distance", "binned_log_distance B=8", "multi_step")
    assert found == set(itertools.product(conditions, (16, 64), (0.001, 0.003), (0, 1)))
    assert len(cells) == 40
    assert {cell.values["num_runs"] for cell in cells} == {16}


@pytest.mark.parametrize(
    ("conditions", "axes", "expected"),
    [
        (FIVE, {"reward_bins": "4,8,16"}, 4 + 3),
        ("binary,multi_step", {"credit": "step,reward_to_go,episode"}, 1 + 3),
        ("binary", {"algorithm": "reinforce,ppo", "ppo_clip": "0.1,0.2,0.3"}, 1 + 3),
        ("binary", {"algorithm": "reinforce,grpo,ppo", "baseline": "group,none"}, 2 + 1 + 2),
        ("binary", {"algorithm": "rloo,posterior", "posterior_epochs": "8,16"}, 1 + 2),
        ("sft,binary", {"group_size": "2,4"}, 1 + 2),
        ("sft,binary", {"backend": "local,tabular", "lora_rank": "1,8,32"}, 2 * (3 + 1)),
        ("binary,multi_step", {"backend": "tabular", "tabular_bits": "positions,prefixes"}, 1 + 2),
        (None, {"env_type": "single_step,multi_step", "reward_type": "binary,log_distance"}, 2 + 1),
        ("binary", {"N": "16,16,64"}, 2),
        ("binary", {"backend": "tabular", "learning_rate": "0.3,None"}, 1),  # 0.3 is the default
        ("binary", {"threads": "1,2"}, 1),  # the same numbers
    ],
)
def test_keys_without_a_meaning_are_left_out_and_equal_cells_are_one(conditions, axes, expected):
    assert len(cells_of_axes(conditions, axes)) == expected


def test_an_id_is_of_the_content():
    assert cell().id == cell(quiet="True", log_path="elsewhere", threads="2").id
    assert (
        cell().id
        == cell(
            learning_rate="0.3", reward_type="binary", max_episodes="4000", skip_ahead="False", seed="0"
        ).id
    )
    others = [
        *(
            {"N": "17"},
            {"seed": "1"},
            {"learning_rate": "0.31"},
            {"num_runs": "17"},
            {"stop_at": "0.9"},
            {"max_episodes": "4001"},
            {"skip_ahead": "True"},
        ),
        *(
            {"reward_type": "log_distance"},
            {"env_type": "multi_step"},
            {"group_size": "5"},
            {"optimiser": "sgd"},
            {"fixed_secret": "3"},
            {"ledger": "False"},
        ),
    ]
    ids = {cell(**other).id for other in others} | {
        cell().id,
        cell("sft").id,
    }
    assert len(ids) == len(others) + 2
    assert cell().id.startswith("binary-N16-seed0-")


def test_an_id_is_of_the_keys_alone(tmp_path):
    """So that a file which has changed is found out where it had been read (faults/test_identity.py)."""
    file = tmp_path / "mine.py"
    file.write_text("def near(answer, secret):\n    return abs(answer - secret) < 2\n")
    first = cell(reward_type=f"{file}:near").id
    file.write_text("def near(answer, secret):\n    return abs(answer - secret) < 3\n")
    assert cell(reward_type=f"{file}:near").id == first
    assert cell(reward_type=f"{file}:other").id != first


def test_a_cell_survives_json():
    one = cell(reward_type="binned_log_distance", reward_bins="8")
    again = GridCell(json.loads(json.dumps(one.as_dict()))["config"])
    assert (again.id, again.experiment) == (one.id, one.experiment)


def test_entries_of_a_file():
    entries = [
        {
            "command": "sft",
            "backend": "tabular",
            "N": [16, 64],
            "learning_rate": ["1e-3", 0.003],
        },  # YAML reads 1e-3 as a text
        {"command": "train", "backend": "tabular", "N": 16, "reward_type": None},
    ]
    cells = cells_of_entries(entries, {"threads": "2"})
    assert [(cell.command, cell.values["N"], rate_of(cell)) for cell in cells] == [
        *(("sft", N, rate) for N in (16, 64) for rate in (0.001, 0.003)),
        ("train", 16, None),
    ]
    assert {cell.values["threads"] for cell in cells} == {2}


BAD = {
    "nothing": ("", ["nothing to sweep", "protocol=quick"]),
    "not key=value": ("N", ["'N'", "key=value"]),
    "unknown key": ("reward_bin=8", ["reward_bin=8", "did you mean reward_bins?"]),
    "unknown key of the sweep": ("executr=ray", ["executr=ray", "executor"]),
    "a key twice": ("N=16 N=64", ["N is given twice", "commas"]),
    "an empty value": ("N=16,,64", ["N=16,,64", "N=16,64"]),
    "unknown condition": ("conditions=sft,binery", ["conditions=binery", "binary"]),
    "a condition said twice": (
        "conditions=binary reward_type=binary",
        ["reward_type=binary", "conditions=binary"],
    ),
    "a key for no cell": (
        "conditions=sft,binary reward_bins=8",
        ["reward_bins=8", "no meaning for any cell"],
    ),
    "the second cell": ("conditions=binary N=16,1", ["in the cell (N=1 reward_type=binary)", "N=2 or more"]),
    "a value that is none": ("conditions=binary N=16,many", ["N=many", "integer"]),
    "bins missing": ("conditions=sft,binned_log_distance", ["needs the number of levels", "reward_bins=8"]),
    "resume": ("conditions=sft resume=True", ["resume=True is not a known key"]),
    "two grids": ("protocol=quick grid=a.yaml", ["protocol=quick", "grid=a.yaml"]),
    "conditions of a file": ("grid=a.yaml conditions=sft", ["conditions=sft", "grid=a.yaml"]),
    "keys beside a protocol": ("protocol=quick N=16", ["N=16", "protocol=quick", "fixes its cells"]),
    "tuning beside a protocol": ("protocol=quick tune=True", ["tune=True", "protocol=quick"]),
    "no such file": ("grid=a.yaml", ["grid=a.yaml", "cannot be read"]),
    "unknown executor": ("conditions=sft executor=cloud", ["executor=cloud", "processes"]),
    "workers inline": ("conditions=sft workers=2", ["workers=2", "executor=processes"]),
    "no workers": ("conditions=sft executor=processes workers=0", ["workers=0", "workers=1"]),
    "an address without Ray": ("conditions=sft ray_address=auto", ["ray_address=auto", "executor=ray"]),
    "a Ray Client": (
        "conditions=sft executor=ray ray_address=ray://host:10001",
        ["ray_address=ray://host:10001", "host:6379"],
    ),
    "retries": ("conditions=sft retries=-1", ["retries=-1", "retries=0"]),
    "rates without tuning": ("conditions=sft tune_rates=0.1,0.2", ["tune_rates=0.1,0.2", "tune=True"]),
    "one rate": ("conditions=sft tune=True tune_rates=0.1", ["tune_rates=0.1", "two or more"]),
    "rates that are none": (
        "conditions=sft tune=True tune_rates=0.1,fast",
        ["tune_rates=0.1,fast", "two or more"],
    ),
    "a rate of its own": (
        "conditions=sft tune=True learning_rate=0.1",
        ["learning_rate=0.1", "leaves nothing to tune"],
    ),
    "the tuning's own seed": (
        "conditions=sft tune=True seed=0,1000000",
        ["seed=1000000", "secrets must be others"],
    ),
    "one secret for all": ("conditions=sft tune=True fixed_secret=3", ["fixed_secret=3", "same secret"]),
    "too many cells": (
        f"conditions=sft seed={','.join(map(str, range(101)))} N={','.join(map(str, range(2, 102)))}",
        ["10100 cells", "fewer values"],
    ),
}


@pytest.mark.parametrize(("words", "parts"), BAD.values(), ids=BAD.keys())
def test_bad_sweeps_are_refused_in_one_sentence(words, parts):
    if "executor=ray" in words:
        pytest.importorskip("ray")
    with pytest.raises(ConfigError) as caught:
        make_plan(words.split())
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


BAD_FILES = {
    "not YAML": ("a: [", ["not valid YAML"]),
    "no list": ("N: 16", ["no list of entries"]),
    "no command": ("- {N: 16}", ["entry 1", "command: train"]),
    "a command that is a list": ("- {command: [], N: 16}", ["entry 1", "command: []", "command: train"]),
    "an unknown key": ("- {command: train, M: 16}", ["M=16 is not a known key"]),
    "a bad second cell": ("- {command: train, N: [16, 1]}", ["N=1", "in the cell"]),
    "a key without meaning": (
        "- {command: train, reward_type: binary, reward_bins: 8}",
        ["reward_bins=8", "reward_type=binned_log_distance"],
    ),
    "a key of the other command": ("- {command: sft, group_size: 4}", ["group_size=4 belongs to"]),
    "a place of its own": ("- {command: sft, log_path: here}", ["log_path", "sets itself"]),
    "an empty axis": ("- {command: sft, N: []}", ["entry 1", "N: []"]),
    "tuning that is none": ("{grid: [{command: sft}], tune: 3}", ["tune: 3"]),
    "an unknown key of tuning": ("{grid: [{command: sft}], tune: {rate: [1, 2]}}", ["tune: rate", "rates"]),
    "tuned together by no key": (
        "{grid: [{command: sft}], tune: {together: [secrets]}}",
        ["tune: together has secrets", "no key of a cell"],
    ),
    "tuned on no list": (
        "{grid: [{command: sft}], tune: {together: [N], chosen_on: {N: 16}}}",
        ["tune: chosen_on={N: 16}", "list of selections"],
    ),
    "tuned on an unknown key": (
        "{grid: [{command: sft}], tune: {together: [N], chosen_on: [{n: 16}]}}",
        ["tune: chosen_on has n,", "no key of a cell"],
    ),
    "tuned on one of one": (
        "{grid: [{command: sft}], tune: {chosen_on: [{N: 16}]}}",
        ["tune: chosen_on", "add together"],
    ),
    "factors beside rates": (
        "{grid: [{command: sft}], tune: {rates: [1, 2], factors: [1, 2]}}",
        ["tune: factors=[1, 2]", "leave one of them out"],
    ),
    "one factor": ("{grid: [{command: sft}], tune: {factors: [3]}}", ["tune: factors=3", "two or more"]),
    "a word beside the grid": (
        "{grid: [{command: sft}], hypotheses: []}",
        ["hypotheses", "protocol=grid.yaml"],
    ),
}


@pytest.mark.parametrize(("text", "parts"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files_are_refused_in_one_sentence(text, parts, tmp_path):
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        make_plan(["grid=grid.yaml"])
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arguments_part_into_the_sweep_and_its_cells():
    settings, axes = read_arguments(
        ["conditions=sft,binary", "N=16,64", "executor=processes", "workers=2", "log_path=here"]
    )
    assert (settings.conditions, settings.executor, settings.workers, settings.log_path) == (
        "sft,binary",
        "processes",
        2,
        "here",
    )
    assert axes == {"N": "16,64"}


def test_no_password_is_kept():
    plan = make_plan(["conditions=sft", "log_path=ftp://me:secret@host/sweep"])
    assert plan.command == "memory-rl sweep conditions=sft log_path=ftp://***@host/sweep"


def test_candidates_have_secrets_of_their_own():
    from memory_rl.training.recompute import draw_secrets

    cells = cells_of_axes("sft,binary", {"backend": "tabular", "N": "256", "seed": "0,1"})
    contests = make_contests(cells, Tuning(num_runs=5))
    assert [[cell.id for cell in contest.reported] for contest in contests] == [
        [cell.id for cell in cells[:2]],
        [cell.id for cell in cells[2:]],
    ]
    for contest in contests:
        rates = [rate_of(candidate) for candidate in contest.candidates]
        assert rates == pytest.approx([factor * STEP_SIZES["tabular"]["adam"] for factor in FACTORS])
        for candidate in contest.candidates:
            assert candidate.values["num_runs"] == 5
            for reported in contest.reported:
                assert not (draw_secrets(candidate.experiment) == draw_secrets(reported.experiment)[:5]).all()
    given = make_contests(cells, read_tuning({"rates": [0.3, "1e-1"], "seed": 7}))
    assert [rate_of(cell) for cell in given[0].candidates] == [0.1, 0.3]
    assert {cell.values["seed"] for cell in given[0].candidates} == {7}
    assert {cell.values["num_runs"] for cell in given[0].candidates} == {16}


def test_cells_that_are_tuned_together_share_a_rate_chosen_on_one_of_them():
    cells = cells_of_axes("sft,binary", {"backend": "tabular", "num_secrets": "2,4,8,16", "N": "4"})
    settings = {"together": ["num_secrets"], "factors": [2, 0.5]}

    def tuned_on(**more) -> list[int]:
        contests = make_contests(cells, read_tuning({**settings, **more}))
        assert [[cell.values["num_secrets"] for cell in contest.reported] for contest in contests] == [
            [2, 4, 8, 16]
        ] * 2
        for contest in contests:
            assert [rate_of(cell) for cell in contest.candidates] == pytest.approx(
                [factor * contest.reported[0].experiment.step_size for factor in (0.5, 2)]
            )
            assert len({cell.values["num_secrets"] for cell in contest.candidates}) == 1
        return [contest.candidates[0].values["num_secrets"] for contest in contests]

    assert tuned_on() == [8, 8]  # the middle one
    assert tuned_on(chosen_on=[{"num_secrets": 16}]) == [16, 16]
    assert tuned_on(chosen_on=[{"num_secrets": 64}, {"num_secrets": [4, 2]}]) == [
        2,
        2,
    ]  # the first cell that fits
    assert tuned_on(chosen_on=[{"num_secrets": 16, "reward_type": "binary"}]) == [8, 16]
    assert tuned_on(chosen_on=[{"num_secrets": 64}]) == [8, 8]


def judged(*scores: tuple[float | None, float]):
    """The choice among rates 1, 2, ... with these bits per episode and restricted means."""
    contest = make_contests([cell()], Tuning(rates=tuple(float(rate) for rate in range(1, len(scores) + 1))))[
        0
    ]
    summaries = {
        candidate.id: {
            "bits_per_episode": {"estimate": bits},
            "episodes_to_memorise": {"restricted_mean": mean},
        }
        for candidate, (bits, mean) in zip(contest.candidates, scores, strict=True)
    }
    return contest, choose(contest, summaries)


@pytest.mark.parametrize(
    ("scores", "rate", "at_edge", "decided"),
    [
        ([(0.1, 40), (0.3, 20), (0.2, 30)], 2, False, True),
        ([(0.1, 40), (0.2, 30), (0.3, 20)], 3, True, True),
        ([(0.3, 20), (0.1, 40)], 1, True, True),
        ([(0.2, 40), (0.2, 30), (0.1, 10)], 2, False, True),  # of equals the one with fewer episodes
        ([(0.0, 100), (0.0, 100), (0.0, 100)], 1, True, False),  # none memorised
        ([(0.2, 3), (None, 0), (0.3, 2)], 2, False, True),  # it knew before it began: no episodes at all
    ],
)
def test_the_best_candidate_wins(scores, rate, at_edge, decided):
    contest, choice = judged(*scores)
    assert (choice.learning_rate, choice.at_edge, choice.decided) == (rate, at_edge, decided)
    assert [rate_of(cell) for cell in contest.with_rate(choice.learning_rate)] == [rate]


def test_each_condition_gets_its_own_rate():
    contests = make_contests(
        cells_of_axes("sft,binary", {"backend": "tabular", "seed": "0,1"}), Tuning(rates=(0.1, 0.2))
    )
    summaries = {
        candidate.id: {
            "bits_per_episode": {"estimate": bits},
            "episodes_to_memorise": {"restricted_mean": 1.0},
        }
        for contest, best in zip(contests, (0.1, 0.2), strict=True)
        for candidate in contest.candidates
        for bits in [1.0 if math.isclose(rate_of(candidate), best) else 0.5]
    }
    cells = [
        cell for contest in contests for cell in contest.with_rate(choose(contest, summaries).learning_rate)
    ]
    assert [(cell.experiment.condition, cell.values["seed"], rate_of(cell)) for cell in cells] == [
        *(("sft", seed, 0.1) for seed in (0, 1)),
        *(("binary", seed, 0.2) for seed in (0, 1)),
    ]
    assert merge(cells) == cells
    assert all(isinstance(contest, Contest) for contest in contests)


@pytest.mark.parametrize("rate", ["3e-1", '"0.3"', "0.30", "[3e-1, 0.3, '.3']"])
def test_a_value_is_the_same_from_yaml_the_command_line_and_python(rate, tmp_path):
    (tmp_path / "grid.yaml").write_text(
        f"- {{command: train, backend: tabular, N: 010, learning_rate: {rate}}}"
    )
    of_file = make_plan(["grid=grid.yaml"]).cells
    typed = cells_of_axes(None, {"backend": "tabular", "N": "10", "learning_rate": "3e-1,0.3"})
    from_python = GridCell({"backend": "tabular", "N": 10, "learning_rate": 0.3})
    assert [one.id for one in of_file] == [one.id for one in typed] == [from_python.id]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("N: 1:04", "N=1:04 is not an integer"),
        ("N: 64.0", r"N=64\.0 is not an integer"),
        ("max_episodes: 1e3", "max_episodes=1e3 is not an integer"),
        ("skip_ahead: yes", "skip_ahead=yes is not True or False"),
        ("seed: 2026-01-01", "seed=2026-01-01 is not an integer"),
        ("learning_rate: .nan", r"learning_rate=\.nan is not a number"),
        ("N: 4, N: 8", "N is there twice"),
        (f"N: {'9' * 5000}", r"N=10\^5000 is too large"),
        (f"N: {'[' * 1000}{']' * 1000}", "nested too deeply"),
    ],
)
def test_no_version_of_yaml_makes_another_value_of_a_word(entry, sentence, tmp_path):
    (tmp_path / "grid.yaml").write_text(f"- {{command: train, backend: tabular, {entry}}}")
    with pytest.raises(ConfigError, match=sentence):
        make_plan(["grid=grid.yaml"])


def test_an_integer_that_is_typed_in_another_way_decides_what_has_a_meaning():
    cells = cells_of_axes(None, {"backend": "tabular", "N": "4", "num_secrets": "01,2", "order": "cycle"})
    assert [(one.values["num_secrets"], one.values.get("order")) for one in cells] == [
        (1, None),
        (2, "cycle"),
    ]


def test_cells_are_counted_over_all_entries_and_candidates(tmp_path, monkeypatch):
    monkeypatch.setattr("memory_rl.experiments.grid.MAX_CELLS", 10)
    entry = "- {command: sft, backend: tabular, N: 4, seed: [0, 1, 2, 3, 4, 5]}\n"
    (tmp_path / "grid.yaml").write_text(f"{entry}{entry.replace('N: 4', 'N: 8')}")
    with pytest.raises(ConfigError, match="12 cells, more than 10"):
        make_plan(["grid=grid.yaml"])
    with pytest.raises(ConfigError, match="12 cells, more than 10"):
        make_plan(["conditions=sft", "backend=tabular", "N=4,5,6", "tune=True", "tune_rates=1,2,3,4"])


def test_the_tuning_of_a_file_is_read_as_the_command_line_is(tmp_path):
    tune = "{rates: [1e-1, '0.3'], seed: 07, num_runs: '3', together: [N], chosen_on: [{seed: null, N: 08}]}"
    (tmp_path / "grid.yaml").write_text(f"{{grid: [{{command: sft, N: [4, 8]}}], tune: {tune}}}")
    tuning = make_plan(["grid=grid.yaml"]).tuning
    assert (tuning.rates, tuning.seed, tuning.num_runs) == ((0.1, 0.3), 7, 3)
    assert tuning.chosen_on == [{"seed": None, "N": 8}]
    for bad, sentence in (
        ("{seed: 1e3}", "seed=1e3"),
        ("{together: [N], chosen_on: [{N: 1}]}", "tune: N=1 is"),
    ):
        (tmp_path / "grid.yaml").write_text(f"{{grid: [{{command: sft}}], tune: {bad}}}")
        with pytest.raises(ConfigError, match=sentence):
            make_plan(["grid=grid.yaml"])


@pytest.mark.parametrize("name", ["../../out", "/etc/x", "..", "a/b", "x" * 300, "a b"])
def test_a_new_sweep_stays_in_its_folder_whatever_its_protocol_is_called(name, tmp_path):
    (tmp_path / "p.yaml").write_text(f"{{name: '{name}', grid: [{{command: sft, N: 4}}]}}")
    plan = make_plan(["protocol=p.yaml"])
    assert plan.name == name
    assert plan.directory.local.resolve().parent == tmp_path / "sweeps"


IDS = {
    "capacity": "5012ab7880ce34ff",
    "learners": "875644598e4201a8",
    "learners-quick": "ebcce0938564445e",
    "quick": "ff6c65feb688cbfe",
    "thorough": "1fccd71d7822edd0",
}
"""By protocol: the hash of the ids of all cells and candidates, as they were before contests in rounds.

`quick` has had other runs since: 64 of each cell.
"""


@pytest.mark.parametrize("name", IDS)
def test_cells_of_shipped_protocols_keep_their_ids(name):
    plan = make_plan([f"protocol={name}"])
    candidates = [cell for contest in plan.contests for cell in contest.candidates]
    ids = [[cell.id for cell in cells] for cells in (plan.cells, candidates)]
    assert hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16] == IDS[name]
