"""The guide of each room: it is there, its links are right, its example runs as told."""

import ast
import os
import re
import subprocess
import sys

import pytest

from tests.test_layers import PACKAGE, ROOT
from tests.test_layers import ROOMS as TABLE

ROOMS = sorted({path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE})
EXAMPLE = re.compile(r"<!-- runs -->\n```python\n(.*?)```\n<!-- end: (.*?) -->", re.DOTALL)
GUIDES = {
    room: path.read_text() if (path := room / "README.md").is_file() else ""
    for room in ROOMS
}
EXAMPLES = {
    str(room.relative_to(PACKAGE)): EXAMPLE.findall(text)
    for room, text in GUIDES.items()
    if "<!-- runs -->" in text
}


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(PACKAGE)))
def test_a_room_has_a_guide(room):
    text = GUIDES[room]
    assert text.startswith("# ") and len(text) > 150
    for head in ("What it imports, and who comes in", "Reading order"):
        assert text.count(f"\n## {head}\n\n") == 1, head
    users = re.search(r"\nMay be imported by (.*?)\.\n\n", text, re.DOTALL)[1]
    name = str(room.relative_to(PACKAGE))
    for user in re.findall(r"`([\w/]+)`", users):
        assert user == "__main__" or name in TABLE[user].inside, user
    told = ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
    assert told.count("\n\n") == 1 and "README.md beside this file" in told
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (room / link).exists(), link


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(PACKAGE)))
def test_a_guide_names_every_file(room):
    stems = {path.stem for path in room.glob("*.py")} - {"__init__"}
    assert [x for x in sorted(stems) if not re.search(rf"\b{x}\b", GUIDES[room])] == []


def test_what_can_be_added_is_shown():
    """A reward too: its guide is executed by tests/feedback/rewards."""
    assert EXAMPLES.keys() == {"data/formats", "models", "learning", "tracking"}
    assert "```python" in GUIDES[PACKAGE / "feedback" / "rewards"]


@pytest.mark.parametrize("room", EXAMPLES)
def test_an_example_says_what_its_guide_says(room, tmp_path):
    ((source, expected),) = EXAMPLES[room]
    assert source.count("\n") <= 30
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert " ".join(done.stdout.split()) == expected
