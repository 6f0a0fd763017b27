"""Who is told beside metrics.jsonl: the same names, steps and numbers."""

import json
import struct
import sys
import types

import pytest

from stepcoder_jax.config import ConfigError
from stepcoder_jax.results.logger import Logger
from stepcoder_jax.tracking import trackers

ROWS = [{"kl": 0.5, "verdict/pass": 0.25, "note": "text"}, {"kl": float("nan"), "n": 3}]
WITHOUT_WANDB = "wandb is not installed (pip install 'stepcoder_jax[wandb]')"


def write(folder, track, rows=ROWS, start_step=0, about=()):
    about = dict(about)
    with Logger(folder, track=track, start_step=start_step, about=about) as logger:
        for step, row in enumerate(rows, start_step):
            logger.write(step, row)


def test_tensorboard_has_the_numbers_of_the_file(tmp_path):
    write(tmp_path, "tensorboard")
    (events,) = (tmp_path / "events").iterdir()
    said = events.read_bytes()
    assert b"verdict/pass" in said and b"kl" in said and b"note" not in said


def test_jsonl_tells_nobody_else(tmp_path):
    write(tmp_path, "jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_without_wandb_it_is_refused_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"^run.track: wandb is not installed; pip ins"):
        trackers.require("wandb")
    trackers.require("tensorboard")
    trackers.require("jsonl")


def test_a_service_that_fails_ends_no_run(tmp_path, monkeypatch, capsys):
    """A stand-in for wandb that loses its connection after the first row."""

    class LostError(Exception):
        pass

    class Run:
        def __init__(self):
            self.rows = []

        def log(self, row, step):
            if step:
                raise LostError("connection lost\nand more")
            self.rows.append((step, row))

        def finish(self):
            raise AssertionError("nobody is there to be told")

    run = Run()
    wandb = types.SimpleNamespace(
        init=lambda **_: run,
        Settings=lambda **_: None,
        errors=types.SimpleNamespace(Error=LostError),
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    write(tmp_path, "wandb", [*ROWS, {"kl": 1}])
    assert run.rows == [(0, {"kl": 0.5, "verdict/pass": 0.25})]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    assert capsys.readouterr().err == (
        "run.track: wandb is told no more (connection lost); metrics.jsonl goes on\n"
    )


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """The real wandb, without a network and a home."""
    wandb = pytest.importorskip("wandb", reason=WITHOUT_WANDB)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return wandb


def records_of(path):
    """The records of a .wandb file: LevelDB's log format, in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    data, place, part = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + 7])
        part += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last piece of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            yield record
            part = b""


def told(folder):
    """(step, name -> value) of each row that wandb kept, over all starts of a run."""
    import wandb

    wandb.teardown()  # its process has written all of it only when it has ended
    for path in sorted((folder / "wandb").glob("offline-*/*.wandb")):
        for record in records_of(path):
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                row = {
                    x.key or "/".join(x.nested_key): json.loads(x.value_json) for x in items
                }
                yield (
                    record.history.step.num,
                    {name: x for name, x in row.items() if not name.startswith("_")},
                )


def test_wandb_offline_has_the_numbers_of_the_file(offline, tmp_path):
    folder = tmp_path / "run"
    trackers.require("wandb")
    write(folder, "wandb", about={"run": {"seed": 7}})
    assert list(told(folder)) == [(0, {"kl": 0.5, "verdict/pass": 0.25}), (1, {"n": 3})]
    name = (folder / "wandb" / "id").read_text().strip()
    write(folder, "wandb", [{"kl": 2}], start_step=2)  # the run goes on
    assert list(told(folder))[2:] == [(2, {"kl": 2})]
    files = list((folder / "wandb").glob("offline-*/*.wandb"))
    assert [path.stem for path in files] == [f"run-{name}"] * 2


def test_wandb_that_cannot_log_in_is_refused_in_a_line(offline, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(ConfigError, match=r"^run.track: wandb does not start \(") as error:
        trackers.require("wandb")
    assert "\n" not in str(error.value) and "WANDB_MODE=offline" in str(error.value)
