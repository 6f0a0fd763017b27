"""The dialect tier: deterministic, disjoint; feedback settles a part, nothing else does."""

import collections
import hashlib
import itertools
import json
import re
import typing

import numpy as np
import pytest

from stepcoder_jax.config import ModelConfig, PromptConfig
from stepcoder_jax.data.formats import own
from stepcoder_jax.data.generated import dialect, guarded, splits, teaching, tiers
from stepcoder_jax.execution import Pool
from stepcoder_jax.feedback import prompts, turns
from stepcoder_jax.records import Attempt, InputError, Program, Task, Variant, Verdict
from stepcoder_jax.runs.disk.sources import load_tokenizer
from tests.execution.kit import make_settings

SPLITS = typing.get_args(splits.Split)
DIGESTS = {
    "sft": "3236896606237bb8",
    "train": "253ef508cebe9134",
    "validation": "972008408feba779",
    "test": "0474ecaf0f1a0e6b",
}


@pytest.fixture(scope="module")
def problems():
    return {split: tiers.load("dialect", split) for split in SPLITS}


def value_of(source, k, x):
    scope = {}
    exec(source, scope)
    return scope["solve"](k, x)


def passes(source, tests):
    return all(value_of(source, *test.inputs) == test.expected for test in tests)


def test_every_machine_has_the_same_problems(problems):
    """Change these with the tier alone: results before and after do not compare."""
    for split in SPLITS:
        rows = json.dumps([own.to_row(problem) for problem in problems[split]])
        assert hashlib.sha256(rows.encode()).hexdigest()[:16] == DIGESTS[split], split


def test_sizes(problems):
    for split in SPLITS:
        counts = collections.Counter(p.difficulty for p in problems[split])
        assert counts == dict(zip(dialect.PARTS, dialect.SIZES[split], strict=True))
        assert len({p.id for p in problems[split]}) == sum(dialect.SIZES[split])
        for problem in problems[split]:
            count = dialect.PARTS[problem.difficulty]
            assert len(dialect.meanings_of(problem)) == count
            assert len(set(problem.statement.split())) == 2 + 3 * count


def test_no_statement_occurs_twice(problems):
    everything = list(itertools.chain(*problems.values()))
    assert len({p.statement for p in everything}) == len(everything)


def test_visible_tests_execute_one_part_each_and_hidden_tests_every_part(problems):
    for problem in problems["test"]:
        count = dialect.PARTS[problem.difficulty]
        visible = [test.inputs[0] for test in problem.visible_tests]
        hidden = [test.inputs[0] for test in problem.tests]
        assert visible == [1 << i for i in range(count)]
        assert sorted(hidden) == sorted([(1 << count) - 1] * 2 + visible)
        shown = {test.inputs for test in problem.visible_tests}
        assert not shown & {test.inputs for test in problem.tests}
        for test in problem.visible_tests:
            x = test.inputs[1]
            values = [dialect.apply(operation, x) for operation in dialect.OPERATIONS]
            assert len(set(values)) == 4 and all(0 <= value <= 9 for value in values)


def test_hidden_tests_pass_the_right_program_alone(problems):
    for problem in problems["validation"][:60]:
        meanings = dialect.meanings_of(problem)
        programs = {
            combination: dialect.write_program(combination)
            for combination in itertools.product(dialect.OPERATIONS, repeat=len(meanings))
        }
        for combination, source in programs.items():
            is_right = list(combination) == meanings
            assert passes(source, problem.tests) == is_right
            assert passes(source, problem.visible_tests) == is_right
        assert programs[tuple(meanings)] == problem.solution


def read_feedback(text):
    """A reader who knows the four operations: the part's number, and what it means."""
    found = re.search(r"Call: solve\((\d+), (\d+)\)\nExpected: (\d+)\nGot: (\d+)$", text)
    k, x, expected = map(int, found.groups()[:3])
    fits = [
        operation
        for operation in dialect.OPERATIONS
        if value_of(f"def solve(k, x):\n    x {operation}\n    return x", k, x) == expected
    ]
    return k, fits


def test_an_expected_digit_has_one_meaning():
    pairs = itertools.product(dialect.XS, dialect.OPERATIONS)
    values = [dialect.apply(operation, x) for x, operation in pairs]
    assert len(set(values)) == 8 and set(values) <= set(range(10))


def test_feedback_of_the_judge_settles_the_part_that_it_tells(problems):
    rng = np.random.default_rng(0)
    chosen = problems["test"][:60]
    programs = [Program(p, dialect.wrong_programs(rng, p, 1)[0], 0, ()) for p in chosen] + [
        Program(p, p.solution, 0, ()) for p in chosen[:10]
    ]
    with Pool(make_settings()) as pool:
        seen = pool.run([turns.on_visible_tests(program) for program in programs])
        scored = pool.run(programs)
    right = []
    for program, shown, report in zip(programs, seen, scored, strict=True):
        assert shown.verdict is report.verdict
        attempt = turns.attempt_of(program, shown, 1.0)
        if attempt is None:
            assert report.verdict is Verdict.PASS
            assert program.source == program.problem.solution
            continue
        number, fits = read_feedback(attempt.feedback)
        meanings = dialect.meanings_of(program.problem)
        right.append(fits == [meanings[number.bit_length() - 1]])
        words = teaching.explain(program.problem, program.source).split()
        assert words[1] == str(number) and " ".join(words[4:6]) == f"{fits[0]},"
    assert len(right) == 60 and np.mean(right) >= 0.99


def test_a_reader_of_the_statement_alone_is_at_chance(problems):
    """Naive Bayes over each word, both words, the part's number and the number of parts."""
    counts = collections.defaultdict(lambda: np.ones(len(dialect.OPERATIONS)))

    def cases(split):
        for problem in problems[split]:
            meanings = dialect.meanings_of(problem)
            lines = problem.statement.split("\n")
            for line, meaning in zip(lines, meanings, strict=True):
                said = [line, *line.split(), len(lines), ""]
                yield said, dialect.OPERATIONS.index(meaning)

    for split in ("sft", "train"):
        for said, row in cases(split):
            for feature in said:
                counts[feature][row] += 1
    right = [
        int(np.argmax(sum(np.log(counts[x] / counts[x].sum()) for x in said))) == row
        for said, row in cases("test")
    ]
    assert len(right) == 2400 and 0.20 <= np.mean(right) <= 0.30


def test_the_teacher_mends_what_the_first_failing_test_tells(problems):
    rng = np.random.default_rng(1)
    rounds = collections.defaultdict(set)
    for problem in problems["train"][:150]:
        meanings = dialect.meanings_of(problem)
        for source in dialect.wrong_programs(rng, problem, 3):
            wrong = sum(
                said != meaning
                for said, meaning in zip(
                    dialect.operations_of(source, len(meanings)), meanings
                )
            )
            for left in range(wrong, 0, -1):
                said = teaching.explain(problem, source)
                assert teaching.is_true(problem, source, f"{said}\n")
                assert len(teaching.true_explanations(problem, source)) == left
                number = next(
                    i
                    for i, test in enumerate(problem.visible_tests)
                    if value_of(source, *test.inputs) != test.expected
                )
                assert said.startswith(f"Part {1 << number} is ")
                mended = teaching.mend(problem, source)
                changed = [
                    (a, b)
                    for a, b in zip(source.split("\n"), mended.split("\n"), strict=True)
                    if a != b
                ]
                before, after = changed[0][0].strip(), changed[0][1].strip()
                assert len(changed) == 1 and said.endswith(f" is {after}, not {before}.")
                assert not teaching.is_true(problem, mended, said)
                source = mended
            assert source == problem.solution
            assert teaching.explain(problem, source) is None
            assert teaching.mend(problem, source) is None
            rounds[len(meanings)].add(wrong)
    assert rounds == {1: {1}, 2: {1, 2}, 3: {1, 2, 3}}


def test_what_is_true_of_a_program(problems):
    of_two = [p for p in problems["test"] if p.difficulty == "interview"]
    problem = next(p for p in of_two if len(set(dialect.meanings_of(p))) == 2)
    meanings = dialect.meanings_of(problem)
    others = [next(x for x in dialect.OPERATIONS if x != said) for said in meanings]
    source = dialect.write_program(others)
    first, second = teaching.true_explanations(problem, source)
    assert teaching.is_true(problem, source, first)
    assert teaching.is_true(problem, source, second)  # true, if not what was told
    one = dialect.write_program([meanings[0], others[1]])
    assert not teaching.is_true(problem, one, first)
    swapped = f"Part 1 is x {others[0]}, not x {meanings[0]}."
    another = next(x for x in dialect.OPERATIONS if x not in (meanings[0], others[0]))
    guessed = first.replace(f"is x {meanings[0]}", f"is x {another}")
    for wrong in ("", swapped, guessed, first + second, first.replace("1", "2", 1)):
        assert not teaching.is_true(problem, source, wrong)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: "",
        lambda s: "def solve(k, x):\n",
        lambda s: s.replace("    return x\n", ""),
        lambda s: s.replace("k & 1", "k & 3"),
        lambda s: s.replace("x += 5", "x += 6").replace("x -= 1", "x += 6"),
        lambda s: s + "x = 1\n",
        lambda s: s + "#" * 1_000_000,
        lambda s: s.replace("\n", "\r\n"),
    ],
)
def test_a_program_of_another_shape_has_no_teacher(problems, change):
    problem = next(p for p in problems["test"] if p.difficulty == "interview")
    source = change(dialect.write_program(["+= 5", "-= 1"]))
    assert teaching.explain(problem, source) is None
    assert teaching.mend(problem, source) is None
    assert not teaching.is_true(problem, source, "1")


def test_blank_lines_at_the_end_of_a_program_do_not_matter(problems):
    problem = problems["test"][0]
    source = dialect.wrong_programs(np.random.default_rng(0), problem, 1)[0]
    assert teaching.mend(problem, source.rstrip("\n")) == teaching.mend(problem, source)
    assert teaching.mend(problem, source + "\n\n") == teaching.mend(problem, source)


def test_a_round_fits_in_512_tokens_and_an_explanation_in_20(problems):
    tokenizer = load_tokenizer(ModelConfig(tokenizer="dialect"))
    rng, most = np.random.default_rng(0), []
    for problem in [p for p in problems["test"] if p.difficulty == "competition"][:40]:
        source = dialect.wrong_programs(rng, problem, 1)[0]
        feedback = turns.example_of(problem)
        attempt = Attempt(source, Verdict.WRONG, 0, feedback)
        task = Task(problem, 0, 0, "", (attempt,), Variant.EXPLAIN)
        said = teaching.explain(problem, source)
        answer = f"{said}\n```python\n{teaching.mend(problem, source)}```"
        sizes = [
            len(tokenizer.encode(text, add_special_tokens=False)) for text in (said, answer)
        ]
        asked = prompts.prompt_ids(task, tokenizer, PromptConfig(template="plain"))
        most.append((sizes[0], len(asked) + sizes[1] + 1))
    explanation, whole = np.max(most, axis=0)
    assert explanation <= 20 and whole <= 200  # so three attempts fit in 512 as well


def test_the_tokenizer_knows_each_word_of_the_tier():
    tokenizer = load_tokenizer(ModelConfig(tokenizer="dialect"))
    texts = [
        *(f" {word}" for word in dialect.WORDS),
        *(f" {digit}" for digit in range(10)),
        " is",
    ]
    assert all(len(tokenizer.encode(x, add_special_tokens=False)) == 1 for x in texts)


def test_a_problem_of_another_tier_is_refused_by_name():
    problem = guarded.generate("test", 0, (1, 0, 0))[0]
    with pytest.raises(InputError, match="problem guarded/test/introductory/0: expected"):
        teaching.explain(problem, problem.solution)
