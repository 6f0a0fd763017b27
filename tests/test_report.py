"""Programs in colour and the picture of a run."""

import io
import json
import re

import numpy as np
import pytest

from stepcoder_jax import fgo, report
from stepcoder_jax.records import Mode, Problem, Program, Report, TestResult, Verdict

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


def test_find_series_follows_patterns_and_skips_gaps():
    rows = [
        {"step": 0, "fgo/masked": 0.1, "fgo/masked_pass": 0.0, "kl": None},
        {"step": 1, "fgo/masked": 0.2, "kl": 0.5, "name": "text"},
    ]
    found = report.find_series(rows, ("kl", "fgo/masked*", "name"))
    assert list(found) == ["kl", "fgo/masked", "fgo/masked_pass"]
    assert [array.tolist() for array in found["kl"]] == [[1.0], [0.5]]
    assert [array.tolist() for array in found["fgo/masked"]] == [[0, 1], [0.1, 0.2]]


def test_smooth_is_a_centred_mean():
    values = np.array([0.0, 3.0, 6.0, 0.0])
    np.testing.assert_allclose(report.smooth(values, 3), [1.5, 3.0, 3.0, 3.0])
    np.testing.assert_allclose(report.smooth(np.full(30, 0.4), 7), 0.4)
    np.testing.assert_allclose(report.smooth(values, 1), values)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_curves_draw_what_is_there(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [
        {
            "step": step,
            "pass_rate": step / 40,
            "reward": -0.3,
            "seconds/sample": 1.0,
            "seconds/update": 2.0,
            **({"validation/pass@1": 0.3} if step % 10 == 0 else {}),
        }
        for step in range(40)
    ]
    write_rows(tmp_path / "metrics.jsonl", rows)
    out = report.curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png", "a run")
    data = out.read_bytes()
    assert data.startswith(b"\x89PNG") and len(data) > 10_000
    small = report.curves(
        tmp_path / "metrics.jsonl", tmp_path / "one.png", "one", {"Reward": ("reward",)}
    )
    assert int.from_bytes(small.read_bytes()[16:20]) < int.from_bytes(data[16:20])


def test_curves_of_one_iteration_and_of_none(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "metrics.jsonl"
    write_rows(path, [{"step": 0, "pass_rate": 0.5, "seconds/sample": 1.0}])
    assert report.curves(path, tmp_path / "a.png", "short").exists()
    write_rows(path, [{"step": 0}])
    with pytest.raises(ValueError, match=r"metrics.jsonl: no metric to draw in its 1 rows"):
        report.curves(path, tmp_path / "b.png", "empty")
