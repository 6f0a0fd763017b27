"""CPU limits measured from reference solutions, and where they are kept."""

import dataclasses
import json

import pytest

from stepcoder_jax.data.generated import benchmark
from stepcoder_jax.execution import Pool, limits
from stepcoder_jax.records import InputError, Mode
from stepcoder_jax.runs.disk import sources
from tests.execution.kit import make_program, make_settings
from tests.hosts_kit import on_hosts
from tests.run_kit import get_config

SPIN = "import time\nwhile time.process_time() < {}: pass\nprint(input())\n"


@pytest.fixture(scope="module")
def pool():
    with Pool(make_settings(coverage="none")) as pool:
        yield pool


def test_limits_by_hand():
    seconds = {0.0: 1, 0.1: 1, 0.101: 2, 0.25: 3, 0.6: 6, 0.61: 6, 5.9: 6}
    assert {s: limits.limit_of(s) for s in seconds} == seconds


def test_the_slowest_test_of_the_reference_counts(pool):
    slow = SPIN.format("0.25 if __import__('os').pread(0, 9, 0) == b'2' else 0")
    named = {
        "fast": make_program("print(3)", ("", "3")),
        "slow": make_program(slow, ("1", "1"), ("2", "2"), ("1", "1"), cpu_seconds=0.01),
        "wrong": make_program("print(3)", ("", "4")),
        "broken": make_program("print(", ("", "4")),
    }
    problems = [
        dataclasses.replace(program.problem, id=name) for name, program in named.items()
    ]
    ticks = []
    found = limits.measure_limits(pool, iter(problems), lambda: ticks.append(1))
    assert found == {"fast": 1.0, "slow": found["slow"], "wrong": None, "broken": None}
    assert found["slow"] in (3.0, 4.0) and len(ticks) == 4
    assert list(found) == list(named)


def test_the_time_of_test_code_in_its_own_process_counts(pool):
    code = "sum(i * i for i in range(4_000_000))\ndef check(f): assert f(1) == 1\ncheck(f)"
    program = make_program(
        "def f(x): return x", (code, None), mode=Mode.ASSERT_PROXY, entry_point="f"
    )
    (report,) = pool.run([program])
    assert report.passed and report.tests[0].cpu_seconds < 0.1, report
    assert limits.measure_limits(pool, [program.problem])["test"] > 1


def test_test_code_without_its_modules_is_refused_at_the_start(pool):
    """HumanEval+ of the hub imports numpy, which a sandbox interpreter may lack."""
    code = "import no_such_module as np\ndef check(f): assert f(1) == 1\ncheck(f)"
    program = make_program(
        "def f(x): return x", (code, None), mode=Mode.ASSERT_PROXY, entry_point="f"
    )
    with pytest.raises(InputError, match="'no_such_module'; install it for"):
        limits.measure_limits(pool, [program.problem])


# files


def test_limits_are_kept_for_the_very_file_they_were_measured_for(tmp_path):
    file = tmp_path / "problems.json"
    file.write_text("[1]")
    digest, path = limits.digest_file(file), limits.side_file(file)
    assert path == tmp_path / "problems.json.limits.json"
    assert limits.read_limits(path, digest) is None
    limits.write_limits(path, digest, {"a": 2.0})
    limits.write_limits(path, digest, {"b": None})
    assert limits.read_limits(path, digest) == {"a": 2.0, "b": None}
    file.write_text("[2]")
    other = limits.digest_file(file)
    assert limits.read_limits(path, other) is None
    limits.write_limits(path, other, {"a": 3.0})
    assert limits.read_limits(path, other) == {"a": 3.0}
    assert limits.read_limits(path, digest) == {"a": 2.0, "b": None}
    assert sorted(p.name for p in tmp_path.iterdir()) == [file.name, path.name]


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"a": 3}', '{"a": {"b": "3"}}', '{"a": {"b": 0}}', '{"a": {"b": true}}'],
)
def test_a_file_that_is_none_of_ours_is_refused_and_left_alone(tmp_path, text):
    path = tmp_path / "limits.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"limits\.json: expected .* to measure again"):
        limits.read_limits(path, "a")
    with pytest.raises(InputError):
        limits.write_limits(path, "a", {"b": 1.0})
    assert path.read_text() == text


# in a run


def of_file(file, kept=None, count=None):
    """The problems of a file as a run gets them."""
    config = get_config()
    config.data.path = str(file)
    problems = sources.load_problems(config.data, "train")[:count]
    return sources.limit_cpu(problems, config, "train", kept)


def measured(capsys):
    """Whether a bar of measuring was drawn, and the other lines."""
    told = capsys.readouterr().err
    lines = [part for part in told.replace("\r", "\n").splitlines() if part.strip()]
    return "CPU limits" in told, [line for line in lines if "CPU limits:" not in line]


@pytest.fixture
def file(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / "problems.json"
    benchmark.write(benchmark.generate("train", 0, (1, 2, 1)), path)
    rows = json.loads(path.read_text())
    rows[1] |= {"id": "failing", "canonical_solution": "def solve(xs):\n    return None\n"}
    path.write_text(json.dumps(rows))
    return path


def test_a_run_measures_once_and_keeps_what_it_found(file, tmp_path, capsys):
    kept = tmp_path / "limits.json"
    first = of_file(file, kept)
    assert [problem.cpu_seconds for problem in first] == [1.0, None, 1.0, 1.0]
    drawn, (line,) = measured(capsys)
    assert drawn and line.startswith("1 reference solutions fail") and "failing" in line
    for elsewhere in (kept, tmp_path / "another.json", None):
        assert of_file(file, elsewhere) == first
        assert measured(capsys) == (False, [])
    assert (tmp_path / "another.json").read_text() == kept.read_text()
    # what the run keeps goes before what lies beside the problems
    limits.write_limits(kept, limits.digest_file(file), {"failing": 5.0})
    assert of_file(file, kept)[1].cpu_seconds == 5.0
    assert of_file(file)[1].cpu_seconds is None
    limits.side_file(file).unlink()
    assert of_file(file, kept)[1].cpu_seconds == 5.0
    assert not measured(capsys)[0] and not limits.side_file(file).exists()


def test_hosts_measure_a_share_each_and_all_know_all(file, tmp_path, capsys, monkeypatch):
    alone, measure = of_file(file), limits.measure_limits
    limits.side_file(file).unlink()
    measured(capsys)
    shares = []

    def look(pool, problems, tick):
        shares.append(sorted(problem.id for problem in problems))
        return measure(pool, problems, tick)

    monkeypatch.setattr(limits, "measure_limits", look)
    kept = tmp_path / "limits.json"
    found, _ = on_hosts(monkeypatch, 2, lambda host: of_file(file, kept))
    assert found == [alone, alone]
    assert [len(share) for share in shares] == [2, 2]
    assert sorted(shares[0] + shares[1]) == sorted(problem.id for problem in alone)
    said = [line for line in measured(capsys)[1] if "reference solutions fail" in line]
    assert len(said) == 1 and "failing" in said[0]  # once, not by each
    assert len(limits.read_limits(kept, limits.digest_file(file))) == 4
    shares.clear()
    found, _ = on_hosts(monkeypatch, 2, lambda host: of_file(file, kept))
    assert found == [alone, alone] and not shares


def test_only_problems_that_are_used_are_measured(file, capsys):
    assert [problem.cpu_seconds for problem in of_file(file, count=1)] == [1.0]
    digest, path = limits.digest_file(file), limits.side_file(file)
    assert len(limits.read_limits(path, digest)) == 1
    of_file(file)
    assert len(limits.read_limits(path, digest)) == 4
    assert measured(capsys)[0]


def test_limits_of_another_version_are_not_used(file, capsys):
    of_file(file)
    measured(capsys)
    file.write_text(file.read_text() + " ")
    assert [problem.cpu_seconds for problem in of_file(file)] == [1.0, None, 1.0, 1.0]
    drawn, lines = measured(capsys)
    assert drawn and any("another version" in line for line in lines)


def test_a_folder_that_cannot_be_written_costs_a_line(file, tmp_path, capsys):
    long = file.rename(file.with_name("n" * 236 + ".json"))  # too long with a suffix more
    kept = tmp_path / "limits.json"
    assert of_file(long, kept)[0].cpu_seconds == 1.0
    assert any("CPU limits not kept" in line for line in measured(capsys)[1])
    assert len(list(long.parent.iterdir())) == 1 and kept.exists()


def test_generated_problems_bring_the_limit_that_measuring_would_find(pool, capsys):
    config = get_config()
    problems = sources.load_pool(config.data, "train")
    assert sources.limit_cpu(problems, config, "train", None) is problems
    assert measured(capsys) == (False, [])
    drawn = problems[:: len(problems) // 4]
    found = limits.measure_limits(pool, drawn)
    assert found == {problem.id: problem.cpu_seconds for problem in drawn}
