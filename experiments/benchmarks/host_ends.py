"""Whatever ends one host ends all: trials with real processes, and how long each end takes.

    python experiments/benchmarks/host_ends.py --out trials.jsonl --trials 20

Two processes (`--processes`) train a model of a few thousand weights; this file is also
their experiment. In each trial one of them, at random, is killed (`kill`: SIGKILL of its
trainer or of its watcher), asked to stop (`term`: SIGTERM), stopped (`stop`: SIGSTOP, with
a stall limit of 20 seconds), raises an exception (`error`), fails in a reward of the
user's own (`reward`, which saves first), is not started (`absent`, with 3 seconds to join),
or has another config (`differ`). A row for each trial goes to --out;
those that are there already are not run again. The table has, by kind, the longest time
from the event to the end of the last process, the exit codes, and the processes that were
left; the exit code is 1 where one is over its limit, or anything is left.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from stepcoder_jax import config as c
from stepcoder_jax.feedback.rewards.terms import Extras
from stepcoder_jax.records import Program, Report

HERE = Path(__file__).absolute()
FAILS = "HOST_ENDS_FAILS"  # set where the trial's own exception is to be raised
STALL_SECONDS = 20


class Kind(NamedTuple):
    """What a trial does, and how it must end: seconds after the event, and the code."""

    seconds: float
    code: int


# an error is everyone's within 10 s; 30 s are run.lost_seconds, and the rest is the end
KINDS = {
    "kill": Kind(30, 75),
    "term": Kind(60, 75),
    "stop": Kind(STALL_SECONDS + 30, 75),
    "error": Kind(60, 1),  # from the iteration before it
    "reward": Kind(60, 2),  # the same
    "absent": Kind(60, 75),  # from the start
    "differ": Kind(60, 2),  # from the start
}


def get_config(arg: str = "") -> c.Config:
    """A run without end of a model that is nothing; with FAILS an exception in it."""
    del arg
    if os.environ.get(FAILS) == "error":
        from stepcoder_jax import train

        iterate = train.iterate

        def fail(config, coder, problems, reference, state, *rest):
            if int(state.step) == 2:
                raise RuntimeError("the trial's own error")
            return iterate(config, coder, problems, reference, state, *rest)

        train.iterate = fail
    return c.Config(
        algorithm="grpo",
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
        sampling=c.SamplingConfig(2, 2, 32, chunk=16),
        execution=c.ExecutionConfig(workers=1, cpu_seconds=1.0),
        data=c.DataConfig(pool_size=6),
        evaluation=c.EvaluationConfig(
            every=0, validation_problems=0, test_problems=0, batch_size=4
        ),
    )


asked: collections.Counter[str] = collections.Counter()


def fail_once(program: Program, report: Report, extras: Extras) -> float:
    """A reward of the user's own; with FAILS it fails in an iteration to come."""
    del report, extras
    asked[program.problem.id] += 1
    if os.environ.get(FAILS) == "reward" and asked.total() > 4:
        raise KeyError("the trial's own error")
    return 0.0


class Process(NamedTuple):
    """A process of the machine, told from a later one with its number."""

    number: int
    started: str

    @property
    def lives(self) -> bool:
        found = _stat(self.number)
        return found is not None and found[0] not in "ZX" and found[2] == self.started


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


class Hosts:
    """The processes of one run."""

    def __init__(self, folder: Path, processes: int, absent: int = -1) -> None:
        self.folder, self.processes = folder, processes
        self.places = [place for place in range(processes) if place != absent]
        self.flags = ["--run.folder", str(folder / "run")]
        self.flags_of: dict[int, list[str]] = {}
        self.environ_of: dict[int, dict[str, str]] = {}

    def start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.said = {place: self.folder / f"said.{place}" for place in self.places}
        self.running = {
            place: subprocess.Popen(
                [
                    *(sys.executable, "-m", "stepcoder_jax", "train", str(HERE)),
                    *(*self.flags, *self.flags_of.get(place, [])),
                ],
                env=os.environ
                | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
                | {"STEPCODER_DISTRIBUTED": f"127.0.0.1:{port},{self.processes},{place}"}
                | self.environ_of.get(place, {}),
                stdout=subprocess.DEVNULL,
                stderr=self.said[place].open("w"),
            )
            for place in self.places
        }
        self.started = time.monotonic()

    def trainer_of(self, place: int) -> int:
        """The only child of a watcher."""
        return descendants(self.running[place].pid)[1].number

    def wait_for_iterations(self, count: int, seconds: float = 600) -> None:
        metrics, until = self.folder / "run" / "metrics.jsonl", time.monotonic() + seconds
        while not metrics.exists() or len(metrics.read_text().splitlines()) < count:
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

    def errors(self) -> dict[int, list[str]]:
        """What each said last."""
        return {x: self.said[x].read_text().splitlines()[-12:] for x in self.places}


def run_trial(kind: str, processes: int, draw: random.Random, cache: Path) -> dict:
    """One trial; what it did and saw."""
    victim, is_watcher = draw.randrange(processes), draw.random() < 0.5
    with tempfile.TemporaryDirectory() as name:
        hosts = Hosts(Path(name), processes, victim if kind == "absent" else -1)
        # a limit of 20 s holds for compilation, too
        hosts.flags += ["--run.compilation_cache", str(cache.absolute())]
        if kind == "absent":
            hosts.flags += ["--run.join_minutes", "0.05"]
        elif kind == "differ":
            hosts.flags_of[victim] = ["--run.seed", "7"]
        elif kind == "error":
            hosts.environ_of[victim] = {FAILS: kind}
        elif kind == "reward":
            hosts.flags += ["--reward.terms", "stepcoder", f"{HERE}:fail_once"]
            hosts.environ_of[victim] = {FAILS: kind}
        elif kind == "stop":
            hosts.flags += ["--run.stall_minutes", str(STALL_SECONDS / 60)]
        hosts.start()
        try:
            if kind not in ("absent", "differ"):
                hosts.wait_for_iterations(2)
            seen = descendants(*(process.pid for process in hosts.all))
            event = time.monotonic() if kind not in ("absent", "differ") else hosts.started
            if kind in ("kill", "term", "stop"):
                time.sleep(draw.random() * 2)
                seen = descendants(*(process.pid for process in hosts.all))
                number = {"kill": signal.SIGKILL, "term": signal.SIGTERM}
                target = hosts.trainer_of(victim)
                if is_watcher and kind != "stop":
                    target = hosts.running[victim].pid
                event = time.monotonic()
                os.kill(target, number.get(kind, signal.SIGSTOP))
            ended = hosts.wait_for_end(4 * KINDS[kind].seconds)
            seconds = time.monotonic() - event
            time.sleep(1)
            left = [process.number for process in seen if process.lives]
            codes = [process.poll() for process in hosts.all]
            said = hosts.errors()
        finally:
            for process in hosts.all:
                for each in descendants(process.pid)[::-1]:
                    os.kill(each.number, signal.SIGKILL)
                process.wait()
        shutil.rmtree(Path(name) / "run", ignore_errors=True)
    of = "watcher" if is_watcher and kind in ("kill", "term") else "trainer"
    row = {"kind": kind, "host": victim, "of": of, "seconds": round(seconds, 1)}
    return row | {"ended": ended, "codes": codes, "left": left, "said": said}


def complaints(row: dict) -> Iterator[str]:
    """What is wrong with a trial."""
    wanted = KINDS[row["kind"]]
    if not row["ended"] or row["seconds"] > wanted.seconds:
        yield f"took {row['seconds']} s of {wanted.seconds:g}"
    # who was killed has the code of that
    if set(row["codes"]) - {wanted.code, -signal.SIGKILL}:
        yield f"codes {row['codes']}"
    if row["left"]:
        yield f"left {row['left']}"
    last = [lines[-1] for lines in row["said"].values() if lines]
    words = "\n".join(line for lines in row["said"].values() for line in lines)
    if "Check failure" in words or not last:
        yield "a stack of C++, or no word"


def table(rows: list[dict]) -> str:
    """Markdown, a row for each kind."""
    lines = ["| event | trials | longest, s | codes | left | wrong |", "|---" * 6 + "|"]
    for kind in KINDS:
        chosen = [row for row in rows if row["kind"] == kind]
        if chosen:
            codes = sorted({code for row in chosen for code in row["codes"]})
            left = sum(len(row["left"]) for row in chosen)
            longest = max(row["seconds"] for row in chosen)
            wrong = sum(any(complaints(row)) for row in chosen)
            told = ", ".join(map(str, codes))
            lines.append(
                f"| {kind} | {len(chosen)} | {longest} | {told} | {left} | {wrong} |"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="a row for each trial")
    parser.add_argument("--trials", type=int, default=20, help="of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows: list[dict] = []
    if given.out.exists():
        rows = [json.loads(line) for line in given.out.read_text().splitlines()]
    for kind in given.kinds:
        done = sum(row["kind"] == kind for row in rows)
        for number in range(done, given.trials):
            draw = random.Random(f"{given.seed} {kind} {number}")
            cache = given.out.with_suffix(".cache")
            row = run_trial(kind, given.processes, draw, cache)
            rows.append(row)
            with open(given.out, "a") as file:
                file.write(json.dumps(row) + "\n")
            wrong = "; ".join(complaints(row)) or "as it should"
            print(
                f"{kind} {number}: host {row['host']} ({row['of']}), {row['seconds']} s, "
                f"codes {row['codes']}: {wrong}",
                file=sys.stderr,
                flush=True,
            )
    print(table(rows))
    return int(any(any(complaints(row)) for row in rows if row["kind"] in given.kinds))


if __name__ == "__main__":
    sys.exit(main())
