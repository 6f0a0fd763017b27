"""`stepcoder data`: its reports, its exit codes, and what it refuses."""

import json
import re

import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.cli.usage import USAGE
from stepcoder_jax.commands import data
from stepcoder_jax.data.curation import report as curation_report
from stepcoder_jax.data.formats.rows import DataError
from stepcoder_jax.data.generated import tiers
from stepcoder_jax.data.problems import digest, read_any
from stepcoder_jax.records import Report, Verdict
from tests.data.test_apps_plus import STDIN_ROW
from tests.test_cli import has, refuse

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def make_row(name, factor, solution=None, **fields):
    number = NAMES[factor]
    source = solution or f"def f():\n    print({factor} * int(input()))\n"
    return {
        "id": name,
        "prompt": f"Read a number and print it times {number}, which is {number}. {name}",
        "canonical_solution": source,
        "inputs": ["2\n", "3\n"],
        "outputs": [f"{2 * factor}\n", f"{3 * factor}\n"],
        "starter_code": "def f():\n",
        "difficulty": "interview",
        **fields,
    }


GOOD = [make_row("a", 2), make_row("b", 3), make_row("c", 4)]
TRAIN = [
    *GOOD,
    make_row("wrong", 5, "def f():\n    print(input())\n"),
    make_row("broken", 6, "def f(:\n"),
    make_row("copy", 7, prompt="Read a number and print it times two, which is two, A."),
    make_row("twin", 5, prompt=make_row("wrong", 5)["prompt"]),
    make_row("any", 1, prompt="If there are more numbers than this one, print any."),
    make_row("seen", 8, prompt="w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 of a benchmark"),
]
BENCHMARK = [make_row("x", 9, prompt="w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 and more")]
WORKERS = ["--execution.workers", "2", "--execution.cpu_seconds", "2"]


@pytest.fixture
def files(tmp_path):
    """A folder with problem files; a function that writes another."""

    def write(name, rows):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(rows))
        return path

    write("train", TRAIN)
    write("test", [make_row("t", 7, prompt=f"{GOOD[1]['prompt']} ?")])
    write("benchmark", BENCHMARK)
    write("good", GOOD)
    return write


def run(*words):
    return main(["data", *map(str, words)])


@pytest.fixture
def checked(files, tmp_path, capsys):
    """The report on TRAIN, against a test split and a benchmark."""
    words = ["--test", tmp_path / "test.json", "--against", tmp_path / "benchmark.json"]
    assert run("check", tmp_path / "train.json", *words, *WORKERS) == 1
    capsys.readouterr()
    return json.loads((tmp_path / "train_check.json").read_text())


def test_a_report_counts_and_names(checked, tmp_path):
    reasons = {item["id"]: item["reason"] for item in checked["findings"]}
    assert reasons == {
        "wrong": "failing",
        "broken": "unparsable",
        "copy": "near_duplicate",
        "b": "near_duplicate",
        "any": "several_answers",
        "seen": "contaminated",
    }
    details = {item["id"]: item["detail"] for item in checked["findings"]}
    assert details["copy"].startswith("of train a, ")
    assert details["b"].startswith("of test t, ")
    assert details["seen"].startswith("benchmark.json x: w1 w2")
    train = checked["splits"]["train"]
    assert (train["problems"], train["dropped"], train["kept"]) == (9, 5, 4)
    assert train["sha256"] == digest(str(tmp_path / "train.json"))
    assert sum(train["reasons"].values()) == 6
    assert checked["splits"]["test"]["kept"] == 1
    (told,) = checked["benchmarks"]
    assert told["found"] == ["x"] and told["problems"] == 1


def test_a_page_says_the_same(checked, tmp_path):
    page = (tmp_path / "train_check.md").read_text()
    assert "9 problems, 0 bad rows, 5 dropped, **4 kept**" in page
    assert "| near_duplicate | yes | 2 | 0 |" in page
    assert "## failing (1)" in page and "- train `wrong`: wrong in test 0" in page
    assert "| benchmark.json | 1 | 1 | 0 (0.0 %) |" in page


def test_the_same_files_give_the_same_report(checked, tmp_path):
    before = (tmp_path / "train_check.json").read_bytes()
    words = ["--test", tmp_path / "test.json", "--against", tmp_path / "benchmark.json"]
    assert run("check", tmp_path / "train.json", *words, *WORKERS, "--force") == 1
    assert (tmp_path / "train_check.json").read_bytes() == before


def test_a_build_leaves_out_what_the_report_drops(checked, tmp_path, capsys):
    words = ["--train", tmp_path / "train.json", "--test", tmp_path / "test.json"]
    report = ["--report", tmp_path / "train_check.json"]
    assert run("build", tmp_path / "set", *words, *report) == 0
    said = capsys.readouterr().out
    assert "train: 4 problems, 5 left out" in said and "test: 1 problems, 0 left" in said
    folder = re.search(r"--data.path (\S+):train", said)[1]
    problems, _ = read_any(f"{folder}:train", strict=True)
    assert [problem.id for problem in problems] == ["a", "c", "twin", "any"]


def test_a_report_is_of_the_very_files(checked, files, tmp_path, capsys):
    files("train", GOOD)
    words = ["--train", tmp_path / "train.json", "--report", tmp_path / "train_check.json"]
    has(refuse(capsys, "data", "build", tmp_path / "set", *words), "--report", "train.json")
    assert not (tmp_path / "set").exists()
    words[-1] = tmp_path / "good.json"
    has(refuse(capsys, "data", "build", tmp_path / "set", *words), "--report", "good.json")
    with pytest.raises(DataError, match=r"is not of .*good.json as test"):
        curation_report.read_left_out(
            str(tmp_path / "train_check.json"), {"test": str(tmp_path / "good.json")}
        )


def test_exit_codes_of_check(files, tmp_path, capsys):
    assert run("check", tmp_path / "good.json", *WORKERS) == 0
    bad = files("bad", [*GOOD, STDIN_ROW | {"inputs": []}])
    assert run("check", bad, *WORKERS) == 2
    err = capsys.readouterr().err
    assert "bad.json: row 3: fields inputs and outputs" in err
    report = json.loads((tmp_path / "bad_check.json").read_text())
    assert len(report["splits"]["train"]["bad_rows"]) == 1
    has(refuse(capsys, "data", "check", bad, "--strict", "--force"), bad, "row 3")


def test_a_failure_of_the_judge_is_no_fault_of_a_problem(files, tmp_path, monkeypatch):
    def fail(splits, _):
        report = Report(Verdict.INFRA, (), frozenset())
        return {
            split: ([report] * len(p), [report] * len(p)) for split, p in splits.items()
        }

    monkeypatch.setattr(data, "run_twice", fail)
    assert run("check", tmp_path / "good.json") == 2
    report = json.loads((tmp_path / "good_check.json").read_text())
    assert report["splits"]["train"]["reasons"] == {"infra": 3}
    assert report["splits"]["train"]["kept"] == 3


def test_what_is_dropped_is_chosen(files, tmp_path):
    path = files("few", [GOOD[0], TRAIN[3]])
    assert run("check", path, "--drop", "flaky", "timeout", *WORKERS) == 0
    report = json.loads((tmp_path / "few_check.json").read_text())
    assert report["drop"] == ["timeout", "flaky"]
    assert [item["dropped"] for item in report["findings"]] == [False]


def test_a_report_overwrites_nothing(files, tmp_path, capsys):
    good = tmp_path / "good.json"
    (tmp_path / "mine.md").write_text("mine")
    line = refuse(capsys, "data", "check", good, "--out", tmp_path / "mine")
    has(line, "--out", "mine.md", "--force")
    assert (tmp_path / "mine.md").read_text() == "mine"
    before = good.read_bytes()
    line = refuse(capsys, "data", "check", good, "--out", tmp_path / "good", "--force")
    has(line, "--out", "good.json", "problem file")
    assert good.read_bytes() == before
    has(refuse(capsys, "data", "check", good, "--out", tmp_path / "no" / "x"), "no folder")


def test_bad_flags_and_files(files, tmp_path, capsys):
    good = tmp_path / "good.json"
    has(refuse(capsys, "data", "check", good, "--duplicate", "0"), "--duplicate", "0.0")
    has(refuse(capsys, "data", "check", good, "--drop", "x"), "--drop", "near_duplicate")
    has(refuse(capsys, "data", "check", good, "--test", "nowhere"), "nowhere")
    has(refuse(capsys, "data", "stats", tmp_path), tmp_path, "is a folder")
    has(refuse(capsys, "data", "stats", good, "--tokenizer", "no"), "--tokenizer: no")
    has(refuse(capsys, "data", "build", tmp_path / "set"), "--train FILE")
    has(refuse(capsys, "data"), "generate, stats, check, build")
    has(refuse(capsys, "data", "stat", good), "'stat'", "stepcoder data stats FILE")
    empty = files("empty", [{"inputs": []}])
    assert main(["data", "stats", str(empty)]) == 2
    assert "holds no usable problem (1 bad rows)" in capsys.readouterr().err


def test_generate_does_not_overwrite(capsys, tmp_path):
    path = tmp_path / "file.json"
    path.write_text("mine")
    has(refuse(capsys, "data", "generate", path), path, "exists")
    assert path.read_text() == "mine"
    line = refuse(capsys, "data", "generate", tmp_path / "no" / "file.json")
    has(line, tmp_path / "no", "folder")
    path.unlink()
    assert run("generate", path, "--split", "validation") == 0
    assert len(json.loads(path.read_text())) == 300


def test_generate_writes_visible_tests_where_the_tier_has_them(tmp_path):
    path = tmp_path / "file.jsonl"
    assert run("generate", path, "--tier", "dialect", "--split", "validation") == 0
    problems, complaints = read_any(str(path), strict=True)
    assert problems == tiers.load("dialect", "validation") and not complaints


def test_stats_as_a_table_and_as_json(files, tmp_path, capsys):
    train = tmp_path / "train.json"
    assert run("stats", train) == 0
    assert "no_curriculum" in capsys.readouterr().out
    words = ["--json", "--coverage", "--tokenizer", "builtin", *WORKERS]
    assert run("stats", train, *words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bad_rows"] == 0 and found["all"]["problems"] == 9
    assert found["all"]["coverage"] == {
        "solutions": 7,
        "mean": 1.0,
        "median": 1.0,
        "full": 1.0,
    }
    assert 5 < found["interview"]["solution_tokens"]["median"] < 40


@pytest.mark.parametrize("verb", ["generate", "stats", "check", "build"])
def test_help_has_the_flags_of_the_usage(capsys, verb):
    with pytest.raises(SystemExit) as stop:
        run(verb, "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    line = next(line for line in USAGE.splitlines() if f"stepcoder data {verb} " in line)
    for flag in re.findall(r"--[a-z][a-z_]*", line):
        assert flag in text, flag
