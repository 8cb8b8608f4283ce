"""Paths as people type them: each names one place, for all libraries, or is refused before any work."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from helpers import complaint

import memory_rl
from memory_rl.cli import main
from memory_rl.files import expand, folder_name, split_paths

SMALL = {"backend": "tabular", "N": 8, "num_runs": 2, "max_episodes": 40}
WORDS = [f"{key}={value}" for key, value in SMALL.items()]

NAMES = {
    "spaces": "a folder",
    "unicode": "données/学习",
    "trailing slash": "slash/",
    "per cent": "100%20",
    "pattern": "a[0-9]*?{b,c}",
    "tilde": "./~",
    "markup": "[red]x[/red]",
    "colon": "a:b",
    "quotes": 'it\'s "it"',
    "as long as may be": "x" * 255,
}


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    place = tmp_path / "home"
    place.mkdir()
    monkeypatch.setenv("HOME", str(place))
    return place


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_place(name, home, capsys):
    path = NAMES[name]
    assert main(["train", *WORDS, f"log_path={path}"]) == 0
    assert "".join(str(Path(path)).split()) in "".join(capsys.readouterr().out.split())
    assert Path(path, "metrics.parquet").is_file()
    result = memory_rl.load(path)
    assert result.metrics.height > 0
    assert memory_rl.ledger_from_episodes(path).height > 0
    memory_rl.train(**SMALL, log_path=path, resume=True)
    assert not list(home.iterdir())


@pytest.mark.parametrize("name", ["pattern", "tilde", "unicode"])
def test_sweeps_and_reports_take_them_too(name, home):
    path = NAMES[name] + " sweep"
    summary = memory_rl.sweep(**{**SMALL, "conditions": "binary"}, log_path=path)
    assert [cell["status"] for cell in summary["cells"]] == ["completed"]
    page = memory_rl.report(runs=path, out=path + " report")
    assert page == Path(path + " report", "index.html")
    assert not list(home.iterdir())


def test_home_is_written_out_once(home, monkeypatch):
    result = memory_rl.train(**SMALL, log_path="~/runs/one")
    assert result.path == home / "runs/one"
    assert result.manifest["config"]["log_path"] == str(home / "runs/one")
    assert memory_rl.load("~/runs/one").metrics.height > 0
    assert memory_rl.ledger_from_episodes("~/runs/one").height > 0
    assert memory_rl.report(runs="~/runs", out="~/page") == home / "page/index.html"
    memory_rl.generate_sft_data(N=8, fixed_secret=3, data_dir="~/data")
    sft = memory_rl.sft(**SMALL, fixed_secret=3, data_dir="~/data", log_path="~/sft")
    assert sft.outcome is memory_rl.Outcome.MEMORISED
    (home / "own.py").write_text("def reward(answer, secret):\n    return float(answer == secret)\n")
    assert memory_rl.train(**SMALL, reward_type="~/own.py:reward").config["reward_type"].startswith(str(home))
    (home / "grid.yaml").write_text("grid: [{command: train, N: 8, backend: tabular, num_runs: 2}]")
    memory_rl.sweep(grid="~/grid.yaml", log_path="~/sweep")
    assert (home / "sweep/results.csv").is_file()
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["home", "runs"]
    monkeypatch.setenv("MEMORY_RL_CACHE", "~/cache")
    memory_rl.train(N=2, num_runs=1, max_episodes=4, log_path="~/warmed")
    assert list((home / "cache/base-models").glob("*/warmup.json"))
    assert not Path("~").exists()


@pytest.mark.parametrize(
    ("command", "words", "parts"),
    [
        ("train", "log_path=file:///tmp/run", ["log_path=file:///tmp/run is a URL", "log_path=folder"]),
        ("train", "log_path=s3://bucket/run", ["is a URL"]),
        ("train", "log_path=~nobody-of-that-name/x", ["names no home", "./~nobody-of-that-name/x"]),
        ("train", f"log_path={'x' * 256}", ["longer than any name of a file"]),
        ("train", f"log_path={'x/' * 2048}", ["longer than any name of a file"]),
        ("train", f"reward_type={'x' * 300}.py:f", ["longer than any name of a file"]),
        ("train", f"model_name={'x' * 300}", ["longer than any name of a file"]),
        ("sweep", f"protocol={'x' * 300}", ["longer than any name of a file"]),
        ("sweep", f"grid={'x' * 300}", ["longer than any name of a file"]),
        ("report", f"runs={'x' * 300}", ["longer than any name of a file"]),
        ("report", "runs=runs out=file:///tmp/page", ["out=file:///tmp/page is a URL"]),
        ("sft-data-gen", "data_dir=s3://bucket", ["data_dir=s3://bucket is a URL"]),
        ("train", "log_path=loop", ["log_path=loop cannot be written"]),
        ("train", "log_path=loop/x", ["log_path=loop/x cannot be written"]),
        ("train", "log_path=file/x", ["log_path=file/x cannot be written"]),
        ("train", "log_path=/proc/memory-rl", ["log_path=/proc/memory-rl cannot be written"]),
        ("sweep", "conditions=sft log_path=loop", ["log_path=loop cannot be"]),
        ("report", "runs=loop", ["loop is not a folder"]),
        ("report", "runs=file", ["file is not a folder"]),
        ("report", "runs=folder out=loop", ["out=loop cannot be written"]),
        ("report", "runs=folder out=file", ["out=file cannot be written"]),
        ("sft-data-gen", "data_dir=file", ["data_dir: ", "cannot be written"]),
        ("train", "reward_type=loop/own.py:f", ["names no file"]),
    ],
)
def test_what_is_no_place_is_refused(command, words, parts, capsys):
    Path("loop").symlink_to("loop")
    Path("file").write_text("mine")
    said = complaint(command, words, capsys)
    for part in parts:
        assert part in said


@pytest.mark.parametrize("given", ["a\0b", "\0", "two\nlines"])
def test_a_character_that_cannot_be_printed_is_refused(given):
    for ask in (
        lambda: memory_rl.train(**SMALL, log_path=given),
        lambda: memory_rl.load(given),
        lambda: memory_rl.report(runs=given),
    ):
        with pytest.raises(memory_rl.ConfigError, match="a character that cannot be printed"):
            ask()


def test_a_comma_in_a_name_that_exists_separates_nothing():
    for name in ("one,two", "three", "a,b,c"):
        memory_rl.train(**SMALL, log_path=name)
    page = memory_rl.report(runs="one,two")
    assert len(pl.read_csv(page.parent / "cells.csv")) == 1
    page = memory_rl.report(runs="three, one,two,a,b,c", out="all")
    assert sorted(pl.read_csv(page.parent / "cells.csv")["path"]) == ["a,b,c", "one,two", "three"]
    assert split_paths("missing, three ,,gone,") == ["missing", "three", "gone"]


def test_a_leftover_of_a_killed_report_is_no_foreign_file():
    memory_rl.train(**SMALL, log_path="run")
    Path("report").mkdir()
    Path("report/.index.html.part").write_text("<html>")
    assert memory_rl.report(runs="run").is_file()
    Path("other").mkdir()
    Path("other/.index.html.part").write_text("")
    Path("other/notes.txt").write_text("mine")
    with pytest.raises(memory_rl.RunDirectoryError, match="holds files that are no report"):
        memory_rl.report(runs="run", out="other")


@pytest.mark.parametrize("name", ["../../out", "a/b", "..", "", "x\0y", "é" * 300, ".hidden", "~"])
def test_a_name_from_a_file_stays_in_its_folder(name):
    found = folder_name(name)
    assert found
    assert len(os.fsencode(found)) <= 100
    assert not {"/", "\0", "~"} & {*found}
    assert found[0] != "."


def test_a_protocol_s_name_is_no_path():
    grid = "grid: [{command: train, N: 8, backend: tabular, num_runs: 2, max_episodes: 40}]"
    Path("p.yaml").write_text(f"name: ../../out\nminimum_runs: 2\nhypotheses: []\n{grid}\n")
    memory_rl.sweep(protocol="p.yaml")
    (place,) = Path("sweeps").iterdir()
    assert place.name.startswith("-..-out-")
    assert not Path("../out").exists()


def test_bytes_that_are_no_text_are_a_name_like_any_other(capsys):
    path = Path("runs", os.fsdecode(b"caf\xe9"))
    Path("runs").mkdir()
    memory_rl.train(**SMALL, log_path="run").path.rename(path)
    assert memory_rl.load(path).metrics.height > 0
    assert main(["report", "runs=runs", "quiet=True"]) == 0
    assert pl.read_csv("report/cells.csv")["path"].to_list() == ["runs/caf?"]


LOCALE = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
SCRIPT = """
import memory_rl
from memory_rl.cli import main

def größe_学(answer, secret):
    return float(answer == secret)

small = dict(backend="tabular", N=8, num_runs=2, max_episodes=40)
memory_rl.train(**small, reward_type=größe_学, log_path="run", checkpoint_every=0, quiet=False)
memory_rl.report(runs="run", title="größe 学", quiet=False)
memory_rl.sweep(protocol="p.yaml", quiet=False)
main(["report", "runs=sweeps", "out=another"])
memory_rl.generate_sft_data(N=8, fixed_secret=3, wording="plain")
memory_rl.sft(**small, fixed_secret=3, wording="plain", quiet=False)
"""


def test_a_locale_that_is_not_utf_8_loses_nothing():
    """Names in other scripts, printed and in every file, where Python takes texts for ASCII."""
    grid = "grid: [{command: train, N: 8, backend: tabular, num_runs: 2, max_episodes: 40}]"
    Path("p.yaml").write_text(f"name: größe 学\nminimum_runs: 2\nhypotheses: []\n{grid}\n", "utf-8")
    Path("ask.py").write_text(SCRIPT, "utf-8")
    environment, words = os.environ | LOCALE, [sys.executable, "-X", "warn_default_encoding", "ask.py"]
    done = subprocess.run(words, env=environment, capture_output=True, encoding="ascii", timeout=300)
    assert done.returncode == 0, done.stderr
    assert "gr??e_?, N = 8" in done.stdout
    ours = [line for line in done.stderr.splitlines() if "EncodingWarning" in line and "memory_rl/" in line]
    assert not ours
    assert json.loads(Path("run/manifest.json").read_text("utf-8"))["condition"] == "größe_学"
    (sweep,) = Path("sweeps").iterdir()
    for path in (sweep / "protocol.yaml", Path("report/index.html"), Path("report/summary.md")):
        assert "größe 学" in path.read_text("utf-8")


def test_a_path_is_expanded_at_its_start_alone(home):
    assert expand("a/~/b", "log_path") == "a/~/b"
    assert expand("./~", "log_path") == "./~"
    assert expand("~", "log_path") == str(home)
    assert expand("s3://bucket/x", "log_path", url=True) == "s3://bucket/x"
