"""From what a worker saw to a verdict; here alone expected outputs are compared."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from stepcoder_jax.execution import checker, child, frames, grading, tracer, values
from stepcoder_jax.execution.settings import TEXT_KEPT
from stepcoder_jax.records import Mode, Position, Report, TestCase, TestResult, Verdict

_GRACE_SECONDS = 30.0  # beyond a test's wall limit before the worker counts as dead
_SIGXCPU, _SIGXFSZ, _SIGKILL = 24, 25, 9
_WORDS_CAP = 400  # characters of an error's name, or of a message
_CLASS_NAME = re.compile(r"\w{1,80}")


class InfraError(Exception):
    """Our own machinery failed on this test."""


class Seen(NamedTuple):
    """What a worker saw of one child, and what it left."""

    answer: dict[str, Any]
    parts: dict[str, bytes]
    output: int  # the limit in bytes that stdout, stderr and the result had
    kept: int = TEXT_KEPT  # bytes of stdout and of stderr that the result holds

    @classmethod
    def read(cls, answers: frames.Reader, limits: dict[str, Any], kept: int) -> Seen:
        """Read a worker's answer to a test; FrameError when it does not come in time."""
        deadline = time.monotonic() + limits["wall"] + _GRACE_SECONDS
        answer, body = answers.read(deadline)
        parts, start = {}, 0
        for name, size in answer["parts"].items():
            parts[name] = body[start : start + size]
            start += size
        return cls(answer, parts, limits["output"], kept)

    def require_sandbox(self) -> None:
        """InfraError when the child failed before anything untrusted ran in it."""
        if not self.parts["head"].startswith(child.IN_SANDBOX):
            raise InfraError(f"the sandbox failed in the child: exit {self.answer['exit']}")


Judgement = tuple[Verdict, str, int | None]  # with the error's class and line


def judge_test(mode: Mode, test: TestCase, seen: Seen) -> tuple[TestResult, str]:
    """Return the result of one test and, for COMPILE, one line that says why."""
    seen.require_sandbox()
    refused = _refusal(seen)
    if refused is not None:
        return refused
    judgement = _broken(seen)
    if judgement is None and mode is Mode.CALL:
        judgement = _grade_call(test, seen.parts["result"])
    elif judgement is None and mode is Mode.ASSERT_INPROC:
        judgement = _grade_inproc(seen.parts["result"])
    elif judgement is None:
        got = seen.parts["out"].decode("utf-8", "replace")
        judgement = _pass_if(grading.stdout_matches(got, test.expected))
    elif mode is Mode.ASSERT_INPROC and judgement[1] == "AssertionError":
        judgement = (Verdict.WRONG, *judgement[1:])
    return _result(seen, *judgement), ""


def judge_check(program: Seen, check: Seen) -> tuple[TestResult, str]:
    """The result of test code that ran in a process of its own (Mode.ASSERT_PROXY).

    An assertion, or any error of the test code's own about the values that it was given
    (a None where it adds), is WRONG; an error that the program raised is RUNTIME.
    """
    program.require_sandbox()
    check.require_sandbox()
    refused = _refusal(program)
    if refused is not None:
        return refused
    judgement = _broken(program) or _broken(check) or _read_check(check.parts["result"])
    why = ""
    if judgement[0] is Verdict.INFRA:
        why = f"the test passes what is no plain value: {judgement[1]}"
        judgement = (Verdict.INFRA, "", None)
    return _result(program, *judgement), why


def _read_check(note: bytes) -> Judgement:
    """From the note of checker.run; that process is ours, the values in it were not."""
    kind, error, line = note.decode("utf-8", "replace").split("\n")
    if kind == checker.RAISED:
        memory = error == "MemoryError"
        place = int(line) or None
        return (Verdict.MEMORY if memory else Verdict.RUNTIME), error, place
    verdicts = {
        checker.PASSED: Verdict.PASS,
        checker.WRONG: Verdict.WRONG,
        checker.UNFIT: Verdict.INFRA,
    }
    if kind == checker.GONE:  # it left with code 0 before the test code had ended
        return Verdict.RUNTIME, "SystemExit", None
    return verdicts[kind], error, None


def _refusal(seen: Seen) -> tuple[TestResult, str] | None:
    """The result of a program that does not compile; None for one that does."""
    stage, note = seen.parts["head"][1:2], seen.parts["head"][2:]
    if stage == child.COMPILED:
        return None
    message = _compile_message(seen.answer, note if stage == child.REFUSED else b"")
    error, line = message.partition(":")[0], _line_of(message)
    return _result(seen, Verdict.COMPILE, error, line), message


def _result(seen: Seen, verdict: Verdict, error: str, line: int | None) -> TestResult:
    answer, parts = seen.answer, seen.parts
    executed, expressions = coverage_of(parts)
    return TestResult(
        verdict=verdict,
        error=printable(error),
        line=line,
        cpu_seconds=answer["cpu"],
        wall_seconds=answer["wall"],
        memory_bytes=answer["memory"],
        stdout=parts["out"][: seen.kept].decode("utf-8", "replace"),
        stderr=parts["err"][-seen.kept :].decode("utf-8", "replace"),
        executed=executed,
        expressions=expressions,
    )


def printable(text: str) -> str:
    """A program's words for a terminal: one line, with U+FFFD for what drives it."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:_WORDS_CAP])


def _broken(seen: Seen) -> Judgement | None:
    """How a child broke off; None when it ended by itself with code 0."""
    answer, code = seen.answer, seen.answer["exit"]
    if answer["killed"] or code == -_SIGXCPU:
        return Verdict.TIMEOUT, limit_name(answer["killed"] == "wall"), None
    if code == -_SIGXFSZ or answer["largest"] >= seen.output:
        return Verdict.OUTPUT, "", None
    if code == child.EXIT_MEMORY:
        note = seen.parts["result"]  # without one there was no memory for it either
        return Verdict.MEMORY, *(_read_note(note) if note else ("MemoryError", None))
    if code == -_SIGKILL:  # not ours: the kernel ran out of memory
        return Verdict.MEMORY, "", None
    if code < 0:
        return Verdict.RUNTIME, f"signal {-code}", None
    if code != child.EXIT_OK:
        error, line = _read_note(seen.parts["result"])
        return (Verdict.MEMORY if error == "MemoryError" else Verdict.RUNTIME), error, line
    return None


def limit_name(is_wall: bool) -> str:
    """What a TIMEOUT has in the place of an error's class: the time that ran out."""
    return "wall time" if is_wall else "CPU time"


def _pass_if(matches: bool) -> Judgement:
    return (Verdict.PASS if matches else Verdict.WRONG), "", None


def _grade_call(test: TestCase, data: bytes) -> Judgement:
    try:
        got = values.decode(data)
    except values.ValueCodecError as error:
        return Verdict.RUNTIME, type(error).__name__, None
    return _pass_if(grading.result_matches(got, test.expected))


def _grade_inproc(data: bytes) -> Judgement:
    ended = data == values.encode(True)
    return (Verdict.PASS, "", None) if ended else (Verdict.RUNTIME, "SystemExit", None)


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


def coverage_of(
    parts: dict[str, bytes],
) -> tuple[frozenset[tuple[int, int]], dict[Position, bool]]:
    """What this test reached, as in TestResult: `executed` and `expressions`."""
    head = parts["head"]
    if head[1:2] != child.COMPILED:
        return frozenset(), {}
    return tracer.read_map(head[2:], parts["hits"])


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
