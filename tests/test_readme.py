"""The README and the guides: their commands, files, figures and links are true."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stepcoder_jax.cli.usage import USAGE
from stepcoder_jax.data.problems import read_any
from tests.execution.kit import run_sources

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "stepcoder_jax"
README = (ROOT / "README.md").read_text()
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (
        *ROOT.glob("*.md"),
        *(
            path
            for top in ("experiments", "launch", "notebooks", "stepcoder_jax", "tests")
            for path in (ROOT / top).rglob("*.md")
        ),
    )
}
CI = ROOT / ".ci" / "run"


def marked(name):
    """The one command between two marks."""
    block = re.search(
        rf"<!-- {name} -->\n```bash\n(.*?)\n```\n<!-- end -->", README, re.DOTALL
    )
    assert block and "\n" not in block[1], name
    return block[1]


def test_a_newcomer_reads_two_hundred_lines_at_most():
    lines = README.splitlines()
    assert len(lines) <= 200
    told = re.sub(r"```.*?```|<!--.*?-->", "", README, flags=re.DOTALL)
    told = re.sub(r"\]\(.*?\)", "]", told)  # where a link goes is not read
    rows = [row for row in told.splitlines() if row.startswith("|")]
    assert all(len(row) <= 130 for row in rows)
    blocks = re.split(r"\n(?=- |\n|\|)", told)
    said = " ".join(" ".join(x.split()) + " ." for x in blocks if "|" not in x)
    for sentence in re.split(r"[.:;?!] ", said):
        assert len(sentence.split()) <= 26, sentence


def test_two_commands_do_all_set_up():
    for name in ("quickstart", "tests"):
        words = marked(name).split(" && ")
        assert words[0] == "python3 -m venv .venv"
        assert words[1].startswith(".venv/bin/pip install -e ")
        assert len(words) == 3
    assert "stepcoder train experiments/quickstart.py" in marked("quickstart")
    assert "pytest" in marked("tests")


def test_ci_runs_the_readmes_test_command_first():
    """`.ci/run` reads it out of the README; this runs its own words for doing so."""
    text = CI.read_text()
    function = re.search(r"^readme_command\(\) \{.*?^\}", text, re.DOTALL | re.MULTILINE)[0]
    script = f"environment=elsewhere\n{function}\nreadme_command tests"
    said = subprocess.run(
        ["bash", "-euc", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == marked("tests").replace(".venv", "elsewhere")
    steps = re.findall(r'^step "([^"]+)"', text, re.MULTILINE)
    assert steps[0] == "README: install and pass the tests"
    subprocess.run(["bash", "-n", str(CI)], check=True)


def test_ci_refuses_unknown_options():
    done = subprocess.run([str(CI), "--fll"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--full" in done.stderr
    assert done.stderr.count("\n") == 1


def test_extras_and_marks_exist():
    setup = (ROOT / "setup.cfg").read_text()
    told = "".join(PAGES.values()) + CI.read_text()
    named = set(re.findall(r'"\.\[([\w,]+)\]"', told))
    for extra in ",".join(named).split(","):
        assert re.search(rf"^{extra} =", setup, re.MULTILINE), extra
    assert {"test", "gpu", "tpu"} <= set(",".join(named).split(","))


def test_the_commands_are_those_of_help():
    block = re.search(r"## Commands\n\n```\n(.*?)```", README, re.DOTALL)[1]
    assert [line.strip() for line in block.splitlines()] == [
        line.strip() for line in USAGE.splitlines() if line.startswith("  stepcoder ")
    ]


def test_the_house_map_names_what_is_there():
    block = re.search(r"## The house\n.*?```\n(.*?)```", README, re.DOTALL)[1]
    files = set(re.findall(r"\b(\w+\.py)\b", block)) - {"test_layers.py"}
    there = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert files == there
    folders = set(re.findall(r"^  (\w+)/", block, re.MULTILINE))
    assert folders == {
        path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name[0] != "_"
    }
    for name in re.findall(r"(?:^|   )(\w+)/  ", block, re.MULTILINE):
        assert (ROOT / name).is_dir() or (PACKAGE / name).is_dir(), name


def named_files(page):
    """Files of the repository that a page names by their path, linked or not."""
    text = PAGES[page]
    tops = "experiments|launch|notebooks|stepcoder_jax|tests"
    return set(re.findall(rf"(?<=[\s(`])(?:{tops})/[\w/]+\.\w+", text))


def is_of_its_day(page):
    """A claim of the log: its paths are those of its date."""
    return page.startswith("experiments/log/2")


@pytest.mark.parametrize("page", [page for page in PAGES if not is_of_its_day(page)])
def test_files_that_are_named_exist(page):
    missing = [path for path in named_files(page) if not (ROOT / path).exists()]
    assert missing == []


@pytest.mark.parametrize(
    ("folder", "ending"), [("experiments", "py"), ("notebooks", "ipynb")]
)
def test_a_table_has_all_files_of_its_folder(folder, ending):
    told = PAGES[f"{folder}/README.md"]
    missing = [
        path.name
        for path in (ROOT / folder).glob(f"*.{ending}")
        if f"({path.name})" not in told
    ]
    assert missing == []


def anchor(head):
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_are_alive(page):
    folder = (ROOT / page).parent
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", PAGES[page]):
        path, _, part = link.partition("#")
        there = folder / path if path else ROOT / page
        assert there.exists(), link
        if part:
            text = re.sub(r"```.*?```", "", there.read_text(), flags=re.DOTALL)
            heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            assert part in {anchor(head) for head in heads}, link


def test_a_guide_is_reached_from_the_readme():
    """From README by links alone, through folders and pages."""
    found, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in found or page.suffix != ".md":
            continue
        found.add(page)
        links = re.findall(r"\]\((?!https?:)([^)#\s]+)[^)]*\)", page.read_text())
        waiting += [(page.parent / link).resolve() for link in links]
    guides = {ROOT / page for page in PAGES if page.endswith("README.md")}
    lost = sorted(str(guide.relative_to(ROOT)) for guide in guides - found)
    assert lost == [], "stepcoder_jax/README.md has a table of rooms: link it there"


def test_the_judges_example_runs():
    guide = PAGES["stepcoder_jax/execution/README.md"]
    block = re.search(r"<!-- judge -->\n```python\n(.*?)```\n<!-- end -->", guide, re.S)
    assert 8 <= block[1].count("\n") <= 12
    done = subprocess.run(
        [sys.executable, "-c", block[1]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "pass ['', ''] [(1, 0)]",
        "wrong ['', ''] [(1, 0)]",
        "runtime ['PermissionError', ''] [(1, 0), (1, 15)]",
        "isolation level 3, 3 programs",
    ]


def test_the_line_of_our_own_is_read(tmp_path):
    guide = PAGES["stepcoder_jax/data/formats/README.md"]
    block = re.search(r"A line of our own is\n\n```\n(.*?)```", guide, re.DOTALL)[1]
    path = tmp_path / "own.jsonl"
    path.write_text(block.replace("\n", " "))
    (problem,), complaints = read_any(str(path), strict=True)
    assert complaints == [] and problem.tests[1].inputs == ((1, 2),)
    (report,) = run_sources([problem], [problem.solution])
    assert report.passed


def test_the_commands_on_data_run(tmp_path):
    guide = PAGES["stepcoder_jax/data/README.md"]
    block = re.search(r"<!-- data -->\n```bash\n(.*?)```\n<!-- end -->", guide, re.S)[1]
    commands = block.splitlines()
    assert len(commands) == 5
    for command in commands:
        name, *words = command.split()
        assert name == "stepcoder"
        done = subprocess.run(
            [sys.executable, "-m", "stepcoder_jax", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        drops = "check" in words  # which finds that some wordings differ in a number alone
        assert done.returncode == drops, (command, done.stdout, done.stderr)
    assert 290 <= int(done.stdout.splitlines()[1].split()[-1]) < 300


def test_names_of_the_loop_are_in_the_code():
    guide = PAGES["stepcoder_jax/README.md"]
    section = re.search(r"## One iteration\n(.*?)\n## ", guide, re.DOTALL)[1]
    assert re.findall(r"^(\d+)\. ", section, re.MULTILINE) == [str(n) for n in range(1, 11)]
    files = (ROOT / "stepcoder_jax" / name for name in ("train.py", "runs/generate.py"))
    source = "".join(file.read_text() for file in files)
    names = re.findall(r"`([\w.]+)`", section)
    for name in names:
        assert re.search(rf"\b{name.split('.')[-1]}\(", source), name
    assert len(names) >= 10
