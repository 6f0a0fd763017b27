"""Building, reading and streaming a data set of generated problems: seconds and memory.

python experiments/benchmarks/data_build.py [--problems 10000] [--rounds 3]

Each step runs in a process of its own, so that its peak memory is its own; the medians of
ROUNDS rounds, the steps interleaved. The same problems are read from JSON lines in the same
run (`read lines`), to which the other times are compared.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from kit import answer_of, timed

STEPS = ("read lines", "build", "verify and open", "read in order", "stream", "resume")
SEED = 7


def write_problems(path: Path, count: int) -> None:
    """About `count` generated problems, of all difficulties alike."""
    from stepcoder_jax.data.formats import own
    from stepcoder_jax.data.generated import benchmark

    third = count // 3
    sizes = (count - 2 * third, third, third)
    own.write(benchmark.generate("sft", SEED, sizes), path)


def run_step(step: str, folder: Path) -> int:
    """One step; returns how many problems it was about."""
    from stepcoder_jax.data.building.build import build_set
    from stepcoder_jax.data.building.pipeline import ProblemStream
    from stepcoder_jax.data.formats import built_set
    from stepcoder_jax.data.problems import read_any

    lines, where = str(folder / "problems.jsonl"), str(folder / "set/apps_plus/1.0.0")
    if step == "read lines":
        return len(read_any(lines, strict=True)[0])
    if step == "build":
        shutil.rmtree(folder / "set", ignore_errors=True)
        build_set(str(folder / "set"), {"train": lines})
        return built_set.read_metadata(where)["sources"]["train"]["left_out"]
    split = built_set.open_split(where, "train")
    if step == "verify and open":
        return len(split)
    if step == "read in order":
        return sum(1 for _ in split)
    stream = ProblemStream(split, SEED)
    if step == "stream":
        return sum(1 for _ in zip(range(len(split)), stream))
    middle = len(split) // 2
    stream.set_state(stream.get_state() | {"grain": {"next_index": middle}})
    next(stream)
    return 1


def measure(step: str, folder: str) -> None:
    """Print seconds (imports too), CPU seconds and peak MiB of a step in this process."""
    seconds: list[float] = []
    with timed(seconds):
        run_step(step, Path(folder))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    numbers = *seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    print(json.dumps(numbers))


def run_apart(step: str, folder: str) -> list[float]:
    command = [sys.executable, __file__, "--step", step, "--folder", folder]
    return list(answer_of(command))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--folder")
    given = parser.parse_args()
    if given.step:
        measure(given.step, given.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problems.jsonl"
        write_problems(path, given.problems)
        found: dict[str, list[list[float]]] = {step: [] for step in STEPS}
        for _ in range(given.rounds):
            for step in STEPS:
                found[step].append(run_apart(step, folder))
        size = sum(f.stat().st_size for f in Path(folder, "set").rglob("*") if f.is_file())
        print(
            f"{given.problems} problems, {path.stat().st_size / 2**20:.1f} MiB as lines, "
            f"{size / 2**20:.1f} MiB built; medians of {given.rounds}"
        )
    print("step              seconds    CPU s  peak MiB  seconds / read lines")
    base = statistics.median(row[0] for row in found["read lines"])
    for step, rows in found.items():
        seconds, cpu, memory = (statistics.median(column) for column in zip(*rows))
        print(f"{step:16} {seconds:8.2f} {cpu:8.2f} {memory:9.0f} {seconds / base:8.2f}")


if __name__ == "__main__":
    main()
