"""Run folders that are whole, old, half-written, foreign or empty."""

import json

import pytest
from benchmarks.report_speed import make_run

from stepcoder_jax.records import InputError
from stepcoder_jax.report import reading


def read(folder, name="a"):
    notes = []
    return reading.read_run(folder, name, notes), notes


def rollouts(run):
    notes = []
    return list(reading.iter_rollouts(run, notes)), notes


def test_a_whole_run_has_no_notes(tmp_path):
    run, notes = read(make_run(tmp_path / "a", 3, 4))
    assert notes == [] and len(run.metrics) == 3 and run.config["ppo.clip_eps"] == 0.2
    places, values = run.series(["validation/pass@1"])["validation/pass@1"]
    assert places.tolist() == [0, 1] and values[0] == 0.1  # start.json is before step 0
    found, notes = rollouts(run)
    assert notes == [] and [step for step, _ in found] == [0] * 4 + [1] * 4 + [2] * 4


def test_empty_and_foreign_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    run, notes = read(tmp_path / "empty")
    assert not run.metrics and not run.rollouts and not run.config
    assert [note.partition(": ")[2][:11] for note in notes] == [
        *("no config o", "no metrics.", "no rollouts")
    ]
    foreign = tmp_path / "foreign"
    (foreign / "rollouts").mkdir(parents=True)
    (foreign / "config.json").write_text('{"config": [1]}')
    (foreign / "start.json").write_text("[]")
    (foreign / "metrics.jsonl").write_text('[1]\n{"loss": 2}\n{"step": 1, "kl": "high"}\n')
    (foreign / "rollouts" / "last.jsonl").write_text("{}")
    (foreign / "rollouts" / "7.jsonl").write_text('{"a": 1}\n[]\n' + "[" * 9999 + "\n")
    run, notes = read(foreign)
    assert run.metrics == [{"step": 1}] and "2 rows have no step" in notes[1]
    found, notes = rollouts(run)
    assert not found and len(notes) == 1
    assert "7.jsonl: line 1: field problem" in notes[0] and "and 2 more" in notes[0]
    with pytest.raises(InputError, match="RUN: expected a folder"):
        read(tmp_path / "nowhere")


def test_numbers_that_no_run_has(tmp_path):
    folder = make_run(tmp_path / "a", 1, 4)
    lines = [{"step": 10**400, "kl": 1}, {"step": -1}, {"step": 0, "kl": 10**400, "a": 1}]
    text = "".join(json.dumps(row) + "\n" for row in lines)
    (folder / "metrics.jsonl").write_text(text + '{"step": 1, "kl": NaN, "b": 1e999}\n')
    run, notes = read(folder)
    assert run.metrics == [{"step": 0, "a": 1}, {"step": 1}]
    assert "2 rows have no step" in notes[0]
    file = folder / "rollouts" / "0.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row, reward in zip(rows, (float("nan"), float("inf"), "1", None)):
        row["reward"] = reward
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, notes = rollouts(run)
    assert not found and "field reward: expected a number" in notes[0]


def test_a_run_that_is_being_written(tmp_path):
    folder = make_run(tmp_path / "a", 2, 3)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "kl"')
    whole = (folder / "rollouts" / "1.jsonl").read_text()
    (folder / "rollouts" / "2.jsonl.part").write_text(whole)
    (folder / "rollouts" / "1.jsonl").write_text(whole[: len(whole) // 2])
    (folder / "config.json").write_text("{")
    run, notes = read(folder)
    assert len(run.metrics) == 2 and [step for step, _ in run.rollouts] == [0, 1]
    assert any("config.json: cannot be read" in note for note in notes)
    found, notes = rollouts(run)
    assert 3 <= len(found) < 6 and "not valid JSON" in notes[0]
    rows = (folder / "metrics.jsonl").read_text().split("\n")
    (folder / "metrics.jsonl").write_text("\n".join(["{", *rows]))
    run, notes = read(folder)
    assert run.metrics == [] and any("line 1: expected a JSON object" in x for x in notes)
    assert len(rollouts(run)[0]) == len(found)  # the rest is still there


def test_rows_of_older_runs_and_bad_ones(tmp_path):
    folder = make_run(tmp_path / "a", 1, 5)
    file = folder / "rollouts" / "0.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for name in ("difficulty", "shown", "rewards", "logprobs", "values"):
        del rows[0][name]
    rows[1]["values"] = rows[1]["values"][1:]
    rows[2]["spans"][0] = [5, 2]
    rows[3]["verdict"] = "<b>"
    rows[4]["advantages"][0] = float("nan")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, notes = rollouts(read(folder)[0])
    assert [row for _, row in found] == rows[:1]
    assert "field values" in notes[0] and "and 3 more" in notes[0]


def test_rollouts_are_chosen_evenly(tmp_path):
    runs = [read(make_run(tmp_path / x, 10, 4), x)[0] for x in "ab"]
    notes = []
    assert reading.choose_files(runs, 80, notes) == runs and notes == []
    some = reading.choose_files(runs, 24, notes)
    assert [[step for step, _ in run.rollouts] for run in some] == [[0, 4, 9]] * 2
    assert notes == [
        "rollouts of 6 iterations are shown, evenly chosen of 20 (--rollouts 24)"
    ]
    assert not any(run.rollouts for run in reading.choose_files(runs, 0, []))
    (tmp_path / "a" / "rollouts" / "3.jsonl").unlink()
    notes = []
    reading.choose_files([read(tmp_path / "a")[0]], 99, notes)
    assert notes == ["iterations with rollouts (run.rollouts_every): a 9 of 10"]


def test_runs_of_different_benchmarks_are_named(tmp_path):
    runs = [read(make_run(tmp_path / x, 1, 1), x)[0] for x in "abc"]
    notes = []
    reading.compare_benchmarks(runs, notes)
    assert notes == []
    runs[2].tree["data"]["path"] = "elsewhere"
    reading.compare_benchmarks(runs, notes)
    assert len(notes) == 1 and "different benchmarks: data.path" in notes[0]
    assert "elsewhere in c" in notes[0]
