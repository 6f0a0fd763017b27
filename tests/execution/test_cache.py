"""Which programs are the same program, and which reports may be given again."""

import dataclasses
import gc
import weakref

import pytest

from stepcoder_jax.execution.pool.cache import ProgramKeys, ReportCache, is_repeatable
from stepcoder_jax.records import Mode, Report, TestResult, Verdict
from tests.execution.kit import make_program

CALL = {"mode": Mode.CALL, "entry_point": "f"}


def report(*tests, message=""):
    verdict = next((t.verdict for t in tests if t.verdict is not Verdict.PASS), "pass")
    return Report(Verdict(verdict), tests, frozenset(), message)


def test_equal_programs_have_equal_keys():
    keys = ProgramKeys()
    one, other = (make_program("x", (([1, "a"],), 2.5), **CALL) for _ in range(2))
    assert one.problem is not other.problem
    assert keys.of(one) == keys.of(other) == keys.of(one) is not None
    assert keys.of(one) == ProgramKeys().of(other)
    # where the tokens stand, and what the problem is called, change no run
    moved = dataclasses.replace(one, generated_from=1, token_spans=((0, 1),))
    renamed = make_program("x", (([1, "a"],), 2.5), name="other", **CALL)
    assert keys.of(moved) == keys.of(one) == keys.of(renamed)


def test_whatever_a_run_depends_on_is_in_the_key():
    base = make_program("x", ((1,), 1), **CALL)
    changes = [
        make_program("x ", ((1,), 1), **CALL),
        make_program("x\ud800", ((1,), 1), **CALL),
        make_program("x", ((1.0,), 1), **CALL),
        make_program("x", ((True,), 1), **CALL),
        make_program("x", (("1",), 1), **CALL),
        make_program("x", ((1,), 1.0), **CALL),
        make_program("x", ((1,), 1), ((1,), 1), **CALL),
        make_program("x", ((1,), 10**5000), **CALL),
        make_program("x", ((1,), 1), mode=Mode.CALL, entry_point="g"),
        make_program("x", ((1,), 1), cpu_seconds=2.0, **CALL),
        make_program("x", ("1", "1")),
        make_program("x", ("1", "1"), mode=Mode.STDIN_FN, entry_point="f"),
    ]
    keys = ProgramKeys()
    found = [keys.of(program) for program in (base, *changes)]
    assert None not in found and len(set(found)) == len(found)


def test_tests_that_cannot_be_digested_have_no_key():
    assert ProgramKeys().of(make_program("x", ((1,), object()), **CALL)) is None


def test_a_problem_is_known_only_while_it_lives():
    keys = ProgramKeys()
    programs = [make_program("x", ("", str(i))) for i in range(20)]
    assert len({keys.of(program) for program in programs}) == 20
    assert len(keys._known) == 20
    del programs
    gc.collect()
    assert not keys._known
    living, dead = (make_program("x", ("", text)) for text in "ab")
    keys._known[id(living.problem)] = weakref.ref(dead.problem), b"another's"
    assert keys.of(living) == ProgramKeys().of(living)
    # new problems often get the addresses of old ones
    for i in range(200):
        with pytest.raises(ValueError, match="no tests"):
            keys.of(make_program("x", name="bad"))
        assert keys.of(make_program("x", ("", str(i))))


def test_what_the_machine_had_a_hand_in_is_not_repeatable():
    cpu = TestResult(Verdict.TIMEOUT, cpu_seconds=2.01)
    wall = TestResult(Verdict.TIMEOUT, cpu_seconds=1.99)
    passed = TestResult(Verdict.PASS)
    assert is_repeatable(report(passed), 2.0) and is_repeatable(report(passed, cpu), 2.0)
    assert not is_repeatable(report(passed, wall), 2.0)
    assert not is_repeatable(report(wall, cpu), 2.0)
    assert not is_repeatable(report(cpu), 4.0)  # the probes' factor counts
    assert is_repeatable(report(TestResult(Verdict.MEMORY, "MemoryError")), 2.0)
    assert not is_repeatable(report(TestResult(Verdict.MEMORY)), 2.0)
    bad = TestResult(Verdict.COMPILE)
    assert is_repeatable(report(bad, message="SyntaxError: invalid syntax"), 2.0)
    assert not is_repeatable(report(bad, message="CompilerKilled: (wall)"), 2.0)
    assert not is_repeatable(Report(Verdict.INFRA, (), frozenset(), "pipe"), 2.0)


def test_a_job_waits_for_the_one_that_runs():
    cache = ReportCache(2)
    done = report(TestResult(Verdict.PASS))
    assert cache.claim(b"a", 1) == (True, None)
    assert cache.claim(b"a", 2) == (False, None) == cache.claim(b"a", 3)
    assert cache.claim(b"b", 4) == (True, None)
    assert cache.settle(b"a", None) == [2, 3]  # nothing to keep: they run in their turn
    assert cache.claim(b"a", 2) == (True, None)
    assert cache.settle(b"a", done) == []
    assert cache.claim(b"a", 3) == (False, done)
