"""What a model wrote is read outside the sandbox in linear time, and never ends the run."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcoder_jax import syntax
from stepcoder_jax.config import FGOConfig
from stepcoder_jax.execution import Pool
from stepcoder_jax.execution.judging import grading, returned
from stepcoder_jax.feedback import fgo
from stepcoder_jax.records import Mode, Program, Report, Verdict
from stepcoder_jax.results import logger, report, taxonomy
from tests.execution.kit import judge, make_settings

BENCHMARK = Path(__file__).parents[1] / "experiments" / "benchmarks" / "hostile_text.py"
MOST = 8  # a text of four times the length; linear is 4, quadratic 16
FLOOR = 1e-3  # seconds that are too few to be measured


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("hostile_text", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def grows_too_fast(benchmark, case, shape, rounds):
    small, large = benchmark.growth(case, shape, 4 * benchmark.SMALL, rounds)
    return large > max(FLOOR, MOST * small)


def name_of(number):
    return f"case {number}"


@pytest.mark.parametrize("number", range(21), ids=name_of)
def test_time_grows_with_the_length(benchmark, number):
    """CPU time of this thread; once for each text, and the best of three where in doubt."""
    assert len(benchmark.CASES) == 21
    case, wants_programs = list(benchmark.CASES.values())[number]
    shapes = list(benchmark.texts())[number % 9 :: 9]  # the benchmark has them all
    shapes += list(benchmark.programs())[number % 3 :: 3] if wants_programs else []
    wrong = [
        shape
        for shape in shapes
        if grows_too_fast(benchmark, case, shape, 1)
        and grows_too_fast(benchmark, case, shape, 3)
        and grows_too_fast(benchmark, case, shape, 3)
    ]
    assert not wrong, wrong


def cpu(benchmark, run):
    return benchmark.seconds(run, 1)


def probe_chain(bits):
    """Ints for a dict of 2^bits places, of which one half goes past the other.

    These are the places that CPython looks at one after the other (i = 5i + 1); the rest
    find all places taken until the high bits of their hash are used up, then the first of
    them.
    """
    size = 1 << bits
    cycle = [0]
    while len(cycle) < size:
        cycle.append((5 * cycle[-1] + 1) % size)
    place_of = np.argsort(cycle)
    taken = size // 3 + 1
    rng, found = np.random.default_rng(0), set()
    while len(found) < size // 3 - 2:
        keys = rng.integers(size, size << 10, 1 << 18)
        slots, perturb, good = keys % size, keys, np.ones(len(keys), bool)
        while perturb.any():
            good &= place_of[slots] < taken
            perturb = perturb >> 5
            slots = (5 * slots + perturb + 1) % size
        found |= set(keys[good & (place_of[slots] < taken // 8)].tolist())
    return [*cycle[:taken], *list(found)[: size // 3 - 2]]


def test_keys_on_the_way_that_a_dict_looks_for_a_place(benchmark):
    """Half a megabyte of them took 1.3 s, and the most that is read five minutes."""

    def cost(bits, decode):
        keys, ours = probe_chain(bits), range(1 << bits)
        pairs = b",".join(b"[%d,1]" % key for key in keys)
        items = b",".join(b"%d" % key for key in keys)
        nested = b'["t",["z",%b]]' % items

        def run():
            for data in (b'["d",%b]' % pairs, b'["s",%b]' % items, b'["s",%b]' % nested):
                for expected in ({1: 1}, dict.fromkeys(ours, 1), {1}, set(ours)):
                    grading.result_matches(decode(data), expected)

        return benchmark.seconds(run, 3)

    def grows_too_fast():
        return cost(13, returned.decode) > MOST * cost(11, returned.decode)

    assert not all(grows_too_fast() for _ in range(3))


def test_the_number_that_froze_the_trainer(benchmark):
    """16,000 digits and a letter took 8 s by the pattern that backtracked."""
    for text in ("1" * 8_000_000 + "x", "1." * 4_000_000, "1e" * 4_000_000):
        took = cpu(benchmark, lambda text=text: grading.stdout_matches(text, "2.5\n"))
        assert took < 1
    with Pool(make_settings(workers=1, coverage="none")) as pool:
        seen = judge(pool, "print('1' * 8_000_000 + 'x')", ("", "2.5\n"))
        most = judge(pool, "print('1' * 80_000_000 + 'x')", ("", "2.5\n"))
    assert (seen.verdict, most.verdict) == (Verdict.WRONG, Verdict.OUTPUT)


def test_the_comments_that_froze_the_trainer(benchmark):
    """Four comment lines took 34 s, and a fifth a minute for each second of that."""
    for lines in (4, 5, 400):
        comments = "".join(f"    # {'x' * 60}\n" for _ in range(lines))
        source = f"a = '#'\nif not a:\n    b = 1\nelif a == '#':\n{comments}    c = 2\n"
        ran = frozenset({(1, 0), (2, 0), (4, 0), (5 + lines, 4)})
        seen = Report(Verdict.WRONG, (), ran)
        mask = fgo.byte_mask(source, seen, True)  # warm
        assert cpu(benchmark, lambda s=source, r=seen: fgo.byte_mask(s, r, True)) < 0.5
        dropped = "".join(c for c, keep in zip(source, mask) if not keep)
        assert dropped.split() == ["b", "=", "1"]


DEEP = {
    "signs": "x = " + "-" * 3000 + "1\n",
    "attributes": "x = a" + ".b" * 700 + "\n",
    "elif": "if a: b\n" + "elif a: b\n" * 700,
    "parentheses": "(" * 5000,
    "a long line": "x = '" + "a" * 5000 + "'\n",
    "a long text": "x = 1\n" * 20_000,
    "null bytes": "a\0b\n",
    "half a character": "x = '\ud800'\n",
    "many digits": "x = " + "9" * 4400 + "\n",
    "indentation": "".join(f"{' ' * i}if a:\n" for i in range(200)),
    "no end": "f'{",
}


@pytest.mark.parametrize("name", DEEP)
def test_what_is_beyond_a_limit_has_no_syntax_however_deep_the_caller(name):
    source = DEEP[name]
    assert syntax.parse(source) is None

    def down(depth):
        return syntax.parse(source) is None if depth == 0 else down(depth - 1)

    assert down(600)


def test_what_is_within_the_limits_is_read_however_deep_the_caller():
    def down(depth):
        if depth == 0:
            return syntax.parse("x = " + "-" * 490 + "1\n") is not None
        return down(depth - 1)

    assert down(0) and down(600)


def test_whether_two_programs_are_the_same():
    same = [
        ("x = 1\n", "x  =  1  # one\n\n"),
        ("if a:\n  b\n", "if a:\n    b\n"),
        ("x = (\n", " x = (\n"),  # no syntax: the text
        ("x = " + "-" * 400 + "1", "x = " + "-" * 400 + " 1"),
        ("x = 0x" + "f" * 4000, "x = 0x" + "F" * 4000),  # 4816 decimal digits
    ]
    other = [
        ("x = 1", "x = 1.0"),
        ("x = 'a'", "x = b'a'"),
        ("if a:\n  b\n  c\n", "if a:\n  b\nc\n"),
        ("f(a, b)", "f(a, *b)"),
        ("for a in b: c\nelse: d", "for a in b: c; d"),
        ("x = (", "x = ["),
        ("", "pass"),
    ]
    assert [syntax.is_same(*pair) for pair in same] == [True] * len(same)
    assert [syntax.is_same(*pair) for pair in other] == [False] * len(other)
    assert all(syntax.is_same(b, a) is False for a, b in other)


def test_whether_a_program_writes_a_literal_out():
    def holds(source, *wanted):
        trees = [syntax.parse(text).body[0].value for text in wanted]
        return syntax.holds_one_of(source, trees)

    assert holds("def f(x): return [ 1,2 , -3]", "[1, 2, -3]")
    assert holds("x = {'a': ([1, 2], None)}", "([1, 2], None)", "7")
    assert holds('print("two words")', "'two words'") and holds("x = 12.5 + y", "12.5")
    assert holds("x = {1: {2}}", "{1: {2}}") and holds("x = 'a' 'b'", "'ab'")
    assert not holds("x = [1, 2, 3]", "[1, 2]", "(1, 2, 3)", "[1.0, 2, 3]", "True")
    assert not holds("x = '[1, 2]'", "[1, 2]") and not holds("x = [a, 2]", "[1, 2]")
    assert not holds("x = 1", "1.0", "y", "f(1)") and not holds("x = y", "y")
    assert not holds("x = (", "1") and not holds("x = 1") and not holds("{**a}", "1")


def test_a_row_beyond_the_limits_keeps_its_tokens_and_its_verdict():
    source = DEEP["a long line"]
    spans = ((0, 5), (5, len(source)))
    made = Program(None, source, 0, spans)
    told = fgo.label(made, Report(Verdict.WRONG, (), frozenset()), FGOConfig())
    assert told.is_uncertain and told.kept.all()


@given(
    st.binary(max_size=600)
    | st.lists(
        st.sampled_from(
            [
                b"\xe2\x82",
                b"\xf0\x9f\x98",
                b"\xff",
                b"a" * 253,
                "é日😀".encode(),
                b"\xed\xa0\x80",
            ]
        )
    ).map(b"".join)
)
def test_bytes_are_decoded_as_python_does(data):
    text, ranges = syntax.decode_lossy(data)
    assert text == data.decode(errors="replace")
    size = len(text.encode())
    assert len(ranges) == len(data) and all(0 <= a < b <= size for a, b in ranges)
    assert ranges == sorted(ranges)
    good = data.decode(errors="ignore").encode()
    kept = bytes(data[i] for i, (a, b) in enumerate(ranges) if b - a == 1)
    assert kept == good


def test_names_of_bugs_are_found_as_before():
    named = {
        "f() takes 1 positional argument but 2 were given": taxonomy.Bug.ARGUMENT,
        "f() takes no arguments (1 given)": taxonomy.Bug.ARGUMENT,
        "f() got an unexpected keyword argument 'a'": taxonomy.Bug.ARGUMENT,
        "argument takes ": taxonomy.Bug.RUNTIME_UNKNOWN,
        "an argument must be one": taxonomy.Bug.API_MISUSE,
    }
    for message, bug in named.items():
        assert taxonomy.classify(Verdict.RUNTIME, "TypeError", message) is bug


def test_a_program_cannot_drive_the_terminal_nor_turn_its_text_around():
    shown = report.show_controls("a\x1b[2J\r\x9b\u202eb\u2066\u2028\n\tc é\u200b")
    assert shown == "a␛[2J␍\ufffd\ufffdb\ufffd\ufffd\n\tc é\ufffd"


def test_line_ends_that_only_python_knows_do_not_cut_a_row_of_metrics(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": 0, "a": "\u2028\x85\x0b"}, {"step": 1}]
    logger.write_lines(path, map(logger.encode_row, rows))
    assert [row["step"] for row in logger.read_metrics(path)] == [0, 1]


def test_the_name_of_an_error_cannot_drive_the_terminal():
    source = "E = type('\\x1b[2J\\u202e', (Exception,), {})\ndef f(x): raise E('no')\n"
    with Pool(make_settings(workers=1, coverage="none")) as pool:
        seen = judge(
            pool,
            source,
            ("assert f(1) == 1", None),
            mode=Mode.ASSERT_PROXY,
            entry_point="f",
        )
    assert seen.verdict is Verdict.RUNTIME
    assert seen.tests[0].error.isprintable() and "[2J" in seen.tests[0].error
