"""Runs of several processes on this machine, for trials: an experiment, and its processes.

    stepcoder train experiments/benchmarks/host_runs.py --run.total_steps 5

A model of a few thousand weights learns by PPO, so that its parameters move whatever the
judge says. Variables of the environment make one process of a run fail:

FAILS   `error`: an exception in the third iteration; `reward`: a reward of the user's own
        that fails there (`fail_once`)
AT      PART:ITERATION:SECONDS:SIGNAL: the trainer sends itself the signal so long after
        the part of that iteration has begun
"""

from __future__ import annotations

import collections
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from stepcoder_jax import config as c
from stepcoder_jax.feedback.rewards.terms import Extras
from stepcoder_jax.records import Program, Report

HERE = Path(__file__).absolute()
FAILS = "HOST_TRIALS_FAILS"
AT = "HOST_TRIALS_AT"
PARTS = ("sample", "judge", "update", "save", "validate")

asked: collections.Counter[str] = collections.Counter()


def get_config(arg: str = "") -> c.Config:
    """A run of no end, but for --run.total_steps."""
    del arg
    if os.environ.get(FAILS) == "error":
        fail_in_third()
    if os.environ.get(AT):
        part, iteration, seconds, number = os.environ[AT].split(":")
        end_at(part, int(iteration), float(seconds), int(number))
    rate = c.OptimizerConfig(learning_rate=1e-3)
    return c.Config(
        run=c.RunConfig(total_steps=10**6, save_every=10**6, track="jsonl"),
        model=c.ModelConfig(
            *("", "builtin"),
            hidden_size=8,
            intermediate_size=16,
            num_layers=1,
            num_heads=2,
            num_kv_heads=2,
            head_dim=4,
        ),
        prompt=c.PromptConfig(template="plain", max_prompt_length=224),
        sampling=c.SamplingConfig(2, 4, 32, chunk=16),
        ppo=c.PPOConfig(widths=(256,), kl_coef=0.02, actor=rate, critic=rate),
        execution=c.ExecutionConfig(workers=1, cpu_seconds=1.0, cache_size=0),
        data=c.DataConfig(pool_size=6),
        evaluation=c.EvaluationConfig(
            every=0, validation_problems=0, test_problems=0, batch_size=8
        ),
    )


def fail_in_third() -> None:
    """Raise in the third iteration of this process."""
    from stepcoder_jax import train

    iterate = train.iterate

    def fail(
        config: Any, coder: Any, problems: Any, reference: Any, state: Any, *rest: Any
    ):
        if int(state.step) == 2:
            raise RuntimeError("the trial's own error")
        return iterate(config, coder, problems, reference, state, *rest)

    train.iterate = fail


def fail_once(program: Program, report: Report, extras: Extras) -> float:
    """A reward of the user's own; with FAILS it fails in an iteration to come."""
    del report, extras
    asked[program.problem.id] += 1
    if os.environ.get(FAILS) == "reward" and asked.total() > 8:
        raise KeyError("the trial's own error")
    return 0.0


def end_at(part: str, iteration: int, seconds: float, number: int) -> None:
    """Have a signal come so long after a part has begun; whoever imports parts is later."""
    from stepcoder_jax.runs.hosts import channel

    begin, go_over, now = channel.part, channel.turn, [-1]

    def look(name: str) -> None:
        if (name, now[0]) == (part, iteration):
            threading.Timer(seconds, os.kill, (os.getpid(), number)).start()

    def begin_part(name: str, step: int = -1) -> Any:
        now[0] = step
        look(name)
        return begin(name, step)

    def turn(name: str) -> None:
        look(name)
        go_over(name)

    channel.part, channel.turn = begin_part, turn


class Process(NamedTuple):
    """A process of the machine, told from a later one with its number."""

    number: int
    started: str

    @property
    def lives(self) -> bool:
        found = _stat(self.number)
        return found is not None and found[0] not in "ZX" and found[2] == self.started

    def kill(self) -> None:
        if self.lives:
            try:
                os.kill(self.number, signal.SIGKILL)
            except ProcessLookupError:  # it has ended meanwhile
                return


def _stat(number: int) -> tuple[str, int, str] | None:
    """State, parent and start of a process."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1]), fields[19]


def descendants(*roots: int) -> list[Process]:
    """These processes and all that they have started, the oldest first."""
    known = {
        int(path.name): found
        for path in Path("/proc").iterdir()
        if path.name.isdecimal()
        for found in [_stat(int(path.name))]
        if found is not None
    }
    chosen = [root for root in roots if root in known]
    for number in chosen:  # grows
        chosen += [child for child, found in known.items() if found[1] == number]
    return [Process(number, known[number][2]) for number in chosen]


# what a process is before it is the command: a hook of Popen is unsafe beside JAX's threads
_BEFORE = """
import ctypes, os, sys
PR_SET_PDEATHSIG, SIGKILL = 1, 9
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("orphaned")
if sys.argv[2]:
    os.sched_setaffinity(0, {int(sys.argv[2])})
os.execvp(sys.argv[3], sys.argv[3:])
"""


def start(command: list[str], core: int | None = None, **options: Any) -> subprocess.Popen:
    """A process that the kernel ends once this one has ended, in whatever way.

    `core` is the only processor for it and all that it starts.
    """
    words = str(os.getpid()), "" if core is None else str(core)
    before = [sys.executable, "-S", "-c", _BEFORE, *words]
    return subprocess.Popen([*before, *command], **options)


def end_all(processes: list[subprocess.Popen]) -> None:
    """No process, nor any that it has started, is there behind this."""
    for process in processes:
        for each in descendants(process.pid)[::-1]:
            each.kill()
        process.wait()


class Hosts:
    """The processes of one run, each with so many devices."""

    def __init__(
        self, folder: Path, processes: int, devices: int = 1, absent: int = -1
    ) -> None:
        self.folder, self.processes, self.devices = folder, processes, devices
        self.places = [place for place in range(processes) if place != absent]
        self.flags = ["--run.folder", str(folder / "run")]
        self.flags_of: dict[int, list[str]] = {}
        self.environ_of: dict[int, dict[str, str]] = {}
        self.is_pinned = False  # each process to a processor of its own
        self.running: dict[int, subprocess.Popen] = {}

    def start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.said = {place: self.folder / f"said.{place}" for place in self.places}
        self.started = time.monotonic()
        for place in self.places:
            flags = [*self.flags, *self.flags_of.get(place, [])]
            where = f"127.0.0.1:{port},{self.processes},{place}"
            several = {"STEPCODER_DISTRIBUTED": where if self.processes > 1 else ""}
            # what is compiled is nothing beside the compiling
            flags_of_xla = "--xla_backend_optimization_level=0"
            flags_of_xla += f" --xla_force_host_platform_device_count={self.devices}"
            with open(self.said[place], "w") as said:
                self.running[place] = start(
                    [sys.executable, "-m", "stepcoder_jax", "train", str(HERE), *flags],
                    place if self.is_pinned else None,
                    env=os.environ
                    | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags_of_xla}
                    | several
                    | self.environ_of.get(place, {}),
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                )

    def trainer_of(self, place: int) -> int:
        """The only child of a watcher; a process alone is its own."""
        found = descendants(self.running[place].pid)
        return found[1 if self.processes > 1 else 0].number

    @property
    def iterations(self) -> int:
        """Rows of metrics that are written."""
        metrics = self.folder / "run" / "metrics.jsonl"
        return len(metrics.read_text().splitlines()) if metrics.exists() else 0

    def wait_for_iterations(self, count: int, seconds: float = 600) -> None:
        until = time.monotonic() + seconds
        while self.iterations < count:
            if time.monotonic() > until or all(x.poll() is not None for x in self.all):
                raise RuntimeError(f"it did not begin: {self.errors()}")
            time.sleep(0.3)

    @property
    def all(self) -> list[subprocess.Popen]:
        return list(self.running.values())

    def wait_for_end(self, seconds: float) -> bool:
        """Whether all ended."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if all(process.poll() is not None for process in self.all):
                return True
            time.sleep(0.05)
        return False

    def run(self, seconds: float = 900) -> list[int | None]:
        """From its start to its end; the exit codes, None of those that did not end."""
        self.start()
        try:
            self.wait_for_end(seconds)
            return [process.poll() for process in self.all]
        finally:
            end_all(self.all)

    def errors(self) -> dict[int, list[str]]:
        """What each said last."""
        return {x: self.said[x].read_text().splitlines()[-12:] for x in self.places}
