"""What is found wrong with problems, and that nothing right is."""

import dataclasses

import pytest

from stepcoder_jax.data.curation import screening
from stepcoder_jax.data.curation.screening import Finding, Reason, Thresholds
from stepcoder_jax.data.curation.solutions import run_solutions, run_twice
from stepcoder_jax.data.generated import benchmark as generated
from stepcoder_jax.data.problems import read_any
from stepcoder_jax.execution import PoolSettings
from stepcoder_jax.records import Mode, Problem, Report, TestCase, TestResult, Verdict
from tests.execution.kit import make_settings, need_data

SETTINGS = make_settings(coverage="none")


def make_problem(name, solution, tests=(("1", "1"),), **fields):
    cases = tuple(TestCase(*test) for test in tests)
    problem = Problem(
        name, "Echo it.", "", solution, None, Mode.STDIN_MAIN, cases, "introductory"
    )
    return dataclasses.replace(problem, **fields)


def reasons(findings):
    return {item.id: item.reason for item in findings}


def test_static_findings():
    call = {"mode": Mode.CALL, "entry_point": "f"}
    problems = [
        make_problem("good", "print(input())"),
        make_problem("blank", " \n"),
        make_problem("broken", "print(input()"),
        make_problem("null", "x = '\0'"),
        make_problem("nameless", "1", mode=Mode.CALL, tests=(((1,), 1),)),
        make_problem("strange", "1", **call, tests=(((object(),), 1),)),
        make_problem("torn", "1", (("1", "1"), ("2", "1"), ("1", "2"))),
        make_problem("twice", "1", (("1", "1"), ("1", "1"))),
        make_problem("many", "1", statement="If there are several, print any of them."),
    ]
    found = screening.find_static("train", problems)
    assert {item.split for item in found} == {"train"}
    assert reasons(found) == {
        "blank": Reason.NO_SOLUTION,
        "broken": Reason.UNPARSABLE,
        "null": Reason.UNPARSABLE,
        "nameless": Reason.UNJUDGEABLE,
        "strange": Reason.UNJUDGEABLE,
        "torn": Reason.CONTRADICTORY,
        "many": Reason.SEVERAL_ANSWERS,
    }
    assert "SyntaxError" in next(item.detail for item in found if item.id == "broken")


@pytest.mark.parametrize(
    ("statement", "is_found"),
    [
        ("If there are multiple possible answers, print one.", True),
        ("If there are many\nsolutions, you may output any.", True),
        ("you are allowed to choose any correct option", True),
        ("Return the numbers in any order.", True),
        ("Find any point that belongs to it.", True),
        ("return an empty string if you did not find any vowel", False),
        ("Operations can be performed in any order. Print the count.", False),
        ("people who give different answers", False),
        ("he can choose any of them", False),
    ],
)
def test_words_of_several_answers(statement, is_found):
    problem = make_problem("p", "1", statement=statement)
    found = screening.find_static("train", [problem])
    assert [item.reason for item in found] == [Reason.SEVERAL_ANSWERS] * is_found


SET = "for word in {'a', 'b', 'c', 'd', 'e'}:\n    print(word)\n"


def test_solutions_are_run_twice():
    """A set of strings is printed in another order by the second run."""
    (sample,) = run_solutions([make_problem("set", SET)], SETTINGS, "once")
    order = sample.tests[0].stdout
    problems = [
        make_problem("good", "print(input())"),
        make_problem("wrong", "print(2)"),
        make_problem("crash", "import sys\nsys.stdin.x"),
        make_problem("slow", "while True: pass", cpu_seconds=1.0),
        make_problem("set", SET, (("", order),)),  # passes the first run
        make_problem("wrong set", SET, (("", "other"),)),
        make_problem("fair", "print(sorted({'a', 'b', 'c'}))", (("", "['a', 'b', 'c']"),)),
    ]
    ((name, (first, second)),) = run_twice({"test": problems}, SETTINGS).items()
    assert name == "test" and str(first[4].verdict) == "pass"
    found = screening.find_in_runs("test", problems, first, second)
    assert reasons(found) == {
        "wrong": Reason.FAILING,
        "crash": Reason.FAILING,
        "slow": Reason.TIMEOUT,
        "set": Reason.FLAKY,
        "wrong set": Reason.FLAKY,
    }
    details = {item.id: item.detail for item in found}
    assert details["set"] == "test 0: pass, then wrong"
    assert details["wrong set"] == "test 0: wrong twice, with other outputs"
    assert details["crash"] == "runtime in test 0 AttributeError at line 2"


def test_the_runs_of_several_splits_go_home():
    splits = {
        "train": [make_problem("a", "print(1)"), make_problem("b", "print(2)")],
        "test": [],
        "validation": [make_problem("c", "print(3)")],
    }
    found = run_twice(splits, SETTINGS)
    said = {
        split: [str(report.verdict) for report in reports[0]]
        for split, reports in found.items()
    }
    assert said == {"train": ["pass", "wrong"], "test": [], "validation": ["wrong"]}


def make_report(verdict, weak=False):
    return Report(verdict, (TestResult(verdict),), frozenset(), weak=weak)


def test_failures_of_ours_are_no_fault_of_the_problem():
    problem = make_problem("p", "1")
    good, infra = make_report(Verdict.PASS), make_report(Verdict.INFRA)
    for pair in ((good, infra), (infra, good)):
        (found,) = screening.find_in_runs("train", [problem], [pair[0]], [pair[1]])
        assert found.reason is Reason.INFRA
    assert Reason.INFRA not in screening.DROPPED
    weak = make_report(Verdict.PASS, weak=True)
    (found,) = screening.find_in_runs("train", [problem], [weak], [weak])
    assert found.reason is Reason.WEAK


TEXT = "Count the words of the longest line that begins with a vowel and print the number"


def test_duplicates_inside_and_across_splits():
    def named(name, text):
        return make_problem(name, "1", statement=text)

    splits = {
        "train": [
            named("a", TEXT),
            named("own", f"{TEXT} twice over"),
            named("own too", f"{TEXT} twice over!"),
            named("x", "Add two numbers."),
        ],
        "validation": [named("b", TEXT.upper()), named("y", "Subtract two numbers now.")],
        "test": [named("c", f"{TEXT}.")],
    }
    found = screening.find_duplicates(splits, set(), Thresholds())
    assert [(item.split, item.id, item.detail) for item in found] == [
        ("validation", "b", "of test c, Jaccard 1.00"),
        ("train", "a", "of test c, Jaccard 1.00"),
        ("train", "own", "of test c, Jaccard 0.86"),
        ("train", "own too", "of test c, Jaccard 0.86"),
    ]
    gone = {("test", "c"), ("validation", "b"), ("train", "a")}
    found = screening.find_duplicates(splits, gone, Thresholds())
    assert [(item.id, item.detail[:12]) for item in found] == [("own too", "of train own")]


def test_what_is_dropped_drops_no_other():
    """b is like a and goes; c is like b alone, and stays."""
    words = [f"w{i}" for i in range(40)]
    texts = [words[:32], words[3:35], words[6:38]]
    problems = [
        make_problem(name, "1", statement=" ".join(text))
        for name, text in zip("abc", texts)
    ]
    found = screening.find_duplicates({"train": problems}, set(), Thresholds(0.8, 5))
    assert [item.id for item in found] == ["b"]


def test_the_random_names_of_functions_do_not_count():
    def posed(name):
        text = f"def {name}(): {name} adds {name} and {name}"
        return make_problem(name, "1", statement=text, entry_point=name, mode=Mode.STDIN_FN)

    splits = {"train": [posed("abcde"), posed("vwxyz")]}
    assert len(screening.find_duplicates(splits, set(), Thresholds())) == 1


def test_contamination_and_duplicated_lines():
    gram = "one two three four five six seven eight nine ten"
    benchmark = [
        make_problem("B/0", "x = 1\ny = 2\nz = 3\n", statement=f"begin {gram} end"),
        make_problem("B/1", "def f():\n    return 1\n", statement="no words of these"),
        make_problem("B/2", "head\nw=1", starter_code="head\n", statement="nothing"),
        make_problem("B/3", "", statement=""),
    ]
    train = [
        make_problem("t", "x = 1\n  y = 2\nw=1", statement="other"),
        make_problem("u", f"# {gram.upper()}\n", statement="other"),
        make_problem("v", "1", statement="one two three four five six seven eight nine"),
    ]
    found, told = screening.find_contamination(train, "bench", benchmark, Thresholds())
    assert found == [
        Finding("train", "u", Reason.CONTAMINATED, f"bench B/0: {gram}"),
    ]
    assert told == screening.BenchmarkOverlap(
        "bench", 4, ("B/0",), ("B/0", "B/2"), (2, 0, 0, 0, 0, 0, 1, 0, 0, 1)
    )


@pytest.fixture(scope="module")
def genuine():
    problems, _ = read_any(str(need_data("apps_plus/problems.json")), strict=True)
    return problems


def test_the_genuine_file_has_several_answers_and_no_near_duplicates(genuine):
    found = screening.find_static("train", genuine)
    assert {item.reason for item in found} == {Reason.SEVERAL_ANSWERS}
    assert len(found) == 12
    assert screening.find_duplicates({"train": genuine}, set(), Thresholds()) == []


def test_the_genuine_benchmarks_against_the_genuine_file(genuine):
    benchmark, _ = read_any(str(need_data("humaneval/HumanEval.jsonl.gz")), strict=True)
    found, told = screening.find_contamination(genuine, "h", benchmark, Thresholds())
    assert found == [] and sum(told.tenths) == 164
    assert len(told.over_half) == 8


def test_the_generated_problems_are_sound():
    problems = generated.generate("validation", 11, (10, 10, 10))
    splits = {"validation": problems}
    assert screening.find_static("validation", problems) == []
    runs = run_twice(splits, PoolSettings(coverage="none"))["validation"]
    assert screening.find_in_runs("validation", problems, *runs) == []
