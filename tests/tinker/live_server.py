"""A live server that speaks the Tinker API on this machine, and a proxy that counts what goes to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
import venv
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import platformdirs

HERE = Path(__file__).parent
ENVIRONMENT = "MEMORY_RL_SKYRL"
"""The environment variable that names a virtual environment with the server in it."""

_BACKEND = {
    "max_lora_adapters": 6,
    "max_lora_rank": 8,
    "train_micro_batch_size": 8,
    "sample_max_num_sequences": 8,
}


class NoEnvironmentError(Exception):
    """There is no environment with the server in it, and none can be made."""


def find_environment() -> Path:
    """The server's Python: of the environment that MEMORY_RL_SKYRL names, or of one in the user's cache,
    which is made where there is none.

    Raises:
        NoEnvironmentError: if it cannot be made, in one sentence.
    """
    folder = Path(os.environ.get(ENVIRONMENT) or cache_directory() / "skyrl-0.4.0")
    python, ready = folder / "bin" / "python", folder / "ready"
    if ENVIRONMENT in os.environ or ready.exists():
        return python
    venv.create(folder, with_pip=True, clear=True)
    # It declares Python 3.12, and runs on 3.11.
    for words in (
        ["-r", HERE / "requirements.txt"],
        ["--no-deps", "--ignore-requires-python", "skyrl==0.4.0"],
    ):
        done = subprocess.run([python, "-m", "pip", "install", "--quiet", *words], stderr=subprocess.PIPE)
        if done.returncode != 0:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or ["pip gives no reason"]
            why = next((line for line in reversed(lines) if line.startswith("ERROR:")), lines[-1])
            raise NoEnvironmentError(
                f"the environment of the live server cannot be made in {folder} ({why}): make one as "
                f"docs/tinker.md says and name it in {ENVIRONMENT}."
            )
    ready.touch()
    return python


def cache_directory() -> Path:
    return Path(platformdirs.user_cache_dir("memory-rl", appauthor=False))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LiveServer:
    """Keeps its port and its database, so that it can be killed and started again.

    Args:
        python: of the environment with the server in it.
        model: the directory of the base model.
        folder: for its database, its checkpoints and its log.
    """

    def __init__(self, python: Path, model: Path, folder: Path) -> None:
        self.python, self.model, self.folder, self.port = python, model, folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._database = folder / "tinker.db"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Waits until it answers."""
        words = [
            self.python,
            HERE / "skyrl_server.py",
            "--base-model",
            self.model,
            "--backend",
            "jax",
            "--backend-config",
            json.dumps(_BACKEND),
        ]
        words += [
            "--checkpoints-base",
            self.folder / "checkpoints",
            "--database-url",
            f"sqlite:///{self._database}",
            "--port",
            str(self.port),
        ]
        words += ["--session-timeout-sec", "60", "--session-cleanup-interval-sec", "1"]
        surroundings = {
            name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "TINKER_API_KEY")
        }
        surroundings |= {
            "HF_HUB_OFFLINE": "1",
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(cache_directory() / "skyrl-jax"),
            "OMP_NUM_THREADS": "1",
        }
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                list(map(str, words)), env=surroundings, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 180
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError("the server did not start:\n" + (self.folder / "log").read_text()[-3000:])
            time.sleep(0.5)

    def kill(self) -> None:
        """Kills the API and its engine at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def wait_until_free(self) -> None:
        """Waits until the adapters of all sessions that have ended are gone: there is room for few."""
        deadline = time.monotonic() + 120
        while self._loaded():
            if time.monotonic() > deadline:
                raise RuntimeError("the server keeps the adapters of a session that has ended")
            time.sleep(0.1)

    def _loaded(self) -> int:
        with contextlib.closing(sqlite3.connect(self._database, timeout=60)) as database:
            [[models]] = database.execute("SELECT count(*) FROM models WHERE status != 'unloaded'")
        return int(models)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/healthz", timeout=2) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except OSError:
            return False


def read_data(body: bytes) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """The data of a forward and backward pass as they go over the wire."""
    from tinker.proto.tinker_public_pb2 import ForwardBackwardRequest

    message = ForwardBackwardRequest()
    message.ParseFromString(body)
    data = []
    for datum in message.data:
        tokens = np.concatenate(
            [np.frombuffer(chunk.encoded_text.tokens, dtype=np.int32) for chunk in datum.model_input]
        )
        kinds = {name: np.int64 if name == "target_tokens" else np.float32 for name in datum.loss_fn_inputs}
        data.append(
            (
                tokens,
                {
                    name: np.frombuffer(datum.loss_fn_inputs[name].dense, dtype=kind)
                    for name, kind in kinds.items()
                },
            )
        )
    return data


class CountingProxy:
    """Passes requests on to a server, and looks at those that were accepted.

    Attributes:
        paths: how many there were of each.
        prompt_tokens: that samples were asked for with.
        failing: the places, in the order of all requests, of those that get no answer or one of 503, in turn;
            they do not reach the server.
        failed: how many that were.
        trained: the data of each forward and backward pass: of each its input tokens and, by name, the values
            that go with them.
    """

    def __init__(self, port: int) -> None:
        self.paths: Counter[str] = Counter()
        self.prompt_tokens = 0
        self.failing: range = range(0)
        self.failed = self._seen = 0
        self.trained: list[list[tuple[np.ndarray, dict[str, np.ndarray]]]] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if proxy.fails():
                    if proxy.failed % 2:
                        self.send_response(503)
                        self.send_header("Content-Length", "0")
                        self.end_headers()
                    else:
                        self.close_connection = True
                    return
                onward = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
                onward.request(
                    self.command,
                    self.path,
                    body,
                    {name: value for name, value in self.headers.items() if name.lower() != "host"},
                )
                answer = onward.getresponse()
                content = answer.read()
                onward.close()
                if answer.status == 200:
                    proxy.count(self.path, body)
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = pass_on  # noqa: N815

            def log_message(self, *words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def fails(self) -> bool:
        with self._lock:
            self._seen += 1
            failing = self._seen in self.failing
            self.failed += failing
            return failing

    def count(self, path: str, body: bytes) -> None:
        with self._lock:
            self.paths[path.removeprefix("/api/v1/")] += 1
            if path.endswith("/asample"):
                self.prompt_tokens += sum(
                    len(chunk["tokens"]) for chunk in json.loads(body)["prompt"]["chunks"]
                )
            if path.endswith("/forward_backward"):
                self.trained.append(read_data(body))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


# python tests/tinker/live_server.py MODEL_DIR FOLDER: serves until it is interrupted.
if __name__ == "__main__":
    live = LiveServer(find_environment(), Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
    live.folder.mkdir(parents=True, exist_ok=True)
    try:
        live.start()
        sys.stdout.write(f"{live.url}\n")
        sys.stdout.flush()
        signal.pause()
    finally:
        live.kill()
