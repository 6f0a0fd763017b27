"""The nouns of the host: what a problem, a task, a program and a verdict are.

Standard library only, so that a judge worker can load this file alone.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from typing import Any

Span = tuple[int, int]
# Line, byte column, end line, end byte column: of one instruction, as `co_positions` says.
Position = tuple[int, int, int, int]
# Opens the message of an INFRA report where it is the data set's or the sandbox's fault.
FAULTY_TEST = "the test code fails whatever the program is"
# In the place of an OUTPUT's error: not what was printed is too large, but a value.
VALUE_LIMIT = "value limit"


class InputError(ValueError):
    """What the user gave cannot work; one line: expected, got, where, the mend.

    The command line prints it and exits with 2.
    """


class Mode(enum.StrEnum):
    """How a program meets a test."""

    STDIN_MAIN = "stdin_main"  # run the file; compare standard output
    STDIN_FN = "stdin_fn"  # run the file, call entry_point(); compare standard output
    CALL = "call"  # call entry_point(*inputs); compare the returned value
    ASSERT_PROXY = "assert_proxy"  # test code in a process of its own calls the program
    ASSERT_INPROC = (
        "assert_inproc"  # test code beside the program, which can reach it: weak
    )


class Verdict(enum.StrEnum):
    """What became of one test, or of a whole program."""

    PASS = "pass"
    WRONG = "wrong"
    RUNTIME = "runtime"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT = "output"
    COMPILE = "compile"
    INFRA = "infra"  # our own machinery failed: never scored as the program's
    NOT_RUN = "not_run"  # an earlier test already settled the verdict


# Those of APPS, and of LiveCodeBench.
_EASY_TO_HARD = ("introductory", "interview", "competition", "easy", "medium", "hard")


def order_difficulties(names: Iterable[str]) -> list[str]:
    """Each name once, in the order in which difficulties are listed everywhere.

    Known ones from easy to hard, then numbers by their size, then others by the alphabet;
    "unknown" is last.
    """

    def place(name: str) -> tuple[int, int, str]:
        if name in _EASY_TO_HARD:
            return 0, _EASY_TO_HARD.index(name), name
        if name.isdecimal():
            return 1, int(name), name
        return (3 if name == "unknown" else 2), 0, name

    return sorted(set(names), key=place)


@dataclasses.dataclass(frozen=True)
class TestCase:
    """One test.

    `inputs` is text for the stdin modes, a tuple of arguments for calls, and for the assert
    modes the source of the test code, whose `expected` is None: it passes by ending.
    """

    __test__ = False  # not a pytest class

    inputs: Any
    expected: Any


@dataclasses.dataclass(frozen=True)
class Problem:
    """One programming problem with its canonical solution and unit tests."""

    id: str
    statement: str
    starter_code: str
    solution: str
    entry_point: str | None
    mode: Mode
    tests: tuple[TestCase, ...]
    difficulty: str
    cpu_seconds: float | None = None  # measured limit of one test; None: the default
    # what a file of our own format says beside these, as JSON values
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    # what the model may be shown; it scores only where it stands in `tests` as well
    visible_tests: tuple[TestCase, ...] = ()


class Variant(enum.StrEnum):
    """What is asked for where a program failed (arXiv:2405.18649)."""

    DIRECT = "direct"  # a better program
    EXPLAIN = "explain"  # what is wrong, and then a better program


class Told(enum.StrEnum):
    """What the model reads of a failure; all but TEST are controls."""

    TEST = "test"  # a failing test, and what came
    VERDICT = "verdict"  # the kind of failure alone
    NONE = "none"  # the request alone
    RANDOM = "random"  # what was said of a program for another problem


@dataclasses.dataclass(frozen=True)
class Attempt:
    """A program, and what the model reads of running it on the visible tests."""

    source: str
    verdict: Verdict
    test: int | None  # the one that it failed, from 0; None: it does not compile, or passes
    feedback: str


@dataclasses.dataclass(frozen=True)
class Task:
    """A problem as posed in one rollout.

    `head` opens the response: the starter code at stage 0, at a later stage the
    canonical solution up to the cut (arXiv:2402.01391, section 3.1). It is empty or ends
    in a newline. What a stage > 0 counts depends on `cccs.prefix` (see stages.py). With
    attempts before it, its context, a task has no head: the model opens the fence itself,
    behind an explanation where one is asked for.
    """

    problem: Problem
    index: int  # row of the problem in the training pool
    stage: int
    head: str
    before: tuple[Attempt, ...] = ()  # oldest first
    variant: Variant = Variant.DIRECT  # how each of them was answered, or is to be


@dataclasses.dataclass(frozen=True)
class Program:
    """The source that is run, and where each completion token stands in it.

    source == head + completion code, byte for byte. `token_spans[t]` is the half-open
    byte range of completion token t in `source.encode()`, or None when the token lies
    outside the code (closing fence, EOS). A token that splits a character has the byte
    range of its own bytes.
    """

    problem: Problem
    source: str
    generated_from: int  # byte offset where the completion begins
    token_spans: tuple[Span | None, ...]


@dataclasses.dataclass(frozen=True)
class TestResult:
    """What one test saw. `line` is 1-based.

    `error` is an exception's class, of a TIMEOUT "CPU time" or "wall time": which ran out;
    VALUE_LIMIT of an OUTPUT that a value is.
    """

    __test__ = False

    verdict: Verdict
    error: str = ""
    line: int | None = None
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    memory_bytes: int = 0
    stdout: str = ""  # capped
    stderr: str = ""  # capped
    # Where the test is WRONG: what the call returned, of test code the last one of the
    # program's; capped, one line, printable.
    got: str = ""
    # The test code asked more of a returned value than the judge can carry to it (WRONG).
    unfaithful: bool = False
    # As in Report, of this test alone.
    executed: frozenset[tuple[int, int]] = frozenset()
    expressions: Mapping[Position, bool] = dataclasses.field(
        default_factory=dict, hash=False
    )

    @property
    def message(self) -> str:
        """What the error said: of a traceback's last line, behind which more may stand."""
        opening = f"{self.error}: "
        said = [line for line in self.stderr.split("\n") if line.startswith(opening)]
        return said[-1].removeprefix(opening) if self.error and said else ""


@dataclasses.dataclass(frozen=True)
class Report:
    """The judge's word on one program.

    `verdict` is that of the first test, in data-set order, that did not pass (NOT_RUN
    never counts). `executed` holds (line, byte column) of every statement that ran in at
    least one test: line 1-based, column 0-based in UTF-8 bytes, as `ast` has them.
    `expressions` says of every place that has instructions whether one of them ran; it is
    empty unless the pool's coverage is "expression".
    """

    verdict: Verdict
    tests: tuple[TestResult, ...]
    executed: frozenset[tuple[int, int]]
    message: str = ""  # one line: COMPILE, INFRA, and where a value could not be carried
    weak: bool = False  # graded within reach of the program (Mode.ASSERT_INPROC): no reward
    expressions: Mapping[Position, bool] = dataclasses.field(
        default_factory=dict, hash=False
    )

    @property
    def passed(self) -> bool:
        return self.verdict is Verdict.PASS

    @property
    def is_valid(self) -> bool:
        """Whether training may learn from it: not our own failure or limit, not weak."""
        failed = self.verdict is Verdict.INFRA or self.unfaithful
        return not failed and not self.weak

    @property
    def unfaithful(self) -> bool:
        """Whether a test failed for what the judge cannot carry, not for what is wrong."""
        return any(test.unfaithful for test in self.tests)

    @property
    def over_value_limit(self) -> bool:
        """Whether what a test returned is larger than what the judge compares."""
        return any(
            test.verdict is Verdict.OUTPUT and test.error == VALUE_LIMIT
            for test in self.tests
        )

    @property
    def passed_tests(self) -> int:
        return sum(test.verdict is Verdict.PASS for test in self.tests)
