"""Several runs at a time, each on cores of its own: started, watched, ended, told apart.

A run that was stopped (by Ctrl-C or SIGTERM, exit codes 130 and 75) is not over: the same
command goes on with it. Any other exit code but 0 is a failure.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ablation_runner.study import Job
from stepcoder_jax.records import InputError

STOPPED = (130, 75)
_TELL_EVERY = 120.0  # seconds between two lines on how far the runs are
_LOOK_EVERY = 0.2


class Ended(NamedTuple):
    """What is known of a run whose processes have ended."""

    code: int  # 0: all its steps ended well
    seconds: float  # in this session
    peak_mib: float  # memory of the largest process
    cores: int


class Stop(Exception):
    """Ctrl-C or SIGTERM: the runs have been asked to save, and have ended."""


@dataclasses.dataclass
class Active:
    """A run under way."""

    job: Job
    steps: Iterator[list[str]]
    log: Path
    cores: list[int]
    lock: BinaryIO  # held until we and all its processes have ended
    started: float
    process: subprocess.Popen[bytes] | None = None
    peak_mib: float = 0.0


def share_cores(jobs: int) -> list[list[int]]:
    """The cores of this process in as many equal parts as there are jobs at a time."""
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= jobs <= len(cores):
        raise InputError(f"--jobs: expected 1 to {len(cores)} (the cores here), got {jobs}")
    each = len(cores) // jobs
    return [cores[i * each : (i + 1) * each] for i in range(jobs)]


def run_all(
    jobs: Sequence[Job],
    shares: Sequence[list[int]],
    steps_of: Callable[[Job], Iterator[list[str]]],
    log_of: Callable[[Job], Path],
    finish: Callable[[Job, Ended], None],
    lacks: Callable[[Job], Sequence[Job]] = lambda job: (),
) -> None:
    """Run all jobs, as many at a time as there are shares of cores.

    `lacks` names the jobs that are not done and that a job needs: it waits for those among
    `jobs`, and is left out where one of them has failed. `finish` is called for each that
    ended, well or not. Raises Stop after a signal.
    """
    waiting, free, active = list(jobs), list(shares), list[Active]()
    asked: list[int] = []
    former = {
        number: signal.signal(number, lambda number, _: asked.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    told, heard = time.monotonic(), 0
    try:
        while active or (waiting and not asked):
            while free and not asked:
                job = take_ready(waiting, [one.job for one in active], lacks)
                if job is None:
                    break
                one = begin(job, steps_of(job), log_of(job), free[-1])
                if one is not None:
                    active.append(one)
                    free.pop()
            for one in list(active):
                ended = advance(one, is_stopping=bool(asked))
                if ended is not None:
                    active.remove(one)
                    free.append(one.cores)
                    one.lock.close()
                    tell_end(one, ended, len(waiting) + len(active))
                    finish(one.job, ended)
            if len(asked) > heard:
                heard = len(asked)
                ask_to_stop(active)
            if time.monotonic() - told > _TELL_EVERY:
                told = time.monotonic()
                for one in active:
                    print(f"{one.job.name}: {last_line(one.log)}", flush=True)
            time.sleep(_LOOK_EVERY)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        for one in active:  # of an error in here
            if one.process is not None:
                one.process.terminate()
    if asked:
        raise Stop


def take_ready(
    waiting: list[Job], active: Sequence[Job], lacks: Callable[[Job], Sequence[Job]]
) -> Job | None:
    """Take the first job off the list that lacks nothing; None where each is to wait.

    Those whose needs nobody will make any more are taken off, and named.
    """
    for job in list(waiting):
        lacking = lacks(job)
        lost = [need.name for need in lacking if need not in (*waiting, *active)]
        if lost:
            waiting.remove(job)
            print(f"{job.name}: left out, for {', '.join(lost)} is not done", flush=True)
        elif not lacking:
            waiting.remove(job)
            return job
    return None


def begin(
    job: Job, steps: Iterator[list[str]], log: Path, cores: list[int]
) -> Active | None:
    """A run that is about to start; None where another process is at it.

    That may be one whose runner was killed: two in one folder would ruin it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    lock = log.with_suffix(".lock").open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        print(f"{job.name}: is under way in another process; left alone", flush=True)
        return None
    print(f"{job.name}: begins on core {', '.join(map(str, cores))}; {log}", flush=True)
    return Active(job, steps, log, cores, lock, time.monotonic())


def advance(one: Active, is_stopping: bool) -> Ended | None:
    """Look at a run; start its next step where one has ended. What it was, once over."""
    if one.process is not None:
        pid, status, usage = os.wait4(one.process.pid, os.WNOHANG)
        if not pid:
            return None
        one.peak_mib = max(one.peak_mib, usage.ru_maxrss / 1024)
        code = os.waitstatus_to_exitcode(status)
        one.process.returncode, one.process = code, None
        if code and not is_stopping:
            return end(one, code)
    if is_stopping:
        return end(one, STOPPED[0])
    step = next(one.steps, None)
    if step is None:
        return end(one, 0)
    one.process = start(step, one)
    return None


def start(command: list[str], one: Active) -> subprocess.Popen[bytes]:
    """A process on the cores of a run; what it says is added to the run's log.

    On one core XLA has one thread. It would else have one for each core of the machine.
    """
    log, cores, flags = one.log, one.cores, os.environ.get("XLA_FLAGS", "")
    if len(cores) == 1:
        flags += " --xla_cpu_multi_thread_eigen=false"
    home = str(Path(__file__).parents[2])
    paths = [home, str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    places = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # arms share most programs
        places["JAX_COMPILATION_CACHE_DIR"] = str(log.parent / "compiled")
    all_cores = os.sched_getaffinity(0)
    with log.open("ab") as file:
        file.write(f"$ {' '.join(command)}\n".encode())
        file.flush()
        os.sched_setaffinity(0, cores)  # a process has that of its parent
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=home,
                env=os.environ | places | {"XLA_FLAGS": flags.strip()},
                start_new_session=True,  # Ctrl-C comes to us alone
                pass_fds=(one.lock.fileno(),),
            )
        finally:
            os.sched_setaffinity(0, all_cores)


def ask_to_stop(active: Sequence[Active]) -> None:
    """Let the processes save and end."""
    print("stopping: the runs save what they have", file=sys.stderr, flush=True)
    for one in active:
        if one.process is not None:
            one.process.terminate()


def end(one: Active, code: int) -> Ended:
    seconds = time.monotonic() - one.started
    return Ended(code, seconds, one.peak_mib, len(one.cores))


def tell_end(one: Active, ended: Ended, left: int) -> None:
    """A line on how a run ended."""
    how = "done"
    if ended.code in STOPPED:
        how = "stopped; the same command goes on with it"
    elif ended.code:
        how = f"FAILED with exit code {ended.code}: {last_line(one.log)}"
    minutes = ended.seconds / 60
    print(f"{one.job.name}: {how}, {minutes:.1f} minutes; {left} left", flush=True)


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip()]
    return said[-1] if said else ""
