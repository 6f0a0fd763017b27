"""Which expressions ran, on Python 3.12 and newer, and what is kept of a program by it."""

import ast
import collections
import sys

import pytest

from stepcoder_jax.execution import Pool, SandboxError
from stepcoder_jax.feedback import fgo
from stepcoder_jax.records import Verdict
from tests.execution.kit import INTERPRETERS, find_interpreter, judge, make_settings
from tests.execution.test_coverage import GOLDEN, GOLDEN_EXECUTED


@pytest.fixture(scope="module", params=INTERPRETERS[1:])
def fine_pool(request):
    python = find_interpreter(request.param)
    settings = make_settings(python=python, tests="run_all", coverage="expression")
    with Pool(settings) as pool:
        yield pool


def picture(source, report):
    """The source with a dot for each byte that is dropped; spaces stay."""
    kept = fgo.byte_mask(source, report, True)
    return bytes(
        byte if keep or byte in b" \n" else ord(".")
        for byte, keep in zip(source.encode(), kept)
    ).decode()


# Pairs of lines: the program's, and below it what is kept of it.
PICTURES = {
    "right operand of and, or": """
a = [] and len(a) or 3
a = [] and ...... or 3
b = a or (2 + a)
b = a or (. . .)
while b and not a: a = b and 0
while b and not a: . . . ... .
""",
    "arms of an if-expression": """
a = [1 if c else print(2) for c in "xy"]
a = [1 if c else ........ for c in "xy"]
b = len("x") if not a else -len(a)
b = ........ if not a else -len(a)
""",
    "comprehensions that never ran": """
a = [f(x) for x in () if x.y]
a = [.... for . in () if ...]
b = {k: v for k, v in {}.items()}
b = {.. . for .. . in {}.items()}
c = sum(x * x for x in [])
c = sum(. . . for . in [])
d = [x for x in [1] if not x]
d = [. for x in [1] if not x]
""",
    "lambdas": """
f = lambda x, y=len("a"): x * y + 1
f = lambda x, y=len("a"): . . . . .
g = lambda x: x or g(0)
g = lambda x: x or ....
g(1)
g(1)
""",
    "the rest after a call that raised, TypeError": """
def boom(): return [].x
def boom(): return [].x
def f(a):
def f(a):
    return max(len(a), boom(), len(a) + 1)
    return max.len(a). boom(). ...... . ..
try: b = f("a") + f("b")
try: . = f("a") . ......
except AttributeError: a = len("a"); print("a" + a, "b")
except AttributeError: a = len("a"); print."a" + a. ....
""",
    "a test that is a jump alone": """
a = None
a = None
if a is None: b = 1
if a is None: b = 1
if b is None: b = 2
if b is None: . . .
""",
    "chained comparison": """
a = 3 < 2 < len("abc")
a = 3 < 2 < ..........
b = 1 < 2 < len("abc")
b = 1 < 2 < len("abc")
""",
    "a def that raised at a default": """
try:
try:
    @print
    @print
    def f(a, b=nothing, c=len("")): return a
    def f(a, b=nothing, c=.......): ...... .
except NameError: pass
except NameError: pass
class A(int and object or print()): b = a = 1
class A(int and object or .......): b = a = 1
""",
    "headers": """
for i, j in ():
for .. . in ():
    print(i)
    ........
with open("/dev/null") as f, (f or g()) as h:
with open("/dev/null") as f, (f or ...) as h:
    pass
    pass
if never if f.closed and [] else 1: a = 1
if ..... if f.closed and [] else 1: a = 1
elif print(): b = 2
.... ........ . . .
""",
    "assert and raise": """
assert len("a") == 1, print("no")
assert len("a") == 1, ...........
try: raise KeyError(a := 1) from (a and None)
try: raise KeyError(a := 1) from (a and None)
except KeyError: pass
except KeyError: pass
""",
    "clauses": """
a = 2
a = 2
match a:
match a:
    case 1 | 2 | 3 if a or print():
    case 1 | 2 | . if a or .......:
        b = 1
        b = 1
try: a.b
try: a.b
except (AttributeError, KeyError or a): pass
except (AttributeError, KeyError or .): pass
""",
    "columns in bytes": """
é = "日本" if len("ü") else "ßé"; z = é or "日本"
é = "日本" if len("ü") else ......; z = é or ........
""",
    "a comment goes with its statement": """
a = [1]
a = [1]
b = a or len(  # why
b = a or ....  . ...
    "abc")  # the fallback
    ......  # the fallback
""",
    "f-strings": """
a = 3
a = 3
b = f"{a} {a if a > 2 else -a:>{a}}!"
b = f"{a} {a if a > 2 else ..:>{a}}!"
""",
    "docstrings, pass and annotations have no instruction that counts": """
def f(a: int = 1) -> str:
def f(a: int = 1) -> str:
    "docstring"
    "docstring"
    b: "never" = a
    b: "never" = a
    return b
    return b
    pass; ...
    pass; ...
f()
f()
try:
try:
    a.b
    a..
    ...
    ...
    c: int
    c: int
except NameError: pass
except NameError: pass
""",
}


class Marker(ast.NodeTransformer):
    """Tells of every expression whether it began and whether it ended, without positions.

    `e` becomes `_ended_7((_began_7(), e)[1])`; that they ran is statement coverage.
    """

    def __init__(self):
        self.places = []

    def visit(self, node):
        if isinstance(node, (ast.pattern, ast.arg)) or self.is_constant(node):
            return node
        if isinstance(node, ast.JoinedStr):
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    part.value = self.visit(part.value)
            return self.mark(node)
        fields = [name for name in node._fields if name not in ("annotation", "returns")]
        for name in fields:
            value = getattr(node, name, None)
            if isinstance(value, ast.AST):
                setattr(node, name, self.visit(value))
            elif isinstance(value, list):
                found = [self.visit(v) if isinstance(v, ast.AST) else v for v in value]
                setattr(node, name, found)
        is_target = isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del))
        is_part = isinstance(node, (ast.Slice, ast.Starred)) or is_target
        return self.mark(node) if isinstance(node, ast.expr) and not is_part else node

    @staticmethod
    def is_constant(node):
        return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)

    def mark(self, node):
        number = len(self.places)
        self.places.append(
            (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)
        )
        began = ast.Call(ast.Name(f"_began_{number}", ast.Load()), [], [])
        pair = ast.Tuple([began, node], ast.Load())
        value = ast.Subscript(pair, ast.Constant(1), ast.Load())
        return ast.Call(ast.Name(f"_ended_{number}", ast.Load()), [value], [])


def mark_expressions(source):
    """The program with marks, on two lines for each expression, and their positions."""
    marker = Marker()
    tree = ast.fix_missing_locations(marker.visit(ast.parse(source)))
    marks = [
        f"def _began_{i}(): return 0\ndef _ended_{i}(value): return value\n"
        for i in range(len(marker.places))
    ]
    return "".join(marks) + ast.unparse(tree), marker.places


def disagreements(places, marked, report):
    """Positions that ran but never began, and that ended but never ran; how many agree."""
    ran_lines = {line for line, column in marked.executed if column}
    began, ended = collections.Counter(), collections.Counter()
    for number, place in enumerate(places):
        began[place] += 2 * number + 1 in ran_lines
        ended[place] += 2 * number + 2 in ran_lines
    seen = {place: ran for place, ran in report.expressions.items() if place in began}
    wrong = [
        place
        for place, ran in seen.items()
        if (ran and not began[place]) or (ended[place] and not ran)
    ]
    return wrong, len(seen) - len(wrong)


def source_of(name):
    return "\n".join(PICTURES[name].strip("\n").split("\n")[::2]) + "\n"


def test_instructions_agree_with_marks_on_every_expression(fine_pool):
    compared = 0
    for name in PICTURES:
        source, places = mark_expressions(source_of(name))
        marked = judge(fine_pool, source, ("", ""))
        report = judge(fine_pool, source_of(name), ("", ""))
        assert marked.tests[0].error == report.tests[0].error, marked
        wrong, agreeing = disagreements(places, marked, report)
        assert not wrong, name
        compared += agreeing
    assert compared > 200


@pytest.mark.parametrize("name", PICTURES)
def test_golden_expressions(fine_pool, name):
    source = source_of(name)
    expected = "\n".join(PICTURES[name].strip("\n").split("\n")[1::2]) + "\n"
    report = judge(fine_pool, source, ("", ""))
    assert (report.tests[0].error == "TypeError") == ("TypeError" in name), report
    assert picture(source, report) == expected


def test_expressions_are_kept_per_test_and_as_union(fine_pool):
    source = "a = input()\nb = len(a) if a else -1\n"
    report = judge(fine_pool, source, ("\n", ""), ("x", ""))
    arms = {(2, 4, 2, 10): "len(a)", (2, 21, 2, 23): "-1"}
    empty, filled = ([test.expressions[arm] for arm in arms] for test in report.tests)
    assert (empty, filled) == ([False, True], [True, False])
    assert report.expressions == dict.fromkeys(report.expressions, True)
    assert picture(source, report) == source


def test_expressions_lie_in_the_source_and_statements_stay_as_they_are(fine_pool):
    report = judge(fine_pool, GOLDEN, ("", ""))
    assert report.executed == GOLDEN_EXECUTED
    lines = GOLDEN.encode().split(b"\n")
    assert len(report.expressions) > 80
    for line, column, end_line, end_column in report.expressions:
        assert 1 <= line <= end_line <= len(lines), "a probe has a line of its own"
        assert column <= len(lines[line - 1]) and end_column <= len(lines[end_line - 1])
        assert (line, column) < (end_line, end_column)


def test_a_timeout_keeps_its_expressions(fine_pool):
    source = "a = 1\nwhile a or a.b: a = a + (a and 1)\nprint(a)\n"
    report = judge(fine_pool, source, ("", ""), cpu_seconds=0.2)
    assert report.verdict is Verdict.TIMEOUT
    kept = "a = 1\nwhile a or ...: a = a + (a and 1)\n........\n"
    assert picture(source, report) == kept


def test_columns_beyond_255_and_the_map_beyond_its_end(fine_pool):
    wide = f"a = {'1 + ' * 100}len('') and (a if a else -a)\n"
    report = judge(fine_pool, f"a = 0\n{wide}", ("", ""))
    arm = wide.index("(a if") + 1
    assert arm > 255 and report.expressions[2, arm, 2, arm + 1] is False
    assert report.expressions[2, len(wide) - 4, 2, len(wide) - 2] is True
    many = "a = [0]\n" + "a[0] = a[0] or 1\n" * 6000 + "print(3)\n"
    report = judge(fine_pool, many, ("", "3"))
    assert report.passed and len(report.executed) == 6002
    assert 2000 < max(line for line, *_ in report.expressions) < 6000


def test_what_does_not_compile_has_no_expressions(fine_pool):
    report = judge(fine_pool, "a = (\n", ("", ""))
    assert report.verdict is Verdict.COMPILE and not report.expressions


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this interpreter has monitoring")
def test_no_expressions_on_an_interpreter_without_monitoring():
    with pytest.raises(SandboxError) as refused:
        Pool(make_settings(coverage="expression"))
    said = str(refused.value)
    assert "got 3.11" in said and "--execution.python" in said
    assert "--fgo.granularity statement" in said and "\n" not in said
