"""Bad input: one line naming the place and the mend, exit code 2, nothing overwritten."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stepcoder_jax.__main__ import COMMANDS, main
from stepcoder_jax.cli.usage import USAGE
from stepcoder_jax.runs.disk import sources
from tests import run_kit
from tests.data.kit import ECHO
from tests.run_kit import HERE, get_config

NO_TEST = ["--evaluation.test_problems", "0", "--evaluation.every", "0"]


def refuse(capsys, *argv):
    """The one line with which the command refuses."""
    assert main([str(word) for word in argv]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("stepcoder")
    return lines[0]


def has(line, *words):
    missing = [word for word in words if str(word) not in line]
    assert not missing, (missing, line)


@pytest.fixture
def problems(tmp_path):
    def write(rows):
        path = tmp_path / "problems.json"
        path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
        return path

    return write


# Flags of `train` that cannot work -> what the line must name.
FLAGS = {
    "unknown": (["--run.folderx", "1"], ["--run.folderx", "--run.folder"]),
    "stray": (["extra"], ["extra", "--help"]),
    "number": (["--run.total_steps", "many"], ["--run.total_steps", "many"]),
    "choice": (["--fgo.mask", "some"], ["--fgo.mask", "some", "executed"]),
    "no steps": (["--run.total_steps", "0"], ["--run.total_steps", "at least 1"]),
    "minibatches": (["--ppo.num_minibatches", "5"], ["ppo.num_minibatches", "16", "5"]),
    "micro-batches": (["--ppo.num_micro_batches", "3"], ["ppo.num_micro_batches", "3"]),
    "devices": (
        ["--ppo.num_micro_batches", "2"],
        ["16 rollouts", "ppo.num_micro_batches 2", "8 devices", "mesh.data"],
    ),
    "mesh": (["--mesh.data", "3"], ["mesh", "data=3", "8"]),
    "context": (
        ["--prompt.max_prompt_length", "100000"],
        ["--prompt.max_prompt_length", "100000", "model.max_positions"],
    ),
    "prompt": (
        ["--prompt.max_prompt_length", "9"],
        ["12 of 12 problems", "more than 9 tokens", "raise --prompt.max_prompt_length"],
    ),
    "checkpoint": (["--model.checkpoint", "nowhere"], ["model.", "nowhere"]),
    "tokenizer": (
        ["--model.checkpoint", ""],
        ["model.tokenizer", "builtin"],
    ),
    "template": (["--prompt.template", "x"], ["--prompt.template", "plain"]),
    "temperature": (["--sampling.temperature", "0"], ["--sampling.temperature"]),
    "memory": (["--execution.memory_mb", "1"], ["execution.memory_mb", "64"]),
    "interpreter": (["--execution.python", "/no/python"], ["execution.python"]),
    "data": (["--data.path", "nowhere.json", *NO_TEST], ["nowhere.json", "APPS+"]),
    "no test file": (
        ["--data.path", __file__],  # a file that is there; it is not read so early
        ["evaluation.test_problems: expected 0", "got 8", "--data.test FILE"],
    ),
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags_that_cannot_work(capsys, tmp_path, name):
    flags, words = FLAGS[name]
    folder = tmp_path / "run"
    line = refuse(capsys, "train", HERE, "--run.folder", folder, *flags)
    has(line, *words)
    assert not folder.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_options_of_every_command(capsys, command):
    targets = {"train": [HERE], "sft": [HERE], "doctor": [], "export": ["no", "--out", "x"]}
    targets["data"] = ["stats", "nowhere"]
    targets["plan"] = [HERE, "--topology", "h100:8"]
    targets["head"] = ["no", "--kind", "pair", "--out", "x"]
    target = targets.get(command, ["nowhere"])
    has(
        refuse(capsys, command, *target, "--no-such", "1"),
        f"stepcoder {command}",
        "--no-such",
    )


def test_commands(capsys):
    assert main([]) == 2 and main(["--help"]) == 0
    assert capsys.readouterr().out == USAGE * 2
    has(refuse(capsys, "trian"), "trian", "train", "sample")
    for name in COMMANDS:
        assert f"stepcoder {name}" in USAGE


def test_version(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"stepcoder \d+\.\d+\S*\n", capsys.readouterr().out)


WORDS = [
    "train",
    "plan",
    "sft",
    "evaluate",
    "sample",
    "export",
    "replay",
    "judge",
    "compare",
    "doctor",
]
WORDS += ["head", "data", "data generate", "data stats", "data check", "data build"]
WORDS += ["data profile"]


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", [*WORDS, f"train {HERE}", f"sft {HERE}"])
def test_help_everywhere(capsys, command, flag):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), flag])
    said = capsys.readouterr()
    assert stop.value.code == 0 and said.err == ""
    assert f"stepcoder {command.split()[0]}" in said.out
    if command.split()[0] in ("train", "sft"):
        assert "--cccs.threshold" in said.out


URL = "gs://bucket/x"
PLACES = [
    *(f"train {URL}", f"sft {URL}", f"evaluate {URL}", f"sample {URL}", f"judge {URL}"),
    *(f"export {URL} --out x", f"replay {URL}", f"compare a {URL}", f"data generate {URL}"),
    *(f"data stats {URL}", f"data check {URL}", f"data build {URL} --train x"),
    f"plan {HERE} --topology h100:8 --data.path {URL}",
    *(f"train {HERE} --run.folder {URL}", f"train {HERE} --data.path={URL}"),
    f"train {HERE} --model.checkpoint {URL}",
    *(f"evaluate x --problems {URL}", f"evaluate x --out {URL}", f"export x --out {URL}"),
    *(f"judge x --problems {URL}", f"judge x --problems y --out {URL}"),
    *(f"compare a b --out {URL}", f"data stats x --tokenizer {URL}"),
    *(f"data profile {URL}", f"data profile x --out {URL}"),
    *(f"data check x --against a {URL}", f"data build x --report {URL}"),
]


@pytest.mark.parametrize("command", PLACES)
def test_a_url_is_no_path(capsys, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    line = refuse(capsys, *command.split())
    has(line, f"got the URL '{URL}'", "a path of this machine")
    flags = re.findall(r"--[a-z.]+(?==| gs| a gs)", command)
    has(line, f"{flags[-1] if flags else 'argument'}: expected")
    assert not any(tmp_path.iterdir())


def test_the_address_of_a_service_is_a_url(capsys, tmp_path):
    flags = ["--execution.backend", "http", "--execution.url", "http://localhost:1"]
    line = refuse(capsys, "judge", tmp_path / "nowhere.json", *flags)
    has(line, "nowhere.json: cannot be read")


def test_experiments(capsys, tmp_path):
    has(refuse(capsys, "train"), "EXPERIMENT", "experiments/quickstart.py")
    has(refuse(capsys, "train", "--run.seed", "1"), "EXPERIMENT")
    has(refuse(capsys, "train", "nowhere.py"), "EXPERIMENT", "nowhere.py")
    empty = tmp_path / "empty.py"
    empty.write_text("")
    has(refuse(capsys, "train", empty), str(empty), "get_config")
    empty.write_text("def get_config(arg): return 1\n")
    has(refuse(capsys, "train", empty), str(empty), "Config")


# Contents of a problem file -> what the line must name beside the file.
FILES = {
    "empty": ("", ["not valid JSON"]),
    "truncated": (json.dumps([ECHO, ECHO])[:-20], ["truncated"]),
    "no list": ("3", ["expected a non-empty JSON list"]),
    "other fields": ({"a": 1}, ["line 1", '{"a": 1}', "apps_plus", "mbpp: test_imports"]),
    "no field": (
        [ECHO, {k: v for k, v in ECHO.items() if k != "inputs"}],
        ["row 1", "inputs"],
    ),
    "wrong type": ([ECHO | {"prompt": 3}], ["row 0", "prompt", "str"]),
    "no tests": ([ECHO | {"inputs": [], "outputs": []}], ["row 0", "inputs", "at least 1"]),
}


@pytest.mark.parametrize("name", FILES)
def test_problem_files(capsys, problems, tmp_path, name):
    rows, words = FILES[name]
    path, folder = problems(rows), tmp_path / "run"
    flags = ["--run.folder", folder, "--data.path", path, "--data.strict", *NO_TEST]
    has(refuse(capsys, "train", HERE, *flags), path, *words)
    assert not folder.exists()
    has(refuse(capsys, "judge", path, "--strict"), path, *words)


def test_without_strict_bad_rows_are_counted_and_left_out(capsys, problems):
    config = get_config().data
    config.path = str(problems([ECHO, ECHO | {"prompt": 3}]))
    assert len(sources.load_problems(config, "train")) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and "row 1" in told[0] and "left out 1 bad rows" in told[1]


def snapshot(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def run(tmp_path):
    """A folder in which a run of `run_kit` was started."""
    run_kit.start(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("command", ["train", "sft"])
def test_a_folder_with_something_in_it_is_left_alone(capsys, run, command):
    before = snapshot(run)
    line = refuse(capsys, command, HERE, "--run.folder", run)
    has(line, run, "not empty", "--run.folder")
    if command == "train":
        has(line, "--run.resume")
    assert snapshot(run) == before


def test_a_run_of_another_config_is_left_alone(capsys, run):
    before = snapshot(run)
    flags = ["--run.folder", run, "--run.resume"]
    line = refuse(capsys, "train", HERE, *flags, "--ppo.kl_coef", "0.3")
    has(line, "ppo.kl_coef", run, "0.02", "0.3")
    has(refuse(capsys, "train", HERE, *flags, "--run.seed", "5"), "run.seed", "5")
    assert snapshot(run) == before


def test_nothing_to_resume(capsys, tmp_path):
    folder = tmp_path / "none"
    line = refuse(capsys, "train", HERE, "--run.folder", folder, "--run.resume")
    has(line, folder, "--run.resume")
    assert not folder.exists()


@pytest.mark.parametrize("command", ["train", "sft"])
def test_a_folder_that_cannot_be_written(capsys, tmp_path, command):
    (tmp_path / "file").write_text("mine")
    folder = tmp_path / "file" / "run"
    has(refuse(capsys, command, HERE, "--run.folder", folder), folder, "--run.folder")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", ["evaluate", "sample"])
def test_runs_that_cannot_be_looked_at(capsys, tmp_path, run, command):
    has(refuse(capsys, command, tmp_path / "nowhere"), tmp_path / "nowhere", "config.json")
    has(refuse(capsys, command, run), run, "--before")
    has(refuse(capsys, command, run, "--step", "7"), run, "7", "none")


def test_a_process_ends_with_the_code(tmp_path):
    """As the shell sees it: one line, code 2."""
    command = [
        sys.executable,
        "-m",
        "stepcoder_jax",
        "judge",
        str(tmp_path / "absent.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("stepcoder judge: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_true(capsys, command):
    target = [HERE] if command in ("train", "sft") else []
    with pytest.raises(SystemExit) as stop:
        main([command, *target, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    line = next(
        line for line in USAGE.splitlines() if f"stepcoder {command} " in line + " "
    )
    for flag in re.findall(r"--[a-z][a-z_]*(?![\w.])", line):
        assert flag in text, flag
    if target:
        assert "--cccs.threshold" in text and "--model.checkpoint" in text


# JAX_PLATFORMS on a machine that has processors alone -> what the line must name.
PLATFORMS = {
    "cuda": ["JAX_PLATFORMS=cuda:", "no such device"],
    "cuda,cpu": ["JAX_PLATFORMS=cuda,cpu:", "no cuda device", "would run on cpu"],
    "nonsense": ["JAX_PLATFORMS=nonsense:", "no such device", "nonsense"],
}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_platform_that_is_not_there(tmp_path, platform):
    """In a process of its own, since JAX looks once."""
    command = [sys.executable, "-m", "stepcoder_jax", "train", HERE, "--run.folder", "run"]
    env = {**os.environ, "JAX_PLATFORMS": platform, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    line = done.stderr.splitlines()[-1]  # libraries of an accelerator may say more above
    assert done.returncode == 2 and "Traceback" not in done.stderr
    has(line, "stepcoder train: ", *PLATFORMS[platform], "JAX_PLATFORMS=cpu")
    assert not any(tmp_path.iterdir())


CHEAP = {
    "typo": ["train", HERE, "--run.seeed", "1"],
    "file": ["train", HERE, "--data.path", "nowhere.json"],
    "model": ["sft", HERE, "--model.checkpoint", "nowhere"],
    "url": ["evaluate", "gs://x"],
    "flag": ["sample", "nowhere", "--stepp", "1"],
}


def test_cheap_checks_come_before_jax_is_loaded(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(Path(HERE).parent)!r})\n"
        "from stepcoder_jax.__main__ import main\n"
        f"codes = [main(argv) for argv in {list(CHEAP.values())!r}]\n"
        "print(codes, sorted({'jax', 'flax', 'transformers'} & set(sys.modules)))"
    )
    experiment = tmp_path / "mine.py"
    experiment.write_text(
        "from stepcoder_jax.config import Config\ndef get_config(arg=''): return Config()\n"
    )
    code = code.replace(repr(HERE), repr(str(experiment)))  # HERE itself imports JAX
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[2, 2, 2, 2, 2] []\n", done.stderr
    assert done.stderr.count("\n") == 5


def test_doctor_names_versions_devices_and_isolation(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for word in (
        "versions",
        "python",
        "jax",
        "devices",
        "isolation",
        "level L",
        "landlock",
    ):
        assert word in text
