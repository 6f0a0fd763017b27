"""Problems with a known number of conditionals."""

from stepcoder_jax.records import Mode, Problem

SOLUTION = '''def f(a):
    """if this were code: it would count"""
    for x in a:
        if x:
            y = [i for i in a if i]
        elif x > 1:
            y = 1 if x else 2
    while y:
        try:
            y = 0
        except E:
            with z:
                pass
    return y
'''


def problem(name="p", solution=SOLUTION, starter=""):
    return Problem(name, "Do.", starter, solution, "f", Mode.CALL, (), "interview")


def with_conditionals(count, name="p"):
    return problem(
        name, "a = 1\n" + "".join(f"if a == {i}:\n    a += 1\n" for i in range(count))
    )
