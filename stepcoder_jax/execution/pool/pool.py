"""A pool of sandboxed workers: programs in, reports out.

    with Pool(settings) as pool:
        reports = pool.run(programs)

One thread per worker talks to it over pipes. A worker that dies is replaced and its
program tried once more; a second death gives Verdict.INFRA, which is never the
program's fault. Any number of threads may use one pool.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Sequence

from stepcoder_jax.execution.judging import verdicts
from stepcoder_jax.execution.judging.dialogue import AnyWorker
from stepcoder_jax.execution.pool import affinity, async_streams, cache, streams
from stepcoder_jax.execution.pool.metrics import PoolMetrics
from stepcoder_jax.execution.pool.streams import Job, Ticket
from stepcoder_jax.execution.pool.supervisor import WorkerProcess
from stepcoder_jax.execution.settings import DEFAULT_MIN_LEVEL, PoolSettings, SandboxError
from stepcoder_jax.execution.worker import frames
from stepcoder_jax.records import Program, Report

_ATTEMPTS = 2
_AHEAD = 4  # programs under way for each worker: enough that none waits for its next


class Pool:
    """Judges programs on `settings.worker_count` sandboxed workers.

    `level` is the isolation that the canaries measured, L3 (files, network, processes,
    memory) to L0; `layers` what was put on; `canaries` what each of them saw;
    `interpreter` the version of the sandbox's Python. SandboxError when the level is below
    `settings.min_level`, unless `settings.allow_unsafe` is set: then `unsafe` is True and
    `banner` says what untrusted programs can do. SandboxError too when the interpreter
    cannot give the coverage asked for.
    """

    def __init__(self, settings: PoolSettings = PoolSettings()) -> None:  # noqa: B008
        self.settings = settings
        self.unsafe, self.banner = False, ""
        self._window = _AHEAD * settings.worker_count
        self._keys = cache.ProgramKeys()
        self._cache: cache.ReportCache[Job] = cache.ReportCache(settings.cache_size)
        self._metrics = PoolMetrics()
        self._busy: set[int] = set()
        self._processors = affinity.Processors()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._workers: list[AnyWorker | None] = [None] * settings.worker_count
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
        self._check_coverage(bool(worst.hello["monitoring"]))

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
        self.unsafe = self.level < wanted
        if self.level < self.settings.min_level:
            self.banner = (
                f"*** judge: isolation level {self.level} of 3; untrusted programs can: "
                f"{opened} ***"
            )
            print(self.banner, file=sys.stderr)

    @property
    def pids(self) -> list[int]:
        """The processes of the workers that live now, for those who measure them."""
        workers = [worker for worker in self._workers if worker is not None]
        return [pid for worker in workers for pid in worker.hello["pids"]]

    def _check_coverage(self, has_monitoring: bool) -> None:
        if self.settings.coverage == "expression" and not has_monitoring:
            version = ".".join(map(str, self.interpreter))
            is_local = self.settings.backend == "local"
            mend = "--execution.python to one" if is_local else "--execution.url to another"
            raise SandboxError(
                "coverage of expressions needs a sandbox interpreter of Python 3.12 or "
                f"newer, got {version}; set {mend}, or "
                "--fgo.granularity statement"
            )

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(self, programs: Sequence[Program]) -> list[Report]:
        """Judge all programs; reports come in the programs' order."""
        found = dict(self.stream(programs))
        return [found[index] for index in range(len(programs))]

    def stream(
        self, programs: Iterable[Program], window: int | None = None
    ) -> Iterator[tuple[int, Report]]:
        """Judge programs while it is iterated; yield (index, report) as each one ends.

        The pool asks a generator for the next program when a worker has room for it, so a
        generator may be endless. At most `window` programs are under way; None means four
        for each worker. A problem that cannot be judged raises ValueError: at once where
        `programs` is a sequence, else when the iteration comes to it. Programs that have
        not begun are dropped when the iteration is left early.
        """
        self._check(programs)
        return streams.stream(self._submit, programs, window or self._window)

    def stream_async(
        self, programs: Iterable[Program] | AsyncIterable[Program]
    ) -> AsyncGenerator[tuple[int, Report], None]:
        """As `stream`, for `async for`: the event loop goes on meanwhile.

        Close an iteration that you leave early (contextlib.aclosing), as any async
        generator; else it ends with the event loop only.
        """
        self._check(programs)
        return async_streams.stream_async(self._submit, programs, self._window)

    def _check(self, programs: Iterable[Program] | AsyncIterable[Program]) -> None:
        """What can be told before anything runs."""
        if self._closing:
            raise RuntimeError("the pool is closed")
        if isinstance(programs, Sequence):
            for problem in {id(each.problem): each.problem for each in programs}.values():
                self._keys.of_problem(problem)

    def _submit(self, ticket: Ticket, index: int, program: Program) -> None:
        key: bytes | None = None
        if self._cache.size:
            key = self._keys.of(program)
        else:
            self._keys.of_problem(program.problem)
        with self._lock:  # what is put before the pool closes is answered by `close`
            if self._closing:
                raise RuntimeError("the pool is closed")
            self._jobs.put(Job(index, program, ticket, key))

    def metrics(self) -> dict[str, float]:
        """The state now (queue: programs that no worker has yet; busy: workers at work),
        and what was counted since `reset_metrics`.

        programs, verdict/*: reports given, cache hits included. restarts: workers
        replaced. retries: programs tried again. unfaithful: reports in which a value could
        not be carried to the test code. over_value_limit: those with a returned value that
        is larger than what is compared. seconds_p50, _p95, _p99: of the last programs that
        a worker ran.
        """
        now = {"queue": self._jobs.qsize(), "busy": len(self._busy)}
        return {**now, **self._metrics.numbers()}

    def reset_metrics(self) -> None:
        """Count from nothing again."""
        self._metrics.reset()

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
        self._processors.release()
        for job in _drain(self._jobs):
            job.ticket.deliver((job.index, RuntimeError("the pool was closed")))

    def _supervise(self, slot: int) -> None:
        """The thread of one worker: start it, feed it, replace it."""
        try:
            self._start_worker(slot)
        except Exception as error:  # raised again by the thread that waits for us
            self._started.put(error)
            return
        self._started.put(None)
        try:
            while (job := self._jobs.get()) is not None:
                if not job.ticket.cancelled:
                    self._busy.add(slot)
                    self._serve(slot, job)
                    self._busy.discard(slot)
        finally:
            worker = self._workers[slot]
            if worker is not None:
                worker.close()

    def _serve(self, slot: int, job: Job) -> None:
        """Answer a job, from the cache where its report is known or being made."""
        if job.key is None:
            self._deliver(job, self._answer(slot, job.program))
            return
        is_ours, known = self._cache.claim(job.key, job)
        if known is not None:
            self._deliver_known(job, known)
        if not is_ours:
            return
        answer = self._answer(slot, job.program)
        kept = self._repeatable(slot, job.program, answer)
        for other in self._cache.settle(job.key, kept):
            if kept is None:
                self._jobs.put(other)
            else:
                self._deliver_known(other, kept)
        self._deliver(job, answer)

    def _repeatable(
        self, slot: int, program: Program, answer: Report | Exception
    ) -> Report | None:
        """The report, where the cache may keep it."""
        worker = self._workers[slot]
        if isinstance(answer, Exception) or worker is None:
            return None
        limit = worker.cpu_limit(program.problem.cpu_seconds)
        return answer if cache.is_repeatable(answer, limit) else None

    def _deliver_known(self, job: Job, report: Report) -> None:
        self._metrics.count("cache_hits")
        self._deliver(job, report)

    def _deliver(self, job: Job, answer: Report | Exception) -> None:
        if not isinstance(answer, Exception):
            self._metrics.answered(answer)
        job.ticket.deliver((job.index, answer))

    def _make_worker(self, slot: int) -> AnyWorker:
        self._processors.pin(slot)  # this thread, and what it starts
        return WorkerProcess(self.settings, slot)

    def _start_worker(self, slot: int) -> AnyWorker:
        worker = self._make_worker(slot)
        with self._lock:
            self._workers[slot] = worker
            if self._closing:
                worker.kill()
        return worker

    def _answer(self, slot: int, program: Program) -> Report | Exception:
        """A report, or what the waiting caller is to raise."""
        started = time.monotonic()
        try:
            report = self._judge(slot, program)
            self._metrics.took(time.monotonic() - started)
            return report
        except Exception as error:  # a fault of ours must not leave the caller waiting
            return error

    def _judge(self, slot: int, program: Program) -> Report:
        """One program with its second chance; RuntimeError when the pool closes."""
        tests = len(program.problem.tests)
        message = ""
        for attempt in range(_ATTEMPTS):
            if self._closing:
                raise RuntimeError("the pool was closed")
            if attempt:
                self._metrics.count("retries")
            try:
                worker = self._workers[slot]
                if worker is None:
                    self._metrics.count("restarts")
                    worker = self._start_worker(slot)
                return worker.judge(program)
            except (frames.FrameError, verdicts.InfraError, OSError, SandboxError) as error:
                message = f"{type(error).__name__}: {error}"
                dead, self._workers[slot] = self._workers[slot], None
                if dead is not None:
                    dead.close()
        if self._closing:
            raise RuntimeError("the pool was closed")
        return verdicts.infra_report(tests, message)


def _drain(jobs: queue.SimpleQueue[Job | None]) -> Iterator[Job]:
    while True:
        try:
            job = jobs.get_nowait()
        except queue.Empty:
            return
        if job is not None:
            yield job
