"""RLCF: the compiler's -1 at the error, else the discriminator's word."""

import pytest

from stepcoder_jax.feedback.rewards import rlcf, table
from stepcoder_jax.feedback.rewards.terms import Term, values_on
from stepcoder_jax.records import TestResult, Verdict
from tests.feedback.rewards.test_table import TEXT, extras, judged, of_words

V = Verdict
PROGRAM = of_words(TEXT)  # 20 tokens
FOUND = {("p", TEXT): 0.25}


def values(report, **knobs):
    term = rlcf.bind([Term("rlcf", 2.0, table.TABLE["rlcf"])], FOUND)[0]
    return values_on(term, PROGRAM, report, extras(PROGRAM, **knobs), 0).tolist()


def at(place, value):
    return [value if i == place else 0.0 for i in range(20)]


@pytest.mark.parametrize("verdict", [V.PASS, V.WRONG, V.RUNTIME, V.TIMEOUT])
def test_what_compiles_has_the_discriminators_word(verdict):
    assert values(judged(verdict, TestResult(verdict))) == at(19, 0.5)


@pytest.mark.parametrize(
    ("error", "line", "place"),
    [
        ("SyntaxError", 2, 6),  # the first token of its line
        ("IndentationError", 3, 10),  # whose white space is the error
        ("SyntaxError", 3, 19),  # the last line: the text is not finished
        ("TabError", 2, 19),
        ("SyntaxError", None, 19),
    ],
)
def test_what_does_not_compile_has_1_less_where_it_does_not(error, line, place):
    report = judged(V.COMPILE, TestResult(V.COMPILE, error, line))
    assert values(report) == at(place, -2.0)
    assert values(report, rlcf_locate=False) == at(19, -2.0)
    assert values(judged(V.COMPILE)) == at(19, -2.0)  # no code at all


def test_nobody_guesses_what_the_discriminator_says():
    term = Term("rlcf", 1.0, rlcf.rlcf)
    assert rlcf.is_asked(term)
    with pytest.raises(ValueError, match="nobody has asked the discriminator"):
        values_on(term, PROGRAM, judged(V.PASS), extras(PROGRAM), 0)
    with pytest.raises(KeyError):
        rlcf.rlcf(PROGRAM, judged(V.PASS), extras(PROGRAM), {})
