"""The pass-rate profile: what is drawn by it, how it follows the curriculum, its file."""

import json
import math

import numpy as np
import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.config import CCCSConfig, Config, ConfigError, SamplingConfig
from stepcoder_jax.feedback import cccs
from stepcoder_jax.feedback.cccs import CurriculumState
from stepcoder_jax.records import Report, Task, Verdict
from stepcoder_jax.runs import problem_set
from stepcoder_jax.runs.posing import profile
from stepcoder_jax.runs.posing.profile import Profile, ProfileError
from tests.feedback.kit import problem
from tests.run_kit import metrics_of, rollouts_of, run_train, saved

NAN = math.nan


def of(rates, stages=None):
    stages = [0] * len(rates) if stages is None else stages
    return Profile(np.array(rates, np.float64), np.array(stages, np.int32))


def curriculum(*stages):
    zeros = np.zeros(len(stages), np.int32)
    return CurriculumState(
        np.array(stages, np.int32), zeros.astype(np.float32), zeros, zeros
    )


def test_chances_by_hand():
    """f = 0, 1, 3/4, 0 and 1 of the unknown: mean 0.55."""
    got = profile.chances(of([0.0, 0.5, 0.25, 1.0, NAN]))
    expected = np.array([0, 1, 0.75, 0, 1]) / 0.55 * 0.75 + 0.25
    np.testing.assert_allclose(got, expected / 5, rtol=1e-12)
    np.testing.assert_allclose(profile.chances(of([0.0, 1.0, 0.0])), 1 / 3)


def test_no_problem_is_drawn_less_than_a_quarter_as_often():
    rng = np.random.default_rng(0)
    for size in (1, 2, 50):
        rates = rng.choice([0.0, 0.125, 0.5, 0.75, 1.0, NAN], size)
        got = profile.chances(of(rates))
        assert got.sum() == pytest.approx(1) and got.min() >= 0.25 / size - 1e-12


def test_draws_follow_the_chances_and_seed_and_step():
    chances = profile.chances(of([0.0] * 5 + [0.5] * 5))
    problems = [problem(str(i)) for i in range(10)]
    state = cccs.initial(problems, CCCSConfig())

    def rows(step, choose=cccs.choose_tasks, given=()):
        sampling = SamplingConfig(2, 2, extra_problems=3)
        settings = {"sampling": sampling, "config": CCCSConfig(), "chances": chances}
        tasks = choose(problems, state, *given, step=step, seed=4, **settings)
        return [task.index for task in tasks[::2]]

    drawn = np.array([rows(step) for step in range(800)])
    assert drawn.tolist() == [rows(step) for step in range(800)]
    assert all(a != b for a, b in drawn)  # a problem once in an iteration
    share = np.mean(drawn < 5)
    assert share == pytest.approx(chances[:5].sum(), abs=0.05)
    for step in range(20):
        tasks = [Task(problems[row], row, 0, "") for row in drawn[step]]
        others = rows(step, cccs.choose_extra, (tasks,))
        assert len(others) == 3 and not set(others) & set(drawn[step].tolist())


def test_a_rate_is_unknown_when_its_problem_moves_until_it_is_posed_there():
    known = of([0.25, 0.5, NAN, NAN], [1, 2, 0, 3])
    posed = [(0, 1, 1), (0, 1, 1), (1, 2, 1), (2, 0, 1), (2, 0, 0), (3, 0, 1)]
    tasks = [Task(problem(str(row)), row, stage, "") for row, stage, _ in posed]
    verdicts = [Verdict.PASS if passed else Verdict.WRONG for *_, passed in posed]
    reports = [Report(verdict, (), frozenset()) for verdict in verdicts]
    got = profile.learn(known, tasks, reports, curriculum(0, 2, 0, 3))
    # the first has moved on, the second keeps what was measured, the fourth was not posed
    # at its stage
    np.testing.assert_array_equal(got.rate, [NAN, 0.5, 0.5, NAN])
    np.testing.assert_array_equal(got.stage, [0, 2, 0, 3])
    infra = [Report(Verdict.INFRA, (), frozenset())] * len(tasks)
    still = profile.learn(known, tasks, infra, curriculum(1, 2, 0, 3))
    np.testing.assert_array_equal(still.rate, known.rate)
    record = json.loads(json.dumps(profile.to_record(got)))
    again = profile.from_record(record)
    np.testing.assert_array_equal(again.rate, got.rate)
    np.testing.assert_array_equal(again.stage, got.stage)


def test_a_file_is_of_its_problems(tmp_path):
    problems = [problem("a"), problem("b")]
    known, path = problem_set.describe(problems), tmp_path / "p.json"
    profile.write(path, known, of([1 / 3, NAN], [1, 0]), {"model_sha256": "ab"})
    got, model = profile.read(str(path), known, curriculum(1, 0))
    assert model == "ab" and got.rate[0] == 1 / 3 and np.isnan(got.rate[1])
    moved, _ = profile.read(str(path), known, curriculum(0, 0))
    assert np.isnan(moved.rate[0]) and moved.stage[0] == 0
    other = problem_set.describe([problem("a"), problem("b", solution="print(2)\n")])
    with pytest.raises(
        ProfileError, match=r"another text or other tests of .*'b'; measure"
    ):
        profile.read(str(path), other, curriculum(1, 0))
    more = problem_set.describe([*problems, problem("c")])
    with pytest.raises(ProfileError, match="does not have problem 'c'; measure"):
        profile.read(str(path), more, curriculum(1, 0, 0))
    for text in ("", "[]", '{"format": "x", "problems": {}, "model_sha256": ""}'):
        path.write_text(text)
        with pytest.raises(ProfileError, match=r"^data.profile: expected a file of pass"):
            profile.read(str(path), known, curriculum(1, 0))


BAD = {
    "data.profile": ({"sample": "profile"}, {}),
    "data.sample": ({"sample": "profile", "profile": "x"}, {"prefix": "random"}),
}


@pytest.mark.parametrize("name", BAD)
def test_what_means_nothing_is_refused_in_one_line(name):
    config = Config()
    config.model.max_positions = 4096
    for section, fields in zip((config.data, config.cccs), BAD[name], strict=True):
        for field, value in fields.items():
            setattr(section, field, value)
    with pytest.raises(ConfigError, match=rf"^{name}: expected [^\n]+$"):
        config.validate()


def test_a_profile_without_a_use_is_refused():
    config = Config()
    config.model.max_positions, config.data.profile = 4096, "x"
    with pytest.raises(ConfigError, match=r"^data.profile: expected \"\" with data.sample"):
        config.validate()


@pytest.mark.long
def test_a_run_is_measured_and_another_draws_by_it_and_goes_on_alike(tmp_path, capfd):
    flags = ["--run.save_every", "1", "--evaluation.every", "0"]
    # the actor learns in the first iteration, so that another model is measured
    flags += ["--evaluation.test_problems", "0", "--ppo.critic_warmup_steps", "0"]
    first = tmp_path / "first"
    assert run_train(first, *flags, "--run.total_steps", "1") == 0
    asked = ["data", "profile", str(first), "--samples", "2"]
    assert main(asked) == 0
    said = capfd.readouterr().out
    file = first / "profile.json"
    assert f"wrote {file}; train with --data.sample profile" in said
    tree = json.loads(file.read_text())
    _, now, record, _ = saved(first, 1)
    assert [row["stage"] for row in tree["problems"].values()] == now.stage.tolist()
    assert {row["pass_rate"] for row in tree["problems"].values()} <= {0.0, 0.5, 1.0}
    assert list(tree["problems"]) == record["problems"]["ids"]
    assert main(asked) == 2  # it is there
    text = file.read_text()
    assert main([*asked, "--force"]) == 0 and file.read_text() == text
    flags += ["--data.sample", "profile", "--data.profile", str(file)]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    capfd.readouterr()
    assert run_train(whole, *flags, "--run.total_steps", "3") == 0
    assert "another model than the one that this run begins with" in capfd.readouterr().err
    assert run_train(parts, *flags, "--run.total_steps", "1") == 0
    assert run_train(parts, *flags, "--run.total_steps", "3", "--run.resume") == 0
    assert metrics_of(whole) == metrics_of(parts)
    assert rollouts_of(whole) == rollouts_of(parts)
    records = [saved(folder, 3)[2]["profile"] for folder in (whole, parts)]
    assert (
        records[0] == records[1]
        and records[0]["stage"] == saved(whole, 3)[1].stage.tolist()
    )
