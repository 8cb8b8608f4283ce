"""Fixtures for all tests: a working directory and a model cache of their own, and small policies to look
into."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable

import pytest
import torch
from helpers import make_environment, make_trie

from memory_rl.policies import tiny_model
from memory_rl.policies.lora import LoRASettings
from memory_rl.policies.transformer import TransformerPolicy
from memory_rl.policies.warmup import WarmupSettings, warm_up
from memory_rl.reporting import progress

_TRACKIO = tempfile.TemporaryDirectory(prefix="trackio-")
os.environ["TRACKIO_DIR"] = _TRACKIO.name
"""Trackio reads it once, when it is imported, which TRL does while tests are still collected."""


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Processes of one run of the tests share it, so that each base model is warmed up once."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMORY_RL_CACHE", str(shared / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_lines_about_progress(monkeypatch):
    """On a slow machine they would come between what a test expects on standard error."""
    monkeypatch.setattr(progress, "SECONDS_A_LINE", 3600.0)


@pytest.fixture(autouse=True)
def _own_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


PolicyMaker = Callable[..., TransformerPolicy]


@pytest.fixture(scope="session")
def make_policy() -> PolicyMaker:
    """A policy on the warmed-up tiny model; with `moved`, its adapters are random and no longer zero."""
    bases = {}

    def make(
        kind: str = "single_step",
        N: int = 16,
        num_runs: int = 2,
        moved: bool = False,
        seed: int = 0,
        num_secrets: int = 1,
        **lora,
    ):
        environment = make_environment(kind, N, num_secrets)
        trie = make_trie(environment, tiny_model.make_tokenizer())
        world = kind, N, num_secrets
        if world not in bases:
            bases[world] = tiny_model.make_model(0)
            warm_up(bases[world], trie, N, WarmupSettings(head_steps=300, tolerance=0.05))
        settings = LoRASettings(**{"rank": 4, **lora})
        policy = TransformerPolicy(
            copy.deepcopy(bases[world]), trie, num_runs=num_runs, lora=settings, learning_rate=1e-3, seed=seed
        )
        if moved:
            random = torch.Generator().manual_seed(seed)
            for vector in policy.adapters.vectors:
                vector.data += 0.03 * torch.randn(vector.shape, generator=random)
        return policy

    return make
