"""The judge on a service: the same verdicts and coverage, and what when it misbehaves."""

import ast
import base64
import json
import re
import time

import pytest

from stepcoder_jax.data.formats.apps_plus import read_problems
from stepcoder_jax.execution import Pool, SandboxError, limits, open_pool
from stepcoder_jax.execution.crossing import codec_clock
from stepcoder_jax.execution.remote import service
from stepcoder_jax.execution.remote.pool import (
    RemotePool,
    _every_statement,
    _shipped_modules,
)
from stepcoder_jax.execution.worker import tracer
from stepcoder_jax.feedback.fgo import byte_mask
from stepcoder_jax.records import InputError, Mode, Program, Verdict
from tests.execution.battery import CASES
from tests.execution.fusion_server import FusionServer
from tests.execution.kit import (
    INTERPRETERS,
    find_interpreter,
    judge,
    make_program,
    make_settings,
    need_data,
)

pytestmark = pytest.mark.long

CALL = {"mode": Mode.CALL, "entry_point": "f"}
BESIDE = {"mode": Mode.ASSERT_INPROC, "entry_point": "f"}
STDIN_FN = {"mode": Mode.STDIN_FN, "entry_point": "f"}
DOUBLE = "x = int(input())\nif x > 5:\n    print(0)\nelse:\n    print(2 * x)\n"


def remote_settings(server, **changes):
    return make_settings(backend="http", url=server.url, **changes)


@pytest.fixture(scope="module")
def server():
    with FusionServer() as server:
        yield server


@pytest.fixture(scope="module")
def pool(server):
    with open_pool(remote_settings(server, tests="run_all")) as pool:
        server.requests.clear()
        yield pool


@pytest.fixture(scope="module")
def local():
    with open_pool(make_settings(tests="run_all")) as pool:
        yield pool


@pytest.fixture(autouse=True)
def as_usual(request, monkeypatch):
    """No fault is left over, and a second attempt does not wait."""
    monkeypatch.setattr(service, "_BACKOFF_SECONDS", 0.0)
    yield
    if "server" in request.fixturenames:
        server = request.getfixturevalue("server")
        server.faults.clear()
        server.requests.clear()
        server.alter = lambda answer: answer


def seen(report):
    """All of a report but the measurements that a service cannot give.

    Which limit ends an endless loop is such a one: on a busy machine it is the service's.
    """
    errors = ["" if t.verdict is Verdict.TIMEOUT else t.error for t in report.tests]
    tests = [
        (t.verdict, error, t.line, t.stdout, t.stderr, t.executed)
        for t, error in zip(report.tests, errors)
    ]
    return report.verdict, report.message, report.weak, report.executed, tests


# the same as the local pool


TWICE = "import os\nos.read(0, 9)\nos.lseek(0, 0, 0)\nprint(input())\n"
EARLY = "import os\nprint(3, flush=True)\nos._exit(0)\nx = 1\n"
SAME = {
    "pass and wrong": (DOUBLE, [("3", "6"), ("7", "14")], {}),
    "error": ("import sys\nsys.stderr.write('x')\nprint('é')\n1 / 0\n", [("", "")], {}),
    "does not compile": ("x = 1\ndef f(:\n", [("", ""), ("", "")], {}),
    "no unicode": ("x = '\ud800'", [("", "")], {}),
    "prelude": ("def f():\n    print(gcd(int(input()), 6))", [("4", "2\n")], STDIN_FN),
    "no prelude": ("print(gcd(4, 6))", [("", "2")], {}),
    "call": ("def f(a, b):\n    return {a: (b, 2**70)}", [(("x", 1), {"x": 1})], CALL),
    "method": ("class Solution:\n    def f(self, x): return x", [((3,), [3])], CALL),
    "no such function": ("def g(): pass", [((), 1)], CALL),
    "test code beside it": ("def f(x): return x", [("assert f(3) == 3", None)], BESIDE),
    "assertion": ("def f(x): return x", [("assert candidate(3) == 4", None)], BESIDE),
    "not plain": ("def f(): return object()", [((), 1)], CALL),
    "input read twice": (TWICE, [("3", "3")], {}),
    "bytes out": ("import os\nos.write(1, b'\\xff\\xfe')\n", [("", "")], {}),
    "exit": ("print(3)\nraise SystemExit(4)\n", [("", "3")], {}),
    "leave early": (EARLY, [("", "3")], {}),
    "memory": ("x = bytes(10**9)\n", [("", "")], {}),
    "signal": ("import os, signal\nos.abort()\n", [("", "")], {}),
    "never ends": ("n = 0\nwhile True:\n    n += 1\nprint(n)\n", [("", ""), ("", "")], {}),
    "sleeps": ("import time\ntime.sleep(9)\nprint(3)\n", [("", "")], {"cpu_seconds": 0.1}),
    "too much output": ("while True: print('x' * 10**6)\n", [("", "")], {}),
    "more than a pipe holds": ("print('x' * 2_000_000)\n", [("", "x" * 2_000_000)], {}),
    "large input": ("print(len(input()))\n", [("x" * 2_000_000, "2000000")], {}),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_reports_are_those_of_the_local_pool(pool, local, name):
    source, tests, options = SAME[name]
    program = make_program(source, *tests, **({"cpu_seconds": 1.0} | options))
    (there,), (here,) = pool.run([program]), local.run([program])
    assert seen(there) == seen(here)
    assert there.weak == (options is BESIDE)


def is_endless(row):
    return "timeout" in row["verdicts"] and "MemoryError" not in row["source"]


def hostile_programs():
    rows = json.loads(need_data("hostile/programs.json").read_text())
    return rows, [
        make_program(
            row["source"],
            *zip(row["inputs"], row["outputs"]),
            mode=Mode.CALL if row["mode"] == "call" else Mode.STDIN_MAIN,
            entry_point=row["entry_point"],
            name=row["id"],
            # what fills its memory first needs time to come to the end of it
            cpu_seconds=0.5 if is_endless(row) else 2.0,
        )
        for row in rows
    ]


def test_shared_hostile_programs(pool, local):
    """On a service that isolates as the local sandbox does, no verdict differs."""
    rows, programs = hostile_programs()
    there, here = pool.run(programs), local.run(programs)
    for row, far, near in zip(rows, there, here):
        assert far.verdict in row["verdicts"], (row["id"], far)
        assert far.executed == near.executed, row["id"]


# Its title -> the verdicts that are right there, where they are not the local sandbox's.
DIFFERENT = {
    # the driver's own modules lie beside the program; nothing is in them
    "read the judge": {Verdict.WRONG},
    # how many threads a program may have is the service's own affair: all, or too much
    "seventy threads at once": {Verdict.PASS},
    "threads that do not give up": {Verdict.MEMORY, Verdict.TIMEOUT},
}


@pytest.mark.slow  # the shared hostile programs, above, take the same way
def test_the_battery(pool, local):
    """Verdicts; the error of a program that attacks the judge depends on what it finds."""
    programs = [case.program for case in CASES]
    assert set(DIFFERENT) <= {case.title for case in CASES}
    for case, far, near in zip(CASES, pool.run(programs), local.run(programs)):
        allowed = {near.verdict, *case.verdicts}
        if case.title in DIFFERENT:
            allowed = DIFFERENT[case.title]
        assert far.verdict in allowed, (case.title, far, near)


def test_canonical_solutions_pass_with_the_same_coverage(pool, local):
    path = str(need_data("apps_plus/problems.json"))
    problems = read_problems(path, strict=True)[0][::5][:60]
    assert len(problems) == 60
    assert {problem.mode for problem in problems} == {Mode.CALL, Mode.STDIN_FN}
    programs = [Program(problem, problem.solution, 0, ()) for problem in problems]
    for far, near in zip(pool.run(programs), local.run(programs)):
        assert far.passed, far
        assert far.executed == near.executed


def hits_of(answer):
    return [item for item in answer["files"].items() if item[0].endswith(".hits")]


@pytest.mark.parametrize("name", INTERPRETERS[1:])
def test_expressions_of_a_service_with_a_newer_interpreter(name):
    python = find_interpreter(name)
    program = make_program("x = int(input())\nprint(x and 9 or x)\n", ("3", "9"))
    exact = {"tests": "run_all", "coverage": "expression"}
    with (
        FusionServer(python) as server,
        open_pool(remote_settings(server, **exact)) as pool,
        open_pool(make_settings(python=python, **exact)) as near,
    ):
        assert pool.interpreter[:2] == tuple(map(int, name[6:].split(".")))
        (there,), (here,) = pool.run([program]), near.run([program])
        assert there.passed and there.executed == here.executed
        assert there.expressions == here.expressions
        assert {False, True} == set(there.expressions.values())
        sizes, kept = [], [True, False]

        def lose_the_second(answer):
            sizes.extend(len(base64.b64decode(d)) for n, d in hits_of(answer))
            return answer if kept.pop(0) else answer | {"files": {}}

        server.alter = lose_the_second
        (there,) = pool.run([make_program(program.source, ("3", "9"), ("3", "9"))])
    assert sizes == [tracer.map_size(program.source, "expression") + codec_clock.SIZE] * 2
    assert there.tests[0].expressions and there.executed and not there.expressions


# what leaves this machine, and what may come back


def test_expected_outputs_are_never_sent(pool, server):
    server.requests.clear()
    judge(pool, "print(input())", ("given 31337", "SEC" + "RET"))
    judge(pool, "def f(x): return x", (("given 31337",), "SEC" + "RET"), **CALL)
    sent = [
        b"\n".join(map(base64.b64decode, request["files"].values()))
        + request["code"].encode()
        for request in server.requests
    ]
    assert len(sent) == 2 and all(b"given 31337" in data for data in sent)
    assert not any(b"SEC" + b"RET" in data for data in sent)
    tokens = {request["fetch_files"][0].partition(".")[0] for request in server.requests}
    assert len(tokens) == 2 and min(map(len, tokens)) >= 32


def test_what_is_uploaded_imports_nothing_else_of_the_package():
    modules = _shipped_modules()
    names = {path.removesuffix(".py").replace("/", ".") for path in modules}
    execution = "stepcoder_jax.execution."
    wanted = ("remote.driver", "worker.child", "worker.tracer", "crossing.values")
    assert {execution + name for name in wanted} <= names
    assert not [name for name in names if re.search(r"\.(pool|judging|sandbox)\.", name)]
    for path, data in modules.items():
        for node in ast.walk(ast.parse(data)):
            if isinstance(node, ast.ImportFrom) and execution in (node.module or ""):
                assert f"{node.module}.__init__" in names or node.module in names, path
                if f"{node.module}.__init__" in names:
                    assert {f"{node.module}.{a.name}" for a in node.names} <= names, path


MEDDLERS = {
    "removed": "for p in glob.glob('*.*'): os.remove(p)",
    "emptied": "for p in glob.glob('*.*'): open(p, 'w')",
    "garbled": "for p in glob.glob('*.head'): open(p, 'w').write('SCabc')",
    "refused": "for p in glob.glob('*.head'): open(p, 'w').write('SE{\"a\": 1}')",
    "deep": "for p in glob.glob('*.head'): open(p, 'w').write('SE' + '[' * 10**6)",
}


@pytest.mark.parametrize("name", MEDDLERS)
def test_meddling_with_the_record_is_the_programs_own_fault(pool, name):
    source = f"import glob, os\n{MEDDLERS[name]}\nx = 1\nos._exit(0)\nx = 2\n"
    report = judge(pool, source, ("", "3"), ("", "3"))
    assert report.verdict in (Verdict.RUNTIME, Verdict.WRONG), report


def test_printing_what_the_driver_prints_is_no_result(pool):
    source = "import glob\nname = glob.glob('*.job')[0]\nprint(name, open(name).read())\n"
    source += "print(open(name.replace('.job', '.source')).read())\n"
    assert judge(pool, source, ("", "3")).verdict is Verdict.WRONG


def test_coverage_that_was_lost_keeps_all_tokens(server, pool):
    def lose(answer):
        return answer | {"files": {}}

    source = "def f():\n    return 1\nwhile True:\n    pass\nelse:\n    x = 3\n"
    server.alter = lambda answer: (
        lose(answer)
        | {"run_result": answer["run_result"] | {"status": "TimeLimitExceeded"}}
    )
    report = judge(pool, source, ("", ""), cpu_seconds=0.1)
    assert report.verdict is Verdict.TIMEOUT
    assert report.executed == {(1, 0), (2, 4), (3, 0), (4, 4), (6, 4)}
    assert byte_mask(source, report, keep_uncompiled=True).all()
    server.alter = lose
    report = judge(pool, "x = 1", ("", ""))
    assert (report.verdict, report.tests[0].error) == (Verdict.RUNTIME, "LostRecord")
    assert _every_statement("def f(:") == frozenset()


LIMITS = """import resource
soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
print({least} <= soft <= {least} + 3 and hard == soft + 1)
"""


def test_the_cpu_limit_is_the_kernels(pool, server):
    """Of 1 s, or 2 s with the probes of 3.11, beside what the start has used."""
    least = 2 if pool.interpreter >= (3, 12) else 3
    source = LIMITS.format(least=least)
    assert judge(pool, source, ("", "True"), cpu_seconds=1.0).passed
    for code, seconds, verdict in [
        (-24, 3.0, Verdict.TIMEOUT),
        (128 + 24, 3.0, Verdict.TIMEOUT),  # as a shell says it
        (-9, 3.0, Verdict.TIMEOUT),  # the first signal was ignored
        (-9, 0.1, Verdict.MEMORY),  # killed by others
        (128 + 6, 0.1, Verdict.RUNTIME),
    ]:
        ended = {"return_code": code, "execution_time": seconds}
        server.alter = lambda answer, ended=ended: (
            answer | {"run_result": answer["run_result"] | ended}
        )
        report = judge(pool, "x = 1", ("", ""), cpu_seconds=1.0)
        assert report.verdict is verdict, (code, seconds)


# a service that misbehaves


def always(status, body):
    return lambda request: (status, body)


WHOLE = {"status": "Finished", "execution_time": 0.1, "stdout": "", "stderr": "Killed"}
# What comes for each request -> a word of the message.
BROKEN = {
    "server error": (always(500, b"oops"), "HTTP 500"),
    "overloaded": (always(429, b""), "HTTP 429"),
    "no json": (always(200, b"<html>"), "<html>"),
    "another api": (always(200, b"[1, 2]"), "not an answer of SandboxFusion"),
    "no result": (always(200, b'{"status": "Success", "message": ""}'), "KeyError"),
    "deep": (always(200, b"[" * 100_000), "RecursionError"),
    "too large": (always(200, b" " * (100 << 20)), "larger"),
    "sandbox error": (
        always(200, b'{"status": "SandboxError", "message": "no\\nspace"}'),
        "SandboxError: no space",
    ),
    "run error": (
        always(
            200, b'{"status": "Failed", "run_result": {"status": "Error"}, "files": {}}'
        ),
        "run Error",
    ),
    "not started": (
        always(
            200,
            json.dumps(
                {
                    "status": "Failed",
                    "run_result": WHOLE | {"return_code": 137},
                    "files": {},
                }
            ).encode(),
        ),
        "did not start: Killed",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_failures_of_the_service_are_no_verdict(pool, server, name):
    """Tried twice where that can help, then INFRA; the next program is judged as ever."""
    fault, word = BROKEN[name]
    server.faults += [fault] * 2
    report = judge(pool, DOUBLE, ("3", "6"))
    assert report.verdict is Verdict.INFRA and not report.is_valid
    assert word in report.message and "\n" not in report.message
    assert report.tests[0].verdict is Verdict.NOT_RUN
    server.faults.clear()
    assert judge(pool, DOUBLE, ("3", "6")).passed


@pytest.mark.parametrize("name", ["server error", "overloaded", "no json"])
def test_a_second_attempt_can_save_the_verdict(pool, server, name):
    server.faults.append(BROKEN[name][0])
    assert judge(pool, DOUBLE, ("3", "6")).passed
    assert len(server.requests) == 2


def test_a_refused_request_is_not_repeated(pool, server):
    server.faults += [always(422, b"{}"), always(422, b"{}")]
    report = judge(pool, DOUBLE, ("3", "6"))
    assert report.verdict is Verdict.INFRA and "HTTP 422" in report.message
    assert len(server.requests) == 1


def test_a_service_that_does_not_answer_is_given_up(pool, server, monkeypatch):
    monkeypatch.setattr(service, "_GRACE_SECONDS", -2.2)  # of a wall limit of 2.4 s

    def sleep(request):
        time.sleep(1.0)
        return 200, b"{}"

    server.faults += [sleep, sleep]
    start = time.monotonic()
    report = judge(pool, "pass", ("", ""), cpu_seconds=0.05)
    assert report.verdict is Verdict.INFRA and "imed out" in report.message
    assert time.monotonic() - start < 5


def test_a_service_that_dies_midway():
    programs = [make_program(DOUBLE, ("3", "6")) for _ in range(4)]
    with (
        FusionServer() as server,
        open_pool(remote_settings(server, workers=1)) as pool,
    ):
        stream = pool.stream(programs)
        assert next(stream)[1].passed
        server.stop()
        rest = [report.verdict for _, report in stream]
    assert len(rest) == 3 and rest[-1] is Verdict.INFRA
    assert set(rest) <= {Verdict.PASS, Verdict.INFRA}


def test_a_service_that_is_not_there_is_one_line(server):
    with FusionServer() as gone:
        pass
    for url, word in [
        (gone.url, "refused"),
        (f"{server.url}/elsewhere", "HTTP 404"),
        ("http://[", "ValueError"),
    ]:
        with pytest.raises(SandboxError) as error:
            open_pool(make_settings(backend="http", url=url))
        message = str(error.value)
        assert word in message and "--execution.url" in message and "\n" not in message


def test_a_service_that_brings_no_files_back_is_refused(server):
    server.alter = lambda answer: answer | {"files": {}}
    with pytest.raises(SandboxError, match=r"execution\.url"):
        open_pool(remote_settings(server))


# the pool


def test_the_banner_says_what_was_open(server, capsys):
    with open_pool(remote_settings(server, min_level=3)) as pool:
        assert pool.canaries["write to the working folder"] == "open"
        assert pool.canaries["TCP"].startswith("held")
        assert pool.level == 2 and server.url in pool.layers["service"]
        assert pool.interpreter >= (3, 11)
    said = capsys.readouterr().err
    assert server.url in said and said.count("\n") == 1 and said == f"{pool.banner}\n"
    assert "write to the working folder" in said and "TCP" not in said


def test_problems_that_cannot_be_judged_there(pool):
    good = make_program(DOUBLE, ("3", "6"))
    proxied = {"mode": Mode.ASSERT_PROXY, "entry_point": "f"}
    with pytest.raises(InputError, match=r"assert_proxy.*--execution.backend local"):
        pool.stream([good, make_program("", ("assert f()", None), **proxied)])
    generated = (make_program("", ("assert f()", None), **proxied) for _ in range(1))
    with pytest.raises(InputError, match="assert_proxy"):
        list(pool.stream(generated))
    with pytest.raises(ValueError, match="has no tests"):
        pool.run([make_program("")])


def test_coverage_that_the_service_cannot_give(server, pool):
    if pool.interpreter >= (3, 12):
        pytest.skip("this interpreter notes expressions")
    with pytest.raises(SandboxError, match=r"3\.12.*--execution\.url"):
        open_pool(remote_settings(server, coverage="expression"))


def test_limits_are_measured_by_wall_time(server, pool):
    problem = make_program("import time\ntime.sleep(0.3)\n", ("", "")).problem
    (found,) = limits.measure_limits(pool, [problem]).values()
    assert 3 <= found <= 6


def test_equal_programs_are_sent_once(server):
    with open_pool(remote_settings(server, cache_size=8)) as pool:
        server.requests.clear()
        reports = pool.run([make_program(DOUBLE, ("3", "6"))] * 5)
        assert all(report.passed for report in reports) and len(server.requests) == 1
        assert pool.metrics()["programs"] == 5 and pool.pids == []


def test_early_exit_and_order(server):
    wrong = make_program("print(1)", ("", "2"), ("", "1"), name="wrong")
    right = make_program("print(1)", ("", "1"), ("", "1"), name="right")
    with open_pool(remote_settings(server)) as pool:
        reports = pool.run([wrong, right] * 4)
    assert [report.verdict for report in reports] == [Verdict.WRONG, Verdict.PASS] * 4
    assert reports[0].tests[1].verdict is Verdict.NOT_RUN


def test_leaving_early_and_closing(server):
    programs = [make_program(DOUBLE, ("3", "6")) for _ in range(40)]
    with open_pool(remote_settings(server, workers=1)) as pool:
        stream = pool.stream(programs)
        next(stream)
        stream.close()
        assert judge(pool, DOUBLE, ("3", "6")).passed
        assert len(server.requests) < 10
        server.requests.clear()
        long = make_program(DOUBLE, *[("3", "6")] * 40)
        stream = pool.stream([programs[0], long, *programs])
        next(stream)
    assert len(server.requests) < 20
    with pytest.raises(RuntimeError, match="closed"):
        list(stream)
    with pytest.raises(RuntimeError, match="closed"):
        pool.stream(programs)


def test_open_pool_follows_the_backend(server, pool):
    assert isinstance(pool, RemotePool)
    assert remote_settings(server, workers=0).worker_count == 16
    with open_pool(make_settings(workers=1, url="http://unused")) as local:
        assert isinstance(local, Pool)
    for wrong in ({"backend": "https"}, {"backend": "http", "url": "file:///etc"}):
        with pytest.raises(SandboxError, match=f"execution.{list(wrong)[-1]}"):
            make_settings(**wrong)
