"""`stepcoder compare`: pairing, tables, files, and what is refused."""

import json
import math

import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.results import outcomes
from stepcoder_jax.results.estimates import mcnemar, paired_difference


def rows_of(passed, difficulty="easy", **fields):
    """Task -> whether each of its samples passed; as the rows that judge writes."""
    return [
        {
            "task_id": task,
            "passed": bool(passes),
            "result": "pass" if passes else "wrong",
            "difficulty": difficulty,
            "weak": False,
        }
        | fields
        for task, samples in passed.items()
        for passes in samples
    ]


@pytest.fixture
def compare(tmp_path, capsys):
    """Compare lists of rows, or bytes; the code, what was said, and standard error."""

    def compare(*sides, flags=()):
        names = []
        for name, side in zip("abc", sides):
            path = tmp_path / name
            lines = "\n".join(map(json.dumps, side)) if isinstance(side, list) else side
            path.write_text(lines)
            names.append(str(path))
        capsys.readouterr()
        code = main(["compare", *names, *map(str, flags)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return compare


def cells(text):
    """The rows of all tables, cells stripped, heads and rules left out."""
    lines = [line for line in text.splitlines() if line.startswith("| pass")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


A = {f"t{i}": [i < 4] for i in range(10)}
B = {f"t{i}": [i > 0] for i in range(10)}  # six gained, t0 lost


def test_single_samples(compare, tmp_path):
    turned = rows_of(B)[::-1]  # pairs are of the same problem, whatever the order
    code, text, _ = compare(rows_of(A), turned, flags=["--out", tmp_path / "t"])
    assert code == 0
    found = paired_difference(*([float(x[f"t{i}"][0]) for i in range(10)] for x in (A, B)))
    ((name, problems, before, after, change, p, exact),) = cells(text)
    assert (name, problems, before, after) == ("pass@1, all", "10", "40.0", "90.0")
    assert change == f"+50.0 [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    assert p == f"{found.p:.4f}" and exact == f"{mcnemar(6, 1):.4f}" == "0.1250"
    assert (tmp_path / "t.md").read_text() in text
    tree = json.loads((tmp_path / "t.json").read_text())
    (row,) = tree["comparisons"][0]["rows"]
    assert tree["baseline"] == str(tmp_path / "a") and tree["resamples"] == 10_000
    assert row == {
        "difficulty": "all",
        "problems": 10,
        "k": 1,
        "before": 0.4,
        "after": 0.9,
        "mcnemar": 0.125,
        "change": pytest.approx(0.5),
        "low": found.low,
        "high": found.high,
        "p": found.p,
    }


def test_several_samples_difficulties_and_files(compare):
    old = rows_of({"a": [1, 0], "b": [0, 0]}) + rows_of({"c": [0, 0]}, "hard")
    new = rows_of({"a": [1, 1], "b": [0, 1]}) + rows_of({"c": [0, 0, 1]}, "other word")
    _, text, _ = compare(old, new, old, flags=["--k", 2, 1])
    rows = cells(text)
    assert [row[0] for row in rows[:6]] == [
        f"pass@{k}, {name}" for name in ("easy", "hard", "all") for k in (1, 2)
    ]
    assert [row[2:4] for row in rows[:6]] == [
        ["25.0", "75.0"],
        ["50.0", "100.0"],
        ["0.0", "33.3"],
        ["0.0", "66.7"],
        ["16.7", "61.1"],
        ["33.3", "88.9"],
    ]
    assert all(row[-1] == "-" for row in rows)  # no single samples: no exact test
    # hard has one problem: no interval and no p; easy's two changed by the same
    assert rows[2][4:6] == ["+33.3 [-]", "-"] and rows[0][4:6] == ["+50.0 [-]", "-"]
    # the third is the first again
    assert all(row[4:6] == ["+0.0 [-]", "1.0000"] for row in rows[6:])


def test_single_and_several_samples(compare):
    """No exact test, and no k beyond the side that has fewer."""
    one, two = rows_of({"a": [1], "b": [0]}), rows_of({"a": [1, 1], "b": [1, 0]})
    for sides in ((one, two), (two, one)):
        assert cells(compare(*sides)[1])[0][-1] == "-"
        assert "a has 1" in compare(*sides, flags=["--k", 2])[2]


def test_other_problems_are_named(compare):
    old, new = rows_of({"a": [1], "b": [0]}), rows_of({f"x{i}": [1] for i in range(5)})
    code, text, error = compare(old, [*new, old[0]])
    assert (code, text, error.count("\n")) == (2, "", 1)
    assert "1 only in " in error and "(b)" in error
    assert "5 only in " in error and "(x0, x1, x2, ...)" in error and "--common" in error
    code, text, _ = compare(old, [*new, old[0]], flags=["--common"])
    assert code == 0 and cells(text)[0][:4] == ["pass@1, all", "1", "100.0", "100.0"]
    code, _, error = compare(old, new, flags=["--common"])
    assert code == 2 and "no problem is in all" in error


def test_weak_problems_are_left_out(compare):
    weak = rows_of({"w": [1]}, weak=True)
    code, text, _ = compare([*rows_of(A), *weak], rows_of(B))
    assert code == 0 and cells(text)[0][1] == "10"


def test_rows_of_another_grader_will_do(compare):
    foreign = [{"task_id": f"t{i}", "completion": "", "passed": i > 0} for i in range(10)]
    foreign[0]["result"] = "failed: "
    _, text, _ = compare(foreign, rows_of(A))
    assert cells(text)[0][2:4] == ["90.0", "40.0"]


INFRA = {"task_id": "t3", "passed": False, "result": "infra"}
BAD = [
    (json.dumps(INFRA), ["1 samples were not judged (infra)", "t3"]),
    ("", ["has no rows"]),
    ('{"task_id": "a"', ["line 1: not valid JSON"]),
    ('{"passed": true}', ["line 1: field task_id"]),
    ('{"task_id": "a"}', ["line 1: field passed: expected bool, but it is missing"]),
    ('{"task_id": "a", "passed": 1}', ["field passed: expected bool, got int 1"]),
    ('{"task_id": "a", "passed": true, "result": "wrong"}', ["passed and result"]),
    ('[["a", "easy", "well"]]', ["line 1: expected [id, difficulty, verdict]"]),
    ('[["a", "pass"]]', ["line 1: expected [id, difficulty, verdict]"]),
    ("3", ["line 1: expected an object, got int 3"]),
]


@pytest.mark.parametrize(("data", "words"), BAD)
def test_bad_files_are_named(compare, tmp_path, data, words):
    code, text, error = compare(rows_of(A), data)
    assert (code, text, error.count("\n")) == (2, "", 1)
    assert all(word in error for word in [str(tmp_path / "b"), *words]), error


def test_what_else_is_refused(compare, tmp_path):
    assert "two or more" in compare(rows_of(A))[2]
    assert "pass@2 needs 2 samples" in compare(rows_of(A), rows_of(B), flags=["--k", 2])[2]
    assert "--seed" in compare(rows_of(A), rows_of(B), flags=["--seed", "-1"])[2]
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "a")]) == 2
    (tmp_path / "t.json").write_text("mine")
    flags = ["--out", tmp_path / "t"]
    code, text, error = compare(rows_of(A), rows_of(B), flags=flags)
    assert (code, text) == (2, "") and "t.json exists" in error
    assert (tmp_path / "t.json").read_text() == "mine"
    assert not (tmp_path / "t.md").exists()
    assert compare(rows_of(A), rows_of(B), flags=[*flags, "--force"])[0] == 0
    flags = ["--out", tmp_path / "no" / "t"]
    assert "cannot be written" in compare(rows_of(A), rows_of(B), flags=flags)[2]


def test_a_folder_is_that_of_evaluate(tmp_path, capsys):
    for name, passed in (("x", A), ("y", B)):
        (tmp_path / name).mkdir()
        text = "\n".join(map(json.dumps, rows_of(passed)))
        (tmp_path / name / "results.jsonl").write_text(text)
    assert main(["compare", str(tmp_path / "x"), str(tmp_path / "y")]) == 0
    assert cells(capsys.readouterr().out)[0][2:4] == ["40.0", "90.0"]


def test_runs_have_their_greedy_verdicts(tmp_path, compare, capsys):
    before = [
        [task, "easy", "pass" if passed else "wrong"] for task, (passed,) in A.items()
    ]
    after = [
        [task, "easy", "pass" if passed else "compile"] for task, (passed,) in B.items()
    ]
    (tmp_path / "before.json").write_text(json.dumps(before))
    (tmp_path / "after.json").write_text(json.dumps(after))
    assert main(["compare", str(tmp_path / "before.json"), str(tmp_path)]) == 0
    runs = cells(capsys.readouterr().out)
    _, text, _ = compare(rows_of(A), rows_of(B))
    assert runs == cells(text)


def test_numbers_that_cannot_be_told_are_null():
    assert outcomes.finite(math.nan) is None and outcomes.finite(0.5) == 0.5


@pytest.fixture
def folder(tmp_path):
    """Results as `stepcoder evaluate --out` leaves them."""

    def folder(name, passed, **about):
        path = tmp_path / name
        path.mkdir(parents=True)
        rows = "\n".join(map(json.dumps, rows_of(passed)))
        (path / "results.jsonl").write_text(rows)
        known = {"sampling": {"temperature": 0.0}, "max_completion_length": 96}
        (path / "results.json").write_text(json.dumps(known | about))
        return str(path)

    return folder


def refuse(capsys, *argv):
    assert main(["compare", *argv]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_columns_are_named_after_what_was_given(folder, capsys):
    one, two = folder("ppo/results", A), folder("grpo/results", B)
    assert main(["compare", one, two]) == 0
    head = next(line for line in capsys.readouterr().out.splitlines() if "change" in line)
    assert "| ppo/results | grpo/results |" in head
    assert main(["compare", one, folder("sft", B)]) == 0
    assert "| results | sft |" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"sampling": {"temperature": 0.8}}, "sampling.temperature is 0.0 in"),
        ({"max_completion_length": 512}, "max_completion_length is 96 in"),
        ({"problems_sha256": "b"}, "problems_sha256 is a in"),
    ],
)
def test_unlike_decoding_is_refused_unless_told(folder, capsys, about, words):
    one, two = folder("one", A, problems_sha256="a"), folder("two", B, **about)
    error = refuse(capsys, one, two)
    assert words in error and "--unlike" in error
    assert main(["compare", one, two, "--unlike"]) == 0


def test_a_run_is_greedy_and_has_lengths_of_its_own(folder, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    sections = {"sampling": {"max_completion_length": 64}}
    (run / "config.json").write_text(json.dumps({"config": sections}))
    drawn = folder("drawn", A)
    assert "run that has no results yet: after.json" in refuse(capsys, str(run), drawn)
    (run / "after.json").write_text(json.dumps([[t, "easy", "pass"] for t in A]))
    assert "max_completion_length is 64" in refuse(capsys, str(run), drawn)
    sampled = folder("sampled", A, sampling={"temperature": 0.8}, max_completion_length=64)
    assert "sampling.temperature is 0.0" in refuse(capsys, str(run), sampled)
    assert main(["compare", str(run), folder("same", A, max_completion_length=64)]) == 0


def chains_of(scripts):
    """Task -> the rounds of each of its samples, a letter each: p passes, w does not."""
    words = {"p": "pass", "w": "wrong", "c": "compile"}
    return [
        {
            "task_id": task,
            "passed": letters[-1] == "p",
            "result": words[letters[-1]],
            "difficulty": "easy",
            "rounds": [words[x] for x in letters],
        }
        for task, samples in scripts.items()
        for letters in samples
    ]


def round_cells(text):
    lines = [line for line in text.splitlines() if line.startswith(("| first", "| after"))]
    return {
        cells[0]: cells[1:]
        for line in lines
        for cells in [[cell.strip() for cell in line.split("|")[1:-1]]]
    }


def test_rounds_are_paired_on_what_both_failed_first(compare, tmp_path):
    """Of a to h both failed c to h: one mends c, d and e, the other c alone, and f."""
    one = {x: ["ww"] for x in "defgh"} | {"a": ["p"], "b": ["wp"], "c": ["wwp"]}
    two = {x: ["wwp"] for x in "cde"} | {x: ["www"] for x in "fgh"}
    two |= {"a": ["wp"], "b": ["p"], "f": ["wc"]}
    first, second = (chains_of(dict(sorted(x.items()))) for x in (one, two))
    code, text, _ = compare(first, second, flags=["--out", tmp_path / "t"])
    assert code == 0 and "sign test over problems" in text
    found = round_cells(text)
    assert list(found) == [
        *("first answer, right", "after round 1, right", "after round 2, right"),
        *("after round 1, mended", "after round 2, mended"),
    ]
    assert found["first answer, right"][:4] == ["8", "8", "12.5", "12.5"]
    assert found["first answer, right"][-1] == "1.0000"  # one gained, one lost
    assert found["after round 1, mended"][:4] == ["6", "6", "0.0", "0.0"]
    row = found["after round 2, mended"]
    change = paired_difference([1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0])
    assert row[:4] == ["6", "6", "16.7", "50.0"]
    assert row[4].startswith(f"+33.3 [{100 * change.low:+.1f}")
    assert row[-2:] == [f"{change.p:.4f}", f"{mcnemar(2, 0):.4f}"]
    tree = json.loads((tmp_path / "t.json").read_text())
    last = tree["comparisons"][0]["rounds"][-1]
    assert last["change"] == pytest.approx(1 / 3) and last["exact"] == 0.5


def test_samples_of_a_problem_are_paired_in_order(compare):
    one = chains_of({"a": ["ww", "p", "ww", "wp"], "b": ["ww", "ww"], "c": ["p", "p"]})
    two = chains_of({"a": ["wp", "wp", "p", "ww"], "b": ["wp", "ww"], "c": ["w", "w"]})
    row = round_cells(compare(one, two)[1])["after round 1, mended"]
    # a: the first and last pairs, mended 1/2 and 1/2; b: 0 and 1/2
    assert row[:4] == ["2", "4", "25.0", "50.0"] and row[-1] == f"{mcnemar(1, 0):.4f}"


def test_results_without_rounds_have_no_table_of_them(compare):
    rows = chains_of({"a": ["wp"], "b": ["w"]})
    for other in (rows_of({"a": [1], "b": [0]}), [rows[0], *rows_of({"b": [0]})]):
        assert round_cells(compare(rows, other)[1]) == {}
    wrong = [rows[0] | {"rounds": ["pass", "wrong"]}]
    for bad in (wrong, [rows[0] | {"rounds": "pass"}], [rows[0] | {"rounds": ["well"]}]):
        code, _, error = compare(rows, bad)
        assert code == 2 and error.count("\n") == 1
        assert "line 1: field rounds: expected verdicts of which the last is" in error


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"rounds": 1}, "rounds is 3 in"),
        ({}, "rounds is 3 in"),
        ({"rounds": 3, "variant": "both"}, "variant is direct in"),
        ({"rounds": 3, "variant": "direct", "refine_all": True}, "refine_all is False in"),
    ],
)
def test_other_rounds_are_refused_unless_told(folder, capsys, about, words):
    known = {"rounds": 3, "variant": "direct", "refine_all": False, "feedback": "test"}
    one, two = folder("one", A, **known), folder("two", B, **about)
    assert words in refuse(capsys, one, two)
    assert main(["compare", one, two, "--unlike"]) == 0
    # feedback is what controls differ in
    assert main(["compare", one, folder("three", B, **known | {"feedback": "none"})]) == 0
