"""Which process of how many this one is."""

import pytest

from stepcoder_jax.runs.hosts.place import HOSTS_VARIABLE, Place, PlaceError, find


def test_the_place_is_what_the_variable_says():
    assert find({HOSTS_VARIABLE: "10.0.0.1:12,4,3"}) == Place("10.0.0.1", 12, 4, 3)
    assert find({HOSTS_VARIABLE: "[::1]:12,4,3"}).address == "[::1]"
    assert find({HOSTS_VARIABLE: "1"}) is None  # left to JAX
    assert find({}) is None


@pytest.mark.parametrize(
    "said, words",
    [
        ("yes", "expected 1 or ADDRESS:PORT,PROCESSES,INDEX, got 'yes'"),
        ("10.0.0.1:1,2", "expected 1 or ADDRESS:PORT,PROCESSES,INDEX"),
        ("10.0.0.1:1,2,x", "expected 1 or ADDRESS:PORT,PROCESSES,INDEX"),
        (":1,2,0", "expected 1 or ADDRESS:PORT,PROCESSES,INDEX"),
        ("10.0.0.1:1,2,2", "an index below the number of processes, 0 to 1, got 2"),
        ("10.0.0.1:65535,2,1", "expected a port from 1 to 65534"),
    ],
)
def test_what_is_no_place_is_refused(said, words):
    with pytest.raises(PlaceError, match=words):
        find({HOSTS_VARIABLE: said})
