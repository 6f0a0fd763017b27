"""The README's commands, files and figures are true."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stepcoder_jax.__main__ import USAGE
from stepcoder_jax.data.problems import read_any
from tests.execution.kit import run_sources

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CI = ROOT / ".ci" / "run"


def marked(name):
    """The one command between two marks."""
    block = re.search(
        rf"<!-- {name} -->\n```bash\n(.*?)\n```\n<!-- end -->", README, re.DOTALL
    )
    assert block and "\n" not in block[1], name
    return block[1]


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
    named = set(re.findall(r'"\.\[([\w,]+)\]"', README + CI.read_text()))
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
    package = ROOT / "stepcoder_jax"
    files = set(re.findall(r"\b(\w+\.py)\b", block)) - {"test_layers.py"}
    there = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    assert files == there
    folders = set(re.findall(r"^  (\w+)/", block, re.MULTILINE))
    assert folders == {
        path.name for path in package.iterdir() if path.is_dir() and path.name[0] != "_"
    }
    for name in re.findall(r"(?:^|   )(\w+)/  ", block, re.MULTILINE):
        assert (ROOT / name).is_dir() or (package / name).is_dir(), name


@pytest.mark.parametrize(
    "path",
    sorted(
        set(
            re.findall(
                r"(?<=[\s(`])(?:experiments|launch|stepcoder_jax)/[\w/]+\.\w+", README
            )
        )
    ),
)
def test_files_that_are_named_exist(path):
    assert (ROOT / path).exists()


def test_the_judges_example_runs():
    block = re.search(r"<!-- judge -->\n```python\n(.*?)```\n<!-- end -->", README, re.S)
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
    block = re.search(r"A line of our own is\n\n```\n(.*?)```", README, re.DOTALL)[1]
    path = tmp_path / "own.jsonl"
    path.write_text(block.replace("\n", " "))
    (problem,), complaints = read_any(str(path), strict=True)
    assert complaints == [] and problem.tests[1].inputs == ((1, 2),)
    (report,) = run_sources([problem], [problem.solution])
    assert report.passed


def test_the_commands_on_data_run(tmp_path):
    block = re.search(r"<!-- data -->\n```bash\n(.*?)```\n<!-- end -->", README, re.S)[1]
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
    section = re.search(r"## One iteration\n(.*?)\n## ", README, re.DOTALL)[1]
    assert re.findall(r"^(\d+)\. ", section, re.MULTILINE) == [str(n) for n in range(1, 11)]
    files = (ROOT / "stepcoder_jax" / name for name in ("train.py", "runs/generate.py"))
    source = "".join(file.read_text() for file in files)
    names = re.findall(r"`([\w.]+)`", section)
    for name in names:
        assert re.search(rf"\b{name.split('.')[-1]}\(", source), name
    assert len(names) >= 10
