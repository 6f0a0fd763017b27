"""What is shown of a failing test; text of a model is cut and its controls are visible."""

import pytest

from stepcoder_jax.execution import Pool
from stepcoder_jax.records import Mode
from stepcoder_jax.runs import failing
from tests.execution.kit import make_program, make_settings


@pytest.fixture(scope="module")
def show():
    with Pool(make_settings(workers=1)) as pool:

        def show(*arguments, **options):
            program = make_program(*arguments, **options)
            (report,) = pool.run([program])
            return failing.describe(program, report)

        yield show


def test_a_call_shows_what_was_given_expected_and_returned(show):
    source = "class Solution:\n    def f(self, n, m): return (n, 'x')\n"
    options = {"mode": Mode.CALL, "entry_point": "f"}
    text = show(source, ((1, [2]), [1, "x"]), ((3, {}), 4), **options)
    assert text.startswith("failing test: 2 of 2\n  given: 3, {}\n  expected: 4\n")
    assert "  got: (3, 'x')\n  reference:\n    class Solution:" in text


def test_standard_output_is_shown_without_its_controls(show):
    text = show("print('a\\x1b[2Jb\\u202ec')\nprint(input())", ("1\n2\n", "x\n"))
    assert (
        "  given:\n    1\n    2\n  expected: x\n  got:\n    a␛[2Jb\ufffdc\n    1\n" in text
    )


def test_an_error_is_shown_with_its_line(show):
    text = show("def f(n):\n    return 1 / n\n", ((0,), 4), mode=Mode.CALL, entry_point="f")
    assert "  got: ZeroDivisionError at line 2\n" in text


def test_what_the_test_code_said_is_shown(show):
    code = "assert f(2) == 5, f'gave {f(2)}'\n"
    options = {"mode": Mode.ASSERT_PROXY, "entry_point": "f"}
    text = show("def f(n): return n + 2\n", (code, None), **options)
    assert "  test: assert f(2) == 5" in text and "AssertionError: gave 4\n" in text
    assert "  returned last: 4\n" in text


def test_long_parts_are_cut_and_say_so(show):
    text = show("print('y' * 10**6)\n" + "\n" * 100 + "x = 1\n", ("", "z" * 10**6))
    assert "z ... (1000000 characters)" in text and len(text) < 3000
    assert "more lines" in text
