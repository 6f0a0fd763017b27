"""The launchers: dry runs print what a real run executes; errors say the mend."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from stepcoder_jax.__main__ import parse_config
from stepcoder_jax.runs.disk.preflight import refuse_urls

LAUNCH = Path(__file__).parent.parent / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
GPU, TPU = LAUNCH / "gpu_node.sh", LAUNCH / "tpu_pod.sh"
POD = ("--name", "pod", "--zone", "z-a")
# An argument that a careless script would split or expand.
ODD = "--run.folder=my runs/$HOME/*"

FAKE = """#!/bin/sh
printf '%s\\n' "$0" "$@" "JAX_PLATFORMS=$JAX_PLATFORMS" "XLA_FLAGS=$XLA_FLAGS" \\
  "MEM=$XLA_PYTHON_CLIENT_MEM_FRACTION" "DISTRIBUTED=$STEPCODER_DISTRIBUTED"
"""


@pytest.fixture
def fakes(tmp_path):
    """Return an environment whose python, gcloud and nvidia-smi only tell what they got."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("python", "gcloud", "nvidia-smi"):
        (folder / name).write_text(FAKE)
        (folder / name).chmod(0o755)
    for name in ("bash", "env", "cat", "sh", "rm"):
        found = next(
            Path(place) / name
            for place in os.environ["PATH"].split(":")
            if (Path(place) / name).exists()
        )
        (folder / name).symlink_to(found)
    return {"PATH": str(folder), "HOME": "/nowhere"}


def run(script, *arguments, env):
    return subprocess.run(
        [str(script), *arguments], env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_parses_and_explains_itself(script, fakes):
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert os.access(script, os.X_OK)
    shown = run(script, "--help", env=fakes)
    assert shown.returncode == 0 and shown.stdout.count("usage:") == 1
    for option in ("--dry-run", f"launch/{script.name}"):
        assert option in shown.stdout


@pytest.mark.parametrize(
    ("script", "before"), [(GPU, ()), (TPU, (*POD, "--project", "p q"))], ids=["gpu", "tpu"]
)
def test_dry_run_prints_exactly_what_runs(script, before, fakes):
    arguments = ("train", "experiments/a.py", ODD)
    dry = run(script, *before, "--dry-run", *arguments, env=fakes)
    real = run(script, *before, *arguments, env=fakes)
    assert dry.returncode == real.returncode == 0, dry.stderr + real.stderr
    printed = subprocess.run(
        ["bash", "-c", dry.stdout], env=fakes, capture_output=True, text=True, check=True
    )
    assert printed.stdout == real.stdout
    assert len(dry.stdout.splitlines()) == 1


def test_gpu_command_and_settings(fakes):
    lines = run(GPU, "train", "a.py", ODD, env=fakes).stdout.splitlines()
    assert lines[1:6] == ["-m", "stepcoder_jax", "train", "a.py", ODD]
    assert "JAX_PLATFORMS=cuda,cpu" in lines and "MEM=0.92" in lines
    assert "XLA_FLAGS=--xla_gpu_enable_latency_hiding_scheduler=true" in lines
    own = {**fakes, "XLA_FLAGS": "--mine", "JAX_PLATFORMS": "cpu"}
    lines = run(GPU, "train", env=own).stdout.splitlines()
    assert "JAX_PLATFORMS=cpu" in lines
    assert "XLA_FLAGS=--mine --xla_gpu_enable_latency_hiding_scheduler=true" in lines


def test_tpu_command_on_every_host(fakes):
    lines = run(TPU, *POD, "--folder", "my dir", "train", "a.py", ODD, env=fakes).stdout
    words = lines.splitlines()[1:8]
    assert words[:6] == ["compute", "tpus", "tpu-vm", "ssh", "pod", "--zone=z-a"]
    assert words[6] == "--worker=all"
    remote = next(line for line in lines.splitlines() if line.startswith("--command="))
    assert shlex.split(remote.removeprefix("--command=")) == [
        *("cd", "my dir", "&&", "STEPCODER_DISTRIBUTED=1", "exec"),
        *(".venv/bin/python", "-m", "stepcoder_jax", "train", "a.py", ODD),
    ]


@pytest.mark.parametrize(
    ("script", "arguments", "told"),
    [
        (GPU, (), "gpu_node.sh: expected a command such as 'train EXPERIMENT'"),
        (GPU, ("--dryrun", "train"), "gpu_node.sh: unknown option --dryrun"),
        (TPU, ("--zone", "z", "train"), "tpu_pod.sh: --name is missing"),
        (TPU, ("--name", "n", "train"), "tpu_pod.sh: --zone is missing"),
        (TPU, POD, "tpu_pod.sh: expected a command"),
        (TPU, ("--name",), "tpu_pod.sh: --name needs a value"),
        (TPU, ("--name", "--zone", "z"), "tpu_pod.sh: --name needs a value"),
        (TPU, (*POD, "--worker=0", "train"), "tpu_pod.sh: unknown option --worker=0"),
    ],
)
def test_errors_are_one_line_with_code_2(script, arguments, told, fakes):
    shown = run(script, *arguments, env=fakes)
    assert shown.returncode == 2 and shown.stdout == ""
    assert shown.stderr.startswith(told) and len(shown.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("script", "missing", "before", "told"),
    [
        (GPU, "nvidia-smi", (), "no NVIDIA driver here"),
        (GPU, "python", (), "no 'python' on PATH"),
        (TPU, "gcloud", POD, "no gcloud on PATH"),
    ],
)
def test_a_missing_program_is_named(script, missing, before, told, fakes):
    (Path(fakes["PATH"]) / missing).unlink()
    shown = run(script, *before, "train", env=fakes)
    assert shown.returncode == 2 and told in shown.stderr
    assert run(script, *before, "--dry-run", "train", env=fakes).returncode == 0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_examples_of_the_help_are_commands_that_work(script, fakes, tmp_path):
    """Each example's dry run, and its stepcoder command up to the start of JAX."""
    shown = run(script, "--help", env=fakes).stdout.replace("\\\n", " ")
    examples = re.findall(rf"^  launch/{script.name} (.+)$", shown, re.MULTILINE)
    assert examples
    for example in examples:
        words = shlex.split(example)
        dry = run(script, "--dry-run", *words, env=fakes)
        assert dry.returncode == 0, dry.stderr
        command = words[words.index("train") :]
        refuse_urls(command)
        config = parse_config("train", [str(LAUNCH.parent / command[1]), *command[2:]])
        assert config.run.folder


def test_gpu_script_runs_the_real_program():
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHON": sys.executable}
    shown = run(GPU, "judge", "--help", env=env)
    assert shown.returncode == 0, shown.stderr
    assert "--execution.workers" in shown.stdout
