"""A reward of one's own: the same experiment as the built-in channel that says the same, whatever shape the
user gave it."""

import json
import math
import re
import sys
from collections import UserDict
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cache, partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers import likelihoods_of
from polars.testing import assert_frame_equal

import memory_rl
from memory_rl.cli import main
from memory_rl.errors import ConfigError
from memory_rl.reporting import pictures
from memory_rl.task import INVALID, as_reward, load_reward, make_channel, table_of, tabulate

EXAMPLES = Path(__file__).parents[2] / "docs" / "my_rewards.py"


@pytest.fixture(autouse=True)
def _no_figures(request, monkeypatch):
    """Drawing takes most of a small run's time; one test leaves it in."""
    if "figures" not in request.fixturenames:
        monkeypatch.setattr(pictures, "draw_run", lambda _: [])


@pytest.fixture
def figures():
    """Asks for a run's figures to be drawn."""


def example(name: str):
    return load_reward(f"{EXAMPLES}:{name}")


def channel_of(given, N: int = 16):
    return tabulate(as_reward(given, N, "test"), N, "test")


def expected_rewards(channel, N: int) -> np.ndarray:
    return channel.mean_rewards[table_of(channel, N)]


def train(name: str, **settings) -> memory_rl.Result:
    return memory_rl.train(
        backend="tabular", log_path=name, **{"N": 16, "num_runs": 8, "max_episodes": 120, **settings}
    )


def own_binary(answer, secret):
    return int(answer == secret)


class OwnBinned:
    def __init__(self, N):
        self.information = math.log2(N)

    def reward(self, answer, secret):
        return round(max(0.0, 1 - math.log2(1 + abs(answer - secret)) / self.information) * 7) / 7


BUILT_IN = {
    "binary": (own_binary, {"reward_type": "binary"}),
    "binned": (OwnBinned, {"reward_type": "binned_log_distance", "reward_bins": 8}),
}


@pytest.mark.parametrize(("own", "built_in"), BUILT_IN.values(), ids=BUILT_IN.keys())
@pytest.mark.parametrize("N", [2, 16, 37, 64])
def test_it_has_the_rewards_and_the_ceilings_of_the_built_in_channel(own, built_in, N):
    theirs = make_channel(built_in["reward_type"], N, built_in.get("reward_bins"))
    ours = channel_of(own, N)
    np.testing.assert_array_equal(ours.levels, theirs.levels)
    answers, secrets = np.arange(N)[:, None], np.arange(N)
    np.testing.assert_array_equal(ours.rewards(answers, secrets), theirs.rewards(answers, secrets))
    is_hit = ours.kind == "hit"
    assert is_hit == (theirs.name == "binary" or N == 2)  # of two answers, the near one is the secret
    memorised_at = 0.5 if N > 2 else 0.9
    mine = memory_rl.bounds(N=N, reward_type=own, memorised_at=memorised_at).as_dict()
    built = memory_rl.bounds(N=N, memorised_at=memorised_at, **built_in).as_dict()
    if is_hit:  # a closed form of the same number
        assert mine["ideal_questioner"]["method"] == "exact"
        mine["optimal_to_know"] = built["optimal_to_know"] = mine["ideal_questioner"]["method"] = built[
            "ideal_questioner"
        ]["method"] = None
    assert flat(mine) == pytest.approx(flat(built), abs=1e-12)


def flat(ceilings: dict) -> dict:
    return {
        f"{key}.{part}": value
        for key, parts in ceilings.items()
        for part, value in (parts if isinstance(parts, dict) else {"": parts}).items()
    }


@pytest.mark.parametrize(("own", "built_in"), BUILT_IN.values(), ids=BUILT_IN.keys())
def test_it_trains_to_the_same_bytes_as_the_built_in_channel(own, built_in):
    mine, built = train("mine", reward_type=own), train("built", **built_in)
    assert (mine.path / "metrics.parquet").read_bytes() == (built.path / "metrics.parquet").read_bytes()
    assert (mine.path / "episodes.parquet").read_bytes() == (built.path / "episodes.parquet").read_bytes()
    assert mine.metrics["bits_known"].max() > 2  # and not because nothing happened


def test_a_judge_who_errs_is_the_binary_channel_with_noise():
    N = 64
    mine, built = (
        memory_rl.bounds(N=N, reward_type=example("noisy_judge")),
        memory_rl.bounds(N=N, reward_type="binary", reward_noise=0.1),
    )
    assert mine.first_episode.best == pytest.approx(built.first_episode.best, abs=1e-12)
    assert mine.first_episode.mean == pytest.approx(built.first_episode.mean, abs=1e-12)
    assert mine.shannon_capacity == pytest.approx(built.shannon_capacity, abs=1e-8)
    assert mine.shannon_capacity == pytest.approx(1 - binary_entropy(0.1), abs=1e-8)
    assert mine.ideal_questioner.to_reach == pytest.approx(
        built.ideal_questioner.to_reach, rel=0.1
    )  # 512 games; ties are broken by rounding
    judged, noisy = train("judged", reward_type=example("noisy_judge")), train("noisy", reward_noise=0.1)
    assert_frame_equal(judged.episodes, noisy.episodes, check_exact=True)
    assert_frame_equal(judged.metrics, noisy.metrics, abs_tol=1e-9)
    assert set(judged.episodes["reward"].unique()) == {0.0, 1.0}


def binary_entropy(p: float) -> float:
    return sum(-q * math.log2(q) for q in (p, 1 - p) if q > 0)


@pytest.mark.parametrize("N", [5, 16])
@pytest.mark.parametrize("settings", [{}, {"reward_noise": 0.2}])
def test_the_ceilings_of_a_judge_are_those_of_brute_force(N, settings):
    judge, noise = example("NearnessJudge")(N), settings.get("reward_noise", 0.0)

    def liked(answer, secret):
        p = judge.reward(answer, secret)[1]
        return (1 - noise) * p + noise * (1 - p)

    told = []
    for answer in range(N):
        chances = [liked(answer, secret) for secret in range(N)]
        told.append(binary_entropy(sum(chances) / N) - sum(map(binary_entropy, chances)) / N)
    limits = memory_rl.bounds(N=N, reward_type=example("NearnessJudge"), **settings)
    assert limits.first_episode.best == pytest.approx(max(told), abs=1e-12)
    assert limits.first_episode.mean == pytest.approx(sum(told) / N, abs=1e-12)
    extremes = liked(0, 0), liked(0, N - 1)  # a channel with two outputs needs no other inputs
    weights = np.linspace(0, 1, 100_001)
    yes = weights * extremes[0] + (1 - weights) * extremes[1]
    capacity = (
        -yes * np.log2(yes)
        - (1 - yes) * np.log2(1 - yes)
        - weights * binary_entropy(extremes[0])
        - (1 - weights) * binary_entropy(extremes[1])
    )
    assert limits.shannon_capacity == pytest.approx(capacity.max(), abs=1e-8)
    assert limits.capacity == 1.0
    assert limits.secret_is_best


@pytest.mark.parametrize("N", [12, 64])
def test_the_ideal_questioner_of_higher_or_lower_searches_by_halves(N):
    @cache
    def least(candidates: int) -> float:
        """Expected questions until one of an interval of candidates is left."""
        if candidates <= 1:
            return 0.0
        return 1 + min(
            (left * least(left) + (candidates - 1 - left) * least(candidates - 1 - left)) / candidates
            for left in range(candidates)
        )

    parts = [[1 / N, answer / N, (N - 1 - answer) / N] for answer in range(N)]
    told = [sum(-p * math.log2(p) for p in part if p > 0) for part in parts]
    limits = memory_rl.bounds(N=N, reward_type=example("higher_or_lower"))
    assert limits.first_episode.best == pytest.approx(max(told), abs=1e-12)
    assert limits.first_episode.mean == pytest.approx(sum(told) / N, abs=1e-12)
    assert limits.first_episode.best < 1.5
    assert (
        least(N) - 1e-12 <= limits.ideal_questioner.to_know < least(N) + 0.1
    )  # to be greedy costs it little
    assert math.log2(N) / math.log2(3) < limits.ideal_questioner.to_know <= math.log2(N)
    assert limits.optimal_to_know == (pytest.approx(least(N)) if N <= 12 else None)
    assert limits.secret_is_best


def test_a_reward_that_pays_another_answer_more_is_told(capsys):
    assert main(["bounds", "N=64", f"reward_type={EXAMPLES}:way_to_go"]) == 0
    out = capsys.readouterr().out
    assert "another answer earns more than the secret itself" in out
    assert main(["bounds", "N=64", f"reward_type={EXAMPLES}:higher_or_lower"]) == 0
    assert "note" not in capsys.readouterr().out
    signs, halves = (
        memory_rl.bounds(N=64, reward_type=example(name)) for name in ("way_to_go", "higher_or_lower")
    )
    assert signs.first_episode == halves.first_episode  # it tells as much all the same
    assert signs.ideal_questioner == halves.ideal_questioner


def test_the_documentation_shows_what_the_example_file_does():
    page = EXAMPLES.with_name("own_reward.md").read_text()
    shown = {"dataclass": dataclass, "math": math}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        if "def " in block:
            exec(block, shown)  # noqa: S102
    for name in ("higher_or_lower", "noisy_judge", "NearnessJudge"):
        ours, theirs = channel_of(shown[name]), channel_of(example(name))
        np.testing.assert_array_equal(table_of(ours, 16), table_of(theirs, 16))
        np.testing.assert_array_equal(ours.levels, theirs.levels)
        np.testing.assert_array_equal(ours.outcomes, theirs.outcomes)
        limits = memory_rl.bounds(N=64, reward_type=example(name))
        for value in (
            limits.capacity,
            limits.shannon_capacity,
            limits.first_episode.best,
            limits.first_episode.mean,
        ):
            assert f"| {value:.4g} |" in page
        if limits.ideal_questioner.to_know is not None:
            assert f"knows S | {limits.ideal_questioner.to_know:.4g} | episodes |" in page


# What a reward may look like


class Plain:
    def reward(self, answer, secret):
        return abs(answer - secret)


class WithN:
    def __init__(self, N, offset=0):
        self.N, self.offset = N, offset

    def reward(self, answer, secret):
        assert self.N == 16
        return abs(answer - secret) + self.offset


class Callable:
    def __call__(self, answer, secret):
        return abs(answer - secret)


class Static:
    reward_type = None

    @staticmethod
    def reward(answer, secret, N):
        assert N == 16
        return abs(answer - secret)


def with_N(answer, secret, N=None):
    assert N == 16
    return abs(answer - secret)


def scaled(answer, secret, factor):
    return abs(answer - secret) * factor


SHAPES = {
    "function": lambda answer, secret: abs(answer - secret),
    "function with N": with_N,
    "partial": partial(scaled, factor=1),
    "class": Plain,
    "class with N": WithN,
    "class that is called": Callable,
    "class with a static method": Static,
    "object": Plain(),
    "object made with more": WithN(16, offset=0),
    "object that is called": Callable(),
    "bound method": Plain().reward,
    "NumPy function": lambda answer, secret: np.abs(np.int64(answer) - secret),
    "NumPy float": lambda answer, secret: np.float32(abs(answer - secret)),
    "0-d array": lambda answer, secret: np.array(abs(answer - secret)),
    "0-d array as probability": lambda answer, secret: {abs(answer - secret): np.array(1.0)},
    "fraction": lambda answer, secret: Fraction(2 * abs(answer - secret), 2),
    "one now and then": lambda answer, secret: (
        Decimal(answer - secret) if answer > secret else float(secret - answer)
    ),
    "certain mapping": lambda answer, secret: {abs(answer - secret): 1.0},
    "another mapping": lambda answer, secret: UserDict({abs(answer - secret): 1}),
    "mapping with an impossible level": lambda answer, secret: {abs(answer - secret): 1.0, -7.0: 0.0},
    "mapping or number": lambda answer, secret: (
        {float(abs(answer - secret)): 1.0} if answer % 2 else abs(answer - secret)
    ),
}


@pytest.mark.parametrize("given", SHAPES.values(), ids=SHAPES.keys())
def test_one_reward_in_many_shapes_is_one_channel(given):
    channel = channel_of(given)
    assert channel.certain
    np.testing.assert_array_equal(channel.levels, np.arange(16.0))
    np.testing.assert_array_equal(table_of(channel, 16), abs(np.arange(16)[:, None] - np.arange(16)))


def test_bools_and_signed_zeros_are_numbers():
    for zero in (-0.0, {-0.0: 1.0}):
        channel = channel_of(lambda answer, secret, zero=zero: answer == secret or zero)
        np.testing.assert_array_equal(channel.levels, [0.0, 1.0])
        assert not np.signbit(channel.levels).any()
    mapped = channel_of(
        lambda answer, secret: (
            {-0.0: 0.5, 1: 0.5} if answer < secret else {0.0: 0.5, 1: 0.5} if answer > secret else {1: 1}
        )
    )
    assert not np.signbit(mapped.levels).any()
    assert len(mapped.outcomes) == 3  # lowest level, top level, half and half


def test_a_law_is_merged_and_normalised():
    third = 1 / 3

    def reward(answer, secret):
        if answer == secret:
            return {Decimal("0.1"): third, 0.1: third, 2: 1 - third - third}
        return {0.1: 1.0 + 1e-12, 2: -1e-17}

    channel = channel_of(reward)
    np.testing.assert_array_equal(channel.levels, [0.1, 2.0])
    np.testing.assert_allclose(likelihoods_of(channel, 3, 3), [2 / 3, 1 / 3], atol=1e-12)
    np.testing.assert_array_equal(likelihoods_of(channel, 3, 4), [1.0, 0.0])
    rounded = channel_of(lambda answer, secret: {1: 0.7, 0: 0.3 + 5e-10} if answer == secret else 0)
    np.testing.assert_allclose(rounded.outcomes.sum(axis=1), 1.0, rtol=0, atol=1e-15)


def test_levels_are_compared_exactly():
    assert (
        len(
            channel_of(
                lambda answer, secret: 0.1 + 0.2 if answer > secret else 0.3 if answer < secret else 1
            ).levels
        )
        == 3
    )
    assert (
        len(
            channel_of(
                lambda answer, secret: round(
                    0.1 + 0.2 if answer > secret else 0.3 if answer < secret else 1, 9
                )
            ).levels
        )
        == 2
    )


def test_numbers_and_laws_may_be_mixed():
    def reward(answer, secret):
        return 3 if answer == secret else {5: 0.25, -1: 0.75} if answer < secret else 0.5

    channel = channel_of(reward, 4)
    np.testing.assert_array_equal(channel.levels, [-1.0, 0.5, 3.0, 5.0])
    expected = [[3.0 if a == s else 0.5 * (a > s) + 0.5 * (a < s) for s in range(4)] for a in range(4)]
    np.testing.assert_allclose(expected_rewards(channel, 4), expected)
    np.testing.assert_allclose(likelihoods_of(channel, 1, 2), [0.75, 0, 0, 0.25])
    np.testing.assert_array_equal(likelihoods_of(channel, 1, 1), [0, 0, 1, 0])
    np.testing.assert_allclose(
        likelihoods_of(channel_of(lambda a, s: reward(a, s) if a % 2 else Fraction(a == s), 4), 1, 2),
        [0.75, 0, 0, 0, 0, 0.25],
    )


@pytest.mark.parametrize("name", ["higher_or_lower", "NearnessJudge", "way_to_go"])
def test_an_invalid_answer_earns_the_lowest_level_and_tells_nothing(name):
    channel = channel_of(example(name))
    uniforms = np.linspace(0, 0.999, 16)
    np.testing.assert_array_equal(
        channel.rewards(np.full(16, INVALID), np.arange(16), uniforms), channel.levels[0]
    )
    likelihoods = likelihoods_of(channel, np.array(INVALID), np.arange(16))
    assert (likelihoods == likelihoods[0]).all()


def test_rewards_come_as_often_as_they_were_said_to():
    channel = channel_of(lambda answer, secret: {0: 0.2, 1: 0.5, 7: 0.3} if answer == secret else 0)
    uniforms = (np.arange(1000) + 0.5) / 1000
    drawn = channel.rewards(np.full(1000, 4), np.array(4), uniforms)
    assert [int((drawn == level).sum()) for level in (0, 1, 7)] == [200, 500, 300]
    assert (channel.rewards(np.full(1000, 4), np.array(5), uniforms) == 0).all()


def test_noise_of_the_configuration_comes_on_top():
    result = train("noisy", reward_type=example("higher_or_lower"), reward_noise=0.3, max_episodes=4)
    table = np.load(result.path / "channel.npz")
    np.testing.assert_allclose(table["outcomes"], 0.7 * np.eye(3) + 0.15 * (1 - np.eye(3)))
    np.testing.assert_array_equal(table["levels"], [0.0, 0.5, 1.0])


def test_each_pair_is_asked_once_and_many_are_asked_again():
    asked = []

    def reward(answer, secret):
        asked.append((answer, secret))
        return answer - secret

    channel_of(reward, 64)
    assert len(asked) == 2 * 64**2
    assert set(asked[: 64**2]) == set(asked[64**2 :]) == {(a, s) for a in range(64) for s in range(64)}
    assert {type(number) for pair in asked for number in pair} == {int}
    asked.clear()
    channel_of(reward, 300)
    assert 300**2 < len(asked) <= 300**2 + 2**16


# Files


def write(text: str, path: str = "rewards.py") -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    return path


BINARY = "def reward(answer, secret):\n    return {} if answer == secret else 0\n"


def test_a_file_is_read_afresh_each_time():
    for top in (1, 2, 3):  # of one length, and within one second
        assert channel_of(load_reward(f"{write(BINARY.format(top))}:reward")).levels[-1] == top
    assert not Path("__pycache__").exists()


def test_a_file_may_hold_dataclasses_and_import_what_lies_beside_it():
    write("WEIGHT = 5\n", "folder/own_reward_weights_beside.py")
    text = (
        "from __future__ import annotations\n"
        "from dataclasses import KW_ONLY, dataclass, field\n"
        "from own_reward_weights_beside import WEIGHT\n\n"
        "@dataclass\nclass Weighted:\n    N: int\n    _: KW_ONLY\n"
        "    weights: list[int] = field(default_factory=lambda: [WEIGHT])\n\n"
        "    def reward(self, answer: int, secret: int) -> int:\n"
        "        return self.weights[0] * self.N * (answer == secret)\n"
    )
    path, before = list(sys.path), set(sys.modules)
    assert channel_of(load_reward(f"{write(text, 'folder/random.py')}:Weighted")).levels[-1] == 5 * 16
    assert sys.path == path
    assert {name for name in set(sys.modules) - before if not name.startswith("own_")} == set()
    assert not hasattr(sys.modules["random"], "Weighted")  # a file hides no module of its name


def test_annotations_are_what_the_file_says_they_are():
    """The future imports of the module that runs the file are no business of the file."""
    write(
        "class Noted:\n    N: int = 3\n\n"
        "    def reward(self, answer, secret):\n        return self.__annotations__['N'](answer == secret)\n"
    )
    assert channel_of(load_reward("rewards.py:Noted")).levels[-1] == 1


def test_an_object_in_a_file_is_a_reward_too():
    judge = (
        "class Judge:\n    top = 1\n\n"
        "    def reward(self, answer, secret):\n        return self.top * (answer == secret)\n"
    )
    write(judge + "\nkind = Judge()\nkind.top = 9\n")
    assert channel_of(load_reward("rewards.py:kind")).levels[-1] == 9


def test_a_reward_named_like_a_built_in_is_still_its_own():
    write("def binary(answer, secret):\n    return -abs(answer - secret)\n")
    limits = memory_rl.bounds(N=16, reward_type="rewards.py:binary")
    assert limits.capacity == 4.0
    assert limits.ideal_questioner.to_know == 1.0


# Whole experiments


def test_from_the_command_line(capsys, figures):
    words = [
        "N=16",
        f"reward_type={EXAMPLES}:NearnessJudge",
        "backend=tabular",
        "num_runs=4",
        "max_episodes=40",
        "log_path=run",
    ]
    assert main(["train", *words]) == 0
    assert "NearnessJudge" in capsys.readouterr().out
    manifest = json.loads(Path("run/manifest.json").read_text())
    assert (manifest["status"], manifest["condition"]) == ("completed", "NearnessJudge")
    assert manifest["config"]["reward_type"] == f"{EXAMPLES}:NearnessJudge"
    assert sorted(path.name for path in Path("run").iterdir()) == sorted(
        [
            "manifest.json",
            "metrics.parquet",
            "episodes.parquet",
            "timing.parquet",
            "film.parquet",
            "summary.json",
            "channel.npz",
            "figures",
        ]
    )
    assert list(json.loads(Path("run/summary.json").read_text())["conditions"]) == ["NearnessJudge"]
    assert Path("run/figures/bits_known.svg").stat().st_size > 0


def test_a_python_object_is_named_in_the_manifest():
    result = train("run", reward_type=Plain(), max_episodes=4)
    assert result.manifest["config"]["reward_type"].endswith(":Plain")
    assert list(result.summary) == ["Plain"]


CHANGED = {
    "deleted": None,
    "changed": "def higher_or_lower(answer, secret):\n    return answer * secret\n",
    "broken": "raise ValueError\n",
}


@pytest.mark.parametrize("now", CHANGED.values(), ids=CHANGED.keys())
@pytest.mark.parametrize(
    "settings",
    [
        {"name": "higher_or_lower"},
        {"name": "NearnessJudge"},
        {"name": "higher_or_lower", "reward_noise": 0.2},
    ],
)
def test_the_ledger_is_recomputed_from_the_kept_table(settings, now):
    name = settings["name"]
    path = Path(write(EXAMPLES.read_text()))
    result = train(
        "run",
        reward_type=f"{path}:{name}",
        **{key: value for key, value in settings.items() if key != "name"},
    )
    path.unlink() if now is None else path.write_text(now)
    ledger = memory_rl.ledger_from_episodes("run")
    kept = result.metrics.filter(pl.col("episode") > 0).select(
        "run", "episode", "asked_bits", "observer_bits"
    )
    again = kept.select("run", "episode").join(ledger, on=["run", "episode"], how="left").select(kept.columns)
    assert_frame_equal(again, kept, check_exact=True)
    assert kept["observer_bits"].max() > 1


@pytest.mark.parametrize("name", ["higher_or_lower", "NearnessJudge", "noisy_judge"])
def test_both_laws_hold(name):
    result = train("run", reward_type=example(name), num_runs=64, max_episodes=200)
    checks = result.summary[name]["checks"]
    assert {law: (check["status"], check["runs"]) for law, check in checks.items()} == {
        "policy_within_observer": ("holds", 64),
        "observer_equals_asked": ("holds", 64),
    }
    assert result.summary[name]["ledger"]["asked"]["estimate"] > 1  # there was something to judge
    assert result.summary[name]["ledger"]["policy"]["estimate"] > 0.5


def test_a_reward_needs_single_step():
    refusal = r"reward_type=.*own_binary belongs to env_type=single_step: .*, or leave reward_type out\."
    with pytest.raises(ConfigError, match=refusal):
        memory_rl.bounds(N=16, env_type="multi_step", reward_type=own_binary)
