"""Metrics and rollouts on disk: complete rows, resume, JSON that any reader takes."""

import json

import numpy as np
import pytest

from stepcoder_jax.config import ConfigError
from stepcoder_jax.results.logger import Logger, encode_row, read_metrics


def rows(folder):
    return read_metrics(folder / "metrics.jsonl")


def test_one_object_per_iteration_flushed(tmp_path):
    with Logger(tmp_path / "new" / "run", track="jsonl", start_step=0) as logger:
        logger.write(0, {"kl": np.float32(0.5), "n": np.int32(3), "name": "é"})
        # Read while the file is still open: a kill would lose nothing.
        assert rows(tmp_path / "new" / "run") == [
            {"step": 0, "kl": 0.5, "n": 3, "name": "é"}
        ]
        logger.write(1, {"kl": float("nan"), "loss": np.inf})
    text = (tmp_path / "new" / "run" / "metrics.jsonl").read_text()
    assert json.loads(text.splitlines()[1]) == {"step": 1, "kl": None, "loss": None}


def test_resume_removes_the_rows_that_will_be_written_again(tmp_path):
    with Logger(tmp_path, track="jsonl", start_step=0) as logger:
        for step in range(5):
            logger.write(step, {"value": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "val')  # killed while writing
    with Logger(tmp_path, track="jsonl", start_step=3) as logger:
        logger.write(3, {"value": 30})
    assert [(row["step"], row["value"]) for row in rows(tmp_path)] == [
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 30),
    ]


def test_a_bad_line_inside_names_file_and_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\nnonsense\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2: .* got 'nonsense'"):
        Logger(tmp_path, track="jsonl", start_step=0)
    assert "nonsense" in path.read_text(), "nothing is overwritten"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match=r"run.folder: cannot write to .*/file \(.*--run.folder"
    ):
        Logger(tmp_path / "file", track="jsonl", start_step=0)


def test_rollouts_are_written_whole(tmp_path):
    with Logger(tmp_path, track="jsonl", start_step=0) as logger:
        rows = [{"id": "a", "reward": -0.3}, {"id": "b", "mask": [1, 0]}]
        logger.write_rollouts(7, map(encode_row, rows))

        def broken():
            yield encode_row({"id": "c"})
            raise RuntimeError("half way")

        with pytest.raises(RuntimeError):
            logger.write_rollouts(7, broken())
    lines = (tmp_path / "rollouts" / "7.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a", "b"]
