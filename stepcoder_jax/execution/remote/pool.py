"""A pool whose programs run elsewhere: on a SandboxFusion-compatible HTTP service.

    with open_pool(settings) as pool:  # settings.backend == "http"
        reports = pool.run(programs)

Each test is one request: driver.py, uploaded with the modules it imports, runs the program
as a worker's child would, and the files that it leaves are graded here.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import json
import pathlib
import secrets
import sys
from collections.abc import AsyncIterable, Iterable, Sequence
from typing import Any

from stepcoder_jax import syntax
from stepcoder_jax.execution.judging import dialogue, verdicts
from stepcoder_jax.execution.pool.pool import Pool
from stepcoder_jax.execution.pool.streams import Ticket
from stepcoder_jax.execution.remote import driver
from stepcoder_jax.execution.remote.service import Ran, Service
from stepcoder_jax.execution.sandbox import canaries
from stepcoder_jax.execution.settings import PoolSettings, SandboxError
from stepcoder_jax.records import (
    InputError,
    Mode,
    Problem,
    Program,
    Report,
    TestCase,
    TestResult,
    Verdict,
)

_SIGKILL = 9
_ROOT = pathlib.Path(__file__).resolve().parents[3]
_FETCHED = (*driver.ANSWERS, driver.HITS)
_CODE = """
import os, sys
sys.dont_write_bytecode = True
sys.path.insert(0, os.getcwd())
from stepcoder_jax.execution.remote.driver import main
sys.path.remove(os.getcwd())
main({token!r})
"""
_GREETING = """
import json, sys
seen = probe({memory})
print(json.dumps({{
    "version": sys.version_info[:3],
    "monitoring": hasattr(sys, "monitoring"),
    "canaries": seen,
}}))
"""


class RemoteWorker(dialogue.AnyWorker):
    """Asks the service for one test after the other; no process of ours is behind it."""

    def __init__(
        self, settings: PoolSettings, service: Service, hello: dict[str, Any]
    ) -> None:
        self.settings = settings
        self.service = service
        self.hello = hello
        self.level = hello["level"]
        self._is_closed = False
        self._has_lost = False  # a record of the program that is being judged

    def kill(self) -> None:
        """Ask for nothing more; the request under way comes to its end."""
        self._is_closed = True

    def close(self) -> None:
        self.kill()

    def judge(self, program: Program) -> Report:
        """As every worker; a service that fails twice gives Verdict.INFRA."""
        self._has_lost = False
        try:
            report = super().judge(program)
        except verdicts.InfraError as error:
            return verdicts.infra_report(len(program.problem.tests), str(error))
        if self._has_lost:  # what the other tests came to is no longer all of it
            return dataclasses.replace(report, expressions={})
        return report

    def _run_test(self, program: Program, test: TestCase) -> tuple[TestResult, str]:
        if self._is_closed:
            raise RuntimeError("the pool was closed")
        ran, parts = self.ask(program, test)
        if len(parts) < len(_FETCHED):
            verdict = Verdict.TIMEOUT if ran.timed_out else Verdict.RUNTIME
            return self._lost(verdict, program, ran), ""
        limits = self._limits(program.problem.cpu_seconds)
        answer, kept = _answer(ran, parts, limits["cpu"]), self.settings.text_kept
        left = verdicts.Seen(answer, parts, limits["output"], kept)
        try:
            return verdicts.judge_test(program.problem.mode, test, left)
        except (verdicts.InfraError, ValueError, TypeError, KeyError, RecursionError):
            return self._lost(Verdict.RUNTIME, program, ran), ""  # the program spoilt it

    def _lost(self, verdict: Verdict, program: Program, ran: Ran) -> TestResult:
        """The result of a test whose record is lost: all of the program counts as run."""
        self._has_lost = True
        covers = self.settings.coverage != "none"
        timed_out = verdict is Verdict.TIMEOUT
        return TestResult(
            verdict,
            error=verdicts.limit_name(is_wall=True) if timed_out else "LostRecord",
            wall_seconds=ran.seconds,
            executed=_every_statement(program.source) if covers else frozenset(),
        )

    def ask(self, program: Program, test: TestCase) -> tuple[Ran, dict[str, bytes]]:
        """Run one test; return what became of it, and those parts that came back.

        InfraError when the program had not begun.
        """
        problem, token = program.problem, secrets.token_hex(16)
        limits = self._limits(problem.cpu_seconds)
        job = {
            **limits,
            "mode": str(problem.mode),
            "entry_point": problem.entry_point or "",
            "coverage": self.settings.coverage,
        }
        files = {
            **_shipped_modules(),
            f"{token}.job": json.dumps(job).encode(),
            f"{token}.source": dialogue.encode_text(program.source),
            f"{token}.input": dialogue.encode_inputs(test, problem.mode),
        }
        ran = self.service.run(
            _CODE.format(token=token),
            files,
            [f"{token}.{name}" for name in _FETCHED],
            seconds=limits["wall"],
            largest=limits["output"],
        )
        parts = {
            name: ran.files[f"{token}.{name}"]
            for name in _FETCHED
            if f"{token}.{name}" in ran.files
        }
        if not ran.stdout.startswith(token) and not parts.get("head"):
            how = ran.stderr.strip().rpartition("\n")[2][-200:] or f"exit {ran.exit}"
            raise verdicts.InfraError(f"the driver did not start: {how}")
        return ran, parts


class RemotePool(Pool):
    """Judges programs on the service at `settings.url`, `settings.workers` at a time.

    A subclass, for all but its workers and what it checks is a Pool's: threads, order,
    cache and counts. No caller needs to know which of them it holds.

    Verdicts and coverage are a Pool's, and expected outputs are never sent. What is weaker:

    * Isolation is the service's own. `level` and `canaries` are measured there, but what a
      program can reach there may be a container's and of no worth: `min_level` does not
      apply, and `banner` says what was open.
    * The driver shares a process with the program, which can forge its coverage (not its
      verdict: it does not know what is expected), and whatever the service lets it reach.
    * CPU limits are rounded up to whole seconds. CPU time and memory are not measured: wall
      time stands for the one, which the start of an interpreter is part of, 0 for the
      other. `python`, a fixed hash seed and the raised stack of a worker are not to be had.
    * Where the files of a killed run are lost, every statement counts as executed, so that
      FGO keeps all tokens.
    * Mode ASSERT_PROXY is refused: its test code could only run beside the program.
    * `close` waits for the requests under way.

    Raises SandboxError when the service is not there or does not do as SandboxFusion does.
    """

    def __init__(self, settings: PoolSettings) -> None:
        self._service = Service(settings.url)
        self._hello = _greet(settings, self._service)
        super().__init__(settings)

    def _make_worker(self, slot: int) -> RemoteWorker:
        return RemoteWorker(self.settings, self._service, self._hello)

    def _check_level(self, has_landlock: bool) -> None:
        opened = ", ".join(name for name, saw in self.canaries.items() if saw == "open")
        self.banner = (
            f"*** judge: programs run at {self._service.url}, whose isolation is its own; "
            f"untrusted programs can there: {opened or 'nothing that was tried'} ***"
        )
        print(self.banner, file=sys.stderr)

    def _check(self, programs: Iterable[Program] | AsyncIterable[Program]) -> None:
        super()._check(programs)
        if isinstance(programs, Sequence):
            for program in programs:
                _check_mode(program.problem)

    def _submit(self, ticket: Ticket, index: int, program: Program) -> None:
        _check_mode(program.problem)
        super()._submit(ticket, index, program)


def _greet(settings: PoolSettings, service: Service) -> dict[str, Any]:
    """Run the canaries there, and so try the whole way that a program will take."""
    probe = pathlib.Path(canaries.__file__).read_text(encoding="utf-8")
    source = probe + _GREETING.format(memory=settings.memory_mb << 20)
    test = TestCase("", "")
    problem = Problem("greeting", "", "", "", None, Mode.STDIN_MAIN, (test,), "")
    known = {"monitoring": True, "level": 0, "pids": (), "landlock_abi": 0}
    try:
        plain = dataclasses.replace(settings, coverage="none")
        worker = RemoteWorker(plain, service, known)
        _, parts = worker.ask(Program(problem, source, 0, ()), test)
        seen: dict[str, Any] = json.loads(parts["out"])
        level = canaries.level(seen["canaries"])
    except (verdicts.InfraError, ValueError, KeyError) as error:
        message = " ".join(str(error).split())
        raise SandboxError(
            f"execution.url: expected a SandboxFusion service with Python 3.11 or newer, "
            f"got {type(error).__name__}: {message}; start the service, set "
            "--execution.url, or --execution.backend local"
        ) from None
    layers = {"service": f"{service.url}, whose isolation is its own"}
    return {**known, **seen, "level": level, "layers": layers}


def _check_mode(problem: Problem) -> None:
    if problem.mode is Mode.ASSERT_PROXY:
        raise InputError(
            f"problem {problem.id!r} has mode {str(problem.mode)!r}: the http backend "
            "could only run its test code beside the program; set --execution.backend local"
        )


def _answer(ran: Ran, parts: dict[str, bytes], cpu: float) -> dict[str, Any]:
    """The run as a worker's answer, for `verdicts.judge_test`."""
    killed = "wall" if ran.timed_out else ""
    if ran.exit == -_SIGKILL and ran.seconds >= cpu:
        killed = "cpu"  # the hard limit, for a program that ignored the first signal
    return {
        "exit": ran.exit,
        "killed": killed,
        "cpu": 0.0 if ran.timed_out else ran.seconds,
        "wall": ran.seconds,
        "memory": 0,
        "largest": max(len(parts[name]) for name in ("out", "err", "result")),
    }


def _every_statement(source: str) -> frozenset[tuple[int, int]]:
    """Where the statements begin; none where nobody can tell (`syntax.parse`)."""
    tree = syntax.parse(source)
    nodes = () if tree is None else ast.walk(tree)
    return frozenset(
        (node.lineno, node.col_offset) for node in nodes if isinstance(node, ast.stmt)
    )


@functools.cache
def _shipped_modules() -> dict[str, bytes]:
    """The driver and all that it imports of the package, by path; no package code runs."""
    found: dict[str, bytes] = {}
    pending = [driver.__name__]
    while pending:
        path = pending.pop().replace(".", "/") + ".py"
        if path in found or not (_ROOT / path).is_file():
            continue
        found[path] = (_ROOT / path).read_bytes()
        for folder in pathlib.PurePath(path).parents[:-1]:
            found[f"{folder}/__init__.py"] = b""
        for node in ast.walk(ast.parse(found[path])):
            if isinstance(node, ast.Import):
                pending += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                pending += [node.module]
                pending += [f"{node.module}.{alias.name}" for alias in node.names]
    return found
