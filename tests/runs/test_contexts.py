"""Contexts out of records, and answers to them through the real judge, without a model."""

import dataclasses
import json

import numpy as np
import pytest

from stepcoder_jax.config import Config, ConfigError, FGOConfig, ModelConfig, RewardConfig
from stepcoder_jax.data.refinements import RefinementRecord, append_refinements
from stepcoder_jax.execution import Pool
from stepcoder_jax.feedback import cccs
from stepcoder_jax.feedback.contexts import part_metrics
from stepcoder_jax.feedback.rewards import batch
from stepcoder_jax.pytrees import Experience, PromptBatch
from stepcoder_jax.records import (
    FAULTY_TEST,
    Attempt,
    Mode,
    Problem,
    Report,
    TestCase,
    Variant,
    Verdict,
)
from stepcoder_jax.runs import generate, problem_set
from stepcoder_jax.runs.disk import contexts, sources
from stepcoder_jax.runs.iteration import Iteration, rollout_rows
from stepcoder_jax.sampling import slots
from stepcoder_jax.sampling.slots import Completion
from tests.execution.kit import make_settings

RIGHT = "def f(x):\n    if x < 0:\n        return 0\n    return x + 1\n"
WRONG = "def f(x):\n    return x\n"
TESTS = tuple(TestCase((x,), x + 1) for x in range(4))  # none is below 0
PROBLEM = Problem("p", "Add one.", "", RIGHT, "f", Mode.CALL, TESTS, "easy", 1.0)
WEAK = dataclasses.replace(
    PROBLEM,
    id="weak",
    mode=Mode.ASSERT_INPROC,
    tests=(TestCase("assert f(1) == 2", None),),
)
TOLD = "The program fails this test:\nCall: f(1)\nExpected: 2\nGot: 1"
TRUE, FALSE = "It forgets to add one.", "All of it is well."


def record(wrong_id="p#0", right=True, explanation=TRUE, **fields):
    verdict = Verdict.PASS if right else Verdict.WRONG
    made = RefinementRecord(
        task_id=wrong_id.split("#")[0],
        wrong_id=wrong_id,
        wrong=WRONG,
        source="hand",
        feedback=Attempt(WRONG, Verdict.WRONG, 0, TOLD),
        explanation=explanation,
        refinement=RIGHT if right else WRONG,
        variant=Variant.EXPLAIN if explanation else Variant.DIRECT,
        teacher="hand",
        round=1,
        verdict=verdict,
        passed_tests=4 if right else 0,
        tests=4,
        similar=0.5,
        weak=False,
    )
    return dataclasses.replace(made, **fields)


@pytest.fixture(scope="module")
def tokenizer():
    return sources.load_tokenizer(ModelConfig(tokenizer="builtin"))


def make_config(path, records, variant="explain"):
    with path.open("w") as file:
        append_refinements(file, records)
    config = Config()
    config.data.contexts, config.prompt.variant = (str(path),), variant
    config.prompt.template, config.prompt.max_prompt_length = "plain", 200
    config.cccs.enabled = False
    return config


def load(config, tokenizer, problems=(PROBLEM, WEAK)):
    return contexts.load(config, list(problems), tokenizer, "--flag")


MIXED = [
    record("q#0"),  # of another problem
    record("p#0", right=False, explanation=FALSE),
    record("p#1", right=False),  # that nobody mended
    record("p#0"),
    record("weak#0", weak=True),  # right, but nothing that teaches
    record("p#2", feedback=Attempt(WRONG, Verdict.WRONG, 0, 300 * "long ")),
    record("p#0", explanation=""),
    record("p#3"),
]


def test_each_mended_program_is_a_context_and_the_others_are_named(
    tmp_path, tokenizer, capfd
):
    found = load(make_config(tmp_path / "r.jsonl", MIXED), tokenizer)
    assert found.names == ["p#0", "p#3"]
    assert found.siblings[0] == ((RIGHT, RIGHT), (TRUE, ""))
    for row, task in enumerate(found.tasks):
        assert (task.index, task.stage, task.head) == (row, 0, "")
        assert task.before == (Attempt(WRONG, Verdict.WRONG, 0, TOLD),)
        assert task.problem is PROBLEM and task.variant is Variant.EXPLAIN
    lines = capfd.readouterr().err.splitlines()
    assert "1 of 6 wrong programs are of no problem" in lines[0] and "q#0" in lines[0]
    assert "2 of 6 wrong programs have no right refinement" in lines[1]
    assert lines[1].endswith(": p#1, weak#0")
    assert "1 of 3 problems have prompts of more than 200 tokens (--flag): p#2" in lines[2]
    assert len(lines) == 3


def test_tests_alone_need_no_right_sibling(tmp_path, tokenizer):
    config = make_config(tmp_path / "r.jsonl", MIXED, variant="direct")
    config.reward.program = "tests"
    found = load(config, tokenizer)
    assert found.names == ["p#0", "p#1", "weak#0", "p#3"]
    assert found.rating.embed is None and found.tasks[0].variant is Variant.DIRECT


def test_records_of_no_use_are_refused_in_one_line(tmp_path, tokenizer):
    config = make_config(tmp_path / "r.jsonl", [record("q#0"), record("p#0", right=False)])
    with pytest.raises(
        ConfigError, match=r"^data.contexts: .* 2 in .*: 1|of which 1"
    ) as error:
        load(config, tokenizer)
    assert "\n" not in str(error.value)


def test_the_map_is_the_one_that_is_asked_for(tmp_path, tokenizer):
    records = [
        record(),
        record(explanation=f"{TRUE} So."),
        record(right=False, explanation=FALSE),
    ]
    config = make_config(tmp_path / "r.jsonl", records)
    maps = {}
    for name in ("paper", "clipped", "fitted"):
        config.reward.explanation = name
        maps[name] = load(config, tokenizer).rating.explanation_map
    assert maps["paper"](0.0) == pytest.approx(-35 / 3) and maps["clipped"](0.0) == -5
    assert -2.5 < maps["fitted"](0.5) < 2.5 and len(set(maps.values())) == 3
    config.reward.explanation = "none"
    assert load(config, tokenizer).rating.embed is None


def test_a_run_goes_on_with_its_own_contexts_alone(tmp_path, tokenizer):
    path = tmp_path / "r.jsonl"
    known = problem_set.describe(load(make_config(path, MIXED), tokenizer).as_problems())
    assert known["ids"] == ["p#0", "p#3"]

    def check(records, variant="explain"):
        again = load(make_config(path, records, variant), tokenizer).as_problems()
        problem_set.check({"problems": known}, again, 2, field="data.contexts")

    check(MIXED)
    changed = [
        [*MIXED, record("p#3", explanation="Another.")],  # one more to be compared with
        [dataclasses.replace(x, wrong=f"{WRONG} ") for x in MIXED if x.wrong_id != "p#0"]
        + [record("p#0")],
    ]
    for records in changed:
        with pytest.raises(ConfigError, match=r"^data.contexts: "):
            check(records)
    with pytest.raises(ConfigError, match=r"^data.contexts: the text .*'p#0' have changed"):
        check(MIXED, variant="direct")


# What is answered to p#0, and: |e| in text, R(r), the code that FGO drops.
CODE = f"```python\n{RIGHT}```"
ANSWERS = {
    f"{TRUE}\n{CODE}": (TRUE, None, ["return 0"]),
    CODE: ("", None, ["return 0"]),
    f"{FALSE}\n```python\n{WRONG}```\nDone.": (FALSE, None, []),
    FALSE: (FALSE, -5.0, []),  # cut, or ended, in its explanation
    f"{TRUE}\n```python\ndef f(x": (TRUE, -5.0, []),  # no whole block
    f"{FALSE}\n```python\ndef f(x\n```": (FALSE, None, []),  # does not compile
}


@pytest.fixture(scope="module")
def judged(tmp_path_factory, tokenizer):
    """The answers, read and run: tasks, rollout, what was judged, and the contexts."""
    path = tmp_path_factory.mktemp("contexts") / "r.jsonl"
    config = make_config(path, [record(), record(right=False, explanation=FALSE)])
    found = load(config, tokenizer)
    state = cccs.initial([PROBLEM], config.cccs)
    config.sampling.problems_per_step = 1
    config.sampling.rollouts_per_problem = len(ANSWERS)
    tasks = found.pose(
        cccs.choose_tasks(
            [PROBLEM], state, step=0, seed=0, sampling=config.sampling, config=config.cccs
        )
    )
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in ANSWERS]
    ids = [[*row, tokenizer.eos_token_id] for row in ids]
    ones = [np.ones(len(row), np.float32) for row in ids]
    order = [2, 0, 5, 4, 1, 3]  # they end as they will
    done = [Completion(i, np.array(ids[i]), ones[i], ones[i], i == 3) for i in order]
    with Pool(make_settings(workers=1, tests="run_all")) as pool:
        steps = None  # nothing is sampled
        coder = generate.Coder.make(config, steps, pool, tokenizer)
        seen = generate.judge_stream(coder, tasks, iter([done[:2], done[2:]]), label="")
        assert pool.metrics()["programs"] == 4  # the others hold no code
    columns = max(map(len, ids)) + 2
    zeros = np.zeros((len(ids), 4), np.int32)
    prompts = PromptBatch(zeros, np.full(len(ids), 4, np.int32), np.arange(len(ids)))
    return tasks, slots.collect(prompts, columns, seen.completions), seen, found


def feedback_of(judged, reports=None, mask="executed"):
    tasks, rollout, seen, found = judged
    reports = reports or seen.reports
    plain, checks = batch.feedback(
        seen.programs,
        reports,
        rollout.mask,
        reward=RewardConfig(),
        fgo=FGOConfig(mask=mask),
        seed=0,
        step=0,
    )
    feedback, columns = found.judge(tasks, seen.answers, reports, rollout.mask, plain)
    columns |= checks
    return feedback, batch.numbers_of(columns) | part_metrics(feedback, rollout.mask)


def test_rewards_stand_on_the_last_token_of_each_part(judged, tokenizer):
    _, rollout, seen, _ = judged
    feedback, metrics = feedback_of(judged)
    assert [str(report.verdict) for report in seen.reports] == [
        *("pass", "pass", "wrong", "compile", "compile", "compile")
    ]
    assert feedback.valid.all()
    count = rollout.mask.sum(axis=1)
    both = {}
    for row, (text, (said, program_reward, _)) in enumerate(ANSWERS.items()):
        size = int(feedback.explained[row])
        opening = tokenizer.decode(rollout.tokens[row, 4 : 4 + size])
        assert opening.removesuffix(tokenizer.eos_token).strip() == said
        places = {int(count[row]) - 1} | ({size - 1} if size else set())
        assert set(np.flatnonzero(feedback.rewards[row])) == places
        total = feedback.rewards[row].sum()
        of_program = feedback.rewards[row, count[row] - 1]
        if size == count[row]:
            assert places == {size - 1} and total == of_program
        elif program_reward is not None:
            assert of_program == program_reward
        both[text] = total - of_program, of_program
    good, silent, copied, _, unfinished, broken = both.values()
    assert good[1] == silent[1] == 5 and silent[0] == 0  # S_cb and S_ut are 1
    assert good[0] == unfinished[0] == pytest.approx(5)  # the sibling's very words
    assert copied[0] < 0 and -5 < copied[1] < 5
    assert -5 <= broken[1] < 5
    # the one that is all explanation has both on one token
    assert feedback.rewards[3].sum() == pytest.approx(copied[0] - 5)
    assert metrics["split/explained"] == pytest.approx(5 / 6)
    assert metrics["split/without_code"] == pytest.approx(2 / 6)
    assert metrics["split/copied"] == pytest.approx(1 / 6)
    pairs = np.array([both[text] for row, text in enumerate(ANSWERS) if row != 3])
    assert metrics["split/reward_program"] == pytest.approx(pairs[:, 1].mean(), rel=1e-6)
    explained = [0, 2, 3, 4]
    assert metrics["split/reward_explanation"] == pytest.approx(
        pairs[explained, 0].mean(), rel=1e-6
    )


@pytest.mark.parametrize("mask", ["executed", "random", "inverse", "none"])
def test_fgo_drops_code_that_never_ran_and_no_token_of_an_explanation(
    judged, tokenizer, mask
):
    _, rollout, _, _ = judged
    feedback, _ = feedback_of(judged, mask=mask)
    opens = np.arange(rollout.mask.shape[1])[None] < feedback.explained[:, None]
    assert feedback.executed[opens].all() and not feedback.executed[~rollout.mask].any()
    dropped = [
        tokenizer.decode(rollout.tokens[row, 4:][: len(kept)][~kept & rollout.mask[row]])
        for row, kept in enumerate(feedback.executed)
    ]
    if mask == "executed":
        said = [
            [" ".join(x.split()) for x in text.split("\n") if x.strip()] for text in dropped
        ]
        assert said == [unexecuted for _, _, unexecuted in ANSWERS.values()]
    elif mask == "none":
        assert not any(dropped)


def test_a_row_that_our_own_machinery_failed_on_has_no_reward(judged):
    seen = judged[2]
    infra = Report(Verdict.INFRA, (), frozenset(), FAULTY_TEST)
    weak = dataclasses.replace(seen.reports[1], weak=True)
    feedback, metrics = feedback_of(judged, [infra, weak, *seen.reports[2:]])
    assert feedback.valid.tolist() == [False, False, True, True, True, True]
    assert not feedback.rewards[:2].any() and feedback.rewards[2:].any()
    assert metrics["split/explained"] == 1.0  # of the valid ones


def test_rollouts_on_disk_have_both_parts(judged):
    tasks, rollout, seen, _ = judged
    feedback, _ = feedback_of(judged)
    zeros = np.zeros(rollout.mask.shape, np.float32)
    experience = Experience(*rollout[:4], rollout.mask, advantages=zeros)
    done = Iteration(
        0,
        tasks,
        seen,
        seen.reports,
        rollout,
        feedback,
        experience,
        np.arange(len(tasks)),
        metrics={},
        counts={},
        posed=tasks,
        judged=seen.reports,
        dropped=[],
        generated=0,
        complaint="",
        kept_back=None,
    )
    rows = [json.loads(json.dumps(row)) for row in rollout_rows(done)]
    assert [row["explanation"].strip() for row in rows] == [x[0] for x in ANSWERS.values()]
    assert [row["explained"] for row in rows] == feedback.explained.tolist()
    assert rows[0]["completion"] == RIGHT and rows[3]["completion"] == ""
    assert rows[0]["turns"][0]["source"] == WRONG
    assert len(rows[0]["rewards"]) == 2 and len(rows[1]["rewards"]) == 1
