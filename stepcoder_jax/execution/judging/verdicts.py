"""From what a worker saw to a verdict; here alone expected outputs are compared."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from stepcoder_jax.execution.crossing import showing, values
from stepcoder_jax.execution.judging import grading, returned
from stepcoder_jax.execution.settings import TEXT_KEPT
from stepcoder_jax.execution.worker import checker, frames, marks, tracer
from stepcoder_jax.records import (
    FAULTY_TEST,
    VALUE_LIMIT,
    Mode,
    Position,
    Report,
    TestCase,
    TestResult,
    Verdict,
)

_SAID_CAP = 100
_GRACE_SECONDS = 30.0  # beyond a test's wall limit before the worker counts as dead
_SIGXCPU, _SIGXFSZ, _SIGKILL = 24, 25, 9
_WORDS_CAP = 400  # characters of an error's name, or of a message
_CLASS_NAME = re.compile(r"\w{1,80}")
NOT_RUN = TestResult(Verdict.NOT_RUN)  # one for all: it says nothing else


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
        if not self.parts["head"].startswith(marks.IN_SANDBOX):
            raise InfraError(f"the sandbox failed in the child: exit {self.answer['exit']}")


class Judgement(NamedTuple):
    """The verdict on one test, the error's class and line, and what else is to be said."""

    verdict: Verdict
    error: str = ""
    line: int | None = None
    why: str = ""
    unfaithful: bool = False
    got: str = ""  # what a call returned, where it was wrong


def judge_test(mode: Mode, test: TestCase, seen: Seen) -> tuple[TestResult, str]:
    """Return the result of one test and, where its verdict needs words, one line."""
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
    elif mode is Mode.ASSERT_INPROC and judgement.error == "AssertionError":
        judgement = judgement._replace(verdict=Verdict.WRONG)
    return _result(seen, judgement), judgement.why


def judge_check(program: Seen, check: Seen) -> tuple[TestResult, str]:
    """The result of test code that ran in a process of its own (Mode.ASSERT_PROXY).

    An assertion, or any error of the test code's own about the values that it was given
    (a None where it adds), is WRONG; an error that the program raised is RUNTIME. Test code
    that fails before it asks the program for anything is INFRA. What the test code said is
    the result's `stderr`; of an error of the program's it stands behind what that said.
    """
    program.require_sandbox()
    check.require_sandbox()
    refused = _refusal(program)
    if refused is not None:
        return refused
    judgement = _broken(program) or _broken(check) or _read_check(check.parts["result"])
    result = _result(program, judgement)
    said = check.parts["err"][-check.kept :].decode("utf-8", "replace")
    if judgement.verdict is Verdict.RUNTIME and said:
        own = result.stderr and f"{result.stderr.rstrip()}\n"
        said = f"{own}{said}"[-check.kept :]
    if judgement.verdict in (Verdict.WRONG, Verdict.RUNTIME) and said:
        result = dataclasses.replace(result, stderr=said)
    return result, judgement.why


def _read_check(note: bytes) -> Judgement:
    """From the note of checker.run; that process is ours, the values in it were not."""
    kind, error, line, got = note.decode("utf-8", "replace").split("\n", 3)
    place = int(line) or None
    return {
        checker.RAISED: Judgement(Verdict.RUNTIME, error, place),
        checker.MEMORY: Judgement(Verdict.MEMORY, error, place),
        checker.PASSED: Judgement(Verdict.PASS),
        checker.WRONG: Judgement(Verdict.WRONG, error, got=got),
        # it left with code 0 before the test code had ended
        checker.GONE: Judgement(Verdict.RUNTIME, "SystemExit"),
        checker.LARGE: _too_large(error),
        checker.UNFIT: Judgement(
            Verdict.INFRA, why=f"the test passes what is no plain value: {error}"
        ),
        checker.FAULTY: Judgement(Verdict.INFRA, why=f"{FAULTY_TEST}: {error}"),
        checker.UNFAITHFUL: Judgement(
            Verdict.WRONG,
            "Unfaithful",
            why=f"unfaithful: the test uses what the judge cannot carry: {error}",
            unfaithful=True,
        ),
    }[kind]


def _too_large(what: str) -> Judgement:
    return Judgement(Verdict.OUTPUT, VALUE_LIMIT, why=f"the returned value has {what}")


def _refusal(seen: Seen) -> tuple[TestResult, str] | None:
    """The result of a program that does not compile; None for one that does."""
    stage, note = seen.parts["head"][1:2], seen.parts["head"][2:]
    if stage == marks.COMPILED:
        return None
    message = _compile_message(seen.answer, note if stage == marks.REFUSED else b"")
    error, line = message.partition(":")[0], _line_of(message)
    return _result(seen, Judgement(Verdict.COMPILE, error, line)), message


def _result(seen: Seen, judgement: Judgement) -> TestResult:
    answer, parts = seen.answer, seen.parts
    executed, expressions = coverage_of(parts)
    return TestResult(
        verdict=judgement.verdict,
        error=printable(judgement.error),
        line=judgement.line,
        unfaithful=judgement.unfaithful,
        got=printable(judgement.got, 2 * showing.MOST),
        cpu_seconds=answer["cpu"],
        wall_seconds=answer["wall"],
        memory_bytes=answer["memory"],
        stdout=parts["out"][: seen.kept].decode("utf-8", "replace"),
        stderr=parts["err"][-seen.kept :].decode("utf-8", "replace"),
        executed=executed,
        expressions=expressions,
    )


def printable(text: str, most: int = _WORDS_CAP) -> str:
    """A program's words for a terminal: one line, with U+FFFD for what drives it."""
    text = text[:most]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _broken(seen: Seen) -> Judgement | None:
    """How a child broke off; None when it ended by itself with code 0."""
    answer, code = seen.answer, seen.answer["exit"]
    if answer["killed"] or code == -_SIGXCPU:
        return Judgement(Verdict.TIMEOUT, limit_name(answer["killed"] == "wall"))
    if code == -_SIGXFSZ or answer["largest"] >= seen.output:
        return Judgement(Verdict.OUTPUT)
    if code == marks.EXIT_MEMORY:
        note = seen.parts["result"]  # without one there was no memory for it either
        return Judgement(Verdict.MEMORY, *(_read_note(note) if note else ("MemoryError",)))
    if code == -_SIGKILL:  # not ours: the kernel ran out of memory
        return Judgement(Verdict.MEMORY)
    if code < 0:
        return Judgement(Verdict.RUNTIME, f"signal {-code}")
    if code != marks.EXIT_OK:
        return Judgement(Verdict.RUNTIME, *_read_note(seen.parts["result"]))
    return None


def limit_name(is_wall: bool) -> str:
    """What a TIMEOUT has in the place of an error's class: the time that ran out."""
    return "wall time" if is_wall else "CPU time"


def _pass_if(matches: bool) -> Judgement:
    return Judgement(Verdict.PASS if matches else Verdict.WRONG)


def _grade_call(test: TestCase, data: bytes) -> Judgement:
    said = " ".join(data[1:_SAID_CAP].decode("utf-8", "replace").split())
    if data[:1] == marks.NO_VALUE:
        why = f"returned what equals no plain value: {said}"
        return Judgement(Verdict.RUNTIME, values.ValueCodecError.__name__, why=why)
    if data[:1] == marks.TOO_LARGE:
        return _too_large(said)
    try:
        got = returned.decode(data)
    except values.TooDeep as error:
        return Judgement(Verdict.RUNTIME, values.ValueCodecError.__name__, why=str(error))
    except values.TooLarge as error:
        return _too_large(str(error))
    except values.ValueCodecError as error:
        return Judgement(Verdict.RUNTIME, type(error).__name__)
    if grading.result_matches(got, test.expected):
        return Judgement(Verdict.PASS)
    return Judgement(Verdict.WRONG, got=returned.show(got))


def _grade_inproc(data: bytes) -> Judgement:
    ended = data == values.encode(True)
    return Judgement(Verdict.PASS) if ended else Judgement(Verdict.RUNTIME, "SystemExit")


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
    if head[1:2] != marks.COMPILED:
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
    return Report(Verdict.INFRA, (NOT_RUN,) * tests, frozenset(), " ".join(message.split()))
