"""The log of runs: a file for each claim, and an index that is theirs, newest first."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "experiments" / "log"
FILES = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
ROW = re.compile(r"\| (\d{4}-\d\d-\d\d) \| (.+) \| (.+) \| \[([\w-]+)\]\((.+)\) \|")
INDEX = (FOLDER / "README.md").read_text()
ROWS = [ROW.fullmatch(x) for x in INDEX.splitlines() if x.startswith("| 2")]


def test_the_index_has_every_file_once():
    assert all(ROWS)
    assert sorted(row[5] for row in ROWS) == [path.name for path in FILES]
    assert len(FILES) == len({row[2] for row in ROWS}) >= 40


def test_the_index_is_newest_first():
    dates = [row[1] for row in ROWS]
    assert dates == sorted(dates, reverse=True)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[4])
def test_a_claim_says_what_its_row_says(row):
    text = (FOLDER / row[5]).read_text()
    assert row[5] == f"{row[1]}-{row[4]}.md"
    title, date, question, answer, *_ = text.split("\n\n")
    assert title.startswith("# ") and date.partition(" ")[0] == row[1]
    assert question == f"**Question** {row[2]}" and row[2].endswith("?")
    assert answer == f"**Answer** {row[3]}" and len(row[3]) <= 170
    heads = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert heads == ["Commands and results", "What it means"]
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (FOLDER / link).exists(), link
