"""Programs in colour."""

import io
import re

import pytest

from stepcoder_jax.feedback import fgo
from stepcoder_jax.records import Mode, Problem, Program, Report, TestResult, Verdict
from stepcoder_jax.results import report

PROBLEM = Problem("p", "", "", "", None, Mode.STDIN_MAIN, (), "introductory")
HEAD = "def f(x):\n"
SOURCE = HEAD + "    if x:\n        return '日'\n    y = 1; return 2\n    return 3\n"
# f is called with a false x: the first return never runs, nor does the last one.
TOLD = Report(
    Verdict.WRONG,
    (TestResult(Verdict.PASS), TestResult(Verdict.WRONG)),
    frozenset({(1, 0), (2, 4), (4, 4), (4, 11)}),
)


def program(source=SOURCE, head=HEAD):
    return Program(PROBLEM, source, len(head.encode()), ())


def kept(source=SOURCE, told=TOLD):
    return fgo.byte_mask(source, told, True)


def test_colours_tell_given_executed_and_unexecuted_apart():
    text = report.colour(program(), kept(), ansi=True)
    lines = text.split("\n")
    assert lines[0] == f"{report.GIVEN}def f(x):{report.RESET}"
    assert lines[1] == f"    {report.RAN}if x:{report.RESET}"
    assert lines[2] == f"        {report.IDLE}return '日'{report.RESET}"
    assert report.IDLE not in lines[3]
    assert f"{report.IDLE}return 3" in lines[4]
    assert re.sub(r"\x1b\[[0-9;]*m", "", text) == SOURCE
    # No style is open at the end of a line.
    assert all(line.rfind("\x1b[") == line.rfind(report.RESET) for line in lines if line)


def test_marks_without_colour():
    source = SOURCE + "    z = 1; raise E\n\n"
    ran = Report(Verdict.RUNTIME, (), TOLD.executed | {(5, 4), (6, 4)})
    text = report.colour(program(source), kept(source, ran), ansi=False)
    assert text.split("\n")[:7] == [
        "| def f(x):",
        "+     if x:",
        "-         return '日'",
        "+     y = 1; return 2",
        "+     return 3",
        "~     z = 1; raise E",
        "",
    ]
    assert "\x1b" not in text


@pytest.mark.parametrize("ansi", [True, False])
def test_a_program_cannot_drive_the_terminal(ansi):
    source = HEAD + "    '\x1b]0;owned\x07\r\x9b'\n"
    text = report.colour(program(source), kept(source, TOLD), ansi)
    assert "\x1b]" not in text and not set(text) & set("\x07\r\x9b")
    assert "␛]0;owned␇" in text


def test_show_has_verdict_reward_and_legend():
    text = report.show(program(), TOLD, kept(), -0.3, ansi=False)
    assert "verdict: wrong   tests: 1/2   reward: -0.30" in text
    assert text.endswith(report.PLAIN_LEGEND)
    assert report.show(program(), TOLD, kept(), -0.3, ansi=True).endswith(report.LEGEND)
    broken = Report(
        Verdict.COMPILE, (), frozenset(), "SyntaxError: invalid syntax (line 2)"
    )
    assert "compile (SyntaxError: invalid syntax (line 2))" in report.verdict_line(
        broken, -1
    )
    crash = Report(
        Verdict.RUNTIME, (TestResult(Verdict.RUNTIME, error="KeyError"),), frozenset()
    )
    assert "runtime, KeyError" in report.verdict_line(crash, -0.6)


def test_colour_needs_a_terminal_and_no_no_color(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert report.wants_colour(Terminal()) and not report.wants_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not report.wants_colour(Terminal())
