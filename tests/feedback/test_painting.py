"""Labels of hostile sources: headers with `# : ; \\` and quotes in every place, against a
second implementation that is slow, reads characters, and shares no code with the first."""

import ast
import io
import sys
import tokenize

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepcoder_jax import syntax
from stepcoder_jax.config import FGOConfig
from stepcoder_jax.feedback import evidence, fgo, painting
from stepcoder_jax.records import Program, Report, Verdict
from tests.execution.kit import (
    judge,
    make_program,
    pool_fixture,
)
from tests.feedback.slow_labels import slow_mask


def report(executed, verdict=Verdict.RUNTIME):
    return Report(verdict, (), frozenset(executed))


def shown(source, kept):
    return "".join(
        chr(byte) if keep or byte in b" \n" else "."
        for byte, keep in zip(source.encode(), kept)
    )


PICTURES = {
    "a hash in the condition of an elif": """
a = '#'
a = '#'
if not a: b = 1
if not a: . . .
elif a == '#':
elif a == '#':
    c = 1
    c = 1
    # c: "
    # c: "
elif a == ':' or "#" in a:
.... . .. ... .. ... .. ..
    d = ';#'
    . . ....
""",
    "an at sign in a comment and in a decorator": """
class A: __matmul__ = lambda self, b: lambda f: f
class A: __matmul__ = lambda self, b: lambda f: f
@(  # not this @
@(  # not this @
    A() @ A()  # @nor this
    A() @ A()  # @nor this
)
)
def f(a={":": "#"}, *, b: "c:#" = 1) -> "d:": return ';'
def f(a={":": "#"}, *, b: "c:#" = 1) -> "d:": ...... ...
""",
    "colons of lambdas, slices and walruses": """
if (lambda x: "#:")(1)[0:1] == ":": b = 1
if (lambda x: "#:")(1)[0:1] == ":": . . .
elif (c := {1: "#"}[1:2] if 0 else 1): d = 1; e = "# :"  # e
elif (c := {1: "#"}[1:2] if 0 else 1): d = 1; e = "# :"  # e
else: f = 2
..... . . .
""",
    "backslashes": """
if 1 \\
if 1 \\
    == 2: a = "\\
    == 2: . . ..
#: not a comment"; b = 2
.. ... . ......... . . .
elif \\
elif \\
    1: c = 3
    1: c = 3
else \\
.... .
    : d = 4
    . . . .
""",
    "loops, with, try and match": """
for i in (":#"  # : for
for i in (":#"  # : for
): pass
): pass
else  : a = ";#"; b = ";"  # : else
else  : a = ";#"; b = ";"  # : else
while not a: b = ':'  # "
while not a: . . ...  . .
with open("/dev/null"
with open("/dev/null"
    ) as c, (open("/dev/null")  # :
    ) as c, (open("/dev/null")  # :
) as d: pass
) as d: pass
try: e = {":": "#"}[":#"]
try: e = {":": "#"}[":#"]
except (IndexError  # IndexError:
...... ...........  . ...........
        ): f = "#"
        .. . . ...
except KeyError as e: f = '"#'
except KeyError as e: f = '"#'
finally \\
finally \\
    : g = ":"
    : g = ":"
match {"#": ":"}:  # case _:
match {"#": ":"}:  # case _:
    case {"#": ";"}: h = 1
    .... ..... ..... . . .
    case {"#": str() as i} if "#" in i or i == ":": h = 2
    case {"#": str() as i} if "#" in i or i == ":": h = 2
    case _: h = 3
    .... .. . . .
""",
}


pool = pool_fixture(tests="run_all", workers=1)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(pool, name):
    """Odd lines are the program, which is run; the line below each is what is kept."""
    lines = PICTURES[name].strip("\n").split("\n")
    source, wanted = ("\n".join(lines[place::2]) + "\n" for place in (0, 1))
    told = judge(pool, source, ("", ""))
    assert told.verdict is Verdict.PASS
    kept = painting.label_bytes(source, told)
    assert shown(source, kept).split("\n") == wanted.split("\n")


# The grammar: `%s` is a place where an expression stands.
NASTY = ["#", ":", ";", "\\\\", "'", '"', "{{", "}}", "@", "elif x:", "# else:", "é", "日:"]
CONTENT = st.lists(st.sampled_from([*NASTY, "a", " "]), max_size=4).map("".join)
QUOTES = st.sampled_from(["'", '"', "'''", '"""'])
PREFIX = st.sampled_from(["", "f", "r", "b", "rb", "fr", "u"])


def make_string(prefix, quote, content):
    text = "".join(c for c in content if c not in quote).replace("\\", "")
    if "b" in prefix:
        text = "".join(c for c in text if c.isascii())
    if len(quote) == 3:
        text = text.replace(" ", "\n")
    return f"{prefix}{quote}{text.replace('{', '').replace('}', '')}{quote}"


STRING = st.builds(make_string, PREFIX, QUOTES, CONTENT)
FORMATTED = st.sampled_from(
    ['f"{x:>{y}}#"', "f'{x!r:#}:'", 'f"{x}{y:#x};"', "f'''{\nx}:# '''", 'f"{{#:}}{x}"']
)
if sys.version_info >= (3, 12):
    FORMATTED |= st.sampled_from(
        ['f"{x["#"]}"', "f'{'#:;'}'", 'f"{x:{y["@"]}}"', "f'''{x # }: '\n}'''"]
    )
NOTE = st.lists(st.sampled_from([*NASTY, "note"]), max_size=3).map(
    lambda words: "# " + " ".join(words)
)


def nest(inner):
    return st.one_of(
        st.tuples(inner, inner).map(lambda p: f"{p[0]} + {p[1]}"),
        inner.map(lambda e: f"(lambda x: {e})"),
        inner.map(lambda e: f"{{1: {e}}}[1:2]"),
        inner.map(lambda e: f"(w := {e})"),
        st.tuples(inner, NOTE).map(lambda p: f"({p[0]} {p[1]}\n )"),
        inner.map(lambda e: f"x[{e}:, ::2]"),
        inner.map(lambda e: f"f({e}, *a, k={e})"),
        inner.map(lambda e: f"x \\\n  @ ({e})"),
        inner.map(lambda e: f"({e}) if x else y"),
        inner.map(lambda e: f"[z for z in ({e}) if z]"),
    )


ATOM = st.one_of(st.sampled_from(["x", "1_0.5", "...", "-y"]), STRING, FORMATTED)
EXPRESSION = st.recursive(ATOM, nest, max_leaves=3)
SIMPLE = st.one_of(
    st.just("pass"),
    st.just("global g"),
    EXPRESSION,
    EXPRESSION.map(lambda e: f"a = {e}"),
    EXPRESSION.map(lambda e: f"b: {{1: {e}}}"),
    EXPRESSION.map(lambda e: f"return {e}"),
    EXPRESSION.map(lambda e: f"assert {e}, {e}"),
)
LINE = st.tuples(
    st.lists(SIMPLE, min_size=1, max_size=3).map("; ".join),
    st.sampled_from(["", ";", "  ;"]),
    st.just("") | NOTE.map(lambda note: "  " + note),
).map("".join)
# Each of (header, more headers behind it): `%s` is an expression.
COMPOUND = [
    ("if %s:",),
    ("if %s:", "elif %s:", "elif (%s) :", "else :"),
    ("while %s :", "else:"),
    ("for i, x[%s] in %s:", "else \\\n :"),
    ("async for i in (%s):",),
    ("with f(%s) as x[%s], g:",),
    ("with (f(%s) as y,\n  g,  # :\n):",),
    ("async with f(%s):",),
    ("try:", "except (%s):", "except E as e:", "else:", "finally :"),
    ("try :", "except* A[%s] as e :"),
    ("try:", "finally:"),
    ("class A(%s, m=%s):",),
    ("@(%s)\n%sdef f(a: %s = 1, /, *b, c=%s, **d) -> %s:",),
    ("@x[%s]\n%s# @ between\n%s@y\n%sasync def f():",),
    ("def f(  # a: '\n  a,\n):",),
]


@st.composite
def block(draw, indent, depth):
    """Lines of statements at an indentation."""
    lines = []
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            place = indent + draw(st.sampled_from(["", "", "  ", "      "]))
            lines.append(place + draw(NOTE))
        if depth == 0 or draw(st.integers(0, 2)) == 0:
            lines.append(indent + draw(LINE))
        else:
            lines.append(draw(compound(indent, depth - 1)))
    return "\n".join(lines)


@st.composite
def compound(draw, indent, depth):
    if draw(st.integers(0, 6)) == 0:
        return draw(match(indent, depth))
    lines = []
    for header in draw(st.sampled_from(COMPOUND)):
        parts = header.split("%s")
        text = parts[0]
        for part in parts[1:]:  # a place at the beginning of a line is its indentation
            text += (indent if text.endswith("\n") else draw(EXPRESSION)) + part
        lines.append(draw(suite(indent + text, indent, depth)))
    return "\n".join(lines)


@st.composite
def suite(draw, header, indent, depth):
    if draw(st.integers(0, 3)) == 0:
        return f"{header} {draw(LINE)}"
    note = draw(st.just("") | NOTE.map(lambda note: "  " + note))
    return f"{header}{note}\n{draw(block(indent + '  ', depth))}"


@st.composite
def match(draw, indent, depth):
    patterns = ["[1, ':', *_]", "{'#': 1}", "A(x=':#') as y", "(1\n | 2)", "'#:' , z", "_"]
    cases = []
    for pattern in [*draw(st.lists(st.sampled_from(patterns[:-1]), max_size=2)), "_"]:
        guard = f" if {draw(EXPRESSION)}" if pattern != "_" and draw(st.booleans()) else ""
        header = f"{indent} case {pattern}{guard} :"
        cases.append(draw(suite(header, indent + " ", depth)))
    return f"{indent}match {draw(EXPRESSION)}:  # case x:\n" + "\n".join(cases)


@st.composite
def programs(draw):
    body = draw(block("  ", 2))
    source = f"async def main():\n{body}\nmain()\n"
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"]))
    return draw(st.sampled_from(["", "", "\ufeff"])) + source.replace("\n", end)


def statements(source):
    tree = ast.parse(source.removeprefix("\ufeff"))
    return sorted(
        (node.lineno, node.col_offset)
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt)
    )


def readable(source):
    try:
        ast.parse(source.removeprefix("\ufeff"))
    except SyntaxError:
        return False
    return True


@settings(max_examples=60, deadline=None)
@given(programs().filter(readable), st.data())
def test_labels_agree_with_the_slow_reading(source, data):
    places = statements(source)
    ran = data.draw(st.sets(st.sampled_from(places)))
    fast = painting.label_bytes(source, report(ran))
    assert fast is not None
    slow = slow_mask(source, ran)
    for i, (byte, keep) in enumerate(zip(source.encode(), slow, strict=True)):
        if byte not in b" \t\n\r\f\v\\":
            assert fast[i] == keep, source[
                : len(source.encode()[:i].decode(errors="ignore"))
            ]


def bytes_of(spans, source):
    held = np.zeros(len(source.encode()), bool)
    for start, stop in spans:
        held[start:stop] = True
    return held


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="many tokens a formatted string")
@settings(max_examples=60, deadline=None)
@given(programs().filter(readable))
def test_tokens_stand_where_the_library_finds_them(source):
    lines = [*io.StringIO(source.removeprefix("\ufeff"), newline=None)]
    starts = syntax.line_starts(source.encode())

    def offset(row, column):
        return starts[row - 1] + len(lines[row - 1][:column].encode())

    wanted = {"code": [], "colons": [], "ats": [], "comments": []}
    for kind, word, begin, end, _ in tokenize.generate_tokens(iter(lines).__next__):
        if word.strip() and word != ";":
            span = offset(*begin), offset(*end)
            wanted["comments" if kind == tokenize.COMMENT else "code"].append(span)
            if word == ":":
                wanted["colons"].append(span[1])
            if word == "@":
                wanted["ats"].append(span[0])
    found = syntax.tokens(source.encode(), syntax.parse(source))
    assert found.comments == wanted["comments"]
    assert (found.colons, found.ats) == (wanted["colons"], wanted["ats"])
    white = np.isin(np.frombuffer(source.encode(), np.uint8), list(b" \t\n\r\f\\"))
    differ = bytes_of(found.code, source) != bytes_of(wanted["code"], source)
    assert not (differ & ~white).any()


@settings(max_examples=40, deadline=None)
@given(programs().filter(readable), st.data())
def test_no_token_is_dropped_that_ran_by_the_record(source, data):
    ran = data.draw(st.sets(st.sampled_from(statements(source))))
    told, raw = report(ran), source.encode()
    spans = tuple((i, i + 1) for i in range(len(raw)))
    labels = fgo.label(
        Program(make_program("").problem, source, 0, spans), told, FGOConfig()
    )
    assert labels.dropped_but_ran == 0 and not labels.is_uncertain
    everything = np.zeros(len(raw), bool)
    wrong = evidence.ran_but_dropped(source, told, spans, everything)
    assert wrong >= len(ran)  # each statement that ran shows at least where it begins
