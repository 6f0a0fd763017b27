"""Objects whose counts stand still: made so in a process of its own, as in the worker."""

import subprocess
import sys
from pathlib import Path

import pytest

from stepcoder_jax.execution import Pool
from tests.execution.kit import find_interpreter, judge, make_settings

ROOT = Path(__file__).parents[2]
HOLDER = """
import gc, json, sys
sys.path.insert(0, sys.argv[1])
from stepcoder_jax.execution.worker import immortal
def mine(): return 1
deep = {"a": [(str(10**9), float("2.5"), b"%d" % 10**9)]}
held = (json, mine, mine.__code__, sys.path, deep["a"][0][0], *deep["a"][0][1:])
held += (dict.__dict__["fromkeys"], mine.__code__.co_linetable)
counts = lambda: [sys.getrefcount(x) for x in held]
def pages():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) // 4 for line in file if "Anonymous:" in line)
before, size = counts(), pages()
done = immortal.make_immortal()
assert bool(done) == immortal.supported()
assert pages() < size + 100, (size, pages())
print(all(now == 0xFFFFFFFF for now in counts()), before == counts())
# what is freed in the midst of the heap goes back to the kernel, when all is kept
blocks = [bytes(2000) for _ in range(4000)]
last, size = blocks.pop(), pages()
del blocks
immortal.keep_all()
assert pages() < size - 1500, (size, pages())
names = [str(n) for n in range(1000)]  # objects made later live and die as ever
assert sys.getrefcount(names) == 2
gc.unfreeze()
gc.collect()
assert mine() == 1 and json.loads("[1]") == [1]
"""


@pytest.mark.parametrize(
    ("python", "works"), [("", False), ("python3.12", True), ("python3.13", True)]
)
def test_counts_stand_still_where_the_interpreter_knows_it(python, works):
    if not python and sys.version_info[:2] != (3, 11):
        pytest.skip("the interpreter of the tests is no 3.11")
    command = [find_interpreter(python) or sys.executable, "-c", HOLDER, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(works), str(not works)]


@pytest.mark.parametrize("python", ["", "python3.12", "python3.13"])
def test_a_program_may_collect_and_count(python):
    source = "import gc, sys, heapq\ngc.unfreeze()\nx = [object()]\nx.append(x)\n"
    source += "print(sys.getrefcount(x) - 3)\ndel x\nprint(gc.collect() > 0)\n"
    with Pool(make_settings(workers=1, python=find_interpreter(python))) as pool:
        assert judge(pool, source, ("", "0\nTrue\n")).passed
