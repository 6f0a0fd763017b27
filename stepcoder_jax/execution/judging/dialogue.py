"""The judge's way through one program, wherever its tests are run."""

from __future__ import annotations

import abc
from typing import Any

from stepcoder_jax.execution.crossing import values
from stepcoder_jax.execution.judging import verdicts
from stepcoder_jax.execution.settings import PoolSettings
from stepcoder_jax.records import (
    Mode,
    Position,
    Program,
    Report,
    TestCase,
    TestResult,
    Verdict,
)

_PROBES_COST = 2.0  # CPU factor of the 3.11 probes, which run inside the judged program


class AnyWorker(abc.ABC):
    """What one thread of the pool runs programs through: a process here, or a service.

    `hello` says what was found at its start: version, monitoring, layers, canaries, pids.
    """

    settings: PoolSettings
    hello: dict[str, Any]
    level: int

    @abc.abstractmethod
    def kill(self) -> None:
        """End what is running, from any thread."""

    @abc.abstractmethod
    def close(self) -> None:
        """Kill, and let go of all that is held."""

    @abc.abstractmethod
    def _run_test(self, program: Program, test: TestCase) -> tuple[TestResult, str]:
        """One test: its result and, where the verdict needs words, one line."""

    def judge(self, program: Program) -> Report:
        """Run the program's tests in order, until the rest need not be run."""
        tests = program.problem.tests
        results: list[TestResult] = []
        executed: set[tuple[int, int]] = set()
        expressions: dict[Position, bool] = {}
        message = ""
        for test in tests:
            result, why = self._run_test(program, test)
            results.append(result)
            executed |= result.executed
            for position, ran in result.expressions.items():
                expressions[position] = ran or expressions.get(position, False)
            if why and not message:
                message = verdicts.printable(why)
            if self._settled(result.verdict):
                break
        results += [verdicts.NOT_RUN] * (len(tests) - len(results))
        verdict = verdicts.program_verdict(results)
        weak = program.problem.mode is Mode.ASSERT_INPROC
        return Report(
            verdict, tuple(results), frozenset(executed), message, weak, expressions
        )

    def _settled(self, verdict: Verdict) -> bool:
        """Whether the tests that follow need not, or must not, be run."""
        if verdict in (Verdict.COMPILE, Verdict.TIMEOUT, Verdict.INFRA):
            return True
        return self.settings.tests == "early_exit" and verdict is not Verdict.PASS

    def cpu_limit(self, measured: float | None) -> float:
        """CPU seconds that one test may take, of a problem with this measured limit."""
        cpu = measured or self.settings.cpu_seconds
        probed = not self.hello["monitoring"] and self.settings.coverage != "none"
        return cpu * _PROBES_COST if probed else cpu

    def _limits(self, cpu_seconds: float | None) -> dict[str, Any]:
        """Of one test, as the worker knows them."""
        cpu = self.cpu_limit(cpu_seconds)
        return {
            "cpu": cpu,
            "wall": 4 * cpu + 2,
            "memory": self.settings.memory_mb << 20,
            "output": self.settings.output_mb << 20,
        }


def encode_inputs(test: TestCase, mode: Mode) -> bytes:
    """What the program's process is given of a test: its input, never what is expected.

    Test code holds what is expected: only mode ASSERT_INPROC gives it away.
    """
    if mode is Mode.ASSERT_PROXY:
        return b""
    if mode is Mode.CALL:
        return values.encode(tuple(test.inputs))
    return encode_text(test.inputs)


def encode_text(text: str) -> bytes:
    """UTF-8, lone surrogates included."""
    return text.encode("utf-8", "surrogatepass")
