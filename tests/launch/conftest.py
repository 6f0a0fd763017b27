"""No launcher, and nothing that one has started, outlives its test."""

import pytest

from tests.launch.kit import StandIns


@pytest.fixture(autouse=True)
def ended():
    """End what the test has left."""
    yield
    while StandIns.made:
        StandIns.made.pop().end()
