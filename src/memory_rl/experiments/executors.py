"""Where tasks run: in this process, in processes of this machine, or on a Ray cluster.

Each yields outcomes as they come and loses none. Tasks and outcomes travel between processes the way Python's
own process pools and Ray send them (pickled, from our own workers); no such file is ever read.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from memory_rl.errors import ConfigError
from memory_rl.experiments.settings import SweepConfig
from memory_rl.experiments.worker import CellOutcome, Task, run_task
from memory_rl.runs.interruption import InterruptedBySignal, signals_raise

_SECONDS_TO_CONNECT = 10

Executor = Callable[[Sequence[Task]], Iterator[CellOutcome]]
"""Runs tasks and yields an outcome for each. Closing the iterator stops the workers, which note on disk that
they were interrupted."""


def make_executor(config: SweepConfig) -> Executor:
    """The executor that a sweep asks for."""
    if config.executor == "processes":
        return LocalProcesses(number_of_workers(config), config.retries)
    if config.executor == "ray":
        return RayCluster(config.ray_address, number_of_workers(config), config.retries)
    return run_inline


def number_of_workers(config: SweepConfig) -> int:
    """How many tasks may run at once on this machine."""
    return 1 if config.executor == "inline" else config.workers or os.cpu_count() or 1


def run_inline(tasks: Sequence[Task]) -> Iterator[CellOutcome]:
    """One task after another in this process."""
    return map(run_task, tasks)


def lost(task: Task, times: int, why: str) -> CellOutcome:
    """The outcome of a task whose workers were lost too often."""
    return CellOutcome(task.cell.id, "failed", f"its worker was lost {times} times ({why})")


@dataclass
class LocalProcesses:
    """Spawned processes of this machine, each of its own pool: one that is killed takes no other with it.

    Attributes:
        workers: processes at once.
        retries: how often a task is started again after its process died.
    """

    workers: int
    retries: int

    def __call__(self, tasks: Sequence[Task]) -> Iterator[CellOutcome]:
        """Runs the tasks, as an `Executor`."""
        slots = [_Slot(self.retries) for _ in range(min(self.workers, len(tasks)))]
        free = list(slots)

        def run(task: Task) -> CellOutcome | None:
            slot = free.pop()  # there are as many threads as slots
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

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._stopping = False
        self._pool: ProcessPoolExecutor | None = None
        self._pid: int | None = None

    def run(self, task: Task) -> CellOutcome | None:
        """The outcome of a task; None if it was not started because the sweep is stopped."""
        for _ in range(self._retries + 1):
            outcome = None
            try:
                pool = self._start()
                outcome = None if self._stopping else pool.submit(run_as_worker, task).result()
            except BrokenProcessPool:
                self.close()
            if self._stopping or (outcome is not None and outcome.status != "interrupted"):
                return outcome
        return lost(task, self._retries + 1, "its process died")

    def _start(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                1, mp_context=multiprocessing.get_context("spawn"), initializer=begin_worker
            )
            self._pid = self._pool.submit(os.getpid).result()
        return self._pool

    def stop(self) -> None:
        """Lets the worker note that it was interrupted."""
        self._stopping = True
        if self._pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = self._pid = None


def begin_worker() -> None:
    """Makes a fresh process a worker, which leaves the keyboard to its parent and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def run_as_worker(task: Task) -> CellOutcome:
    """Runs a task; SIGTERM interrupts it, while an idle worker simply ends."""
    try:
        with signals_raise(signal.SIGTERM):
            return run_task(task)
    except InterruptedBySignal:  # before or after the cell
        return CellOutcome(task.cell.id, "interrupted")


def _die_with(parent: Any) -> None:
    parent.join()
    os._exit(1)  # its cell counts as unfinished; another sweep may have started already


@dataclass
class RayCluster:
    """The workers of a Ray cluster.

    They need share no disk with this process: files come back as the task's result, so that a task which Ray
    ran twice after a loss counts once.

    Attributes:
        address: of a running cluster; None starts one on this machine.
        workers: CPUs of the cluster that is started here.
        retries: how often a task is started again after its worker or node was lost.
    """

    address: str | None
    workers: int
    retries: int

    def __call__(self, tasks: Sequence[Task]) -> Iterator[CellOutcome]:
        """Runs the tasks, as an `Executor`."""
        import ray

        ours = self._connect()
        remote = ray.remote(max_retries=self.retries)(run_task)
        pending: dict[Any, Task] = {}
        try:
            for task in tasks:
                pending[remote.options(num_cpus=task.cell.experiment.keep.threads).remote(task)] = task
            while pending:
                (done, *_), _ = ray.wait(list(pending), num_returns=1)
                yield self._outcome(done, pending.pop(done))
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)
            if ours:
                ray.shutdown()

    def _connect(self) -> bool:
        """Whether the connection was made here, and is to be closed here."""
        import ray

        if ray.is_initialized():
            return False
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anyone unless asked
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self._knock()
        settings = (
            {"num_cpus": self.workers, "include_dashboard": False}
            if self.address is None
            else {"address": self.address}
        )
        try:
            ray.init(**settings, log_to_driver=False, configure_logging=False)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise self._unreachable(error) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in handlers.items():
                    signal.signal(number, handler)  # Ray's own would end this process without a word
        return True

    def _knock(self) -> None:
        """Fails at once where nobody listens; Ray itself would try for many minutes."""
        host, colon, port = (self.address or "").rpartition("://")[2].rpartition(":")
        if not (colon and port.isdecimal()):
            return
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_CONNECT).close()
        except (OSError, OverflowError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> ConfigError:
        reason = " ".join(str(error).split())
        return ConfigError(
            f"ray_address={self.address} cannot be reached ({reason}): "
            "start a cluster there, or leave ray_address out."
        )

    def _outcome(self, reference: Any, task: Task) -> CellOutcome:
        import ray

        try:
            outcome: CellOutcome = ray.get(reference)
        except ray.exceptions.RayTaskError as error:  # such as a package that the worker lacks
            why = f"its worker could not run it ({' '.join(str(error.cause).split())})"
            return CellOutcome(task.cell.id, "failed", why)
        except ray.exceptions.RayError as error:
            return lost(task, self.retries + 1, type(error).__name__)
        return outcome
