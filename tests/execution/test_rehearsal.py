"""What a worker does beforehand, so that children need not write to its bytecode."""

import subprocess
import sys
from pathlib import Path

import pytest

from stepcoder_jax.execution.worker import checker
from tests.execution.kit import find_interpreter

ROOT = Path(__file__).parents[2]
SHOW = """
import dis, os, sys
sys.path.insert(0, sys.argv[1])
from stepcoder_jax.execution.crossing import channel, messages, proxy, server, values
from stepcoder_jax.execution.worker import calls, checker, programs, tracer

OF_PROGRAMS = [
    tracer.Instrumented.__init__, tracer.Instrumented._probe_suite, calls.encode_result,
    server.Server.serve, server.Server._write, messages.Held.__init__, channel.receive,
]
OF_TESTS = [
    checker._names, proxy.Session.wait, proxy.Session._ask, proxy.Session._receive,
    messages.Writer.container, values.Encoder.container, values.Decoder.decode,
]

def cold(functions):
    found = []
    for function in functions:
        names = {each.opname for each in dis.get_instructions(function, adaptive=True)}
        warm = ("_MODULE", "_BUILTIN", "_INSTANCE_VALUE", "_METHOD_NO_DICT", "_WITH_VALUES")
        if not any(name.endswith(warm) for name in names):
            found.append(function.__qualname__)
    return found

os.closerange(3, 256)
for functions, rehearse in (
    (OF_PROGRAMS, lambda: programs._rehearse("statement")),
    (OF_TESTS, lambda: checker.Checker(None, None)),
):
    before = cold(functions)
    rehearse()
    print(len(before), len(functions), *cold(functions))
print(len(os.listdir("/proc/self/fd")))
"""


@pytest.mark.parametrize("python", ["", "python3.12", "python3.13"])
def test_the_bytecode_is_specialised_before_the_first_fork(python):
    command = [find_interpreter(python) or sys.executable, "-c", SHOW, str(ROOT)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    programs, tests, descriptors = done.stdout.splitlines()
    assert programs == "7 7" and int(tests.split()[0]) >= 3 and tests.split()[1:] == ["7"]
    assert descriptors == "4"  # the standard streams and the listed folder


@pytest.mark.parametrize(("code", "result"), checker.TRIALS)
def test_a_trial_of_test_code_passes_as_most_tests_do(code, result):
    exec(code, {"f": lambda *_: result, "candidate": lambda *_: result})
