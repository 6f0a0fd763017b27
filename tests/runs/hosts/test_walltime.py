"""When an allocation ends, and when to save before."""

import subprocess
import sys
import time

from stepcoder_jax.runs.hosts.walltime import find_end, process_age, time_to_save

SLURM = {"SLURM_JOB_START_TIME": "1000", "SLURM_JOB_END_TIME": "4600"}


def test_the_wall_time_counts_from_the_start_of_the_allocation():
    assert find_end(0, {}, age=5, now=2000) is None
    assert find_end(10, {}, age=5, now=2000) == 2000 - 5 + 600  # this process's start
    assert find_end(10, SLURM, age=5, now=2000) == 1600  # Slurm's, long before
    assert find_end(0, SLURM, age=5, now=2000) == 4600
    assert find_end(0, {"SLURM_JOB_END_TIME": "soon"}, age=5, now=2000) is None


def test_a_save_ends_twice_its_time_before_the_end():
    begins = time_to_save(end=1000, save_seconds=20, now=100)
    assert begins == 840  # at 940: over at 960, and 40 s are left
    assert time_to_save(1000, None, now=100) == 900 - 3 * 45  # a twentieth of what is left
    assert time_to_save(10_000, None, now=0) == 10_000 - 3 * 60
    assert time_to_save(100, 50, now=90) < 0  # at once


def test_the_age_of_a_process_has_its_start_in_it():
    code = "import time; time.sleep(0.5); from stepcoder_jax.runs.hosts import walltime; "
    start = time.monotonic()
    printed = subprocess.run(
        [sys.executable, "-c", code + "print(walltime.process_age())"],
        capture_output=True,
        check=True,
    )
    assert 0.5 <= float(printed.stdout) <= time.monotonic() - start + 0.1
    assert process_age() > 0
