"""Pages copied at the fork: in processes of their own, as the worker that pins them."""

import os
import subprocess
import sys
from array import array
from pathlib import Path

import pytest

from stepcoder_jax.execution import Pool
from stepcoder_jax.execution.worker import hot_pages
from tests.execution.kit import find_interpreter, judge, judge_code, make_settings

ROOT = Path(__file__).parents[2]
PLACE = 248
HOLDER = """
import mmap, os, resource, signal, sys
sys.path.insert(0, sys.argv[1])
from stepcoder_jax.execution.worker import hot_pages
from stepcoder_jax.execution.worker.hot_pages import pin_hot_pages
from stepcoder_jax.execution.sandbox.layout import find_layout
from stepcoder_jax.execution.sandbox.confinement import LAYERS, Sandbox, set_dumpable

PAGES, PLACE = 300, int(sys.argv[2])
memory = mmap.mmap(-1, PAGES * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON)

def write(pages):
    for page in pages:
        memory[page * mmap.PAGESIZE] = 1

def in_child(action):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
    pid = os.fork()
    if pid == 0:
        action()
        os._exit(0)
    os.waitpid(pid, 0)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt - before

def trial(pages):
    def run(sandbox):
        def action():
            sandbox.enter(60, 8 << 30, 1 << 20)
            kinds = (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
            if [resource.getrlimit(kind)[1] for kind in kinds] == [1 << 20, 64]:
                write(pages)  # else the sandbox was not entered
        in_child(action)
    return run

def open_descriptors():
    return sorted(os.listdir("/proc/self/fd"))

write(range(PAGES))
others = tuple(set(LAYERS) - {"rlimits"})  # our own lines alone run in it
sandbox = Sandbox(0, others, find_layout())
sandbox.prepare()
set_dumpable(True)
runs = [trial(range(200)), trial(range(100, 300))]
set_dumpable(False)

def serve():
    write(range(50))

def faults_after_fork():
    pid = os.fork()
    if pid == 0:
        signal.pause()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    serve()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return after - before
"""
COUNT = """
cold = range(50, 100)
before = in_child(lambda: write(range(100, 200))), in_child(lambda: write(cold))
own = faults_after_fork()
pinned = pin_hot_pages(sandbox, runs, serve, PLACE)
after = in_child(lambda: write(range(100, 200))), in_child(lambda: write(cold))
print(pinned, *before, *after, own, faults_after_fork())
"""
SLEPT = """
from pathlib import Path
children = Path(f"/proc/self/task/{os.getpid()}/children")
hot_pages._written_here(serve)
print(children.read_text().split())
try:
    hot_pages._written_here(lambda: 1 / 0)
except ZeroDivisionError as error:
    assert not children.read_text()
    print(type(error).__name__)
"""
REFUSED = """
def refuse(number, *arguments):
    raise OSError(1, "not permitted")
hot_pages._call = refuse
set_dumpable(True)
before = open_descriptors()
print(pin_hot_pages(sandbox, runs, serve, PLACE), open_descriptors() == before)
"""
NO_MEMORY = """
hot_pages._register = lambda ring, spans: False
set_dumpable(True)
before = open_descriptors()
print(pin_hot_pages(sandbox, runs, serve, PLACE), open_descriptors() == before)
"""
NO_PLACE = """
set_dumpable(True)
before = open_descriptors()
print(pin_hot_pages(sandbox, runs, serve, 1 << 30), open_descriptors() == before)
hot_pages._KEPT = 1 << 30
print(pin_hot_pages(sandbox, runs, serve, PLACE), open_descriptors() == before)
"""
NO_FILES = """
files = [set(range(start, end)) for start, end, is_file in hot_pages._writable_regions()
         if is_file]
register, asked = hot_pages._register, []
def refuse(ring, spans):
    pages = {page for first, count in spans for page in range(first, first + count)}
    asked.append(pages)
    return not any(pages & file for file in files) and register(ring, spans)
hot_pages._register = refuse
pinned = pin_hot_pages(sandbox, runs, serve, PLACE)
print(pinned, len(asked[1]), len(asked[0]) > len(asked[1]))
"""


def run_holder(what):
    command = [sys.executable, "-c", HOLDER + what, str(ROOT), str(PLACE)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def can_pin():
    try:
        os.close(hot_pages._open_ring())
    except OSError:
        return False
    return True


needs_ring = pytest.mark.skipif(not can_pin(), reason="no io_uring here: nothing is pinned")


@needs_ring
def test_what_both_trials_or_the_worker_itself_write_to_is_copied_at_the_fork():
    pinned, hot, cold, hot_after, cold_after, own, own_after = map(int, run_holder(COUNT))
    assert pinned >= 150
    assert hot >= 100 and cold >= 50
    assert hot_after <= hot - 100
    assert cold_after >= 50
    assert own >= 50 and own_after < 15


@needs_ring
def test_nobody_is_left_of_those_who_slept():
    assert run_holder(SLEPT) == ["[]", "ZeroDivisionError"]


@pytest.mark.parametrize("what", [REFUSED, NO_MEMORY])
def test_where_it_is_refused_nothing_is_pinned_nor_left_open(what):
    assert run_holder(what) == ["0", "True"]


def test_without_numbers_for_them_no_descriptors_are_left_open():
    assert run_holder(NO_PLACE) == ["0", "True"] * 2


@needs_ring
def test_a_kernel_that_refuses_files_gets_the_rest():
    pinned, asked, fewer = run_holder(NO_FILES)
    assert pinned == asked and int(pinned) >= 100 and fewer == "True"


def test_only_private_memory_of_this_process_counts(tmp_path):
    present, of_a_file, alone = 1 << 63, 1 << 61, 1 << 56
    entries = [0, present, alone, present | alone, present | alone | of_a_file]
    file = tmp_path / "pagemap"
    file.write_bytes(array("Q", [0, *entries]).tobytes())
    regions = [hot_pages.Region(1, 4, True), hot_pages.Region(4, 6, False)]
    with file.open("rb") as pagemap:
        assert hot_pages._pages_alone(pagemap.fileno(), regions) == [4]


def test_neighbours_are_one_span():
    assert hot_pages._spans([7, 3, 4, 5, 9]) == [(3, 3), (7, 1), (9, 1)]
    assert hot_pages._spans([]) == []


@pytest.mark.parametrize("python", ["", "python3.12", "python3.13"])
def test_no_program_gets_at_the_ring(python):
    source = f"""
import ctypes, os
found = []
for descriptor in range(5, 300):
    try:
        os.fstat(descriptor)
    except OSError:
        continue
    found.append(descriptor)
call = ctypes.CDLL(None, use_errno=True).syscall
print(found, call(425, 1, 0), ctypes.get_errno(), call(427, {PLACE}, 1, 0, 0))
"""
    with Pool(make_settings(workers=1, python=find_interpreter(python))) as pool:
        assert judge(pool, source, ("", "[] -1 1 -1\n")).passed


@needs_ring
@pytest.mark.parametrize("python", ["", "python3.12", "python3.13"])
def test_a_worker_copies_its_hot_pages_at_the_fork(python):
    with Pool(make_settings(workers=1, python=find_interpreter(python))) as pool:
        assert judge(pool, "print(1)", ("", "1\n")).passed
        ring = os.readlink(f"/proc/{pool.pids[0]}/fd/{PLACE}")
    assert ring == "anon_inode:[io_uring]"


@needs_ring
@pytest.mark.parametrize("python", ["", "python3.12"])
def test_what_test_code_writes_to_is_copied_at_the_fork(python):
    source, code, times = "def f(a):\n    return 2 * a\n", "assert f(3) == 6\n", 20
    with Pool(make_settings(workers=1, python=find_interpreter(python))) as pool:
        assert judge_code(pool, source, code).passed
        _, checker = pool.pids
        before = faults_of_children(checker)
        for _ in range(times):
            assert judge_code(pool, source, code).passed
        # else there are 150 (3.12) to 270 (3.11)
        assert faults_of_children(checker) - before < 130 * times


def faults_of_children(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[8])
