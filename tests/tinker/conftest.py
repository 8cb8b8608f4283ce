"""The live server, with a tiny model that has been warmed up for both environments, and a proxy in front of
it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from helpers import make_environment, make_trie

sys.path.insert(0, str(Path(__file__).parent))
from live_server import CountingProxy, LiveServer

from memory_rl.policies import tiny_model
from memory_rl.policies.warmup import WarmupSettings, warm_up

SINGLE_N, MULTI_N, SEVERAL = 16, 8, 4
_FIRST, _AGAIN, _ENOUGH = (
    WarmupSettings(head_steps=1000),
    WarmupSettings(),
    WarmupSettings(tolerance=0.02),
)


def pytest_configure(config: pytest.Config) -> None:
    """The SDK leaves connections to be closed by the garbage collector, which tells of each."""
    if config.getoption("markexpr") == "tinker":
        config.addinivalue_line("filterwarnings", "ignore::pytest.PytestUnraisableExceptionWarning")
        config.addinivalue_line("filterwarnings", "ignore::ResourceWarning")


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """The tiny model, uniform over the answers of single_step at N = 16, for one secret and for four, and
    over the bits of multi_step at N = 8.

    Four secrets come first: before the head alone is trained on several prompts, the body is changed, for
    which the model must be new. After that each lesson spoils the others a little; all are repeated until
    they hold together.
    """
    network, tokenizer = tiny_model.make_model(0), tiny_model.make_tokenizer()
    worlds = ("single_step", SINGLE_N, SEVERAL), ("single_step", SINGLE_N, 1), ("multi_step", MULTI_N, 1)
    lessons = [(make_trie(make_environment(*world), tokenizer), world[1]) for world in worlds]

    def teach(settings: WarmupSettings) -> bool:
        reports = [warm_up(network, trie, N, settings) for trie, N in lessons]
        return any(report.head_steps + report.steps for report in reports)

    teach(_FIRST)
    for _ in range(100):
        if not teach(_ENOUGH):
            break
        teach(_AGAIN)
    else:
        pytest.fail("the lessons of the tiny model do not hold together")
    folder = tmp_path_factory.mktemp("tinker") / "tiny-llama"
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    live = LiveServer(model, tmp_path_factory.mktemp("server"))
    live.start()
    yield live
    live.kill()


@pytest.fixture
def proxy(server):
    counting = CountingProxy(server.port)
    yield counting
    counting.close()
