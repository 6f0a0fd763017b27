"""Exceptions, arguments, iterators and sizes between test code and the program."""

import contextlib
import functools
import io
import time

import pytest

from stepcoder_jax.execution import Pool
from stepcoder_jax.execution.crossing import codec_clock, errors, kinds, messages, values
from stepcoder_jax.records import Verdict
from tests.execution.kit import judge_code, make_settings


@pytest.fixture(scope="module")
def pool():
    with Pool(make_settings(workers=1, tests="run_all")) as pool:
        yield pool


judge = functools.partial(judge_code, cpu_seconds=1.0)


# Callers take these errors for something else than an error, or would if they crossed.
CALLERS = (
    "assert all(map(f, [1, 2]))",
    "assert not any(map(f, [1, 2]))",
    "for got in map(f, [1, 2]): assert got == 3",
    "assert list(map(f, [1, 2])) == []",
    "assert sum(map(f, [1])) == 0 and set(map(f, [1])) == set()",
    "assert 3 not in map(f, [1]) and next(map(f, [1]), 0) == 0",
    "for got in iter(lambda: f(1), 3): assert got == 3",
    "assert [*filter(f, [1])] == [] and dict(zip('a', map(f, [1]))) == {}",
    "assert all(f(x) for x in itertools.takewhile(f, [1, 2]))",
    "def g():\n    yield 1\n    return f(1)\nassert list(g()) == [1]",
    "class C:\n    def __iter__(s): return s\n    def __next__(s): return f(1)\n"
    "assert list(C()) == []",
    "import contextlib\nwith contextlib.suppress(Exception): f(1)\nassert f(1) == 3",
)
STEERING = {
    "StopIteration": "raise StopIteration",
    "with a value": "raise StopIteration(3)",
    "StopAsyncIteration": "raise StopAsyncIteration",
    "subclass": "class Done(StopIteration): pass\n    raise Done",
    "two bases": "class Done(ValueError, StopIteration): pass\n    raise Done",
    "hidden bases": "class M(type):\n        __mro__ = __bases__ = (object,)\n"
    "        def mro(c): return [c, *StopIteration.__mro__]\n"
    "    class Done(StopIteration, metaclass=M): pass\n    raise Done",
    "renamed": "class ValueError(StopIteration): pass\n    raise ValueError",
    "GeneratorExit": "raise GeneratorExit",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "SystemExit": "raise SystemExit(0)",
    "of its own": "class Own(BaseException): pass\n    raise Own",
    "patched builtin": "import builtins\n    builtins.ValueError = StopIteration\n"
    "    raise ValueError",
}


@pytest.mark.parametrize("name", STEERING)
def test_no_exception_steers_the_caller(pool, name):
    report = judge(pool, f"def f(x):\n    {STEERING[name]}\n", *CALLERS)
    assert {result.verdict for result in report.tests} == {Verdict.RUNTIME}, report
    assert not report.unfaithful


# What test code sees of an exception: (program, test code that passes).
CAUGHT = {
    "built in": (
        "def f(): raise KeyError('k')",
        "try: f()\nexcept KeyError as e: assert e.args == ('k',) and str(e) == \"'k'\"",
    ),
    "its base": ("def f(): [][1]", "try: f()\nexcept LookupError: pass\nelse: assert 0"),
    "subclass": (
        "class E(ValueError): pass\ndef f(): raise E('no', 3)",
        "try: f()\nexcept ValueError as e:\n"
        "    assert e.args == ('no', 3) and type(e).__name__ == 'E'",
    ),
    "two bases": (
        "class E(KeyError, ValueError):\n    def __str__(s): return 'text'\n"
        "def f(): raise E(1)",
        "try: f()\nexcept ValueError as e:\n"
        "    assert str(e) == 'text' and isinstance(e, KeyError)",
    ),
    "own of Exception": (
        "class E(Exception):\n    def __init__(s): super().__init__('so')\n"
        "def f(): raise E",
        "try: f()\nexcept ValueError: assert 0\nexcept Exception as e:\n"
        "    assert str(e) == 'so'",
    ),
    "many arguments": (
        "def f(): b'\\xff'.decode()",
        "try: f()\nexcept UnicodeDecodeError as e:\n"
        "    assert (e.start, e.object) == (0, b'\\xff')",
    ),
    "of the system": (
        "def f(): open('/nowhere')",
        "try: f()\nexcept OSError as e: assert isinstance(e.errno, int)",
    ),
    "group": (
        "def f(): raise ExceptionGroup('g', [ValueError('a')])",
        "try: f()\nexcept Exception: pass\nelse: assert 0",
    ),
    "arguments that are no values": (
        "def f(): raise ValueError(object)",
        "try: f()\nexcept ValueError as e: assert 'object' in str(e)",
    ),
    "AssertionError": (
        "def f(): assert False, 'no'",
        "try: f()\nexcept AssertionError as e: assert str(e) == 'no'\nelse: assert 0",
    ),
    "from within an iterator": (
        "def f():\n    yield 1\n    raise ValueError('late')",
        "x = f()\nassert next(x) == 1\ntry: next(x)\n"
        "except ValueError as e: assert str(e) == 'late'\nassert list(x) == []",
    ),
    "behind many items": (
        "def f():\n    yield from range(100)\n    raise ValueError('late')",
        "got = []\ntry:\n    for x in f(): got.append(x)\nexcept ValueError: pass\n"
        "assert got == list(range(100))",
    ),
    "arguments changed before": (
        "def f(a):\n    a.append(1)\n    raise ValueError",
        "a = []\ntry: f(a)\nexcept ValueError: pass\nassert a == [1]",
    ),
}


@pytest.mark.parametrize("name", CAUGHT)
def test_test_code_catches_what_the_program_raises(pool, name):
    source, code = CAUGHT[name]
    names: dict = {}
    exec(source, names)
    exec(code, names)  # as plain Python has it
    report = judge(pool, source, code)
    assert report.passed, report


def test_errors_that_nobody_catches_are_the_programs(pool):
    report = judge(
        pool,
        "class E(ValueError):\n    def __str__(s): raise KeyError\n"
        "def f(x):\n    if x: raise AssertionError\n    raise E",
        "f(0)",
        "f(1)",
        "try: f(0)\nexcept ValueError as e: e.code",
        "try: f(0)\nexcept E: pass",
    )
    said = [(test.verdict, test.error, test.unfaithful) for test in report.tests]
    assert said == [
        (Verdict.RUNTIME, "E", False),
        (Verdict.RUNTIME, "AssertionError", False),
        (Verdict.WRONG, "Unfaithful", True),
        (Verdict.WRONG, "Unfaithful", True),
    ]
    assert report.tests[0].line == 5 and report.tests[1].line == 4


SWALLOWED = "try: f(0)\nexcept: pass\n"
ENDINGS = {
    "leaves": ("import os\ndef f(x): os._exit(0)", Verdict.RUNTIME),
    "too much": ("def f(x): return [0] * 3_000_000", Verdict.OUTPUT),
    "nonsense": ("import os\ndef f(x): os.write(5, b'\\0\\0\\0\\2[]')", Verdict.RUNTIME),
    "unfaithful": ("class A:\n    x = 3\ndef f(x): return A()", Verdict.WRONG),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_bare_except_does_not_mend_the_end_of_a_test(pool, name):
    source, verdict = ENDINGS[name]
    code = "try: f(0).x\nexcept: pass\n" if name == "unfaithful" else SWALLOWED
    assert judge(pool, source, code).verdict is verdict


# Arguments: (program, test code that passes in plain Python and so here).
ARGUMENTS = {
    "nested": ("def f(m): m[0].append(1)", "r = [0]\nm = [r]\nf(m)\nassert r == [0, 1]"),
    "deep": (
        "def f(m): m['a'][0][1].add(5)",
        "s = {4}\nm = {'a': ([0, s],)}\nf(m)\nassert s == {4, 5} and m['a'][0][1] is s",
    ),
    "keyword": ("def f(*, k): k.clear()", "r = [1]\nf(k=r)\nassert r == []"),
    "same twice": (
        "def f(a, b):\n    a.append(1)\n    return len(b)",
        "r = []\nassert f(r, r) == 1 and r == [1]",
    ),
    "rows that are one": (
        "def f(m): m[0][0] = 7",
        "m = [[0] * 2] * 2\nf(m)\nassert m == [[7, 0], [7, 0]] and m[0] is m[1]",
    ),
    "returned": ("def f(a): return a", "r = [1]\nassert f(r) is r"),
    "part returned": ("def f(a): return a[1]", "r = [0, {}]\nassert f(r) is r[1]"),
    "moved within": (
        "def f(a): a[0], a[1] = a[1], a[0]",
        "x, y = [1], [2]\nr = [x, y]\nf(r)\nassert r[0] is y and r[1] is x",
    ),
    "new in both": (
        "def f(a):\n    n = [3]\n    a.append(n)\n    return n",
        "r = []\nassert f(r) is r[0]",
    ),
    "in itself": ("def f(a): a.append(a)", "r = [1]\nf(r)\nassert r[1] is r"),
    "given in itself": (
        "def f(a): return len(a[0][0])",
        "r = []\nr.append(r)\nassert f(r) == 1",
    ),
    "deque": (
        "def f(q): q.popleft()",
        "from collections import deque\nq = deque([1, 2])\nf(q)\nassert q == deque([2])",
    ),
    "bytearray": ("def f(b): b[0] = 98", "b = bytearray(b'aa')\nf(b)\nassert b == b'ba'"),
    "counter": (
        "def f(c): c['a'] += 1",
        "c = Counter('a')\nf(c)\nassert c == Counter('aa') and c['z'] == 0",
    ),
    "order of a dict": (
        "def f(d): d['a'] = d.pop('a')",
        "d = {'a': 1, 'b': 2}\nf(d)\nassert list(d) == ['b', 'a']",
    ),
    "equal, not the same": ("def f(a): a[0] = True", "r = [1]\nf(r)\nassert r[0] is True"),
    "range and Fraction": (
        "def f(a, b): return [x * b for x in a]",
        "from fractions import Fraction as F\nassert f(range(2), F(1, 2)) == [0, F(1, 2)]",
    ),
    "its own object": (
        "class N:\n    def __init__(s, v): s.v = v\n"
        "def f(v): return N(v)\ndef g(n): return n.v\ndef h(n): n.v += 1",
        "n = f(3)\nh(n)\nassert g(n) == 4 and g([n][0]) == 4",
    ),
    "its own function": (
        "def f(g, x): return g(x)\ndef h(x): return -x",
        "assert f(h, 3) == -3",
    ),
    "its own generator": (
        "def f(n): return iter(range(n))\ndef g(i): return next(i)",
        "i = f(3)\nassert next(i) == 0 and g(i) == 1 and list(i) == [2]",
    ),
    "built-in type": ("def f(x, t): return t(x)", "assert f('3', int) == 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_are_as_if_they_were_shared(pool, name):
    source, code = ARGUMENTS[name]
    code = f"from collections import Counter\n{code}"
    names: dict = {}
    exec(source, names)
    exec(code, names)  # as plain Python has it
    report = judge(pool, source, code)
    assert report.passed and report.is_valid, report


def test_arrays_are_changed_in_place(pool):
    pytest.importorskip("numpy")
    code = "import numpy as np\na = np.zeros((2, 2))\nf(a[0])\nassert a[0, 1] == 5"
    assert judge(pool, "def f(a): a[1] = 5.0", code).passed


def test_an_iterator_is_asked_for_no_more_than_is_used(pool):
    source = "said = []\ndef f():\n    for i in range(9):\n        said.append(i)\n"
    source += "        yield i\ndef g(): return said\n"
    assert judge(pool, source, "x = f()\nnext(x), next(x)\nassert g() == [0, 1]").passed
    source = "def f():\n    yield 3\n    while True: pass\n"
    assert judge(pool, source, "assert next(f()) == 3").passed


def test_hundreds_of_megabytes_of_items_need_no_single_message(pool):
    source = "def f():\n    for i in range(40): yield 'x' * 1_000_000\n"
    assert judge(pool, source, "assert sum(map(len, f())) == 40_000_000").passed


# sizes, and whose time the codec's is


def test_an_answer_beyond_the_limit_is_output_with_the_limit_named(pool):
    source = "def f(n): return list(range(n))"
    report = judge(
        pool,
        source,
        "assert f(1_300_000)[-1] == 1_299_999",
        "assert f(2_100_000)[-1] == 2_099_999",
        "assert f(500_000)[-1] == 499_999",
    )
    verdicts = [test.verdict for test in report.tests]
    assert verdicts == [Verdict.OUTPUT, Verdict.OUTPUT, Verdict.PASS]
    assert report.message == ("the returned value has more than 8 MB (execution.output_mb)")
    for code, said in (
        ("a.extend([0] * 5_000_000)", "more than 2000000 items"),
        ("a.append('x' * 9_000_000)", "more than 8 MB"),
    ):
        report = judge(pool, f"def f(a): {code}", "f([])")
        assert (report.verdict, said in report.message) == (Verdict.OUTPUT, True)
        assert report.over_value_limit


def test_a_test_that_passes_more_than_the_limit_is_no_fault_of_the_programs(pool):
    report = judge(pool, "def f(x): return len(x)", "assert f('x' * 9_000_000)")
    assert report.verdict is Verdict.INFRA and "more than 8 MB" in report.message


def test_the_codecs_time_is_not_the_programs(pool):
    """Many small containers take longer to encode than to make."""
    source = "def f(n): return [(i, i) for i in range(n)]\n"
    code = "for _ in range(4): assert f(100_000)[-1] == (99_999, 99_999)"
    report = judge(pool, source, code, cpu_seconds=6.0)
    (test,) = report.tests
    assert report.passed
    # Encoding takes four times what the program does, on every machine that was tried.
    assert test.cpu_seconds < 0.6 * test.wall_seconds


def test_a_lie_about_the_codecs_time_is_believed_up_to_a_limit():
    shared = bytearray(codec_clock.SIZE)
    clock = codec_clock.CodecClock(shared)
    with clock:
        began = time.process_time()
        assert 0.5 < codec_clock.seconds_in(shared, began + 0.5 + 1e-3) < 0.6
    assert 0 <= codec_clock.seconds_in(shared, time.process_time()) < 0.2
    for lie in (1e9, float("inf")):
        codec_clock._FORM.pack_into(shared, 0, lie, 0.0)
        assert codec_clock.seconds_in(shared, 5.0) == codec_clock.MOST_SECONDS
    for lie in (-1e9, float("nan")):
        codec_clock._FORM.pack_into(shared, 0, lie, lie)
        assert codec_clock.seconds_in(shared, 5.0) == 0


# hostile messages

STEP = (1 << 61) - 1  # multiples of it have one hash value
FORGED = {
    "place": ["a", 7],
    "negative place": ["a", -1],
    "no such type": ["T", "eval"],
    "field with code": ["n", "P", ["t", "x=__import__('os')"], ["t", 1]],
    "special field": ["n", "P", ["t", "__eq__"], ["t", 1]],
    "other fields": ["n", "P", ["t", "x", "y"], ["t", 1]],
    "decimal": ["D", "1" + "_1" * 9],
    "decimal's exponent": ["D", "1E" + "9" * 30],
    "fraction": ["F", 1, 0],
    "fraction of text": ["F", "1/2", 1],
    "range": ["r", 0, 1, 0],
    "date": ["td", 2026, 13, 1],
    "deque": ["q", "a", 1],
    "array of objects": ["A", "O", ["t"], ["t", 1], True],
    "array's shape": ["A", "d", ["t", 2], ["t", 1.0], True],
    "array's form": ["A", "d, (9,9)f8", ["t", 1], ["t", 1.0], True],
    "unhashable key": ["dc", [["l"], 1]],
    "view of unhashables": ["vk", ["t", ["l"]]],
    "colliding keys": ["do", *([["i", f"{k * STEP:x}"], 1] for k in range(1, 99))],
    "bytearray": ["y", "zz"],
    "bytearray without": ["y"],
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_forged_values_are_refused(name):
    data = values._dumps(FORGED[name]).encode()

    def inside(tag, items):
        raise AssertionError

    with pytest.raises(values.ValueCodecError):
        messages.Reader([], inside).decode(data)


@pytest.mark.parametrize(
    "told",
    [
        None,
        (),
        ("ValueError", ("ValueError",), (), "text"),
        ("ValueError", ("ValueError",), (), "text", 1),
        ("ValueError", ("eval",), (), "text", 1, False),
        ("ValueError", ("ValueError", 3), (), "text", 1, False),
        ("ValueError", "ValueError", (), "text", 1, False),
        ("ValueError", ("ValueError",), [], "text", 1, False),
        ("X", ("ValueError", "StopIteration"), (), "text", 1, False),
        ("X", ("BaseException",), (), "text", 1, False),
        ("X", (), (), "text", 1, False),
        ("X", ("ValueError",) * 9, (), "text", 1, False),
    ],
)
def test_forged_exceptions_end_the_test(told):
    assert type(errors.rebuild(told)) is errors.ProgramError


def test_what_crosses_is_printed_and_compared_by_built_in_code_alone():
    """No builder of the table gives test code a type with code of the program's."""
    made = kinds.BY_TAG["n"].build("P", ("x", "count"), (1, 2))
    assert type(made).__eq__ is tuple.__eq__ and type(made).__hash__ is tuple.__hash__
    with contextlib.redirect_stdout(io.StringIO()) as out:
        print(made)
    assert out.getvalue() == "P(x=1, count=2)\n"
