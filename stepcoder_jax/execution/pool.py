"""A pool of sandboxed workers: programs in, reports out.

    with Pool(settings) as pool:
        reports = pool.run(programs)

One thread per worker talks to it over pipes. A worker that dies is replaced and its
program tried once more; a second death gives Verdict.INFRA, which is never the
program's fault.
"""

from __future__ import annotations

import dataclasses
import queue
import sys
import threading
from collections.abc import Iterator, Sequence

from stepcoder_jax.execution import frames, verdicts
from stepcoder_jax.execution.checks import check_problem
from stepcoder_jax.execution.settings import (
    DEFAULT_MIN_LEVEL,
    PoolSettings,
    SandboxError,
)
from stepcoder_jax.execution.supervisor import WorkerProcess
from stepcoder_jax.records import Program, Report

_ATTEMPTS = 2


@dataclasses.dataclass
class _Ticket:
    """One call of `stream`: where its reports go, and whether they are still wanted."""

    reports: queue.SimpleQueue[tuple[int, Report | Exception]]
    cancelled: bool = False


@dataclasses.dataclass(frozen=True)
class _Job:
    index: int
    program: Program
    ticket: _Ticket


class Pool:
    """Judges programs on `settings.worker_count` sandboxed workers.

    `level` is the isolation that the canaries measured, L3 (files, network, processes,
    memory) to L0; `layers` what was put on; `canaries` what each of them saw;
    `interpreter` the version of the sandbox's Python. Raises SandboxError when the level
    is below `settings.min_level` and `settings.allow_unsafe` is not set.
    """

    def __init__(self, settings: PoolSettings) -> None:
        self.settings = settings
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._workers: list[WorkerProcess | None] = [None] * settings.worker_count
        self._closing = False
        self._lock = threading.Lock()
        self._started: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._supervise, args=(slot,), daemon=True)
            for slot in range(settings.worker_count)
        ]
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            error = self._started.get()
            if error is not None:
                raise error
        workers = [worker for worker in self._workers if worker is not None]
        worst = min(workers, key=lambda worker: worker.level)
        self.level = worst.level
        self.layers: dict[str, str] = worst.hello["layers"]
        self.canaries: dict[str, str] = worst.hello["canaries"]
        self.interpreter: tuple[int, ...] = tuple(worst.hello["version"])
        self._check_level(bool(worst.hello["landlock_abi"]))

    def _check_level(self, has_landlock: bool) -> None:
        wanted = self.settings.min_level
        if wanted == DEFAULT_MIN_LEVEL and not has_landlock:
            wanted -= 1
        opened = ", ".join(name for name, saw in self.canaries.items() if saw == "open")
        if self.level < wanted and not self.settings.allow_unsafe:
            raise SandboxError(
                f"the sandbox reached level {self.level}, {wanted} was asked for: open are "
                f"{opened} (layers: {self.layers}); mend the layer, or accept the risk "
                "with --execution.allow_unsafe"
            )
        if self.level < self.settings.min_level:
            print(
                f"*** judge: isolation level {self.level} of 3; untrusted programs can: "
                f"{opened} ***",
                file=sys.stderr,
            )

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(self, programs: Sequence[Program]) -> list[Report]:
        """Judge all programs; reports come in the programs' order."""
        found = dict(self.stream(programs))
        return [found[index] for index in range(len(programs))]

    def stream(self, programs: Sequence[Program]) -> Iterator[tuple[int, Report]]:
        """Judge all programs; yield (index, report) as each one ends.

        ValueError, before anything runs, for a problem that cannot be judged. Leaving
        the iteration early drops what has not been started.
        """
        if self._closing:
            raise RuntimeError("the pool is closed")
        problems = {id(program.problem): program.problem for program in programs}
        for problem in problems.values():
            check_problem(problem)
        ticket = _Ticket(queue.SimpleQueue())
        for index, program in enumerate(programs):
            self._jobs.put(_Job(index, program, ticket))
        return self._collect(ticket, len(programs))

    def _collect(self, ticket: _Ticket, count: int) -> Iterator[tuple[int, Report]]:
        try:
            for _ in range(count):
                index, report = ticket.reports.get()
                if isinstance(report, Exception):
                    raise report
                yield index, report
        finally:
            ticket.cancelled = True

    def close(self) -> None:
        """Kill the workers and end the threads; runs in progress raise RuntimeError."""
        with self._lock:
            self._closing = True
            for worker in self._workers:
                if worker is not None:
                    worker.kill()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join()
        for job in _drain(self._jobs):
            job.ticket.reports.put((job.index, RuntimeError("the pool was closed")))

    def _supervise(self, slot: int) -> None:
        """The thread of one worker: start it, feed it, replace it."""
        try:
            self._replace(slot)
        except Exception as error:  # raised again by the thread that waits for us
            self._started.put(error)
            return
        self._started.put(None)
        try:
            while (job := self._jobs.get()) is not None:
                if not job.ticket.cancelled:
                    job.ticket.reports.put((job.index, self._answer(slot, job.program)))
        finally:
            worker = self._workers[slot]
            if worker is not None:
                worker.close()

    def _replace(self, slot: int) -> WorkerProcess:
        old = self._workers[slot]
        if old is not None:
            self._workers[slot] = None
            old.close()
        worker = WorkerProcess(self.settings, slot)
        with self._lock:
            self._workers[slot] = worker
            if self._closing:
                worker.kill()
        return worker

    def _answer(self, slot: int, program: Program) -> Report | Exception:
        """A report, or what the waiting caller is to raise."""
        try:
            return self._judge(slot, program)
        except Exception as error:  # a fault of ours must not leave the caller waiting
            return error

    def _judge(self, slot: int, program: Program) -> Report:
        """One program with its second chance; RuntimeError when the pool closes."""
        tests = len(program.problem.tests)
        message = ""
        for _ in range(_ATTEMPTS):
            if self._closing:
                raise RuntimeError("the pool was closed")
            try:
                worker = self._workers[slot] or self._replace(slot)
                return worker.judge(program)
            except (frames.FrameError, verdicts.InfraError, OSError, SandboxError) as error:
                message = f"{type(error).__name__}: {error}"
                dead, self._workers[slot] = self._workers[slot], None
                if dead is not None:
                    dead.close()
        if self._closing:
            raise RuntimeError("the pool was closed")
        return verdicts.infra_report(tests, message)


def _drain(jobs: queue.SimpleQueue[_Job | None]) -> Iterator[_Job]:
    while True:
        try:
            job = jobs.get_nowait()
        except queue.Empty:
            return
        if job is not None:
            yield job
