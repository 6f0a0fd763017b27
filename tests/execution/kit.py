"""What the tests of the judge share: settings, programs, interpreters, data folders."""

import json
import pathlib
import shutil
import subprocess

import pytest

from stepcoder_jax.execution import Pool, PoolSettings
from stepcoder_jax.records import Mode, Problem, Program, Report, TestCase

SHARED_DATA = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
INTERPRETERS = ("", "python3.12", "python3.13")


def make_settings(**changes) -> PoolSettings:
    """Two workers, a CPU limit of 2 s, each program really run, and else the defaults."""
    return PoolSettings(**({"workers": 2, "cpu_seconds": 2.0, "cache_size": 0} | changes))


def find_interpreter(name: str) -> str:
    """The path of a sandbox interpreter; skips the test where it is not installed."""
    if not name:
        return ""
    path = shutil.which(name)
    if path is None or subprocess.call([path, "-c", ""], stderr=subprocess.DEVNULL):
        pytest.skip(f"no working {name} on PATH")
    return path


def pool_fixture(**changes):
    """A fixture of a test file: a pool of each interpreter, for all of its tests."""

    @pytest.fixture(
        scope="module", params=INTERPRETERS, ids=lambda name: name or "trainer's"
    )
    def pool(request):
        python = find_interpreter(request.param)
        with Pool(make_settings(python=python, **changes)) as pool:
            yield pool

    return pool


def make_program(
    source,
    *tests,
    mode=Mode.STDIN_MAIN,
    entry_point=None,
    name="test",
    cpu_seconds=None,
) -> Program:
    """A program whose tests are (inputs, expected) pairs."""
    cases = tuple(TestCase(*test) for test in tests)
    problem = Problem(
        name, "", "", source, entry_point, mode, cases, "introductory", cpu_seconds
    )
    return Program(problem, source, 0, ())


def judge(pool, *arguments, **options):
    """The report of one program, given as to `make_program`."""
    (report,) = pool.run([make_program(*arguments, **options)])
    return report


def judge_code(pool, source, *codes, **options):
    """The report of one program under test code, which calls its function `f`."""
    usual = {"mode": Mode.ASSERT_PROXY, "entry_point": "f"}
    return judge(pool, source, *((code, None) for code in codes), **usual | options)


def need_data(relative: str) -> pathlib.Path:
    """A file of the shared data; skips the test where it is absent."""
    path = SHARED_DATA / relative
    if not path.exists():
        pytest.skip(f"no shared data: {relative} is absent")
    return path


def read_hostile() -> tuple[list[dict], list[Program]]:
    """The shared hostile programs: their rows, and what a pool is to run."""
    rows = json.loads(need_data("hostile/programs.json").read_text())
    programs = [
        make_program(
            row["source"],
            *zip(row["inputs"], row["outputs"]),
            mode=Mode.CALL if row["mode"] == "call" else Mode.STDIN_MAIN,
            entry_point=row["entry_point"],
            name=row["id"],
            cpu_seconds=0.5 if "timeout" in row["verdicts"] else 2.0,
        )
        for row in rows
    ]
    return rows, programs


def wrong_verdicts(rows, reports) -> dict[str, Report]:
    """The reports on hostile programs whose verdict is none of the right ones, by id."""
    return {
        row["id"]: report
        for row, report in zip(rows, reports, strict=True)
        if report.verdict not in row["verdicts"]
    }


def run_sources(problems, sources) -> list[Report]:
    """The reports on one source per problem."""
    programs = [Program(p, source, 0, ()) for p, source in zip(problems, sources)]
    with Pool(make_settings(cpu_seconds=6.0, coverage="none")) as pool:
        return pool.run(programs)


def run_swapped(problems) -> dict[tuple[str, str], Report]:
    """Each solution under the next problem's name and tests; reports by the two ids."""
    following = [*problems[1:], problems[0]]
    sources = [
        f"{this.solution}\n{other.entry_point} = {this.entry_point}\n"
        for this, other in zip(problems, following)
    ]
    reports = run_sources(following, sources)
    return {(a.id, b.id): report for a, b, report in zip(problems, following, reports)}
