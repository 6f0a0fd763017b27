"""Every row of kinds.TABLE: what test code sees of a value, and what plain Python sees."""

import pytest

from stepcoder_jax.execution import Pool
from stepcoder_jax.execution.crossing import kinds
from stepcoder_jax.execution.crossing.kinds import Fate
from stepcoder_jax.records import Mode, Verdict
from tests.execution.battery.values import ROWS
from tests.execution.kit import make_program, make_settings

CASES = [(name, number) for name, rows in ROWS.items() for number in range(len(rows))]


@pytest.fixture(scope="module")
def pool():
    with Pool(make_settings(workers=1, tests="run_all")) as pool:
        yield pool


def test_every_row_of_the_table_is_tried():
    assert set(ROWS) == {row.name for row in kinds.TABLE}


def beside(source, code):
    """Whether the assert holds where nothing parts test code from program."""
    names: dict = {}
    exec(source, names)
    try:
        exec(code, names)
    except Exception:
        return False
    return True


@pytest.mark.parametrize(("name", "number"), CASES)
def test_test_code_sees_what_plain_python_sees(pool, name, number):
    row = ROWS[name][number]
    if "numpy" in row.setup:
        pytest.importorskip("numpy")
    claims = [*row.right, *row.wrong, *row.unfaithful]
    codes = [row.code(claim) for claim in claims]
    said = [beside(row.source, code) for code in codes]
    assert said == [claim not in row.wrong for claim in claims]
    tests = [(code, None) for code in codes]
    (report,) = pool.run(
        [make_program(row.source, *tests, mode=Mode.ASSERT_PROXY, entry_point="f")]
    )
    for claim, result in zip(claims, report.tests):
        passed = result.verdict is Verdict.PASS
        assert (passed, result.unfaithful) == (claim in row.right, claim in row.unfaithful)
        assert passed or result.verdict is Verdict.WRONG, claim
    assert (
        report.unfaithful == bool(row.unfaithful) and report.is_valid != report.unfaithful
    )


@pytest.mark.parametrize(("name", "number"), CASES)
def test_what_a_called_function_returns_is_compared(pool, name, number):
    row = ROWS[name][number]
    if not row.called:
        return
    equal, unlike = row.called
    tests = [((), value) for value in (equal, unlike) if value is not Fate.REFUSED]
    (report,) = pool.run(
        [make_program(row.source, *tests, mode=Mode.CALL, entry_point="f")]
    )
    verdicts = [result.verdict for result in report.tests]
    if equal is Fate.REFUSED:
        assert verdicts == [Verdict.RUNTIME] and "equals no plain value" in report.message
    else:
        assert verdicts == [Verdict.PASS, Verdict.WRONG]
    table = {each.name: each for each in kinds.TABLE}
    assert (table[name].call is Fate.REFUSED) == (equal is Fate.REFUSED)
