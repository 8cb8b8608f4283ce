"""Keys: each belongs to one part and means one thing, none is ignored, and all faces of the package (command
line, functions, type checkers, help) know the same ones."""

import dataclasses
import inspect
import itertools
import math
import re
import subprocess
import sys
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from helpers import complaint

import memory_rl
from memory_rl import PPO, RLOO, Posterior, Reinforce
from memory_rl.api import DataFiles, bounds_keys
from memory_rl.catalogue import KEEP, PARTS, experiment_keys
from memory_rl.cli import main
from memory_rl.config import LEARNERS
from memory_rl.errors import ConfigError
from memory_rl.experiment import make_experiment, parse_experiment
from memory_rl.experiments.settings import SweepConfig, Tuning
from memory_rl.inputs import hash_inputs
from memory_rl.key_files import FILE_KEYS
from memory_rl.keys import accept, keys_of, read
from memory_rl.reporting.settings import CompareConfig, ListConfig, PlanConfig, RatePlanConfig, ReportConfig

KEYS = experiment_keys()
CLAUSES = [(word, clause) for word, one in KEYS.items() for clause in one.needs.split()]
CLAUSE = re.compile(r"(\w+)(?:(=)([\w,]+)|(>)(\d+))?")


def members(hint: Any) -> list[Any]:
    """The types or choices that a hint admits."""
    parts = [hint] if get_origin(hint) is Literal or not get_args(hint) else get_args(hint)
    return [choice for part in parts for choice in (get_args(part) or [part]) if choice is not NoneType]


def sample(word: str) -> str:
    """A text that the key accepts."""
    first, default = members(KEYS[word].hint)[-1], KEYS[word].default
    some = str(default) if isinstance(default, float) else "0.5"  # which may lie beyond a range
    by_type = {int: "7", float: some, bool: "True", str: "name", Any: "binary"}
    return by_type.get(first, first) if word != "algorithm" else "grpo"


def parsed(clause: str) -> tuple[str, list[str], int]:
    """The key that a clause names, the values that it admits, and the number that it must exceed; of several
    clauses that would do, those of the first."""
    name, equals, values, more, number = CLAUSE.fullmatch(clause.partition("|")[0]).groups()
    return name, values.split(",") if equals else [], int(number) if more else 0


def fulfilled(word: str) -> dict[str, str]:
    """Texts with which all that the key needs is given."""
    given = {}
    for clause in KEYS[word].needs.split():
        name, values, number = parsed(clause)
        given[name] = values[0] if values else str(number + 1) if number else sample(name)
    return given


def violated(word: str, clause: str) -> dict[str, str]:
    """The same without this one clause."""
    given = fulfilled(word)
    name, values, number = parsed(clause)
    del given[name]
    if number or not values:
        return given  # by default it does not hold
    others = {"algorithm": [*LEARNERS], "reward_type": ["binary"], "num_secrets": ["2"]}
    others |= {"warmup": ["False"], "save_adapters": ["False"], "teacher": ["secret", "observer"]}
    choices = others.get(name) or members(KEYS[name].hint)
    return {**given, name: next(choice for choice in choices if choice not in values)}


# Parts


def test_each_key_belongs_to_one_part_and_means_one_thing():
    words = [word for kind in PARTS.values() for word in keys_of(kind)]
    assert len(words) == len({*words})
    settings = {}
    for kind in LEARNERS.values():
        for word, one in keys_of(kind).items() if dataclasses.is_dataclass(kind) else ():
            assert word not in words
            about = (one.field, one.hint, one.default, one.doc)
            assert settings.setdefault(word, about) == about  # learners may share a setting, such as baseline
    assert set(KEYS) == {*words, *settings}
    assert {one.part for one in KEYS.values()} == {*PARTS, "settings"}


def test_each_key_has_a_meaning_in_words():
    assert all(one.doc.endswith((".", ".)")) for one in KEYS.values())
    assert len({one.doc for one in KEYS.values()}) == len(KEYS)


@pytest.mark.parametrize(("word", "clause"), CLAUSES, ids=lambda value: value)
def test_what_a_key_needs_is_there_and_the_key_is_refused_without_it(word, clause):
    name, values, number = parsed(clause)
    assert name in KEYS
    if values and get_origin(KEYS[name].hint) is Literal:
        assert {*values} <= {*members(KEYS[name].hint)}
    value = sample(word)
    assert word in read(KEYS, {word: value, **fulfilled(word)}, typed=False)  # it is the clause that matters
    with pytest.raises(ConfigError) as caught:
        read(KEYS, {word: value, **violated(word, clause)}, typed=False)
    sentence = str(caught.value)
    assert sentence.startswith(f"{word}={value} belongs to {name}")
    assert sentence.endswith(f"leave {word} out.")
    assert "  " not in sentence
    wanted = f"{name}={values[0] if values else number + 1}" if values or number else name
    if name != "signal":  # which is chosen by the command
        assert re.search(f": (add|use) {re.escape(wanted)}, or leave", sentence)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "ppo_epochs=3",
            "ppo_epochs=3 belongs to algorithm=ppo or gspo or cispo or dppo or sapo or pairs: "
            "add algorithm=ppo, or leave ppo_epochs out.",
        ),
        ("ppo_clip=0.3", "ppo_clip=0.3 belongs to algorithm=ppo: add algorithm=ppo, or leave ppo_clip out."),
        (
            "algorithm=grpo ppo_clip=0.3",
            "ppo_clip=0.3 belongs to algorithm=ppo: use algorithm=ppo, or leave ppo_clip out.",
        ),
        (
            "posterior_epochs=3",
            "posterior_epochs=3 belongs to algorithm=posterior: add algorithm=posterior, or leave "
            "posterior_epochs out.",
        ),
        (
            "algorithm=grpo baseline=none",
            "baseline=none belongs to algorithm=reinforce or ppo or gspo or cispo or dppo or sapo: use "
            "algorithm=reinforce, or leave baseline out.",
        ),
        (
            "algorithm=own.py:Mine ppo_clip=0.3",
            "ppo_clip=0.3 belongs to algorithm=ppo: use algorithm=ppo, or leave ppo_clip out.",
        ),
        (
            "credit=episode",
            "credit=episode belongs to env_type=multi_step: add env_type=multi_step, or leave credit out.",
        ),
        (
            "tabular_bits=prefixes env_type=multi_step",
            "tabular_bits=prefixes belongs to backend=tabular: add backend=tabular, or leave "
            "tabular_bits out.",
        ),
        (
            "order=cycle",
            "order=cycle belongs to num_secrets=2 or more: add num_secrets=2, or leave order out.",
        ),
        ("resume=True", "resume=True belongs to log_path: add log_path, or leave resume out."),
        (
            "data_dir=here",
            "data_dir=here belongs to signal=example: add signal=example, or leave data_dir out.",
        ),
    ],
)
def test_nothing_is_silently_ignored(words, sentence, capsys):
    assert complaint("train", words, capsys) == f"memory-rl: {sentence}\n"


@pytest.mark.parametrize(
    ("words", "also"),
    [
        ("algorithm=grpo", ""),
        ("group_size=2", " or teacher"),
        ("skip_ahead=True", ""),
        ("reward_noise=0.1", " or teacher=observer"),
    ],
)
def test_supervised_learning_refuses_what_belongs_to_rewards(words, also, capsys):
    word = words.partition("=")[0]
    assert complaint("sft-train", words, capsys) == (
        f"memory-rl: {words} belongs to signal=reward{also}: leave {word} out.\n"
    )


def test_none_stands_for_not_given():
    given = {"reward_bins": None, "fixed_secret": None, "num_secrets": 3, "learning_rate": None}
    assert make_experiment(given) == make_experiment({"num_secrets": 3})
    with pytest.raises(ConfigError, match="N=None is not an integer: type for example N=64"):
        make_experiment({"N": None})


# Faces


def test_the_functions_take_the_keys_of_the_parts_with_their_types_and_defaults():
    taken = {
        memory_rl.train: KEYS | FILE_KEYS,
        memory_rl.sft: KEYS | FILE_KEYS,
        memory_rl.bounds: bounds_keys() | FILE_KEYS,
        memory_rl.generate_sft_data: keys_of(DataFiles) | FILE_KEYS,
        memory_rl.report: keys_of(ReportConfig),
    }
    for function, keys in taken.items():
        listed = inspect.signature(function).parameters
        assert set(listed) == set(keys)
        for word, parameter in listed.items():
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
            assert parameter.default == (True if word == "quiet" else keys[word].default), word
            assert f"    {word}: {keys[word].doc}\n" in f"{function.__doc__}\n", word


LEARNED = {word for word, one in KEYS.items() if one.part == "settings"}


def test_the_types_of_a_learners_settings_are_those_that_type_checkers_see():
    from memory_rl.learning.learners import LearnerKeys

    assert get_type_hints(LearnerKeys) == {word: KEYS[word].hint for word in LEARNED}
    assert dataclasses.asdict(LearnerKeys()) == {word: KEYS[word].default for word in LEARNED}


MISTYPED = {
    "train(n=64)": 'Unexpected keyword argument "n"',
    'train(N="64")': 'Argument "N" to "train" has incompatible type "str"',
    'train(env_type="single")': 'Argument "env_type" to "train"',
    "bounds(num_runs=4)": 'Unexpected keyword argument "num_runs"',
    'generate_sft_data(N=8, reward_type="binary")': 'Unexpected keyword argument "reward_type"',
    "PPO(epsilon=0.3)": 'Unexpected keyword argument "epsilon"',
}


def test_mypy_accepts_what_runs_and_rejects_what_does_not():
    good = "train(N=64, algorithm=PPO(clip=0.3))\ntrain(algorithm='ppo', ppo_epochs=2)\n"
    good += "sft(N=8, fixed_secret=3)\n"
    good += "rate: float | None = bounds(N=8).shannon_capacity\n"
    names = "from memory_rl import PPO, bounds, generate_sft_data, sft, train\n"
    Path("good.py").write_text(names + good)
    Path("bad.py").write_text(names + "\n".join(MISTYPED))
    source = Path(memory_rl.__file__).parents[1]
    command = [sys.executable, "-m", "mypy", "--config-file", source.parent / "pyproject.toml"]
    command += ["--cache-dir", "/dev/null", "--follow-imports", "silent", "good.py", "bad.py"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"MYPYPATH": str(source), "PATH": "/usr/bin:/bin"}
    )
    lines = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert [line.partition(":")[0] for line in lines] == ["bad.py"] * len(MISTYPED), done.stdout + done.stderr
    for number, (line, part) in enumerate(zip(lines, MISTYPED.values(), strict=True), start=2):
        assert line.startswith(f"bad.py:{number}: error: ")
        assert part in line


COMMANDS = ("train", "bounds", "sft-data-gen", "sft-train", "sweep", "report", "list", "compare", "plan")


def help_of(command: str, capsys, monkeypatch, columns: int = 80) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main([*command.split(), "--help"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_the_terminal_and_breaks_no_word(command, capsys, monkeypatch):
    narrow, wide = (help_of(command, capsys, monkeypatch, columns) for columns in (80, 100))
    assert max(map(len, narrow.splitlines())) <= 80
    assert max(map(len, wide.splitlines())) <= 100
    assert narrow.split() == wide.split()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_every_key_once_by_part_after_two_examples(command, capsys, monkeypatch):
    printed = help_of(command, capsys, monkeypatch)
    listed = re.findall(r"^  (\w+)=", printed, flags=re.MULTILINE)
    assert len(listed) == len({*listed})
    examples = re.findall(rf"^  memory-rl {command} (.*)", printed, flags=re.MULTILINE)
    assert len(examples) == 2
    shown = {"train": {*KEYS, *FILE_KEYS}, "bounds": {*bounds_keys(), *FILE_KEYS}}
    shown |= {"list": {*keys_of(ListConfig)}, "compare": {*keys_of(CompareConfig)}}
    shown["plan"] = {*keys_of(PlanConfig), *keys_of(RatePlanConfig), *bounds_keys(), *FILE_KEYS}
    shown |= {"report": {*keys_of(ReportConfig)}, "sft-data-gen": {*keys_of(DataFiles), *FILE_KEYS}}
    of_others = ("signal=reward", "signal=teacher")
    shown["sft-train"] = set(FILE_KEYS) | {
        word for word, one in KEYS.items() if word != "signal" and not one.needs.startswith(of_others)
    }
    if command == "sweep":
        return
    assert {*listed} == shown[command]
    for example in examples:
        words = [
            word for word in example.split() if "=" in word or command not in ("list", "compare", "plan")
        ]
        assert {word.partition("=")[0] for word in words} <= shown[command]
    parts = [KEYS[word].part for word in listed if word in KEYS]
    if command in ("train", "sft-train"):  # the keys of a part stand together
        assert len(list(itertools.groupby(parts))) == len({*parts})


@pytest.mark.parametrize("command", ["train", "sft-train"])
def test_the_examples_of_help_are_configurations(command, capsys, monkeypatch):
    printed = help_of(command, capsys, monkeypatch)
    examples = re.findall(rf"^  memory-rl {command} (.*)", printed, flags=re.MULTILINE)
    assert len(examples) == 2
    for example in examples:
        parse_experiment(example.split(), "train" if command == "train" else "sft")


@pytest.mark.parametrize("words", [["--version"], ["-V"], ["train", "--version"]])
def test_the_version_is_printed(words, capsys):
    assert main(words) == 0
    assert capsys.readouterr().out == f"memory-rl {memory_rl.__version__}\n"


@pytest.mark.parametrize(
    ("words", "ending"),
    [
        ("n=64", "n=64 is not a known key: did you mean N?"),
        ("--N=64", "--N=64 is not of the form key=value: type N=64."),
        ("N 16", "'N' is not of the form key=value: type N=16."),
        ("--N 16", "'--N' is not of the form key=value: type N=16."),
        ("-N=16", "-N=16 is not of the form key=value: type N=16."),
        ("N:16", "'N:16' is not of the form key=value: type N=16."),
        ("N = 16", "'N' is not of the form key=value: type N=16."),
        ("N= 16", "N= is not of the form key=value: type N=16."),
        ("N =16 seed=3", "'N' is not of the form key=value: type N=16."),
        (
            "seed=3 algorithm own.py:Mine",
            "'algorithm' is not of the form key=value: type algorithm=own.py:Mine.",
        ),
        ("N env_type=multi_step", "'N' is not of the form key=value: type for example N=64."),
        ("16", "'16' is not of the form key=value: type for example N=64."),
        ("N=16, 64", "'64' is not of the form key=value: type N=16,64."),
        ("N= seed=3", "N= is empty: type for example N=64."),
        ("lr=0.1", "lr=0.1 is not a known key: did you mean learning_rate?"),
        ("device=gpu", "device=gpu is not a choice: did you mean cuda?"),
        ("num_run=3", "num_run=3 is not a known key: did you mean num_runs?"),
        (
            "algorithm=xyzzy",
            "algorithm=xyzzy is not a choice: --help lists them.",
        ),
        ("temperature=2", "temperature=2 is not a known key: --help lists them."),
        ("xyzzy=2", "xyzzy=2 is not a known key: --help lists them."),
    ],
)
def test_a_mistyped_word_is_answered_with_the_one_that_was_meant(words, ending, capsys):
    assert complaint("train", words, capsys) == f"memory-rl: {ending}\n"


# Values


@pytest.mark.parametrize("number", [np.int64(32), np.int32(32), np.uint8(32)])
def test_numpys_integers_are_integers(number):
    experiment = make_experiment({"N": number, "learning_rate": number})
    assert experiment.resolved() == make_experiment({"N": 32, "learning_rate": 32.0}).resolved()
    assert (type(experiment.world.N), type(experiment.updates.learning_rate)) == (int, float)


@pytest.mark.parametrize("number", [np.float32(0.25), np.float64(0.25), np.float16(0.25)])
def test_numpys_floats_are_numbers_but_not_integers(number):
    experiment = make_experiment({"reward_noise": number})
    assert experiment == make_experiment({"reward_noise": 0.25})
    assert type(experiment.signal.reward_noise) is float
    with pytest.raises(ConfigError, match=r"N=0\.25 is not an integer: type for example N=64\."):
        make_experiment({"N": number})


def test_a_float_is_shown_as_one():
    with pytest.raises(ConfigError, match=r"^N=64\.0 is not an integer: type for example N=64\.$"):
        make_experiment({"N": np.float64(64)})


def test_a_reader_who_has_seen_enough_ends_the_command_quietly():
    command = f"set -o pipefail; {sys.executable} -m memory_rl train --help | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("usage: memory-rl train key=value ...\n", "")
    assert done.returncode in (0, 141)  # 0 where all of it fitted into the pipe


@pytest.mark.parametrize("value", [True, "64", 64.0, [64], np.bool_(True)])
def test_what_is_no_integer_is_refused(value):
    with pytest.raises(ConfigError, match=r"^N=.* is not an integer: type for example N=64\.$"):
        make_experiment({"N": value})


LEARNER_OBJECTS = [
    (PPO(clip=0.3), {"algorithm": "ppo", "ppo_clip": 0.3}),
    (PPO(clip=0.3, epochs=2, baseline="none"), "algorithm=ppo ppo_clip=0.3 ppo_epochs=2 baseline=none"),
    (PPO, {"algorithm": "ppo"}),
    (Reinforce(), {}),
    (Reinforce(baseline="none"), {"baseline": "none"}),
    (RLOO(), "algorithm=rloo"),
    (Posterior(epochs=3), "algorithm=posterior posterior_epochs=3"),
]


@pytest.mark.parametrize(("given", "words"), LEARNER_OBJECTS)
def test_a_learner_given_as_an_object_is_the_one_of_its_words(given, words):
    spelled = parse_experiment(words.split()) if isinstance(words, str) else make_experiment(words)
    made = make_experiment({"algorithm": given})
    assert made.resolved() == spelled.resolved()
    assert made.learner == spelled.learner or type(made.learner) is type(spelled.learner) is RLOO
    assert made.flat() == spelled.flat()


def test_a_setting_is_given_in_the_object_or_as_a_key():
    with pytest.raises(
        ConfigError, match=r"ppo_clip is given twice, in algorithm=.*PPO too: leave one of them out"
    ):
        make_experiment({"algorithm": PPO(clip=0.3), "ppo_clip": 0.2})
    assert make_experiment({"algorithm": PPO, "ppo_clip": 0.3}).learner == PPO(clip=0.3)


# What two experiments share


def test_what_is_kept_and_shown_makes_no_other_experiment():
    kept = {
        "log_path": "here", "resume": True, "checkpoint_every": 5.0, "save_adapters": True, "save_base": True,
        "threads": 3, "figures": False,
        "wandb_project": "one", "trackio_project": "two", "tensorboard": True,
        "quiet": True, "verbose": True,
    }  # fmt: skip
    assert {*kept, "data_dir", "tinker_base_url", "max_tokens_total", "role"} == KEEP
    assert make_experiment(kept).resolved() == make_experiment({}).resolved()
    assert not KEEP & set(make_experiment(kept).resolved())
    filed = {"fixed_secret": 3, "data_dir": "elsewhere"}
    assert make_experiment(filed, "sft").resolved() == make_experiment({"fixed_secret": 3}, "sft").resolved()


@pytest.mark.parametrize(
    "spelled_out",
    [
        {"wording": "terse"},
        {"reward_type": "binary"},
        {"learning_rate": 5e-4},
        {"max_episodes": 4000},
        {"evaluate_every": 1},
        {"scoring": "all"},
        {"skip_ahead": True},
        {"algorithm": "reinforce", "baseline": "group", "group_size": 4},
        {"memorised_at": 0.5, "num_secrets": 1},
    ],
    ids=str,
)
def test_a_default_that_is_spelled_out_makes_no_other_experiment(spelled_out):
    assert make_experiment(spelled_out).resolved() == make_experiment({}).resolved()


@pytest.mark.parametrize(
    ("given", "worked_out"),
    [
        ({"backend": "tabular"}, {"learning_rate": 0.3, "skip_ahead": False}),
        ({"adapter": "full"}, {"learning_rate": 2e-4}),
        ({"model_name": "some/model"}, {"wording": "plain"}),
        ({"N": 100}, {"max_episodes": 6000}),
        ({"N": 4096}, {"scoring": "paths", "max_episodes": 245_760}),
        ({"N": 2048}, {"scoring": "all", "skip_ahead": True}),
        ({"N": 257, "env_type": "multi_step"}, {"scoring": "paths"}),
        ({"N": 256, "env_type": "multi_step"}, {"scoring": "all"}),
        ({"N": 512, "num_secrets": 2}, {"scoring": "paths"}),
        ({"N": 512, "baseline": "none"}, {"scoring": "paths"}),
        ({"N": 512, "algorithm": "posterior"}, {"scoring": "all"}),
        ({"N": 512, "signal": "example"}, {"scoring": "paths"}),
        ({"num_secrets": 8}, {"evaluate_every": 2, "max_episodes": 32_000, "skip_ahead": False}),
        ({"N": 2}, {"memorised_at": 0.75}),
        ({"optimiser": "sgd"}, {"learning_rate": 0.03}),
    ],
    ids=str,
)
def test_defaults_are_worked_out(given, worked_out):
    resolved = make_experiment(given).resolved()
    assert {word: resolved[word] for word in worked_out} == worked_out


def test_the_signal_alone_makes_supervised_learning(capsys):
    shown = make_experiment({"signal": "example", "N": 8})
    assert shown == make_experiment({"N": 8}, "sft") == parse_experiment(["N=8"], "sft")
    assert (shown.command, shown.condition) == ("sft", "sft")
    assert complaint("sft-train", "signal=reward", capsys) == (
        "memory-rl: signal=reward is not supervised learning: use train, or leave signal out.\n"
    )


@pytest.mark.parametrize(
    ("given", "condition"),
    [
        ({}, "teacher"),
        ({"told": "sampled", "teacher_error": 0.1}, "teacher told=sampled"),
        ({"told": "top_k", "divergence": "forward"}, "teacher told=top_k k=2 divergence=forward"),
        ({"env_type": "multi_step"}, "teacher multi_step"),
        ({"teacher": "runs/mine", "env_type": "multi_step"}, "teacher=run multi_step"),
        (
            {"teacher": "observer", "reward_type": "binned_log_distance", "reward_bins": 8},
            "teacher=observer binned_log_distance B=8",
        ),
        (
            {"teacher": "observer", "env_type": "multi_step", "credit": "episode", "told": "sampled"},
            "teacher=observer multi_step credit=episode told=sampled",
        ),
    ],
    ids=str,
)
def test_a_teacher_is_a_signal_with_a_name(given, condition):
    experiment = make_experiment({"signal": "teacher", **given})
    assert (experiment.command, experiment.condition) == ("train", condition)
    assert not {"algorithm", "skip_ahead", "entropy_bonus"} & experiment.flat().keys()
    assert ("reward_noise" in experiment.flat()) == (given.get("teacher") == "observer")
    with pytest.raises(ConfigError, match="algorithm=grpo belongs to signal=reward: leave algorithm out"):
        make_experiment({"signal": "teacher", "algorithm": "grpo", **given})


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("teacher_error=0.5", ["teacher_error=0.5", "[0, 0.5)"]),
        ("teacher_top_k=3", ["teacher_top_k=3", "add told=top_k"]),
        ("told=sampled divergence=forward", ["divergence=forward", "use told=top_k"]),
        ("reward_type=binary", ["reward_type=binary", "signal=reward or teacher=observer", "leave"]),
        ("teacher=observer teacher_error=0.1", ["teacher_error=0.1", "use teacher=secret"]),
        ("teacher=there scoring=paths", ["scoring=paths", "teacher=there", "leave scoring out"]),
        ("teacher=there N=4096", ["N=4096", "teacher=there", "N=2048"]),
        ("backend=tinker", ["told=whole", "backend=tinker", "use told=sampled"]),
        ("backend=tinker told=sampled teacher=there", ["teacher=there", "teacher=observer"]),
        (
            "backend=tabular N=4096 group_size=2048 max_episodes=9999",
            ["group_size * batch_size = 2048", "1024"],
        ),
        ("teacher=observr", ["teacher=observr", "neither secret nor observer", "save_adapters=True"]),
    ],
)
def test_what_does_not_go_with_a_teacher_is_refused(words, parts, capsys):
    said = complaint("train", f"signal=teacher {words}", capsys)
    assert all(part in said for part in parts), said


def test_another_number_is_another_experiment():
    changes = [{"N": 32}, {"seed": 1}, {"group_size": 2}, {"learning_rate": 1e-3}, {"ledger": False}]
    changes += [{"algorithm": "grpo"}, {"env_type": "multi_step"}, {"reward_noise": 0.1}, {"stop_at": 0.9}]
    resolved = [make_experiment(change).resolved() for change in [{}, *changes]]
    assert all(one != other for place, one in enumerate(resolved) for other in resolved[:place])


def test_a_file_of_ones_own_is_what_it_holds():
    Path("own.py").write_text("def near(answer, secret):\n    return -abs(answer - secret)\n")
    mine = make_experiment({"reward_type": "own.py:near"})
    first = hash_inputs(mine)
    assert hash_inputs(make_experiment({"reward_type": "own.py:near"})) == first != {}
    Path("own.py").write_text("def near(answer, secret):\n    return -((answer - secret) ** 2)\n")
    assert hash_inputs(mine) != first


def test_flat_holds_no_key_that_has_no_meaning():
    flat = make_experiment({}).flat()
    assert not {"ppo_clip", "posterior_epochs", "credit", "tabular_bits", "order", "reward_bins"} & set(flat)
    assert make_experiment(flat).flat() == flat
    assert set(flat) <= set(KEYS)


CONDITIONS = {
    "binary": ("train", {}),
    "log_distance": ("train", {"reward_type": "log_distance"}),
    "binned_log_distance": ("train", {"reward_type": "binned_log_distance", "reward_bins": 2}),
    "multi_step": ("train", {"env_type": "multi_step"}),
    "sft": ("sft", {}),
}


@pytest.mark.parametrize(("command", "keys"), CONDITIONS.values(), ids=CONDITIONS)
def test_two_secrets_are_the_smallest_world_and_run_with_defaults(command, keys):
    result = getattr(memory_rl, command)(N=2, backend="tabular", **keys)
    (summary,) = result.summary.values()
    assert summary["memorised"] == summary["runs"] == 16
    assert result.config["memorised_at"] == 0.75  # a guess is right half of the time
    assert result.metrics["episode"].max() > 0


# Ranges

NUMBERS = {
    f"{kind}: {word}": one
    for kind, keys in {
        "experiment": KEYS,
        "bounds": bounds_keys(),
        "data": keys_of(DataFiles),
        "report": keys_of(ReportConfig),
        "sweep": keys_of(SweepConfig),
        "tuning": keys_of(Tuning),
    }.items()
    for word, one in keys.items()
    if {int, float} & {*members(one.hint)}
}


@pytest.mark.parametrize("one", NUMBERS.values(), ids=NUMBERS)
def test_every_number_has_a_range_and_is_refused_beyond_its_ends(one):
    (least, most), whole = one.within, int in members(one.hint)
    low, high = (one.above if least is None else least), (one.below if most is None else most)
    assert low is not None
    assert high is not None
    assert high <= (2**63 - 1 if whole else 1e38)
    beyond = [low - 1, high + 1, 10**23, 10**400, 10**5000] if whole else [-1.0, 1.1 * high, 1e308, math.inf]
    for number in [*beyond, *([] if whole else [-math.inf, math.nan])]:
        for given, typed in ((number, True), (f"{number}" if abs(number) < 10**4000 else "9" * 5000, False)):
            with pytest.raises(ConfigError) as caught:
                accept(one, given, typed=typed)
            assert str(caught.value).startswith(f"{one.word}=")
    for end in (least, most):
        if end is not None:
            kind = int if whole else float
            assert accept(one, kind(end), typed=True) == accept(one, str(kind(end))) == end


TOO_MUCH = {
    "train group_size=1048576 batch_size=1048576 max_episodes=1000000000000000": "= 1048576 or less",
    "train group_size=1024 batch_size=1024 num_runs=17 max_episodes=1048576": "= 986895 or less",
    "train env_type=multi_step group_size=1048576 num_runs=4 max_episodes=1048576": "= 699050 or less",
    "sft-train batch_size=1048576 num_runs=17 max_episodes=1048576": "use batch_size = 986895 or less",
    "sft-data-gen num_train=10000000000000": "num_train=1048576 or less",
    "sft-data-gen N=9999999999999999999999999": "N=9007199254740992 or less",
    "bounds N=9999999999999999999999999": "N=9007199254740992 or less",
    "bounds N=16777217": "N=16777217 is too large to tabulate this channel: use N=16777216 or less.",
    "bounds N=16777217 signal=example": "use N=16777216 or less.",
    "train lora_alpha=1e308": "lora_alpha=1e+308 is not a positive number from 1e-06 to 1e+06",
    "train learning_rate=1e308": "learning_rate=1e+308 is not a positive number from 1e-38 to 1e+38",
    "train learning_rate=1e-320": "learning_rate=",
    "train backend=tabular num_secrets=3 memorised_share=1e-10": "memorised_share=1e-10 is not",
    "train threads=100000": "threads=1024 or less",
    "train max_episodes=100000000000000000000": "max_episodes=1000000000000000 or less",
    "train seed=9223372036854775808": "seed=9223372036854775807 or less",
    "sweep conditions=sft tune=True tune_seed=9223372036854775808": "tune_seed=9223372036854775807 or less",
    "sweep conditions=sft executor=processes workers=100000": "workers=1024 or less",
}


@pytest.mark.parametrize(("words", "advice"), TOO_MUCH.items())
def test_what_cannot_fit_is_refused_and_not_tried(words, advice, capsys):
    command, *rest = words.split()
    assert advice in complaint(command, " ".join(rest), capsys)


def test_more_threads_than_cores_are_not_asked_for(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    asked = []
    monkeypatch.setattr("torch.set_num_threads", asked.append)
    for threads in (1, 3, 1024):
        memory_rl.train(backend="tabular", N=4, num_runs=1, max_episodes=4, threads=threads)
    assert asked == [1, 3, 3]


TEXTS = {
    "log_path": "train", "data_dir": "sft-data-gen", "model_name": "train", "reward_type": "bounds",
    "algorithm": "train", "grid": "sweep", "protocol": "sweep", "out": "report", "runs": "report",
    "title": "report",
}  # fmt: skip


@pytest.mark.parametrize(("word", "command"), TEXTS.items())
@pytest.mark.parametrize("text", ["a\0b", "a\nb", "\x1b[31m", "a\ud800b", "a" * 256 + ":b", "a/" * 3000])
def test_a_text_that_can_name_no_file_is_refused_on_one_line(command, word, text, capsys):
    assert main([command, f"{word}={text}"]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(rf"memory-rl: {word}=[ -~]*(leave it out|shorten it)\.\n", said)


def test_an_error_quotes_no_more_than_a_screen_of_what_was_given(capsys):
    for argv in (
        ["train", "x" * 100_000],
        ["x" * 100_000],
        ["train", f"{'x' * 100_000}=1"],
        ["train", "a\nb=1"],
    ):
        assert main(argv) == 2
        said = capsys.readouterr().err
        assert len(said) < 2100
        assert said.count("\n") == 1
        assert said.endswith((".\n", "?\n"))
