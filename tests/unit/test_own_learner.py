"""A learner of one's own: the page's example does what the page says, one that repeats a built-in learner is
that learner to the byte, and one that cannot be used is refused with the place in its file."""

import re
import textwrap
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.stats
import torch
from helpers import complaint, stopped_at

import memory_rl
from memory_rl import GRPO, Learner
from memory_rl.cli import main
from memory_rl.learning.own_learner import load_learner
from memory_rl.reporting import pictures
from memory_rl.seeding import RunStreams
from memory_rl.training.meter import Meter

PAGE = (Path(__file__).parents[2] / "docs" / "own_learner.md").read_text()
EXAMPLE = re.search(r"```python\n# corpo\.py\n(.*?)```", PAGE, flags=re.DOTALL)[1]
BINNED = {"N": 16, "reward_type": "binned_log_distance", "reward_bins": 8}


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    """Drawing takes most of a small run's time."""
    monkeypatch.setattr(pictures, "draw_run", lambda _: [])


def train(name: str, algorithm, **settings) -> memory_rl.Result:
    keys = {"backend": "tabular", "N": 16, "num_runs": 8, "max_episodes": 120, **settings}
    return memory_rl.train(algorithm=algorithm, log_path=name, **keys)


def bytes_of(result: memory_rl.Result) -> list[bytes]:
    return [(result.path / name).read_bytes() for name in ("metrics.parquet", "episodes.parquet")]


# The example


def test_the_example_is_short_and_does_what_the_page_says(capsys):
    assert len(EXAMPLE.strip().splitlines()) < 15
    Path("corpo.py").write_text(EXAMPLE)
    (command,) = re.findall(r"^python train\.py (.*algorithm=corpo\.py:CoRPO)$", PAGE, flags=re.MULTILINE)
    assert main(["train", *command.split(), "log_path=run"]) == 0
    capsys.readouterr()
    result = memory_rl.load("run")
    (summary,) = result.summary.values()
    row = re.findall(r"^\| CoRPO \| (.*) \|$", PAGE, flags=re.MULTILINE)[0]
    observer, absorption, policy, memorised, median = row.split(" | ")
    assert memorised == f"{summary['memorised']} of {summary['runs']}"
    assert policy.startswith(f"{summary['bits_per_episode']['estimate']:.3g} [")
    assert observer.startswith(f"{summary['rates']['observer']['estimate']:.3g} [")
    assert absorption == f"÷{summary['losses']['absorption']:.2g}"
    episodes = summary["episodes_to_memorise"]
    assert median == f"{episodes['median']:g} [{', '.join(f'{end:g}' for end in episodes['ci95'])}]"
    assert result.config["algorithm"] == "corpo.py:CoRPO"


def test_from_python_it_is_the_same_learner():
    Path("corpo.py").write_text(EXAMPLE)
    made = {}
    exec(EXAMPLE, made)  # noqa: S102
    of_file, of_class, of_object = (
        train(name, given, **BINNED)
        for name, given in (("a", "corpo.py:CoRPO"), ("b", made["CoRPO"]), ("c", made["CoRPO"]()))
    )
    assert bytes_of(of_file) == bytes_of(of_class) == bytes_of(of_object)
    assert of_class.config["algorithm"].endswith(":CoRPO")
    assert of_file.summary.keys() == of_class.summary.keys()


def test_the_page_names_what_a_learner_has():
    table = re.findall(r"^\| `(\w+)[(`]", PAGE, flags=re.MULTILINE)
    assert table == [
        "advantages",
        "loss",
        "epochs",
        "silent_if_equal",
        "learn",
        "samples_suffice",
        "start",
        "sample",
    ]
    assert all(hasattr(Learner, member) for member in table)


# Whole experiments


class Standardised(Learner):
    """GRPO, written again."""

    def advantages(self, returns):
        deviation = returns.std(axis=2, keepdims=True)
        return (returns - returns.mean(axis=2, keepdims=True)) / np.where(deviation > 0, deviation, 1)


class Clipped(Learner):
    """PPO, written again."""

    epochs = 3

    def loss(self, log_probs, before, advantages):
        ratio = (log_probs - before).exp()
        return -torch.minimum(ratio * advantages, ratio.clamp(0.9, 1.1) * advantages).sum(2).mean(1).sum()


class Sampled(Learner):
    """The whole of `learn`, with what the default does."""

    def learn(self, policy, batch):
        advantages = self.advantages(batch.returns)
        policy.update(batch, advantages.reshape(batch.choices.shape), self)
        return (~advantages.any(axis=(2, 3))).mean(axis=1)


TWINS = {
    "grpo": (Standardised, {"algorithm": "grpo"}),
    "ppo": (Clipped, {"algorithm": "ppo", "ppo_clip": 0.1, "ppo_epochs": 3}),
    "reinforce": (Learner, {"algorithm": "reinforce"}),
    "learn": (Sampled, {"algorithm": "reinforce"}),
}


@pytest.mark.parametrize("settings", [{}, BINNED, {"skip_ahead": True}], ids=["binary", "binned", "skipping"])
@pytest.mark.parametrize(("own", "built_in"), TWINS.values(), ids=TWINS)
def test_one_that_repeats_a_built_in_learner_gives_its_bytes(own, built_in, settings):
    ours, theirs = train("ours", own, **settings), train("theirs", **built_in, **settings)
    assert bytes_of(ours) == bytes_of(theirs)
    assert ours.metrics["bits_known"].max() > 1  # and not because nothing happened


def test_it_moves_a_transformer_as_the_built_in_learner_does():
    settings = {"backend": "local", "N": 8, "num_runs": 2, "max_episodes": 60}
    assert bytes_of(train("ours", Standardised, **settings)) == bytes_of(train("theirs", "grpo", **settings))


class Signs(Learner):
    """Only whether a return is above or below the group's mean counts."""

    def advantages(self, returns):
        return np.sign(returns - returns.mean(axis=2, keepdims=True).round(12))


def test_skipping_ahead_is_exact_for_a_silent_learner_of_ones_own():
    samples = []
    for seed, skip in ((1, False), (2, True)):
        settings = {"num_runs": 300, "seed": seed, "skip_ahead": skip, "max_episodes": 400, "ledger": False}
        metrics = train(f"skip-{skip}", Signs, **settings, **{**BINNED, "reward_bins": 3}).metrics
        known = pl.col("episode").filter(pl.col("bits_known") >= 3).min()
        ends = metrics.sort("episode").group_by("run", maintain_order=True)
        samples.append(ends.agg(pl.coalesce(known, 401).alias("episodes"), pl.last("bits_known")))
    for column in ("episodes", "bits_known"):
        assert scipy.stats.ks_2samp(*(sample[column].to_numpy() for sample in samples)).pvalue > 0.01
    assert (samples[0]["episodes"] <= 400).any()


def test_one_that_hears_silent_groups_skips_none(capsys):
    Path("corpo.py").write_text(EXAMPLE)
    result = train("run", "corpo.py:CoRPO", skip_ahead=True, quiet=False)
    assert "no silent updates are skipped: a group of equal rewards carries a signal, too" in (
        capsys.readouterr().out.replace("\n", " ")
    )
    assert (result.episodes["count"] == 1).all()


class Remembers(Learner):
    """Compares with the mean of all returns so far."""

    kept = ("mean", "seen")
    silent_if_equal = False

    def __init__(self, num_runs=8):
        self.mean, self.seen = np.zeros(num_runs), 0

    def learn(self, policy, batch):
        self.seen += 1
        self.mean[batch.runs] += 0.1 * (batch.returns.mean(axis=(1, 2, 3)) - self.mean[batch.runs])
        advantages = batch.returns - self.mean[batch.runs, None, None, None]
        policy.update(batch, advantages.reshape(batch.choices.shape), self)


def test_what_it_remembers_is_resumed(monkeypatch):
    whole, see, calls = train("whole", Remembers), Meter.see, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return see(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Meter, "see", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train("parts", Remembers, checkpoint_every=0)
    assert bytes_of(train("parts", Remembers, resume=True)) == bytes_of(whole)


class Explores(Learner):
    """Every other episode is drawn from all answers alike; what has been seen is remembered."""

    kept = ("_random", "_seen")
    silent_if_equal = False

    def start(self, seed, num_runs):
        self._random, self._seen = RunStreams(seed, "explores", num_runs), np.zeros(num_runs)

    def sample(self, policy, runs, prompts, num_episodes):
        own = policy.sample(runs, prompts, num_episodes)
        forms = (self._random.random(runs, num_episodes) * 16).astype(int)
        other = policy.demonstrate(runs, prompts, forms)
        own.choices[:, ::2], own.path[:, ::2] = other.choices[:, ::2], other.path[:, ::2]
        return own

    def advantages(self, returns):
        assert self._seen.shape  # it has been started
        return returns - returns.mean(axis=2, keepdims=True)

    def learn(self, policy, batch):
        self._seen[batch.runs] += batch.choices.shape[1]
        return super().learn(policy, batch)


def test_its_own_sampling_is_what_is_trained_on_and_is_resumed():
    settings = {"seed": 3, **BINNED}
    whole = train("whole", Explores, **settings)
    with stopped_at(40):
        train("parts", Explores, checkpoint_every=0, **settings)
    assert bytes_of(train("parts", Explores, resume=True, **settings)) == bytes_of(whole)
    first = whole.episodes.filter(pl.col("episode") % 2 == 1)["answer"]
    assert scipy.stats.chisquare(np.bincount(first, minlength=16)).pvalue > 0.001  # alike until the end


class Suffices(Explores):
    """Its `learn` asks the policy for no more than an update."""

    samples_suffice = True


def test_with_a_learn_of_its_own_it_says_whether_samples_suffice():
    with pytest.raises(memory_rl.ConfigError, match="scoring=paths does not go with algorithm="):
        memory_rl.train(N=16, algorithm=Explores, scoring="paths")
    assert not list(Path("runs").glob("*"))
    result = memory_rl.train(N=16, algorithm=Suffices, scoring="paths", num_runs=2, max_episodes=40)
    assert result.episodes.height == 80


@pytest.mark.parametrize("scoring", ["all", "paths"])
def test_what_it_left_behind_is_read_without_its_file(scoring):
    Path("mine.py").write_text("from memory_rl import Learner\n\nclass Mine(Learner):\n    epochs = 2\n")
    keys = {"N": 16, "reward_type": "log_distance", "scoring": scoring, "skip_ahead": False}
    path = memory_rl.train(algorithm="mine.py:Mine", num_runs=1, max_episodes=8, **keys).path
    Path("mine.py").unlink()
    assert memory_rl.load(path).ledger.height == 8


def test_the_page_s_example_with_a_memory_outlives_its_runs_and_is_resumed():
    text = re.search(r"```python\n  # running\.py\n(.*?)```", PAGE, flags=re.DOTALL)[1]
    Path("running.py").write_text(textwrap.dedent(text))
    settings = {"seed": 3, "max_episodes": 400, **BINNED}
    whole = train("whole", "running.py:Running", **settings)
    ends = whole.metrics.group_by("run").agg(pl.col("episode").max())["episode"]
    assert ends.n_unique() > 1  # some runs ended before others
    with stopped_at(40):
        train("parts", "running.py:Running", checkpoint_every=0, **settings)
    assert bytes_of(train("parts", "running.py:Running", resume=True, **settings)) == bytes_of(whole)


def test_the_checks_leave_no_trace_in_it():
    class Counts(Sampled):
        calls = 0

        def learn(self, policy, batch):
            self.calls += 1
            return super().learn(policy, batch)

    learner = Counts()
    assert load_learner(learner) is learner
    assert learner.calls == 0


# What is refused

HEAD = (
    "import numpy as np\nimport torch\nfrom memory_rl import Learner\n\n\nclass Mine(Learner):\n"  # 6 lines
)
ADVANTAGES = HEAD + "    def advantages(self, returns):\n        "
LOSS = HEAD + "    def loss(self, log_probs, before, advantages):\n        "
LEARN = HEAD + "    def learn(self, policy, batch):\n        "
START = HEAD + "    def start(self, seed, num_runs):\n        self.mean = np.zeros((num_runs, 1, 1, 1))\n\n"
AT_7, AT_8 = "own.py, line 7)", "own.py, line 8)"

REFUSED = {
    "no class": ("Mine = 3\n", ["is not a learner", "class MyLearner(Learner)"]),
    "another class": ("class Mine:\n    pass\n", ["is not a learner", "class MyLearner(Learner)"]),
    "another name": (
        HEAD.replace("Mine", "Yours") + "    pass\n",
        ["own.py has no Mine", "use one of Yours."],
    ),
    "does not run": (HEAD + "    pass\n\n\n1 / 0\n", ["own.py cannot be run (ZeroDivisionError", "line 10"]),
    "not Python": ("class Mine(\n", ["own.py cannot be run (SyntaxError", "fix the file"]),
    "needs arguments": (
        HEAD + "    def __init__(self, rate):\n        self.rate = rate\n",
        ["cannot be made (TypeError", "'rate'", "fix the file"],
    ),
    "fails when made": (
        HEAD + "    def __init__(self):\n        raise RuntimeError('no')\n",
        ["cannot be made (RuntimeError: no in own.py, line 8)", "fix the file"],
    ),
    "no epochs": (HEAD + "    epochs = 0\n", ["has epochs=0", "use an integer of 1 or more"]),
    "a slip in a name": (
        HEAD + "    def advantage(self, returns):\n        return returns\n",
        ["defines advantage, and nothing that Learner has", "did you mean advantages?"],
    ),
    "neither true nor false": (
        HEAD + "    silent_if_equal = 'no'\n",
        ["silent_if_equal='no'", "True or False"],
    ),
    "half an epoch": (HEAD + "    epochs = 0.5\n", ["has epochs=0.5", "use an integer of 1 or more"]),
    "advantages fail": (
        ADVANTAGES + "return returns[5]\n",
        ["cannot be asked for advantages (IndexError", AT_8, "fix the file"],
    ),
    "another shape": (
        ADVANTAGES + "return returns.mean(axis=2)\n",
        [AT_7, "gave advantages of shape (3, 2, 2) for returns of shape (3, 2, 4, 2)", "return one each"],
    ),
    "no array": (ADVANTAGES + "return 0.0\n", [AT_7, "gave advantages of shape float", "return one each"]),
    "not finite": (
        ADVANTAGES + "return returns * np.nan\n",
        [AT_7, "gave advantages that are not finite numbers", "for each return"],
    ),
    "text": (ADVANTAGES + "return returns.astype(str)\n", [AT_7, "not finite numbers", "for each return"]),
    "chance": (
        ADVANTAGES + "return np.random.rand(*returns.shape)\n",
        [AT_7, "gave two different advantages for the same returns", "make it deterministic"],
    ),
    "advantages that remember": (
        ADVANTAGES + "self.sum = getattr(self, 'sum', 0) + returns\n        return self.sum\n",
        [AT_7, "must not change what the learner remembers: do that in learn"],
    ),
    "advantages of all runs": (
        START + ADVANTAGES.removeprefix(HEAD) + "return returns - self.mean\n",
        ["cannot be asked for advantages of 2 of 3 runs (ValueError", "in own.py, line 11)", "fix the file"],
    ),
    "hears equal returns": (
        ADVANTAGES + "return returns - 0.5\n",
        [AT_7, "gives equal returns of -1 an advantage of 1.5", "add silent_if_equal = False"],
    ),
    "loss fails": (LOSS + "return log_probs @ 3\n", ["cannot be asked for its loss", AT_8, "fix the file"]),
    "a loss for each run": (
        LOSS + "return -(advantages * log_probs).sum(dim=(1, 2))\n",
        [AT_7, "has as its loss tensor([", "return a finite scalar tensor with its graph"],
    ),
    "a loss without a graph": (
        LOSS + "return (advantages * before).sum()\n",
        [AT_7, "has as its loss tensor(", "return a finite scalar tensor with its graph"],
    ),
    "a loss in numbers": (
        LOSS + "return 0.0\n",
        [AT_7, "has as its loss 0.0:", "return a finite scalar tensor with its graph"],
    ),
    "an infinite loss": (
        LOSS + "return (advantages * log_probs).sum() / 0\n",
        [AT_7, "inf,", "return a finite scalar tensor with its graph"],
    ),
    "a loss by chance": (
        LOSS + "return (advantages * log_probs).sum() * torch.rand(())\n",
        [AT_7, "gave two different losses for the same episodes", "make it deterministic"],
    ),
    "a loss beside the advantages": (
        LOSS + "return log_probs.exp().sum()\n",
        [AT_7, "moves the policy where all advantages are 0", "add silent_if_equal = False"],
    ),
    "a slip in a name of another kind": (
        HEAD + "    def samples(self, policy, runs, prompts, num_episodes):\n        pass\n",
        ["defines samples, and nothing that Learner has", "did you mean sample?"],
    ),
    "start fails": (
        HEAD + "    def start(self, seed, num_runs):\n        raise RuntimeError('no')\n",
        ["cannot be started (RuntimeError: no in own.py, line 8)", "fix the file"],
    ),
    "samples, and may be skipped": (
        HEAD + "    def sample(self, policy, runs, prompts, num_episodes):\n        return None\n",
        ["samples in a way of its own", "add silent_if_equal = False"],
    ),
    "learn fails": (
        LEARN + "raise RuntimeError('never')\n",
        ["cannot be asked to learn (RuntimeError: never in own.py, line 8)", "fix the file"],
    ),
    "learn hears equal rewards": (
        LEARN + "policy.update(batch, batch.rewards - 0.5, self)\n",
        ["moves the policy where all rewards of a group are equal", "add silent_if_equal = False"],
    ),
    "learns from all runs": (
        START
        + LEARN.removeprefix(HEAD)
        + "policy.update(batch, (batch.returns - self.mean).reshape(batch.choices.shape), self)\n\n"
        + "    silent_if_equal = False\n",
        ["cannot be asked to learn from 2 of 3 runs (ValueError", "in own.py, line 11)", "fix the file"],
    ),
    "advantages over all runs": (
        HEAD + "    silent_if_equal = False\n\n    def advantages(self, returns):\n"
        "        return returns - returns.mean()\n",
        ["other advantages without another run beside it", "leave axis 0, the runs, out of every mean"],
    ),
    "a loss averaged over runs": (
        HEAD + "    def loss(self, log_probs, before, advantages):\n"
        "        return -(advantages * log_probs).sum(-1).mean()\n",
        ["a loss that moves a run otherwise without another beside it", "add up their losses"],
    ),
    "learn distils": (
        LEARN + "policy.distil(batch.runs, batch.prompts, None, 3)\n",
        ["moves the policy where all rewards of a group are equal", "add silent_if_equal = False"],
    ),
}

REMEMBERS = (
    HEAD + "    silent_if_equal = False\n    kept = {kept}\n\n"
    "    def start(self, seed, num_runs):\n        self.mean = {first}\n\n"
    "    def learn(self, policy, batch):\n        self.mean = {then}\n        {more}\n"
)


def remembers(kept="('mean',)", first="0.0", then="self.mean", more="super().learn(policy, batch)"):
    return REMEMBERS.format(kept=kept, first=first, then=then, more=more)


FORGETS = "policy.update(batch, batch.rewards - np.asarray(self.mean).sum(), self)"

REFUSED |= {
    "keeps text": (remembers(kept="'mean'"), ["has kept='mean'", 'kept = ("mean",)']),
    "keeps a list": (remembers(kept="['mean']"), ["has kept=['mean']", "use a tuple of names"]),
    "keeps a number": (remembers(kept="('mean', 3)"), ["has kept=('mean', 3)", "use a tuple of names"]),
    "keeps one twice": (remembers(kept="('mean', '_mean')"), ["two attributes called mean", "differently"]),
    "keeps what is not there": (
        remembers(kept="('means',)"),
        ["keeps means, which it does not have once it is started", "set self.means in start"],
    ),
    "keeps a tuple": (
        remembers(first="(np.zeros(num_runs), 1)"),
        ["keeps mean with a tuple, which no checkpoint holds", "use a list"],
    ),
    "keeps a set": (remembers(first="[{1, 2}]"), ["keeps mean with a set", "use a list"]),
    "keeps keys that are numbers": (
        remembers(first="{'a': {0: 1.0}}"),
        ["keeps mean with keys that are not plain text", "use text without / or a leading $ as its keys"],
    ),
    "keeps a reference": (remembers(first="{'$array': 1}"), ["keeps mean with keys that are not plain text"]),
    "keeps a scalar later": (
        remembers(then="batch.returns.mean()"),
        ["keeps mean with a NumPy float64, which no checkpoint holds", "use an array of numbers, a number"],
    ),
    "keeps objects": (
        remembers(first="np.array([None])"),
        ["keeps mean with an array of object", "use an array of numbers"],
    ),
    "keeps a thing of its own": (remembers(first="Mine"), ["keeps mean with a type", "use an array"]),
    "keeps a tensor that was none": (
        remembers(first="None", then="torch.ones(3)"),
        ["keeps mean, which does not come back from a checkpoint as it was", "let start give it the kind"],
    ),
    "keeps a tensor that grows": (
        remembers(first="torch.ones(2)", then="torch.ones(3)"),
        ["cannot be restored from what it keeps (RuntimeError", "of the shape and kind that start gives it"],
    ),
    "keeps integers that become fractions": (
        remembers(first="np.zeros(num_runs, dtype=int)", then="self.mean + 0.5"),
        ["keeps mean, which does not come back from a checkpoint as it was", "type of number"],
    ),
    "forgets an average": (
        remembers(kept="()", then="self.mean + batch.returns.mean()", more=FORGETS),
        ["would learn otherwise once it is resumed, since it does not keep mean", "name in kept"],
    ),
    "forgets where its generator stood": (
        remembers(
            kept="()", first="np.random.default_rng(seed)", more="policy.update(batch, batch.rewards - "
            "self.mean.random(), self)"
        ),
        ["would learn otherwise once it is resumed, since it does not keep mean", "name in kept"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("np.zeros(num_runs)", "self.mean + batch.returns.mean()"),
        (
            "np.zeros((num_runs, 0))",
            "np.concatenate([self.mean, np.full((3, 1), batch.returns.mean())], axis=1)",
        ),
        ("None", "{'seen': batch.returns.copy(), 'names': ['a', None, True, 2]}"),
        ("-np.inf", "max(self.mean, float(batch.returns.max()))"),
        ("np.array(0.0)", "np.asarray(self.mean + batch.returns.mean())"),
        ("torch.zeros(3)", "self.mean + 1"),
        ("[]", "[*self.mean, batch.returns.mean(axis=(1, 2, 3))]"),
    ],
    ids=["array", "grown", "dict", "number", "no axis", "tensor", "list"],
)
def test_what_may_be_kept_is_resumed_to_the_byte(first, then):
    uses = "policy.update(batch, batch.rewards - hash_of(repr(self.mean)), self)"
    helper = "from zlib import crc32\n\ndef hash_of(text):\n    return crc32(text.encode()) % 97 / 97\n\n"
    Path("own.py").write_text(helper + remembers(first=first, then=then, more=uses))
    settings = {"max_episodes": 40, "num_runs": 3}
    whole = train("whole", "own.py:Mine", **settings)
    with stopped_at(16):
        train("parts", "own.py:Mine", checkpoint_every=0, **settings)
    assert bytes_of(train("parts", "own.py:Mine", resume=True, **settings)) == bytes_of(whole)


@pytest.mark.parametrize(("text", "parts"), REFUSED.values(), ids=REFUSED)
def test_one_that_cannot_be_used_is_refused_with_its_place(text, parts, capsys):
    Path("own.py").write_text(text)
    sentence = complaint("train", "N=4 backend=tabular algorithm=own.py:Mine", capsys)
    for part in ["algorithm=own.py:Mine", *parts]:
        assert part in sentence
    assert len(sentence) < 500


@pytest.mark.parametrize(
    "text",
    [
        ADVANTAGES + "return returns - 0.5\n\n    silent_if_equal = False\n",
        LEARN + "policy.update(batch, batch.rewards - 0.5, self)\n\n    silent_if_equal = False\n",
        LEARN + "pass\n",  # one that never moves
        LOSS + "return -((log_probs - before).exp() * advantages).sum(dim=2).mean(dim=1).sum()\n",
    ],
    ids=["advantages", "learn", "still", "loss"],
)
def test_one_that_says_what_it_does_is_accepted(text):
    Path("own.py").write_text(text)
    assert train("run", "own.py:Mine", num_runs=2, max_episodes=8).outcome is memory_rl.Outcome.BUDGET_SPENT


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("nowhere.py:Mine", ["there is no nowhere.py", "algorithm=my_file.py:Name"]),
        ("own:Mine", ["there is no own", "did you mean algorithm=own.py:Mine?"]),
        ("own.py:Mein", ["own.py has no Mein", "did you mean Mine?"]),
        ("own.py:", ["no name follows the colon", "use one of Mine."]),
    ],
)
def test_a_reference_that_names_no_learner(reference, parts, capsys):
    Path("own.py").write_text(HEAD + "    pass\n")
    sentence = complaint("train", f"N=4 algorithm={reference}", capsys)
    for part in [f"algorithm={reference}", *parts]:
        assert part in sentence


@pytest.mark.parametrize("given", [3, object(), dict, abs])
def test_an_object_that_is_no_learner(given):
    with pytest.raises(memory_rl.ConfigError, match=r"algorithm=.* is not a learner: write class MyLearner"):
        memory_rl.train(N=4, backend="tabular", algorithm=given)
    assert not Path("runs").exists()


def test_keys_of_a_built_in_learner_have_no_meaning_beside_it():
    with pytest.raises(memory_rl.ConfigError, match=r"ppo_clip=0\.3 belongs to algorithm=ppo"):
        memory_rl.train(N=4, backend="tabular", algorithm=Standardised, ppo_clip=0.3)


def test_a_subclass_of_a_built_in_learner_is_ones_own():
    class Half(GRPO):
        def advantages(self, returns):
            return super().advantages(returns) / 2

    halved, whole = (
        train(name, given, optimiser="sgd", learning_rate=rate, max_episodes=8)
        for name, given, rate in (("a", Half, 1.0), ("b", "grpo", 0.5))
    )
    np.testing.assert_allclose(halved.metrics["bits_known"], whole.metrics["bits_known"], atol=1e-12)
