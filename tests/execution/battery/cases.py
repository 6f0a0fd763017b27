"""The form of a case, and short words to write one with."""

import dataclasses
from typing import Any

from stepcoder_jax.records import Mode, Program, Verdict
from tests.execution.kit import make_program

PASS, WRONG, RUNTIME = Verdict.PASS, Verdict.WRONG, Verdict.RUNTIME
TIMEOUT, MEMORY, OUTPUT = Verdict.TIMEOUT, Verdict.MEMORY, Verdict.OUTPUT
COMPILE = Verdict.COMPILE
HELD = (RUNTIME, WRONG)  # an attack that must not pass, however it ends
ENDLESS_CPU_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class Case:
    """One program with its tests, and the verdict that is right."""

    title: str
    why: str
    source: str
    tests: tuple[tuple[Any, Any], ...]
    verdicts: tuple[Verdict, ...]
    error: str = ""  # of the first test that fails; "": not asked
    mode: Mode = Mode.STDIN_MAIN
    entry_point: str | None = None
    message: str = ""  # part of the report's

    @property
    def program(self) -> Program:
        endless = TIMEOUT in self.verdicts
        return make_program(
            self.source,
            *self.tests,
            mode=self.mode,
            entry_point=self.entry_point,
            name=self.title,
            cpu_seconds=ENDLESS_CPU_SECONDS if endless else None,
        )


def script(title, why, source, verdict=PASS, given="", expected="3\n", error="") -> Case:
    """A file that reads standard input and prints; usually it is to print 3."""
    verdicts = verdict if isinstance(verdict, tuple) else (verdict,)
    return Case(title, why, source, ((given, expected),), verdicts, error)


def call(title, why, source, verdict, *tests, error="", name="f", message="") -> Case:
    """A file whose function `name` is called; tests are (arguments, expected) pairs."""
    verdicts = verdict if isinstance(verdict, tuple) else (verdict,)
    return Case(title, why, source, tests, verdicts, error, Mode.CALL, name, message)


def function(title, why, source, verdict=PASS, given="", expected="3\n", error="") -> Case:
    """A file whose function `f` reads standard input and prints."""
    case = script(title, why, source, verdict, given, expected, error)
    return dataclasses.replace(case, mode=Mode.STDIN_FN, entry_point="f")
