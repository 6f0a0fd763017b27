"""Programs that are hard to judge, each with the verdict that is right, and why.

The right verdict is what CPython makes of the file as a script (exit status and standard
output, or the returned value), compared by the rules of `grading`; it was written down
before the judge was asked. Where several are given, any of them is right.
"""

from tests.execution.battery.calls import CALLS
from tests.execution.battery.cases import Case
from tests.execution.battery.hostile import HOSTILE
from tests.execution.battery.scripts import SCRIPTS

CASES: tuple[Case, ...] = (*SCRIPTS, *CALLS, *HOSTILE)

__all__ = ["CASES", "Case"]
