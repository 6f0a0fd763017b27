"""Problem files are known by their rows' fields."""

import json

import pytest

from stepcoder_jax.data.formats.rows import DataError
from stepcoder_jax.data.problems import digest, read_any
from tests.data.test_apps import ROW as APPS_ROW
from tests.data.test_apps_plus import STDIN_ROW
from tests.data.test_humaneval import ROW as HUMANEVAL_ROW
from tests.data.test_livecodebench import ROW as LIVECODEBENCH_ROW
from tests.data.test_mbpp import PLUS, SANITIZED
from tests.data.test_mbpp import ROW as MBPP_ROW
from tests.data.test_own import ROW as OWN_ROW

ROWS = {
    "apps_plus/1": STDIN_ROW,
    "HumanEval/7": HUMANEVAL_ROW,
    "Mbpp/2": MBPP_ROW,
    "Mbpp/3": SANITIZED,
    "Mbpp/4": PLUS,
    "apps/7": APPS_ROW,
    "livecodebench/abc1_a": LIVECODEBENCH_ROW,
    "mine/1": OWN_ROW,
}
SHAPES = {
    "list": json.dumps,
    "lines": lambda rows: "\n".join(map(json.dumps, rows)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ROWS)
def test_every_format_in_either_shape(tmp_path, name, shape):
    """The first row is no use, and does not mislead."""
    path = tmp_path / "file"
    path.write_text(SHAPES[shape]([{"prompt": "", "task_id": 1}, ROWS[name]]))
    (problem,), (complaint,) = read_any(str(path), strict=False)
    assert problem.id == name
    assert complaint.startswith(f"{path}: {'row 0' if shape == 'list' else 'line 1'}: ")


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ('{"text": "a"}\n{"label": 1}', r'line 1 dict \{"text": "a"\}'),
        ("[1]", "row 0 int 1"),
        ("{'a': 1}", "line 1 not valid JSON"),
    ],
)
def test_other_files_are_refused_with_the_formats_named(tmp_path, text, got):
    path = tmp_path / "file"
    path.write_text(text)
    formats = "expected an APPS.*HumanEval.*MBPP.*or Live.*humaneval: entry_point, test\\)"
    with pytest.raises(DataError, match=f"{formats}.*got as {got}"):
        read_any(str(path), strict=False)


TOLD = [
    (MBPP_ROW, "challenge_test_list (1 rows); the benchmark itself does not run"),
    ({**HUMANEVAL_ROW, "example_test": "x"}, "are not read, and judge nothing: example_te"),
    ({**STDIN_ROW, "private_tests": [1], "tags": []}, "nothing: private_tests (1 rows)\n"),
]


@pytest.mark.parametrize(("row", "said"), TOLD)
def test_fields_that_judge_nothing_are_told(tmp_path, capsys, row, said):
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps(row))
    _, complaints = read_any(str(path), strict=True)
    assert complaints == []
    err = capsys.readouterr().err
    assert err.startswith(f"{path}: ") and said in err and err.count("\n") == 1


@pytest.mark.parametrize("row", [HUMANEVAL_ROW, SANITIZED, PLUS, OWN_ROW, APPS_ROW])
def test_of_rows_whose_fields_are_known_nothing_is_told(tmp_path, capsys, row):
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps(row))
    read_any(str(path), strict=True)
    assert capsys.readouterr().err == ""


def test_a_digest_is_of_contents_and_of_a_folders_names(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        (folder / "0000").mkdir(parents=True)
        (folder / "0000" / "question.txt").write_text("a")
    known = digest(str(one))
    assert digest(str(two)) == known and len(known) == 64
    assert digest(str(one / "0000" / "question.txt")) != known
    (two / "0000" / "question.txt").rename(two / "0000" / "other.txt")
    assert digest(str(two)) != known
    (one / "0000" / "question.txt").write_text("b")
    assert digest(str(one)) != known
