"""Records as supervised text: what is learnt, what is left out, what is not scored."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepcoder_jax.__main__ import main
from stepcoder_jax.commands.sft import load_examples
from stepcoder_jax.config import Config, ModelConfig
from stepcoder_jax.data.formats import own
from stepcoder_jax.data.formats.rows import DataError
from stepcoder_jax.data.generated import dialect, teaching
from stepcoder_jax.data.refinements import RefinementRecord, append_refinements
from stepcoder_jax.feedback import answers, prompts, sft_rows, turns
from stepcoder_jax.learning import sft as sft_step
from stepcoder_jax.learning.batching import ONE_DEVICE
from stepcoder_jax.models import policy
from stepcoder_jax.records import Attempt, Task, Variant, Verdict
from stepcoder_jax.runs.disk import sources
from stepcoder_jax.runs.refining import lessons

END = "```<|endoftext|>"


@pytest.fixture(scope="module")
def tokenizer():
    return sources.load_tokenizer(ModelConfig(tokenizer="builtin"))


class Kit:
    """Four problems, two wrong programs each, and records that answer them."""

    def __init__(self, folder, tokenizer):
        self.folder, self.tokenizer = folder, tokenizer
        self.problems = dialect.generate("train", 3, (4, 0, 0))
        rng = np.random.default_rng(1)
        self.wrong = [dialect.wrong_programs(rng, x, 9) for x in self.problems]
        self.config = Config()
        self.config.prompt.template = "plain"

    def record(self, place, **changes):
        problem, wrong = self.problems[place], self.wrong[place][0]
        told = Attempt(wrong, Verdict.WRONG, 0, "The program fails this test:\nGot: 7")
        made = RefinementRecord(
            task_id=problem.id,
            wrong_id=f"{problem.id}#0",
            wrong=wrong,
            source="me",
            feedback=told,
            explanation=teaching.explain(problem, wrong),
            refinement=problem.solution,
            variant=Variant.EXPLAIN,
            teacher="rule",
            round=1,
            verdict=Verdict.PASS,
            passed_tests=5,
            tests=5,
            similar=0.9,
            weak=False,
        )
        return dataclasses.replace(made, **changes)

    def direct(self, place, **changes):
        return self.record(place, variant=Variant.DIRECT, explanation="", **changes)

    def select(self, *records):
        path = self.folder / "records.jsonl"
        with path.open("w") as file:
            append_refinements(file, records)
        self.config.sft.records = (str(path),)
        return lessons.select(self.problems, self.tokenizer, self.config)

    def texts(self, *records):
        decode = self.tokenizer.decode
        return [
            (decode(ids[:length]), decode(ids[length:]))
            for ids, length in self.select(*records).examples
        ]


@pytest.fixture
def kit(tmp_path, tokenizer):
    return Kit(tmp_path, tokenizer)


FAILED = {"verdict": Verdict.WRONG, "passed_tests": 1}


def test_a_refinement_is_learnt_in_both_instructions_beside_first_programs(kit):
    texts = kit.texts(kit.record(1), kit.record(3, **FAILED), kit.direct(2))
    problem = kit.problems
    head = dialect.HEAD
    assert [text for text, _ in texts[:2]] == [
        f"{x.statement}\n```python\n{head}" for x in (problem[1], problem[2])
    ]
    for (_, code), x in zip(texts, (problem[1], problem[2])):
        assert head + code == x.solution + END
    opening = f"{problem[1].statement}\n```python\n{kit.wrong[1][0].rstrip()}\n```\n"
    opening += "The program fails this test:\nGot: 7\n"
    code = f"```python\n{problem[1].solution}{END}"
    told = teaching.explain(problem[1], kit.wrong[1][0])
    assert texts[2:4] == [
        (f"{opening}Mend the program.\n", code),
        (f"{opening}{turns.REQUESTS[Variant.EXPLAIN]}\n", f"{told}\n{code}"),
    ]
    assert len(texts) == 5 and texts[4][1] == f"```python\n{problem[2].solution}{END}"


def test_what_is_learnt_is_read_back_as_it_stands(kit):
    record = kit.record(0, explanation="Of `x`:\nit is 7.\n", refinement="x = 1")
    table = prompts.token_bytes(kit.tokenizer)
    *_, (ids, length) = kit.select(record).examples
    task = Task(kit.problems[0], 0, 0, "", (record.feedback,), Variant.EXPLAIN)
    answer = answers.read(task, ids[length:], table, "```")
    assert answer.program.source == "x = 1\n"
    assert answer.explanation == "Of `x`:\nit is 7.\n"


def test_what_teaches_nothing_is_named(kit, capsys):
    kit.config.sft.per_wrong = 0
    long = kit.direct(2, refinement="x = 1\n" * 500)
    fenced = kit.direct(1, refinement='x = """\n```\n"""\n')
    again = kit.direct(0, refinement=kit.problems[0].solution.rstrip())
    found = kit.select(
        *(kit.record(0), kit.record(0), again, long, fenced),
        *(kit.record(3, **FAILED), kit.record(3, weak=True)),
    )
    assert len(found.examples) == 3  # the first program, and once in each instruction
    names = [x.id for x in kit.problems]
    assert sorted(capsys.readouterr().err.splitlines()) == [
        "left out: 1 answers too long for prompt.max_prompt_length or "
        f"sampling.max_completion_length: {names[2]}#0",
        f"left out: 1 answers with a line that opens with the fence: {names[1]}#0",
        f"left out: 1 wrong programs without a right refinement: {names[3]}#0",
    ]
    assert found.told == (
        "2 rows of refinements of 4 wrong programs, 1 first programs of the same 1 problems"
    )


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (lambda kit: [kit.record(0, **FAILED)], "records.jsonl: nothing to learn from: 0"),
        (lambda kit: [kit.record(0, task_id="nobody")], "field task_id: expected the id"),
    ],
)
def test_what_cannot_be_learnt_is_one_line(kit, records, words):
    with pytest.raises(DataError) as error:
        kit.select(*records(kit))
    text = str(error.value)
    assert text.startswith("sft.records: ") and words in text and "\n" not in text


def test_one_wrong_program_is_mended_as_often_as_is_asked(kit):
    answers_to = [kit.direct(0, refinement=f"x = {i}\n") for i in range(9)]
    told = [kit.record(0, refinement=f"y = {i}\n", explanation=f"{i}.") for i in range(9)]
    drawn = []
    for seed in (0, 0, 1, 2):
        kit.config.run.seed = seed
        texts = kit.texts(*answers_to, *told)
        assert len(texts) == 3 and "y = " in texts[1][1]  # those that explain come first
        drawn.append(texts[1][1])
    assert drawn[0] == drawn[1] and len(set(drawn)) > 1
    kit.config.sft.per_wrong = 2
    assert len(kit.texts(*answers_to)) == 3
    assert len(kit.texts(*answers_to, told[0])) in (3, 4)
    kit.config.sft.per_wrong = 0
    assert len(kit.texts(*answers_to, *told)) == 1 + 9 + 2 * 9


def test_a_share_of_the_wrong_program_is_blanked(kit):
    clear = kit.texts(kit.record(0))
    kit.config.sft.blank_wrong = 0.5
    some = kit.texts(kit.record(0))
    assert some == kit.texts(kit.record(0)) != clear
    kit.config.run.seed = 1
    assert some != kit.texts(kit.record(0))
    kit.config.sft.blank_wrong = 1.0
    (first, direct, _) = kit.texts(kit.record(0))
    assert first == clear[0] and direct[1] == clear[1][1]
    (before, wrong, after) = direct[0].split("```")
    assert before == clear[1][0].split("```")[0] and after == clear[1][0].split("```")[2]
    assert set(wrong.removeprefix("python").replace(kit.problems[0].statement, "")) <= set(
        "_ \n#" + kit.wrong[0][0]
    )
    assert "solve" not in wrong and "return" not in wrong and wrong.count("_") > 10
    lines = wrong.removeprefix("python\n").split("\n")
    assert len(lines) == kit.wrong[0][0].count("\n") + 1  # its layout stays


def test_the_control_has_as_many_rows_of_first_programs_alone(kit):
    records = [kit.record(i) for i in range(3)]
    mixed = kit.select(*records)
    kit.config.sft.control = "first"
    control = kit.select(*records)
    assert control.mixed == mixed.examples and len(control.examples) == 9
    first = mixed.examples[:3]
    assert control.examples == first * 3
    # judged samples may be the first programs
    path = kit.folder / "samples.jsonl"
    rows = [{"task_id": x.id, "solution": x.solution, "passed": True} for x in kit.problems]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    kit.config.sft.samples = (str(path),)
    assert kit.select(*records).examples == first * 3


def test_no_token_of_the_wrong_program_or_of_the_feedback_teaches(kit, monkeypatch):
    """Whatever the model thinks of them: their logits change no gradient."""
    (_, example, _) = kit.select(kit.record(0)).examples
    batch = sft_rows.make_batch(sft_rows.Group([[example]], len(example.ids)), 1)
    model = ModelConfig(
        **dict.fromkeys(("hidden_size", "intermediate_size", "head_dim"), 8),
        **dict.fromkeys(("num_layers", "num_heads", "num_kv_heads"), 1),
        vocab_size=-(-len(kit.tokenizer) // 64) * 64,
        max_positions=512,
    )
    kit.config.model = model
    params = policy.init_params(model, jax.random.key(0))
    genuine = sft_step.score_tokens

    @jax.jit
    def gradient(places):
        def score(head, hidden, tokens, scoring):
            changed = jnp.where(places[None, :, None], 3 - 2 * hidden, hidden)
            return genuine(head, changed, tokens, scoring)

        monkeypatch.setattr(sft_step, "score_tokens", score)
        return jax.grad(lambda x: sft_step.loss(kit.config, ONE_DEVICE, x, batch))(params)

    answer = np.arange(len(example.ids) - 1) >= example.prompt_length - 1
    none = gradient(np.zeros_like(answer))
    jax.tree.map(np.testing.assert_array_equal, none, gradient(~answer))
    other = gradient(answer)
    same = jax.tree.map(np.array_equal, none, other)
    assert not all(jax.tree.leaves(same))


EXPERIMENT = """
from stepcoder_jax import config as c


def get_config(arg=""):
    return c.Config(
        model=c.ModelConfig(
            vocab_size=320, hidden_size=32, intermediate_size=64, num_layers=1, num_heads=2,
            num_kv_heads=1, head_dim=16, max_positions=768,
        ),
        prompt=c.PromptConfig(template="plain", max_prompt_length=512),
        sampling=c.SamplingConfig(max_completion_length=256),
        evaluation=c.EvaluationConfig(every=0, test_problems=0),
        sft=c.SFTConfig(epochs=4, batch_size=8, packing=512, learning_rate=1e-2),
    )
"""


def test_the_control_has_as_many_updates(kit, tmp_path, capsys):
    kit.select(*[kit.record(i) for i in range(4)])
    own.write(kit.problems, tmp_path / "problems.jsonl")
    kit.config.data.path = str(tmp_path / "problems.jsonl")
    kit.config.sft.batch_size, kit.config.sft.packing = 1, 256
    found = []
    for control in ("none", "first"):
        kit.config.sft.control = control
        found.append(load_examples(kit.config, kit.tokenizer))
    (mixed, steps), (first, others) = found
    assert steps == others > 3 and len(mixed) == len(first) == 12
    # they are shorter, so by themselves they would have been fewer updates
    assert sft_rows.plan(first, kit.config.sft, 0) < steps
    said = capsys.readouterr().err
    assert "8 rows of refinements of 4 wrong programs, 4 first programs" in said
    assert "; control: the first programs, 12 rows" in said


@pytest.mark.long
def test_the_command_learns_records_and_its_control_has_as_many_updates(kit, tmp_path):
    kit.select(*[kit.record(i) for i in range(4)])
    own.write(kit.problems, tmp_path / "problems.jsonl")
    (tmp_path / "tiny.py").write_text(EXPERIMENT)
    steps = []
    for control in ("none", "first"):
        folder = tmp_path / control
        flags = ["--data.path", str(tmp_path / "problems.jsonl"), "--sft.control", control]
        flags += ["--sft.records", str(tmp_path / "records.jsonl")]
        flags += ["--run.folder", str(folder)]
        assert main(["sft", str(tmp_path / "tiny.py"), *flags]) == 0
        rows = (folder / "metrics.jsonl").read_text().splitlines()
        losses = [json.loads(row)["loss"] for row in rows]
        assert losses[-1] < losses[0]
        steps.append(len(losses))
    assert steps[0] == steps[1] > 1
