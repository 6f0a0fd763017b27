"""Progress: a bar on a terminal; without one a line per step, and few lines of a count."""

import io
import re
import sys

from stepcoder_jax import progress
from stepcoder_jax.progress import CountProgress, StepProgress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_each_step_is_a_line(capsys):
    with StepProgress(45, "iteration", first=3) as steps:
        steps.update("reward=+0.31")
        steps.write("a warning")
        steps.update("reward=+0.40")
    assert capsys.readouterr().err == (
        "iteration 4/45  reward=+0.31\na warning\niteration 5/45  reward=+0.40\n"
    )


def test_steps_without_a_known_end_are_counted_all_the_same(capsys):
    with StepProgress(0, "iteration", first=3) as steps:
        steps.update("tokens=12k/700k")
    assert capsys.readouterr().err == "iteration 4  tokens=12k/700k\n"


def test_without_a_terminal_a_count_is_a_few_lines(capsys, monkeypatch):
    clock = iter(range(0, 1000, 11))  # each look at it is 11 seconds later
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    with CountProgress(1000, "program", "first run") as count:
        for _ in range(1000):
            count.update()
    lines = capsys.readouterr().err.splitlines()
    assert 1 < len(lines) <= 10
    assert lines[-1].startswith("first run: 1000/1000 programs, ")
    monkeypatch.undo()
    with CountProgress(7, "program") as count:
        for _ in range(7):
            count.update()
    assert re.fullmatch(r"7/7 programs, \d+ s\n", capsys.readouterr().err)


def test_a_quiet_count_says_nothing(capsys):
    with CountProgress(1, "program", is_quiet=True) as count:
        count.update()
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with StepProgress(2, "iteration") as steps, CountProgress(1, "program", "x") as count:
        count.update()
        steps.update("reward=+0.31")
    text = screen.getvalue()
    assert "\r" in text and "reward=+0.31" in text and "| 1/2 [" in text
    assert "iteration 1/2  " not in text
