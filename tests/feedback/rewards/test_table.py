"""Each reward by hand, their sum, and those of a user's own."""

import re
from pathlib import Path

import numpy as np
import pytest

from stepcoder_jax.config import ConfigError, RewardConfig
from stepcoder_jax.feedback.rewards import batch, own, table
from stepcoder_jax.feedback.rewards.located import find_span
from stepcoder_jax.feedback.rewards.table import TABLE, load_terms
from stepcoder_jax.feedback.rewards.terms import Extras, OwnRewardError, tokens_on
from stepcoder_jax.records import Mode, Problem, Program, Report, TestResult, Verdict

V = Verdict
SOLUTION = "def f(a):\n    b = a\n    return b\n"
PROBLEM = Problem("p", "", "", SOLUTION, "f", Mode.CALL, (), "interview")
GUIDE = Path(table.__file__).with_name("README.md")


def of_words(source, head=""):
    """A program with a token for each word and each white space, and EOS."""
    start, spans = len(head), []
    for word in re.findall(r"\s+|\w+|.", source):
        spans.append((start, start + len(word)))
        start += len(word)
    return Program(PROBLEM, head + source, len(head), (*spans, None))


def judged(verdict, *tests):
    return Report(verdict, tests, frozenset())


def extras(program, limit=20, truncated=False, **knobs):
    return Extras(RewardConfig(**knobs), len(program.token_spans), limit, truncated)


def value(name, program, report, **more):
    return TABLE[name](program, report, extras(program, **more))


def results_of(*verdicts):
    return tuple(TestResult(verdict) for verdict in verdicts)


def test_pass_ratio_goes_from_the_wrong_answer_to_the_pass():
    program = of_words("a")

    def of(*verdicts):
        first = next((v for v in verdicts if v is not V.PASS), V.PASS)
        return value("pass_ratio", program, judged(first, *results_of(*verdicts)))

    assert of(V.WRONG, V.WRONG) == -0.3
    assert of(V.PASS, V.PASS) == pytest.approx(1.0)
    assert of(V.PASS, V.WRONG, V.RUNTIME, V.PASS) == pytest.approx(-0.3 + 1.3 / 2)
    # a timeout ends the tests: those that were not run do not pass
    assert of(V.PASS, V.TIMEOUT, V.NOT_RUN, V.NOT_RUN) == pytest.approx(-0.3 + 1.3 / 4)
    assert value("pass_ratio", program, judged(V.COMPILE)) == -0.3
    assert value("pass_ratio", program, judged(V.PASS)) == pytest.approx(1.0)


# tokens: `x`,` `,`=`,` `,`1`,`\n`, 6 `if`,` `,`x`,`:`, 10 `\n    `, `y`,` `,`=`,` `,`2`,
# 16 `/`,`0`, 18 `\n`, 19 EOS
TEXT = "x = 1\nif x:\n    y = 2/0\n"
LINE_3 = {*range(11, 18)}
CODE = {*range(19)}


@pytest.mark.parametrize(
    ("verdict", "error", "line", "places"),
    [
        (V.RUNTIME, "ZeroDivisionError", 3, LINE_3),
        (V.RUNTIME, "NameError", 1, {*range(5)}),
        (V.RUNTIME, "ModuleNotFoundError", 2, {6, 7, 8, 9}),
        (V.RUNTIME, "RecursionError", 3, CODE),
        (V.TIMEOUT, "CPU time", None, CODE),
        (V.TIMEOUT, "wall time", None, CODE),
        (V.COMPILE, "SyntaxError", 1, {*range(5)}),
        (V.COMPILE, "SyntaxError", 3, CODE),  # the last line: it is not finished
        (V.COMPILE, "SyntaxError", 4, CODE),  # or behind it
        (V.COMPILE, "IndentationError", 3, LINE_3 | {10}),  # the blanks are the error
        (V.COMPILE, "TabError", 3, set()),
        (V.COMPILE, "CompilerKilled", None, set()),
        (V.RUNTIME, "RuntimeError", 3, set()),
        (V.RUNTIME, "signal 11", None, set()),
        (V.RUNTIME, "ValueError", 99, set()),  # no line of the program
        (V.MEMORY, "MemoryError", None, set()),
        (V.OUTPUT, "", None, set()),
        (V.WRONG, "", None, set()),
        (V.PASS, "", None, set()),
    ],
)
def test_an_error_is_felt_where_its_class_says(verdict, error, line, places):
    program = of_words(TEXT)
    report = judged(verdict, TestResult(V.PASS), TestResult(verdict, error, line))
    paper = value("located", program, report)
    assert set(np.flatnonzero(paper)) == places
    released = value("located", program, report, located_alpha="released")
    assert set(np.flatnonzero(released)) == places
    if places:
        # alpha = T / |span| and a mean over T: the span has -0.3 in all
        np.testing.assert_allclose(paper[list(places)], -0.3 / len(places))
        np.testing.assert_allclose(released[list(places)], -0.3 / 20)


def test_the_words_of_an_error_say_nothing():
    """RLTF's rules match the wording of Python 3.9."""
    program = of_words(TEXT)
    spans = {
        find_span(program, Report(V.COMPILE, (failed,), frozenset(), message))
        for failed in [TestResult(V.COMPILE, "SyntaxError", 2)]
        for message in ("SyntaxError: unexpected EOF (line 2)", "", "x (line 1)")
    }
    assert spans == {(6, 11)}


def test_an_error_in_what_was_given_is_felt_nowhere():
    program = of_words("y = 2\n", head="x = 1/0\n")
    report = judged(V.RUNTIME, TestResult(V.RUNTIME, "ZeroDivisionError", 1))
    assert not value("located", program, report).any()
    late = judged(V.TIMEOUT, TestResult(V.TIMEOUT, "CPU time"))
    assert set(np.flatnonzero(value("located", program, late))) == set(range(6))


def test_lines_end_as_those_of_the_parser():
    program = of_words("a\r\nb\x0bc\rd\n")
    report = judged(V.RUNTIME, TestResult(V.RUNTIME, "KeyError", 3))
    assert find_span(program, report) == (7, 8)


def test_tokens_that_split_a_character_are_on_its_span():
    program = Program(PROBLEM, "\u00e9=1\n", 0, ((0, 1), (1, 2), (2, 4), (4, 5), None))
    assert tokens_on(program, (0, 2)).tolist() == [True, True, False, False, False]
    assert tokens_on(program, (1, 1)).tolist() == [False] * 5


def test_structure_is_trees_and_flow_by_hand():
    """One edge of the solution's two: a -> b, b -> the return."""
    assert value("structure", of_words(SOLUTION), judged(V.PASS)) == pytest.approx(2.0)
    renamed = SOLUTION.replace("b", "c")
    assert value("structure", of_words(renamed), judged(V.PASS)) == pytest.approx(2.0)
    assert value("structure", of_words("def f(:\n"), judged(V.COMPILE)) == 0.0
    # trees: def, arguments, assignment, return; here def, arguments, return: the return
    # and the arguments are the same, 2 * 2 / (4 + 3). flow: (a, return) for (a, b) and
    # (b, return): none
    short = "def f(a):\n    return a\n"
    assert value("structure", of_words(short), judged(V.PASS)) == pytest.approx(4 / 7)


def test_length_and_format():
    program = of_words("a b")  # 3 tokens and EOS
    assert value("length", program, judged(V.PASS), limit=16) == 0.25
    assert value("format", program, judged(V.PASS)) == 0.0
    assert value("format", program, judged(V.PASS), truncated=True) == -1.0
    assert value("format", of_words(" \n", head="x = 1\n"), judged(V.PASS)) == -1.0


def add_up(terms, program, report, columns=20, rows=1):
    mask = np.arange(columns)[None] < len(program.token_spans)
    rewards, told = batch.add_up(
        terms, [program] * rows, [report] * rows, mask.repeat(rows, 0), RewardConfig()
    )
    return rewards, {name: batch.mean_of(told[name]) for name in told}


def test_terms_add_up_and_each_is_logged():
    """-0.3 on 7 tokens of the line, -0.6 and 2 * (-0.3 + 1.3 / 2) on the last."""
    terms = load_terms(("stepcoder", "located", "pass_ratio=2"), "run_all")
    report = judged(V.RUNTIME, TestResult(V.PASS), TestResult(V.RUNTIME, "KeyError", 3))
    rewards, told = add_up(terms, of_words(TEXT), report, columns=24)
    wanted = np.zeros(24)
    wanted[11:18], wanted[19] = -0.3 / 7, -0.6 + 2 * 0.35
    np.testing.assert_allclose(rewards[0], wanted, rtol=1e-6)
    assert told == pytest.approx(
        {"reward/stepcoder": -0.6, "reward/located": -0.3, "reward/pass_ratio": 0.7}
    )
    assert sum(told.values()) == pytest.approx(rewards.sum())


def test_what_nobody_may_learn_from_asks_no_reward(tmp_path):
    file = tmp_path / "r.py"
    file.write_text("def fail(program, report, extras):\n    raise KeyError\n")
    terms = load_terms((f"{file}:fail",), "run_all")
    rewards, told = add_up(terms, of_words("a"), judged(V.INFRA))
    assert not rewards.any() and np.isnan(told["reward/fail"])


def test_the_guides_example_works(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(
        re.search(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)[1]
    )
    command = re.search(r"```\n(stepcoder train .*?)```", GUIDE.read_text(), re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    texts = command.partition("--reward.terms ")[2].split()
    terms = load_terms(texts, "run_all")
    assert [term.weight for term in terms] == [1.0, 0.5, 0.1]
    program = of_words("y = eval(x)\nz = eval(eval(y))\n")
    report = judged(V.WRONG, *results_of(V.PASS, V.WRONG, V.PASS))
    rewards, told = add_up(terms, program, report, columns=30)
    assert told == pytest.approx(
        {"reward/stepcoder": -0.3, "reward/most_pass": 0.5, "reward/no_eval": -0.3}
    )
    # `eval` and `(` share the -0.1 of each
    assert rewards[0, 4] == rewards[0, 5] == pytest.approx(-0.05)
    with pytest.raises(ConfigError, match=r"most_pass reads all tests.* run_all$"):
        load_terms(texts, "early_exit")
    lines = GUIDE.read_text()
    assert all(f"| `{name}` |" in lines for name in TABLE)


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (("stepcoder", "bleu"), "there is no reward 'bleu'; expected one of stepcoder, pa"),
        (("located", "located=2"), "2 terms are named located, and each is logged by"),
        (("pass_ratio",), "pass_ratio reads all tests, and execution.tests early_exit st"),
        (("none.py:f",), "none.py does not exist; expected a Python file"),
        (("r.py:g",), r"expected a function g of .* in r.py, which has none"),
        (("r.py:x",), r"expected a function x of .* in r.py, which holds a int"),
        (("broken.py:f",), "broken.py, line 2: SyntaxError: '.' was never closed"),
        (("raises.py:f",), "raises.py, line 1: ZeroDivisionError: division by zero"),
        (("exits.py:f",), r"exits.py, line 1: it ended the program \(SystemExit 3\)"),
    ],
)
def test_what_cannot_be_a_term_is_told_in_one_line(texts, why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("r.py").write_text("x = 1\ndef f(program, report, extras): return 1\n")
    Path("broken.py").write_text("x = 1\nf = (\n")
    Path("raises.py").write_text("1 / 0\n")
    Path("exits.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(ConfigError, match=rf"^reward.terms: (\S*/)?{why}") as told:
        load_terms(texts, "early_exit")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("return {}['x']", "failed: .*r.py, line 2: KeyError: 'x'"),
        ("return 'good'", "returned a str"),
        ("return None", "returned what is not finite"),
        ("return [1, 2]", r"returned the shape \(2,\)"),
        ("return [[1], [2, 3]]", "returned a list"),
        ("return float('nan')", "returned what is not finite"),
        ("return 1e39", "returned what is not finite, or is beyond 1e.06"),
        ("raise SystemExit", "failed: .* it ended the program"),
    ],
)
def test_a_reward_that_fails_names_its_row(body, why, tmp_path):
    file = tmp_path / "r.py"
    file.write_text(f"def own(program, report, extras):\n    {body}\n")
    terms = load_terms((f"{file}:own",), "early_exit")
    with pytest.raises(OwnRewardError, match=f"^reward.terms: own {why}") as told:
        add_up(terms, of_words("a b"), judged(V.PASS))
    said = str(told.value)
    assert "\n" not in said and "row 0 of the batch, problem 'p'" in said
    assert said.endswith(f"the row's 4 tokens; mend {file}")


def test_a_reward_of_ours_that_fails_is_no_users_fault():
    report = judged(V.NOT_RUN)
    with pytest.raises(ValueError, match="expected the verdict") as told:
        add_up(table.PAPER, of_words("a"), report)
    assert not isinstance(told.value, OwnRewardError)


def test_a_file_runs_once_for_all_its_functions_and_again_when_it_has_changed(tmp_path):
    file, runs = tmp_path / "r.py", tmp_path / "runs"
    body = "one = two = lambda program, report, extras: 0.0\n"
    body += f"print('run', file=open({str(runs)!r}, 'a'))\n"
    file.write_text(body)
    for _ in range(2):  # before anything is built, and for the run
        load_terms((f"{file}:one", f"{file}:two"), "run_all")
    assert runs.read_text() == "run\n"
    file.write_text(body + "one = two\n")
    load_terms((f"{file}:one",), "run_all")
    assert runs.read_text() == "run\nrun\n"


def test_a_run_keeps_its_files_and_refuses_others(tmp_path):
    file, kept = tmp_path / "r.py", tmp_path / "rewards"
    file.write_text("def one(program, report, extras):\n    return 1\n")
    texts = ("stepcoder", f"{file}:one=0.5", f"{file}:two")
    own.keep(("stepcoder",), kept)
    assert not kept.exists()
    own.keep(texts, kept)
    assert [path.name for path in kept.iterdir()] == ["0_r.py"]
    own.check_kept(texts, kept)
    assert own.digests(texts) == {str(file): own.digest(kept / "0_r.py")}
    file.write_text("def one(program, report, extras):\n    return 2\n")
    with pytest.raises(
        ConfigError, match=r"^reward.terms: .*r.py has changed since the ru"
    ):
        own.check_kept(texts, kept)
    # what reads the run alone takes its copy
    (term,) = load_terms((f"{file}:one",), "run_all", kept)
    assert term.reward(None, None, None) == 1
    (kept / "0_r.py").unlink()
    with pytest.raises(ConfigError, match=r"the run has no copy of .*r.py in "):
        own.check_kept(texts, kept)
