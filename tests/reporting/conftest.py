"""A report over a small sweep, and Chromium to look at it with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from reporting_helpers import make_sweep, wait_until_drawn

from memory_rl.reporting.report import write_report
from memory_rl.reporting.settings import ReportConfig

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="session")
def report(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of the page."""
    return write_report(ReportConfig(runs=str(sweep), out=str(tmp_path_factory.mktemp("made") / "report")))


@pytest.fixture(scope="module")  # its event loop must not run in the tests of other modules
def chromium():
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(
            f"no browser on PATH (looked for {', '.join(BROWSERS)}); on Debian: apt-get install chromium"
        )
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def heard() -> list[str]:
    """What the page said on its console, asked of the network or showed in a dialog."""
    return []


@pytest.fixture
def open_page(chromium, report: Path, heard: list[str]):
    """Opens the report in a window of its own and waits until it is drawn."""
    contexts = []

    def open_it(**settings):
        context = chromium.new_context(
            **{
                "viewport": {"width": 1200, "height": 900},
                "color_scheme": "light",
                "reduced_motion": "reduce",
                **settings,
            }
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("request", lambda request: heard.append(f"request: {request.url}"))
        page.on("dialog", lambda dialog: heard.append(f"dialog: {dialog.message}"))
        page.goto(report.as_uri())
        wait_until_drawn(page)
        return page

    yield open_it
    for context in contexts:
        context.close()
