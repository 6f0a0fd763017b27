"""Problems in training order: every row once an epoch, and the same after a resume."""

import json

import pytest

from stepcoder_jax.data.building.build import build_set
from stepcoder_jax.data.building.pipeline import ProblemStream, epoch_order
from stepcoder_jax.data.formats import built_set, own
from stepcoder_jax.data.generated import benchmark
from stepcoder_jax.feedback import cccs
from stepcoder_jax.records import InputError

SIZE = 11


def take(stream, count):
    return [next(stream) for _ in range(count)]


def make_stream(seed=3, size=SIZE, **options):
    return ProblemStream(range(100, 100 + size), seed, **options)


def test_the_order_is_the_train_loops():
    drawn = [100 + row for step in range(8) for row in cccs.draw(SIZE, 5, step, seed=3)]
    assert take(make_stream(), 40) == drawn


def test_every_epoch_has_every_row_in_an_order_of_its_own():
    rows = take(make_stream(), 5 * SIZE)
    epochs = [tuple(rows[i : i + SIZE]) for i in range(0, len(rows), SIZE)]
    assert all(sorted(epoch) == list(range(100, 100 + SIZE)) for epoch in epochs)
    assert len(set(epochs)) == 5
    assert take(make_stream(seed=4), SIZE) != list(epochs[0])
    assert take(make_stream(seed=4), SIZE) != list(epochs[1])  # no seed + epoch


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_processes_share_one_order(count):
    whole = take(make_stream(), 12 * count)
    streams = [make_stream(process_index=i, process_count=count) for i in range(count)]
    parts = [take(stream, 12) for stream in streams]
    assert [row for group in zip(*parts) for row in group] == whole


@pytest.mark.parametrize("place", range(2 * SIZE + 2))
@pytest.mark.parametrize("read_ahead", [0, 16])
def test_a_resume_at_any_row_gives_the_same_order(place, read_ahead):
    options = {"process_index": 1, "process_count": 2, "read_ahead": read_ahead}
    stream = make_stream(**options)
    take(stream, place)
    state = json.loads(json.dumps(stream.get_state()))
    rest = take(stream, 15)
    resumed = make_stream(**options)
    resumed.set_state(state)
    assert take(resumed, 15) == rest
    assert resumed.get_state() == stream.get_state()
    stream.set_state(state)  # and back, in the same stream
    assert take(stream, 15) == rest


def test_the_state_is_the_same_in_every_process():
    streams = [make_stream(process_index=i, process_count=3) for i in range(3)]
    for stream in streams:
        take(stream, 4)
    assert streams[0].get_state() == streams[1].get_state() == streams[2].get_state()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (make_stream(seed=4), "seed is 4 there and 3 here"),
        (make_stream(size=12), "problems is 12 there and 11 here"),
        (make_stream(process_count=2), "processes is 2 there and 1 here"),
    ],
)
def test_a_state_of_another_order_is_refused(other, message):
    with pytest.raises(InputError, match=f"the state is of another order: {message}"):
        make_stream().set_state(other.get_state())


@pytest.mark.parametrize(("size", "index", "count"), [(0, 0, 1), (3, 1, 1), (3, -1, 2)])
def test_what_cannot_be_a_stream(size, index, count):
    with pytest.raises(InputError, match="at least 1 problem and a process of the run"):
        make_stream(size=size, process_index=index, process_count=count)


def test_a_built_split_is_a_source(tmp_path):
    problems = benchmark.generate("train", 2, (4, 4, 4))
    own.write(problems, tmp_path / "train.jsonl")
    where = build_set(str(tmp_path), {"train": str(tmp_path / "train.jsonl")})
    stream = ProblemStream(built_set.open_split(str(where), "train"), 5)
    order = [*epoch_order(12, 5, 0), *epoch_order(12, 5, 1)]
    assert take(stream, 24) == [problems[row] for row in order]
