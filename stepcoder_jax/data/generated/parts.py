"""The parts of a generated program: an English sentence, its code and its meaning.

A program is a chain of list steps and one final reduction. Every part carries the code
that a canonical solution shows and a Python function with the same meaning; expected
outputs come from the functions, never from running the text, so that a judge that passes
every canonical solution checks one against the other.
"""

from __future__ import annotations

import dataclasses
import itertools
import string
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from stepcoder_jax.data.generated import lexicon

Numbers = list[int]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Part:
    """`code` reads the list named {s} and, for a step, writes the list named {d}."""

    sentence: str
    code: tuple[str, ...]
    run: Callable[[Numbers], Numbers | int | None]
    result: str = ""  # of a reduction: the expression that is returned


@dataclasses.dataclass(frozen=True)
class Wording:
    """Draws concepts and their wordings; `rare` is the chance of a rare wording.

    With `scrambled`, a rare wording is drawn without regard to the meaning, among those
    that fit the sentence: text from which one can learn what kind of word it is, and to
    write fluent code around it, but not what it means.
    """

    rng: np.random.Generator
    rare: float
    scrambled: bool

    def choice(self, options: Sequence[T]) -> T:
        return options[int(self.rng.integers(len(options)))]

    def word(self, table: dict[str, lexicon.Words], name: str) -> str:
        """A wording of `name`, its fields ({k}, {p} ...) still open."""
        words = table[name]
        if self.rng.random() >= self.rare:
            return self.choice(words.plain)
        if not self.scrambled:
            return self.choice(words.rare or words.plain)
        fields = _fields(words.plain[0])
        rare = [w for entry in table.values() for w in entry.rare if _fields(w) == fields]
        return self.choice(rare or words.plain)

    def concept(self, table: dict[str, lexicon.Concept]) -> Bound:
        name = self.choice(list(table))
        concept = table[name]
        k = self.choice(concept.constants)
        words = self.word({key: value.words for key, value in table.items()}, name)
        return Bound(
            words.format(k=k), concept.code.format(k=k), lambda x: concept.run(x, k)
        )


def _fields(wording: str) -> list[str | None]:
    return [field for _, field, _, _ in string.Formatter().parse(wording) if field]


@dataclasses.dataclass(frozen=True)
class Bound:
    """A concept with its constant and its wording chosen."""

    words: str
    code: str
    run: Callable[[int], int | bool]


def step(kind: str, wording: Wording) -> Part:
    """One list step: keep, drop, change, choose, each, until, unique, running, gaps."""
    p = wording.concept(lexicon.PREDICATES)
    m = wording.concept(lexicon.MAPS)
    n = wording.concept(lexicon.MAPS)
    sentence = wording.word(lexicon.VERBS, kind).format(p=p.words, m=m.words, n=n.words)
    test, loop, put = f"        if {p.code}:", "    for x in {s}:", "        {d}.append(x)"
    start = "    {d} = []"
    shapes: dict[str, tuple[tuple[str, ...], Callable[[Numbers], Numbers]]] = {
        "keep": (
            (start, loop, test, "            {d}.append(x)"),
            lambda xs: [x for x in xs if p.run(x)],
        ),
        "drop": (
            (start, loop, test, "            continue", put),
            lambda xs: [x for x in xs if not p.run(x)],
        ),
        "change": (
            (start, loop, test, f"            x = {m.code}", put),
            lambda xs: [int(m.run(x)) if p.run(x) else x for x in xs],
        ),
        "choose": (
            (
                start,
                loop,
                test,
                f"            {{d}}.append({m.code})",
                "        else:",
                f"            {{d}}.append({n.code})",
            ),
            lambda xs: [int(m.run(x) if p.run(x) else n.run(x)) for x in xs],
        ),
        "each": (
            (start, loop, f"        {{d}}.append({m.code})"),
            lambda xs: [int(m.run(x)) for x in xs],
        ),
        "until": ((start, loop, test, "            break", put), lambda xs: _until(xs, p)),
        "unique": (
            (start, loop, "        if x not in {d}:", "            {d}.append(x)"),
            lambda xs: list(dict.fromkeys(xs)),
        ),
        "running": (
            (start, "    s = 0", loop, "        s += x", "        {d}.append(s)"),
            lambda xs: [sum(xs[: i + 1]) for i in range(len(xs))],
        ),
        "gaps": (
            (
                start,
                "    for i in range(1, len({s})):",
                "        {d}.append({s}[i] - {s}[i - 1])",
            ),
            lambda xs: [b - a for a, b in itertools.pairwise(xs)],
        ),
    }
    code, run = shapes[kind]
    return Part(sentence, code, run)


def _until(xs: Numbers, p: Bound) -> Numbers:
    stop = next((i for i, x in enumerate(xs) if p.run(x)), len(xs))
    return xs[:stop]


@dataclasses.dataclass(frozen=True)
class Reducer:
    """A loop body that folds the kept numbers into the variable `result`."""

    setup: tuple[str, ...]
    body: tuple[str, ...]  # {m} is the number, or its image under a map
    result: str
    run: Callable[[Numbers], int | None]  # None: not defined on this list


REDUCERS: dict[str, Reducer] = {
    "sum": Reducer(("total = 0",), ("total += {m}",), "total", sum),
    "count": Reducer(("count = 0",), ("count += 1",), "count", len),
    "largest": Reducer(
        ("best = None",),
        ("y = {m}", "if best is None or y > best:", "    best = y"),
        "best",
        lambda xs: max(xs, default=None),
    ),
    "smallest": Reducer(
        ("best = None",),
        ("y = {m}", "if best is None or y < best:", "    best = y"),
        "best",
        lambda xs: min(xs, default=None),
    ),
    "first": Reducer(
        ("found = None",),
        ("found = {m}", "break"),
        "found",
        lambda xs: xs[0] if xs else None,
    ),
    "last": Reducer(
        ("found = None",), ("found = {m}",), "found", lambda xs: xs[-1] if xs else None
    ),
    "alternating": Reducer(
        ("total = 0", "sign = 1"),
        ("total += sign * ({m})", "sign = -sign"),
        "total",
        lambda xs: sum(xs[0::2]) - sum(xs[1::2]),
    ),
}


def reduction(kind: str, wording: Wording, filtered: bool) -> Part:
    """The final number: of all numbers, or (`filtered`) of those that a predicate keeps.

    Half of the time it is of the images under a map.
    """
    if kind == "streak":
        return _streak(wording)
    p = wording.concept(lexicon.PREDICATES)
    m = wording.concept(lexicon.MAPS)
    mapped = kind != "count" and bool(wording.rng.random() < 0.5)
    reducer = REDUCERS[kind]
    of = p.words if filtered else "numbers"
    words = wording.word(lexicon.REDUCTIONS, kind)
    sentence = f"the {words} of the {m.words + ' of the ' if mapped else ''}{of}"
    pad = "            " if filtered else "        "
    code = ["    " + line for line in reducer.setup]
    code.append("    for x in {s}:")
    code += [f"        if {p.code}:"] if filtered else []
    image = m.code if mapped else "x"
    code += [pad + line.replace("{m}", image) for line in _simplify(reducer.body, mapped)]

    def run(xs: Numbers) -> int | None:
        kept = [x for x in xs if p.run(x)] if filtered else xs
        return reducer.run([int(m.run(x)) for x in kept] if mapped else kept)

    return Part(sentence, tuple(code), run, reducer.result)


def _simplify(body: tuple[str, ...], mapped: bool) -> list[str]:
    """Without a map there is no need to name the image: y is x."""
    if mapped:
        return list(body)
    lines = [line for line in body if line != "y = {m}"]
    return [line.replace("y", "x").replace("({m})", "{m}") for line in lines]


def _streak(wording: Wording) -> Part:
    p = wording.concept(lexicon.PREDICATES)
    words = wording.word(lexicon.REDUCTIONS, "streak")
    code = (
        "    run = 0",
        "    best = 0",
        "    for x in {s}:",
        f"        if {p.code}:",
        "            run += 1",
        "        else:",
        "            run = 0",
        "        if run > best:",
        "            best = run",
    )

    def run(xs: Numbers) -> int:
        runs = [len(list(g)) for keep, g in itertools.groupby(xs, p.run) if keep]
        return max(runs, default=0)

    return Part(f"the {words} of {p.words}", code, run, "best")


def shortcut(wording: Wording) -> Part:
    """A final number without a conditional statement: a built-in, then a map (E = 0)."""
    kind = wording.choice(("sum", "largest", "smallest"))
    builtin = {"sum": "sum", "largest": "max", "smallest": "min"}[kind]
    m = wording.concept(lexicon.MAPS)
    words = wording.word(lexicon.REDUCTIONS, kind)
    code = (f"    x = {builtin}({{s}})", f"    x = {m.code}")

    def run(xs: Numbers) -> int | None:
        value = REDUCERS[kind].run(xs) if xs else None
        return None if value is None else int(m.run(value))

    return Part(f"the {m.words} of the {words}", code, run, "x")
