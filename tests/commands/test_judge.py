"""`stepcoder judge`: the table, the failing ids and the exit codes."""

import dataclasses
import io
import json

import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.commands.judge import JudgeOptions, judge, with_limits
from stepcoder_jax.data.formats.apps_plus import read_problems
from stepcoder_jax.execution import Pool, limits
from stepcoder_jax.records import Mode, Problem, Program, TestCase
from tests.data.kit import ECHO
from tests.execution.kit import INTERPRETERS, find_interpreter, make_settings, need_data


def make_problem(name, solution, difficulty="introductory"):
    tests = (TestCase((2,), 4), TestCase((3,), 6))
    return Problem(name, "", "", solution, "f", Mode.CALL, tests, difficulty)


GOOD = make_problem("good", "def f(x): return 2 * x\n")
WRONG = make_problem("wrong", "def f(x): return 4\n", "interview")
CRASH = make_problem("crash", "def f(x):\n    return x.y\n", "interview")
BROKEN = make_problem("broken", "def f(x:\n", "competition")


def run(*problems, complaints=()):
    out = io.StringIO()
    code = judge(problems, complaints, make_settings(), out)
    return code, out.getvalue()


def test_all_pass():
    code, text = run(GOOD, GOOD)
    assert code == 0
    assert [line.split() for line in text.splitlines()] == [
        ["difficulty", "pass", "all"],
        ["introductory", "2", "2"],
        ["all", "2", "2"],
    ]


def test_failures_are_counted_and_listed():
    code, text = run(GOOD, WRONG, CRASH, BROKEN)
    assert code == 1
    lines = text.splitlines()
    assert [line.split() for line in lines[:5]] == [
        ["difficulty", "pass", "wrong", "runtime", "compile", "all"],
        ["introductory", "1", "0", "0", "0", "1"],
        ["interview", "0", "1", "1", "0", "2"],
        ["competition", "0", "0", "0", "1", "1"],
        ["all", "1", "1", "1", "1", "4"],
    ]
    assert "wrong: wrong in test 1" in lines
    assert "crash: runtime in test 0: AttributeError at line 2" in lines
    assert any(line.startswith("broken: compile in test 0: SyntaxError") for line in lines)


def test_bad_rows_fail_the_command_even_when_the_rest_passes():
    code, text = run(GOOD, complaints=["file: row 3: bad"])
    assert code == 2 and "file: row 3: bad" in text and "1 rows were bad" in text
    assert run()[0] == 2


def test_the_command(tmp_path, capsys):
    path = tmp_path / "problems.json"
    path.write_text(json.dumps([ECHO]))
    arguments = ["judge", str(path), "--solutions", "canonical"]
    arguments += ["--execution.workers", "1"]
    assert main(arguments) == 0
    path.write_text(json.dumps([ECHO | {"outputs": ["b"]}]))
    assert main(arguments) == 1
    capsys.readouterr()
    assert main(["judge", str(tmp_path / "absent.json")]) == 2
    assert main([*arguments, "--execution.memory-mb", "1"]) == 2
    captured = capsys.readouterr().err.splitlines()
    assert len(captured) == 2 and "absent.json: cannot be read" in captured[0]
    assert "execution.memory_mb is 1" in captured[1]
    assert main([*arguments, "--no-such-option", "1"]) == 2
    assert "--no-such-option" in capsys.readouterr().err


def test_limits_are_measured_once_kept_and_used(tmp_path, capsys):
    path = tmp_path / "problems.json"
    text = json.dumps([ECHO, ECHO | {"id": "bad", "outputs": ["b"]}])
    path.write_text(text)
    measure = ["judge", str(path), "--write-limits", "--execution.workers", "1"]
    assert main(measure) == 1
    beside, digest = limits.side_file(path), limits.digest_file(path)
    said = capsys.readouterr().out
    assert f"{beside}: CPU limits of 1 problems" in said and "solution fails: bad" in said
    found = limits.read_limits(beside, digest)
    assert list(found.values()) == [1.0, None]
    # not again, but by --force; never beside samples or results
    assert main(measure) == 2 and "--force" in capsys.readouterr().err
    assert main([*measure, "--out", "x"]) == 2
    assert main([*measure, "--problems", str(path)]) == 2
    assert "--write-limits measures" in capsys.readouterr().err
    limits.write_limits(beside, digest, {"bad": 5.0})
    assert main([*measure, "--force"]) == 1
    assert limits.read_limits(beside, digest) == found
    # in use
    problems, _ = read_problems(str(path), strict=True)
    options = JudgeOptions(str(path))
    seconds = [p.cpu_seconds for p in with_limits(problems, str(path), options)]
    assert seconds == [1.0, None]
    timed = dataclasses.replace(options, timeout=9.0)
    assert with_limits(problems, str(path), timed) == problems
    capsys.readouterr()
    # of another version: said, not used, and kept when this one is measured
    path.write_text(text + " ")
    assert with_limits(problems, str(path), options) == problems
    assert "another version" in capsys.readouterr().err
    assert main(measure) == 1
    assert limits.read_limits(beside, digest) == found
    assert limits.read_limits(beside, limits.digest_file(path)) == found


def test_kept_limits_stop_programs_canonical_and_sampled(tmp_path, capsys):
    solution = "def f():\n    while True: pass"
    row = ECHO | {"canonical_solution": solution, "id": "endless"}
    path, samples = tmp_path / "problems.json", tmp_path / "samples.jsonl"
    path.write_text(json.dumps([row]))
    (problem,), _ = read_problems(str(path), strict=True)
    digest = limits.digest_file(path)
    limits.write_limits(limits.side_file(path), digest, {problem.id: 0.1})
    sample = {"task_id": problem.id, "solution": row["canonical_solution"]}
    samples.write_text(json.dumps(sample))
    common = ["--execution.workers", "1", "--execution.cpu-seconds", "6"]
    assert main(["judge", str(path), *common]) == 1
    assert main(["judge", str(samples), "--problems", str(path), *common]) == 0
    assert capsys.readouterr().out.count("timeout") >= 2
    (row,) = map(json.loads, (tmp_path / "samples_results.jsonl").read_text().splitlines())
    assert row["result"] == "timeout" and row["cpu_seconds"] < 5


@pytest.fixture(scope="module")
def genuine():
    problems, _ = read_problems(str(need_data("apps_plus/problems.json")), strict=True)
    return problems


def run_solutions(problems, python):
    settings = make_settings(python=python, tests="early_exit", cpu_seconds=6.0)
    with Pool(settings) as pool:
        return pool.run([Program(p, p.solution, 0, ()) for p in problems])


@pytest.fixture(scope="module")
def genuine_reports(genuine):
    return run_solutions(genuine, "")


def needs_third_party(report):
    return any(test.error == "ModuleNotFoundError" for test in report.tests)


def test_every_canonical_solution_passes(genuine, genuine_reports):
    failing = {
        problem.id: report
        for problem, report in zip(genuine, genuine_reports)
        if not report.passed and not needs_third_party(report)
    }
    assert not failing
    assert sum(report.passed for report in genuine_reports) >= 313  # 3 import numpy, scipy


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(x, marks=[pytest.mark.slow] * (x == "python3.13"))
        for x in INTERPRETERS[1:]
    ],
)
def test_every_interpreter_gives_the_same_statements(genuine, genuine_reports, name):
    reports = run_solutions(genuine, find_interpreter(name))
    compared = 0
    for problem, here, there in zip(genuine, genuine_reports, reports):
        if not needs_third_party(here) and not needs_third_party(there):
            assert here.executed == there.executed, problem.id
            compared += 1
    assert compared >= 313


def test_swapped_outputs_pass_nowhere(genuine):
    simple = [p for p in genuine if p.mode is Mode.STDIN_FN and len(p.tests) > 1][:30]
    swapped = [
        dataclasses.replace(
            problem,
            tests=tuple(
                TestCase(test.inputs, f"not {test.expected}") for test in problem.tests
            ),
        )
        for problem in simple
    ]
    assert not any(report.passed for report in run_solutions(swapped, ""))
