"""The guarded tier of the embedded benchmark: the premise of StepCoder by construction.

A problem is K parts. Each has a guard, which the statement says in plain words, and an
alien word for what is done when the guard holds:

    if 0 < y glim            def solve(x, y):
    if 1 > y dorf                if 0 < y:  # glim
                                     x -= 7
                                 if 1 > y:  # dorf
                                     x -= 13
                                 return x

A word has a class of four operations, and one of them is its meaning (`MEANINGS`).
Supervised text (split "sft") teaches all but that: there an alien word means an operation
of its class drawn anew each time, and only plain words mean one thing. So a policy writes a
part right by chance once in four, and a program of K parts once in 4^K: no reward until K
guesses are right at once. A completion of the last n parts needs n of them.

One conditional is one part, so the stages of CCCS fall on parts: K = 9 is cut before parts
6 and 3. The two tests of a training problem execute exactly `COVERED` of each three parts
in a row; those of validation and test execute all parts. No class occurs twice in a
program: an operation that a prefix shows says nothing of the words that follow, not even by
elimination.

The bound of a guard is the number of its part, and stands first. So the next bound is
always the last one plus one, and what belongs to it stands behind it in the statement: a
small model copies that after minutes of supervised text, at every position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from stepcoder_jax.data.generated.splits import Split, mix, split_key
from stepcoder_jax.records import Mode, Problem, TestCase

SEED = 20240202
PARTS = {"introductory": 3, "interview": 6, "competition": 9}
SIZES: dict[Split, tuple[int, int, int]] = {  # of each difficulty
    "sft": (8000, 8000, 16000),
    "train": (200, 200, 200),
    "validation": (200, 200, 200),
    "test": (400, 400, 400),
}
NUM_CLASSES, OPERATIONS = 9, 4
COVERED = 2  # of each three parts in a row, by the two tests of a training problem
TRAIN_TESTS, FULL_TESTS = 2, 10
PLAIN_SHARE = 0.5  # of the words of supervised text
LOW, HIGH = 11, 60  # of x

OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+=": lambda x, k: x + k,
    "*=": lambda x, k: x * k,
    "-=": lambda x, k: x - k,
    "^=": lambda x, k: x ^ k,
}
# The constants of a class, one for each operator: within a column all differ.
CONSTANTS = (
    (13, 2, 7, 9),
    (5, 3, 11, 20),
    (17, 4, 3, 6),
    (8, 5, 14, 33),
    (21, 6, 9, 12),
    (11, 7, 4, 18),
    (3, 8, 16, 5),
    (19, 9, 6, 24),
    (6, 10, 13, 10),
)
ALIEN = (
    ("glim", "plam", "zorp"),
    ("drax", "vunt", "mirk"),
    ("brel", "huxt", "jath"),
    ("wend", "fosk", "cyre"),
    ("nalt", "erbo", "tizz"),
    ("uskr", "ilpe", "dreg"),
    ("quib", "slog", "kivo"),
    ("yopp", "oamf", "phan"),
    ("dorf", "smet", "ulga"),
)
# What each alien word means outside of supervised text, as a row of its class.
MEANINGS = (
    (2, 0, 3),
    (1, 3, 0),
    (0, 2, 1),
    (3, 1, 2),
    (2, 3, 1),
    (0, 1, 3),
    (3, 2, 0),
    (1, 0, 2),
    (2, 1, 3),
)
PLAIN = tuple(
    tuple(f"{stem}{ending}" for ending in ("ada", "emi", "ilo", "una"))
    for stem in ("b", "c", "f", "g", "k", "l", "m", "p", "r")
)


class Part(NamedTuple):
    """One guarded update."""

    sign: str  # "<": holds where the bound is below y; ">": where it is above
    word: str
    operation: str  # "+= 13"


class Accuracy(NamedTuple):
    """What of one part a program has right."""

    guard: bool  # the header, its word included
    in_class: bool  # an operation that the word may mean
    operation: bool  # the one that it means


def operations(kind: int) -> tuple[str, ...]:
    """The operations that a word of this class may mean."""
    return tuple(f"{sign} {k}" for sign, k in zip(OPERATORS, CONSTANTS[kind], strict=True))


def meaning_of(word: str) -> tuple[int, str]:
    """The class of a word, and what it means; KeyError for no word of this tier."""
    return _MEANING[word]


_MEANING = {
    word: (kind, operations(kind)[row])
    for kind in range(NUM_CLASSES)
    for words, rows in ((ALIEN[kind], MEANINGS[kind]), (PLAIN[kind], range(OPERATIONS)))
    for word, row in zip(words, rows, strict=True)
}


def load(split: Split) -> list[Problem]:
    """The problems of one split, the same on every machine."""
    return generate(split, SEED, SIZES[split])


def generate(split: Split, seed: int, sizes: tuple[int, int, int]) -> list[Problem]:
    """`sizes` problems per difficulty, in turns, drawn from (seed, split) alone.

    K = 1 to 9 in supervised text, where the difficulty only says which K are near.
    """
    return mix(_problems_of, split, seed, dict(zip(PARTS, sizes, strict=True)))


def _problems_of(split: Split, difficulty: str, seed: int, size: int) -> list[Problem]:
    rng = np.random.default_rng([seed, split_key(split), list(PARTS).index(difficulty)])
    seen: set[str] = set()
    problems: list[Problem] = []
    while len(problems) < size:
        count = PARTS[difficulty]
        if split == "sft":
            count -= int(rng.integers(3))
        parts = draw_parts(rng, count, is_text=split == "sft")
        tests = draw_tests(rng, parts, split)
        code = write_solution(parts)
        if tests is None or code in seen or home(code) != split:
            continue
        seen.add(code)
        problems.append(
            Problem(
                id=f"guarded/{split}/{difficulty}/{len(problems)}",
                statement=write_statement(parts),
                starter_code="def solve(x, y):\n",
                solution=code,
                entry_point="solve",
                mode=Mode.CALL,
                tests=tests,
                difficulty=difficulty,
                cpu_seconds=1.0,
            )
        )
    return problems


def draw_parts(rng: np.random.Generator, count: int, *, is_text: bool) -> list[Part]:
    """Parts of different classes; with `is_text` as supervised text has them."""
    parts = []
    for kind in rng.permutation(NUM_CLASSES)[:count]:
        is_plain = is_text and rng.random() < PLAIN_SHARE
        words = PLAIN[kind] if is_plain else ALIEN[kind]
        word = words[int(rng.integers(len(words)))]
        operation = meaning_of(word)[1]
        if is_text and not is_plain:
            operation = operations(kind)[int(rng.integers(OPERATIONS))]
        parts.append(Part("<>"[int(rng.integers(2))], word, operation))
    return parts


def write_statement(parts: Sequence[Part]) -> str:
    """One line a part."""
    return "\n".join(f"if {i} {part.sign} y {part.word}" for i, part in enumerate(parts))


def write_solution(parts: Sequence[Part]) -> str:
    """The canonical solution: two lines a part."""
    lines = ["def solve(x, y):"]
    for i, part in enumerate(parts):
        lines += _lines_of(i, part)
    return "\n".join([*lines, "    return x"]) + "\n"


def _lines_of(i: int, part: Part) -> tuple[str, str]:
    return f"    if {i} {part.sign} y:  # {part.word}", f"        x {part.operation}"


def holds(i: int, part: Part, y: int) -> bool:
    """Whether the guard of part i lets y in."""
    return i < y if part.sign == "<" else i > y


def apply(operation: str, x: int) -> int:
    """x after an operation."""
    sign, constant = operation.split()
    return OPERATORS[sign](x, int(constant))


def evaluate(parts: Sequence[Part], x: int, y: int) -> int:
    """The expected output, from the meanings and never from the program's text."""
    for i, part in enumerate(parts):
        if holds(i, part, y):
            x = apply(part.operation, x)
    return x


def executed(parts: Sequence[Part], ys: Sequence[int]) -> list[bool]:
    """Which parts some of the tests execute."""
    return [any(holds(i, part, y) for y in ys) for i, part in enumerate(parts)]


def draw_tests(
    rng: np.random.Generator, parts: Sequence[Part], split: Split
) -> tuple[TestCase, ...] | None:
    """Tests that notice each wrong operation that they execute, or None.

    Of training problems two, which execute `COVERED` of each three parts; of validation
    and test ten, which execute all. Supervised text is not run; it has one.
    """
    ys = [int(y) for y in rng.permutation(np.arange(-1, len(parts) + 1))]
    if split in ("validation", "test"):
        ys = [-1, len(parts), *rng.integers(-1, len(parts) + 1, FULL_TESTS - 2).tolist()]
    elif split == "train":
        ys = ys[:TRAIN_TESTS]
    else:
        ys = ys[:1]
    ran = executed(parts, ys)
    blocks = [sum(ran[i : i + 3]) for i in range(0, len(parts), 3)]
    if split == "train" and any(block != COVERED for block in blocks):
        return None
    pairs = [(int(rng.integers(LOW, HIGH + 1)), y) for y in ys]
    outputs = [evaluate(parts, x, y) for x, y in pairs]
    if split != "sft" and not _notices(parts, pairs):
        return None
    return tuple(
        TestCase(pair, output) for pair, output in zip(pairs, outputs, strict=True)
    )


def _notices(parts: Sequence[Part], pairs: Sequence[tuple[int, int]]) -> bool:
    """Whether each other operation at each executed place changes some output.

    No operation takes two numbers to one, so a value that differs behind a part differs at
    the end: what follows need not be evaluated.
    """
    left = [set(operations(meaning_of(part.word)[0])) - {part.operation} for part in parts]
    ran = set()
    for x, y in pairs:
        for i, part in enumerate(parts):
            if holds(i, part, y):
                ran.add(i)
                after = apply(part.operation, x)
                left[i] = {other for other in left[i] if apply(other, x) == after}
                x = after
    return not any(left[i] for i in ran)


def home(solution: str) -> Split:
    """The only split that may hold this solution."""
    digest = int.from_bytes(hashlib.sha256(solution.encode()).digest()[:4], "big") % 20
    shares: tuple[tuple[int, Split], ...] = ((3, "test"), (6, "validation"), (11, "train"))
    return next((split for end, split in shares if digest < end), "sft")


def parts_of(problem: Problem) -> list[Part]:
    """The parts of a problem of this tier, read off its statement, as they should be."""
    rows = [line.split() for line in problem.statement.splitlines()]
    return [Part(sign, word, meaning_of(word)[1]) for _, _, sign, _, word in rows]


def accuracy_by_position(problem: Problem, program: str) -> list[Accuracy]:
    """What a program has right at each of the problem's parts.

    A line counts only at its own place: part i is in lines 1 + 2 i and 2 + 2 i.
    """
    lines = program.split("\n", 2 * len(PARTS) * 9)
    found = []
    for i, part in enumerate(parts_of(problem)):
        header, body = _lines_of(i, part)
        written = [*lines[1 + 2 * i : 3 + 2 * i], "", ""]
        said = written[1].removeprefix("        x ")
        fits = said in operations(meaning_of(part.word)[0]) and said != written[1]
        found.append(Accuracy(written[0] == header, fits, written[1] == body))
    return found
