"""`stepcoder ...` on one host of several, which counts gathers: for tests/test_hosts.py.

The last line that it prints has, of each iteration up to where it validates and saves, how
many chunks were shared, and how many gathers there were beside those.
"""

from __future__ import annotations

import collections
import json
import os
import sys
from typing import Any

from stepcoder_jax import train
from stepcoder_jax.__main__ import main
from stepcoder_jax.devices import gathers
from stepcoder_jax.runs.hosts.channel import CHANNEL_VARIABLE
from stepcoder_jax.runs.hosts.place import find
from stepcoder_jax.runs.hosts.watching import Watcher


def counted() -> list[dict[str, int]]:
    """A list that fills as iterations end."""
    iterations: list[dict[str, int]] = []
    counts: collections.Counter[str] = collections.Counter()
    exchange, share_rows = gathers.exchange, gathers.share_rows
    iterate, conclude = train.iterate, train.conclude

    def count_gather(data: Any) -> Any:
        counts["gathers"] += 1
        return exchange(data)

    def count_chunk(*given: Any) -> Any:
        counts["chunks"] += 1
        return share_rows(*given)

    def begin(*given: Any) -> Any:
        counts.clear()  # what came before was not of an iteration
        return iterate(*given)

    def note(*given: Any) -> None:
        others = counts["gathers"] - counts["chunks"]
        iterations.append({"chunks": counts["chunks"], "others": others})
        conclude(*given)

    gathers.exchange, gathers.share_rows = count_gather, count_chunk
    train.iterate, train.conclude = begin, note
    return iterations


def run(argv: list[str]) -> int:
    """The watcher of this host, or its trainer, which is this file again."""
    if CHANNEL_VARIABLE not in os.environ:
        place = find(os.environ)
        assert place is not None, "one of several hosts"
        return Watcher(place, argv[0], [sys.executable, __file__, *argv]).watch()
    found = counted()
    code = main(argv)
    print(json.dumps(found), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
