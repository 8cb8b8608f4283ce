"""Where tasks run: in this process, in processes of this machine, or on a Ray cluster.

Each yields outcomes as they come and loses none. Tasks and outcomes travel between processes the way Python's
own process pools and Ray send them (pickled, from our own workers); no such file is ever read.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from memory_rl.errors import ConfigError, hushed, one_line
from memory_rl.experiments.running import Running
from memory_rl.experiments.settings import SweepConfig
from memory_rl.experiments.worker import CellOutcome, Task, run_task
from memory_rl.reporting.progress import overheard
from memory_rl.runs.interruption import InterruptedBySignal, signals_raise

_SECONDS_TO_CONNECT = 10


def execute(tasks: Sequence[Task], config: SweepConfig, running: Running) -> Iterator[CellOutcome]:
    """Runs tasks where a sweep wants them, and yields an outcome for each.

    Closing the iterator stops the workers, which note on disk that they were interrupted.

    Args:
        tasks: to be run.
        config: of the sweep.
        running: is told of what begins on this machine.
    """
    if config.executor == "ray":
        return _on_ray(tasks, config)
    return (_inline if config.executor == "inline" else _in_processes)(tasks, config, running)


def _inline(tasks: Sequence[Task], config: SweepConfig, running: Running) -> Iterator[CellOutcome]:
    """One after the other in this process, which tells of each how far it is."""
    for task in tasks:
        running.begin(task.cell.id)
        with overheard(partial(running.tell, task.cell.id)):
            outcome = run_task(task)
        yield outcome


def number_of_workers(config: SweepConfig) -> int:
    """How many tasks may run at once on this machine."""
    return 1 if config.executor == "inline" else config.workers or os.cpu_count() or 1


def _lost(task: Task, config: SweepConfig, why: str) -> CellOutcome:
    """The outcome of a task whose workers were lost too often."""
    return CellOutcome(task.cell.id, "failed", f"its worker was lost {config.retries + 1} times ({why})")


def _in_processes(tasks: Sequence[Task], config: SweepConfig, running: Running) -> Iterator[CellOutcome]:
    """In spawned processes, each of a pool of its own: one that is killed takes no other with it."""
    slots = [_Slot(config) for _ in range(min(number_of_workers(config), len(tasks)))]
    free = list(slots)

    def run(task: Task) -> CellOutcome | None:
        slot = free.pop()  # there are as many threads as slots
        running.begin(task.cell.id)
        try:
            return slot.run(task)
        finally:
            free.append(slot)

    threads = ThreadPoolExecutor(max(1, len(slots)))
    try:
        for future in as_completed([threads.submit(run, task) for task in tasks]):
            if (outcome := future.result()) is not None:
                yield outcome
    except BaseException:  # a signal, or the consumer has gone
        for slot in slots:
            slot.stop()
        raise
    finally:
        threads.shutdown(wait=True, cancel_futures=True)
        for slot in slots:
            slot.close()


class _Slot:
    """One worker process, replaced when it dies."""

    def __init__(self, config: SweepConfig) -> None:
        self._config = config
        self._stopping = False
        self._pool: ProcessPoolExecutor | None = None
        self._process: BaseProcess | None = None

    def run(self, task: Task) -> CellOutcome | None:
        """The outcome of a task; None if it was not started because the sweep is stopped."""
        outcome, why = None, "its process was told to stop"
        for _ in range(self._config.retries + 1):
            try:
                outcome = None if self._stopping else self._submit(task).result()
            except BrokenProcessPool:
                outcome, why = None, self._how_it_died()
            except (AssertionError, OSError, RuntimeError) as error:  # of this system, or a daemon's children
                outcome, why = None, f"it could not be started: {one_line(str(error))}"
                self.close()
            if self._stopping or (outcome is not None and outcome.status != "interrupted"):
                return outcome
            self.close()  # what was interrupted may have been half imported
        return _lost(task, self._config, why)

    def _submit(self, task: Task) -> Future[CellOutcome]:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                1, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_worker
            )
        with _without_main():
            future = self._pool.submit(_run_as_worker, task)
        self._process = next(iter(self._pool._processes.values()), None)
        if self._stopping:  # `stop` came while the process was being started
            self.stop()
        return future

    def _how_it_died(self) -> str:
        process = self._process
        self.close()
        code = process.exitcode if process else None
        if code is None or code >= 0:
            return f"its process ended with exit code {code}"
        hint = ", as the system does where memory runs out" if -code == signal.SIGKILL else ""
        return f"its process was ended by signal {-code}, {signal.strsignal(-code)}{hint}"

    def stop(self) -> None:
        """Lets the worker note that it was interrupted."""
        self._stopping = True
        if self._process is not None:
            self._process.terminate()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = self._process = None


_LAUNCHING = threading.Lock()


@contextmanager
def _without_main() -> Iterator[None]:
    """Lets a process start without the caller's script, which it would run again from its top.

    Workers need nothing of it, a script may have no `if __name__ == "__main__":`, and standard input cannot
    be run twice.
    """
    with _LAUNCHING:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def _begin_worker() -> None:
    """Makes a fresh process a worker, which leaves the keyboard to its parent and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _run_as_worker(task: Task) -> CellOutcome:
    """Runs a task; SIGTERM interrupts it, while an idle worker simply ends."""
    try:
        with signals_raise(signal.SIGTERM):
            return run_task(task)
    except InterruptedBySignal:  # before or after the cell
        return CellOutcome(task.cell.id, "interrupted")


def _die_with(parent: Any) -> None:
    parent.join()
    os._exit(1)  # its cell counts as unfinished; another sweep may have started already


def _on_ray(tasks: Sequence[Task], config: SweepConfig) -> Iterator[CellOutcome]:
    """On a Ray cluster, whose workers need share no disk with this process.

    Files come back as the task's result, so that a task which Ray ran twice after a loss counts once.
    """
    import ray

    ours = _connect(config, max((task.cell.experiment.keep.threads for task in tasks), default=1))
    cpus = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    remote = ray.remote(max_retries=config.retries)(run_task)
    pending: dict[Any, Task] = {}
    try:
        for task in tasks:
            threads = task.cell.experiment.keep.threads  # more than any node has would never be given
            pending[remote.options(num_cpus=min(threads, cpus or threads)).remote(task)] = task
        while pending:
            (done, *_), _ = ray.wait(list(pending), num_returns=1)
            task = pending.pop(done)
            try:
                yield ray.get(done)
            except ray.exceptions.RayTaskError as error:  # such as a package that the worker lacks
                why = f"its worker could not run it ({one_line(str(error.cause))})"
                yield CellOutcome(task.cell.id, "failed", why)
            except ray.exceptions.RayError as error:
                yield _lost(task, config, type(error).__name__)
    finally:
        for reference in pending:
            ray.cancel(reference, force=True)
        if ours:
            ray.shutdown()


def _connect(config: SweepConfig, threads: int) -> bool:
    """Whether the connection was made here, and is to be closed here."""
    import ray

    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anyone unless asked
    word, address = config.cluster
    own = {"address": "local", "num_cpus": number_of_workers(config) * threads, "include_dashboard": False}
    try:
        _knock(address or "")
        with _undisturbed():
            where = own if config.workers or address == "local" else {"address": address}
            ray.init(**where, log_to_driver=False, configure_logging=False)
    except (ray.exceptions.RayError, OSError, OverflowError, RuntimeError, ValueError) as error:
        raise ConfigError(_not_reached(word, address, error)) from error
    return True


def _not_reached(word: str, address: str | None, error: Exception) -> str:
    """Why there is no cluster, and what to do: one sentence."""
    why = one_line(f"{error}: {error.__cause__}" if error.__cause__ else str(error))
    if "InvalidAuthToken" in str(error.__cause__):
        return (
            f"{word}={address} asks for a token: type export RAY_AUTH_MODE=token first, as on its machines."
        )
    if address is None:
        return (
            f"executor=ray finds no cluster here and starts none ({why}): type ray stop, or give ray_address."
        )
    advice = "leave ray_address out" if word == "ray_address" else "unset RAY_ADDRESS"
    return f"{word}={address} cannot be reached ({why}): start a cluster there, or {advice}."


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keeps Ray from printing, and from handling signals: its own handlers end the process without a word."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with hushed("ray", logging.ERROR):
            yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _knock(address: str) -> None:
    """Fails at once where nobody listens; Ray itself would try for many minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_CONNECT).close()
