"""Which host judges which row: how long the last verdict comes after the last token.

    python experiments/benchmarks/host_shares.py

A simulation, since the rule must be chosen for more hosts than one has. A batch of rows in
groups of 8 (the rollouts of a problem) ends at chunks of decoding; rows of a group are
alike in length and in how long they are judged, and in one group of eight all programs
run into a limit. Each host has so many workers. Rules:

    block   row r goes to host r // (rows / hosts): neighbours stay together
    row     row r goes to host r mod hosts
    ends    the k-th row that ends goes to host k mod hosts (runs/shares/dealing.py)
    fewest  to the host with fewest unjudged, as known at the last chunk, plus what was
            dealt since
    one     all hosts take from one queue, which no hosts can: the bound

Seconds are means over seeds, of the wait between the last token and the last verdict.
"""

from __future__ import annotations

import argparse
import heapq

import numpy as np

RULES = ("block", "row", "ends", "fewest", "one")
GROUP, CHUNKS, CHUNK_SECONDS = 8, 16, 1.0


def make_rows(rows: int, load: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The chunk in which each row ends, and the seconds that its judging takes.

    `load` is the mean of these seconds over those of a chunk.
    """
    rng = np.random.default_rng([rows, seed])
    groups = rows // GROUP
    middle = rng.integers(2, CHUNKS - 1, groups).repeat(GROUP)
    ends = np.clip(middle + rng.integers(-2, 3, rows), 1, CHUNKS)
    seconds = rng.lognormal(0, 1, rows) * rng.lognormal(0, 1, groups).repeat(GROUP)
    seconds[np.isin(np.arange(rows) // GROUP, rng.choice(groups, max(1, groups // 8)))] = 12
    return ends, seconds * load * CHUNK_SECONDS / seconds.mean()


def wait(
    rule: str, ends: np.ndarray, seconds: np.ndarray, hosts: int, workers: int
) -> float:
    """Seconds from the last token to the last verdict."""
    rows, queues = len(ends), 1 if rule == "one" else hosts
    each = workers * hosts // queues
    free = [[0.0] * each for _ in range(queues)]  # heaps: when each worker is idle
    ended: list[list[float]] = [[] for _ in range(queues)]  # when verdicts come
    dealt, number = np.zeros(queues, int), 0
    for chunk in range(1, CHUNKS + 1):
        now = chunk * CHUNK_SECONDS
        known = [sum(end <= now - CHUNK_SECONDS for end in of) for of in ended]
        for row in np.flatnonzero(ends == chunk):
            host = {
                "block": int(row) * hosts // rows,
                "row": int(row) % hosts,
                "ends": number % hosts,
                "fewest": int(np.argmin(dealt - known)),
                "one": 0,
            }[rule]
            start = max(now, heapq.heappop(free[host]))
            heapq.heappush(free[host], start + seconds[row])
            ended[host].append(start + seconds[row])
            dealt[host] += 1
            number += 1
    return max(0.0, max(max(of, default=0.0) for of in ended) - ends.max() * CHUNK_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=200)
    seeds = parser.parse_args().seeds
    print(f"{'rows':>5} {'hosts':>5} {'load':>5}  " + " ".join(f"{x:>7}" for x in RULES))
    for rows, hosts, workers in ((64, 2, 4), (256, 4, 8), (1024, 16, 8)):
        for busy in (0.5, 0.9, 1.5):  # of what all workers can do while rows are decoded
            load = busy * hosts * workers * CHUNKS / rows
            waits = [
                np.mean([wait(rule, *made, hosts, workers) for made in made_rows])
                for made_rows in [[make_rows(rows, load, seed) for seed in range(seeds)]]
                for rule in RULES
            ]
            told = " ".join(f"{x:7.2f}" for x in waits)
            print(f"{rows:>5} {hosts:>5} {busy:>5}  {told}")


if __name__ == "__main__":
    main()
