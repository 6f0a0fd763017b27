"""What the tests of several readers share."""

import json

import pytest


@pytest.fixture
def write(tmp_path):
    """Write rows as lines of JSON; the path."""

    def write(*rows):
        path = tmp_path / "problems.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        return str(path)

    return write
