"""From what a worker saw to a verdict; here alone expected outputs are compared."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterable
from typing import Any

from stepcoder_jax.execution import child, grading, values
from stepcoder_jax.records import Mode, Report, TestCase, TestResult, Verdict

Executed = frozenset[tuple[int, int]]
_TEXT_CAP = 4096
_SIGXCPU, _SIGXFSZ, _SIGKILL = 24, 25, 9
_CLASS_NAME = re.compile(r"\w{1,80}")


class InfraError(Exception):
    """Our own machinery failed on this test."""


def split_parts(answer: dict[str, Any], body: bytes) -> dict[str, bytes]:
    """Cut the body of a result frame into its named parts."""
    parts, start = {}, 0
    for name, size in answer["parts"].items():
        parts[name] = body[start : start + size]
        start += size
    return parts


def judge_test(
    mode: Mode, test: TestCase, answer: dict[str, Any], parts: dict[str, bytes], output: int
) -> tuple[TestResult, str]:
    """Return the result of one test and, for COMPILE, one line that says why.

    `output` is the limit in bytes that stdout, stderr and the result had.
    """
    head = parts["head"]
    if not head.startswith(child.IN_SANDBOX):
        raise InfraError(f"the sandbox failed in the child: exit {answer['exit']}")
    stage = head[1:2]
    if stage != child.COMPILED:
        message = _compile_message(answer, head[2:] if stage == child.REFUSED else b"")
        error, line = message.partition(":")[0], _line_of(message)
        return _result(Verdict.COMPILE, answer, parts, error, line), message
    verdict, error, line = _verdict(mode, test, answer, parts, output)
    return _result(verdict, answer, parts, error, line), ""


def _result(
    verdict: Verdict,
    answer: dict[str, Any],
    parts: dict[str, bytes],
    error: str,
    line: int | None,
) -> TestResult:
    return TestResult(
        verdict=verdict,
        error=error,
        line=line,
        cpu_seconds=answer["cpu"],
        wall_seconds=answer["wall"],
        memory_bytes=answer["memory"],
        stdout=parts["out"][:_TEXT_CAP].decode("utf-8", "replace"),
        stderr=parts["err"][-_TEXT_CAP:].decode("utf-8", "replace"),
        executed=executed_statements(parts),
    )


def _verdict(
    mode: Mode, test: TestCase, answer: dict[str, Any], parts: dict[str, bytes], output: int
) -> tuple[Verdict, str, int | None]:
    code = answer["exit"]
    if answer["killed"] or code == -_SIGXCPU:
        return Verdict.TIMEOUT, "", None
    if code == -_SIGXFSZ or max(answer["sizes"].values()) >= output:
        return Verdict.OUTPUT, "", None
    if code == child.EXIT_MEMORY:
        return Verdict.MEMORY, "MemoryError", None
    if code == -_SIGKILL:  # not ours: the kernel ran out of memory
        return Verdict.MEMORY, "", None
    if code < 0:
        return Verdict.RUNTIME, f"signal {-code}", None
    if code != child.EXIT_OK:
        error, line = _read_note(parts["result"])
        return (Verdict.MEMORY if error == "MemoryError" else Verdict.RUNTIME), error, line
    if mode is Mode.CALL:
        return _grade_call(test, parts["result"])
    got = parts["out"].decode("utf-8", "replace")
    matches = grading.stdout_matches(got, test.expected)
    return (Verdict.PASS if matches else Verdict.WRONG), "", None


def _grade_call(test: TestCase, data: bytes) -> tuple[Verdict, str, int | None]:
    try:
        got = values.decode(data)
    except values.ValueCodecError as error:
        return Verdict.RUNTIME, type(error).__name__, None
    matches = grading.result_matches(got, test.expected)
    return (Verdict.PASS if matches else Verdict.WRONG), "", None


def _read_note(data: bytes) -> tuple[str, int | None]:
    """The error's class and line, as an untrusted process wrote them."""
    error, _, line = data[:400].decode("utf-8", "replace").partition("\n")
    if not _CLASS_NAME.fullmatch(error):
        return "SystemExit", None
    return error, int(line) if re.fullmatch(r"[1-9]\d{0,8}", line, re.ASCII) else None


def _compile_message(answer: dict[str, Any], note: bytes) -> str:
    if not note:
        how = answer["killed"] or f"exit {answer['exit']}"
        return f"CompilerKilled: the compiler did not survive the source ({how})"
    said = json.loads(note)
    line = f" (line {said['line']})" if said["line"] else ""
    return " ".join(f"{said['error']}: {said['message']}{line}".split())


def _line_of(message: str) -> int | None:
    found = re.search(r" \(line (\d+)\)$", message)
    return int(found[1]) if found else None


def executed_statements(parts: dict[str, bytes]) -> Executed:
    """The (line, byte column) of the statements that this test reached."""
    head = parts["head"]
    if head[1:2] != child.COMPILED:
        return frozenset()
    table = array("I")
    table.frombytes(head[2:])
    pairs = zip(table[0::2], table[1::2])
    return frozenset(pair for pair, hit in zip(pairs, parts["hits"]) if hit)


def program_verdict(results: Iterable[TestResult]) -> Verdict:
    """That of the first test that did not pass; NOT_RUN never counts."""
    for result in results:
        if result.verdict not in (Verdict.PASS, Verdict.NOT_RUN):
            return result.verdict
    return Verdict.PASS


def infra_report(tests: int, message: str) -> Report:
    """The report of a program that our machinery failed to run."""
    not_run = (TestResult(Verdict.NOT_RUN),) * tests
    return Report(Verdict.INFRA, not_run, frozenset(), " ".join(message.split()))
