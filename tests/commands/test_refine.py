"""Records of self-debugging: drawn, asked about, judged, kept; killed and gone on with."""

import dataclasses
import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.commands.refine import RefineOptions
from stepcoder_jax.config import ConfigError, ModelConfig, PromptConfig
from stepcoder_jax.data.formats import own
from stepcoder_jax.data.generated import benchmark, dialect, teaching
from stepcoder_jax.data.refinements import Yield, count_yield, read_refinements
from stepcoder_jax.execution import PoolSettings, open_pool
from stepcoder_jax.feedback.answers import Answer
from stepcoder_jax.feedback.prompts import prompt_ids
from stepcoder_jax.records import Program, Report, Variant, Verdict
from stepcoder_jax.runs import generate, restore
from stepcoder_jax.runs.disk import sources
from stepcoder_jax.runs.disk.interrupt import Interrupt
from stepcoder_jax.runs.generate import Coder, Player
from stepcoder_jax.runs.refining import asking, drawing, work
from stepcoder_jax.runs.refining.folder import Folder
from stepcoder_jax.sampling.drawing import Truncation
from tests import run_kit

ROOM = ("--max-prompt-length", "500", "--max-completion-length", "100")
DRAWS = ("--samples-per-problem", "3", "--answers", "2", *ROOM)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Problems of the tier with a teacher, and wrong programs for them, some twice."""
    folder = tmp_path_factory.mktemp("files")
    problems = dialect.generate("train", 3, (2, 2, 1))
    own.write(problems, folder / "dialect.jsonl")
    rng, rows = np.random.default_rng(0), []
    for problem in problems:
        sources = [*dialect.wrong_programs(rng, problem, 3), problem.solution]
        sources += [sources[0], "def solve(k, x):\n    return 0\n"]
        rows += [
            {"task_id": problem.id, "solution": x, "passed": x == problem.solution}
            for x in sources
        ]
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "results.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was started, and six problems of which one shows no test."""
    folder = tmp_path_factory.mktemp("refine")
    run_kit.start(folder / "run")
    problems = [
        dataclasses.replace(x, visible_tests=x.tests[:2] if place else ())
        for place, x in enumerate(benchmark.load("validation")[:6])
    ]
    own.write(problems, folder / "shown.jsonl")
    return folder


def ask_rule(files, out, *flags):
    command = ["refine", "builtin", "--problems", str(files / "dialect.jsonl")]
    command += ["--wrong", str(files / "results.jsonl"), "--teacher", "rule"]
    return main([*command, "--out", str(out), *flags])


def ask_run(run, out, *flags):
    command = ["refine", str(run / "run"), "--before", "--out", str(out)]
    return main([*command, "--problems", str(run / "shown.jsonl"), *DRAWS, *flags])


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def kept(out):
    return [(out / name).read_bytes() for name in ("wrong.jsonl", "records.jsonl")]


@pytest.fixture(scope="module")
def ruled(files):
    assert ask_rule(files, files / "ruled") == 0
    return files / "ruled"


def test_a_rule_answers_what_files_have(files, ruled, tmp_path, capsys):
    records = read_refinements([str(ruled / "records.jsonl")])
    wrong = rows_of(ruled / "wrong.jsonl")
    texts = {(row["task_id"], row["solution"]) for row in wrong}
    assert len(texts) == len(wrong) == len({row["wrong_id"] for row in wrong})
    problems = {x.id: x for x in dialect.generate("train", 3, (2, 2, 1))}
    for one in records:
        problem = problems[one.task_id]
        assert one.refinement == teaching.mend(problem, one.wrong)
        assert one.feedback.source == one.wrong and "solve(" in one.feedback.feedback
        told = one.variant is Variant.EXPLAIN
        assert told == bool(one.explanation) and 0 < one.similar < 1
        assert not told or teaching.is_true(problem, one.wrong, one.explanation)
        assert one.source == str(files / "results.jsonl") and one.teacher == "rule"
        assert one.tests == len(problem.tests) and one.round == 1
        assert one.passed == (one.refinement == problem.solution)
    # nobody mends what is not written as the tier writes
    assert not {x.wrong_id for x in records if "return 0" in x.wrong}
    assert {x.variant for x in records} == set(Variant)
    assert {x.is_right for x in records} == {True, False}
    assert ask_rule(files, tmp_path / "again") == 0
    said = capsys.readouterr().out
    found = count_yield(records)
    assert f"{found.mended}  {100 * found.mended / len(wrong):.2f} %" in said
    zeros = 2 * sum("return 0" in row["solution"] for row in wrong)  # two variants
    assert "5 passed" in said and f"{zeros} without a whole block of code" in said
    assert kept(tmp_path / "again") == kept(ruled)


def test_a_problem_without_visible_tests_is_left_out_of_what_a_rule_teaches(
    tmp_path, capsys
):
    problems = dialect.generate("train", 3, (2, 0, 0))
    own.write(
        [problems[0], dataclasses.replace(problems[1], visible_tests=())], tmp_path / "a"
    )
    options = RefineOptions("builtin", (str(tmp_path / "a"),), "out", teacher="rule")
    found = work.load_problems(options.wanted(), restore.read_config("builtin"))
    assert [problem.id for problem in found[str(tmp_path / "a")]] == [problems[0].id]
    said = capsys.readouterr().err
    assert "left out: 1 of 2 problems have no visible tests: no context" in said


def test_windows_change_no_record(files, ruled, tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "WINDOW", 7)
    monkeypatch.setattr(asking, "WINDOW", 3)
    assert ask_rule(files, tmp_path / "out") == 0
    assert kept(tmp_path / "out") == kept(ruled)


KILLED = """
import os, signal, sys
from stepcoder_jax.__main__ import main
from stepcoder_jax.runs.refining import asking, drawing, folder

drawing.WINDOW = asking.WINDOW = 5
replace, left = folder._replace, [int(sys.argv[1])]


def dying(path, tree):
    # the rows are on disk, the state does not know them yet
    left[0] -= path.name == "state.json"
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(path, tree)


folder._replace = dying
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("whole", [1, 7])  # while drawing, and while asking
def test_killed_and_gone_on_with(files, ruled, tmp_path, whole):
    flags = ["refine", "builtin", "--problems", str(files / "dialect.jsonl")]
    flags += ["--wrong", str(files / "results.jsonl"), "--teacher", "rule"]
    flags += ["--out", str(tmp_path / "out")]
    command = [sys.executable, "-c", KILLED, str(whole), *flags]
    died = subprocess.run(command, capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    state = json.loads((tmp_path / "out" / "state.json").read_text())
    half = [state[name]["done"] for name in ("wrong.jsonl", "records.jsonl")]
    assert half == ([1, 0] if whole == 1 else [5, 10])
    name = "wrong.jsonl" if whole == 1 else "records.jsonl"
    assert (tmp_path / "out" / name).stat().st_size > state[name]["size"]
    assert main([*flags, "--resume"]) == 0
    assert kept(tmp_path / "out") == kept(ruled)
    assert main([*flags, "--resume"]) == 0  # nothing is left to do
    assert kept(tmp_path / "out") == kept(ruled)


def write_answers(monkeypatch):
    """Let completions of contexts be programs: the right one, or one that prints them."""
    genuine = Coder.read

    def read(coder, task, completion):
        if not task.before:
            return genuine(coder, task, completion)
        ids = completion.tokens.tolist()
        is_right = ids[0] % 2
        source = f"{task.problem.solution if is_right else ''}# {ids[:9]}\n"
        return Answer(Program(task.problem, source, 0, ()), f"Why: {ids[:3]}\n", 3)

    monkeypatch.setattr(Coder, "read", read)


def test_what_is_drawn_and_answered_has_its_own_place(tmp_path, monkeypatch):
    """A model's draws depend on their place alone, so the windows must tell it right."""
    problems = dialect.generate("train", 3, (2, 2, 1))
    rng = np.random.default_rng(0)
    wrong = [w for x in problems for w in dialect.wrong_programs(rng, x, 3)]

    def ask(player, wanted):
        places = [player.first + place for place, _ in wanted]
        return [
            Answer(
                Program(
                    asked.task.problem,
                    f"# {place}\nx = 1\n" if asked.task.before else wrong[place],
                    0,
                    (),
                ),
                "",
                0,
            )
            for place, (_, asked) in zip(places, wanted)
        ]

    monkeypatch.setattr(Player, "ask", ask)
    player = Player(None, None, 0, Truncation(0.8), 0)
    settings = PoolSettings(workers=1, tests="run_all", coverage="none")
    for name, window in (("out", 512), ("same", 4)):
        monkeypatch.setattr(drawing, "WINDOW", window)
        monkeypatch.setattr(asking, "WINDOW", window + 1)
        folder = Folder(tmp_path / name)
        folder.begin({})
        with open_pool(settings) as pool, Interrupt() as interrupt:
            jobs = drawing.draw_jobs(problems, 3, "me", 1.0)
            drawing.find_wrong(folder, jobs, pool, player, interrupt)
            known = {x.id: x for x in problems}
            contexts = asking.contexts_of(folder.wrong(), known, [Variant.DIRECT])
            teacher = asking.model_teacher("a teacher", 2, player)
            asking.collect_answers(folder, contexts, teacher, pool, "```", interrupt)
    assert kept(tmp_path / "out") == kept(tmp_path / "same")
    records = read_refinements([str(tmp_path / "same" / "records.jsonl")])
    places = [int(x.refinement.split("\n")[0].removeprefix("# ")) for x in records]
    assert places == list(range(2 * len(contexts))) and len(contexts) >= len(wrong) / 2
    assert {x.wrong for x in records} == set(wrong)
    assert {x.teacher for x in records} == {"a teacher"}
    assert not any(x.is_right for x in records)


@pytest.mark.long
def test_a_models_answers_are_those_of_the_seed_whatever_the_batch(
    run, tmp_path, capsys, monkeypatch
):
    """And what was drawn before a teacher failed is not lost: another answers it."""
    assert ask_run(run, tmp_path / "drawn") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    taken = tmp_path / "drawn" / "wrong.jsonl"
    assert error.startswith("stepcoder refine: --teacher: no answer can be kept: ")
    assert error.endswith(f"with another --out and --wrong {taken}")
    write_answers(monkeypatch)
    assert ask_run(run, tmp_path / "taken", "--wrong", str(taken)) == 0
    said = capsys.readouterr()
    assert "left out: 1 of 6 problems have no visible tests: no context" in said.err
    monkeypatch.setattr(drawing, "WINDOW", 4)
    monkeypatch.setattr(asking, "WINDOW", 5)
    assert ask_run(run, tmp_path / "same") == 0
    again = capsys.readouterr().err
    assert "of 15 programs, " in again and "window 2/" in again
    assert kept(tmp_path / "taken") == kept(tmp_path / "same")
    wrong = rows_of(taken)
    assert wrong == rows_of(tmp_path / "same" / "wrong.jsonl")
    assert wrong and {row["source"] for row in wrong} == {f"{run / 'run'}, reference"}
    records = read_refinements([str(tmp_path / "same" / "records.jsonl")])
    assert len(records) == 4 * len(wrong)  # two answers in two variants
    answers = {(x.wrong_id, x.variant, x.explanation) for x in records}
    assert len(answers) > len(records) / 2  # they are drawn
    assert {x.is_right for x in records} == {True, False}
    found = count_yield(records)
    assert found == Yield(len({row["task_id"] for row in wrong}), len(wrong), found.mended)
    assert f"{len(records)} answers: {len(records)} kept" in said.out
    right = sum(x.is_right for x in records)
    assert f"({len(records)}, of which {right} are right)" in said.out


def test_our_own_failures_are_dropped_by_name_and_count(
    files, tmp_path, capsys, monkeypatch
):
    def run_all(pool, programs, label):
        reports = generate.run_all(pool, programs, label)
        failed = Report(Verdict.INFRA, reports[1].tests, frozenset(), "why")
        return [reports[0], failed, *reports[2:]]

    for stage in (drawing, asking):
        monkeypatch.setattr(stage, "run_all", run_all)
    assert ask_rule(files, tmp_path / "out") == 2
    said = capsys.readouterr().out
    assert "1 programs were not judged (infra), and are left out: of dialect/train" in said
    assert "1 answers were not judged (infra), and are left out: of dialect/train" in said
    read_refinements([str(tmp_path / "out" / "records.jsonl")])


def test_a_resume_asks_for_the_same(files, ruled, tmp_path, capsys):
    assert ask_rule(files, ruled) == 2
    assert "is not empty; add --resume to go on" in capsys.readouterr().err
    assert ask_rule(files, ruled, "--resume", "--variant", "direct") == 2
    said = capsys.readouterr().err
    assert f"--variant: what is in {ruled} was begun with 'both', not 'direct'" in said
    assert said.count("\n") == 1
    cut = tmp_path / "cut"
    assert ask_rule(files, cut, "--variant", "direct") == 0
    with (cut / "records.jsonl").open("r+") as file:
        file.truncate(10)
    capsys.readouterr()
    assert ask_rule(files, cut, "--variant", "direct", "--resume") == 2
    assert "records.jsonl has 10 bytes, and state.json says" in capsys.readouterr().err


REFUSING = "{{ raise_exception('one turn alone') if messages | length > 1 }}"


def test_what_cannot_work_is_one_line_and_leaves_nothing(
    files, run, tmp_path, capsys, monkeypatch
):
    def refused(code, *words):
        error = capsys.readouterr().err
        last = error.splitlines()[-1]
        assert code == 2 and last.startswith("stepcoder refine: "), error
        assert all(word in last for word in words), last
        assert not (tmp_path / "out").exists()

    out = tmp_path / "out"
    refused(ask_rule(files, out, "--answers", "2"), "--answers: 2 of the rule")
    refused(ask_rule(files, out, "--problems"), "--problems: expected a problem file")
    refused(ask_rule(files, out, "--seed", "-1"), "--seed: expected 0 or more, got -1")
    shown = str(run / "shown.jsonl")
    refused(ask_rule(files, out, "--problems", shown), "of tier dialect")
    twice = [str(files / "dialect.jsonl"), str(tmp_path / "copy.jsonl")]
    (tmp_path / "copy.jsonl").write_bytes((files / "dialect.jsonl").read_bytes())
    refused(ask_rule(files, out, "--problems", *twice), "both have a problem")
    blind = tmp_path / "blind.jsonl"
    own.write(benchmark.load("validation")[:2], blind)
    refused(
        ask_run(run, out, "--problems", str(blind)),
        "--problems: none of the 2 problems has visible tests",
    )
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"task_id": "nobody", "solution": "", "passed": false}\n')
    refused(
        ask_rule(files, out, "--wrong", str(bad)),
        "--wrong: ",
        "bad.jsonl: line 1: field task_id",
    )
    refused(ask_run(run, out, "--teacher", "nowhere"), "nowhere")
    genuine = Coder.require_turns

    def require_turns(coder, problem):
        coder.tokenizer.chat_template = REFUSING
        genuine(
            coder._replace(prompt=dataclasses.replace(coder.prompt, template="chat")),
            problem,
        )

    monkeypatch.setattr(Coder, "require_turns", require_turns)
    refused(ask_run(run, out), "chat template refuses 3 turns", "one turn alone")


def test_contexts_that_are_too_long_are_named(ruled, capsys):
    problems = {x.id: x for x in dialect.generate("train", 3, (2, 2, 1))}
    folder = Folder(ruled)
    contexts = asking.contexts_of(folder.wrong(), problems, list(Variant))
    tokenizer = sources.load_tokenizer(ModelConfig(tokenizer="builtin"))
    prompt = PromptConfig(template="plain")
    sizes = [len(prompt_ids(x.task, tokenizer, prompt)) for x in contexts]
    prompt.max_prompt_length = int(np.median(sizes))
    coder = Coder(None, None, tokenizer, [], None, prompt)
    found = work.leave_out_long(contexts, coder, strict=False)
    short = [x for x, n in zip(contexts, sizes) if n <= prompt.max_prompt_length]
    assert found == short and 0 < len(short) < len(contexts)
    said = capsys.readouterr().err
    assert f"not asked: {len(contexts) - len(short)} prompts have more than" in said
    with pytest.raises(ConfigError, match=r"length: \d+ of 32 contexts have more than"):
        work.leave_out_long(contexts, coder, strict=True)
    prompt.max_prompt_length = 1
    with pytest.raises(ConfigError, match="--max-prompt-length: 32 of 32 contexts have"):
        work.leave_out_long(contexts, coder, strict=False)


TINY = """
from stepcoder_jax import config as c


def get_config(arg=""):
    return c.Config(
        model=c.ModelConfig(
            vocab_size=320, hidden_size=32, intermediate_size=64, num_layers=1, num_heads=2,
            num_kv_heads=1, head_dim=16, max_positions=512,
        ),
        prompt=c.PromptConfig(template="plain", max_prompt_length=384),
        sampling=c.SamplingConfig(max_completion_length=128),
        data=c.DataConfig(path=r"{path}", validation=r"{path}", test=r"{path}"),
        evaluation=c.EvaluationConfig(every=0, test_problems=0, batch_size=8),
        sft=c.SFTConfig(epochs=4, batch_size=8, packing=512, learning_rate=1e-2),
    )
"""


@pytest.mark.long
def test_records_of_the_warm_start_teach_a_model_that_is_evaluated(tmp_path, capsys):
    """Mechanics alone: the model has random weights, and learns for seconds."""
    path = tmp_path / "problems.jsonl"
    own.write(dialect.generate("train", 3, (8, 0, 0)), path)
    (tmp_path / "tiny.py").write_text(TINY.format(path=path))
    command = ["refine", "dialect", "--problems", str(path), "--teacher", "rule"]
    command += ["--samples-per-problem", "4", "--temperature", "1", *ROOM]
    assert main([*command, "--out", str(tmp_path / "refined")]) == 0
    records = str(tmp_path / "refined" / "records.jsonl")
    right = [x for x in read_refinements([records]) if x.is_right]
    assert right
    flags = ["--sft.records", records, "--run.folder", str(tmp_path / "run")]
    assert main(["sft", str(tmp_path / "tiny.py"), *flags]) == 0
    mended = len({x.wrong_id for x in right})
    assert f"{2 * mended} rows of refinements of " in capsys.readouterr().err
    evaluated = ["evaluate", str(tmp_path / "run"), "--rounds", "1", "--variant", "explain"]
    assert main([*evaluated, "--out", str(tmp_path / "evaluated")]) == 0
    tree = json.loads((tmp_path / "evaluated" / "results.json").read_text())
    assert tree["refinement"]["answers"] > 0
