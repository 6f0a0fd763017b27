"""Judged samples as supervised text: what is kept, what is left out, what is refused."""

import dataclasses
import json

import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.config import Config, ModelConfig
from stepcoder_jax.data.formats.rows import DataError
from stepcoder_jax.data.generated import benchmark
from stepcoder_jax.runs import raft
from stepcoder_jax.runs.disk import sources
from tests.commands.sft_kit import assert_train_begins_with, metrics_of, run_sft


@pytest.fixture(scope="module")
def tokenizer():
    return sources.load_tokenizer(ModelConfig(tokenizer="builtin"))


@pytest.fixture(scope="module")
def problems():
    return benchmark.generate("validation", 3, (4, 0, 0))


class Kit:
    """Files of samples, and what is selected of them."""

    def __init__(self, folder, problems, tokenizer):
        self.folder, self.problems, self.tokenizer = folder, problems, tokenizer
        self.config = Config()
        self.config.prompt.template = "plain"
        self.config.prompt.max_prompt_length = 224

    def row(self, place, code, **fields):
        row = {"task_id": self.problems[place].id, "completion": code, "passed": True}
        return row | fields

    def write(self, name, *rows):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (self.folder / name).write_text("".join(line + "\n" for line in lines))
        return str(self.folder / name)

    def select(self, *files):
        self.config.sft.samples = files
        return raft.select(self.problems, self.tokenizer, self.config)

    def texts(self, *rows):
        """Prompt and completion of what is selected of one file, and what was told."""
        examples, told = self.select(self.write("results.jsonl", *rows))
        decode = self.tokenizer.decode
        return [
            (decode(ids[:length]), decode(ids[length:])) for ids, length in examples
        ], told


@pytest.fixture
def kit(tmp_path, problems, tokenizer):
    return Kit(tmp_path, problems, tokenizer)


END = "```<|endoftext|>"


def test_what_is_kept_and_what_is_left_out(kit):
    long = "    x = 1\n" * 500
    texts, told = kit.texts(
        kit.row(1, "    return 1\n"),
        kit.row(0, "    return 2\n", passed=False),
        kit.row(1, "    return 1\n"),  # a duplicate
        kit.row(0, "    return 1\n"),  # of another problem: none
        kit.row(0, "    return 3\n", weak=True),
        kit.row(0, "    return 4\n", truncated=True),
        kit.row(0, long),
        kit.row(1, "    return 5", result="pass", truncated=False, weak=False),
        kit.row(2, "    return 6\n", passed=False, result="timeout"),
    )
    opening = [
        f"{problem.statement}\n```python\n{problem.starter_code}"
        for problem in kit.problems
    ]
    assert texts == [
        (opening[0], "    return 1\n" + END),
        (opening[1], "    return 1\n" + END),
        (opening[1], "    return 5\n" + END),
    ]
    assert told == (
        "3 examples of 2 of 4 problems out of 9 rows; left out: 2 not passed, 1 passed "
        "weakly, 1 truncated, 1 duplicates, 1 too long"
    )


def test_duplicates_and_counts_are_over_all_files(kit):
    one = kit.write("one.jsonl", kit.row(0, "    return 1\n"))
    two = kit.write("two.jsonl", kit.row(0, "    return 1\n"), kit.row(3, "    return 1\n"))
    examples, told = kit.select(one, two)
    assert len(examples) == 2 and "out of 3 rows; left out: 1 duplicates" in told


def test_the_cap_is_per_problem_and_drawn_by_the_seed(kit):
    rows = [kit.row(0, f"    return {i}\n") for i in range(20)]
    rows += [kit.row(1, "    return 0\n")]
    kit.config.sft.per_problem = 5
    drawn = []
    for seed in (0, 0, 1):
        kit.config.run.seed = seed
        texts, told = kit.texts(*rows)
        assert len(texts) == 6 and "15 over sft.per_problem" in told
        drawn.append([int(code.split()[1].split("`")[0]) for _, code in texts[:5]])
        assert texts[5][1] == "    return 0\n" + END
    assert drawn[0] == drawn[1] == sorted(set(drawn[0])) and drawn[0] != drawn[2]
    assert drawn[0] != [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("starter", "field", "text", "head", "code"),
    [
        # as `stepcoder evaluate` writes them: the model saw one newline behind the starter
        ("def f(x):\n", "completion", "    return x\n", "def f(x):\n", "    return x\n"),
        ("def f(x):", "completion", "\n    return x\n", "def f(x):\n", "    return x\n"),
        ("def f(x):\n\n", "completion", "    return x\n", "def f(x):\n", "    return x\n"),
        ("", "completion", "print(1)\n", "", "print(1)\n"),
        # of others: behind the starter code as it stands
        ("def f(x):\n  ", "completion", "return x\n", "def f(x):\n", "  return x\n"),
        ("def f(x):", "completion", " return x", "", "def f(x): return x\n"),
        # whole programs
        ("def f(x):\n", "solution", "def f(x):\n  pass\n", "def f(x):\n", "  pass\n"),
        ("def f(x):\n", "solution", "f = abs\n", "", "f = abs\n"),
    ],
)
def test_the_head_is_what_the_model_saw(kit, starter, field, text, head, code):
    problem = dataclasses.replace(kit.problems[0], starter_code=starter)
    kit.problems = [problem]
    row = {"task_id": problem.id, field: text, "passed": True}
    ((prompt, completion),), _ = kit.texts(row)
    assert prompt == f"{problem.statement}\n```python\n{head}"
    assert completion == code + END


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task_id": "nobody"}, "line 2: field task_id: expected the id of a problem"),
        ({"passed": None}, "line 2: field passed: expected bool, got NoneType"),
        ({"passed": "yes"}, "line 2: field passed: expected bool, got str"),
        ({"result": "infra", "passed": False}, "line 2: field result: the sample was not"),
        ({"result": "wrong"}, "line 2: fields passed and result: contradict"),
        ({"completion": 3}, "line 2: field completion: expected str, got int 3"),
        ("passed", "line 2: field passed: expected true or false, but it is missing"),
        ("completion", "line 2: fields completion and solution: expected one"),
        ("{", "line 2: not valid JSON"),
        ("[]", "line 2: expected an object, got list"),
    ],
)
def test_bad_rows_are_named(kit, change, words):
    row = kit.row(0, "    return 1\n")
    if isinstance(change, dict):
        row |= change
    elif change in row:
        del row[change]
    else:
        row = change
    file = kit.write("bad.jsonl", kit.row(1, "    return 1\n"), row)
    with pytest.raises(DataError) as error:
        kit.select(file)
    assert f"sft.samples: {file}: {words}" in str(error.value)
    assert "\n" not in str(error.value)


def test_files_without_anything_to_learn_are_refused(kit):
    for rows in ([], [kit.row(0, "    return 1\n", passed=False)]):
        with pytest.raises(DataError, match="no row to learn from: 0 examples of 0 of 4"):
            kit.select(kit.write("none.jsonl", *rows))
    with pytest.raises(DataError, match="cannot be read"):
        kit.select(str(kit.folder / "missing.jsonl"))


@pytest.mark.long
def test_canonical_solutions_go_round(tmp_path, capsys):
    """Samples are judged, learnt, and `train` begins with what came out."""
    problems = benchmark.generate("train", 0, (8, 0, 0))
    file, samples = tmp_path / "problems.json", tmp_path / "samples.jsonl"
    benchmark.write(problems, file)
    rows = [{"task_id": x.id, "solution": x.solution} for x in problems]
    rows += [{"task_id": x.id, "completion": "    return 0.5\n"} for x in problems]
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["judge", str(samples), "--problems", str(file), "--jobs", "1"]) == 0
    judged, folder = tmp_path / "samples_results.jsonl", tmp_path / "raft"
    flags = ["--sft.samples", str(judged), "--data.path", str(file)]
    flags += ["--evaluation.every", "0", "--sft.epochs", "3"]
    assert run_sft(folder, *flags, "--sft.minutes", "0.0001") == 0
    assert len(metrics_of(folder)) == 1  # the time was over before three updates
    told = "8 examples of 8 of 8 problems out of 16 rows; left out: 8 not passed"
    assert told in capsys.readouterr().err
    assert_train_begins_with(folder, tmp_path / "run")
    assert run_sft(tmp_path / "again", *flags, "--data.pool_size", "4") == 2
    assert "line 5: field task_id" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()
