"""Run the jobs whose records are not there yet: what all runners share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ablation_runner import digest, jobs, record
from ablation_runner.digest import Parts
from ablation_runner.jobs import STOPPED, Ended
from ablation_runner.record import DONE, FAILED
from ablation_runner.steps import Places
from ablation_runner.study import Job
from stepcoder_jax.config import Config

_GOOD, _NOT_ALL = 0, 1


class Course(NamedTuple):
    """How the jobs of a study are run, and what is kept of them."""

    configs: Mapping[str, Config]  # by arm
    parts: Callable[[], Parts]
    steps_of: Callable[[Job], Iterator[list[str]]]
    make: Callable[[Job, Parts, Ended], dict[str, Any]]  # the record of one that ended
    needs: Callable[[Job], Sequence[Job]] = lambda job: ()  # what it takes from others


def run_missing(
    places: Places, course: Course, wanted: Sequence[Job], at_a_time: int, again: bool
) -> int:
    """Run jobs, but for those whose records are there; 1 where one failed or is left.

    Raises InputError for a folder of results of another digest or config, and Stop after a
    signal.
    """
    shares = jobs.share_cores(at_a_time)
    digest.make_folder("--runs", places.runs)
    parts = course.parts()
    digest.open_folder(places.results, parts)
    left = choose(places, course, parts, wanted, again)
    print(f"{len(wanted) - len(left)} of {len(wanted)} runs are there", flush=True)

    def finish(job: Job, ended: Ended) -> None:
        if ended.code not in STOPPED:  # one that was stopped has no record
            record.write(places.record(job), course.make(job, parts, ended))

    def lacks(job: Job) -> list[Job]:
        return [need for need in course.needs(job) if not is_done(places, need)]

    jobs.run_all(left, shares, course.steps_of, places.log, finish, lacks)
    told = statuses(places)
    failed = [job.name for job in wanted if told.get(job) == FAILED]
    if failed:
        print(f"failed: {', '.join(failed)}; --again runs them again", file=sys.stderr)
    return _GOOD if {told.get(job) for job in wanted} == {DONE} else _NOT_ALL


def choose(
    places: Places, course: Course, parts: Parts, wanted: Sequence[Job], again: bool
) -> list[Job]:
    """The jobs that are to be run."""
    known = {Job(x["arm"], x["seed"]): x for x in record.read_all(places.results)}
    left = []
    for job in wanted:
        found = known.get(job)
        if found is None:
            left.append(job)
            continue
        digest.check_record(found, parts, course.configs[job.arm])
        if found["status"] == FAILED:
            said = "again" if again else "left; --again runs it again"
            print(f"{job.name}: failed before, {found['last_line']}: {said}", flush=True)
            left += [job] * again
    return left


def is_done(places: Places, job: Job) -> bool:
    """Whether a run has ended well, by its record alone."""
    path = places.record(job)
    return path.is_file() and record.read(path)["status"] == DONE


def statuses(places: Places) -> dict[Job, str]:
    """How the runs ended that have records."""
    found = record.read_all(places.results)
    return {Job(x["arm"], x["seed"]): x["status"] for x in found}
