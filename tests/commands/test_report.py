"""`stepcoder report`: one file of several runs, and what it says of bad ones."""

import json

from benchmarks.report_speed import make_run

from stepcoder_jax.__main__ import main


def run(*words):
    return main(["report", *map(str, words)])


def refused(capsys, *words):
    assert run(*words) == 2
    said = capsys.readouterr().err
    assert said.startswith("stepcoder report: ") and said.count("\n") == 1
    return said


def test_a_report_of_two_runs(tmp_path, capsys):
    runs = [make_run(tmp_path / name, 3, 5, seed) for seed, name in enumerate("ab")]
    out = tmp_path / "report.html"
    assert run(*runs, "--out", out) == 0
    told = capsys.readouterr()
    assert "30 rollouts of 2 runs" in told.out and told.err == ""
    assert out.read_text().startswith("<!doctype html>")
    assert not list(tmp_path.glob("*.part"))
    # equal runs give equal files
    again = tmp_path / "again.html"
    assert run(*runs, "--out", again) == 0 and again.read_bytes() == out.read_bytes()


def test_what_cannot_be_read_is_said_and_the_rest_shown(tmp_path, capsys):
    good, other = make_run(tmp_path / "good", 2, 3), make_run(tmp_path / "other", 2, 3)
    config = json.loads((other / "config.json").read_text())
    config["config"]["data"]["path"] = "dialect"
    (other / "config.json").write_text(json.dumps(config))
    (tmp_path / "empty").mkdir()
    (good / "rollouts" / "1.jsonl").unlink()
    out = tmp_path / "report.html"
    assert run(good, other, tmp_path / "empty", "--out", out) == 0
    told = capsys.readouterr()
    assert "9 rollouts of 3 runs" in told.out and out.exists()
    said = told.err.splitlines()
    assert [line for line in said if "empty: no metrics.jsonl" in line]
    assert [line for line in said if "different benchmarks: data.path" in line]
    assert [line for line in said if "(run.rollouts_every): good 1 of 2" in line]


def test_rollouts_thinned_away(tmp_path, capsys):
    folder = make_run(tmp_path / "a", 3, 5)
    assert run(folder, "--out", tmp_path / "some.html", "--rollouts", 5) == 0
    told = capsys.readouterr()
    assert "5 rollouts of 1 runs" in told.out and "1 iterations are shown" in told.err
    assert run(folder, "--out", tmp_path / "none.html", "--rollouts", 0) == 0
    assert "0 rollouts of 1 runs" in capsys.readouterr().out


def test_bad_input(tmp_path, capsys):
    folder, out = make_run(tmp_path / "a", 1, 1), tmp_path / "report.html"
    (tmp_path / "empty").mkdir()
    assert "nothing to show" in refused(capsys, tmp_path / "empty", "--out", out)
    assert "one or more folders" in refused(capsys, "--out", out)
    assert "expected a folder" in refused(capsys, tmp_path / "nowhere", "--out", out)
    assert "given twice" in refused(capsys, folder, f"{folder}/", "--out", out)
    assert "--out: expected a file" in refused(capsys, folder)
    assert "0 or more" in refused(capsys, folder, "--out", out, "--rollouts", -1)
    assert "is a folder" in refused(capsys, folder, "--out", tmp_path)
    missing = tmp_path / "missing" / "a.html"
    assert "there is no folder" in refused(capsys, folder, "--out", missing)
    assert not out.exists() and not missing.parent.exists()
    out.write_text("kept")
    assert "--force" in refused(capsys, folder, "--out", out)
    assert out.read_text() == "kept"
    assert run(folder, "--out", out, "--force") == 0 and out.stat().st_size > 9999
