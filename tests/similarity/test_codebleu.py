"""CodeBLEU against counts by hand."""

import math
import subprocess
import sys

import pytest

from stepcoder_jax.similarity.codebleu import codebleu, mean_codebleu, parts
from stepcoder_jax.similarity.trees import Below, def_use, nodes_below, subtrees
from stepcoder_jax.syntax import parse
from tests.test_hostile_text import DEEP

LOOP = """def f(xs):
    n = 0
    for x in xs:
        if x < 0:
            n += x
    return n
"""
RENAMED = """def f(values):
    total = 0
    for item in values:
        if item < 0:
            total += item
    return total
"""
ONE_LINE = "def f(xs):\n    return sum(x for x in xs if x < 0)\n"
COPY = LOOP.replace("<", ">")


def read(source: str) -> Below:
    tree = parse(source)
    assert tree is not None
    return nodes_below(tree)


def test_bleu_by_hand():
    """`a = b - 1` against `a = b + 1`: five tokens each, of which `-` alone differs.

    n = 1: 4 of 5; n = 2: `a =`, `= b` of 4; n = 3: `a = b` of 3; n = 4: none of 2, so 0.1.
    Equally long: no brevity penalty. No keywords: both BLEUs are one. Trees: the assignment
    and the sum have a node below them, and neither is found. No name that is bound is read:
    no edges, so the mean is of three.
    """
    found = parts("a = b - 1", "a = b + 1")
    bleu = (4 / 5 * 2 / 4 * 1 / 3 * 0.1 / 2) ** (1 / 4)
    assert found.bleu == found.weighted_bleu == pytest.approx(bleu)
    assert (found.trees, found.flow) == (0.0, None)
    assert codebleu("a = b - 1", "a = b + 1") == pytest.approx(2 * bleu / 3)


def test_weighted_bleu_and_brevity_by_hand():
    """`return not a` against `return a or b`: `return`, `a` are found, of 3 and 4 tokens.

    n = 1: 2 of 3; with keywords 5 + 1 of 5 + 5 + 1. n = 2: none of 2 (`return not`,
    `not a`); n = 3: none of 1; n = 4: the candidate has none, which counts as one missed.
    """
    found = parts("return not a", "return a or b")
    brevity = math.exp(1 - 4 / 3)
    rest = 0.1 / 2 * 0.1 / 1 * 0.1 / 1
    assert found.bleu == pytest.approx(brevity * (2 / 3 * rest) ** (1 / 4))
    assert found.weighted_bleu == pytest.approx(brevity * (6 / 11 * rest) ** (1 / 4))


def test_a_repeated_token_is_found_as_often_as_it_is_there():
    """`a a a a` against `a b`: 1 of 4; no pair; the rest are none of 2 and of 1."""
    expected = (1 / 4 * 0.1 / 3 * 0.1 / 2 * 0.1 / 1) ** (1 / 4)
    assert parts("a a a a", "a b").bleu == pytest.approx(expected)


def test_trees_by_hand():
    """Sub-trees with a node below them, as a multiset.

    `x = f(y + 1)`: assignment, call, sum. `z = g(y + 1) * g(y + 1)`: assignment,
    product, two calls, two sums. Names are blanked, so one call and one sum are in common,
    of 3 and of 6.
    """
    one, other = "x = f(y + 1)\n", "z = g(y + 1) * g(y + 1)\n"
    counts = [subtrees(read(source)) for source in (one, other)]
    assert [sorted(each.values()) for each in counts] == [[1, 1, 1], [1, 1, 2, 2]]
    assert parts(one, other).trees == 2 * 2 / (3 + 6)


def test_what_is_no_name_tells_trees_apart():
    pairs = [
        ("a + 1", "a - 1"),
        ("a + 1", "a + 2"),
        ("a + 1", "a + 1.0"),
        ("a + '1'", "a + b'1'"),
        ("-a", "not a"),
        ("a and b", "a or b"),
        ("f(a, b)", "f(a, *b)"),
        ("f(a, b=c)", "f(a, **c)"),
        ("a[b:]", "a[:b]"),
        ("if a: b\nelse: c", "if a: b; c"),
        ("[a for b in c]", "{a for b in c}"),
    ]
    for one, other in pairs:
        assert subtrees(read(one)) != subtrees(read(other)), (one, other)
    blanked = [
        ("f(a, b=c)", "g(d, e=f)"),
        ("a.b[c]", "d.e[f]"),
        ("import a.b as c", "import d as e"),
        ("def f(a, *b): return a", "def g(c, *d): return e"),
        ("u'a'.b", "'a'.b"),
    ]
    for one, other in blanked:
        assert subtrees(read(one)) == subtrees(read(other)), (one, other)


def test_def_use_by_hand():
    """f 0, xs 1, n 2, x 3: `x` is of `xs`, decides an `if`, goes into `n`, as `n` does."""
    expected = {(1, "3"): 1, (3, "If:"): 1, (3, "2"): 1, (2, "2"): 1, (2, "Return:"): 1}
    assert def_use(read(LOOP)) == def_use(read(RENAMED)) == expected
    # f 0, xs 1, x 2: both reads in the clause of the comprehension go into `x`
    expected = {(2, "Return:"): 1, (1, "2"): 1, (2, "2"): 1}
    assert def_use(read(ONE_LINE)) == expected
    # number 2 goes into itself, and into what is returned, in both
    assert parts(ONE_LINE, LOOP).flow == 2 * 2 / (3 + 5)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a = 1\nb, c = a, d", {(0, "1 2"): 1}),
        ("a = b = 1\na[b] = b", {(0, "0"): 1, (1, "0"): 2}),
        ("a = 1\nb = (c := a) + c", {(0, "2"): 1, (2, "1"): 1}),
        ("import a.b\nwith a as b: print(b)", {(0, "1"): 1, (1, "Expr:"): 1}),
        ("def f(a=1): yield f(a)", {(0, "Expr:"): 1, (1, "Expr:"): 1}),
        ("a = lambda b: b", {(1, "0"): 1}),
        ("try: a\nexcept E as e: raise e", {(0, "Raise:"): 1}),
        ("match a:\n case [b, *c]: b, c", {(0, "Expr:"): 1, (1, "Expr:"): 1}),
        ("a = b = c = d = e = f = 1\na = b = c = d = e = f", {(5, "0 1 2 3"): 1}),
        ("print(a)", {}),
    ],
)
def test_where_a_value_goes(source, expected):
    assert def_use(read(source)) == expected


def test_the_ranking_of_a_known_program():
    """A wrong copy stands above a right program of another form, as in the field's own."""
    names = {"itself": LOOP, "copy": COPY, "renamed": RENAMED, "one line": ONE_LINE}
    scores = {name: codebleu(source, LOOP) for name, source in names.items()}
    assert scores["itself"] == 1.0
    order = sorted(scores, key=scores.__getitem__, reverse=True)
    assert order == ["itself", "copy", "renamed", "one line"]
    assert 0.75 < scores["copy"] < 0.95 and 0.5 < scores["renamed"] < 0.7
    assert scores["one line"] < 0.45
    assert codebleu("", LOOP) == 0.0 and codebleu("def f(xs):\n    pass\n", LOOP) < 0.1


def test_writing_more_costs():
    assert codebleu(LOOP * 3, LOOP) < 0.7


def test_what_does_not_parse_has_no_trees_and_no_flow():
    found = parts(LOOP + ")", LOOP)
    assert found.bleu > 0.9 and (found.trees, found.flow) == (0.0, 0.0)
    found = parts(LOOP, LOOP + ")")
    assert found.bleu > 0.9 and (found.trees, found.flow) == (0.0, 0.0)


def test_several_references_are_averaged():
    alone = [codebleu(COPY, each) for each in (LOOP, ONE_LINE)]
    assert mean_codebleu(COPY, [LOOP, ONE_LINE]) == pytest.approx(sum(alone) / 2)
    with pytest.raises(ValueError, match="at least one reference"):
        mean_codebleu(COPY, [])


@pytest.mark.parametrize("name", DEEP)
def test_hostile_text_has_a_score_however_deep_the_caller(name):
    def down(depth):
        return codebleu(DEEP[name], LOOP) if depth == 0 else down(depth - 1)

    assert 0.0 <= down(600) <= codebleu(DEEP[name], DEEP[name]) <= 1.0


@pytest.mark.parametrize(
    "source",
    [
        "x = " + "-" * 490 + "1\n",
        "x = 0x" + "f" * 4000 + "\n",
        "x = 1" + "+1" * 480 + "\n",
        "x = '\\ud800'\n",
        "".join(f"{' ' * i}if a:\n" for i in range(90)) + " " * 90 + "b\n",
    ],
)
def test_what_is_within_the_limits_is_compared(source):
    assert parts(source, source).trees == 1.0
    assert codebleu(source, source) == 1.0


def test_every_process_gives_the_same():
    code = (
        "from stepcoder_jax.similarity.codebleu import parts; "
        f"print(parts({RENAMED!r}, {LOOP!r}), parts({ONE_LINE!r}, {LOOP!r}))"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(shown) == 1
