"""The dialect tier of the embedded benchmark: what only feedback can tell.

A problem is K = 1 to 3 parts. The statement calls each by two alien words. The program does
something to x in each part whose number k holds:

    Part 1 is blorv snezz    def solve(k, x):
    Part 2 is griph drulz        if k & 1:
                                     x += 5
                                 if k & 2:
                                     x ^= 4
                                 return x

What words mean is drawn anew for each problem, among the four `OPERATIONS`. So nothing that
was learnt elsewhere says what they mean: a first program has each part right by chance once
in four, whoever writes it. There are no more than 4^K programs, so splits are disjoint by
statements: none occurs twice, since a second one would mean something else, and who
remembers the first guesses better than by chance.

Visible tests are one for each part, in order, and execute that part alone: `solve(2, 3)`.
There the four operations give four values, so a failing test settles what its part means
from input and expected value, and what came tells what the program took it for. Hidden
tests score: one for each part, and two that execute all parts, on other numbers.

A model of half a million parameters is to read this after minutes on two cores. So x is one
of `XS` in visible tests, and the eight values that operations take these to are eight
digits, each one token: an expected digit has one meaning. (With x from 1 to 4 sixteen pairs
of digits have to be known, which such a model reads long after it copies lines.) The call
says the part's number, and the rest is copying lines that are known by three numbers.
Names stand in the statement alone: a small model learns to copy one of 64 words later than
all else, and nothing would be learnt from that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

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
XS = (2, 4)  # of visible tests; their values are eight different digits
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
                solution=write_program(meanings),
                entry_point="solve",
                mode=Mode.CALL,
                tests=_hidden_tests(rng, meanings),
                difficulty=difficulty,
                cpu_seconds=1.0,
                visible_tests=_visible_tests(rng, meanings),
            )
        )
    return problems


def draw_names(rng: np.random.Generator, count: int) -> list[str]:
    """Names of two words; no word occurs twice."""
    words = [WORDS[i] for i in rng.permutation(len(WORDS))[: 2 * count]]
    return [" ".join(pair) for pair in zip(words[::2], words[1::2], strict=True)]


def write_statement(names: Sequence[str]) -> str:
    """One line a part."""
    return "\n".join(f"Part {1 << i} is {name}" for i, name in enumerate(names))


def write_program(operations: Sequence[str]) -> str:
    """The program in which each part does its operation: two lines a part."""
    lines = [
        f"    if k & {1 << i}:\n        x {operation}\n"
        for i, operation in enumerate(operations)
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


def meanings_of(problem: Problem) -> list[str]:
    """What each part means, by its visible test.

    InputError for what is no problem of this tier.
    """
    lines = problem.statement.split("\n", len(PARTS))
    named = write_statement([line.partition(" is ")[2] for line in lines])
    pairs = [_pair_of(test) for test in problem.visible_tests]
    is_ours = named == problem.statement and set(pairs) <= set(_SETTLED)
    if not is_ours or not len(lines) == len(pairs) <= len(PARTS):
        raise InputError(
            f"problem {problem.id}: expected a problem of tier dialect, of 1 to 3 lines "
            "such as 'Part 1 is blorv snezz' with a visible test each; `stepcoder data "
            "generate FILE --tier dialect` writes such"
        )
    return [_SETTLED[pair] for pair in pairs]


def _pair_of(test: TestCase) -> tuple[str, str]:
    """x and the value, as texts: of a foreign problem they may be anything."""
    return str(test.inputs[1:]), str(test.expected)


_SETTLED = {
    (str((x,)), str(apply(operation, x))): operation for x in XS for operation in OPERATIONS
}


def operations_of(source: str, count: int) -> list[str] | None:
    """What a program does in each of so many parts; None for one of another shape."""
    whole = source.rstrip("\n") + "\n"
    lines = whole.split("\n", 2 * count + 2)
    found = [line.removeprefix("        x ") for line in lines[2 : 2 * count + 1 : 2]]
    is_ours = set(found) <= set(OPERATIONS) and write_program(found) == whole
    return found if is_ours and len(found) == count else None


def wrong_programs(rng: np.random.Generator, problem: Problem, count: int) -> list[str]:
    """Programs, each as a writer makes it who knows no meaning, but for the right one."""
    meanings = meanings_of(problem)
    found: list[str] = []
    while len(found) < count:
        rows = rng.integers(len(OPERATIONS), size=len(meanings))
        guess = [OPERATIONS[row] for row in rows]
        if guess != meanings:
            found.append(write_program(guess))
    return found
