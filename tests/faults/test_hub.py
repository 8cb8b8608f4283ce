"""A hub that is not there, does not answer or refuses: one sentence within seconds, and the cache is used."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from helpers import complaint
from huggingface_hub import constants
from transformers import LlamaConfig, LlamaForCausalLM

from memory_rl.policies import tiny_model
from memory_rl.policies.base_model import find_base_model

COMMIT = "0123456789" * 4
Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("some/thing", "is neither a directory nor in the hub's cache, and HF_HUB_OFFLINE forbids to ask"),
        ("./models/mine", "is no directory, and no hub can have a model of that name: give tiny, "),
        ("a/b/c", "is no directory, and no hub can have a model of that name: give tiny, "),
    ],
)
def test_an_unknown_model_is_refused_before_pytorch_is_imported(name, why):
    ask = "import sys; from memory_rl.cli import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    words = [sys.executable, "-c", ask, "train", "N=8", f"model_name={name}"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.stdout == "2 False\n"
    assert f"memory-rl: model_name='{name}' {why}" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not Path("runs").exists()


@pytest.fixture
def hub_at(tmp_path, monkeypatch) -> Callable[[str], None]:
    """Points the hub's library at an address, with an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def point(address: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )

    return point


@contextmanager
def serving(answer: Answer):
    """The address of a server of which each request gets this answer."""

    class Handler(BaseHTTPRequestHandler):
        do_GET = do_HEAD = answer  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def status(code: int, error: str = "") -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        request.send_header("X-Error-Code", error)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def files_of(folder: Path, delay: float) -> Answer:
    """A hub with one model, each of whose answers takes a while."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        time.sleep(delay)
        file = folder / request.path.rpartition("/")[2]
        content = file.read_bytes() if file.is_file() else b""
        request.send_response(200 if content else 404)
        request.send_header("ETag", f'"{file.name}"' if content else "")
        request.send_header("X-Error-Code", "" if content else "EntryNotFound")
        request.send_header("X-Repo-Commit", COMMIT)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(content)

    return answer


def hang(request: BaseHTTPRequestHandler) -> None:
    time.sleep(3)


WORDS = "model_name=someone/something N=8 quiet=True"


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (None, "does not answer ([Errno 111] Connection refused): check the network"),
        (
            hang,
            "does not answer (timed out): check the network, give a slow hub more than",
        ),
        (status(500), "does not answer (Server error '500 Internal Server Error' for url"),
        (status(503), "does not answer (Server error '503 Service Unavailable' for url"),
        (status(404, "RepoNotFound"), "the hub has no such model or keeps it private: check the spelling"),
        (status(401), "the hub has no such model or keeps it private: check the spelling, or type hf auth"),
        (status(403, "GatedRepo"), "is gated: ask for access at http://127.0.0.1:"),
    ],
)
def test_a_hub_that_gives_nothing_is_one_sentence_within_seconds(answer, part, hub_at, capsys, monkeypatch):
    if answer is hang:
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.5)
    started = time.monotonic()
    if answer is None:
        hub_at("http://127.0.0.1:1")
        told = complaint("train", WORDS, capsys)
    else:
        with serving(answer) as address:
            hub_at(address)
            told = complaint("train", WORDS, capsys)
    assert "model_name='someone/something'" in told
    assert part in told
    assert time.monotonic() - started < 10


def test_a_slow_hub_works_and_its_cache_needs_no_hub(hub_at, tmp_path, capsys, caplog):
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tiny_model.make_tokenizer()),
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
        )
    )
    model.save_pretrained(tmp_path / "something")
    tiny_model.make_tokenizer().save_pretrained(tmp_path / "something")
    capsys.readouterr()  # of saving
    with serving(files_of(tmp_path / "something", 0.03)) as address:
        hub_at(address)
        first = find_base_model("someone/something", 0)
    started = time.monotonic()
    again = find_base_model("someone/something", 0)  # the server is gone
    assert time.monotonic() - started < 10
    for base in (first, again):
        assert torch.equal(base.model.lm_head.weight, model.lm_head.weight)
        assert base.tokenizer.get_vocab() == tiny_model.make_tokenizer().get_vocab()
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert not [record for record in caplog.records if record.name.startswith("huggingface_hub")]
