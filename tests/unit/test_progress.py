"""Progress as a person sees it: it never goes back, names what is done, and leaves nothing on the screen."""

import io
import re
import time
from typing import ClassVar

import numpy as np
import pytest
from rich.console import Console
from screen import screen

import memory_rl
from memory_rl.experiments.running import Running
from memory_rl.reporting import progress as module
from memory_rl.reporting.progress import Progress, overheard
from memory_rl.reporting.terminal import answer_sheet


def drawn(progress: Progress, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(progress)
    return console.export_text()


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def on(progress: Progress, monkeypatch, *, terminal: bool) -> io.StringIO:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=80)
    monkeypatch.setattr(progress, "_console", console)
    return file


def test_the_share_never_goes_back_and_the_time_left_follows_it(clock):
    progress = Progress(quiet=True)
    progress.phase("learning")
    progress.move(0.0, "0 of 16 runs memorised")
    assert "0 s so far" in drawn(progress, 80)
    clock[0] += 30
    progress.move(0.25, "4 of 16 runs memorised")
    assert "about 90 s left" not in drawn(progress, 80)  # a person says minutes
    assert "about 2 min left" in drawn(progress, 80)
    clock[0] += 30
    progress.move(0.5, "9 of 16 runs memorised")
    assert "about 60 s left" in drawn(progress, 80)
    progress.move(0.1, "9 of 16 runs memorised")  # the run that was furthest has ended
    assert "about 60 s left" in drawn(progress, 80)
    progress.phase("drawing the figures")
    assert drawn(progress, 80).split() == ["drawing", "the", "figures", "0", "s", "so", "far"]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_it_is_one_line_at_any_width(width):
    progress = Progress(quiet=True)
    progress.phase("learning")
    progress.move(0.4, "16 of 16 runs memorised, 5.65 of 6 bits")
    shown = drawn(progress, width)
    assert shown.count("\n") == 1
    assert shown.startswith("learning ━")
    if width >= 80:
        assert "16 of 16 runs memorised, 5.65 of 6 bits, 0 s so far" in shown


def test_nothing_of_it_is_left_on_the_screen(monkeypatch):
    progress = Progress()
    file = on(progress, monkeypatch, terminal=True)
    with progress:
        progress.phase("learning")
        progress.move(0.5, "8 of 16 runs memorised")
        with progress.aside():
            file.write("the answer\n")
        progress.phase("drawing the figures")
        progress._live.refresh()
    assert "learning" in file.getvalue()
    assert "drawing the figures" in file.getvalue()
    assert [line for line in screen(file.getvalue()) if line] == ["the answer"]
    assert screen(file.getvalue())[0] == "the answer"


def test_elsewhere_it_is_a_line_every_few_seconds(monkeypatch):
    monkeypatch.setattr(module, "SECONDS_A_LINE", 0.02)
    progress = Progress()
    file = on(progress, monkeypatch, terminal=False)
    with progress:
        progress.phase("learning")
        progress.move(0.5, "8 of 16 runs memorised")
        thread = progress._lines
        deadline = time.monotonic() + 10
        while file.getvalue().count("\n") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert thread is not None
    assert not thread.is_alive()
    lines = file.getvalue().splitlines()
    assert len(lines) >= 3
    assert lines[-1] == "learning: 8 of 16 runs memorised, 50 % done, 0 s so far"


class _Line:
    """Keeps what a line in a notebook's cell showed."""

    shown: ClassVar = []

    def display(self, html):
        self.shown.append([html.data])

    def update(self, html):
        self.shown[-1].append(html.data)


def test_in_a_notebook_it_is_one_line_that_moves_and_goes(monkeypatch):
    monkeypatch.setattr(module, "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.DisplayHandle", _Line)
    monkeypatch.setattr(module, "_FRAMES_A_SECOND_IN_CELL", 1000)
    monkeypatch.setattr(_Line, "shown", [])
    progress = Progress()
    file = on(progress, monkeypatch, terminal=False)
    with progress:
        progress.phase("<learning>")
        progress.move(0.5, "8 of 16 runs memorised")
        with progress.aside():
            assert progress._lines is not None  # what is printed stands below it
        deadline = time.monotonic() + 10
        while "8 of 16" not in _Line.shown[0][-1] and time.monotonic() < deadline:
            time.sleep(0.001)
    assert file.getvalue() == ""
    (line,) = _Line.shown
    assert line[-2].startswith('<b>&lt;learning&gt;</b> <progress max="1" value="0.500"></progress> 8 of 16')
    assert line[-1] == ""


def test_quiet_is_quiet(monkeypatch):
    monkeypatch.setattr(module, "SECONDS_A_LINE", 0.01)
    progress = Progress(quiet=True)
    file = on(progress, monkeypatch, terminal=False)
    with progress, progress.aside():
        time.sleep(0.05)
    assert file.getvalue() == ""


def test_a_run_tells_its_phases_and_how_many_have_memorised(monkeypatch):
    phases, told = [], []
    monkeypatch.setattr(Progress, "phase", lambda self, name: phases.append(name))
    monkeypatch.setattr(Progress, "move", lambda self, share, about: told.append((share, about)))
    result = memory_rl.train(N=16, backend="tabular", num_runs=4, ledger=False, max_episodes=200)
    assert phases == [
        "starting",
        "working out the ceilings",
        "making the table",
        "learning",
        "writing and summing up",
        "drawing the figures",
        "ending the trackers",
    ]
    memorised = [int(about.split()[0]) for _, about in told]
    assert memorised == sorted(memorised)
    assert memorised[-1] == result.summary["binary"]["memorised"] > 0
    shares = [share for share, _ in told]
    assert 0 <= min(shares) < 0.3
    assert max(shares) == shares[-1] == 1.0
    known = result.metrics.sort("episode").group_by("run").last()["bits_known"].mean()
    assert told[-1][1].endswith(f"{known:.2f} of 4 bits")


def test_the_share_is_that_of_the_slowest_run(monkeypatch):
    """Of the runs that continue: bits or budget, whichever is further; computed again from the metrics."""
    told = []
    monkeypatch.setattr(Progress, "move", lambda self, share, about: told.append(share))
    keys = {"N": 16, "num_runs": 3, "max_episodes": 120, "stop_at": 0.9}
    result = memory_rl.train(backend="tabular", ledger=False, figures=False, skip_ahead=False, **keys)
    enough, metrics = np.log2(16 * 0.9), result.metrics
    updates = sorted(metrics["episode"].unique())
    expected = []
    for episode in updates:
        rows = metrics.filter(metrics["episode"] == episode)
        bits = rows["bits_known"].to_numpy()
        bits = bits[bits < enough]
        expected.append(np.maximum(bits / enough, episode / 120).min() if len(bits) else 1.0)
    np.testing.assert_allclose(told, expected, atol=1e-6)


def test_the_answer_comes_before_the_figures(monkeypatch, capsys):
    from memory_rl.reporting import pictures

    seen = []
    monkeypatch.setattr(pictures, "draw_run", lambda cell: seen.append(capsys.readouterr().out) or iter(()))
    result = memory_rl.train(N=8, backend="tabular", num_runs=2, max_episodes=40, quiet=False, log_path="run")
    (before,) = seen
    lines = before.splitlines()
    assert re.match(r"\d of 2 runs memorised the secret |None of 2 runs memorised", lines[0])
    assert lines[-1] == "run directory: run"
    assert capsys.readouterr().out == ""
    sheet = answer_sheet(result.cell)
    assert [row[0] for row in sheet.rows] == [
        "naive capacity",
        "ideal questioner",
        "ideal observer",
        "policy",
    ]


@pytest.fixture
def told(monkeypatch):
    """Share and words of each line of a sweep, as they would be shown."""
    lines = []
    move = Progress.move

    def look(self, share, about, *more):
        move(self, share, about, *more)
        if self._phase == "cells":
            lines.append((self._share, ", ".join(self._words())))

    monkeypatch.setattr(Progress, "move", look)
    return lines


KEYS = {"N": 16, "num_runs": 4, "backend": "tabular", "figures": False, "conditions": ["sft", "binary"]}


def test_a_sweep_shows_how_far_the_cell_of_this_process_is(told):
    memory_rl.sweep(**KEYS, executor="inline", log_path="sweep")
    shares, lines = zip(*told, strict=True)
    assert lines[0] == "0 of 2, 0 % done, 0 s so far"
    assert lines[-1].startswith("2 of 2, 100 % done, ")
    assert any("making the table (sft N=16)" in line for line in lines)
    learning = [line for line in lines if "1 of 2, " in line and "learning, " in line]
    memorised = [int(re.search(r"learning, (\d) of 4 runs memorised, ", line)[1]) for line in learning]
    assert memorised == sorted(memorised)
    assert (min(memorised), max(memorised)) == (0, 4)
    assert all(line.endswith(" of 4 bits (binary N=16)") for line in learning)
    assert [*shares] == sorted(shares)
    assert len({share for share, line in told if line in learning}) > 5  # it moves within the cell


def test_a_sweep_in_processes_shows_which_are_at_work_and_for_how_long(clock):
    progress = Progress(quiet=True)
    progress.phase("cells")
    running = Running(progress, {"a": "sft N=16", "b": "binary N=16"}, {"a": 1.0, "b": 3.0}, done=2)
    assert progress._words() == ["2 of 4", "0 % done", "0 s so far"]
    running.begin("a")
    clock[0] += 30
    assert progress._words()[-1] == "1 at work for 30 s (sft N=16)"
    running.begin("b")
    clock[0] += 70
    assert progress._words()[-1] == "2 at work, the longest for 2 min (sft N=16)"
    running.end("a")
    assert progress._words() == [
        "3 of 4",
        "25 % done",
        "about 5 min left",
        "1 at work for 70 s (binary N=16)",
    ]
    running.end("b")
    assert progress._words()[:2] == ["4 of 4", "100 % done"]


def test_workers_are_told_of(monkeypatch):
    begun = []
    monkeypatch.setattr(Running, "begin", lambda self, cell: begun.append(self._names[cell]))
    memory_rl.sweep(**KEYS, executor="processes", workers=1, log_path="sweep")
    assert begun == ["sft N=16", "binary N=16"]


def test_what_runs_quietly_is_overheard_only_within(told):
    heard = []
    with overheard(lambda words, share: heard.append((words, share))):
        inner = Progress(quiet=True)
    inner.phase("learning")
    inner.move(0.5, "2 of 4 runs memorised")
    Progress(quiet=True).phase("elsewhere")
    assert heard == [("starting", None), ("learning", None), ("learning, 2 of 4 runs memorised", 0.5)]
