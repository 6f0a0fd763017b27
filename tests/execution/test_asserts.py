"""Test code apart from the program (assert_proxy) and beside it (assert_inproc)."""

import functools
import gzip
import json

import pytest

from stepcoder_jax.records import Mode, Verdict
from tests.execution.kit import (
    judge_code,
    make_program,
    need_data,
    pool_fixture,
)

pool = pool_fixture(workers=1)


judge = functools.partial(judge_code, cpu_seconds=0.5)


VERDICTS = {
    "right": ("def f(x): return x + 1", "pass", ""),
    "wrong": ("def f(x): return x", "wrong", "AssertionError"),
    "nothing": ("def f(x): pass", "wrong", "AssertionError"),
    "raises": ("def f(x):\n    return x / 0", "runtime", "ZeroDivisionError"),
    "raises an assertion": ("def f(x): assert False", "runtime", "AssertionError"),
    "raises its own": ("class E(Exception): pass\ndef f(x): raise E", "runtime", "E"),
    "no function": ("def g(x): return x + 1", "runtime", "NameError"),
    "crash while loading": (
        "x = 1 / 0\ndef f(x): return 2",
        "runtime",
        "ZeroDivisionError",
    ),
    "does not compile": ("def f(x:\n", "compile", "SyntaxError"),
    "exits": ("def f(x): exit(0)", "runtime", "SystemExit"),
    "exits while loading": ("def f(x): return x + 1\nexit(0)", "runtime", "SystemExit"),
    "leaves": ("import os\ndef f(x): os._exit(0)", "runtime", "SystemExit"),
    "aborts": ("import os\ndef f(x): os.abort()", "runtime", "signal 6"),
    "endless": ("def f(x):\n    while True: pass", "timeout", "CPU time"),
    "sleeps": ("import time\ndef f(x): time.sleep(60)", "timeout", "wall time"),
    "memory": ("def f(x): return [0] * 10**9", "memory", "MemoryError"),
    "output": ("def f(x):\n    while True: print('x' * 10**5)", "output", ""),
    "an object": ("def f(x): return object()", "wrong", "AssertionError"),
    "equal to all": (
        "class A(int):\n    def __eq__(s, o): return True\ndef f(x): return A(x)",
        "wrong",
        "AssertionError",
    ),
    "equal object": (
        "class A:\n    def __eq__(s, o): return True\ndef f(x): return A()",
        "wrong",
        "AssertionError",
    ),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_verdicts_of_the_proxy(pool, name):
    source, verdict, error = VERDICTS[name]
    report = judge(pool, source, "assert f(1) == 2\nassert candidate(2) == 3\n")
    assert (report.verdict, report.tests[0].error) == (verdict, error), report
    assert not report.weak


FAULTY = {
    "a module that is not there": "import no_such_module\nassert f(1) == 1",
    "the same, behind a call": "f(1)\nimport no_such_module",
    "a mistake": "x = 1 / 0\nassert f(1) == 1",
    "a false claim": "assert 1 == 2\nassert f(1) == 1",
    "an error that it calls its own": "raise MemoryError",
}


@pytest.mark.parametrize("name", FAULTY)
def test_test_code_that_fails_by_itself_is_not_the_programs_failure(pool, name):
    report = judge(pool, "def f(x): return x", FAULTY[name])
    assert report.verdict is Verdict.INFRA, report
    assert report.message.startswith("the test code fails whatever the program is: ")
    assert ("'no_such_module'" in report.message) == ("no_such_module" in FAULTY[name])


def test_no_program_makes_its_failure_the_test_codes(pool):
    """An import that fails in the program is its own, also where test code sees it."""
    missing = "def f(x): import no_such_module"
    forged = "class E(ModuleNotFoundError): pass\ndef f(x): raise E('no')"
    for source in (missing, forged, "import no_such_module\ndef f(x): pass"):
        assert judge(pool, source, "assert f(1) == 1").verdict is Verdict.RUNTIME


RUN_OUT = {
    "MemoryError": "raise MemoryError",
    "its subclass": "raise E",
    "no room for the system": "raise OSError(12, 'Cannot allocate memory')",
    "an errno of its own": "e = OSError('x'); e.errno = 12; raise e",
    "in a group": "raise ExceptionGroup('g', [ValueError(), MemoryError()])",
    "another errno": "raise OSError(2, 'No such file')",
    "in name alone": "raise type('MemoryError', (Exception,), {})",
}


@pytest.mark.parametrize("name", RUN_OUT)
def test_all_modes_know_what_says_that_there_is_no_memory(pool, name):
    source = f"class E(MemoryError): pass\ndef f(x=0):\n    {RUN_OUT[name]}\n"
    expected = Verdict.MEMORY
    if name in ("another errno", "in name alone"):
        expected = Verdict.RUNTIME
    seen = [
        judge(pool, source, "assert f(1) == 1"),
        judge(pool, source, "assert f(1) == 1", mode=Mode.ASSERT_INPROC),
        *pool.run(
            [
                make_program(source, ((1,), 1), mode=Mode.CALL, entry_point="f"),
                make_program(source + "f()\n", ("", "")),
            ]
        ),
    ]
    assert [report.verdict for report in seen] == [expected] * 4, seen


# Each tries to make the test code end well without the right values. The secret is too
# long to stand in an address, which objects are printed with, by chance.
CHEATS = {
    "own builtins": "abs = lambda x: 0\nlen = lambda x: 3\ndef f(x): return 7",
    "patched builtins": "import builtins\nbuiltins.abs = lambda x: 0\n"
    "builtins.AssertionError = Exception\ndef f(x): return 7",
    "frames": "import sys, gc\ndef f(x):\n    needle = str(int('4217421741') + 1)\n"
    "    found = [o for o in gc.get_objects() if needle in str(o)[:9999]]\n"
    "    print('SEEN' if found else '')\n    return 7",
    "expected values on the input": "import sys\n"
    "def f(x): print('SEEN' if '4217421742' in sys.stdin.read() else '')",
    "forged answer": "import os\ndef f(x):\n    os.write(5, b'\\x00\\x00\\x00\\x02[]')\n"
    "    return 7",
    "forged length": "import os\ndef f(x):\n    os.write(5, b'\\xff' * 99)\n    return 7",
    "closed channel": "import os\ndef f(x): os.close(5)",
    "asks to exit": "import os\ndef f(x):\n"
    """    m = b'["t","raise","SystemExit","",0]'\n"""
    "    os.write(5, len(m).to_bytes(4, 'big') + m)\n    os._exit(0)",
    "raises an exit": "def f(x): raise SystemExit(0)",
    "raises a base exception": "def f(x): raise KeyboardInterrupt",
    "own result note": "import os\ndef f(x):\n    os.pwrite(3, b'passed\\n\\n0', 0)\n"
    "    os._exit(0)",
}
SECRET = (
    "secret = 4217421742\n"
    "try:\n    assert abs(f(1) - secret) < 1\nexcept ValueError: pass\n"
)


@pytest.mark.parametrize("name", CHEATS)
def test_cheats_do_not_pass_the_proxy(pool, name):
    for _ in range(2):  # the second run must find nothing that the first one left
        report = judge(pool, CHEATS[name], SECRET)
        assert report.verdict in (Verdict.WRONG, Verdict.RUNTIME), report
        assert "SEEN" not in report.tests[0].stdout


def test_arguments_changed_in_place_are_seen_by_the_test_code(pool):
    source = "def f(a, b, c):\n    a.append(b.pop('k'))\n    c.clear()\n    a[0][0] = 5"
    code = "a, b, c = [[1]], {'k': 2}, {3}\nassert f(a, b, c=c) is None\n"
    code = code.replace("c=c", "c")
    assert judge(pool, source, code + "assert (a, b, c) == ([[5], 2], {}, set())").passed


def test_expected_exceptions_and_keywords_cross(pool):
    source = "def f(a, *, b=0):\n    if a < b: raise ValueError('too small')\n    return a"
    code = "try:\n    f(1, b=2)\nexcept ValueError as error:\n"
    code += "    assert str(error) == 'too small'\nelse:\n    assert False\n"
    assert judge(pool, source, code + "assert f(3, b=1) == 3").passed


def test_helpers_truth_and_modules(pool):
    source = "import re\ndef f(x): return re.match('a', x)\ndef g(x): return 2 * x\n"
    assert judge(pool, source, "assert f('ab')\nassert not f('b')\nassert g(2) == 4").passed
    assert judge(pool, "def f(): return 0.1 + 0.2", "assert math.isclose(f(), 0.3)").passed
    tested = judge(pool, "def sum(a): return a", "assert sum(3) == 3", entry_point="sum")
    assert tested.passed  # the tested function may have a built-in's name


def test_patched_builtins_do_not_disturb_an_answer(pool):
    source = "import builtins\nbuiltins.issubclass = builtins.type = lambda *a: 0\n"
    assert judge(pool, source + "def f(x): return [x, (x, 's')]", "f(1)").passed


def test_each_assert_is_a_test_with_its_own_coverage(pool):
    source = "def f(x):\n    if x:\n        return 1\n    return 0\n"
    report = judge(pool, source, "assert f(1) == 1", "assert f(0) == 0")
    assert report.passed_tests == 2
    assert report.tests[0].executed == {(1, 0), (2, 4), (3, 8)}
    assert report.tests[1].executed == {(1, 0), (2, 4), (4, 4)}


def test_a_fault_of_the_test_code_is_not_the_programs(pool):
    with pytest.raises(ValueError, match="test 0: the test code does not compile"):
        judge(pool, "def f(): pass", "assert (")
    with pytest.raises(ValueError, match="expected the source of test code"):
        pool.run([make_program("x", ("x", 3), mode=Mode.ASSERT_PROXY, entry_point="f")])
    source = "def f(x): return 1"
    report = judge(pool, source, "assert f(lambda: 1) == 1", "assert f(1) == 1")
    assert report.verdict is Verdict.INFRA and not report.is_valid
    assert "no plain value" in report.message


def test_inproc_runs_beside_the_program_and_is_weak(pool):
    source = "class Node:\n    def __init__(self, v): self.v = v\ndef f(n): return n.v\n"
    weak = {"mode": Mode.ASSERT_INPROC}
    report = judge(
        pool, source, "assert f(Node(3)) == 3\nassert candidate(Node(1)) == 1", **weak
    )
    assert report.passed and report.weak and not report.is_valid
    report = judge(pool, source, "assert f(Node(3)) == 4", **weak)
    assert (report.verdict, report.tests[0].error) == (Verdict.WRONG, "AssertionError")
    assert judge(pool, "def f(n): exit(0)", "f(1)", **weak).verdict is Verdict.RUNTIME
    assert judge(pool, "def f(n): 1 / 0", "f(1)", **weak).verdict is Verdict.RUNTIME


def test_a_worker_stays_sound_between_modes(pool):
    for _ in range(3):
        assert judge(pool, "def f(x): return x", "assert f(1) == 1").passed
        (report,) = pool.run([make_program("print(input())", ("3", "3"))])
        assert report.passed
        judge(pool, "import os\ndef f(x): os.kill(os.getpid(), 9)", "f(1)")


def test_canonical_humaneval_solutions_pass(pool):
    path = need_data("humaneval/HumanEval.jsonl.gz")
    with gzip.open(path, "rt") as file:
        rows = [json.loads(line) for line in file]
    programs = []
    for row in rows[::4]:
        name = row["entry_point"]
        code = f"{row['prompt']}\n{name} = candidate\n{row['test']}\ncheck(candidate)\n"
        source = row["prompt"] + row["canonical_solution"]
        programs.append(
            make_program(source, (code, None), mode=Mode.ASSERT_PROXY, entry_point=name)
        )
    assert all(report.passed for report in pool.run(programs))
