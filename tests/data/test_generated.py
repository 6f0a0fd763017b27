"""The generated benchmark: deterministic, honest, and solved by its own solutions."""

import ast
import collections
import dataclasses
import functools
import hashlib
import json
import typing

import numpy as np
import pytest

from stepcoder_jax.config import ModelConfig
from stepcoder_jax.data import tokenizer
from stepcoder_jax.data.formats import apps_plus
from stepcoder_jax.data.generated import benchmark, lexicon, parts, splits
from stepcoder_jax.execution import Pool
from stepcoder_jax.feedback import cuts, prompts
from stepcoder_jax.feedback.stages import num_stages
from stepcoder_jax.records import Mode, Program, Verdict
from stepcoder_jax.runs.disk import sources
from tests.execution.kit import make_settings

SPLITS = typing.get_args(splits.Split)
LINES = {"introductory": (4, 8), "interview": (8, 13), "competition": (12, 25)}


@functools.cache
def problems_of(split):
    return benchmark.load(split)


def everything():
    return [problem for split in SPLITS for problem in problems_of(split)]


def test_the_same_seed_gives_the_same_problems():
    small = benchmark.generate("train", 7, (10, 10, 5))
    assert small == benchmark.generate("train", 7, (10, 10, 5))
    assert small != benchmark.generate("train", 8, (10, 10, 5))
    again = benchmark.generate("test", benchmark.SEED, benchmark.SIZES["test"])
    assert again == problems_of("test")


def test_every_machine_has_the_same_test_split():
    """Change this with the benchmark alone: results before and after do not compare."""
    rows = [benchmark.to_apps_plus(problem) for problem in problems_of("test")]
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] == "351d52321ab3a134"


@pytest.mark.parametrize(
    "split", [pytest.param(x, marks=[pytest.mark.slow] * (x == "sft")) for x in SPLITS]
)
def test_sizes(split):
    problems = problems_of(split)
    counts = collections.Counter(problem.difficulty for problem in problems)
    sizes = benchmark.SIZES[split]
    assert counts == dict(zip(benchmark.DIFFICULTIES, sizes, strict=True))
    assert len({problem.id for problem in problems}) == len(problems)
    assert len({problem.statement for problem in problems}) == len(problems)


@pytest.mark.long
def test_there_are_thousands_and_enough_to_measure():
    assert len(everything()) >= 5000
    assert len(problems_of("test")) >= 300


def test_problems_have_tests_of_both_kinds():
    modes = collections.Counter(problem.mode for problem in everything())
    assert set(modes) == {Mode.CALL, Mode.STDIN_FN}
    assert min(modes.values()) > 0.4 * len(everything())
    for problem in everything():
        assert len(problem.tests) >= 5
        assert len({str(test.inputs) for test in problem.tests}) == len(problem.tests)
        assert len({str(test.expected) for test in problem.tests}) >= 3
        for test in problem.tests:
            kind = tuple if problem.mode is Mode.CALL else str
            assert isinstance(test.inputs, kind)


def test_difficulties_have_their_length_and_their_number_of_parts():
    for problem in everything():
        low, high = LINES[problem.difficulty]
        assert low <= problem.solution.count("\n") <= high, problem.id
        sentences = problem.statement.count(".")
        least = {"introductory": 2, "interview": 3, "competition": 4}[problem.difficulty]
        assert sentences >= least, problem.id


def test_the_curriculum_has_one_to_three_stages():
    counts = [len(cuts.problem_conditionals(problem)) for problem in everything()]
    stages = collections.Counter(map(num_stages, counts))
    assert min(counts) == 0 and max(counts) <= 9
    assert set(stages) == {1, 2, 3}
    # enough of each for a curriculum to be one
    assert stages[2] + stages[3] > len(counts) / 2 and stages[3] > len(counts) / 50


def test_no_solution_is_in_two_splits():
    homes = {}
    for split in SPLITS:
        for problem in problems_of(split):
            assert homes.setdefault(problem.solution, split) == split, problem.id


def blank(source):
    """The tree with names numbered in order of appearance and constants blanked; written
    apart from `benchmark.skeleton`, which it checks.
    """
    names = {}

    class Blank(ast.NodeTransformer):
        def visit(self, node):
            for field in ("id", "arg", "name", "attr"):
                if isinstance(getattr(node, field, None), str) and field != "attr":
                    name = getattr(node, field)
                    setattr(node, field, names.setdefault(name, str(len(names))))
            if isinstance(node, ast.Constant):
                node.value = None
            return self.generic_visit(node)

    return ast.dump(Blank().visit(ast.parse(source)))


def test_no_competition_skeleton_is_in_two_splits():
    homes = {}
    for split in SPLITS:
        for problem in problems_of(split):
            if problem.difficulty == "competition":
                key = blank(problem.solution)
                assert homes.setdefault(key, split) == split, problem.id
    assert len(set(homes.values())) == len(SPLITS)


def test_skeletons_forget_names_and_constants_alone():
    one = benchmark.skeleton("def f(a):\n    return a + 1\n")
    assert one == benchmark.skeleton("def g(b):\n    return b + 20\n")
    assert one != benchmark.skeleton("def f(a):\n    return a - 1\n")
    assert one != benchmark.skeleton("def f(a):\n    return f + 1\n")


def flat_inputs(problem, test):
    return test.inputs[0] if problem.mode is Mode.CALL else test.inputs.split()


def lazy_programs(problem):
    """A constant, an echo, the answer to the first sample, and parts of the input."""
    first = problem.tests[0].expected
    read = "xs = list(map(int, input().split()))"
    said = {
        "zero": "0",
        "first sample": repr(first if problem.mode is Mode.CALL else int(first)),
        "echo": "xs",
        "first number": "xs[0]",
        "length": "len(xs)",
    }
    for name, value in said.items():
        if problem.mode is Mode.CALL:
            yield name, f"def solve(xs):\n    return {value}\n"
        else:
            shown = "*xs" if value == "xs" else value
            yield name, f"def solve():\n    {read}\n    print({shown})\n"


def test_lazy_programs_pass_at_most_one_percent():
    problems = problems_of("test")[:200]
    named = [(name, p, s) for p in problems for name, s in lazy_programs(p)]
    programs = [Program(p, source, 0, ()) for _, p, source in named]
    with Pool(make_settings(workers=2)) as pool:
        reports = pool.run(programs)
    limits = {"first number": 0.05, "length": 0.05}  # may be the answer by nature
    verdicts = collections.defaultdict(collections.Counter)
    for (name, _, _), report in zip(named, reports, strict=True):
        verdicts[name][report.verdict] += 1
    for name, counts in verdicts.items():
        assert counts[Verdict.PASS] <= limits.get(name, 0.01) * len(problems), name
        assert counts[Verdict.WRONG] >= 0.9 * len(problems), name  # they do run


def test_no_constant_or_echo_can_pass_anywhere():
    for problem in everything():
        expected = [str(test.expected).strip() for test in problem.tests]
        assert len(set(expected)) > 1
        echoes = [
            " ".join(map(str, flat_inputs(problem, test))) == answer
            for test, answer in zip(problem.tests, expected, strict=True)
        ]
        assert not all(echoes)


def judge_solutions(problems):
    programs = [Program(problem, problem.solution, 0, ()) for problem in problems]
    with Pool(make_settings(workers=2, tests="run_all")) as pool:
        reports = pool.run(programs)
    failing = [p.id for p, report in zip(problems, reports) if not report.passed]
    assert not failing
    return reports


def test_canonical_solutions_pass():
    sample = [problem for split in SPLITS for problem in problems_of(split)[::40]]
    reports = judge_solutions(sample)
    # the tests reach nearly all of the code, so a mask speaks of the program, not of them
    statements = [
        sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(p.solution)))
        for p in sample
    ]
    shares = [len(report.executed) / n for report, n in zip(reports, statements)]
    assert np.mean(shares) > 0.97


@pytest.mark.slow
def test_every_canonical_solution_passes():
    judge_solutions(everything())


def test_expected_outputs_come_from_the_meaning_not_from_the_text():
    """A part whose code is broken still has the right expected outputs."""
    wording = parts.Wording(np.random.default_rng(0), rare=0.0, scrambled=False)
    total = parts.reduction("sum", wording, filtered=False)
    broken = dataclasses.replace(total, code=("    this is no Python",))
    draft = benchmark.Draft((broken,), Mode.CALL, "", "")
    tests = benchmark.draw_tests(draft, np.random.default_rng(1))
    honest = benchmark.draw_tests(draft._replace(chain=(total,)), np.random.default_rng(1))
    assert tests is not None and tests == honest


def test_meanings_by_hand():
    xs = [3, -4, 3, 10, 7, -2]
    plain = parts.Wording(np.random.default_rng(3), rare=0.0, scrambled=False)
    expected = {
        "unique": [3, -4, 10, 7, -2],
        "running": [3, -1, 2, 12, 19, 17],
        "gaps": [-7, 7, 7, -3, -9],
    }
    for kind, ys in expected.items():
        assert parts.step(kind, plain).run(xs) == ys
    results = {"sum": 17, "count": 6, "largest": 10, "smallest": -4, "first": 3}
    results |= {"last": -2, "alternating": 3 + 4 + 3 - 10 + 7 + 2}
    for kind, y in results.items():
        assert parts.REDUCERS[kind].run(xs) == y
    even = lexicon.PREDICATES["even"]
    assert [x for x in xs if even.run(x, 0)] == [-4, 10, -2]
    assert [lexicon.MAPS["half"].run(x, 0) for x in (7, -7)] == [3, -4]


@pytest.mark.parametrize("table", [lexicon.PREDICATES, lexicon.MAPS], ids=["tests", "maps"])
def test_code_and_meaning_of_each_word_agree(table):
    for name, concept in table.items():
        for k in concept.constants:
            code = compile(concept.code.format(k=k), name, "eval")
            for x in range(-30, 31):
                assert eval(code, {"x": x}) == concept.run(x, k), (name, k, x)


def test_rare_wordings_mean_what_they_mean_outside_the_supervised_part_alone():
    for split in SPLITS:
        posed = [p.solution for p in problems_of(split) if "headcount" in p.statement]
        share = np.mean(["count += 1" in solution for solution in posed])
        assert len(posed) > 3
        assert share < 0.5 if split in benchmark.SCRAMBLED else share == 1, split


def test_apps_plus_file_round_trip(tmp_path):
    problems = problems_of("validation")
    benchmark.write(problems, tmp_path / "problems.json")
    read, complaints = apps_plus.read_problems(str(tmp_path / "problems.json"), strict=True)
    assert not complaints and len(read) == len(problems)
    for ours, theirs in zip(problems, read, strict=True):
        for field in ("id", "starter_code", "solution", "mode", "tests", "difficulty"):
            assert getattr(ours, field) == getattr(theirs, field), field
        assert ours.entry_point == theirs.entry_point == "solve"
        assert ours.statement in theirs.statement


def test_scope_lists_blocks_with_their_lines(tmp_path):
    problem = problems_of("validation")[0]
    row = benchmark.to_apps_plus(problem)
    lines = problem.solution.splitlines()
    words = {"Function": "def ", "For": "for ", "While": "while ", "If": "if "}
    assert row["scope"][0] == ["Function", 1, len(lines)]
    for kind, start, stop in row["scope"]:
        assert lines[start - 1].strip().startswith(words[kind])
        assert start <= stop <= len(lines)
    conditionals = [entry for entry in row["scope"] if entry[0] != "Function"]
    assert len(conditionals) == len(cuts.problem_conditionals(problem))
    assert json.loads(json.dumps(row)) == row


# The tokenizer.
@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [
        f"{p.statement}\n```python\n{p.solution}```" for p in problems_of("validation")
    ]
    tokenizer.train(texts, 400, folder)
    return folder, sources.load_tokenizer(ModelConfig(tokenizer=str(folder)))


def test_every_text_survives_the_tokenizer(trained):
    _, encoder = trained
    table = prompts.token_bytes(encoder)
    texts = ["def f(x):\n\treturn 'é漢🙂'  # \r\n", "\x00\x7f", "   \n\n  x", "```"]
    for text in [*texts, *(p.solution for p in problems_of("test")[:50])]:
        ids = encoder.encode(text, add_special_tokens=False)
        assert b"".join(table[token] for token in ids) == text.encode()


def test_text_cut_after_a_line_has_the_tokens_of_the_whole(trained):
    """So that a curriculum prompt looks to the model like its training rows."""
    _, encoder = trained
    for problem in problems_of("test")[:50]:
        whole = encoder.encode(problem.solution, add_special_tokens=False)
        lines = problem.solution.splitlines(keepends=True)
        for place in range(1, len(lines)):
            parts_of = ["".join(lines[:place]), "".join(lines[place:])]
            ids = [encoder.encode(text, add_special_tokens=False) for text in parts_of]
            assert ids[0] + ids[1] == whole


def test_the_tokenizer_has_its_size_and_one_special_token(trained, tmp_path):
    folder, encoder = trained
    assert len(encoder) == 400
    assert encoder.all_special_tokens == [tokenizer.END] == [encoder.eos_token]
    texts = [
        f"{p.statement}\n```python\n{p.solution}```" for p in problems_of("validation")
    ]
    tokenizer.train(texts, 400, tmp_path)
    again, first = ((place / "tokenizer.json") for place in (tmp_path, folder))
    assert again.read_bytes() == first.read_bytes()
