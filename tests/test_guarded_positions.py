"""What `guarded_positions.py` says of a file that is none of its own."""

import json

import pytest

from experiments.benchmarks import guarded_positions
from stepcoder_jax.data.generated import tiers

WANTED = "expected results.jsonl of"
BAD = {
    "no JSON": ("root:x:0:0\n", "line 1: not valid JSON"),
    "no object": ("[1]\n", "line 1: expected an object"),
    "no field": ('{"task_id": "x"}\n', "line 1: field completion: expected str, but it is"),
    "another set": (
        '{"task_id": "HumanEval/0", "completion": "", "passed": true}\n',
        "line 1: field task_id: 'HumanEval/0' is none of the tier's",
    ),
    "empty": ("\n", "has no rows"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_of_another_kind_is_one_line(name, tmp_path, capsys):
    text, words = BAD[name]
    file = tmp_path / "results.jsonl"
    file.write_text(text)
    assert guarded_positions.main([str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"guarded_positions.py: {file}: {words}") and WANTED in line


def test_no_file_is_one_line(tmp_path, capsys):
    assert guarded_positions.main([str(tmp_path / "nowhere")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "nowhere: cannot be read: No such file" in line and WANTED in line


def test_right_programs_are_right_at_each_part(tmp_path, capsys):
    problem = tiers.load("guarded", "validation")[0]
    rest = problem.solution.removeprefix(problem.starter_code)
    row = {"task_id": problem.id, "completion": rest, "passed": True}
    file = tmp_path / "results.jsonl"
    file.write_text(json.dumps(row) + "\n")
    assert guarded_positions.main([str(file)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith(": 1 of 1 programs pass")
    assert {float(share) for line in said[1:] for share in line.split()[1:]} == {1.0}
