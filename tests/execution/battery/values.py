"""What functions return: one entry for each row of kinds.TABLE, and what is to be seen of it."""

import dataclasses

from stepcoder_jax.execution.crossing.kinds import Fate


@dataclasses.dataclass(frozen=True)
class Row:
    """An expression that f returns, and claims about it as `x`: some hold, some do not."""

    value: str
    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    unfaithful: tuple[str, ...] = ()  # what only plain Python can tell
    called: tuple[object, object] = ()  # in mode call: equals this, and not that
    setup: str = ""

    @property
    def source(self) -> str:
        return f"{self.setup}\ndef f():\n    return {self.value}\n"

    def code(self, claim: str) -> str:
        return f"import math, itertools\n{self.setup}\nx = f()\nassert {claim}\n"


NUMPY = "import numpy as np\n"
POINT = "class P:\n    def __init__(s, v): s.v = v\n    def __len__(s): return 3\n"
POINT += "    def __str__(s): return 'P'\n    def __call__(s, y): return s.v + y\n"
ROWS = {
    "None": [Row("None", ("x is None",), ("x == 0",), called=(None, 0))],
    "bool": [Row("True", ("x is True", "x == 1"), ("x is False",), called=(True, 2))],
    "int, and subclasses: IntEnum": [
        Row("7", ("x == 7", "type(x) is int"), ("x == 8",), called=(7, 8)),
        Row("E.B", ("x == 2", "isinstance(x, int)"), ("x == 1",), called=(2, 1),
            setup="import enum\nE = enum.IntEnum('E', 'A B')"),
        Row("-3**200", ("x == -3**200",), ("x == 3**200",), called=(-(3**200), 5)),
    ],
    "float, and subclasses: numpy.float64": [
        Row("0.5", ("x == 0.5", "math.isclose(x, 0.5)"), ("x == 1",), called=(0.5, 1)),
        Row("float('nan')", ("x != x",), ("x == x",)),
        Row("np.float64(0.5)", ("x == 0.5", "isinstance(x, float)"), ("x == 0.4",),
            called=(0.5, 0.4), setup=NUMPY),
    ],
    "str, and subclasses: StrEnum, numpy.str_": [
        Row("'aé'", ("x == 'aé'", "x.upper() == 'AÉ'"), ("x == 'a'",), called=("aé", "a")),
        Row("np.str_('a')", ("x == 'a'",), ("x == 'b'",), called=("a", "b"), setup=NUMPY),
        Row("E.A", ("x == 'a'", "x.upper() == 'A'"), ("x == 'b'",), called=("a", "b"),
            setup="import enum\nE = enum.StrEnum('E', 'A B')"),
    ],
    "complex": [Row("1+2j", ("x == 1+2j", "x.imag == 2"), ("x == 1",), called=(1 + 2j, 1))],
    "bytes": [Row("b'ab'", ("x == b'ab'", "x[0] == 97"), ("x == 'ab'",), called=(b"ab", "ab"))],
    "tuple": [Row("(1, [2])", ("x == (1, [2])", "hash(x[:1])"), ("x == [1, [2]]",),
                  called=([1, [2]], [2]))],
    "frozenset": [Row("frozenset('ab')", ("x == {'a', 'b'}", "hash(x)"), ("x == {'a'}",),
                      called=({"a", "b"}, {"a"}))],
    "list": [Row("[1, [2]]", ("x == [1, [2]]",), ("x == (1, [2])",), called=([1, [2]], [1]))],
    "set": [Row("{1, 2}", ("x == {1, 2}", "x == frozenset({1, 2})"), ("x == [1, 2]",),
                called=({1, 2}, [1, 2]))],
    "dict": [Row("{1: 2}", ("x == {1: 2}", "x[1] == 2"), ("x == {'1': 2}",),
                 called=({1: 2}, {"1": 2}))],
    "bytearray": [Row("bytearray(b'ab')", ("x == b'ab'", "x == bytearray(b'ab')",
                  "isinstance(x, bytearray)"), ("x == b'a'",), called=(b"ab", b"a"))],
    "deque": [Row("deque([1, 2], 2)", ("x == deque([1, 2])", "x.maxlen == 2",
                  "list(x) == [1, 2]"), ("x == [1, 2]", "x == deque([1])"),
                  called=(Fate.REFUSED, [1, 2]), setup="from collections import deque")],
    "defaultdict, of a type as int or list": [
        Row("D(int, a=1)", ("x == {'a': 1}", "x['b'] == 0", "x.default_factory is int"),
            ("x == {}",), called=({"a": 1}, {}), setup="from collections import *\nD=defaultdict"),
        Row("D(lambda: 5, a=1)", ("x == {'a': 1}",), ("x == {}",), ("x['b'] == 5",),
            called=({"a": 1}, {}), setup="from collections import *\nD=defaultdict"),
    ],
    "Counter": [Row("Counter('aab')", ("x == {'a': 2, 'b': 1}", "x['z'] == 0",
                    "x.most_common(1) == [('a', 2)]", "x == Counter('aba')"), ("x == {}",),
                    called=({"b": 1, "a": 2}, {}), setup="from collections import Counter")],
    "OrderedDict": [Row("OrderedDict([(1, 2), (0, 3)])", ("x == {0: 3, 1: 2}",
                        "x != OrderedDict([(0, 3), (1, 2)])", "x.popitem(False) == (1, 2)"),
                        ("x == {}",), called=({0: 3, 1: 2}, {}),
                        setup="from collections import OrderedDict")],
    "range": [Row("range(3)", ("list(x) == [0, 1, 2]", "x == range(3)", "len(x) == 3",
                  "sum(x) == 3"), ("x == [0, 1, 2]",), called=(Fate.REFUSED, [0, 1, 2]))],
    "slice": [Row("slice(1, None)", ("x == slice(1, None)", "'abc'[x] == 'bc'"),
                  ("x == slice(1)",), called=(Fate.REFUSED, 1))],
    "dict keys": [Row("{1: 2}.keys()", ("list(x) == [1]", "x == {1}", "1 in x"), ("x == [1]",),
                      called=({1}, [1]))],
    "dict values": [Row("{1: 2}.values()", ("list(x) == [2]", "sorted(x) == [2]", "len(x) == 1"),
                        ("x == [2]",), called=(Fate.REFUSED, [2]))],
    "dict items": [Row("{1: [2]}.items()", ("list(x) == [(1, [2])]", "dict(x) == {1: [2]}"),
                       ("x == [(1, [2])]",), called=(Fate.REFUSED, [[1, [2]]]))],
    "Fraction": [
        Row("F(1, 2)", ("x == 0.5", "x == F(1, 2)", "x.numerator == 1", "x + 1 == 1.5"),
            ("x == 1",), called=(0.5, 1), setup="from fractions import Fraction as F"),
        Row("F(4, 2)", ("x == 2",), ("x == 3",), called=(2, 3),
            setup="from fractions import Fraction as F"),
    ],
    "Decimal": [
        Row("D('1.10')", ("x == D('1.1')", "str(x) == '1.10'"), ("x == 1.1",),
            called=(1.1, 1), setup="from decimal import Decimal as D"),
        Row("[D('Infinity'), D('3')]", ("x == [float('inf'), 3]",), ("x == [3, 3]",),
            called=([float("inf"), 3], [3, 3]), setup="from decimal import Decimal as D"),
        Row("D('nan')", ("x != x",), ("x == x",), setup="from decimal import Decimal as D"),
    ],
    "timedelta": [Row("T(1, 2)", ("x == T(1, 2)", "x.total_seconds() == 86402"), ("x == T(1)",),
                      called=(Fate.REFUSED, 86402), setup="from datetime import timedelta as T")],
    "date": [Row("D(2026, 1, 2)", ("x == D(2026, 1, 2)", "x.year == 2026"), ("x == D(2026, 1, 3)",),
                 called=(Fate.REFUSED, "2026-01-02"), setup="from datetime import date as D")],
    "time, of no zone or one with a fixed offset": [
        Row("T(1, 2, tzinfo=timezone.utc)", ("x == T(1, 2, tzinfo=timezone.utc)", "x.hour == 1"),
            ("x == T(1, 2)",), called=(Fate.REFUSED, 1), setup="from datetime import time as T, timezone"),
    ],
    "datetime, of no zone or one with a fixed offset": [
        Row("D(2026, 1, 2, 3)", ("x == D(2026, 1, 2, 3)", "x.date().day == 2"), ("x == D(2026, 1, 2)",),
            called=(Fate.REFUSED, 1), setup="from datetime import datetime as D"),
        Row("D(2026, 1, 2, tzinfo=timezone.utc)", ("x.isoformat()[-6:] == '+00:00'",),
            ("x == D(2026, 1, 2)",), setup="from datetime import datetime as D, timezone"),
    ],
    "built-in types as int": [Row("[int, str]", ("x == [int, str]", "x[0]('3') == 3"),
                                  ("x == [int, int]",), called=(Fate.REFUSED, ["int", "str"]))],
    "...": [Row("...", ("x is ...",), ("x is None",), called=(Fate.REFUSED, "..."))],
    "named tuple": [Row("P(1, [2])", ("x == (1, [2])", "x.x == 1", "x._asdict() == {'x': 1, 'y': [2]}",
                        "repr(x) == 'P(x=1, y=[2])'", "x._replace(x=3) == (3, [2])"), ("x.y == 2",),
                        called=([1, [2]], [1]),
                        setup="from collections import namedtuple\nP = namedtuple('P', 'x y')")],
    "numpy array, and numpy.float32": [
        Row("np.array([[1, 2], [3, 4]])", ("x.tolist() == [[1, 2], [3, 4]]", "(x == [[1, 2], [3, 4]]).all()",
            "x.shape == (2, 2)", "np.allclose(x, [[1, 2], [3, 4]])", "x.sum() == 10"),
            ("(x == 1).all()", "x == [[1, 2], [3, 4]]"), called=([[1, 2], [3, 4]], [[1, 2]]), setup=NUMPY),
        Row("np.float32(0.1)", ("x == np.float32(0.1)", "abs(x - 0.1) < 1e-6"), ("x == 0.2",),
            called=(0.1, 0.2), setup=NUMPY),
        Row("np.array(['a', 'bc'])", ("list(x) == ['a', 'bc']",), ("x[0] == 'b'",),
            called=(["a", "bc"], ["a"]), setup=NUMPY),
    ],
    "numpy int64, bool_ and their like": [
        Row("[np.int64(3), np.bool_(True)]", ("x == [3, True]", "x[0] + 1 == 4"), ("x == [3, False]",),
            called=([3, True], [3, False]), setup=NUMPY),
        Row("{np.int64(3): np.uint8(1)}", ("x == {3: 1}",), ("x == {3: 2}",), called=({3: 1}, {}),
            setup=NUMPY),
    ],
    "iterator: generator, map, zip, a list's": [
        Row("(i * i for i in range(200))", ("list(x) == [i * i for i in range(200)]", "next(x) == 0",
            "list(zip(x, 'ab')) == [(0, 'a'), (1, 'b')]", "iter(x) is x", "4 in x"),
            ("x == [0, 1]", "5 in x"), called=(Fate.REFUSED, [0, 1])),
        Row("map(int, '12')", ("list(x) == [1, 2]", "sum(x) == 3"), ("x == [1, 2]",),
            called=(Fate.REFUSED, [1, 2])),
        Row("itertools.count(5)", ("next(x) == 5", "list(itertools.islice(x, 99))[-1] == 103"),
            ("next(x) == 6",), called=(Fate.REFUSED, 5), setup="import itertools"),
        Row("[iter([1]), zip('a', 'b')]", ("list(map(list, x)) == [[1], [('a', 'b')]]",), ("x == 1",),
            called=(Fate.REFUSED, [[1], [["a", "b"]]])),
    ],
    "all else: own classes, Enum, functions, re.Match": [
        Row("P(3)", ("x", "x == x", "str(x) == 'P'", "x(4) == 7", "f() != f()", "not hasattr(x, 'w')"),
            ("x == 3", "x + 1 == 4", "x.w == 3"), ("x.v == 3", "len(x) == 3"), setup=POINT,
            called=(Fate.REFUSED, 3)),
        Row("re.match('a', 'ab')", ("x", "x is not None", "bool(x) is True"), ("x == 'a'",),
            ("x.group() == 'a'",), setup="import re", called=(Fate.REFUSED, "a")),
        Row("E.A", ("x", "x is f()", "x == f()", "str(x) == 'E.A'"), ("x == 1",), ("x.value == 1",),
            setup="import enum\nE = enum.Enum('E', 'A B')", called=(Fate.REFUSED, 1)),
        Row("D(1)", ("x", "repr(x) == 'D(v=1)'"), ("x == 1", "x is f()"), ("x == f()", "x.v == 1"),
            setup="import dataclasses\n@dataclasses.dataclass\nclass D:\n    v: int",
            called=(Fate.REFUSED, 1)),
        Row("lambda y: y + 1", ("x(1) == 2", "callable(x)"), ("x(1) == 1",), called=(Fate.REFUSED, 1)),
        Row("f", ("x() is x",), ("x == 3",), called=(Fate.REFUSED, 3)),
    ],
}  # fmt: skip
