"""What each launcher prints, refuses and runs: dry runs, one line for bad input."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stepcoder_jax.cli.experiment import parse_config
from stepcoder_jax.runs.disk.preflight import refuse_urls
from tests.launch.kit import LAUNCH, StandIns

SCRIPTS = sorted(LAUNCH.glob("*.sh"))
GPU, TPU, SLURM, LOCAL, HOST = (
    LAUNCH / f"{name}.sh"
    for name in ("gpu_node", "tpu_pod", "slurm", "local_multiprocess", "on_host")
)
POD = ("--name", "pod", "--zone", "z-a")
# An argument that a careless script would split or expand.
ODD = "--run.folder=my runs/$HOME/*"


@pytest.fixture
def stand_ins(tmp_path):
    return StandIns(tmp_path)


def settings_of(line):
    """The variables of a printed command, and its words."""
    words = shlex.split(line)
    words = words[words.index("env") + 1 :]
    count = next(i for i, word in enumerate(words) if not re.match(r"[A-Z_]+=", word))
    return dict(word.split("=", 1) for word in words[:count]), words[count:]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_parses_and_explains_itself(script, stand_ins):
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert os.access(script, os.X_OK)
    shown = stand_ins.run(script, "--help")
    assert shown.returncode == 0 and shown.stdout.count("usage:") == 1
    for option in ("--dry-run", f"launch/{script.name}"):
        assert option in shown.stdout
    assert max(map(len, script.read_text().splitlines())) <= 100


def test_shellcheck_finds_nothing():
    program = shutil.which("shellcheck", path=Path(sys.executable).parent)
    program = program or shutil.which("shellcheck")
    if program is None:
        pytest.skip("no shellcheck: pip install -e '.[dev]'")
    run = subprocess.run(
        [program, "-x", *map(str, SCRIPTS)],
        cwd=LAUNCH.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout


def test_gpu_command_and_settings(stand_ins):
    dry = stand_ins.run(GPU, "--dry-run", "train", "a.py", ODD)
    first, told, again = dry.stdout.splitlines()
    command = ["python", "-m", "stepcoder_jax", "train", "a.py", ODD]
    latency = "--xla_gpu_enable_latency_hiding_scheduler=true"
    assert settings_of(first) == (
        {
            "JAX_PLATFORMS": "cuda,cpu",
            "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92",
            "XLA_FLAGS": latency,
        },
        command,
    )
    assert told == "# after exit code 75, at most 2 times:"
    assert settings_of(again)[1] == [*command, "--run.resume", "auto"]
    stand_ins.env |= {"XLA_FLAGS": "--mine", "JAX_PLATFORMS": "cpu"}
    (line,) = stand_ins.run(GPU, "--dry-run", "--tries", "1", "train").stdout.splitlines()
    settings, _ = settings_of(line)
    assert settings["JAX_PLATFORMS"] == "cpu"
    assert settings["XLA_FLAGS"] == f"--mine {latency}"


def test_local_commands_say_who_is_who(stand_ins):
    dry = stand_ins.run(LOCAL, "--dry-run", "--port", "4000", "2", "train", ODD)
    lines = dry.stdout.splitlines()
    assert lines[0].startswith("#") and len(lines) == 3
    for number, line in enumerate(lines[1:]):
        settings, words = settings_of(line)
        assert settings == {
            "STEPCODER_DISTRIBUTED": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "4000",
            "WORLD_SIZE": "2",
            "RANK": str(number),
            "LOCAL_WORLD_SIZE": "2",
            "LOCAL_RANK": str(number),
        }
        assert words == ["python", "-m", "stepcoder_jax", "train", ODD]


def test_what_slurm_runs_is_what_was_shown(stand_ins):
    words = ("--nodes", "2", "--gpus", "4", "train", "a.py", ODD)
    shown = stand_ins.run(SLURM, "--dry-run", *words).stdout.splitlines()
    assert stand_ins.run(SLURM, *words).returncode == 0
    assert stand_ins.read("sbatch") == shlex.split(shown[0])[1:]
    assert "--gpus-per-node=4" in stand_ins.read("sbatch")
    (step,) = stand_ins.read("calls")
    assert step == " ".join(shlex.split(shown[2]))
    assert stand_ins.read("starts") == [f"train a.py {ODD}"]


def test_what_the_hosts_of_a_slice_are_told(stand_ins):
    flags = (*POD, "--project", "p q", "--folder", "my dir", "--dry-run")
    dry = stand_ins.run(TPU, "start", *flags, "train", "a.py", ODD)
    words = shlex.split(dry.stdout)
    ssh = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "pod", "--zone=z-a", "--quiet"]
    assert words[:-1] == [*ssh, "--project=p q", "--worker=all"]
    told = shlex.split(words[-1].removeprefix("--command="))
    assert told == ["my dir/launch/on_host.sh", "start", "train", "a.py", ODD]
    dry = stand_ins.run(HOST, "--dry-run", *told[1:])
    settings, command = settings_of(dry.stdout)
    assert settings == {"STEPCODER_DISTRIBUTED": "1"}
    assert command[1:] == ["-m", "stepcoder_jax", "train", "a.py", ODD]


@pytest.mark.parametrize(
    ("verb", "words", "verbs"),
    [
        ("create", ("--type", "v5p-8", "--spot"), ["create", "describe"]),
        ("push", ("--dirty",), ["scp", "ssh"]),
        ("install", (), ["ssh"]),
        ("logs", ("--follow", "--worker", "3"), ["ssh"]),
        ("status", (), ["describe", "ssh"]),
        ("stop", (), ["ssh"]),
        ("delete", (), ["delete"]),
        (
            "run",
            ("--type", "v6e-8", "--dirty", "train", "a.py"),
            [
                *("create", "describe", "scp", "ssh", "ssh", "ssh"),  # up to its start
                *("describe", "ssh", "describe"),  # waiting
                *("ssh", "delete", "create", "describe", "scp", "ssh", "ssh"),
            ],
        ),
    ],
)
def test_a_dry_run_of_each_verb_prints_all_and_does_nothing(stand_ins, verb, words, verbs):
    dry = stand_ins.run(TPU, verb, *POD, "--dry-run", *words)
    assert dry.returncode == 0 and not dry.stderr
    lines = [shlex.split(line) for line in dry.stdout.splitlines() if line[0] != "#"]
    assert [line[4] for line in lines if line[0] == "gcloud"] == verbs
    assert not stand_ins.read("calls")
    if verb == "create":
        kind = {"--accelerator-type=v5p-8", "--runtime-version=v2-alpha-tpuv5", "--spot"}
        assert kind <= set(lines[0])


@pytest.mark.parametrize(
    ("script", "arguments", "told"),
    [
        (GPU, (), "expected a command such as 'train EXPERIMENT'"),
        (GPU, ("--dryrun", "train"), "unknown option --dryrun"),
        (GPU, ("--tries", "0", "train"), "--tries: expected a whole number of at least 1"),
        (GPU, ("--tries", "-1", "train"), "--tries needs a value"),
        (LOCAL, (), "expected the number of processes first"),
        (LOCAL, ("train",), "N, the number of processes: expected a whole number"),
        (LOCAL, ("0", "train"), "N, the number of processes: expected a whole number"),
        (LOCAL, ("2",), "expected a command"),
        (
            LOCAL,
            ("--port", "65535", "2", "train"),
            "--port: expected a port from 1 to 65534",
        ),
        (SLURM, (), "expected a command"),
        (SLURM, ("--nodes", "two", "train"), "--nodes: expected a whole number"),
        (SLURM, ("--time", "noon", "train"), "--time: expected a limit such as 90"),
        (SLURM, ("--sbatch", "qos", "train"), "--sbatch needs an option of sbatch"),
        (SLURM, ("--signal", "0", "train"), "--signal: expected a whole number"),
        (TPU, (), "expected create, push,"),
        (TPU, ("train",), "expected create, push,"),
        (TPU, ("start", "--zone", "z", "train"), "--name is missing"),
        (TPU, ("start", "--name", "n", "train"), "--zone is missing"),
        (TPU, ("start", *POD), "expected a command"),
        (TPU, ("start", "--name"), "--name needs a value"),
        (TPU, ("start", "--name", "--zone", "z"), "--name needs a value"),
        (TPU, ("start", *POD, "--worker=0", "train"), "unknown option --worker=0"),
        (TPU, ("create", *POD), "--type is missing"),
        (TPU, ("run", *POD, "train"), "--type is missing"),
        (TPU, ("stop", *POD, "train"), "stop takes no command, got 'train'"),
        (TPU, ("stop", *POD, "--wait", "x"), "--wait: expected a whole number"),
        (HOST, (), "expected install, start, status, stop or logs"),
        (HOST, ("start",), "expected a command"),
        (HOST, ("stop", "soon"), "stop: seconds: expected a whole number"),
    ],
)
def test_errors_are_one_line_with_code_2(script, arguments, told, stand_ins):
    shown = stand_ins.run(script, *arguments)
    assert shown.returncode == 2 and shown.stdout == ""
    assert shown.stderr.startswith(f"{script.name}: {told}"), shown.stderr
    assert len(shown.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("script", "missing", "words", "told"),
    [
        (GPU, "nvidia-smi", ("train",), "no NVIDIA driver here"),
        (GPU, "python", ("train",), "no 'python' on PATH"),
        (LOCAL, "python", ("2", "train"), "no 'python' on PATH"),
        (SLURM, "sbatch", ("train",), "no 'sbatch' on PATH"),
        (TPU, "gcloud", ("delete", *POD), "no 'gcloud' on PATH"),
    ],
)
def test_a_missing_program_is_named(script, missing, words, told, stand_ins):
    programs = Path(stand_ins.env["TRAINER"]).parent
    (programs / missing).unlink()
    for name in ("bash", "env", "dirname"):
        found = (Path(place) / name for place in os.environ["PATH"].split(":"))
        (programs / name).symlink_to(next(path for path in found if path.exists()))
    stand_ins.env["PATH"] = str(programs)
    shown = stand_ins.run(script, *words)
    assert shown.returncode == 2 and told in shown.stderr, shown.stderr
    flags = (words[0], "--dry-run", *words[1:]) if script == TPU else ("--dry-run", *words)
    assert stand_ins.run(script, *flags).returncode == 0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_examples_of_the_help_are_commands_that_work(script, stand_ins):
    """Each example's dry run, and its stepcoder command up to the start of JAX."""
    shown = stand_ins.run(script, "--help").stdout.replace("\\\n", " ")
    example = rf"^  (?:JAX_PLATFORMS=cpu )?launch/{script.name} (.+)$"
    examples = re.findall(example, shown, re.MULTILINE)
    assert examples
    for line in examples:
        words = shlex.split(line)
        place = 1 if script == TPU else 0  # after the verb
        dry = stand_ins.run(
            script, *words[:place], "--dry-run", *("--dirty",) * place, *words[place:]
        )
        assert dry.returncode == 0, dry.stderr
        command = words[words.index("train") :]
        refuse_urls(command)
        config = parse_config("train", [str(LAUNCH.parent / command[1]), *command[2:]])
        assert config.run.folder


def test_gpu_script_runs_the_real_program():
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHON": sys.executable}
    shown = subprocess.run(
        [str(GPU), "judge", "--help"], env=env, capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert "--execution.workers" in shown.stdout
