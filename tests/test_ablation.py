"""The ablation's arms, and its runner: records, digests, failures, tables."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import ablation
import pytest
from ablation_runner import command, digest, jobs, measure, record, steps, study, table
from ablation_runner.study import Job, Study

from stepcoder_jax.config import Config, ConfigError
from stepcoder_jax.data.formats import own
from stepcoder_jax.data.generated import benchmark, guarded
from stepcoder_jax.records import InputError, Program
from stepcoder_jax.results.drawing import beside
from tests.run_kit import get_config as tiny_config

EXPERIMENT = """
import sys

sys.path.insert(0, {root!r})
from tests import run_kit


def get_config(arg=""):
    config = run_kit.get_config()
    config.run.total_steps, config.evaluation.every = 100, 0  # the end is in tokens
    config.run.total_tokens = 2000
    config.evaluation.every_tokens, config.evaluation.test_problems = 1000, 0
    config.data.path = config.data.validation = config.data.test = {problems!r}
    if arg in ("sft", "raft"):
        config.run.total_tokens, config.evaluation.every_tokens = 0, 0
        config.evaluation.every, config.sft.epochs, config.sft.batch_size = 2, 4, 8
    return config
"""
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    path = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    own.write(benchmark.generate("train", 0, (8, 4, 4)), path)
    return path


@pytest.fixture
def fake(tmp_path, problems):
    """A study in a repository of its own, with a package of one file."""
    home = tmp_path / "repository" / "experiments"
    home.mkdir(parents=True)
    (home.parent / "stepcoder_jax").mkdir()
    (home.parent / "stepcoder_jax" / "a.py").write_text("A = 1\n")
    file = home / "fake.py"
    file.write_text(EXPERIMENT.format(root=str(ROOT), problems=str(problems)))

    def get_config(arm: str) -> Config:
        config = tiny_config()
        config.run.total_steps, config.evaluation.every = 100, 0
        config.run.total_tokens = 2000
        config.evaluation.every_tokens = 1000
        config.data.path = config.data.validation = config.data.test = str(problems)
        return config

    return Study(
        file=file,
        summary="a fake",
        get_config=get_config,
        claimed=("ppo", "cccs"),
        exploratory=("sft", "raft"),
        of_text=("sft", "raft"),
        raft_samples=4,
        comparisons=(("cccs", "ppo"),),
        tried={"ppo": (1e-4, 2e-4)},
        chosen={"ppo": 1e-4},
        plain=("ppo", "plain PPO"),
    )


def test_a_worktree_is_run_with_its_own_package(tmp_path):
    """An installed package would be another one, and the digest that of this one."""
    shutil.copytree(
        ROOT / "experiments" / "ablation_runner", tmp_path / "e" / "ablation_runner"
    )
    shutil.copy(ROOT / "experiments" / "ablation.py", tmp_path / "e")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "e" / "ablation.py"), "table"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2
    assert "not that of " + str(tmp_path) in done.stderr
    assert len(done.stderr.splitlines()) == 1


def fields(arm):
    return digest.fields_of(ablation.get_config(arm))


@pytest.mark.parametrize(
    ("arm", "twin", "changed"),
    [
        ("cccs", "stepcoder", {"fgo.mask"}),
        ("cccs_random_mask", "stepcoder", {"fgo.mask"}),
        ("ppo", "cccs", {"cccs.enabled"}),
        ("random_prefix", "cccs", {"cccs.prefix"}),
        ("adaptive_prefix", "cccs", {"cccs.prefix"}),
        ("half_prefix", "cccs", {"cccs.prefix"}),
        ("fgo", "ppo", {"fgo.mask"}),
        ("cccs_inverse_mask", "stepcoder", {"fgo.mask"}),
        ("ppo_whitened", "ppo", {"ppo.whiten_advantages", "ppo.scale_rewards"}),
        ("random_prefix_fgo", "random_prefix", {"fgo.mask"}),
        ("adaptive_prefix_fgo", "adaptive_prefix", {"fgo.mask"}),
        ("stepcoder_full", "stepcoder", {"cccs.full_fraction"}),
        ("stepcoder_demote", "stepcoder", {"cccs.demote"}),
        ("mixed", "ppo", {"data.difficulties", "data.pool_size"}),
        ("grpo", "ppo", {"algorithm"}),
        ("grpo_stepcoder", "stepcoder", {"algorithm"}),
        ("raft", "sft", set()),
    ],
)
def test_an_arm_differs_in_what_it_is_named_for(arm, twin, changed):
    """Beside the learning rate, which is tuned."""
    ablation.get_config(arm).validate()
    one, other = fields(arm), fields(twin)
    differ = {name for name in one if one[name] != other[name]}
    assert differ - {"ppo.actor.learning_rate"} == changed


def test_every_arm_has_a_rate_and_every_comparison_its_arms():
    assert set(ablation.RATES) == set(ablation.TRIED)
    assert all(ablation.RATES[x] in rates for x, rates in ablation.TRIED.items())
    assert set(ablation.ARMS) == {*ablation.RATES, *ablation.NEAREST}
    assert {x for pair in ablation.COMPARISONS for x in pair} <= set(ablation.CLAIMED)
    assert fields("cccs@0.125")["ppo.actor.learning_rate"] == 0.125
    assert fields("sft@0.125")["sft.learning_rate"] == 0.125
    for arg in ("pop", "ppo@fast"):
        with pytest.raises(ConfigError, match="EXPERIMENT: expected "):
            ablation.get_config(arg)


def test_what_is_right_at_each_part_is_told_by_what_was_given():
    """Nine parts, four given; the sixth has another operation, the last another guard."""
    (problem,) = guarded.generate("train", 3, (0, 0, 1))
    lines = problem.solution.split("\n")
    head, rest = "\n".join(lines[:9]) + "\n", lines[9:]
    wrong = list(rest)
    wrong[3] = "        x //= 999"
    wrong[8] = wrong[8].replace("if 8", "if 7")
    rows = [
        {"problem": problem.id, "head": head, "completion": "\n".join(x)}
        for x in (rest, wrong)
    ]
    config = ablation.get_config("stepcoder")
    found = record.positions(rows, {problem.id: problem}, config)["positions"]
    assert found == {
        "9 parts, 4 given": {
            "programs": 2,
            "guard": [None] * 4 + [1, 1, 1, 1, 0.5],
            "class": [None] * 4 + [1, 0.5, 1, 1, 1],
            "operation": [None] * 4 + [1, 0.5, 1, 1, 1],
        }
    }
    program = Program(problem, head + "\n".join(wrong), 0, ())
    assert measure.positions([problem], [program])["operation"] == [1] * 5 + [0] + [1] * 3


ROWS = [
    {"step": 0, "tokens/generated": 900, "seconds/iteration": 2.0, "fgo/masked": 0.2},
    {"step": 1, "tokens/generated": 1500, "seconds/iteration": 2.0, "fgo/masked": None},
    {"step": 2, "tokens/generated": 2400, "seconds/iteration": 2.0, "fgo/masked": 0.4},
]
PASSES = [None, (0.5, 0.25, 0.1), (0.25, 0.25, 0.2)]
SIZES = ("introductory", "interview", "competition")


def scored(passes, row):
    values = passes or (None,) * 3
    scores = {f"validation/pass@1_{x}": y for x, y in zip(SIZES, values)}
    return {**row, "validation/pass@1": values[0], **scores}


def write_run(places, job, passes=PASSES):
    """What the processes of a run leave: three iterations, two validations."""
    folder = places.folder(job)
    folder.mkdir(parents=True)
    rows = [json.dumps(scored(*pair)) + "\n" for pair in zip(passes, ROWS)]
    (folder / "metrics.jsonl").write_text("".join(rows))
    (folder / "start.json").write_text(json.dumps(scored((0.5, 0.25, 0.0), {})))
    kept = [("pass", 0), ("wrong", 0), ("wrong", 1), ("pass", 0)]
    lines = [json.dumps({"verdict": x, "stage": y, "valid": True}) for x, y in kept]
    (folder / "rollouts").mkdir()
    (folder / "rollouts" / "2.jsonl").write_text("\n".join(lines) + "\n")
    measured = {"best": scored((0.5, 0.25, 0.1), {}), "test": {"test/pass@1": 0.1}}
    places.measured(job).write_text(json.dumps(measured))


class Script:
    """In place of the commands of a run: one that writes what they would, or fails."""

    def __init__(self, monkeypatch):
        self.begun, self.code = [], {}
        monkeypatch.setattr(command, "steps_of", self.steps)

    def steps(self, _, places, job):
        self.begun.append(job.name)
        code = self.code.get(job.name, "")
        yield [sys.executable, "-c", code]
        if not places.folder(job).exists():
            write_run(places, job)
        yield [sys.executable, "-c", ""]


@pytest.fixture
def script(monkeypatch):
    return Script(monkeypatch)


def run(fake, *flags):
    return command.main(fake, ["run", *flags])


def results_of(fake):
    return fake.file.parent / "results" / "fake"


def test_a_finished_run_is_one_file_and_is_not_run_again(fake, script, capfd):
    assert run(fake, "--seeds", "0-1") == 0
    assert script.begun == ["ppo-0", "cccs-0", "ppo-1", "cccs-1"]  # pairs first
    first = json.loads((results_of(fake) / "ppo-0.json").read_text())
    assert first["status"] == "done" and first["budget"] == "tokens"
    assert first["curve"] == {
        "iterations": [0, 2, 3],
        "tokens": [0, 1500, 2400],
        "rollouts": [0, 32, 48],
        "introductory": [0.5, 0.5, 0.25],
        "interview": [0.25, 0.25, 0.25],
        "competition": [0.0, 0.1, 0.2],
    }
    assert first["forgetting"] == {"introductory": 0.25, "interview": 0, "competition": 0}
    assert first["masked"] == {"masked": pytest.approx(0.3)}
    assert [x["iterations"] for x in first["stretches"]] == [2, 3]
    assert [x["fgo/masked"] for x in first["stretches"]] == [0.2, 0.4]
    assert first["stretches"][1]["stage0_pass_rate"] == pytest.approx(2 / 3)
    assert first["stretches"][0]["stage0_pass_rate"] is None
    assert (first["iterations"], first["tokens"], first["seconds"]) == (3, 2400, 6)
    assert first["machine"]["cpu"] and first["peak_memory_mib"] > 0
    assert first["digest"].keys() == {
        *("package", "experiment", "warm start", "problems", "config"),
    }
    assert (
        "run.folder" not in first["config"] and first["config"]["run.total_tokens"] == 2000
    )
    capfd.readouterr()
    assert run(fake, "--seeds", "0-2") == 0
    assert script.begun[4:] == ["ppo-2", "cccs-2"]
    assert "4 of 6 runs are there" in capfd.readouterr().out


def test_a_failed_run_is_named_kept_and_run_again_when_asked(fake, script, capfd):
    script.code["ppo-0"] = "print('it broke'); raise SystemExit(3)"
    assert run(fake, "--seeds", "0") == 1
    told = capfd.readouterr()
    assert "ppo-0: FAILED with exit code 3: it broke" in told.out
    assert "failed: ppo-0; --again runs them again" in told.err
    kept = json.loads((results_of(fake) / "ppo-0.json").read_text())
    assert (kept["status"], kept["exit_code"], kept["last_line"]) == (
        "failed",
        3,
        "it broke",
    )
    assert script.begun == ["ppo-0", "cccs-0"]
    script.code.clear()
    assert run(fake, "--seeds", "0") == 1 and len(script.begun) == 2
    assert command.main(fake, ["table"]) == 0
    told = capfd.readouterr().out
    assert "ppo-0 FAILED with exit code 3 and counts in no mean" in told
    assert "| ppo  | 0 of 8, 1 failed |" in told
    assert run(fake, "--seeds", "0", "--again") == 0 and script.begun[2:] == ["ppo-0"]
    assert json.loads((results_of(fake) / "ppo-0.json").read_text())["status"] == "done"


def test_a_run_whose_folder_cannot_be_read_has_failed(fake, script, capfd):
    script.code["ppo-0"] = ""
    places = steps.Places(fake.root / "runs" / "fake", results_of(fake))
    places.folder(Job("ppo", 0)).mkdir(parents=True)  # no measured.json either
    assert run(fake, "--arms", "ppo", "--seeds", "0") == 1
    kept = json.loads((results_of(fake) / "ppo-0.json").read_text())
    assert kept["status"] == "failed" and "measured.json" in kept["last_line"]


def test_a_signal_stops_the_runs_and_the_same_command_goes_on(fake, script, capfd):
    script.code["ppo-0"] = (
        "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)"
    )
    assert run(fake, "--seeds", "0") == 130
    told = capfd.readouterr()
    assert "ppo-0: stopped; the same command goes on with it" in told.out
    assert "stopping: the runs save what they have" in told.err
    assert script.begun == ["ppo-0"]
    assert [x.name for x in results_of(fake).iterdir()] == ["digest.json"]
    script.code.clear()
    assert run(fake, "--seeds", "0") == 0
    assert script.begun[1:] == ["ppo-0", "cccs-0"]


def test_a_run_that_another_process_is_at_is_left_alone(fake, script, capfd):
    """Two processes in one run's folder would ruin it; the runner of one may be gone."""
    runs = fake.root / "runs" / "fake"
    runs.mkdir(parents=True)
    with (runs / "ppo-0.lock").open("wb") as lock:
        code = "import sys, time; print('ready', flush=True); time.sleep(60)"
        fcntl.flock(lock, fcntl.LOCK_EX)
        other = subprocess.Popen(
            [sys.executable, "-c", code], pass_fds=(lock.fileno(),), stdout=subprocess.PIPE
        )
    try:
        assert other.stdout.readline() == b"ready\n"
        assert run(fake, "--seeds", "0") == 1
    finally:
        other.kill()
        other.communicate()
    assert "ppo-0: is under way in another process; left alone" in capfd.readouterr().out
    assert [path.name for path in results_of(fake).glob("*-0.json")] == ["cccs-0.json"]
    assert run(fake, "--seeds", "0") == 0


def test_a_job_waits_for_what_it_needs_and_is_left_out_where_that_is_lost(capfd):
    records, teacher, self_taught = (Job(x, 0) for x in ("records", "teacher", "self"))
    needs = {teacher: [records], self_taught: [teacher], Job("rl", 0): [Job("lost", 0)]}
    done: list[Job] = []
    waiting = [Job("rl", 0), self_taught, teacher, records, Job("ppo", 0)]

    def take(*active):
        def lacks(job):
            return [x for x in needs.get(job, ()) if x not in done]

        return jobs.take_ready(waiting, active, lacks)

    assert take() == records
    assert "rl-0: left out, for lost-0 is not done" in capfd.readouterr().out
    assert take(records) == Job("ppo", 0)
    assert take(records) is None and waiting == [self_taught, teacher]
    done.append(records)
    assert take() == teacher
    # it has failed: nobody makes it any more
    assert take() is None and waiting == []
    assert "self-0: left out, for teacher-0 is not done" in capfd.readouterr().out


def test_problems_are_read_once_for_all_arms(fake, monkeypatch):
    read, loaded = [], digest.sources.load_problems
    monkeypatch.setattr(
        digest.sources, "load_problems", lambda *of: read.append(of[1]) or loaded(*of)
    )
    digest.parts_of(fake, [fake.get_config("ppo"), fake.get_config("cccs")])
    assert read == list(digest.SPLITS)


def test_another_digest_is_refused_with_the_files_that_differ(fake, script, capfd):
    assert run(fake, "--seeds", "0") == 0
    (fake.root / "README.md").write_text("documents do not count")
    assert run(fake, "--seeds", "0") == 0
    (fake.root / "stepcoder_jax" / "a.py").write_text("A = 2\n")
    (fake.root / "stepcoder_jax" / "b.py").write_text("B = 2\n")
    for argv in (["run", "--seeds", "0"], ["table"]):
        assert command.main(fake, argv) == 2
        said = capfd.readouterr().err
        assert "made from something else: package (a.py, b.py); check out" in said
    assert len(script.begun) == 2
    assert command.main(fake, ["table", "--digest", "as-recorded"]) == 0
    kept = results_of(fake) / "ppo-0.json"
    other = json.loads(kept.read_text())
    other["digest"]["package"] = "0"
    kept.write_text(json.dumps(other))
    assert command.main(fake, ["table", "--digest", "as-recorded"]) == 2
    assert "ppo-0 was made from another package than digest.json" in capfd.readouterr().err


def test_another_config_of_an_arm_is_refused_with_its_fields(fake, script, capfd):
    assert run(fake, "--seeds", "0") == 0

    def get_config(arm):
        config = fake.get_config(arm)
        config.ppo.kl_coef = 0.5
        return config

    assert run(fake._replace(get_config=get_config), "--seeds", "0") == 2
    said = capfd.readouterr().err
    assert "ppo-0 was run with another config: ppo.kl_coef 0.02, now 0.5" in said


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run", "--arms", "pop"], "--arms: there is no arm 'pop'; did you mean ppo?"),
        (["run", "--arms", "nosuch"], "there is no arm 'nosuch'; expected some of ppo, "),
        (["run", "--seeds", "1-x"], "--seeds: expected seeds such as 0-7 or 0,3"),
        (["run", "--seeds", "3-1"], "has no seed"),
        (["run", "--seeds", "0-1000"], "--seeds: expected at most 1000 seeds, got 0-1000"),
        (["run", "--seeds", "9" * 5000], "--seeds: expected at most 9 digits"),
        (["run", "--jobs", "0"], "--jobs: expected 1 to"),
        (["tune", "--arms", "cccs"], "--arms: cccs has no rates of its own"),
        (["table"], "holds no run yet"),
    ],
)
def test_bad_input_is_one_line(fake, capfd, argv, words):
    assert command.main(fake, argv) == 2
    said = capfd.readouterr().err
    assert words in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("flag", ["--results", "--runs"])
def test_a_file_is_no_folder_of_runs(fake, tmp_path, capfd, flag):
    places = {"--results": tmp_path / "results", "--runs": tmp_path / "runs"}
    places[flag] = tmp_path / "file"
    places[flag].write_text("kept")
    argv = ["run", "--arms", "ppo", "--seeds", "0"]
    for name, path in places.items():
        argv += [name, str(path)]
    assert command.main(fake, argv) == 2
    said = capfd.readouterr().err
    assert f"{flag}: {places[flag]} cannot be made (File exists)" in said
    assert places[flag].read_text() == "kept"
    assert not (tmp_path / "results").exists()


def test_results_without_a_digest_are_refused(fake, capfd):
    results_of(fake).mkdir(parents=True)
    (results_of(fake) / "ppo-0.json").write_text("{}")
    assert run(fake, "--seeds", "0") == 2
    assert "is there, and no digest.json" in capfd.readouterr().err


def test_rates_are_tried_on_seeds_that_are_not_reported(fake, script, capfd):
    assert command.main(fake, ["tune"]) == 0
    assert script.begun == [
        f"ppo@{rate}-{seed}" for seed in (100, 101) for rate in ("0.0001", "0.0002")
    ]
    assert "| ppo | 0.0001 |    2 |" in capfd.readouterr().out


def test_seeds_are_named_by_ranges():
    assert study.parse_seeds("0-2,5,1") == [0, 1, 2, 5]


def test_the_steps_of_a_run(fake, tmp_path):
    places = steps.Places(tmp_path / "runs", tmp_path / "results")
    train, measure = steps.steps_of(fake, places, Job("ppo", 3))
    assert train[1:5] == ["-m", "stepcoder_jax", "train", f"{fake.file}:ppo"]
    assert train[5:] == [
        *("--run.seed", "3", "--run.folder", str(tmp_path / "runs" / "ppo-3")),
        *("--run.resume", "auto"),
    ]
    assert measure[2] == str(tmp_path / "runs" / "ppo-3") and measure[-1] == "--test"
    tuned = list(steps.steps_of(fake, places, Job("ppo@0.1", 100)))
    assert "--test" not in tuned[-1]  # seeds that are not reported read no test
    write_run(places, Job("ppo", 3))
    assert len(list(steps.steps_of(fake, places, Job("ppo", 3)))) == 1
    (text, _) = steps.steps_of(fake, places, Job("sft", 0))
    assert text[3] == "sft"


@pytest.mark.parametrize("passed", [True, False])
def test_raft_samples_then_learns_what_passed_if_anything_did(fake, tmp_path, passed):
    places = steps.Places(tmp_path, tmp_path / "results")
    job = Job("raft", 1)
    walk = steps.steps_of(fake, places, job)
    sample = next(walk)
    assert sample[3:5] == ["evaluate", "builtin"] and "4" in sample
    assert len(own.read_problems(str(tmp_path / "raft-1.pool.jsonl"), strict=True)[0]) == 12
    places.samples(job).mkdir()
    rows = [json.dumps({"passed": False}), json.dumps({"passed": passed})]
    (places.samples(job) / "results.jsonl").write_text("\n".join(rows) + "\n")
    (places.samples(job) / "results.json").write_text("{}")
    left = list(walk)
    if passed:
        assert left[0][3] == "sft" and left[0][-2] == "--sft.samples"
        assert left[1][2] == str(places.folder(job))
    else:
        assert len(left) == 1 and left[0][2] == "builtin"
    assert len(list(steps.steps_of(fake, places, job))) == len(left)  # not drawn again


def test_raft_without_a_sample_that_passed_stays_where_it_began(fake, tmp_path):
    places, job = steps.Places(tmp_path, tmp_path / "results"), Job("raft", 0)
    places.measured(job).write_text(json.dumps({"best": scored((0.5, 0.25, 0.1), {})}))
    made = record.make(fake, places, job, {}, jobs.Ended(0, 1.0, 1.0, 1))
    assert made["status"] == "done" and made["nothing_to_learn"]
    (found,) = table.collect([made]).done["raft"].values()
    assert table.measure(found, "tokens", table.Ends(1, 1)) == pytest.approx(0.1)


def made(arm, seed, end, budget="tokens", middle=0.0):
    """A record whose curve of K = 9 is 0, `middle`, `end` at 0, 1000, 2000 tokens."""
    curve = {
        "tokens": [0, 1000, 2000],
        "rollouts": [0, 10, 40 if arm == "cccs" else 20],
        "introductory": [0.5, 0.9, 0.7],
        "interview": [0.0, 0.1, 0.2],
        "competition": [0.0, middle, end],
    }
    if budget == "updates":
        curve["updates"] = [0, 5, 10]
    return {
        "arm": arm,
        "seed": seed,
        "status": "done",
        "budget": budget,
        "commit": "c0ffee",
        "machine": {"cpu": "abacus", "cores": 1, "cores_in_all": 2, "memory_gib": 16.0},
        "config": {"run.total_tokens": 2000},
        "seconds": 120.0,
        "rollouts": curve["rollouts"][-1],
        "curve": curve,
        "forgetting": {"introductory": 0.2},
        "masked": {"masked": 0.1, "masked_wrong": 0.2, "masked_runtime": None},
        "stretches": [{"cccs/mean_stage": 0.5, "stage0_pass_rate": None}],
        "measured": {
            "test": {"test/pass@1_competition": 0.3},
            "last": {"positions": {"operation": [0.9, *[0.25] * 8]}},
        },
    }


def cells(text, first):
    """The cells of each line of the tables that begins with this one."""
    rows = [line.strip("| ").split("|") for line in text.splitlines() if "|" in line]
    return [[x.strip() for x in row][1:] for row in rows if row[0].strip() == first]


def test_the_table_by_hand(fake):
    # means over tokens: (0 + 2 x 0 + end) / 4, so 0, .1, .2 and .1, .2, .6
    records = [made("ppo", seed, end) for seed, end in enumerate((0.0, 0.4, 0.8))]
    records += [made("cccs", seed, end) for seed, end in enumerate((0.4, 0.8, 2.4))]
    records.append(made("cccs", 3, 4.0))  # without its pair
    text = table.describe(fake, records)
    ppo, cccs = cells(text, "ppo")[0], cells(text, "cccs")[0]
    # t(.975, 2) = 4.3027 times .1 / sqrt(3)
    assert ppo[:2] == ["3 of 8", "10.0 [-14.8, 34.8]"]
    assert ppo[3:] == ["70.0", "20.0", "40.0", "30.0", "20", "2.0"]
    assert cccs[0] == "4 of 8"
    by_tokens, by_rollouts = cells(text, "cccs - ppo")
    # differences .1, .1, .4: mean .2, s .17321, half 4.3027 x .1 = .43027; all three of
    # one sign: 2 of 8 patterns
    assert by_tokens == ["3 of 8", "+20.0 [-23.0, +63.0]", "0.250", "0.250", "to 43.0"]
    # over the 20 rollouts that ppo has: cccs is at end / 3 there, its mean end / 12
    means = [end / 12 - other / 4 for end, other in ((0.4, 0.0), (0.8, 0.4), (2.4, 0.8))]
    assert by_rollouts[1].split()[0] == f"{100 * sum(means) / 3:+.1f}"
    assert "- cccs: seeds 4, 5, 6, 7 are missing." in text
    assert "c0ffee; abacus, 1 of 2 cores, 16 GiB" in text
    assert cells(text, "ppo")[1] == ["10.0", "20.0", "-", "-", "0.50", "-", "20.0"]
    assert cells(text, "ppo")[2] == ["90.0", *["25.0"] * 8]


def test_a_difference_is_resolved_by_its_half_width(fake):
    records = [made("ppo", seed, 0.0) for seed in range(8)]
    records += [made("cccs", seed, 0.4 + 0.01 * seed) for seed in range(8)]
    (row, _) = cells(table.describe(fake, records), "cccs - ppo")
    assert (
        row[0] == "8" and row[2:4] == ["0.008", "0.008"] and row[4].startswith("yes, to 0.")
    )


def test_supervised_text_stands_on_its_own_axis(fake):
    records = [made("ppo", 0, 0.4), made("sft", 0, 0.8, budget="updates")]
    (row,) = cells(table.describe(fake, records), "sft (other budget)")
    assert row[:3] == ["1 of 3", "20.0", "-"]


def test_budgets_are_not_mixed():
    other = made("ppo", 1, 0.4) | {"config": {"run.total_tokens": 500}}
    with pytest.raises(InputError, match=r"budgets of \[500, 2000\] tokens"):
        table.collect([made("ppo", 0, 0.4), other])


def test_a_log_ends_with_its_last_words(tmp_path):
    path = tmp_path / "log"
    path.write_text("x" * 9000 + "\nthe end\n\n")
    assert jobs.last_line(path) == "the end"
    assert jobs.last_line(tmp_path / "none") == ""


@pytest.mark.long
def test_real_runs_become_records(fake, capfd):
    """One of RL, and one that learns its own samples, through all of their commands."""
    assert run(fake, "--arms", "ppo", "raft", "--seeds", "0") == 0, capfd.readouterr()
    found = {x["arm"]: x for x in record.read_all(results_of(fake))}
    ppo, raft = found["ppo"], found["raft"]
    curve = ppo["curve"]
    assert curve["tokens"][0] == 0 and curve["tokens"][-1] >= 2000
    assert curve["rollouts"][-1] == ppo["rollouts"] == 16 * ppo["iterations"]
    assert all(0 <= x <= 1 for size in SIZES for x in curve[size])
    assert ppo["measured"]["test"]["problems"] == 16
    assert {"best", "last", "test"} == ppo["measured"].keys()
    assert raft["budget"] == "updates" and raft["curve"]["updates"][-1] > 0
    for _ in range(2):  # what it leaves is no record
        assert command.main(fake, ["table"]) == 0
    assert (results_of(fake) / "curves.png").stat().st_size > 10_000
    others = beside.read(results_of(fake) / "beside.json")
    assert (others.name, others.metric) == ("plain PPO", "validation/pass@1_competition")
    ((seed, tokens, values),) = others.runs
    assert seed == 0 and tokens.tolist() == curve["tokens"]
    assert values.tolist() == curve["competition"]
