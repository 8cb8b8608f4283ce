"""The live server, with a tiny model that has been warmed up for all that it is asked, and a proxy in front
of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from live_model import make_live_model
from live_server import CountingProxy, LiveServer, NoEnvironmentError, find_environment


def pytest_configure(config: pytest.Config) -> None:
    """The SDK leaves connections to be closed by the garbage collector, which tells of each."""
    if config.getoption("markexpr") == "tinker":
        config.addinivalue_line("filterwarnings", "ignore::pytest.PytestUnraisableExceptionWarning")
        config.addinivalue_line("filterwarnings", "ignore::ResourceWarning")


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """The directory of the model."""
    network, tokenizer = make_live_model()
    folder = tmp_path_factory.mktemp("tinker") / "tiny-llama"
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def environment() -> Path:
    """The server's Python; without it none of the tests can run, and one sentence says why."""
    try:
        return find_environment()
    except NoEnvironmentError as error:
        pytest.exit(str(error), returncode=1)


@pytest.fixture(scope="module")
def server(model, environment, tmp_path_factory):
    live = LiveServer(environment, model, tmp_path_factory.mktemp("server"))
    live.start()
    yield live
    live.kill()


@pytest.fixture
def proxy(server):
    counting = CountingProxy(server.port)
    yield counting
    counting.close()
