"""Hosts that look at some slots each: the same completions, and each stop found once."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from stepcoder_jax.devices import gathers
from stepcoder_jax.sampling.chunks import Chunk
from stepcoder_jax.sampling.drawing import Truncation
from tests.hosts_kit import on_hosts
from tests.kit import ROWS, complete, make_sampler, prompt_batch, tiny_model, tiny_params

SLOTS = 8


def stop_at_sevens(calls):
    """A stop behind the first token that 7 divides; notes each look."""

    def find_stop(ids):
        calls.append(1)
        return next((i + 1 for i, token in enumerate(ids) if token % 7 == 0), None)

    return find_stop


@pytest.mark.parametrize("hosts", [2, 3])
def test_hosts_find_what_one_would(monkeypatch, hosts):
    sampler = make_sampler(tiny_model(), Truncation(0.8, 0.9), num_slots=SLOTS)
    batch, calls = prompt_batch(), list[int]()
    alone = complete(sampler, tiny_params(), batch, find_stop=stop_at_sevens(calls))
    assert 0 < alone.truncated.sum() < ROWS
    finder = np.arange(SLOTS) * hosts // SLOTS

    def work(host):
        mine, seen, chunks = finder == host, list[int](), list[int]()

        def own_rows(chunk):
            chunks.append(1)
            return Chunk(*((jax.device_get(x).T * mine).T for x in chunk))

        own = sampler._replace(
            to_host=own_rows,
            looks=mine,
            share=lambda *found: gathers.share_rows(finder, found),
        )
        stop = stop_at_sevens(seen)
        return complete(own, tiny_params(), batch, find_stop=stop), len(seen), len(chunks)

    found, gathered = on_hosts(monkeypatch, hosts, work)
    for rollout, _, chunks in found:
        for ours, theirs in zip(rollout, alone, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert chunks == gathered  # one gather for each
    assert sum(looks for _, looks, _ in found) == len(calls)
