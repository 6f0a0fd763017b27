"""The dialect tier of the embedded benchmark: what only feedback can tell.

A problem is K = 1 to 3 parts. The statement gives each a number and a name of two alien
words. The program does something to x in each part whose number k holds:

    1 blorv snezz            def solve(k, x):
    2 griph drulz                if k & 1:  # blorv snezz
                                     x += 5
                                 if k & 2:  # griph drulz
                                     x ^= 4
                                 return x

What a name means is drawn anew for each problem, among the four `OPERATIONS`. So nothing
that was learnt elsewhere says what it means: a first program has each part right by chance
once in four, whoever writes it. No statement is in two splits, since a second one would
mean something else, and who remembers the first guesses better than by chance.

Visible tests are one for each part, in order, and execute that part alone: `solve(2, 3)`.
There the four operations give four values, so a failing test settles what its part means
from input and expected value, and what came tells what the program took it for. Hidden
tests score: one for each part, and two that execute all parts, on other numbers.

A model of half a million parameters is to read this. So x is one of `XS` in visible tests,
and all four values are one digit, which is one token: what the model has to know is a table
of 16 pairs of digits, and both stand at the same places of every message. What remains is
copying: the part's number from the call to its name in the statement, the name to its line
in the program, and all other lines as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from stepcoder_jax.data.generated.splits import Split, mix, split_key
from stepcoder_jax.records import InputError, Mode, Problem, TestCase

SEED = 20240203
PARTS = {"introductory": 1, "interview": 2, "competition": 3}
SIZES: dict[Split, tuple[int, int, int]] = {  # of each difficulty
    "sft": (1500, 6000, 9000),
    "train": (600, 600, 600),
    "validation": (200, 200, 200),
    "test": (400, 400, 400),
}
OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+=": lambda x, c: x + c,
    "-=": lambda x, c: x - c,
    "*=": lambda x, c: x * c,
    "^=": lambda x, c: x ^ c,
}
OPERATIONS = ("+= 5", "-= 1", "*= 2", "^= 4")
XS = (1, 2, 3, 4)  # of visible tests
LOW, HIGH = 11, 60  # x of hidden tests; there all four values differ as well
WHOLE_TESTS = 2  # hidden tests that execute all parts
HEAD, END = "def solve(k, x):\n", "    return x\n"
WORDS = tuple(
    onset + rime
    for cluster in ("blpl", "brpr", "drtr", "flsl", "glkl", "grkr", "smst", "snvr")
    for onset in (cluster[:2], cluster[2:])
    for rime in ("orv", "ulz", "ezz", "iph")
)


Tests = tuple[TestCase, ...]


class Name(NamedTuple):
    """What the statement says of one part."""

    number: int  # a power of two: its bit of k
    words: str


def apply(operation: str, x: int) -> int:
    """x after an operation."""
    sign, constant = operation.split()
    return OPERATORS[sign](x, int(constant))


def load(split: Split) -> list[Problem]:
    """The problems of one split, the same on every machine."""
    return generate(split, SEED, SIZES[split])


def generate(split: Split, seed: int, sizes: tuple[int, int, int]) -> list[Problem]:
    """`sizes` problems per difficulty, in turns, drawn from (seed, split) alone."""
    return mix(_problems_of, split, seed, dict(zip(PARTS, sizes, strict=True)))


def _problems_of(split: Split, difficulty: str, seed: int, size: int) -> list[Problem]:
    rng = np.random.default_rng([seed, split_key(split), list(PARTS).index(difficulty)])
    seen: set[str] = set()
    problems: list[Problem] = []
    while len(problems) < size:
        names = draw_names(rng, PARTS[difficulty])
        statement = write_statement(names)
        if statement in seen or home(statement) != split:
            continue
        seen.add(statement)
        meanings = [OPERATIONS[i] for i in rng.integers(len(OPERATIONS), size=len(names))]
        problems.append(
            Problem(
                id=f"dialect/{split}/{difficulty}/{len(problems)}",
                statement=statement,
                starter_code=HEAD,
                solution=write_program(names, meanings),
                entry_point="solve",
                mode=Mode.CALL,
                tests=_hidden_tests(rng, meanings),
                difficulty=difficulty,
                cpu_seconds=1.0,
                visible_tests=_visible_tests(rng, meanings),
            )
        )
    return problems


def draw_names(rng: np.random.Generator, count: int) -> list[Name]:
    """Names of which no two share a word."""
    words = [WORDS[i] for i in rng.permutation(len(WORDS))[: 2 * count]]
    pairs = zip(words[::2], words[1::2], strict=True)
    return [Name(1 << i, " ".join(pair)) for i, pair in enumerate(pairs)]


def write_statement(names: Sequence[Name]) -> str:
    """One line a part."""
    return "\n".join(f"{name.number} {name.words}" for name in names)


def write_program(names: Sequence[Name], operations: Sequence[str]) -> str:
    """The program in which each part does its operation: two lines a part."""
    lines = [
        f"    if k & {name.number}:  # {name.words}\n        x {operation}\n"
        for name, operation in zip(names, operations, strict=True)
    ]
    return "".join([HEAD, *lines, END])


def evaluate(operations: Sequence[str], k: int, x: int) -> int:
    """The value of a call, from the operations and never from a program's text."""
    for i, operation in enumerate(operations):
        if k & (1 << i):
            x = apply(operation, x)
    return x


def _visible_tests(rng: np.random.Generator, operations: Sequence[str]) -> Tests:
    """One for each part, in order."""
    xs = rng.choice(XS, size=len(operations)).tolist()
    return _tests(operations, [(1 << i, x) for i, x in enumerate(xs)])


def _hidden_tests(rng: np.random.Generator, operations: Sequence[str]) -> Tests:
    """Those that execute all parts, then one for each part; each on another number."""
    count = len(operations)
    ks = [(1 << count) - 1] * WHOLE_TESTS + [1 << i for i in range(count)]
    xs = LOW + rng.permutation(HIGH + 1 - LOW)[: len(ks)]
    return _tests(operations, list(zip(ks, xs.tolist(), strict=True)))


def _tests(operations: Sequence[str], calls: Sequence[tuple[int, int]]) -> Tests:
    return tuple(TestCase(call, evaluate(operations, *call)) for call in calls)


def home(statement: str) -> Split:
    """The only split that may hold this statement."""
    digest = int.from_bytes(hashlib.sha256(statement.encode()).digest()[:4], "big") % 20
    shares: tuple[tuple[int, Split], ...] = ((3, "test"), (6, "validation"), (11, "train"))
    return next((split for end, split in shares if digest < end), "sft")


def parts_of(problem: Problem) -> tuple[list[Name], list[str]]:
    """The parts that the statement names, and what each means, by its visible test.

    InputError for what is no problem of this tier.
    """
    lines = problem.statement.split("\n", len(PARTS))
    names = [Name(1 << i, line.partition(" ")[2]) for i, line in enumerate(lines)]
    pairs = [_pair_of(test) for test in problem.visible_tests]
    is_ours = write_statement(names) == problem.statement and set(pairs) <= set(_SETTLED)
    if not is_ours or not len(names) == len(pairs) <= len(PARTS):
        raise InputError(
            f"problem {problem.id}: expected a problem of tier dialect, of 1 to 3 lines "
            "such as '1 blorv snezz' with a visible test each; `stepcoder data generate "
            "FILE --tier dialect` writes such"
        )
    return names, [_SETTLED[pair] for pair in pairs]


def _pair_of(test: TestCase) -> tuple[str, str]:
    """x and the value, as texts: of a foreign problem they may be anything."""
    return str(test.inputs[1:]), str(test.expected)


_SETTLED = {
    (str((x,)), str(apply(operation, x))): operation for x in XS for operation in OPERATIONS
}


def operations_of(names: Sequence[Name], source: str) -> list[str] | None:
    """What a program does in each part; None for one that is not written part by part."""
    lines = source.rstrip("\n").split("\n", 2 * len(names) + 2)
    found = [line.removeprefix("        x ") for line in lines[2:-1:2]]
    fits = len(found) == len(names) and set(found) <= set(OPERATIONS)
    return (
        found
        if fits and write_program(names, found) == source.rstrip("\n") + "\n"
        else None
    )


def wrong_programs(rng: np.random.Generator, problem: Problem, count: int) -> list[str]:
    """Programs, each as a writer makes it who knows no meaning, but for the right one."""
    names, meanings = parts_of(problem)
    found: list[str] = []
    while len(found) < count:
        guess = [OPERATIONS[i] for i in rng.integers(len(OPERATIONS), size=len(names))]
        if guess != meanings:
            found.append(write_program(names, guess))
    return found
