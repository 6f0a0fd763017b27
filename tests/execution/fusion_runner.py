"""Runs the code of SandboxFusion requests inside the judge's own sandbox.

A program of its own, started by fusion_server.py: one JSON request per line in, one JSON
answer per line out. All layers of the sandbox are on; what is open beside a Pool's is one
folder per runner, for the files that the API brings and fetches.
"""

import base64
import json
import math
import os
import pathlib
import resource
import select
import shutil
import signal
import site
import stat
import struct
import sys
import tempfile
import time

from stepcoder_jax.execution.sandbox import landlock
from stepcoder_jax.execution.sandbox.confinement import Sandbox
from stepcoder_jax.execution.sandbox.layout import find_layout

_MEMORY, _OUTPUT, _PIPE = 2 << 30, 64 << 20, 1 << 20
# read file and folder, write, remove and make files, truncate
_RIGHTS = 1 << 2 | 1 << 3 | 1 << 1 | 1 << 5 | 1 << 8


def serve() -> None:
    """Answer requests until standard input ends; argument: the slot of the sandbox."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fusion"))
    try:
        sandbox = Sandbox(int(sys.argv[1]), (), find_layout())
        sandbox.prepare()
        open_folder(sandbox, folder)
        site.setquit()  # which -S leaves out
        for line in sys.stdin:
            print(json.dumps(answer(sandbox, folder, json.loads(line))), flush=True)
    finally:
        shutil.rmtree(folder)


def open_folder(sandbox: Sandbox, folder: pathlib.Path) -> None:
    """Let the sandboxed code read and write below `folder`, and nowhere else."""
    folder.chmod(stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO)
    if sandbox.ruleset < 0:
        return
    rights = _RIGHTS | (1 << 14 if sandbox.landlock_abi >= 3 else 0)
    target = os.open(folder, os.O_PATH)
    rule = struct.pack("=Qi", rights, target)
    landlock._syscall(landlock._ADD_RULE, sandbox.ruleset, 1, rule, 0)
    os.close(target)


def answer(sandbox: Sandbox, folder: pathlib.Path, request: dict) -> dict:
    """What SandboxFusion's run_code returns."""
    place = pathlib.Path(tempfile.mkdtemp(dir=folder))
    place.chmod(stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO)
    for name, data in request["files"].items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(data))
    streams = [os.memfd_create(name) for name in ("in", "out", "err")]
    try:
        result = run(sandbox, place, request, streams)
        fetched = [place / name for name in request["fetch_files"]]
        files = {
            path.name: base64.b64encode(path.read_bytes()).decode()
            for path in fetched
            if path.is_file() and not path.is_symlink()
        }
    finally:
        for stream in streams:
            os.close(stream)
        shutil.rmtree(place)
    good = result["status"] == "Finished" and result["return_code"] == 0
    return {
        "status": "Success" if good else "Failed",
        "message": "",
        "compile_result": None,
        "run_result": result,
        "files": files,
    }


def run(sandbox, place: pathlib.Path, request: dict, streams: list[int]) -> dict:
    """Fork, wait at most run_timeout seconds, kill, reap."""
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        become_program(sandbox, place, request, streams)
    pidfd = os.pidfd_open(pid)
    ended = select.select([pidfd], [], [], request["run_timeout"])[0]
    os.close(pidfd)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    said = [os.pread(fd, _PIPE, 0).decode("utf-8", "replace") for fd in streams[1:]]
    return {
        "status": "Finished" if ended else "TimeLimitExceeded",
        "execution_time": time.monotonic() - started,
        "return_code": os.waitstatus_to_exitcode(status) if ended else None,
        "stdout": said[0],
        "stderr": said[1],
    }


def become_program(sandbox, place: pathlib.Path, request: dict, streams: list[int]) -> None:
    """Be as a fresh interpreter that runs the code in `place`; never returns."""
    try:
        os.setsid()
        os.chdir(place)
        seconds = math.ceil(request["run_timeout"]) + 1
        sandbox.enter(seconds, _MEMORY, _OUTPUT)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        for name in [name for name in sys.modules if name.startswith("stepcoder_jax")]:
            del sys.modules[name]  # the uploaded ones are meant
        exec(compile(request["code"], "code.py", "exec"), {"__name__": "__main__"})
        os._exit(0)
    except BaseException as error:
        os.write(2, repr(error).encode())
    finally:
        os._exit(1)


if __name__ == "__main__":
    serve()
