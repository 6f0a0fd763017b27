"""Stand-ins on PATH for what a launcher calls: they note it, fail and come back by a plan.

A trainer is `python -m stepcoder_jax ...`. Each start (of several at once: each process)
takes the next word of the file `plan`: an exit code, `long` (until SIGTERM, then 75),
`crash` (killed, no code), or `taken` (its slice goes). The last word holds for all later.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from experiments.benchmarks import host_runs

LAUNCH = Path(__file__).parents[2] / "launch"

TRAINER = """#!/bin/bash
[[ "$2" == stepcoder_jax ]] || exit 0
shift 2
home="${HOST:-$STATE}"
echo "$*" >>"$home/starts"
read -ra plan <"$STATE/plan"
start="$(wc -l <"$home/starts")"
if [[ -n "$RANK" ]]; then start=$((RANK + 1)); fi # they are at once
word="${plan[$((start - 1))]:-${plan[-1]}}"
case "$word" in
  long)
    "$SLEEP" 100 &
    trap "kill $!; exit 75" TERM INT
    echo >>"$home/ready"
    wait
    ;;
  crash) kill -KILL "$PPID"; kill -KILL $$ ;;
  taken)
    echo "${plan[@]:1}" >"$STATE/plan" # the starts of the next slice are counted anew
    echo SUSPENDED >"$STATE/slice"
    exit 1
    ;;
  *) echo "ending with $word"; exit "$word" ;;
esac
"""

VENV = """#!/bin/bash
mkdir -p "$3/bin"
cp "$TRAINER" "$3/bin/python"
"""

GCLOUD = r"""#!{python}
import os, pathlib, shutil, subprocess, sys
state = pathlib.Path(os.environ["STATE"])
slice_file, hosts = state / "slice", [state / "host0", state / "host1"]
words = sys.argv[1:]
with open(state / "calls", "a") as calls:
    print(*words[2:5], file=calls)
flags = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
def put(file, text):
    "All or nothing: another of these may be reading it."
    part = file.with_name(f"{{file.name}}.{{os.getpid()}}")
    part.write_text(text)
    part.replace(file)
def text(file):
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        return ""
def left(name):
    "Counts a file down: whether it was above 0."
    number = int(text(state / name) or 0)
    put(state / name, str(number - 1))
    return number > 0
if left("offline"):
    sys.exit("the network is unreachable")
now = text(slice_file)
verb = words[3]
if words[2] == "queued-resources":
    if verb == "create":
        if left("refused"):
            sys.exit("no such type")
        put(slice_file, "WAITING_FOR_RESOURCES")
        for host in hosts:
            host.mkdir()
    elif verb == "delete":
        slice_file.unlink()
        for host in hosts:
            shutil.move(host, state / f"gone{{len(list(state.glob('gone*')))}}")
    elif not now:
        sys.exit("NOT_FOUND: no such queued resource")
    else:
        if now == "WAITING_FOR_RESOURCES":
            now = "FAILED" if left("failing") else "ACTIVE"
            put(slice_file, now)
        print(now)
elif verb == "describe":
    machines = state / "machines"
    print(text(machines) or "READY")
    machines.unlink(missing_ok=True)
elif now != "ACTIVE":
    sys.exit(255)
else:
    assert "--zone" in flags, words
    number = flags["--worker"]
    chosen = hosts if number == "all" else [hosts[int(number)]]
    codes = [0]
    for host in chosen:
        if verb == "scp":
            shutil.copy(words[4], host / words[5].split(":")[1])
        else:
            env = os.environ | {{"HOME": str(host), "HOST": str(host)}}
            run = ["bash", "-c", flags["--command"]]
            codes.append(subprocess.run(run, env=env, cwd=host).returncode)
    sys.exit(max(codes))
"""

SBATCH = """#!/bin/bash
printf '%s\\n' "$@" >"$STATE/sbatch"
for word in "$@"; do case "$word" in --wrap=*) job="${word#--wrap=}" ;; esac; done
export SLURM_JOB_ID=7 SLURM_RESTART_COUNT=0
while :; do
  rm -f "$STATE/requeued"
  bash -c "$job"
  echo "$?" >>"$STATE/codes"
  [[ -e "$STATE/requeued" ]] || break
  SLURM_RESTART_COUNT=$((SLURM_RESTART_COUNT + 1))
done
"""

SRUN = """#!/bin/bash
echo "srun $*" >>"$STATE/calls"
while [[ "$1" == --* ]]; do shift; done
exec "$@"
"""

SCONTROL = """#!/bin/bash
echo "scontrol $*" >>"$STATE/calls"
touch "$STATE/requeued"
"""


def wait_for(condition: Callable[[], object], run: subprocess.Popen | None = None) -> None:
    """Until it holds, while `run`, where there is one, goes on."""
    end = time.monotonic() + 60
    while not condition():
        assert run is None or run.poll() is None, "it has ended"
        assert time.monotonic() < end
        time.sleep(0.02)


class StandIns:
    """A folder of stand-ins, what they have noted, and the launchers run among them.

    A launcher is ended by the kernel where pytest ends before it, however that is: some
    wait for the end of a run in a loop, and nobody waits long among these. `end` ends the
    rest, which may have made sessions of their own: their environment tells them.
    """

    made: ClassVar[list["StandIns"]] = []  # that have not ended

    def __init__(self, folder: Path, plan: str = "0") -> None:
        self.state, programs = folder / "state", folder / "bin"
        self.state.mkdir()
        programs.mkdir()
        self.write("plan", plan)
        texts = {
            "python": TRAINER,
            "python3.13": VENV,
            "gcloud": GCLOUD.format(python=sys.executable),
            "sbatch": SBATCH,
            "srun": SRUN,
            "scontrol": SCONTROL,
            "nvidia-smi": "#!/bin/sh\n",
            # nobody waits long in a test
            "sleep": f"#!/bin/sh\nexec {shutil.which('sleep')} 0.02\n",
        }
        for name, text in texts.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        kept = {x: os.environ[x] for x in ("HOME", "LANG") if x in os.environ}
        self.env = kept | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "STATE": str(self.state),
            "TRAINER": str(programs / "python"),
            "SLEEP": str(shutil.which("sleep")),
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        self.made.append(self)

    def write(self, name: str, text: object) -> None:
        (self.state / name).write_text(f"{text}\n")

    def read(self, name: str) -> list[str]:
        """The lines of a file that the stand-ins have written."""
        try:
            return (self.state / name).read_text().splitlines()
        except FileNotFoundError:  # none yet, or its slice was taken away just now
            return []

    def begin(self, script: Path, *arguments: str) -> subprocess.Popen:
        pipe = subprocess.PIPE
        command = [str(script), *arguments]
        return host_runs.start(command, env=self.env, stdout=pipe, stderr=pipe, text=True)

    def run(self, script: Path, *arguments: str) -> subprocess.CompletedProcess:
        process = self.begin(script, *arguments)
        try:
            said = process.communicate(timeout=120)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, *said)

    @property
    def left(self) -> list[int]:
        """The processes that were started here and are there."""
        mark, found = f"STATE={self.state}".encode(), []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                known = (path / "environ").read_bytes().split(b"\0")
            except OSError:  # ended meanwhile, or another user's
                continue
            if mark in known:
                found.append(int(path.name))
        return found

    def end(self) -> None:
        """Nothing that was started here is there behind this."""
        until = time.monotonic() + 30
        while left := self.left:  # one that is killed may just have started another
            assert time.monotonic() < until, f"they do not end: {left}"
            for number in left:
                try:
                    os.kill(number, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.02)
