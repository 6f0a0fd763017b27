"""The battery on every interpreter."""

import collections

import pytest

from stepcoder_jax.execution import Pool
from stepcoder_jax.records import Verdict
from tests.execution.battery import CASES
from tests.execution.kit import INTERPRETERS, find_interpreter, make_settings


@pytest.fixture(scope="module", params=INTERPRETERS, ids=lambda name: name or "trainer's")
def reports(request):
    python = find_interpreter(request.param)
    with Pool(make_settings(python=python)) as pool:
        return dict(zip(TITLES, pool.run([case.program for case in CASES])))


TITLES = [case.title for case in CASES]


def test_titles_are_unique():
    assert not [title for title, n in collections.Counter(TITLES).items() if n > 1]


@pytest.mark.parametrize("case", CASES, ids=TITLES)
def test_verdicts(reports, case):
    check(case, reports[case.title])


def check(case, report):
    """The whole of a report: its verdict, its tests', the error, the one-line message."""
    assert report.verdict in case.verdicts, report
    verdicts = [test.verdict for test in report.tests]
    assert len(verdicts) == len(case.tests)
    assert report.passed == (set(verdicts) == {Verdict.PASS})
    failed = next((test for test in report.tests if test.verdict is not Verdict.PASS), None)
    if failed is not None:
        assert failed.verdict is report.verdict
        assert case.error in ("", failed.error), report
    assert bool(report.message) or report.verdict is not Verdict.COMPILE
    assert (case.message or "") in report.message
    assert "\n" not in report.message
