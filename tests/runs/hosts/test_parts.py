"""Where a host is, and for how long it may be there."""

from stepcoder_jax.runs.hosts.parts import PartClock, Position, name_hosts, tell


def test_a_part_may_take_ten_times_its_median():
    clock = PartClock()
    for start, seconds in ((0, 2), (10, 3), (20, 40)):
        clock.begin("sample", 1, start)
        clock.begin("judge", 1, start + seconds)  # ends the one before
        clock.end(start + seconds + 1)
    assert clock.durations == {"sample": [2, 3, 40], "judge": [1, 1, 1]}
    clock.begin("sample", 2, 100)
    assert clock.overdue(130, least=1) is None
    assert clock.overdue(131, least=1) == (31, 30)
    assert clock.overdue(131, least=60) is None
    clock.begin("save", 2, 200)  # never seen before
    assert clock.overdue(259, least=60) is None
    assert clock.overdue(261, least=60) == (61, 60)
    clock.end(262)
    assert clock.overdue(10_000, least=1) is None  # between two parts: nothing is known
    assert clock.position == Position("save", 2, 8, is_over=True)


def test_hosts_are_named_together():
    assert name_hosts([1]) == "host 1"
    assert name_hosts(range(10)) == "hosts 0, 1, 2, 3, 4, 5, 6, 7 and 2 more"
    where = {0: "in judge", 2: "in judge", 1: "at its start"}
    assert tell(where) == "hosts 0, 2 in judge, host 1 at its start"
    assert str(Position("judge", 4, 3)) == "in judge of iteration 4"
    assert str(Position("judge", 4, 3, True)) == "after judge of iteration 4"
    assert str(Position()) == "at its start"
