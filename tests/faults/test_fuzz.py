"""Random keys and values at every command, at grids and at protocols: each answer is exit code 0 with a run,
or 2 with one sentence; never a traceback, never a warning.

Most cases are valid commands with up to three things changed: a value at or beyond an end of its range, a key
of another command, a word that YAML or Python would take for something else. CI has 2000 cases, always the
same; MEMORY_RL_FUZZ=50000 tries as many new ones. What is accepted and small is really run, until a share of
all cases has been (`RUN`); what else is accepted is checked up to the point at which models are loaded.
"""

import contextlib
import functools
import io
import math
import os
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Literal, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_rl import api, execution
from memory_rl.analysis.collect import find_cells
from memory_rl.analysis.protocol import load_protocol
from memory_rl.analysis.verdicts import judge
from memory_rl.api import DataFiles, bounds_keys
from memory_rl.catalogue import experiment_keys
from memory_rl.cli import main
from memory_rl.experiments import sweep
from memory_rl.experiments.settings import SweepConfig, Tuning
from memory_rl.keys import Key, keys_of, members_of
from memory_rl.reporting.settings import ReportConfig

CASES = int(os.environ.get("MEMORY_RL_FUZZ", "2000"))
RUN = 0.05
"""The share of cases that are really run, or more."""

KEYS = experiment_keys()
OF_COMMAND = {
    "train": KEYS,
    "sft-train": KEYS,
    "bounds": bounds_keys(),
    "sft-data-gen": keys_of(DataFiles),
    "report": keys_of(ReportConfig),
    "sweep": {**KEYS, **keys_of(SweepConfig)},
}
ALL = {word: one for keys in OF_COMMAND.values() for word, one in keys.items()}

TINY = "backend=tabular N=4 num_runs=1 max_episodes=8 quiet=True"
VALID = {
    "train": [
        TINY,
        f"{TINY} env_type=multi_step credit=episode tabular_bits=prefixes",
        f"{TINY} reward_type=binned_log_distance reward_bins=3",
        f"{TINY} reward_type=log_distance algorithm=grpo skip_ahead=True",
        f"{TINY} algorithm=ppo ppo_epochs=2 ppo_clip=0.1",
        f"{TINY} algorithm=posterior posterior_epochs=2 group_size=1",
        f"{TINY} algorithm=rloo num_secrets=2 order=cycle memorised_share=0.5",
        f"{TINY} reward_noise=0.25 optimiser=sgd baseline=none group_size=1",
        f"{TINY} reward_type=own.py:near evaluate_every=2 ledger=False",
        f"{TINY} fixed_secret=3 memorised_at=0.6 stop_at=0.7 learning_rate=3e-1 seed=7",
        f"{TINY} signal=teacher teacher_error=0.1 told=top_k teacher_top_k=1 divergence=forward",
        f"{TINY} signal=teacher teacher=observer reward_type=log_distance reward_noise=0.1 told=sampled",
        f"{TINY} signal=teacher teacher=there env_type=multi_step",
        f"{TINY} log_path=here checkpoint_every=0 save_adapters=False threads=2",
        "N=16 lora_rank=4 lora_alpha=8 lora_targets=mlp lora_layers=0-1 dtype=bfloat16 warmup=False",
        "N=16 adapter=shared adapter_parameters=13 scoring=paths wording=plain base_seed=3",
        "backend=tinker model_name=some/model max_tokens_total=1000",
    ],
    "sft-train": [TINY, f"{TINY} env_type=multi_step batch_size=2", f"{TINY} num_secrets=3 order=blocks"],
    "bounds": [
        "N=8",
        "N=8 reward_type=binned_log_distance reward_bins=4 reward_noise=0.1",
        "N=8 env_type=multi_step credit=reward_to_go memorised_at=0.9",
        "N=4 reward_type=own.py:near",
        "signal=example N=16",
        "signal=teacher N=16 told=sampled",
    ],
    "sft-data-gen": ["N=8 num_train=3 num_test=2", "N=8 fixed_secret=3 num_train=1 env_type=multi_step"],
    "report": ["runs=missing", "runs=. out=report title=Mine quiet=True"],
    "sweep": [
        f"conditions=sft,binary {TINY} dry_run=True",
        f"conditions=binary {TINY} seed=0,1 learning_rate=3e-1,0.3",
        f"{TINY} tune=True tune_rates=0.1,0.3 tune_runs=1 dry_run=True",
        "protocol=quick dry_run=True quiet=True",
    ],
}

NASTY = [
    *("", " ", "None", "null", "~", "nan", "-inf", "1e308", "1e-320", "-1", "-0", "0", "1", "2", "0.5"),
    *("1e3", "64.0", "010", "1:04", "0x10", "1_000", "+7", "٣", "yes", "no", "true", "FALSE", "2026-01-01"),
    *("3e-1", "1e999999999999", "9" * 400, "9" * 5000, "[" * 1000, "a" * 300, "a/" * 3000, "\0", "a\nb"),
    *("\x1b[31m", "\ud800", "é", "💥", "a b", "../x", "/", ".", "..", "/dev/null", "/dev/null/x"),
    *("own.py:near", "own.py:gone", "gone.py:near", ":", "a:b:c", ",", "=", "a=b", "1,2", "0,0", "%s"),
    *("{}", "{0}", "'", '"', "#", "!!int 3", "&a", "*a", "-", "--help", "<b>"),
]  # fmt: skip


def edges(one: Key) -> list[str]:
    """Values at, near and beyond the ends of a key's range, and all of its choices."""
    found = [str(one.default)]
    for member in members_of(one.hint):
        if get_origin(member) is Literal:
            found += member.__args__
        elif member in (int, float):
            ends = [end for end in (*one.within, one.above, one.below) if end is not None]
            found += [str(near) for end in ends for near in (end, end + 1, end - 1, 2 * end, -end)]
            found += [repr(math.nextafter(end, way)) for end in ends for way in (-math.inf, math.inf)]
            found += ["1", "2", "3", "5"]
        elif member is bool:
            found += ["True", "False"]
    return found


OF_OTHERS = [choice for one in KEYS.values() for choice in edges(one)]


@functools.cache
def values(word: str) -> st.SearchStrategy[str]:
    own = edges(ALL[word]) if word in ALL else NASTY
    return st.one_of(*map(st.sampled_from, (own, own, NASTY, OF_OTHERS)), st.text(max_size=6))


def changed_words(words: str) -> st.SearchStrategy[str]:
    """Words that are no key, or hardly one."""
    return st.one_of(st.sampled_from([words, f"{words}x", words.upper(), words[1:]]), st.text(max_size=5))


@st.composite
def commands(draw) -> list[str]:
    """A valid command with up to three changes."""
    command = draw(st.sampled_from([*VALID, "train", "train", "sweep"]))
    words = draw(st.sampled_from(VALID[command])).split()
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 1, 1, 2, 2, 3]))):
        near = st.sampled_from([word.partition("=")[0] for word in words] or ["N"])
        anywhere = st.sampled_from([*OF_COMMAND[command], *OF_COMMAND[command], *ALL])
        word = draw(st.one_of(near, anywhere))
        match draw(st.sampled_from(["value", "value", "value", "value", "word", "leave", "twice"])):
            case "value":
                words = [old for old in words if not old.startswith(f"{word}=")]
                words.append(f"{word}={draw(values(word))}")
            case "word":
                words.append(f"{draw(changed_words(word))}={draw(values(word))}")
            case "leave":
                words = [old for old in words if not old.startswith(f"{word}=")]
            case "twice":
                words.append(draw(st.one_of(st.sampled_from(words or ["N=4"]), st.text(max_size=6))))
    return [command, *words]


# YAML


def flow(content) -> str:
    """YAML as a person would type it: a text stands as it is."""
    if isinstance(content, dict):
        return f"{{{', '.join(f'{key}: {flow(value)}' for key, value in content.items())}}}"
    return f"[{', '.join(map(flow, content))}]" if isinstance(content, list) else str(content)


ENTRIES = [
    {"command": "train", "backend": "tabular", "N": ["4", "8"], "num_runs": "1", "max_episodes": "8"},
    {"command": "sft", "backend": "tabular", "N": "4", "num_runs": "2", "max_episodes": "8", "seed": "1"},
    {
        "command": "train",
        "backend": "tabular",
        "learning_rate": ["3e-1", "0.3"],
        "reward_type": "null",
        "N": "4",
        "num_runs": "1",
        "max_episodes": "8",
    },
]
TUNE = {
    "rates": ["1e-1", "0.3"],
    "num_runs": "1",
    "together": ["N"],
    "chosen_on": [{"N": "4", "seed": ["0", "1"]}],
}
BINARY = {"condition": "binary", "backend": "tabular"}
HYPOTHESES = [
    {"id": "A", "test": "below_ceiling", "cells": [{**BINARY, "N": ["4", "8"]}]},
    {"id": "B", "test": "rate_ratio", "of": {"condition": "sft"}, "to": BINARY, "N": ["4", "8"],
     "expected": "log2_N", "margin": "1.5"},
    {"id": "C", "test": "rises_along", "cells": BINARY, "along": {"N": ["4", "8"]}, "factor": "1.0"},
    {"id": "D", "test": "same_along", "cells": [BINARY], "along": {"N": ["4", "8"]}, "margin": "2",
     "over": {"learning_rate": ["3e-1", "0.1"]}},
]  # fmt: skip
GRIDS = [
    {"grid": ENTRIES[:2], "tune": TUNE},
    *(ENTRIES, ENTRIES[:1], ENTRIES[1:2], [{**ENTRIES[2], "learning_rate": "1e-1"}]),
]
PROTOCOL = {
    "name": "mine", "description": "d", "grid": ENTRIES[:2], "tune": "null", "minimum_runs": "2",
    "alpha": "5e-2", "exclusions": [{"learning_rate": "1e-1"}],
    "hypotheses": [{"claim": "c", **hypothesis} for hypothesis in HYPOTHESES],
}  # fmt: skip
TUNING = list(keys_of(Tuning))


@st.composite
def changed(draw, content):
    """The same with one value, key or item changed, somewhere in it."""
    if isinstance(content, dict) and content and draw(st.integers(0, 5)):
        word = draw(st.sampled_from(list(content)))
        match draw(st.sampled_from(["in", "in", "in", "in", "leave", "word", "more"])):
            case "in":
                return {**content, word: draw(changed(content[word]))}
            case "leave":
                return {key: value for key, value in content.items() if key != word}
            case "word":
                other = draw(
                    st.one_of(
                        st.sampled_from([*ALL, *TUNING, "<<", "condition", "kind"]), st.text(max_size=5)
                    )
                )
                return {(other if key == word else key): value for key, value in content.items()}
            case _:
                other = draw(st.sampled_from([*KEYS, "condition", "kind", "over", "tune"]))
                return {**content, other: draw(values(other))}
    if isinstance(content, list) and content and draw(st.integers(0, 5)):
        place = draw(st.integers(0, len(content) - 1))
        item = draw(changed(content[place]))
        return [*content[:place], item, *content[place + draw(st.integers(0, 1)) :]]
    others = [[], {}, [[]], [{}], {"a": "b"}, ["1", "1"], "null", ENTRIES, TUNE, HYPOTHESES, BINARY]
    return draw(st.one_of(values("N"), values("learning_rate"), values("condition"), st.sampled_from(others)))


@st.composite
def files(draw, content) -> bytes:
    """A YAML file that holds about this."""
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 1, 1, 2, 3]))):
        content = draw(changed(content))
    text = flow(content)
    if draw(st.integers(0, 14)) == 0:  # the text itself is changed
        place = draw(st.integers(0, len(text)))
        more = draw(
            st.one_of(
                st.sampled_from(NASTY),
                st.sampled_from(
                    [
                        "\t",
                        "{",
                        "]",
                        "%YAML 3\n",
                        "? ",
                        "!!python/object:a ",
                        "&a ",
                        "*a",
                        '"\\U00110000"',
                        "---\n",
                        "|",
                        "\ufeff",
                    ]
                ),
            )
        )
        text = text[:place] + more + text[place + draw(st.integers(0, 3)) :]
    codec = "utf-8" if draw(st.integers(0, 30)) else "utf-16"
    return text.encode(codec, "surrogatepass")


# What is done with them


class Accepted(BaseException):
    """What is too large to be run here was accepted, and checked up to where models would be loaded."""


class Trial:
    """Runs commands, and counts how they ended."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count: Counter[str] = Counter()
        self._real = {"run": execution.run_experiment, "sweep": sweep.Sweep.run, "data": api.write_sft_data}
        patch.setattr(execution, "run_experiment", self._run)
        patch.setattr(sweep.Sweep, "run", lambda plan: self._sweep(plan))
        patch.setattr(api, "write_sft_data", self._write)
        patch.setattr("memory_rl.cli.write_sft_data", self._write)
        patch.setattr("memory_rl.reporting.pictures.draw_run", lambda cell: ())

    def _wants(self, small: bool) -> bool:
        """Whether to run it: a good share of the small ones, at least until enough of all cases have been."""
        behind = self.count["run"] < 2 * RUN * self.count["cases"] + 1
        self.count["run"] += small and behind
        return small and behind

    def _run(self, experiment):
        if not self._wants(_is_small(experiment)):
            if experiment.world.N <= 64:
                execution.make_setting(experiment)
            raise Accepted
        return self._real["run"](experiment)

    def _sweep(self, plan):
        small = len(plan.cells) <= 3 and plan.tuning is None and plan.settings.executor == "inline"
        if not self._wants(small and all(_is_small(cell.experiment) for cell in plan.cells)):
            raise Accepted
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(execution, "run_experiment", self._real["run"])
            return self._real["sweep"](plan)

    def _write(self, settings):
        if settings.num_train + settings.num_test > 1000:
            raise Accepted
        return self._real["data"](settings)

    def answer(self, argv: list[str]) -> None:
        """Asserts that a command runs, or refuses in one sentence."""
        self.count["cases"] += 1
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(argv)
        except Accepted:
            code = 0
        self.count[str(code)] += 1
        said = err.getvalue()
        if code == 0:
            assert said == "", argv
        else:
            assert code == 2, (argv, code, said)
            assert re.fullmatch(r"memory-rl: [^\n]*[.?]\n", said), (argv, said)
            assert out.getvalue() == "", argv


def _is_small(experiment) -> bool:
    world, keep, stop = experiment.world, experiment.keep, experiment.stop
    size = stop.num_runs * experiment.budget * world.num_secrets
    followed = keep.wandb_project or keep.trackio_project or keep.tensorboard
    epochs = getattr(experiment.learner, "epochs", 1)
    return (
        experiment.policy.backend == "tabular"
        and size <= 256
        and world.N <= 16
        and epochs <= 8
        and not followed
    )


@pytest.fixture
def trial(monkeypatch):
    return Trial(monkeypatch)


def tried(share: float):
    """Settings of a test that has this share of all cases."""
    new = "MEMORY_RL_FUZZ" in os.environ
    return settings(
        max_examples=round(share * CASES),
        derandomize=not new,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=new,
    )


@contextlib.contextmanager
def place_of_its_own():
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("own.py").write_text("def near(answer, secret):\n    return abs(answer - secret) < 2\n")
        yield


def test_every_command_runs_or_refuses_in_one_sentence(trial):
    @tried(0.6)
    @given(commands())
    def every(argv):
        with place_of_its_own():
            trial.answer(argv)

    every()
    assert trial.count["run"] > RUN * trial.count["cases"], trial.count
    assert trial.count["2"] > 0.3 * trial.count["cases"], trial.count


def test_every_grid_runs_or_is_refused_in_one_sentence(trial):
    @tried(0.2)
    @given(st.one_of(map(files, GRIDS)), st.booleans())
    def every(content, dry):
        with place_of_its_own():
            Path("grid.yaml").write_bytes(content)
            trial.answer(["sweep", "grid=grid.yaml", "quiet=True", f"dry_run={dry}"])

    every()
    assert trial.count["run"] > RUN * trial.count["cases"], trial.count
    assert trial.count["2"] > 0.3 * trial.count["cases"], trial.count


def test_every_protocol_judges_or_is_refused_in_one_sentence(trial, tmp_path, monkeypatch):
    for words in (
        "conditions=sft,binary N=4,8 learning_rate=0.3,0.1",
        "conditions=binary N=4 learning_rate=0.3 seed=1",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(sweep.Sweep, "run", trial._real["sweep"])
            patch.setattr(execution, "run_experiment", trial._real["run"])
            assert (
                main(
                    [
                        "sweep",
                        "backend=tabular",
                        "num_runs=2",
                        "max_episodes=40",
                        "quiet=True",
                        "log_path=s",
                        *words.split(),
                    ]
                )
                == 0
            )
    cells = find_cells([Path("s").resolve()])
    judged, loaded = Counter(), []
    monkeypatch.setattr(sweep, "load_protocol", lambda path: loaded.append(load_protocol(path)) or loaded[-1])

    @tried(0.2)
    @given(files(PROTOCOL))
    def every(content):
        with place_of_its_own():
            Path("mine.yaml").write_bytes(content)
            trial.answer(["sweep", "protocol=mine.yaml", "quiet=True", "dry_run=True"])
            judged.update(verdict.verdict for protocol in loaded for verdict in judge(protocol, cells))
            loaded.clear()

    every()
    assert judged["inconclusive"] > 100, judged
    assert judged["supported"] + judged["refuted"] > 50, judged
    assert trial.count["2"] > 0.3 * trial.count["cases"], trial.count
