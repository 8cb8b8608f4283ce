"""A page that follows a sweep: what it says meanwhile, when it is built anew, and how it ends."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from playwright.sync_api import Error

import memory_rl
from memory_rl.cli import main
from memory_rl.reporting import report as reports
from memory_rl.reporting import watch
from memory_rl.runs.lock import LOCK, Lock

SMALL = {"N": 8, "backend": "tabular", "num_runs": 2, "max_episodes": 40, "figures": False}
RELOADS = "location.reload()"


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("template") / "sweep"
    memory_rl.sweep(**SMALL, conditions=["sft", "binary"], log_path=str(folder))
    return folder


@pytest.fixture
def running(template, monkeypatch):
    """A sweep that has begun; what happens at each look is to be put into the list."""
    Path("sweep/cells").mkdir(parents=True)
    shutil.copy(template / "sweep.json", "sweep")
    lock, steps = Lock(Path("sweep", LOCK)), []

    def look(seconds: float) -> None:
        assert seconds == watch._LOOK
        steps.pop(0)() if steps else lock.release()

    monkeypatch.setattr(watch.time, "sleep", look)
    monkeypatch.setattr(reports, "_draw", lambda *given: iter([("x.svg", b"drawn at the end")]))
    yield steps
    lock.release()


@pytest.fixture
def built(monkeypatch) -> list[str]:
    """Each page that was written, in order."""
    pages = list[str]()

    def note(path, content, write=reports.write_whole):
        write(path, content)
        if path.name == "index.html":
            pages.append(path.read_text("utf-8"))

    monkeypatch.setattr(reports, "write_whole", note)
    return pages


def finish(template: Path, place: int) -> None:
    cell = sorted((template / "cells").iterdir())[place]
    shutil.copytree(cell, Path("sweep/cells", cell.name))


def nothing() -> None:
    pass


def test_it_is_built_where_something_has_changed_until_the_end(running, built, template, capsys):
    running += [nothing, lambda: finish(template, 0), nothing, nothing, lambda: finish(template, 1)]
    assert main(["report", "runs=sweep", "out=out", "--watch"]) == 0
    said = [re.search(r"role=\"status\">(\d of \d (?:is|are) complete) at", page) for page in built]
    assert [found and found[1] for found in said] == [
        "0 of 2 are complete",
        "1 of 2 are complete",
        "2 of 2 are complete",
        None,
    ]
    assert "Nothing is complete yet" in built[0]
    assert "1 cell with 2 runs of 1 condition" in built[1]
    assert [RELOADS in page for page in built] == [True, True, True, False]
    assert Path("out/figures/x.svg").read_bytes() == b"drawn at the end"
    assert capsys.readouterr().out.splitlines()[:2] == [
        "0 of 2 are complete: out/index.html",
        "1 of 2 are complete: out/index.html",
    ]


def test_figures_for_print_are_drawn_once(running, template, built):
    running += [lambda: finish(template, 0), lambda: not Path("out/figures").exists() or pytest.fail("drawn")]
    memory_rl.report(runs="sweep", out="out", watch=True)
    assert Path("out/figures").exists()


def test_a_cell_that_is_damaged_meanwhile_stops_nothing(running, template, built):
    def damage() -> None:
        finish(template, 0)
        finish(template, 1)
        next(Path("sweep/cells").iterdir()).joinpath("summary.json").write_text("{")

    running += [damage]
    with pytest.warns(memory_rl.errors.DamageWarning, match="damaged and left out"):
        memory_rl.report(runs="sweep", out="out", watch=True)
    assert "1 of 2 are complete at" in built[1]


def stop() -> None:
    raise KeyboardInterrupt


def test_control_c_leaves_a_page_that_loads_itself_no_more(running, template, capsys):
    running += [lambda: finish(template, 0), stop]
    assert main(["report", "runs=sweep", "out=out", "watch=True"]) == 130
    assert "out/index.html shows what there is of it" in capsys.readouterr().err
    page = Path("out/index.html").read_text("utf-8")
    assert RELOADS not in page
    assert "loads itself again" not in page
    assert re.search(r"1 of 2 are complete at [\d:]+, when this page was last written\.", page)


def test_what_has_ended_is_shown_once(template, monkeypatch, built):
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: pytest.fail("it waited"))
    memory_rl.report(runs=str(template), out="out", watch=True)
    assert len(built) == 1
    assert RELOADS not in built[0]


def test_a_single_run_is_followed_too(template, monkeypatch, built):
    shutil.copytree(template / "cells", "runs")
    (path, _) = sorted(Path("runs").iterdir())
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    lock = Lock(path / LOCK)

    def end(seconds: float) -> None:
        lock.release()
        (path / "manifest.json").write_text(json.dumps(manifest))

    monkeypatch.setattr(watch.time, "sleep", end)
    memory_rl.report(runs="runs", out="out", watch=True)
    assert ["1 of 2 are complete" in page for page in built] == [True, False]
    assert "2 cells with 4 runs" in built[1]


def test_a_cells_folder_is_followed_by_the_lock_of_its_sweep(running):
    assert watch.is_running(["sweep/cells"])
    assert watch.is_running(["."])
    running += [nothing]


def test_another_page_in_its_place_is_left_alone(running, capsys):
    Path("out").mkdir()
    Path("out/index.html").write_text("my homepage")
    assert main(["report", "runs=sweep", "out=out", "watch=True"]) == 2
    assert "out=out holds files that are no report" in capsys.readouterr().err
    assert Path("out/index.html").read_text() == "my homepage"


def test_a_missing_folder_is_one_sentence(capsys):
    assert main(["report", "runs=nowhere", "watch=True"]) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err


def test_a_real_sweep_is_followed_to_its_end(tmp_path):
    words = ["conditions=sft,binary", "N=8", "backend=tabular", "num_runs=2", "figures=False"]
    sweep = subprocess.Popen(
        [sys.executable, "-m", "memory_rl", "sweep", *words, "log_path=sweep", "quiet=True"]
    )
    deadline = time.monotonic() + 60
    while not Path("sweep/sweep.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    page = memory_rl.report(runs="sweep", out="out", watch=True)
    assert sweep.wait(60) == 0
    assert "2 cells with 4 runs of 2 conditions" in page.read_text("utf-8")


def test_the_open_page_loads_itself_again_without_a_network(chromium, monkeypatch, tmp_path):
    monkeypatch.setattr(watch, "_RELOAD", 1)
    template = reports.asset("waiting.html")
    page_file = tmp_path / "index.html"
    page_file.write_text(watch._followed(template, "0 of 2 are complete"))
    page = chromium.new_page()
    asked, heard = [], []
    page.on("console", lambda message: heard.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    assert "0 of 2" in page.locator("[role=status]").inner_text()
    scratch = tmp_path / "next.html"
    scratch.write_text(watch._followed(template, "1 of 2 are complete"))
    os.replace(scratch, page_file)
    page.get_by_text("1 of 2 are complete").wait_for(timeout=60_000)
    assert {url for url in asked if not url.startswith("file:")} == set()
    assert heard == []
    page.close()


def wait_until_holds(page, condition: str) -> None:
    """However often the page loads meanwhile."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(Error):  # it was left while it was asked
            if page.evaluate(condition):
                return
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


def test_a_drawn_page_loads_itself_again_where_it_was_scrolled_to(chromium, monkeypatch, report, tmp_path):
    monkeypatch.setattr(watch, "_RELOAD", 1)
    page_file = tmp_path / "index.html"
    page_file.write_text(watch._followed(report.read_text("utf-8"), "1 of 2 are complete"), "utf-8")
    page = chromium.new_page(viewport={"width": 1200, "height": 600})
    heard = []
    page.on("console", lambda message: heard.append(message.text))
    page.add_init_script("sessionStorage.loads = 1 + Number(sessionStorage.loads ?? 0)")
    page.goto(page_file.as_uri())
    drawn = "document.documentElement.dataset.drawn"
    wait_until_holds(page, f"{drawn} && (scrollTo(0, 1500), sessionStorage.hand = sessionStorage.loads)")
    wait_until_holds(page, "sessionStorage.loads >= 2 + Number(sessionStorage.hand)")
    wait_until_holds(page, "sessionStorage.scrolled === '1500'")  # where the load before this one ended
    assert heard == []
    page.close()
