"""The embedded benchmark: programming problems on lists of numbers, made from a seed.

A problem is one to four dependent parts (parts.py) in words and in code. Every split is
generated on its own and on demand; a problem belongs to a split by a hash of its canonical
solution, so no solution occurs in two splits, and for competition problems no syntax tree
with identifiers renamed and constants blanked. The supervised part of the train split
("sft") gives rare wordings a meaning drawn at random; in "train", "validation" and "test"
they mean what they mean.

Constant-output, echo-input and first-sample programs pass none of the problems: the
outputs of a problem's tests always differ, and differ from their inputs.
"""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stepcoder_jax.data.generated import lexicon, parts
from stepcoder_jax.data.generated.splits import Split, mix, split_key
from stepcoder_jax.records import Mode, Problem, TestCase

SEED = 20240201
SIZES: dict[Split, tuple[int, int, int]] = {  # introductory, interview, competition
    "sft": (6000, 9000, 3000),
    "train": (800, 800, 400),
    "validation": (120, 120, 60),
    "test": (200, 200, 100),
}
# Chance of a rare wording where there is one: for the split and, outside "sft", for the
# difficulty; competition problems are to be out of a warm start's reach.
SFT_RARE = 0.15
RARE = {"introductory": 0.5, "interview": 0.5, "competition": 0.65}
SCRAMBLED: tuple[Split, ...] = ("sft",)
DIFFICULTIES = ("introductory", "interview", "competition")
NUM_TESTS = 6
MAX_LINES = {"introductory": (4, 8), "interview": (8, 13), "competition": (12, 25)}
STEPS = ("keep", "drop", "change", "choose", "each", "until", "unique", "running", "gaps")
LISTS = ("xs", "ys", "zs", "ws")


class Draft(NamedTuple):
    """A problem before its tests are drawn."""

    chain: tuple[parts.Part, ...]
    mode: Mode
    statement: str
    solution: str


def load(split: Split) -> list[Problem]:
    """The problems of one split, the same on every machine (about 2 s at most)."""
    return generate(split, SEED, SIZES[split])


def generate(split: Split, seed: int, sizes: tuple[int, int, int]) -> list[Problem]:
    """`sizes` problems per difficulty, interleaved, drawn from (seed, split) alone."""
    return mix(_problems_of, split, seed, dict(zip(DIFFICULTIES, sizes, strict=True)))


def _problems_of(split: Split, difficulty: str, seed: int, size: int) -> list[Problem]:
    rng = np.random.default_rng([seed, split_key(split), DIFFICULTIES.index(difficulty)])
    seen: set[str] = set()
    problems: list[Problem] = []
    while len(problems) < size:
        rare = SFT_RARE if split in SCRAMBLED else RARE[difficulty]
        wording = parts.Wording(rng, rare, split in SCRAMBLED)
        draft = draw(difficulty, wording)
        if draft.statement in seen or home(draft.solution, difficulty) != split:
            continue
        tests = draw_tests(draft, rng)
        if tests is None:
            continue
        seen.add(draft.statement)
        name = f"{split}/{difficulty}/{len(problems)}"
        problems.append(_problem(draft, tests, name, difficulty))
    return problems


def _problem(
    draft: Draft, tests: tuple[TestCase, ...], name: str, difficulty: str
) -> Problem:
    return Problem(
        id=name,
        statement=draft.statement,
        starter_code=starter(draft.mode),
        solution=draft.solution,
        entry_point="solve",
        mode=draft.mode,
        tests=tests,
        difficulty=difficulty,
        cpu_seconds=1.0,
    )


def draw(difficulty: str, wording: parts.Wording) -> Draft:
    """One draft whose solution has as many lines as its difficulty asks for."""
    low, high = MAX_LINES[difficulty]
    while True:
        chain = _chain(difficulty, wording)
        mode = wording.choice((Mode.CALL, Mode.STDIN_FN))
        solution = write_solution(chain, mode)
        if low <= solution.count("\n") <= high:
            return Draft(chain, mode, write_statement(chain, mode), solution)


def _chain(difficulty: str, wording: parts.Wording) -> tuple[parts.Part, ...]:
    rng = wording.rng
    kinds = list(lexicon.REDUCTIONS)
    if difficulty == "introductory":
        if rng.random() < 0.1:
            return (parts.shortcut(wording),)
        kind = kinds[rng.integers(len(kinds))]
        return (parts.reduction(kind, wording, bool(rng.random() < 0.8)),)
    count = 1 if difficulty == "interview" else int(rng.integers(2, 4))
    steps = [STEPS[i] for i in rng.choice(len(STEPS), size=count, replace=False)]
    kind = kinds[rng.integers(len(kinds))]
    last = parts.reduction(kind, wording, bool(rng.random() < 0.6))
    return (*(parts.step(step, wording) for step in steps), last)


def write_solution(chain: tuple[parts.Part, ...], mode: Mode) -> str:
    """The canonical solution; every step writes a list of its own."""
    lines = [starter(mode).rstrip("\n")]
    if mode is Mode.STDIN_FN:
        lines.append("    xs = list(map(int, input().split()))")
    for i, part in enumerate(chain):
        source, target = LISTS[i], LISTS[min(i + 1, len(LISTS) - 1)]
        lines += [line.replace("{s}", source).replace("{d}", target) for line in part.code]
    result = chain[-1].result
    lines.append(f"    return {result}" if mode is Mode.CALL else f"    print({result})")
    return "\n".join(lines) + "\n"


def write_statement(chain: tuple[parts.Part, ...], mode: Mode) -> str:
    """The statement: one sentence per part."""
    start, verb = ("Given xs.", "Return") if mode is Mode.CALL else ("Read xs.", "Print")
    steps = [part.sentence for part in chain[:-1]]
    return " ".join([start, *steps, f"{verb} {chain[-1].sentence}."])


def starter(mode: Mode) -> str:
    """The starter code of both kinds."""
    return "def solve(xs):\n" if mode is Mode.CALL else "def solve():\n"


def evaluate(chain: tuple[parts.Part, ...], xs: list[int]) -> int | None:
    """The expected output, from the parts' meanings; None where it is not defined."""
    value: Any = xs
    for part in chain:
        value = part.run(value)
    return value


def draw_tests(draft: Draft, rng: np.random.Generator) -> tuple[TestCase, ...] | None:
    """Tests with defined, differing outputs, or None when the draft hardly has any."""
    found: dict[tuple[int, ...], int] = {}
    for _ in range(4 * NUM_TESTS):
        xs = tuple(int(x) for x in rng.integers(-12, 25, size=rng.integers(5, 10)))
        if rng.random() < 0.5:  # repeats, so that removing them matters
            xs = (*xs, xs[int(rng.integers(len(xs)))])
        y = evaluate(draft.chain, list(xs))
        if y is not None:
            found[xs] = y
        if len(found) == NUM_TESTS:
            break
    if len(found) < NUM_TESTS or len(set(found.values())) < 3:
        return None
    return tuple(_test(draft.mode, xs, y) for xs, y in found.items())


def _test(mode: Mode, xs: tuple[int, ...], y: int) -> TestCase:
    if mode is Mode.CALL:
        return TestCase((list(xs),), y)
    return TestCase(" ".join(map(str, xs)) + "\n", f"{y}\n")


def home(solution: str, difficulty: str) -> Split:
    """The only split that may hold this solution."""
    key = skeleton(solution) if difficulty == "competition" else solution
    digest = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 20
    shares: tuple[tuple[int, Split], ...] = ((3, "test"), (5, "validation"), (11, "train"))
    return next((split for end, split in shares if digest < end), "sft")


def skeleton(source: str) -> str:
    """The syntax tree with identifiers renamed in order and constants blanked."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        for field in ("id", "arg", "name"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                setattr(node, field, names.setdefault(value, f"v{len(names)}"))
        if isinstance(node, ast.Constant):
            node.value = 0
    return ast.dump(tree)


def to_apps_plus(problem: Problem) -> dict[str, Any]:
    """One row of the APPS+ v1 schema; calls' arguments and results as JSON values."""
    docstring = problem.starter_code + f'    """{problem.statement}"""\n'
    nodes: list[Any] = [n for n in ast.walk(ast.parse(problem.solution)) if _scope(n)]
    scope = sorted([node.lineno, node.end_lineno, _scope(node)] for node in nodes)
    return {
        "id": problem.id,
        "prompt": docstring,
        "starter_code": problem.starter_code,
        "canonical_solution": problem.solution,
        "inputs": [_plain(test.inputs) for test in problem.tests],
        "outputs": [test.expected for test in problem.tests],
        "scope": [[kind, first, last] for first, last, kind in scope],
        "difficulty": problem.difficulty,
    }


def _scope(node: Any) -> str:
    """The kind of scope in the data set's words; "" for what is none."""
    kinds = {ast.FunctionDef: "Function", ast.For: "For", ast.If: "If"}
    return kinds.get(type(node), "")


def _plain(inputs: Any) -> Any:
    return inputs if isinstance(inputs, str) else list(inputs)


def write(problems: list[Problem], path: Path) -> None:
    """Write problems as an APPS+ v1 JSON file."""
    path.write_text(json.dumps([to_apps_plus(p) for p in problems], indent=1) + "\n")
