"""`stepcoder evaluate`: how samples are drawn, what is written, what is refused."""

import dataclasses
import json

import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.commands import evaluate as measure
from stepcoder_jax.config import Config, ConfigError
from stepcoder_jax.data.formats import own
from stepcoder_jax.data.generated import benchmark
from stepcoder_jax.data.problems import read_any
from stepcoder_jax.execution import Pool
from stepcoder_jax.feedback.answers import Answer
from stepcoder_jax.feedback.prompts import prompt_ids
from stepcoder_jax.records import (
    InputError,
    Mode,
    Problem,
    Program,
    Report,
    TestResult,
    Verdict,
)
from stepcoder_jax.results import outcomes
from stepcoder_jax.runs import restore
from stepcoder_jax.runs.disk import sources
from stepcoder_jax.runs.generate import Coder
from stepcoder_jax.sampling.drawing import Truncation
from stepcoder_jax.strategies.rounds import Round
from tests import run_kit
from tests.run_kit import get_config

FILES = {"results.jsonl", "results.json", "results.md", "samples.jsonl"}


def wanted(**changes):
    base = measure.Wanted(
        run="run",
        split="test",
        step=None,
        before=True,
        problems="",
        samples=1,
        temperature=None,
        top_p=None,
        k=[],
        seed=0,
        out="",
    )
    return base._replace(**changes)


def plan(**changes):
    config = get_config()
    config.sampling.top_k = 7
    return measure.make_plan(wanted(**changes), config)


def test_one_sample_is_greedy_and_several_are_drawn_as_in_the_run():
    assert plan() == measure.Plan(1, Truncation(0.0), (1,), 0)
    assert plan(samples=12) == measure.Plan(12, Truncation(0.8, 0.95, 7), (1, 5, 10), 0)
    own = plan(samples=3, temperature=0.2, top_p=1.0, k=[2], seed=4)
    assert own == measure.Plan(3, Truncation(0.2, 1.0, 7), (2,), 4)
    assert plan(temperature=0.6).truncation == Truncation(0.6, 0.95, 7)
    said = "3 samples each at temperature 0.2, top-p 1, top-k 7, seed 4"
    assert own.describe() == said and plan().describe() == "greedy"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": -1}, "--seed: expected 0 or more, got -1"),
        ({"samples": 0}, "--samples-per-problem: expected at least 1, got 0"),
        ({"temperature": -1.0}, "--temperature: expected 0 or more, got -1"),
        ({"temperature": float("nan")}, "--temperature: expected 0 or more"),
        ({"samples": 2, "temperature": 0.0}, "--temperature: 2 greedy samples"),
        ({"top_p": 0.5}, "--top-p: a greedy sample draws nothing"),
        ({"samples": 2, "top_p": 0.0}, "--top-p: expected a share in (0, 1], got 0"),
        ({"samples": 2, "k": [3]}, "--k: pass@3 needs 3 samples"),
        ({"samples": 2, "k": [0]}, "--k: expected numbers from 1 on, got 0"),
    ],
)
def test_flags_that_cannot_work(changes, words):
    with pytest.raises(InputError) as refused:
        plan(**changes)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "starter", ["", "def f():", "def f():\n", "def f():\n    ", "\n\n"]
)
def test_starter_code_and_completion_are_the_program(starter):
    problem = Problem("a", "", starter, "", "f", Mode.CALL, (), "")
    (task,) = measure.whole_tasks([problem])
    text = "    return 'é'\n" if "def" in starter else "def f(): return 'é'\n"
    program = Program(problem, task.head + text, len(task.head.encode()), ())
    joined = starter + measure.completion_of(program)
    for source in (program.source, joined):
        space = {}
        exec(source, space)  # our own words
        assert space["f"]() == "é"
    if starter in ("", "def f():", "def f():\n"):
        assert joined == program.source


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    measure.check_out("")
    measure.check_out(str(tmp_path))
    measure.check_out(str(tmp_path / "new"))
    (tmp_path / "mine").write_text("")
    for out, why in ((tmp_path, "not empty"), (tmp_path / "mine", "is a file")):
        with pytest.raises(ConfigError, match=f"--out: .* {why}"):
            measure.check_out(str(out))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of `run_kit` that was started, and a file of 6 problems."""
    folder = tmp_path_factory.mktemp("measure")
    run_kit.start(folder / "run")
    benchmark.write(benchmark.load("validation")[:6], folder / "problems.json")
    return folder


ROOM = ["--max-prompt-length", "1000", "--max-completion-length", "100"]


def evaluate(run, out, *flags):
    command = ["evaluate", str(run / "run"), "--before", "--out", str(out)]
    command += ["--problems", str(run / "problems.json")]
    return main([*command, *map(str, flags)])


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def evaluated(run):
    """Four samples of each problem."""
    assert evaluate(run, run / "four", "--samples-per-problem", "4", "--k", "1", "3") == 0
    return run / "four"


def test_files_say_the_same(run, evaluated):
    assert {path.name for path in evaluated.iterdir()} == FILES
    rows, samples = read(evaluated / "results.jsonl"), read(evaluated / "samples.jsonl")
    assert len(rows) == len(samples) == 24
    for row, sample in zip(rows, samples):
        assert sample == {name: row[name] for name in ("task_id", "completion")}
    tasks = [row["task_id"] for row in rows]
    assert tasks == sorted(tasks, key=tasks.index) and len(set(tasks)) == 6
    tree = json.loads((evaluated / "results.json").read_text())
    found = tree["scores"]["pass_at_k"]["all"]
    counted = outcomes.counts(
        outcomes.Outcome(row["task_id"], "", Verdict(row["result"])) for row in rows
    )
    passed = [c for _, c in counted.values()]
    assert found["pass@1"]["value"] == pytest.approx(sum(passed) / 24)
    # C(n - c, 3) / C(4, 3): three failures of four fail in 1 choice of 4, four in all
    failing = {0: 1.0, 1: 0.25}
    mean = 1 - sum(failing.get(c, 0) for c in passed) / 6
    assert found["pass@3"]["value"] == pytest.approx(mean)
    assert tree["sampling"]["temperature"] == 0.8 and tree["model"] == "reference"
    assert tree["scores"]["truncated"] == sum(row["truncated"] for row in rows)
    assert "4 samples each at temperature 0.8" in (evaluated / "results.md").read_text()
    # samples differ among themselves, or nothing was drawn
    assert len({row["completion"] for row in rows}) > 12


def test_judge_says_the_same_of_the_samples(run, evaluated, tmp_path):
    out = tmp_path / "judged.jsonl"
    command = ["judge", str(evaluated / "samples.jsonl"), "--jobs", "1", "--out", str(out)]
    assert main([*command, "--problems", str(run / "problems.json")]) == 0
    again, rows = read(out), read(evaluated / "results.jsonl")
    names = ("task_id", "completion", "passed", "result", "difficulty", "bug")
    for row, other in zip(rows, again, strict=True):
        assert [row[name] for name in names] == [other[name] for name in names]
    assert main(["compare", str(out), str(evaluated)]) == 0


def test_windows_and_the_seed(run, evaluated, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "_WINDOW", 7)
    flags = ("--samples-per-problem", "4")
    assert evaluate(run, tmp_path / "same", *flags) == 0
    assert evaluate(run, tmp_path / "other", *flags, "--seed", "1") == 0
    first, same, other = (
        (folder / "samples.jsonl").read_text()
        for folder in (evaluated, tmp_path / "same", tmp_path / "other")
    )
    assert first == same and first != other


def test_while_our_own_failures_remain_there_is_no_pass_rate(
    run, evaluated, tmp_path, monkeypatch
):
    def stream(pool, programs, window=0):
        for place, _ in enumerate(programs):
            verdict = Verdict.PASS if place else Verdict.INFRA
            yield place, Report(verdict, (), frozenset(), "why")

    monkeypatch.setattr(Pool, "stream", stream)
    assert evaluate(run, tmp_path / "out") == 2
    text = (tmp_path / "out" / "results.md").read_text()
    assert "pass@k: none, for 1 samples were not judged (infra)" in text
    tree = json.loads((tmp_path / "out" / "results.json").read_text())
    assert tree["scores"]["pass_at_k"] == {} and tree["scores"]["infra"] == 1


def test_rounds_mend_what_fails_a_visible_test(run, tmp_path, capsys):
    problems, _ = read_any(str(run / "problems.json"), strict=True)
    shown = [
        dataclasses.replace(x, visible_tests=x.tests[:2] if place else ())
        for place, x in enumerate(problems)
    ]
    own.write(shown, tmp_path / "shown.jsonl")
    room = ["--max-prompt-length", "500", "--max-completion-length", "100"]
    command = ["evaluate", str(run / "run"), "--before", *room]
    command += ["--problems", str(tmp_path / "shown.jsonl"), "--out", str(tmp_path / "out")]
    rounds = ["--rounds", "1", "--variant", "both", "--feedback", "random"]
    assert main([*command, *rounds]) == 0
    said = capsys.readouterr()
    assert "1 of 6 problems have no visible tests: one answer each" in said.err
    assert (
        "\nRounds, both, feedback random:\n" in said.out and "| after round 1 |" in said.out
    )
    assert "Equal budget: against 3 samples: none, for the problems have 1" in said.out
    rows = read(tmp_path / "out" / "results.jsonl")
    assert {len(row["rounds"]) for row in rows} == {1, 2}
    for row, sample in zip(rows, read(tmp_path / "out" / "samples.jsonl")):
        assert row["rounds"][-1] == row["result"] and row["rounds"][:-1] != ["pass"]
        assert ("solution" in sample) == (len(row["rounds"]) > 1)
    tree = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (tree["rounds"], tree["variant"], tree["feedback"]) == (1, "both", "random")
    later = sum(len(row["rounds"]) - 1 for row in rows)
    assert 0 < later <= tree["refinement"]["answers"] <= 2 * later
    assert sum(tree["refinement"]["after"][1]["variants"].values()) == later
    assert sum(tree["refinement"]["ends"].values()) == 6 and not tree["refine_all"]
    # the first answers are those of an evaluation without rounds
    command[-1] = str(tmp_path / "first")
    assert main(command) == 0
    first = [row["result"] for row in read(tmp_path / "first" / "results.jsonl")]
    assert [row["rounds"][0] for row in rows] == first
    for flags, words in (
        (["--problems", str(run / "problems.json"), *rounds], "has visible tests"),
        (["--rounds", "-1"], "--rounds: expected 0 or more, got -1"),
        (["--refine-all"], "--refine-all: needs --rounds 1 or more"),
    ):
        capsys.readouterr()
        assert main([*command[:7], *flags]) == 2
        error = capsys.readouterr().err
        assert words in error.splitlines()[-1] and error.count("stepcoder evaluate:") == 1


def test_chains_that_our_own_failure_ended_are_reported(run, tmp_path, monkeypatch, capsys):
    """The answers were judged, but not what was to be read of them."""
    problems, _ = read_any(str(run / "problems.json"), strict=True)
    shown = [dataclasses.replace(x, visible_tests=x.tests[:2]) for x in problems[:2]]
    own.write(shown, tmp_path / "shown.jsonl")

    def fail(player, tasks, asked):
        wrong, failed = (
            Report(x, (TestResult(x),), frozenset()) for x in (Verdict.WRONG, Verdict.INFRA)
        )
        programs = [Program(task.problem, "", 0, ()) for task in tasks]
        return [
            [Round(task, Answer(program, "", 0), wrong, failed)]
            for task, program in zip(tasks, programs)
        ]

    monkeypatch.setattr(measure, "refine_all", fail)
    room = ["--max-prompt-length", "500", "--max-completion-length", "100"]
    command = ["evaluate", str(run / "run"), "--before", *room, "--rounds", "1"]
    assert main([*command, "--problems", str(tmp_path / "shown.jsonl")]) == 2
    said = capsys.readouterr().out
    assert "Why chains ended: not judged (infra) 2." in said
    assert "Equal budget: none, for 2 chains were not judged (infra)." in said


def test_a_template_that_refuses_turns_is_told_before_anything_is_drawn(
    run, tmp_path, monkeypatch, capsys
):
    problem = read_any(str(run / "problems.json"), strict=True)[0][0]
    own.write(
        [dataclasses.replace(problem, visible_tests=problem.tests)], tmp_path / "shown"
    )
    drawn = []

    def refuse(coder, posed):
        raise ConfigError(f"prompt.template: refuses 3 turns of {posed.id}")

    monkeypatch.setattr(Coder, "require_turns", refuse)
    monkeypatch.setattr(measure, "refine_all", lambda *of: drawn.append(of) or [])
    command = ["evaluate", str(run / "run"), "--before", "--rounds", "1"]
    command += ["--problems", str(tmp_path / "shown"), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert f"refuses 3 turns of {problem.id}" in capsys.readouterr().err
    assert not drawn and not (tmp_path / "out").exists()


def test_a_stopped_evaluation_keeps_its_rows(run, tmp_path, monkeypatch, capsys):
    genuine, calls = measure.sample_window, []

    def stop(*args):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return genuine(*args)

    monkeypatch.setattr(measure, "_WINDOW", 2)
    monkeypatch.setattr(measure, "sample_window", stop)
    assert evaluate(run, tmp_path / "out") == 130
    assert f"stopped: 2 of 6 samples were judged, in {tmp_path / 'out'}" in (
        capsys.readouterr().out
    )
    assert len(read(tmp_path / "out" / "results.jsonl")) == 2
    assert evaluate(run, tmp_path / "out") == 2  # and they are not overwritten
    assert "not empty" in capsys.readouterr().err


def test_any_model_folder_is_evaluated_and_long_prompts_are_left_out(run, capsys):
    """The reference below a run is asked as in the run: the same programs come out."""
    model, out = str(run / "run" / "reference"), run / "folder"
    command = ["evaluate", model, "--problems", str(run / "problems.json")]
    problems, _ = read_any(str(run / "problems.json"), strict=True)
    tasks = measure.whole_tasks(problems)
    tokenizer = sources.load_tokenizer(get_config().model)
    sizes = [len(prompt_ids(t, tokenizer, get_config().prompt)) for t in tasks]
    most = min(sizes)
    lengths = ["--max-prompt-length", str(most), "--max-completion-length", "64"]
    assert main([*command, *lengths, "--out", str(out)]) == 0
    said = capsys.readouterr()
    tree = json.loads((out / "results.json").read_text())
    assert (tree["template"], tree["max_prompt_length"]) == ("plain", most)
    assert tree["max_completion_length"] == 64 and tree["model"] == "model folder"
    left_out, rows = tree["left_out"], read(out / "results.jsonl")
    assert left_out == [t.problem.id for t, size in zip(tasks, sizes) if size > most]
    assert 0 < len(left_out) < 6 and len(rows) == 6 - len(left_out)
    assert not {row["task_id"] for row in rows} & set(left_out)
    assert f"({len(left_out)} left out: too long prompts)" in said.out
    assert (
        f"left out: {len(left_out)} of 6 problems have prompts of more than {most}"
        in said.err
    )
    assert all(name in said.err for name in left_out)
    assert main([*command, *lengths, "--strict"]) == 2
    assert "raise --max-prompt-length" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--problems: builtin is a model folder, which has no problems"),
        (["--problems", "3"], "how many are shown is --count of `stepcoder sample`"),
        (["--problems", "builtin", "--before"], "--before: builtin is a model folder"),
        (["--problems", "builtin", "--max-prompt-length", "1024"], "expected 1 to 1023"),
        (
            ["--problems", "builtin", *ROOM],
            "--max-prompt-length: 1000 and --max-completion-length 100 are more than",
        ),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "sample"])
def test_flags_that_a_model_folder_cannot_take(command, flags, words, capsys):
    assert main([command, "builtin", *flags]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_lengths_make_room_for_each_other():
    def lengths(**flags):
        config = Config()
        restore.Asked(**flags).apply(config)
        return config.prompt.max_prompt_length, config.sampling.max_completion_length

    assert lengths(max_prompt_length=300) == (300, 724)  # of 1024 positions
    assert lengths(max_completion_length=24) == (1000, 24)
    assert lengths(max_prompt_length=30, max_completion_length=40) == (30, 40)
