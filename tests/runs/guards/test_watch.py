"""Each sign is seen, said once in 20 iterations, and not where there is none."""

import math

from stepcoder_jax.config import Config
from stepcoder_jax.runs.guards.watch import APART, Watch


def warned(rows, before=()):
    """(step, first word) of the warnings of rows without a step."""
    watch = Watch(Config(), [{"step": i, **row} for i, row in enumerate(before)])
    found = []
    for step, row in enumerate(rows, start=len(before)):
        for text in watch.look({"step": step, **row}):
            assert text.startswith(f"iteration {step}: ")
            found.append((step, text.split(": ")[1].split()[0]))
    return found


CALM = {"kl": 0.1, "entropy": 1.0, "pass_rate": 0.5}


def test_a_calm_run_is_not_warned_of():
    assert warned([CALM] * 50 + [{"kl": None, "entropy": math.nan}]) == []


def test_kl_above_the_bound_is_said_every_20_iterations():
    far = CALM | {"kl": 0.51}
    assert warned([CALM, *[far] * 45]) == [
        (1, "KL"),
        (1 + APART, "KL"),
        (1 + 2 * APART, "KL"),
    ]
    # a run that is resumed knows what was said before
    assert warned([far] * 15, before=[CALM] + [far] * 9) == [(21, "KL")]


def test_entropy_that_is_gone():
    low = CALM | {"entropy": 0.05}
    assert warned([CALM] * 6 + [low] * 4) == []
    assert warned([CALM] * 6 + [low] * 7) == [(10, "entropy")]
    assert warned([low] * 30) == []  # it began there


def stretch(rate, score):
    return [CALM | {"pass_rate": rate}] * 3 + [
        CALM | {"pass_rate": rate, "validation/pass@1": score}
    ]


def test_validation_that_falls_while_the_pass_rate_rises():
    falls = stretch(0.2, 0.30) + stretch(0.3, 0.29) + stretch(0.4, 0.25)
    assert warned(falls) == [(11, "the")]
    for other in (
        stretch(0.2, 0.30) + stretch(0.3, 0.31) + stretch(0.4, 0.25),
        stretch(0.4, 0.30) + stretch(0.3, 0.29) + stretch(0.2, 0.25),
        stretch(0.3, 0.29) + stretch(0.4, 0.25),
    ):
        assert warned(other) == []
