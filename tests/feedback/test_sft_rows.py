"""Supervised text: its examples, and how they fill rows and batches."""

import jax
import numpy as np
import pytest

from stepcoder_jax.config import Config, ConfigError, ModelConfig, SFTConfig
from stepcoder_jax.data.generated import benchmark
from stepcoder_jax.feedback import sft_rows
from stepcoder_jax.feedback.sft_rows import Example, Group
from stepcoder_jax.runs.disk import sources


@pytest.fixture(scope="module")
def tokenizer():
    return sources.load_tokenizer(ModelConfig(tokenizer="builtin"))


@pytest.fixture(scope="module")
def problems():
    return benchmark.generate("validation", 3, (24, 24, 16))


def make_config() -> Config:
    config = Config()
    config.prompt.template = "plain"
    config.prompt.max_prompt_length, config.sampling.max_completion_length = 224, 192
    return config


def make_examples(sizes):
    rng = np.random.default_rng(0)
    return [Example(rng.integers(2, 304, n).tolist(), max(1, n // 3)) for n in sizes]


def test_an_example_is_prompt_then_solution_fence_and_end(tokenizer, problems):
    found, dropped = sft_rows.canonical(problems, tokenizer, make_config())
    assert len(found) == len(problems) and dropped == 0
    for example, problem in zip(found, problems, strict=True):
        prompt = tokenizer.decode(example.ids[: example.prompt_length])
        completion = tokenizer.decode(example.ids[example.prompt_length :])
        assert prompt == f"{problem.statement}\n```python\n{problem.starter_code}"
        assert (
            completion == problem.solution[len(problem.starter_code) :] + "```<|endoftext|>"
        )


def test_examples_that_are_too_long_are_counted(tokenizer, problems):
    config = make_config()
    config.sampling.max_completion_length = 60
    found, dropped = sft_rows.canonical(problems, tokenizer, config)
    assert 0 < dropped == len(problems) - len(found)
    assert max(len(x.ids) - x.prompt_length for x in found) <= 60
    config.sampling.max_completion_length, config.prompt.max_prompt_length = 192, 60
    found, dropped = sft_rows.canonical(problems, tokenizer, config)
    assert 0 < dropped == len(problems) - len(found)
    assert max(x.prompt_length for x in found) <= 60


def test_a_solution_that_does_not_begin_with_the_starter_code_is_written_whole(tokenizer):
    problem = benchmark.generate("validation", 3, (1, 0, 0))[0]
    other = type(problem)(**{**vars(problem), "starter_code": "def other():\n"})
    example = sft_rows.canonical([other], tokenizer, make_config())[0][0]
    assert tokenizer.decode(example.ids[example.prompt_length :]).startswith(
        problem.solution
    )


def test_a_batch_says_where_each_example_lies_and_what_is_scored():
    one, two, three = Example([5, 6, 7], 2), Example([8, 9], 1), Example([3, 4], 1)
    batch = sft_rows.make_batch(Group([[one, two], [three]], 6), batch_size=3)
    assert batch.tokens.tolist() == [[5, 6, 7, 8, 9, 0], [3, 4, 0, 0, 0, 0], [0] * 6]
    assert batch.segments.tolist() == [[1, 1, 1, 2, 2, 0], [1, 1, 0, 0, 0, 0], [0] * 6]
    assert batch.scored.astype(int).tolist() == [
        [0, 0, 1, 0, 1, 0],
        [0, 1, 0, 0, 0, 0],
        [0] * 6,
    ]


def ids_of(groups):
    return [tuple(x.ids) for group in groups for row in group.rows for x in row]


@pytest.mark.parametrize("packing", (0, 140))
def test_an_epoch_has_every_example_once_in_an_order_of_its_own(packing):
    examples = make_examples([10, 60, 70, 100, 130, 20, 30, 65, 63, 64, 10, 10])
    settings = SFTConfig(batch_size=4, packing=packing)
    groups = sft_rows.epoch(examples, settings, seed=0, index=0)
    assert sorted(ids_of(groups)) == sorted(tuple(x.ids) for x in examples)
    assert all(len(group.rows) <= 4 for group in groups)
    again = sft_rows.epoch(examples, settings, seed=0, index=0)
    jax.tree.map(np.testing.assert_array_equal, groups, again)
    for others in {"seed": 1, "index": 0}, {"seed": 0, "index": 1}:
        assert ids_of(sft_rows.epoch(examples, settings, **others)) != ids_of(groups)


def test_rows_of_like_length_share_a_batch():
    examples = make_examples([10, 60, 70, 100, 130, 20, 30, 65, 63, 64])
    for group in sft_rows.epoch(examples, SFTConfig(batch_size=4), seed=0, index=0):
        assert group.width % sft_rows.BUCKET == 0
        sizes = [len(example.ids) for row in group.rows for example in row]
        assert group.width - sft_rows.BUCKET < min(sizes) <= max(sizes) <= group.width


def test_packing_is_first_fit_decreasing():
    examples = make_examples([3, 6, 4, 5, 7, 2, 3])
    rows = sft_rows.pack(examples, range(7), 10)
    sizes = [[len(example.ids) for example in row] for row in rows]
    # 7; 6; 5 fits behind neither; 4 behind 6; 3 behind 7; 3 behind 5; 2 behind those
    assert sizes == [[7, 3], [6, 4], [5, 3, 2]]
    assert rows[0][1] is examples[0] and rows[2][1] is examples[6]  # as ordered
    assert sft_rows.pack(examples, range(6, -1, -1), 10)[0][1] is examples[6]


def test_packed_rows_waste_little(tokenizer, problems):
    examples, _ = sft_rows.canonical(problems, tokenizer, make_config())
    rows = sft_rows.pack(examples, range(len(examples)), 1024)
    used = [sum(len(example.ids) for example in row) for row in rows]
    assert max(used) <= 1024 and len(rows) == -(-sum(used) // 1024)


def test_a_row_must_hold_the_longest_example():
    with pytest.raises(ConfigError, match=r"sft.packing: expected at least 12.* got 10"):
        sft_rows.pack(make_examples([3, 12]), range(2), 10)


def test_fractions_of_an_epoch_are_planned():
    examples = make_examples([10] * 8)
    for epochs, steps in (1, 4), (2.5, 10), (0.5, 2):
        assert sft_rows.plan(examples, SFTConfig(epochs=epochs, batch_size=2), 0) == steps
    with pytest.raises(ConfigError, match=r"sft.epochs: 0.1 epochs of 8"):
        sft_rows.plan(examples, SFTConfig(epochs=0.1, batch_size=2), 0)


def test_the_digest_is_of_every_example():
    examples = make_examples([5, 6, 7])
    first = sft_rows.digest(examples)
    assert first == sft_rows.digest(list(examples))
    moved = [*examples[:2], examples[2]._replace(prompt_length=1)]
    joined = [Example(examples[0].ids + examples[1].ids, 1), examples[2]]
    changed = [*examples[:2], examples[2]._replace(ids=[9, *examples[2].ids[1:]])]
    digests = {sft_rows.digest(x) for x in (moved, joined, changed, examples[::-1])}
    assert len(digests) == 4 and first not in digests
