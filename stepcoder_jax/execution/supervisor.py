"""One worker process, kept alive, and the dialogue that judges one program with it."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time
from typing import Any

from stepcoder_jax.execution import canaries, frames, values, verdicts
from stepcoder_jax.execution.settings import PoolSettings, SandboxError
from stepcoder_jax.records import Mode, Program, Report, TestCase, TestResult, Verdict

_START_SECONDS = 60.0
_GRACE_SECONDS = 30.0  # beyond a test's wall limit before the worker counts as dead
_PROBES_COST = 2.0  # CPU factor of the 3.11 probes, which run inside the judged program
_ROOT = str(pathlib.Path(__file__).resolve().parents[2])
_BOOTSTRAP = (
    "import sys; sys.path.insert(0, {root!r}); "
    "from stepcoder_jax.execution.worker import main; "
    "sys.path.remove({root!r}); main()"
)


class WorkerProcess:
    """An exec'd worker; `judge` runs one program through it.

    Must be created by a thread that outlives it: the kernel kills the worker when the
    thread that started it ends.
    """

    def __init__(self, settings: PoolSettings, slot: int) -> None:
        self.settings = settings
        self.process = _start(settings, slot)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.requests = self.process.stdin.fileno()
        self.answers = self.process.stdout.fileno()
        self.hello = self._greet()
        self.level = canaries.level(self.hello["canaries"])

    def _greet(self) -> dict[str, Any]:
        try:
            memory = self.settings.memory_mb << 20
            hello = {"kind": "hello", "memory": memory, "coverage": self.settings.coverage}
            frames.write_frame(self.requests, hello)
            hello, _ = frames.read_frame(self.answers, time.monotonic() + _START_SECONDS)
        except (frames.FrameError, OSError) as error:
            raise SandboxError(
                f"the judge's worker did not start ({error}): {self._last_words()}; set "
                "--execution.python to a working Python 3.11 or newer"
            ) from None
        if not hello["canaries"]:
            raise SandboxError(
                "the judge's sandbox failed in its first child: "
                f"{self._last_words()}; raise --execution.memory_mb if it is small"
            )
        return hello

    def _last_words(self) -> str:
        """End a worker that failed to start; return the last line of its stderr."""
        self.kill()
        assert self.process.stderr is not None
        text = self.process.stderr.read().decode("utf-8", "replace").strip()
        self.close()
        return text.splitlines()[-1] if text else f"exit {self.process.returncode}"

    def kill(self) -> None:
        """End the process and reap it; harmless when it is gone."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Kill, and close our ends of the pipes."""
        self.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def judge(self, program: Program) -> Report:
        """Run the program's tests in order; FrameError or OSError when the worker died."""
        problem = program.problem
        header = {
            "kind": "program",
            "mode": str(problem.mode),
            "entry_point": problem.entry_point,
        }
        source = program.source.encode("utf-8", "surrogatepass")
        frames.write_frame(self.requests, header, source)
        results: list[TestResult] = []
        executed: set[tuple[int, int]] = set()
        message = ""
        for test in problem.tests:
            answer, body = self._ask(test, problem.mode, problem.cpu_seconds)
            parts = verdicts.split_parts(answer, body)
            output = self.settings.output_mb << 20
            result, why = verdicts.judge_test(problem.mode, test, answer, parts, output)
            results.append(result)
            executed |= result.executed
            message = message or why
            if self._settled(result.verdict):
                break
        rest = len(problem.tests) - len(results)
        results += [TestResult(Verdict.NOT_RUN)] * rest
        verdict = verdicts.program_verdict(results)
        return Report(verdict, tuple(results), frozenset(executed), message)

    def _settled(self, verdict: Verdict) -> bool:
        """Whether the tests that follow need not, or must not, be run."""
        if verdict in (Verdict.COMPILE, Verdict.TIMEOUT):
            return True
        return self.settings.tests == "early_exit" and verdict is not Verdict.PASS

    def _ask(
        self, test: TestCase, mode: Mode, cpu_seconds: float | None
    ) -> tuple[dict[str, Any], bytes]:
        cpu = cpu_seconds or self.settings.cpu_seconds
        if not self.hello["monitoring"] and self.settings.coverage != "none":
            cpu *= _PROBES_COST
        wall = 4 * cpu + 2
        limits = {
            "cpu": cpu,
            "wall": wall,
            "memory": self.settings.memory_mb << 20,
            "output": self.settings.output_mb << 20,
        }
        frames.write_frame(
            self.requests, {"kind": "test", "limits": limits}, encode_inputs(test, mode)
        )
        deadline = time.monotonic() + wall + _GRACE_SECONDS
        return frames.read_frame(self.answers, deadline)


def encode_inputs(test: TestCase, mode: Mode) -> bytes:
    """What the worker is given of a test: its input, never what is expected."""
    if mode is Mode.CALL:
        return values.encode(tuple(test.inputs))
    data: bytes = test.inputs.encode("utf-8", "surrogatepass")
    return data


def _start(settings: PoolSettings, slot: int) -> subprocess.Popen[bytes]:
    python = settings.python or sys.executable
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MALLOC_ARENA_MAX": "1",  # else each thread reserves 64 MB of address space
        "OPENBLAS_NUM_THREADS": "1",
    }
    if "LD_LIBRARY_PATH" in os.environ:  # some interpreters find libpython by it
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    bootstrap = _BOOTSTRAP.format(root=_ROOT)
    command = [python, "-s", "-P", "-S", "-c", bootstrap]
    try:
        return subprocess.Popen(  # no preexec_fn: the trainer is full of threads
            [*command, str(slot), ",".join(settings.without)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise SandboxError(
            f"cannot start the sandbox interpreter {python!r}: {error.strerror}; set "
            "--execution.python to a Python 3.11 or newer"
        ) from None
