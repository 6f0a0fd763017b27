"""The runner of the self-debugging study: needs of runs, commands, records, tables."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import self_debug
from ablation_runner import jobs, steps
from ablation_runner.study import Job, Study
from self_debug_runner import chain, command, explaining, measures, record, table
from self_debug_runner.scale import Scale

from stepcoder_jax.config import ConfigError
from stepcoder_jax.data.formats import own
from stepcoder_jax.data.generated import dialect, teaching
from stepcoder_jax.data.refinements import (
    RefinementRecord,
    append_refinements,
    read_refinements,
)
from stepcoder_jax.records import Attempt, Variant, Verdict
from stepcoder_jax.runs.experiment import load_experiment
from stepcoder_jax.similarity.embedders import fit_tfidf

ROOT = Path(__file__).parents[1]
EXPERIMENT = """
import sys

sys.path[:0] = [{root!r}, {experiments!r}]
import self_debug
from stepcoder_jax import config as c

OF_TEXT = self_debug.OF_TEXT


def get_config(arg="teacher"):
    config = self_debug.get_config(arg.partition("@")[0])
    config.run.save_every = 100
    if arg in OF_TEXT:
        config.model = c.ModelConfig(checkpoint="dialect")  # writes programs already
        config.sft.epochs, config.sft.batch_size = {epochs}, 16
        config.sft.learning_rate = 4e-3
        return config
    config.run.total_steps = 1
    config.sampling.problems_per_step = 4
    config.ppo.num_micro_batches = config.ppo.num_minibatches = 1
    return config
"""
TINY = Scale(
    {"sft": (40, 0, 0), "train": (8, 0, 0), "test": (4, 2, 0)},
    epochs=1,
    updates=1,
    samples=2,
    contexts=2,
    explanations=2,
    told=("none", "verdict", "random"),
)


@pytest.fixture
def fake(tmp_path):
    """A study in a repository of its own, with a package of one file."""
    home = tmp_path / "repository" / "experiments"
    home.mkdir(parents=True)
    (home.parent / "stepcoder_jax").mkdir()
    (home.parent / "stepcoder_jax" / "a.py").write_text("A = 1\n")
    file = home / "fake.py"
    places = {"root": str(ROOT), "experiments": str(ROOT / "experiments")}
    file.write_text(EXPERIMENT.format(**places, epochs=10))
    return Study(
        file=file,
        summary="a fake",
        get_config=lambda arg: load_experiment(f"{file}:{arg}"),
        claimed=("teacher", "first"),
        exploratory=("rl_tests", "self"),
        comparisons=(("teacher", "first"), ("rl_tests", "teacher")),
        promised=(2, 1),
        of_text=("teacher", "first", "self"),
    )


@pytest.fixture
def plan(fake, tmp_path):
    places = steps.Places(tmp_path / "runs", tmp_path / "results")
    places.runs.mkdir()
    return chain.Plan(fake, {"": TINY, "short": TINY._replace(rounds=1)}, places)


def test_every_arm_builds_and_every_comparison_has_its_arms():
    for arm in self_debug.ARMS:
        self_debug.get_config(arm).validate()
        short, whole = self_debug.get_config(f"{arm}@short"), self_debug.get_config(arm)
        assert (short.sft.epochs, short.run.total_steps) != (
            whole.sft.epochs,
            whole.run.total_steps,
        )
    assert set(self_debug.ARMS) == {*self_debug.OF_TEXT, *self_debug.REWARDS}
    assert {x for pair in self_debug.COMPARISONS for x in pair} <= set(self_debug.ARMS)
    for arg in ("pop", "teacher@", "teacher@long", ""):
        with pytest.raises(ConfigError, match="EXPERIMENT: expected an arm of "):
            self_debug.get_config(arg)


def test_a_run_comes_behind_all_that_it_needs():
    found = chain.with_needs([Job("rl_tests", 1), Job("self", 1), Job("first", 1)])
    assert [job.arm for job in found] == [
        *("records", "teacher", "contexts", "rl_tests", "own_records", "self", "first")
    ]
    assert {job.seed for job in found} == {1}
    short = chain.with_needs([Job("first@short", 0)])
    assert short == [Job("records@short", 0), Job("first@short", 0)]
    assert Job("contexts", 2) in chain.needs_of(Job("explanations", 2))


def words(plan, arm, seed=0):
    """The commands of a run, without Python, and places below runs by their names."""
    found = []
    for step in chain.steps_of(plan, Job(arm, seed)):
        assert step[0] == sys.executable
        cut = step[3:] if step[1] == "-m" else step[1:]
        found.append([x.replace(f"{plan.places.runs}/", "") for x in cut])
    return found


def test_the_commands_of_what_arms_share(plan):
    (records,) = words(plan, "records", 3)
    assert records == [
        *("refine", "dialect", "--problems", "problems-sft.jsonl", "--teacher", "rule"),
        *("--samples-per-problem", "2", "--seed", "3", "--out", "records-3"),
    ]
    kept = own.read_problems(str(plan.places.runs / "problems-sft.jsonl"), strict=True)[0]
    assert kept == TINY.load("sft") and len(kept) == 40
    (contexts,) = words(plan, "contexts")
    assert contexts[1:4] == ["teacher-0", "--problems", "problems-train.jsonl"]
    assert "rule" in contexts
    (taught,) = words(plan, "own_records")
    assert "--teacher" not in taught and taught[1] == "teacher-0"  # itself
    asked, measured = words(plan, "explanations")
    assert asked[asked.index("--wrong") + 1] == "contexts-0/wrong.jsonl"
    assert measured[1] == "explanations-0/records.jsonl"
    assert "--encoder" not in measured
    measured = words(plan._replace(encoder="E"), "explanations")[1]
    assert measured[-2:] == ["--encoder", "E"]


def test_what_was_begun_goes_on_and_what_was_not_judged_begins_anew(plan):
    out = plan.places.folder(Job("records", 0))
    out.mkdir()
    (out / "refine.json").write_text("{}")
    (out / "state.json").write_text(json.dumps({"wrong.jsonl": {"infra": []}}))
    assert words(plan, "records")[0][-1] == "--resume"
    (out / "state.json").write_text(json.dumps({"wrong.jsonl": {"infra": ["a"]}}))
    assert words(plan, "records")[0][-1] == "records-0" and not out.exists()


def answers_to(problem, wrong):
    """A function that makes an answer to the wrong program: its number, whether right."""
    told = Attempt(wrong, Verdict.WRONG, 0, "The program fails this test:\nGot: 7")

    def answer(number, explanation, is_right):
        said = (problem.solution if is_right else wrong, Variant.EXPLAIN, "me", 1)
        ended = (Verdict.PASS, 3) if is_right else (Verdict.WRONG, 2)
        name = f"{problem.id}#{number}"
        source = (problem.id, name, wrong, "me", told, explanation)
        return RefinementRecord(*source, *said, *ended, 3, 0.5, False)

    return answer


def write_records(plan, job, records):
    plan.places.folder(job).mkdir()
    with (plan.places.folder(job) / "records.jsonl").open("w") as file:
        append_refinements(file, records)


def test_the_commands_of_arms(plan):
    answer = answers_to(TINY.load("train")[0], "x")
    rows = [answer(0, "", False), answer(1, "", False), answer(1, "a", True)]
    write_records(plan, Job("contexts", 1), rows)
    train, *asked = words(plan, "rl_tests", 1)
    assert train[:2] == ["train", f"{plan.study.file}:rl_tests"]
    assert train[2:] == [
        *("--run.seed", "1", "--run.resume", "auto", "--run.folder", "rl_tests-1"),
        *("--data.contexts", "contexts-1.mended.jsonl"),
        *("--model.checkpoint", "teacher-1"),
    ]
    # those that nobody has mended are in no arm, for some rewards could not score them
    assert read_refinements([str(plan.places.runs / "contexts-1.mended.jsonl")]) == rows[1:]
    assert [x[-1] for x in asked] == [
        f"rl_tests-1.{x}" for x in ("test", "none", "samples")
    ]
    taught, *asked = words(plan, "self")
    assert taught[-1] == "own_records-0/records.jsonl"
    sft, *asked = words(plan, "teacher")
    assert sft[0] == "sft" and sft[-1] == "records-0/records.jsonl"
    assert [x[-1].partition(".")[2] for x in asked] == [
        *("test", "none", "verdict", "random", "direct", "samples")
    ]
    assert asked[0][2:6] == ["--rounds", "3", "--variant", "explain"]
    assert asked[1][-8:-6] == ["--feedback", "none"]
    assert "4" in asked[-1]  # samples, for three rounds
    whole = plan._replace(scales={"": self_debug.SCALES[""]})
    assert words(whole, "records")[0][2:6] == ["--problems", "dialect", "--split", "sft"]
    assert words(whole, "first")[1][-6:-4] == ["--split", "test"]


def results_of(infra=0, mended=0.5):
    """What is read of a results.json."""
    share = {"value": mended, "low": None, "high": None}
    after = {"pass@1": share, "mended": share, "spoilt": share, "unchanged": share}
    rows = [{"rounds": 1, "rule": "any", "change": 0.1, "low": 0, "high": 0.2, "p": 0.04}]
    refinement = {"ends": {}, "after": [after, after], "equal_budget": {"rows": rows}}
    named = {"model": "m", "samples": 1, "problems_sha256": "0", "left_out": []}
    named |= {"rounds": 1, "variant": "explain", "feedback": "test"}
    return named | {"scores": {"infra": infra}, "refinement": refinement}


def write_evaluation(out, chains, infra=0):
    out.mkdir()
    (out / "results.json").write_text(json.dumps(results_of(infra)))
    rows = [
        {
            "task_id": f"p/{place}",
            "passed": chain_of[-1] == "pass",
            "result": chain_of[-1],
            "rounds": chain_of,
        }
        for place, chain_of in enumerate(chains)
    ]
    (out / "results.jsonl").write_text("".join(json.dumps(x) + "\n" for x in rows))


def test_an_evaluation_that_was_not_judged_whole_is_made_again(plan):
    out = plan.evaluated(Job("first", 0), "test")
    assert not chain.is_evaluated(out)
    write_evaluation(out, [["pass"]], infra=1)
    assert not chain.is_evaluated(out)
    assert len(words(plan, "first")) == 7 and not out.exists()
    write_evaluation(out, [["pass"]])
    assert len(words(plan, "first")) == 6 and out.exists()


def test_chains_are_kept_in_a_letter_an_answer(tmp_path):
    write_evaluation(
        tmp_path / "out", [["pass"], ["wrong", "pass"], ["timeout", "compile"]]
    )
    found = record.evaluated(tmp_path / "out", with_chains=True)
    assert found["chains"] == "1 01 00"
    rounds = [[x.value for x in row.rounds] for row in record.outcomes(found)]
    assert rounds == [["pass"], ["wrong", "pass"], ["wrong", "wrong"]]
    again = record.outcomes(found | {"chains": "1 w 01"})
    assert [row.task for row in again] == ["0", "2"]  # a weak one is in no pair
    assert "chains" not in record.evaluated(tmp_path / "out", with_chains=False)


def made(arm, seed, chains, mended=0.5, **evaluations):
    """A record of an arm."""
    kept = results_of(mended=mended) | {"chains": chains}
    named = {name: kept | {"chains": x} for name, x in evaluations.items()}
    return {
        "arm": arm,
        "seed": seed,
        "status": "done",
        "commit": "c0ffee",
        "machine": {"cpu": "abacus", "cores": 1},
        "updates": 7,
        "learning": {"split/copied": [0.1] * 5 + [0.3] * 5},
        "evaluations": {"test": kept, "samples": results_of(), **named},
    }


def cells(text, first):
    """The cells of each line of the tables that begins with this one."""
    rows = [line.strip("| ").split("|") for line in text.splitlines() if "|" in line]
    return [[x.strip() for x in row][1:] for row in rows if row[0].strip() == first]


def test_the_table_by_hand(fake):
    # both failed the last four; of them teacher mends three of four, first one
    teacher, first = "1 1 01 01 01 00", "1 01 01 00 00 00"
    records = [
        made("teacher", x, teacher, 0.7 + 0.1 * x, none="1 1 00 00 00 01") for x in (0, 1)
    ]
    records += [made("first", x, first, 0.2) for x in (0, 1)]
    records.append(made("rl_tests", 0, "1 1 01 01 01 01"))
    text = table.describe(fake, records)
    arm = cells(text, "teacher")[0]
    assert arm[0] == "2" and arm[2].startswith("75.0 [") and arm[3] == "-"
    over, each = cells(text, "teacher - first")
    assert over[:2] == ["2", "+50.0"]  # equal ones know no spread
    assert each[0].startswith("+50.0 [") and each[0] == each[1]
    over, each = cells(text, "teacher: told the test - told nothing")
    assert over[1] == "+50.0" and each[0].startswith("+50.0 [")
    over, each = cells(text, "teacher: first + refinement - two samples")
    assert over[1] == "+10.0" and each == ["+10.0 [+0.0, +20.0]"] * 2
    assert cells(text, "rl_tests - teacher")[0][:2] == ["1", "+25.0"]
    assert cells(text, "rl_tests - teacher")[1][1] == "-"
    assert cells(text, "rl_tests")[-1][-1] == "10.0 to 30.0"
    assert "- self: seeds 0 are missing." in text
    assert "c0ffee; abacus, 1 cores a run" in text


def test_explanations_are_told_by_encoder(fake):
    def asked(seed, value):
        numbers = {"value": value, "low": value - 0.1, "high": value + 0.1}
        said = {"explanations": 9, "true": 0.5, "wrong_programs": 3, "spearman": numbers}
        unknown = said | {"spearman": dict.fromkeys(numbers)}
        return made("explanations", seed, "1") | {
            "yield": {"problems": 2, "wrong": 4, "mended": 1},
            "answers": 9,
            "encoders": {"TF-IDF": {"its own": said, "reworded": unknown}},
        }

    text = table.describe(fake, [asked(0, 0.2), asked(1, 0.4), made("first", 0, "1")])
    own_ones, reworded = cells(text, "TF-IDF")
    assert own_ones[:2] == ["its own", "2"] and own_ones[2].startswith("0.30 [")
    assert own_ones[3:] == ["50.0", "0.20 [0.10, 0.30]; 0.40 [0.30, 0.50]"]
    assert reworded[1:3] == ["0", "-"] and reworded[4] == "-"
    assert cells(text, "explanations")[0] == ["2", "4", "8", "25.0", "18"]


def test_the_likeness_of_own_explanations_stands_beside_their_truth():
    problem = next(x for x in dialect.load("train") if "introductory" in x.id)
    (wrong,) = dialect.wrong_programs(np.random.default_rng(0), problem, 1)
    true = teaching.explain(problem, wrong)
    answer = answers_to(problem, wrong)
    records = [answer(0, true, True), answer(0, true, True), answer(0, "Who knows?", False)]
    records += [answer(0, "", True), answer(1, true, True)]  # an only one has no siblings
    embed = fit_tfidf([x.explanation for x in records])
    (scores,), (truths,) = explaining.own_scores(records, embed)
    assert scores == pytest.approx([1, 1, 0]) and truths.tolist() == [True, True, False]
    found = explaining.describe([scores], [truths])
    assert found["spearman"]["value"] == pytest.approx(1) and found["explanations"] == 3
    alike = explaining.describe([scores], [truths | True])
    assert alike["spearman"]["value"] is None and alike["true"] == 1
    assert explaining.describe([], []) == {"explanations": 0}


def test_other_problems_are_not_paired(fake):
    other = made("first", 0, "1 00")
    other["evaluations"]["test"]["problems_sha256"] = "1"
    with pytest.raises(
        measures.InputError, match="first-0 and teacher-0 were evaluated on"
    ):
        table.describe(fake, [made("teacher", 0, "1 01"), other])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run", "--arms", "techer"], "there is no arm 'techer'; did you mean teacher?"),
        (["run", "--seeds", "x"], "--seeds: expected seeds such as 0-7 or 0,3"),
        (["run", "--jobs", "0"], "--jobs: expected 1 to"),
        (["run", "--encoder", "nowhere"], "nowhere"),
        (["table"], "holds no run yet"),
    ],
)
def test_bad_input_is_one_line(fake, capfd, argv, words):
    assert command.main(fake, {"": TINY}, argv) == 2
    said = capfd.readouterr().err
    assert words in said and len(said.splitlines()) == 1
    assert not (fake.root / "runs").exists()


def test_a_failed_input_is_named_and_leaves_its_arms_out(fake, monkeypatch, capfd):
    begun = []

    def fail(plan, job):
        begun.append(job.name)
        yield [sys.executable, "-c", "raise SystemExit('no record was made')"]

    monkeypatch.setattr(command, "steps_of", fail)
    argv = ["run", "--arms", "teacher", "rl_tests", "--seeds", "0"]
    assert command.main(fake, {"": TINY}, argv) == 1
    told = capfd.readouterr()
    assert begun == ["records-0"]
    assert "teacher-0: left out, for records-0 is not done" in told.out
    assert "failed: records-0; --again runs them again" in told.err
    assert command.main(fake, {"": TINY}, argv) == 1 and begun == ["records-0"]
    assert command.main(fake, {"": TINY}, [*argv, "--again"]) == 1
    assert begun == ["records-0"] * 2
    assert jobs.STOPPED == (130, 75)


@pytest.mark.slow  # four minutes; the parts of the chains have tests of their own
def test_real_chains_become_records(fake, capfd, monkeypatch):
    """All commands of the study: what arms share, SFT, RL, a model that teaches itself."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")  # one device
    scales = {"": TINY._replace(rounds=2, told=("random",))}
    argv = ["run", "--arms", "rl_tests", "self", "explanations", "--seeds", "0"]
    assert command.main(fake, scales, argv) == 0, capfd.readouterr()
    kept = {
        path.stem: json.loads(path.read_text())
        for path in (fake.file.parent / "results" / "fake").glob("*-0.json")
    }
    inputs = ("records", "contexts", "own_records", "explanations")
    assert kept.keys() == {f"{x}-0" for x in (*inputs, "teacher", "rl_tests", "self")}
    assert kept["explanations-0"]["encoders"]["TF-IDF"]["reworded"]["explanations"] > 200
    assert kept["records-0"]["yield"]["mended"] > 0
    teacher = kept["teacher-0"]["evaluations"]
    assert len(teacher["test"]["chains"].split(" ")) == 6
    assert len(teacher["samples"]["refinement"]["equal_budget"]["rows"]) == 4
    assert {x["feedback"] for x in teacher.values()} == {"test", "random"}
    assert kept["rl_tests-0"]["updates"] == 1
    assert "split/copied" in kept["rl_tests-0"]["learning"]
    assert command.main(fake, scales, ["table"]) == 0
    assert "rl_tests - teacher" in capfd.readouterr().out
