"""One worker process, kept alive, and the dialogue that judges one program with it."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time
from typing import Any

from stepcoder_jax.execution.judging import dialogue, verdicts
from stepcoder_jax.execution.sandbox import canaries
from stepcoder_jax.execution.settings import PoolSettings, SandboxError
from stepcoder_jax.execution.worker import frames
from stepcoder_jax.records import Mode, Program, Report, TestCase, TestResult

_START_SECONDS = 60.0
_ROOT = str(pathlib.Path(__file__).resolve().parents[3])
_BOOTSTRAP = (
    "import sys; sys.path.insert(0, {root!r}); "
    "from stepcoder_jax.execution.worker.worker import main; "
    "sys.path.remove({root!r}); main()"
)


class WorkerProcess(dialogue.AnyWorker):
    """An exec'd worker; `judge` runs one program through it.

    Must be created by a thread that outlives it: the kernel kills the worker when the
    thread that started it ends.
    """

    def __init__(self, settings: PoolSettings, slot: int) -> None:
        self.settings = settings
        check_in, self.checks = os.pipe()
        self.check_answers, check_out = os.pipe()
        self.check_pipes = [self.checks, self.check_answers]
        try:
            self.process = _start(settings, slot, (check_in, check_out))
        except BaseException:
            self._close_check_pipes()
            raise
        finally:
            os.close(check_in)
            os.close(check_out)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.requests = self.process.stdin.fileno()
        self.answers = frames.Reader(self.process.stdout.fileno())
        self.checked = frames.Reader(self.check_answers)
        self._program: dict[str, Any] = {}  # which goes out with its first test
        self.hello = self._greet()
        self.level = canaries.level(self.hello["canaries"])

    def _greet(self) -> dict[str, Any]:
        try:
            memory = self.settings.memory_mb << 20
            frames.send(self.requests, frames.pack({"kind": "hello", "memory": memory}))
            hello, _ = self.answers.read(time.monotonic() + _START_SECONDS)
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
            if stream is not None and not stream.closed:
                stream.close()
        self._close_check_pipes()

    def _close_check_pipes(self) -> None:
        while self.check_pipes:
            os.close(self.check_pipes.pop())

    def judge(self, program: Program) -> Report:
        """Run the program's tests in order; FrameError or OSError when the worker died."""
        problem = program.problem
        self._program = {
            "mode": str(problem.mode),
            "entry_point": problem.entry_point,
            "tests": len(problem.tests),
        }
        return super().judge(program)

    def _run_test(self, program: Program, test: TestCase) -> tuple[TestResult, str]:
        problem = program.problem
        limits = self._limits(problem.cpu_seconds)
        header: dict[str, Any] = {"kind": "test", "limits": limits}
        body = dialogue.encode_inputs(test, problem.mode)
        if self._program:
            source = dialogue.encode_text(program.source)
            header["program"] = {**self._program, "size": len(source)}
            body, self._program = source + body, {}
        frames.send(self.requests, frames.pack(header, body))
        if problem.mode is Mode.ASSERT_PROXY:
            check = {
                "kind": "check",
                "limits": limits,
                "entry_point": problem.entry_point,
            }
            code = dialogue.encode_text(test.inputs)
            frames.send(self.checks, frames.pack(check, code))
        kept = self.settings.text_kept
        seen = verdicts.Seen.read(self.answers, limits, kept)
        if problem.mode is Mode.ASSERT_PROXY:
            checked = verdicts.Seen.read(self.checked, limits, kept)
            return verdicts.judge_check(seen, checked)
        return verdicts.judge_test(problem.mode, test, seen)


def _start(
    settings: PoolSettings, slot: int, check_pipes: tuple[int, int]
) -> subprocess.Popen[bytes]:
    python = settings.python or sys.executable
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MALLOC_ARENA_MAX": "1",  # else each thread reserves 64 MB of address space
        "OPENBLAS_NUM_THREADS": "1",
        "LD_BIND_NOW": "1",  # else each child looks up again the functions that it calls
    }
    if "LD_LIBRARY_PATH" in os.environ:  # some interpreters find libpython by it
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    bootstrap = _BOOTSTRAP.format(root=_ROOT)
    command = [python, "-s", "-P", "-S", "-c", bootstrap]
    arguments = [str(slot), ",".join(settings.without), settings.coverage]
    try:
        return subprocess.Popen(  # no preexec_fn: the trainer is full of threads
            [*command, *arguments, *map(str, check_pipes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment,
            pass_fds=check_pipes,
            start_new_session=True,
        )
    except OSError as error:
        raise SandboxError(
            f"cannot start the sandbox interpreter {python!r}: {error.strerror}; set "
            "--execution.python to a Python 3.11 or newer"
        ) from None
