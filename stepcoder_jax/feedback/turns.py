"""What running a program said, in the words in which a model reads it.

One failing visible test is told, the first in order, with what the program made of it.
Values are cut at MOST characters. What a program printed, returned or raised is its model's
own text: cut, and without controls.
"""

from __future__ import annotations

import ast
import bisect
import dataclasses
import hashlib
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from stepcoder_jax import syntax
from stepcoder_jax.execution.crossing.showing import MOST, show, show_call
from stepcoder_jax.records import (
    VALUE_LIMIT,
    Attempt,
    InputError,
    Mode,
    Problem,
    Program,
    Report,
    TestCase,
    TestResult,
    Told,
    Variant,
    Verdict,
)

_CUT = " ... "  # in the place of the middle of a long text
_MOST_LINE = 200  # characters of a line of the program
_MOST_SHOWN, _MOST_VALUE = 3, 240  # tests in a log of failed and of passed, characters
_LEAST_NUMBER, _LEAST_TEXT = 3, 5  # characters of an expected value that says enough
_STDIN_MODES = (Mode.STDIN_MAIN, Mode.STDIN_FN)
_KINDS = {
    Verdict.PASS: "The program passes the tests that are shown.",
    Verdict.WRONG: "The program fails a test.",
    Verdict.RUNTIME: "The program stops with an error.",
    Verdict.TIMEOUT: "The program is too slow.",
    Verdict.MEMORY: "The program takes too much memory.",
    Verdict.OUTPUT: "The program prints or returns too much.",
    Verdict.COMPILE: "The program does not compile.",
}
REQUESTS = {
    Variant.DIRECT: "Mend the program.",
    Variant.EXPLAIN: "Explain what is wrong with the program, then mend it.",
}
_FAILED = "The program fails this test:"
_RAISED = "The program stops with an error in this test:"


def clip(text: str, most: int = MOST) -> str:
    """The text with its middle cut out, and U+FFFD for what is neither letter nor line."""
    if len(text) > most:
        half = (most - len(_CUT)) // 2
        text = text[:half] + _CUT + text[-half:]
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def describe_test(problem: Problem, test: TestCase) -> str:
    """What a test asks for: `f(1) == 2`, input and output, or its code."""
    if problem.mode is Mode.CALL:
        call = show_call(problem.entry_point or "", test.inputs)
        return f"{call} == {show(test.expected)}"
    if problem.mode in _STDIN_MODES:
        return "\n".join(_named({"Input": test.inputs, "Output": test.expected}))
    return clip(test.inputs).strip()


def on_visible_tests(program: Program) -> Program:
    """The same program, to be judged on what the model may be shown."""
    problem = program.problem
    seen = dataclasses.replace(problem, tests=problem.visible_tests)
    return dataclasses.replace(program, problem=seen)


def report_on_visible(program: Program, report: Report) -> Report | None:
    """What a report on all tests says of the visible ones; None where it lacks one of them.

    It has them all where they score, but for those behind a failure that ended the run.
    """
    if report.verdict in (Verdict.COMPILE, Verdict.INFRA):
        return report
    scored = program.problem.tests
    places = [scored.index(x) if x in scored else -1 for x in program.problem.visible_tests]
    if -1 in places:
        return None
    results = tuple(report.tests[place] for place in places)
    failed = next((each for each in results if each.verdict is not Verdict.PASS), None)
    if failed is None:
        return dataclasses.replace(report, verdict=Verdict.PASS, tests=results, message="")
    if failed.verdict is Verdict.NOT_RUN:
        return None
    first = next((x for x in report.tests if x.verdict is report.verdict), None)
    said = report.message if first is failed else ""
    return dataclasses.replace(report, verdict=failed.verdict, tests=results, message=said)


class Others(NamedTuple):
    """Of each of some problems what running a program said, for Told.RANDOM."""

    ids: tuple[str, ...] = ()  # ascending
    texts: tuple[str, ...] = ()

    def of_another(self, attempt: Attempt, problem: str, seed: int) -> str:
        """What is told of one of the problems but this one.

        Which one depends on the seed, the problem and the program alone; InputError where
        there is no other.
        """
        own = bisect.bisect_left(self.ids, problem)
        is_one = self.ids[own : own + 1] == (problem,)
        if len(self.ids) == is_one:
            raise InputError("feedback random: there is no other problem with a failure")
        key = f"{seed}\n{problem}\n{attempt.source}".encode("utf-8", "replace")
        drawn = int.from_bytes(hashlib.sha256(key).digest()) % (len(self.ids) - is_one)
        return self.texts[drawn + (is_one and drawn >= own)]


def tell_less(attempt: Attempt, told: Told) -> Attempt:
    """The attempt with so much of its feedback."""
    if told is Told.TEST:
        return attempt
    text = _KINDS[attempt.verdict] if told is Told.VERDICT else ""
    return dataclasses.replace(attempt, feedback=text)


def attempt_that_passes(program: Program) -> Attempt:
    """What the model is to read of a program that passes the visible tests."""
    return Attempt(program.source, Verdict.PASS, None, _KINDS[Verdict.PASS])


def attempt_of(program: Program, report: Report, cpu_seconds: float) -> Attempt | None:
    """What the model is to read of a program and its report on the visible tests.

    It tells of visible tests alone, whether the program's problem has others to score it.
    None where it passes them, and where the judge itself failed or could not carry a value.
    `cpu_seconds` is the limit of one test.
    """
    if report.passed or report.verdict is Verdict.INFRA or report.unfaithful:
        return None
    if report.verdict is Verdict.COMPILE:
        said = f"The program does not compile: {report.message}"
        line = report.tests[0].line if report.tests else None
        text = "\n".join([clip(said), *_line_of(program.source, line)])
        return Attempt(program.source, report.verdict, None, text)
    number, result = next(
        (number, result)
        for number, result in enumerate(report.tests)
        if result.verdict is report.verdict
    )
    test = program.problem.visible_tests[number]
    lines = _describe(program, test, result, report.message, cpu_seconds)
    return Attempt(program.source, report.verdict, number, "\n".join(lines))


def example_of(problem: Problem) -> str:
    """What is told of a wrong answer to the first visible test; "" where there is none."""
    for test in problem.visible_tests[:1]:
        result = TestResult(Verdict.WRONG, got=show(test.expected))
        parts = _asked(problem, test) | _made(problem, test, result)
        return "\n".join([_FAILED, *_named(parts)])
    return ""


def describe_results(program: Program, report: Report) -> list[dict[str, Any]]:
    """What some tests asked, expected and got, for a log that people read.

    The first few that failed and the first few that passed, in their order: `test` is the
    number from 0, beside it what `_asked` and `_made` name, cut; of a test that neither
    passed nor was answered wrongly the error and the line, 1-based.
    """
    left = {True: _MOST_SHOWN, False: _MOST_SHOWN}
    found = []
    for number, (test, result) in enumerate(zip(program.problem.tests, report.tests)):
        passed = result.verdict is Verdict.PASS
        if result.verdict in (Verdict.NOT_RUN, Verdict.COMPILE) or not left[passed]:
            continue
        left[passed] -= 1
        parts = _asked(program.problem, test) | _came(program.problem, test, result)
        texts = {name: clip(text, _MOST_VALUE) for name, text in parts.items()}
        line = {} if result.line is None else {"line": result.line}
        found.append({"test": number, "verdict": str(result.verdict), **texts, **line})
    return found


def _came(problem: Problem, test: TestCase, result: TestResult) -> dict[str, str]:
    """What was expected, and what came where that is something else."""
    if result.verdict is Verdict.WRONG:
        return _made(problem, test, result)
    if result.verdict is not Verdict.PASS:
        return {"Error": ": ".join(filter(None, (result.error, result.message)))}
    made = _made(problem, test, result)
    return {name: text for name, text in made.items() if name == "Expected"}


def _describe(
    program: Program, test: TestCase, result: TestResult, message: str, cpu_seconds: float
) -> list[str]:
    problem = program.problem
    if result.verdict is Verdict.WRONG:
        return [_FAILED, *_named(_asked(problem, test) | _made(problem, test, result))]
    asked = _named(_asked(problem, test))
    if result.verdict is Verdict.RUNTIME:
        said = result.message or message
        error = f"{result.error}: {said}" if said else result.error
        line = _line_of(program.source, result.line)
        return [_RAISED, *asked, clip(error), *line]
    how = {
        Verdict.TIMEOUT: f"is too slow: it runs for more than {cpu_seconds:g} s",
        Verdict.MEMORY: "takes too much memory",
        Verdict.OUTPUT: "returns too much"
        if result.error == VALUE_LIMIT
        else "prints too much",
    }[result.verdict]
    return [f"The program {how} in this test:", *asked]


def _asked(problem: Problem, test: TestCase) -> dict[str, str]:
    """What the test gives to the program, by name."""
    if problem.mode is Mode.CALL:
        return {"Call": show_call(problem.entry_point or "", test.inputs)}
    if problem.mode in _STDIN_MODES:
        return {"Input": test.inputs}
    pair = _equality(test.inputs)
    return {"Call": pair[0]} if pair else {"Test": test.inputs}


def _made(problem: Problem, test: TestCase, result: TestResult) -> dict[str, str]:
    """What was expected of a wrong answer and what came, by name."""
    if problem.mode is Mode.CALL:
        return {"Expected": show(test.expected), "Got": result.got}
    if problem.mode in _STDIN_MODES:
        return {"Expected": test.expected, "Got": result.stdout or "nothing"}
    pair = _equality(test.inputs)
    if pair is None:
        said = f"{result.error}: {result.message}" if result.message else result.error
        return {"Error": said}
    whole, name = pair[0], problem.entry_point
    is_call = whole.startswith(f"{name}(")
    came = {"Got" if is_call else f"{name} returned": result.got} if result.got else {}
    return {"Expected": pair[1]} | came


def _equality(code: str) -> tuple[str, str] | None:
    """The sides of `assert CALL == VALUE`, where imports alone stand before it."""
    tree = syntax.parse(code)
    body = [
        node
        for node in (tree.body if tree else ())
        if not isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    match body:
        case [ast.Assert(test=ast.Compare(left, [ast.Eq()], [right]))]:
            return ast.unparse(left), ast.unparse(right)
    return None


def expected_literals(problem: Problem) -> list[ast.expr]:
    """The values that visible tests expect, as syntax; without those that say too little.

    A program that holds one may have copied it. Any program may hold True, a number of two
    digits, or a text or a list that is as short.
    """
    found = []
    for test in problem.visible_tests:
        if problem.mode is Mode.CALL:
            texts = [show(test.expected)]
        elif problem.mode in _STDIN_MODES:
            printed = str(test.expected).strip()
            texts = [repr(printed), printed]
        else:
            pair = _equality(test.inputs)
            texts = [pair[1]] if pair else []
        found += [tree for tree in map(_literal, texts) if tree is not None]
    return found


def _literal(text: str) -> ast.expr | None:
    """A literal's syntax, where it is one that says enough."""
    tree = syntax.parse(text)
    match tree and tree.body:
        case [ast.Expr(value)]:
            number = value.operand if isinstance(value, ast.UnaryOp) else value
            match number:
                case ast.Constant(bool() | None):
                    return None
                case ast.Constant(int() | float()):
                    return value if len(text) >= _LEAST_NUMBER else None
            return value if len(text) >= _LEAST_TEXT else None
    return None


def _named(parts: dict[str, str]) -> list[str]:
    """Each part behind its name; below it where it is of several lines."""
    lines = []
    for name, text in parts.items():
        shown = clip(text).strip("\n")
        lines.append(f"{name}:{chr(10) if chr(10) in shown else ' '}{shown}".rstrip(" "))
    return lines


def _line_of(source: str, line: int | None) -> list[str]:
    """A line of the program, 1-based, with its number."""
    lines = syntax.NEWLINE.split(source.encode("utf-8", "replace"))
    if line is None or not 0 < line <= len(lines):
        return []
    return [f"Line {line}: {clip(lines[line - 1].decode().strip(), _MOST_LINE)}"]


def exchanges(
    before: Sequence[Attempt], variant: Variant, fence: str
) -> list[tuple[str, str]]:
    """Each program in its fence, and what is said to it: the feedback and the request."""
    return [
        (
            f"{fence}python\n{attempt.source.rstrip()}\n{fence}",
            "\n".join(filter(None, [attempt.feedback, REQUESTS[variant]])),
        )
        for attempt in before
    ]


def part_words(
    before: Sequence[Attempt], words: Sequence[str]
) -> tuple[tuple[Attempt, ...], str]:
    """The attempts with these words parted by a character, and that; "" where none has one.

    The words are a tokenizer's special tokens, which it reads as such whoever wrote them.
    Each is parted behind its first character, by one that no attempt holds, so that the
    text on both sides is read as what it spells.
    """
    whole = "".join(text for x in before for text in (x.source, x.feedback))
    found = [word for word in words if word in whole]
    if not found:
        return tuple(before), ""
    held = set(whole)
    mark = next(c for c in map(chr, itertools.count(0xE000)) if c not in held)

    def part(text: str) -> str:
        for word in found:
            text = text.replace(word, f"{word[0]}{mark}{word[1:]}")
        return text

    parted = [
        dataclasses.replace(x, source=part(x.source), feedback=part(x.feedback))
        for x in before
    ]
    return tuple(parted), mark
