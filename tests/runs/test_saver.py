"""Saves beside the run: what is written is the state of when the save began."""

import asyncio
import errno
import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.pytrees import TextState
from stepcoder_jax.runs.disk import checkpoint, loops, seals
from stepcoder_jax.runs.disk.checkpoint import CheckpointError, Saved
from stepcoder_jax.runs.disk.saver import Saver


def saved(step, size=1000):
    """A state that says which step it is of."""
    make = jax.jit(lambda x: x + jnp.arange(size, dtype=jnp.float32))
    state = TextState(jnp.int32(step), {"w": make(step)}, {"mu": make(2.0 * step)})
    return Saved(state, {"best": np.zeros(2)}, {"step": step})


def abstract(state):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state
    )


def newest(folder):
    """What a run would go on from."""
    found, complaints = checkpoint.restore_newest(folder, abstract(saved(0).state), None)
    return found and found.record["step"], complaints


class Gate:
    """Holds a save right before its seal."""

    def __init__(self, patch):
        self.reached, self.opened = threading.Event(), threading.Event()
        seal = seals.seal

        def held(folder):
            self.reached.set()
            assert self.opened.wait(60)
            seal(folder)

        patch.setattr(checkpoint.seals, "seal", held)


def test_the_state_may_be_donated_while_it_is_written(tmp_path, monkeypatch):
    gate, saver, given = Gate(monkeypatch), Saver(), saved(1)
    want = jax.tree.map(lambda x: np.array(x, copy=True), given.state)
    saver.start(lambda: checkpoint.begin(tmp_path, 1, given, keep=1))
    later = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0, tree), donate_argnums=0)
    jax.block_until_ready(later(given.state.trained))
    given.arrays["best"][:] = 7
    assert gate.reached.wait(60)
    assert checkpoint.numbered(tmp_path) == []  # nothing stands there before it is whole
    assert saver.seconds()["seconds/save"] != saver.seconds()["seconds/save"]  # nan
    gate.opened.set()
    saver.wait()
    assert saver.seconds()["seconds/save"] > 0
    assert np.isnan(saver.seconds()["seconds/save"])
    got = checkpoint.restore(tmp_path, 1, abstract(given.state))
    jax.tree.map(np.testing.assert_array_equal, got.state, want)
    np.testing.assert_array_equal(got.arrays["best"], np.zeros(2))


def test_the_next_save_waits_for_the_one_before(tmp_path, monkeypatch):
    gate, saver = Gate(monkeypatch), Saver()
    saver.start(lambda: checkpoint.begin(tmp_path, 1, saved(1), keep=1))
    assert gate.reached.wait(60)
    threading.Timer(0.3, gate.opened.set).start()
    saver.start(lambda: checkpoint.begin_best(tmp_path, 2, saved(2)))
    assert checkpoint.numbered(tmp_path) == [1]
    assert saver.seconds()["seconds/save_blocked"] > 0.2
    saver.wait()
    assert newest(tmp_path) == (1, []) and newest(tmp_path / "best") == (2, [])


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "no room for a checkpoint (No space left on device)"),
        (errno.EROFS, "a checkpoint is not written (Read-only file system)"),
        (errno.EACCES, "a checkpoint is not written (Permission denied)"),
    ],
)
def test_a_save_that_fails_is_told_once_and_the_one_before_stays(
    tmp_path, monkeypatch, code, said
):
    saver = Saver()
    saver.start(lambda: checkpoint.begin(tmp_path, 1, saved(1), keep=1))
    saver.wait()

    def fail(folder):
        raise OSError(code, os.strerror(code), str(folder))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.seals, "seal", fail)
        saver.start(lambda: checkpoint.begin(tmp_path, 2, saved(2), keep=1))
        saver.thread.join()
        with pytest.raises(CheckpointError) as error:
            saver.seconds()  # the next iteration already
    assert said in str(error.value) and "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert newest(tmp_path) == (1, [])
    for name in ("absl", "asyncio", "concurrent.futures"):
        logging.getLogger(name).disabled = False
    saver.start(lambda: checkpoint.begin(tmp_path, 2, saved(2), keep=1))
    saver.wait()
    assert newest(tmp_path) == (2, [])


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 kB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_full(small_disk):
    saver = Saver()
    saver.start(lambda: checkpoint.begin(small_disk, 1, saved(1), keep=1))
    saver.wait()
    with pytest.raises(CheckpointError, match=r"no room for a checkpoint \(No space left"):
        saver.start(lambda: checkpoint.begin(small_disk, 2, saved(2, 10**6), keep=1))
        saver.wait()
    assert newest(small_disk) == (1, [])
    assert [path.name for path in small_disk.iterdir()] == ["1"]
    for name in ("absl", "asyncio", "concurrent.futures"):
        logging.getLogger(name).disabled = False


KILLED = """
import os, signal, sys
from tests.runs.test_saver import *
folder, place = Path(sys.argv[1]), sys.argv[2]
checkpoint.save(folder, 1, saved(1), keep=1)
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if place == "seal":
    checkpoint.seals.seal = kill
elif place == "name":
    checkpoint._put_in_place = kill
saver = Saver()
saver.start(lambda: checkpoint.begin(folder, 2, saved(2, 10**7), keep=1))
while place == "write":
    if list(folder.glob("2.part*")):
        kill()
saver.wait()
"""


@pytest.mark.long
@pytest.mark.parametrize("place", ["write", "seal", "name"])
def test_a_kill_during_a_write_leaves_the_one_before_whole(tmp_path, place):
    command = [sys.executable, "-c", KILLED, str(tmp_path), place]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(tmp_path.glob("2.part*"))  # it was under way
    assert newest(tmp_path) == (1, [])
    checkpoint.save(tmp_path, 2, saved(2), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


ENDED = """
import contextlib, sys
from tests.runs.test_saver import *
folder, kind = Path(sys.argv[1]), sys.argv[2]
checkpoint.save(folder, 1, saved(1), keep=1)
saver = Saver()
with contextlib.ExitStack() as stack:
    stack.push(saver.leave)
    saver.start(lambda: checkpoint.begin(folder, 2, saved(2, 10**7), keep=1))
    if kind:
        raise {"SystemExit": SystemExit(3), "KeyboardInterrupt": KeyboardInterrupt}[kind]
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "code", "left"),
    [("", 0, 2), ("SystemExit", 3, 2), ("KeyboardInterrupt", -2, 1)],
)
def test_a_process_ends_after_its_save_but_for_a_second_ctrl_c(tmp_path, kind, code, left):
    command = [sys.executable, "-c", ENDED, str(tmp_path), kind]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    checkpoint.check(tmp_path, left)
    assert checkpoint.numbered(tmp_path) == [left]
    # nothing of Orbax's threads, which Python leaves without their pools at its end
    assert "RuntimeError" not in done.stderr and "Exception ignored" not in done.stderr


def test_what_ends_a_run_waits_for_its_save(tmp_path, monkeypatch, capsys):
    gate, saver = Gate(monkeypatch), Saver()
    saver.start(lambda: checkpoint.begin(tmp_path, 1, saved(1), keep=1))
    assert gate.reached.wait(60)
    saver.leave(KeyboardInterrupt)
    assert saver.thread is not None and saver.thread.is_alive()  # not waited for
    threading.Timer(0.2, gate.opened.set).start()
    saver.leave(None)
    assert newest(tmp_path) == (1, [])

    def fail(folder):
        raise ValueError("no luck")

    monkeypatch.setattr(checkpoint.seals, "seal", fail)
    saver.start(lambda: checkpoint.begin(tmp_path, 2, saved(2), keep=1))
    saver.leave(RuntimeError)
    assert capsys.readouterr().err == "a save failed, too: no luck\n"


@pytest.mark.parametrize("new_loop", ["asyncio", "uvloop"])
def test_what_cannot_be_read_leaves_no_loop_with_work_in_it(new_loop):
    """A read that fails among others, as Orbax has it: the others end first."""
    ended = []

    async def read(number):
        if not number:
            raise ValueError("torn")
        await asyncio.to_thread(time.sleep, 0.1)
        ended.append(number)

    async def read_all():
        await asyncio.gather(*map(read, range(3)))

    with loops.ending():
        loop = importlib.import_module(new_loop).new_event_loop()
        with pytest.raises(ValueError, match="torn"):
            loop.run_until_complete(read_all())
        assert not ended
        loop.close()
    assert sorted(ended) == [1, 2] and loop.is_closed()
    for name in ("asyncio", "uvloop"):  # as before
        loop = importlib.import_module(name).new_event_loop()
        assert not isinstance(loop, loops.EndingLoop | loops.EndingUVLoop)
        loop.close()
