"""HumanEval+ and MBPP+ as EvalPlus releases them: what judges, and what is refused."""

import json
import pathlib
import shutil

import pytest

from stepcoder_jax.data import problems
from stepcoder_jax.data.evalplus import evalplus, expected
from stepcoder_jax.data.formats.literals import source_of
from stepcoder_jax.data.formats.rows import DataError, iter_rows
from stepcoder_jax.data.problems import read_any
from stepcoder_jax.execution.crossing import values
from tests.execution.kit import make_settings, need_data, run_sources

ROW = {
    "task_id": "HumanEval/900",
    "prompt": "def half(x):\n    ''' A half. '''\n",
    "entry_point": "half",
    "canonical_solution": "    return x / 2\n",
    "test": "def check(candidate):\n    assert candidate(4) == 2\n",
    "contract": "\n    assert x >= 0\n",
    "base_input": [[4]],
    "plus_input": [[5], [1e9]],
    "atol": 0,
}
MBPP = {
    "task_id": "Mbpp/2",
    "prompt": '"""\nCommon ones.\nassert similar_elements((3, 4), (4,)) == (4,)\n"""\n',
    "entry_point": "similar_elements",
    "canonical_solution": "\ndef similar_elements(a, b):\n  return tuple({*a} & {*b})\n",
    "assertion": "\nassert similar_elements((3, 4), (4,)) == (4,)\n",
    "contract": "",
    "base_input": [[[3, 4], [4]]],
    "plus_input": [[[1, 2], [2, 1]]],
    "atol": 0,
}


@pytest.fixture
def read(tmp_path):
    def read(*rows, strict=True):
        path = tmp_path / "plus.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        return read_any(str(path), strict=strict, settings=make_settings())

    return read


def verdicts(problem, *sources):
    reports = run_sources([problem] * len(sources), sources)
    return [str(report.verdict) for report in reports]


def test_plus_inputs_judge_and_the_base_tests_alone_do_not(read):
    ((problem,), complaints) = read(ROW)
    assert complaints == [] and len(problem.tests) == 2
    assert verdicts(
        problem,
        problem.solution,
        "def half(x): return x * 0.50000006",  # within 1e-6 of 2.5, not of 5e8
        "def half(x): return x * 0.5 + 1e-7",
        "def half(x): return 2",  # all that `test` asks
        "def half(x): return [x / 2]",
    ) == ["pass", "wrong", "pass", "wrong", "wrong"]


def test_atol_is_the_rows_own(read):
    ((problem,), _) = read({**ROW, "atol": 0.1, "plus_input": [[5]]})
    assert verdicts(
        problem, "def half(x): return x / 2 + 0.09", "def half(x): return x / 2 + 0.11"
    ) == ["pass", "wrong"]


def test_mbpp_takes_tuples_and_compares_as_its_own_harness(read):
    ((problem,), _) = read(MBPP)
    assert (problem.id, problem.difficulty, problem.starter_code) == ("Mbpp/2", "mbpp", "")
    assert problem.statement.startswith("Common ones.\nassert ")
    assert verdicts(
        problem,
        problem.solution,
        "def similar_elements(a, b): return list(reversed(sorted({*a} & {*b})))",  # a set
        "def similar_elements(a, b): return a if type(a) is list else ()",
        "def similar_elements(a, b): return (4,)",
    ) == ["pass", "pass", "wrong", "wrong"]


def test_a_program_that_changes_its_arguments_does_not_change_the_oracles(read):
    row = {
        "task_id": "HumanEval/32",
        "prompt": "def find_zero(xs):\n    ''' A zero. '''\n",
        "entry_point": "find_zero",
        "canonical_solution": "    return -xs[0] / xs[1]\n",
        "base_input": [[[2.0, 1.0]]],
        "plus_input": [[[3.0, 1.0]]],
        "atol": 0.001,
    }
    ((problem,), _) = read(row)
    cheat = "def find_zero(xs):\n    xs[:] = [0.0]\n    return 1.0\n"
    other = "def find_zero(xs): return -xs[0] / xs[1] + 0.0005\n"
    assert verdicts(problem, cheat, other) == ["wrong", "pass"]


def test_results_are_kept_and_not_found_twice(read, tmp_path, monkeypatch):
    first = read(ROW, MBPP)
    path = tmp_path / "plus.jsonl.expected.json"
    assert json.loads(path.read_text())["HumanEval/900"]["results"] == [2.0, 2.5, 5e8]
    monkeypatch.setattr(expected, "open_pool", None)
    assert read(ROW, MBPP) == first
    with pytest.raises(TypeError):  # another solution has results of its own
        read({**ROW, "canonical_solution": "    return x\n"})


def test_a_folder_that_cannot_be_written_is_said(read, capsys, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(expected.os, "replace", refuse)
    assert len(read(ROW)[0]) == 1
    said = capsys.readouterr().err
    assert "expected.json: expected values not kept (Permission denied)" in said


@pytest.mark.parametrize("text", ["{", "[]", '{"HumanEval/900": 1}'])
def test_a_spoilt_file_of_results_is_named(read, tmp_path, text):
    (tmp_path / "plus.jsonl.expected.json").write_text(text)
    with pytest.raises(DataError, match=r"plus\.jsonl\.expected\.json: .*remove"):
        read(ROW)


def test_a_very_long_text_is_known_by_its_digest(read, tmp_path):
    row = {**ROW, "canonical_solution": "    return 'ab' * x\n", "plus_input": [[10**5]]}
    ((problem,), _) = read(row)
    assert (tmp_path / "plus.jsonl.expected.json").stat().st_size < 1000
    assert len(problem.tests[1].inputs) < 5000
    assert verdicts(
        problem, "def half(x): return 'ab' * x", "def half(x): return 'ba' * x"
    ) == ["pass", "wrong"]


def test_a_solution_without_results_is_refused_by_name(read):
    bad = {
        **ROW,
        "task_id": "HumanEval/901",
        "canonical_solution": "    return 9 // (x - 5)",
    }
    _, (complaint,) = read(ROW, bad, strict=False)
    assert "problem HumanEval/901: field canonical_solution" in complaint
    assert "input 1 of 3 (runtime ZeroDivisionError)" in complaint
    with pytest.raises(DataError, match="HumanEval/901"):
        read(ROW, bad)


BAD_ROWS = [
    ({"base_input": ...}, "field base_input: expected list, but it is missing"),
    ({"plus_input": ...}, "field plus_input: expected list, but it is missing"),
    ({"plus_input": "[]"}, "field plus_input: expected list, got str"),
    ({"plus_input": [3]}, r"field plus_input\[0\]: expected the list of arguments"),
    ({"plus_input": [], "base_input": []}, "expected inputs, got none"),
    ({"atol": -1}, "field atol: expected a number from 0 on"),
    ({"task_id": "Other/1"}, "field task_id: expected HumanEval/N or Mbpp/N"),
    ({"canonical_solution": " return ("}, "field canonical_solution: expected Python"),
]


@pytest.mark.parametrize(("fields", "message"), BAD_ROWS)
def test_bad_rows_name_their_field(read, fields, message):
    row = {key: value for key, value in {**ROW, **fields}.items() if value is not ...}
    with pytest.raises(DataError, match=message):
        read(row)


def test_plus_rows_in_another_formats_file_are_refused(read):
    plain = {key: ROW[key] for key in ROW.keys() - {"base_input", "plus_input"}}
    _, (complaint,) = read(plain, {**ROW, "task_id": "HumanEval/901"}, strict=False)
    assert "line 2: field plus_input: not of the format" in complaint


def lookup_table(row, results):
    """A program that knows the base inputs' results, and nothing else."""
    known = {
        values.encode(list(given)).decode(): result
        for given, result in zip(row.inputs[0], results, strict=False)
    }
    keys = {json.dumps(key): source_of(value, as_code=True) for key, value in known.items()}
    codec = source_of(pathlib.Path(values.__file__).read_text())
    table = ", ".join(f"{key}: {value}" for key, value in keys.items())
    return (
        f"codec = {{'__name__': 'codec'}}\nexec({codec}, codec)\nTABLE = {{{table}}}\n"
        f"def {row.problem.entry_point}(*given):\n"
        "    return TABLE.get(codec['encode'](list(given)).decode())\n"
    )


GENUINE = [("HumanEvalPlus_first40.jsonl.gz", 40), ("MbppPlus_first60.jsonl.gz", 60)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), GENUINE)
def test_genuine_sets_judge_by_their_plus_inputs(tmp_path, name, size):
    path = shutil.copy(need_data(f"evalplus/{name}"), tmp_path)
    found, complaints = problems.read_any(path, strict=False)
    assert (len(found), complaints) == (size, [])
    plus = {}
    for row in iter_rows(path, ""):
        read = evalplus.read_plus(row.value)
        plus[read.problem.id] = read
    asked = [row.asked() for row in plus.values()]
    results = expected.find_results(path, asked, make_settings())
    reports = run_sources(found, [problem.solution for problem in found])
    passed = {p.id for p, report in zip(found, reports) if report.passed}
    tables = [lookup_table(plus[p.id], results[p.id]) for p in found]
    reports = run_sources(found, tables)
    looked_up = {p.id for p, report in zip(found, reports) if report.passed}
    inputs = sum(len(row.inputs[1]) for row in plus.values())
    print(f"\n{name}: {size} problems, {len(passed)} canonical solutions passed, ", end="")
    print(f"{len(looked_up)} lookup tables passed, {inputs} plus inputs")
    assert passed == plus.keys()
    for problem in looked_up:
        base, more = plus[problem].inputs
        assert all(given in base for given in more)
    # each table does pass what it knows
    firsts = [report.tests[0].verdict for report in reports]
    assert firsts.count("pass") >= 0.9 * size
