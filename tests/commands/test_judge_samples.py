"""`stepcoder judge SAMPLES --problems FILE`: what a sample is, what is written and said."""

import gzip
import json
import signal
import subprocess
import sys
import time

import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.commands import judge_samples
from stepcoder_jax.data.formats import samples
from stepcoder_jax.data.formats.rows import DataError, Row
from stepcoder_jax.execution import Pool
from stepcoder_jax.records import (
    Mode,
    Problem,
    Program,
    Report,
    TestCase,
    TestResult,
    Verdict,
)
from tests.data.test_humaneval import ROW as HUMANEVAL
from tests.execution.kit import need_data

DOUBLE = {
    "id": "double",
    "prompt": "p",
    "canonical_solution": "def f(x):\n    return 2 * x\n",
    "inputs": [[2], [3]],
    "outputs": [4, 6],
    "starter_code": "def f(x):",
    "difficulty": "interview",
}
ECHO = DOUBLE | {
    "prompt": "q",
    "canonical_solution": "def g():\n    print(input())\n",
    "inputs": ["a\n"],
    "outputs": ["a\n"],
    "starter_code": "def g():",
    "difficulty": "competition",
    "id": 7,
}
GOOD = {"task_id": "double", "completion": "    return 2 * x\n", "model": "m"}
WRONG = {"task_id": "double", "solution": "def f(x): return 4\n"}
CRASH = {"task_id": 7, "solution": "def g():\n    return 1 / 0\n"}
BROKEN = {"task_id": "7", "completion": "print(\n"}
OWN = ("passed", "result", "weak", "unfaithful", "tests", "error", "line", "cpu_seconds")
COUNTED = ("difficulty", "bug")


@pytest.fixture
def judge(tmp_path, capsys):
    """Judge samples, or a file's bytes; returns the code, lines said and standard error."""

    def judge(rows, *flags, problems=(DOUBLE, ECHO), name="samples.jsonl"):
        path = tmp_path / name
        data = (
            rows if isinstance(rows, bytes) else "\n".join(map(json.dumps, rows)).encode()
        )
        path.write_bytes(data)
        (tmp_path / "problems.json").write_text(json.dumps(problems))
        command = ["judge", str(path), "--problems", str(tmp_path / "problems.json")]
        capsys.readouterr()
        code = main([*command, "--jobs", "2", "--timeout", "2", *map(str, flags)])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err

    return judge


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_sample_has_a_row_in_its_place(judge, tmp_path):
    code, lines, _ = judge([GOOD, WRONG, CRASH, BROKEN, GOOD])
    rows = read(tmp_path / "samples_results.jsonl")
    for row, sample in zip(rows, [GOOD, WRONG, CRASH, BROKEN, GOOD], strict=True):
        assert {name: row[name] for name in row if name not in OWN + COUNTED} == sample
        assert row["cpu_seconds"] > 0 and row["weak"] is False
    own = [[row[name] for name in OWN[:-1]] for row in rows]
    good = [True, "pass", False, False, ["pass", "pass"], "", None]
    assert own[0] == own[4] == good
    assert own[1] == [False, "wrong", False, False, ["pass", "wrong"], "", None]
    assert own[2] == [False, "runtime", False, False, ["runtime"], "ZeroDivisionError", 2]
    assert own[3][:5] == [False, "compile", False, False, ["compile"]]
    assert own[3][5].startswith("IndentationError: ") and own[3][6] == 2
    assert code == 0
    assert [line.split() for line in lines[:4]] == [
        ["difficulty", "pass", "wrong", "runtime", "compile", "all"],
        ["interview", "2", "1", "0", "0", "3"],
        ["competition", "0", "0", "1", "1", "2"],
        ["all", "2", "1", "1", "1", "5"],
    ]
    counted = [[row[name] for name in COUNTED] for row in rows]
    assert counted[0] == counted[4] == ["interview", None]
    assert counted[1] == ["interview", "C unknown"]
    assert counted[2] == ["competition", "B.3 incorrect boundary condition check"]
    assert counted[3] == ["competition", "A.2 incorrect indentation"]
    # (2/3 + 0/2) / 2; half of the resamples have one problem twice
    assert lines[4] == "pass@1: 33.3 % [0.0, 66.7] (2 problems, 5 samples)"
    assert lines[5].split("|")[3].strip() == "pass@1, % [95 %]"
    assert [line.split("|")[1].strip() for line in lines[7:10]] == [
        "interview",
        "competition",
        "all",
    ]
    assert lines[10] == f"results: {tmp_path / 'samples_results.jsonl'}"
    assert len(lines) == 11


def test_what_was_printed_is_asked_for_the_kind_of_bug(judge, tmp_path):
    loud = {"task_id": 7, "solution": "def g():\n    print(input().upper())\n"}
    judge([loud])
    (row,) = read(tmp_path / "samples_results.jsonl")
    assert row["bug"] == "C.3 input or output format error"


def test_several_samples_give_several_pass_at_k(judge, tmp_path):
    rows = [GOOD, WRONG, WRONG, CRASH, CRASH, BROKEN]
    _, said, _ = judge(rows, "--k", 3, 2)
    assert said[4].startswith("pass@2: 33.3 % [") and said[5].startswith("pass@3: 50.0 % [")
    assert not any(line.startswith("pass@1") for line in said)
    code, said, error = judge(rows[:-1], "--force", "--k", "3")
    assert (code, said) == (2, [])
    assert "pass@3 needs 3 samples of each problem, 7 has 2" in error
    assert len(read(tmp_path / "samples_results.jsonl")) == 6  # nothing has run


def test_gzip_out_and_problems_without_samples(judge, tmp_path):
    data = gzip.compress(json.dumps(GOOD).encode())
    code, lines, _ = judge(data, "--out", tmp_path / "mine", name="s.jsonl.gz")
    assert code == 0 and len(read(tmp_path / "mine")) == 1
    assert "pass@1: 100.0 % (1 problems, 1 samples)" in lines
    assert "1 of 2 problems have no sample" in lines
    judge(data, name="s.jsonl.gz")
    assert len(read(tmp_path / "s_results.jsonl")) == 1


def test_a_solution_goes_before_a_completion_and_fences_stay(judge, tmp_path):
    fenced = {"task_id": "double", "solution": f"```python\n{WRONG['solution']}```\n"}
    judge([GOOD | {"solution": "def f(x): return 0"}, fenced])
    results = [row["result"] for row in read(tmp_path / "samples_results.jsonl")]
    assert results == ["wrong", "compile"]


@pytest.mark.parametrize("text", ["\ud800", "\0", "", "x = '" + "é" * 70_000 + "'\n"])
def test_odd_texts_are_judged_like_others(judge, tmp_path, text):
    judge([{"task_id": "double", "solution": text}, GOOD])
    first, second = read(tmp_path / "samples_results.jsonl")
    assert first["solution"] == text and second["passed"]
    assert first["result"] in ("compile", "runtime")


BAD_LINES = [
    (b'{"task_id"', "not valid JSON, perhaps truncated"),
    (b"[1]", "expected an object, got list [1]"),
    (b"{}", "field task_id: expected a problem's id, but it is missing"),
    (
        b'{"task_id": "x", "solution": ""}',
        "field task_id: expected the id of a problem, as",
    ),
    (b'{"task_id": null, "solution": ""}', "field task_id: expected the id of a problem"),
    (b'{"task_id": 7}', "fields completion and solution: expected one, both are missing"),
    (b'{"task_id": 7, "completion": 3}', "field completion: expected str, got int 3"),
    (b'{"task_id": 7, "solution": null}', "field solution: expected str, got NoneType"),
]


def test_bad_samples_are_named_and_counted(judge, tmp_path):
    lines = [line for line, _ in BAD_LINES]
    data = b"\n".join([*lines, json.dumps(GOOD).encode()])
    code, said, _ = judge(data)
    path = tmp_path / "samples.jsonl"
    for number, (_, words) in enumerate(BAD_LINES, start=1):
        assert said[number - 1].startswith(f"{path}: line {number}: {words}")
    assert code == 2 and len(read(tmp_path / "samples_results.jsonl")) == 1
    assert said[-1] == f"8 rows of {path} were bad and were not judged"
    assert "pass@1: 100.0 % (1 problems, 1 samples)" in said


@pytest.mark.parametrize("line", [line for line, _ in BAD_LINES])
def test_strict_stops_before_anything_runs(judge, tmp_path, line):
    data = json.dumps(GOOD).encode() + b"\n" + line
    code, said, error = judge(data, "--strict")
    assert (code, said, error.count("\n")) == (2, [], 1)
    assert f"{tmp_path / 'samples.jsonl'}: line 2: " in error
    assert not (tmp_path / "samples_results.jsonl").exists()


def test_bad_problems_are_named_and_counted(judge, tmp_path):
    problems = [DOUBLE, DOUBLE, ECHO | {"inputs": []}]
    code, said, _ = judge([GOOD], problems=problems)
    path = tmp_path / "problems.json"
    assert said[0].startswith(f"{path}: row 1: the id 'double' is that of a row before it")
    assert said[1].startswith(f"{path}: row 2: fields inputs and outputs")
    assert said[-1] == f"2 rows of {path} were bad and were left out" and code == 2
    code, said, error = judge([GOOD], "--strict", "--force", problems=problems)
    assert (code, said) == (2, []) and f"{path}: row 1: the id 'double'" in error


def test_nothing_is_overwritten(judge, tmp_path):
    path = tmp_path / "samples_results.jsonl"
    path.write_text("mine")
    code, said, error = judge([GOOD])
    assert (code, said) == (2, []) and f"{path} exists" in error and "--force" in error
    assert judge([BROKEN | {"task_id": "none"}], "--force")[0] == 2
    assert path.read_text() == "mine"  # there was no sample to judge
    for name in ("samples.jsonl", "problems.json"):
        code, said, error = judge([GOOD], "--force", "--out", tmp_path / name)
        assert (code, said) == (2, []) and "give another name" in error
    assert judge([GOOD], "--force")[0] == 0 and len(read(path)) == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--out", "{}/no/such"], ["--out: ", "cannot be written"]),
        (["--jobs", "-1"], ["execution.workers is -1"]),
        (["--timeout", "0"], ["execution.cpu_seconds is 0"]),
        (["--min-level", "4"], ["execution.min_level is", "4"]),
        (["--problems", "{}/absent"], ["absent: cannot be read", "HumanEval"]),
    ],
)
def test_flags_that_cannot_work(judge, tmp_path, flags, words):
    code, said, error = judge([GOOD], *(flag.format(tmp_path) for flag in flags))
    assert (code, said, error.count("\n")) == (2, [], 1)
    assert all(word in error for word in words), error


def test_flags_of_results_want_problems(tmp_path, capsys):
    assert main(["judge", str(tmp_path / "x"), "--out", "y"]) == 2
    assert main(["judge", str(tmp_path / "x"), "--force"]) == 2
    assert main(["judge", str(tmp_path / "x"), "--k", "2"]) == 2
    assert main(["judge", str(tmp_path), "--problems", "y"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert ["--problems" in line for line in lines[:3]] == [True] * 3
    assert f"{tmp_path} is no file" in lines[3]


def test_the_timeout_is_that_of_a_test(judge, tmp_path):
    slow = {"task_id": "double", "completion": "    while True: pass\n"}
    judge([slow], "--timeout", "0.2")
    (row,) = read(tmp_path / "samples_results.jsonl")
    assert row["result"] == "timeout" and row["tests"] == ["timeout", "not_run"]
    assert 0.2 <= row["cpu_seconds"] < 1.5


def test_task_ids():
    names = ("HumanEval/0", "Mbpp/2", "7")
    problems = {
        name: Problem(name, "", "", "", "f", Mode.CALL, (TestCase((), 1),), "")
        for name in names
    }
    for given in ("Mbpp/2", "MBPP/2", "mbpp/2", "2", 2):
        assert samples.find_problem({"task_id": given}, problems).id == "Mbpp/2"
    for given in (7, "7", "HumanEval/0"):
        assert samples.find_problem({"task_id": given}, problems).id == str(given)
    for given in ("0", "Mbpp/3", "humaneval/0", ["2"], 2.5):
        with pytest.raises(DataError, match="as 'HumanEval/0' is"):
            samples.find_problem({"task_id": given}, problems)


def test_programs_of_samples():
    problem = Problem("a", "", "é = 1\n", "", "f", Mode.CALL, (TestCase((), 1),), "")
    row = Row("line 1", 0, {"task_id": "a", "completion": "b"})
    assert samples.read_sample(row, {"a": problem}).program == Program(
        problem, "é = 1\nb", len("é = 1\n".encode()), ()
    )
    row = Row("line 1", 0, {"task_id": "a", "solution": "b"})
    assert samples.read_sample(row, {"a": problem}).program == Program(problem, "b", 0, ())


def make_report(verdict):
    return Report(verdict, (TestResult(verdict),), frozenset(), "why")


MBPP = {
    "text": "t",
    "test_setup_code": "",
    "code": "class A: pass\ndef f(x): return 1\n",
}
APART = MBPP | {"task_id": 1, "test_list": ["assert f(0) == 1", "assert f(1) == 1"]}
WEAK = MBPP | {"task_id": 2, "test_list": ["assert f(A()) == 1"]}


def test_assertions_and_weak_ones_are_counted_apart(judge, tmp_path):
    right, wrong = {"solution": MBPP["code"]}, {"completion": "def f(x): return x\n"}
    rows = [{"task_id": 1} | right, {"task_id": "MBPP/1"} | wrong, {"task_id": 2} | right]
    code, said, _ = judge(rows, problems=[APART, WEAK])
    results = read(tmp_path / "samples_results.jsonl")
    assert [(row["result"], row["weak"]) for row in results] == [
        ("pass", False),
        ("wrong", False),
        ("pass", True),
    ]
    assert (results[1]["error"], results[1]["tests"]) == (
        "AssertionError",
        ["wrong", "not_run"],
    )
    assert code == 0 and said[3] == "pass@1: 50.0 % (1 problems, 2 samples)"
    assert said[4].startswith("weak: ")
    assert said[8] == "pass@1: 100.0 % (1 problems, 1 samples)"


def test_an_unfaithful_failure_is_marked_and_told(judge, tmp_path):
    source = "class A:\n    x = 1\ndef f(x): return A()\n"
    problem = MBPP | {"task_id": 1, "test_list": ["assert f(0).x == 1"]}
    rows = [{"task_id": 1, "solution": source}, {"task_id": 1, "solution": MBPP["code"]}]
    code, said, _ = judge(rows, problems=[problem])
    results = read(tmp_path / "samples_results.jsonl")
    assert [(row["result"], row["unfaithful"]) for row in results] == [
        ("wrong", True),
        ("wrong", False),
    ]
    assert results[0]["error"] == (
        "unfaithful: the test uses what the judge cannot carry: attribute 'x' of a A"
    )
    assert code == 0 and any(line.startswith("1 failed as unfaithful") for line in said)


def test_humaneval_completions_continue_the_prompt(judge, tmp_path):
    rows = [
        {"task_id": HUMANEVAL["task_id"], "completion": HUMANEVAL["canonical_solution"]},
        {"task_id": HUMANEVAL["task_id"], "completion": "    return x\n"},
    ]
    judge(rows, problems=[HUMANEVAL])
    results = read(tmp_path / "samples_results.jsonl")
    assert [row["result"] for row in results] == ["pass", "wrong"]


def test_while_our_own_failures_remain_there_is_no_pass_rate(judge, tmp_path, monkeypatch):
    """They cannot be had at will: the pool's reports are replaced on their way."""

    def stream(pool, programs):
        yield 0, make_report(Verdict.PASS)
        yield 1, make_report(Verdict.INFRA)

    monkeypatch.setattr(Pool, "stream", stream)
    code, said, _ = judge([GOOD, GOOD])
    assert code == 2 and "pass@k: none, for 1 samples were not judged (infra)" in said[3]
    second = read(tmp_path / "samples_results.jsonl")[1]
    assert (second["result"], second["error"]) == ("infra", "why")


def test_windows_follow_each_other(judge, tmp_path, monkeypatch):
    monkeypatch.setattr(judge_samples, "_WINDOW", 3)
    rows = [(GOOD if i % 3 else WRONG) | {"number": i} for i in range(8)]
    assert judge(rows)[0] == 0
    got = [
        (row["number"], row["passed"]) for row in read(tmp_path / "samples_results.jsonl")
    ]
    assert got == [(i, i % 3 > 0) for i in range(8)]


def test_what_ended_is_kept_in_order_when_stopped():
    problem = Problem("a", "", "", "", "f", Mode.CALL, (TestCase((), 1),), "")
    window = [samples.Sample({"n": n}, Program(problem, "", 0, ())) for n in range(5)]

    class Stopped:
        def stream(self, programs):
            for number in (1, 0, 4, 3):
                yield number, make_report(Verdict.PASS)
            raise KeyboardInterrupt

    kept = []
    with pytest.raises(KeyboardInterrupt):
        judge_samples.judge_window(
            Stopped(), window, lambda sample, _: kept.append(sample.fields["n"])
        )
    assert kept == [0, 1, 3, 4]


def test_ctrl_c_keeps_what_was_judged(tmp_path):
    slow = {"task_id": "double", "completion": "    while True: pass\n"}
    rows = [GOOD] * 5 + [slow] * 20
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "problems.json").write_text(json.dumps([DOUBLE]))
    command = [sys.executable, "-m", "stepcoder_jax", "judge", "samples.jsonl"]
    command += ["--problems", "problems.json", "--jobs", "1", "--timeout", "30"]
    results = tmp_path / "samples_results.jsonl"
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while not results.exists() or len(read(results)) < 5:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            said, error = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130, error
    assert said == "stopped: 5 of 25 samples are judged, in samples_results.jsonl\n"
    assert [row["passed"] for row in read(results)] == [True] * 5


def test_canonical_solutions_as_samples(tmp_path, capsys):
    path = need_data("apps_plus/problems.json")
    given, rows = json.loads(path.read_text())[:12], []
    for number, row in enumerate(given):
        name = row.get("id", f"apps_plus/{number}")
        rows.append({"task_id": name, "solution": row["canonical_solution"]})
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["judge", str(tmp_path / "s.jsonl"), "--problems", str(path)]) == 0
    assert "pass@1: 100.0 % (12 problems, 12 samples)" in capsys.readouterr().out


def test_a_problems_own_fields_stand_in_its_rows(judge, tmp_path):
    problem = {
        "id": "mine",
        "statement": "s",
        "mode": "stdin_main",
        "tests": [{"inputs": "", "expected": "1"}],
        "source": "a book",
    }
    sample = {"task_id": "mine", "solution": "print(1)", "metadata": "the sample's"}
    code, _, _ = judge([sample], problems=[problem])
    (row,) = read(tmp_path / "samples_results.jsonl")
    assert (code, row["passed"], row["metadata"]) == (0, True, "the sample's")
    assert row["problem_metadata"] == {"source": "a book"}
