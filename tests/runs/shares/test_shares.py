"""Hosts that share the work: whose a row is, and what all of them know in the end."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from stepcoder_jax.execution import Pool
from stepcoder_jax.feedback.answers import Answer
from stepcoder_jax.pytrees import Feedback
from stepcoder_jax.records import Report, Task, TestResult, Verdict
from stepcoder_jax.runs import generate
from stepcoder_jax.runs.shares import dealing, known, telling
from stepcoder_jax.sampling.slots import Completion
from tests.execution.kit import make_program, make_settings
from tests.hosts_kit import on_hosts

ROWS = 7


@pytest.mark.parametrize("hosts", [1, 2, 3, 4, 8])
def test_each_row_is_one_hosts_and_shares_differ_by_one_at_most(monkeypatch, hosts):
    def work(host):
        shares = [list(dealing.share_of(ROWS, each)) for each in range(hosts)]
        assert shares[host] == list(dealing.share_of(ROWS))
        assert shares[host] == [place for place in range(ROWS) if dealing.is_ours(place)]
        return shares

    found, count = on_hosts(monkeypatch, hosts, work)
    assert count == 0 and all(each == found[0] for each in found)
    assert sorted(row for share in found[0] for row in share) == list(range(ROWS))
    sizes = list(map(len, found[0]))
    assert max(sizes) - min(sizes) <= 1


def test_columns_of_some_rows_become_columns_of_all_in_one_gather(monkeypatch):
    owners = [[4, 1, 6], [0, 5], [3, 2]]  # not in their order: rows end as they will

    def work(host):
        rows = owners[host]
        columns = {
            "a": np.array([[row, row / 3] for row in rows], np.float32),
            "b": np.array([row % 2 for row in rows], bool),
        }
        return dealing.whole(rows, ROWS, columns, np.float64(host))

    found, count = on_hosts(monkeypatch, 3, work)
    assert count == 1
    for columns, each in found:
        rows = np.arange(ROWS)
        expected = np.stack([rows, rows / 3], 1).astype(np.float32)
        np.testing.assert_array_equal(columns["a"], expected)
        assert columns["b"].tolist() == (rows % 2).astype(bool).tolist()
        assert each.tolist() == [0, 1, 2]


def test_more_hosts_than_rows(monkeypatch):
    def work(host):
        rows = list(dealing.share_of(2))
        return dealing.whole(rows, 2, np.array([row + 0.5 for row in rows]))[0].tolist()

    assert on_hosts(monkeypatch, 4, work) == ([[0.5, 1.5]] * 4, 1)


def report(verdict, unfaithful=False, weak=False):
    tests = (TestResult(verdict, unfaithful=unfaithful),)
    return Report(verdict, tests, frozenset({(1, 0)}), "said", weak)


REPORTS = [
    report(Verdict.PASS),
    report(Verdict.WRONG, unfaithful=True),
    report(Verdict.INFRA),
    report(Verdict.PASS, weak=True),
    report(Verdict.TIMEOUT),
    report(Verdict.COMPILE),
    report(Verdict.WRONG),
]


def test_all_that_the_curriculum_and_metrics_ask_of_a_report_is_told(monkeypatch):
    def work(host):
        rows = list(dealing.share_of(ROWS))
        return known.briefly(rows, [REPORTS[row] for row in rows], ROWS)

    found, count = on_hosts(monkeypatch, 2, work)
    assert count == 1
    for reports in found:
        for ours, whole in zip(reports, REPORTS, strict=True):
            for name in ("verdict", "passed", "is_valid", "unfaithful", "weak"):
                assert getattr(ours, name) == getattr(whole, name), name


def test_an_iteration_is_agreed_upon_in_one_gather(monkeypatch):
    rng = np.random.default_rng(0)
    feedback = Feedback(
        rng.normal(size=(ROWS, 5)).astype(np.float32),
        rng.random((ROWS, 5)) < 0.5,
        np.arange(ROWS) != 2,
    )
    column = np.where(np.arange(ROWS) == 3, np.nan, np.arange(ROWS) / 7)

    def work(host):
        rows = list(dealing.share_of(ROWS))
        counts = {
            "judge/programs": len(rows),
            "judge/seconds_p50": (math.nan, 0.25, 0.125)[host],
            "judge/level": 3 - (host == 1),
            "judge/unsafe": int(host == 2),
        }
        of_rows = Feedback(*(x[rows] for x in feedback[:3]))
        reports = [REPORTS[row] for row in rows]
        return known.agree(rows, reports, of_rows, {"a": column[rows]}, counts, ROWS)

    found, count = on_hosts(monkeypatch, 3, work)
    assert count == 1
    for each in found:
        for got, expected in zip(each.feedback[:3], feedback[:3]):
            np.testing.assert_array_equal(got, expected)
            assert got.dtype == expected.dtype
        assert each.feedback.explained is None
        np.testing.assert_array_equal(each.columns["a"], column)
        assert [x.verdict for x in each.reports] == [x.verdict for x in REPORTS]
        assert each.counts == {
            "judge/programs": ROWS,
            "judge/seconds_p50": 0.25,
            "judge/level": 2,
            "judge/unsafe": 1,
        }
        assert isinstance(each.counts["judge/programs"], int)


def test_text_comes_in_the_order_of_rows_and_seconds_of_the_slowest():
    rows = {3: "drei\u2028", 0: "null", 2: "zwei", 1: 'eins "\\n"'}
    parts = [
        telling.pack([3, 0], [rows[3], rows[0]], {"seconds/a": 1.0, "seconds/b": 5.0}),
        telling.pack([2, 1], [rows[2], rows[1]], {"seconds/a": 2.5, "seconds/b": 3.0}),
    ]
    lines, numbers = telling.unpack(parts)
    assert lines == [rows[row] for row in range(4)]
    assert numbers == {"seconds/a": 2.5, "seconds/b": 5.0, "hosts/slowest": 0}
    assert telling.unpack(parts[1:])[1]["hosts/slowest"] == 0  # its place among those


def test_what_is_told_takes_one_gather_and_none_of_one_host(monkeypatch):
    def work(host):
        return telling.tell([host], [f"row {host}"], {"seconds/a": host, "reward": 1.0})

    lines = ["row 0", "row 1"]
    numbers = {"seconds/a": 1, "hosts/slowest": 1}
    assert on_hosts(monkeypatch, 2, work) == ([(lines, numbers)] * 2, 1)
    assert telling.tell([0], ["x"], {"seconds/a": 1.0}) == (["x"], {"hosts/slowest": 0})


SOURCES = ["print(1)", "print(2)", "x = (", "raise E", "print(1)", "print(input())", ""]


class Reader:
    """Of a Coder what judging asks: the pool, and what a completion says."""

    def __init__(self, pool):
        self.pool = pool
        self.read_rows = []

    def read(self, task, completion):
        self.read_rows.append(completion.row)
        code = SOURCES[completion.row]
        program = make_program(code, ("", "1\n")) if code else None
        return Answer(program, "", 0)


def judge_all(pool):
    """`judge_stream` of the rows, which end in another order, some at once."""
    problem = make_program("", ("", "1\n")).problem
    tasks, ones = [Task(problem, 0, 0, "")] * ROWS, np.ones(3, np.float32)
    ended = [[4, 0], [], [6, 1, 5], [2, 3]]
    stream = [
        [Completion(row, np.arange(3), ones, ones, False) for row in rows] for rows in ended
    ]
    coder = Reader(pool)
    judged = generate.judge_stream(coder, tasks, iter(stream), label="")
    return judged, judged.briefly(), judged.wholly(tasks), coder.read_rows


def test_hosts_judge_a_share_each_and_know_all_that_one_would(monkeypatch):
    with Pool(make_settings(workers=1)) as pool:
        alone, verdicts, whole, read = judge_all(pool)
        assert alone.rows == list(range(ROWS)) and len(read) == ROWS
        found, count = on_hosts(monkeypatch, 3, lambda host: judge_all(pool))
    assert count == 2  # one for the verdicts, one for all of it
    assert Counter(row for each in found for row in each[3]) == dict.fromkeys(
        range(ROWS), 1
    )
    assert sorted(len(each[0].rows) for each in found) == [2, 2, 3]
    for judged, briefly, wholly, read in found:
        assert sorted(read) == judged.rows
        assert [x.row for x in judged.completions] == list(range(ROWS))
        assert [x.verdict for x in briefly] == [x.verdict for x in verdicts]
        for (program, ours), (expected, theirs) in zip(wholly, whole, strict=True):
            assert program.source == expected.source
            assert ours.verdict is theirs.verdict and ours.message == theirs.message


def test_programs_of_a_round_are_run_once_each(monkeypatch):
    programs = [make_program(code, ("", "1\n")) for code in SOURCES[:5]]
    with Pool(make_settings(workers=1)) as pool:
        alone = generate.run_all(pool, programs, "")
        pool.reset_metrics()
        work = lambda host: generate.run_all(pool, programs, "")  # noqa: E731
        found, count = on_hosts(monkeypatch, 2, work)
        assert pool.metrics()["programs"] == 5
    assert count == 1
    for reports in found:
        assert [x.verdict for x in reports] == [x.verdict for x in alone]
        assert [len(x.tests) for x in reports] == [len(x.tests) for x in alone]
