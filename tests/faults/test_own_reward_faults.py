"""A reward of one's own that cannot be used stops before any work: one sentence that names it and says what
to type instead; exit code 2; nothing written."""

import importlib.util
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import complaint

import memory_rl
from memory_rl.cli import main
from memory_rl.task import as_reward, load_reward, tabulate

GOOD = (
    "def near(answer, secret):\n    return -abs(answer - secret)\n\n\n"
    "class Judge:\n    def reward(self, answer, secret):\n        return answer == secret\n"
)


REFERENCES = {
    "no such file": ("nowhere.py:near", ["there is no nowhere.py", "reward_type=my_file.py:Name"]),
    "a folder": ("folder:near", ["there is no folder", "reward_type=my_file.py:Name"]),
    "a module, not a file": (
        "my_rewards:near",
        ["there is no my_rewards", "did you mean reward_type=my_rewards.py:near?"],
    ),
    "no path": (":near", ["there is no path before the colon", "reward_type=my_file.py:Name"]),
    "no name": ("my_rewards.py:", ["no name follows the colon", "use one of near, Judge."]),
    "a mistyped name": ("my_rewards.py:naer", ["my_rewards.py has no naer", "did you mean near?"]),
    "another name": ("my_rewards.py:tall", ["my_rewards.py has no tall", "use one of near, Judge."]),
    "a name in an empty file": ("empty.py:near", ["empty.py has no near", "def my_reward(answer, secret)"]),
    "no reward": ("data.py:weight", ["data.py:weight is not a reward", "reward(answer, secret)"]),
    "no Python": (
        "my_rewards.txt:near",
        ["my_rewards.txt cannot be run", "SyntaxError", "line 1", "fix the file"],
    ),
}


@pytest.mark.parametrize(("reference", "parts"), REFERENCES.values(), ids=REFERENCES.keys())
@pytest.mark.parametrize("command", ["train", "bounds", "sweep"])
def test_a_reference_that_names_no_reward(reference, parts, command, capsys):
    Path("my_rewards.py").write_text(GOOD)
    Path("my_rewards.txt").write_text("near = the distance\n")
    Path("data.py").write_text("weight = 3\n")
    Path("empty.py").write_text("")
    Path("folder").mkdir()
    sentence = complaint(command, f"N=4 reward_type={reference}", capsys)
    for part in [f"reward_type={reference}", *parts]:
        assert part in sentence


FILES = {
    "syntax": (
        "def f(answer, secret:\n    return 1\n",
        ["cannot be run (SyntaxError:", "line 1", "fix the file"],
    ),
    "import": (
        "import math\nimport nowhere_to_be_found\n",
        ["ModuleNotFoundError", "'nowhere_to_be_found'", "bad.py, line 2", "fix the file"],
    ),
    "raises": (
        "def g():\n    raise ValueError('one\\ntwo')\n\n\ng()\n",
        ["cannot be run (ValueError: one two in bad.py, line 2)", "fix the file"],
    ),
    "exits": (
        "import sys\nsys.exit('gone')\n",
        ["cannot be run (SystemExit: gone in bad.py, line 2)", "fix the file"],
    ),
    "not text": ("\0\0", ["cannot be run", "fix the file"]),
}


def test_a_sweep_asks_for_all_rewards_before_it_runs_the_first_cell(capsys):
    Path("late.py").write_text("def late(answer, secret):\n    return [0, 1, 2][secret]\n")
    sentence = complaint("sweep", "conditions=sft,late.py:late N=3,4 log_path=none", capsys)
    assert "failed for answer=0, secret=3 (IndexError" in sentence
    assert not Path("none").exists()


@pytest.mark.parametrize(("text", "parts"), FILES.values(), ids=FILES.keys())
def test_a_file_that_cannot_be_run(text, parts, capsys):
    Path("bad.py").write_text(text)
    path, modules = list(sys.path), set(sys.modules)
    sentence = complaint("train", "N=4 reward_type=bad.py:f", capsys)
    for part in ["reward_type=bad.py:f", *parts]:
        assert part in sentence
    assert sys.path == path
    assert {name for name in set(sys.modules) - modules if name.startswith("own_")} == set()


BODIES = {
    "raises": (
        "return 1 // (answer - secret)",
        [
            "failed for answer=0, secret=0 (ZeroDivisionError: integer",
            "in rewards.py, line 2)",
            "from 0 to N - 1",
        ],
    ),
    "raises late": (
        "return [0, 1, 2][secret]",
        ["failed for answer=0, secret=3 (IndexError: list index out of range in rewards.py, line 2)"],
    ),
    "asserts": (
        "assert answer < 2; return secret",
        ["failed for answer=2, secret=0 (AssertionError in rewards.py, line 2)"],
    ),
    "exits": ("raise SystemExit", ["failed for answer=0, secret=0 (SystemExit in rewards.py, line 2)"]),
    "nothing": ("pass", ["gave None for answer=0, secret=0", "not a number", "mapping"]),
    "nothing for some": (
        "if answer != 2 or secret != 3: return answer == secret",
        ["gave None for answer=2, secret=3", "return a number"],
    ),
    "text": ("return '0.5'", ["gave '0.5' for", "not a number"]),
    "list": ("return [0.5, 0.5]", ["gave [0.5, 0.5] for", "not a number", "mapping"]),
    "array": ("import numpy; return numpy.ones(1)", ["gave array([1.]) for", "not a number"]),
    "complex": ("return 1j", ["gave 1j for", "not a number"]),
    "long": ("return 'word ' * 1000", ["gave 'word word", "not a number"]),
    "a number of texts": ("return {'right': 1.0}", ["gave {'right': 1.0} for", "not a number"]),
    "not a probability": ("return {1: None}", ["gave {1: None} for", "not a number"]),
    "not a number": (
        "return float('nan')",
        ["gave nan for answer=0, secret=0", "not finite", "finite rewards"],
    ),
    "infinite": (
        "return -float('inf') if answer == secret else 1",
        ["gave -inf for answer=0, secret=0", "not finite"],
    ),
    "too large": ("return 10 ** 400", ["not finite", "finite rewards"]),
    "infinite by chance": (
        "return {float('inf'): 0.5, 0: 0.5}",
        ["gave {0: 0.5, inf: 0.5} for", "not finite"],
    ),
    "sums to less": (
        "return {1: 0.4, 0: 0.5} if answer == secret else 0",
        ["gave {0: 0.5, 1: 0.4} for", "sum to 0.9", "sum to 1"],
    ),
    "sums to more": ("return {1: 0.75, 0: 0.5}", ["sum to 1.25", "sum to 1"]),
    "empty": ("return {}", ["gave {} for answer=0, secret=0", "sum to 0:", "sum to 1."]),
    "negative": ("return {1: -0.25, 0: 1.25}", ["with a probability of -0.25", "from 0 to 1"]),
    "above one": ("return {1: 1.5}", ["with a probability of 1.5", "from 0 to 1"]),
    "no number as a probability": ("return {1: float('nan')}", ["with a probability of nan", "from 0 to 1"]),
    "constant": ("return 0.5", ["does not depend on the secret at N=4", "reward some secrets differently"]),
    "constant chance": ("return {1: 0.5, 0: 0.5}", ["does not depend on the secret at N=4"]),
    "signed zeros": ("return 0.0 if answer == secret else -0.0", ["does not depend on the secret at N=4"]),
    "the answer alone": (
        "return answer",
        ["does not depend on the secret at N=4", "reward some secrets differently"],
    ),
    "chance of the answer alone": ("return {answer: 0.5, 9: 0.5}", ["does not depend on the secret at N=4"]),
    "chance unsaid": (
        "import random; return random.random() < 0.5",
        ["gave two different rewards for answer=", "mapping from each reward to its probability"],
    ),
    "one argument": (
        "",
        ["cannot be called as reward(answer, secret)", "give it these two parameters, and N"],
    ),
}


@pytest.mark.parametrize(("body", "parts"), BODIES.values(), ids=BODIES.keys())
def test_a_function_that_gives_no_reward(body, parts, capsys):
    Path("rewards.py").write_text(
        f"def f(answer, secret):\n    {body}\n" if body else "def f(answer):\n    return answer\n"
    )
    sentence = complaint("train", "N=4 reward_type=rewards.py:f", capsys)
    for part in ["reward_type=rewards.py:f", *parts]:
        assert part in sentence
    assert len(sentence) < 500


class WantsMore:
    def __init__(self, N, weight):
        pass


class Fails:
    def __init__(self, N):
        raise RuntimeError(f"not with {N}")


@dataclass
class FailsLater:
    N: int

    def __post_init__(self):
        raise RuntimeError("no")


class Silent:
    pass


class WithoutSelf:
    def reward(answer, secret):  # noqa: N805
        return answer == secret


class OddlyCalled:
    def reward(self, answer, N, secret):
        return answer == secret


OBJECTS = {
    "its parameters in another order": (
        lambda secret, answer: answer - secret,
        ["takes secret, then answer", "write its parameters in that order"],
    ),
    "a class with more parameters": (
        WantsMore,
        ["cannot be made (TypeError", "'weight'", "give all others defaults"],
    ),
    "a class that fails": (
        Fails,
        [
            "cannot be made (RuntimeError: not with 4 in test_own_reward_faults.py, line",
            "give all others defaults",
        ],
    ),
    "a dataclass that fails": (
        FailsLater,
        ["cannot be made (RuntimeError: no in test_own_reward_faults.py, line", "give all others defaults"],
    ),
    "a class without a reward": (Silent, ["is not a reward", "reward(answer, secret)"]),
    "a method without self": (
        WithoutSelf,
        ["cannot be called as reward(answer, secret)", "these two parameters"],
    ),
    "N in between": (OddlyCalled, ["cannot be called as reward(answer, secret)", "these two parameters"]),
    "a function of three": (
        lambda answer, secret, weight: 0,
        ["cannot be called as reward(answer, secret)", "'weight'"],
    ),
    "a generator": (lambda answer, secret: (level for level in (0, 1)), ["<generator", "not a number"]),
}


@pytest.mark.parametrize(("given", "parts"), OBJECTS.values(), ids=OBJECTS.keys())
@pytest.mark.parametrize("ask", [memory_rl.train, memory_rl.bounds], ids=["train", "bounds"])
def test_an_object_that_is_no_reward(given, parts, ask):
    with pytest.raises(memory_rl.ConfigError) as caught:
        ask(N=4, reward_type=given)
    sentence = str(caught.value)
    for part in ["reward_type=", *parts]:
        assert part in sentence
    assert "\n" not in sentence
    assert sentence.endswith((".", "?"))
    assert not Path("runs").exists()


@pytest.mark.parametrize("N", [2, 3, 64, 300])
def test_a_reward_that_changes_is_found_at_any_size(N):
    for reward in (
        lambda call, pair: call % 7 < 2,
        lambda call, pair: pair if call < N * N + 1000 else not pair,
    ):
        calls = itertools.count()

        def changing(answer, secret, reward=reward, calls=calls):
            return reward(next(calls), answer == secret)

        with pytest.raises(memory_rl.ConfigError, match="gave two different rewards"):
            tabulate(changing, N, "changing")


def test_a_reward_that_fails_the_second_time_is_found():
    left = [0] * 16
    with pytest.raises(
        memory_rl.ConfigError, match=r"failed for answer=\d, secret=\d \(IndexError: pop from empty list in "
    ):
        tabulate(lambda answer, secret: left.pop() + (answer == secret), 4, "used up")


def test_the_cause_is_kept_for_whoever_calls_from_python():
    with pytest.raises(memory_rl.ConfigError) as caught:
        memory_rl.bounds(N=4, reward_type=lambda answer, secret: 1 // answer)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    "text", ["raise KeyboardInterrupt\n", "def f(answer, secret):\n    raise KeyboardInterrupt\n"]
)
def test_an_interrupt_is_no_fault_of_the_file(text, capsys):
    Path("rewards.py").write_text(text)
    assert main(["train", "N=4", "reward_type=rewards.py:f"]) == 130
    assert not Path("runs").exists()


@pytest.mark.parametrize("limit", ["_MOST_LAWS", "_MOST_CELLS"])
def test_a_table_that_would_fill_the_memory(limit, monkeypatch):
    module = sys.modules["memory_rl.task.own_reward"]

    def judge(answer, secret):
        return {1: 1 / (2 + answer + 16 * secret), 0: 1 - 1 / (2 + answer + 16 * secret)}

    tabulate(judge, 16, "judge")
    monkeypatch.setattr(module, limit, 200)
    with pytest.raises(
        memory_rl.ConfigError,
        match="too many different distributions at N=16: round its rewards and probabilities",
    ):
        tabulate(judge, 16, "judge")


def test_multi_step_takes_no_reward(capsys):
    Path("rewards.py").write_text(GOOD)
    assert "leave reward_type out" in complaint(
        "train", "N=4 env_type=multi_step reward_type=rewards.py:near", capsys
    )


def test_a_file_that_is_loaded_twice_is_the_newer_one():
    Path("rewards.py").write_text(GOOD)
    first = load_reward("rewards.py:Judge")
    Path("rewards.py").write_text(GOOD.replace("answer == secret", "answer != secret"))
    second = load_reward("rewards.py:Judge")
    assert as_reward(first, 4, "first")(1, 1)
    assert not as_reward(second, 4, "second")(1, 1)
    assert importlib.util.find_spec("rewards") is None
