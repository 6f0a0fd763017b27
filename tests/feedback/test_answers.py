"""Prose and a fenced program: which block is the code, and where the explanation ends."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcoder_jax.feedback import answers
from stepcoder_jax.records import Attempt, Verdict
from tests.feedback.test_prompts import EOS, TABLE, TASK, ByteTokenizer

AFTER = dataclasses.replace(
    TASK, head="", before=(Attempt("x", Verdict.WRONG, 0, "It fails."),)
)


def read(text, task=AFTER, fence="```"):
    return answers.read(task, [*text.encode(), EOS], TABLE, fence)


CASES = {
    # answer: (explanation, code)
    "It adds `x`.\n```python\ny = 1\n```\n": ("It adds `x`.\n", "y = 1\n"),
    "```python\ny = 1\n```": ("", "y = 1\n"),
    "\n \n```\ny = 1\n```": ("\n \n", "y = 1\n"),
    "See:\n```py\nold\n```\nso\n```python\nnew\n```\nDone.": (
        "See:\n```py\nold\n```\nso\n",
        "new\n",
    ),
    "It printed:\n```text\n3\n```\n```python\nnew\n```": (
        "It printed:\n```text\n3\n```\n",
        "new\n",
    ),
    "```python\nnew\n```\nprints\n```text\n3\n```": ("", "new\n"),
    "```python\n```": ("", ""),
    "a ``` b\n```Python \ny\n```x": ("a ``` b\n", "y\n"),
    "only prose": ("only prose", None),
    "cut in the\n```python\ny = ": ("cut in the\n", None),
    "cut\n```python": ("cut\n", None),
    "a\n```python\nold\n```\nb\n```python\nnew": ("a\n", "old\n"),
    "": ("", None),
}


@pytest.mark.parametrize("text", CASES)
def test_the_last_whole_block_is_the_code(text):
    explanation, code = CASES[text]
    answer = read(text)
    assert answer.explanation == explanation
    assert (answer.program and answer.program.source) == code
    size = len(explanation) if explanation.strip() else 0
    whole = code is None and "```" not in text and text
    assert answer.explanation_tokens == (size + 1 if whole else size)


def test_spans_are_those_of_the_code_and_none_before_it():
    answer = read("é\n```python\ny = 'é'\n```")
    before = len("é\n```python\n".encode())
    spans = answer.program.token_spans
    assert len(spans) == before + 9 + 3 + 1 and answer.explanation_tokens == 3
    assert spans[:before] == (None,) * before and spans[-4:] == (None,) * 4
    assert spans[before : before + 9] == tuple((i, i + 1) for i in range(9))
    assert answer.program.generated_from == 0


def test_the_boundary_is_before_a_token_that_holds_a_part_of_the_fence():
    words = [b"so.\n", b"\n``", b"`python\ny", b" = 1\n```"]
    tokenizer = ByteTokenizer(words)
    table = answers.prompts.token_bytes(tokenizer)
    ids = [EOS + 1 + place for place in range(4)]
    answer = answers.read(AFTER, ids, table, "```")
    assert answer.explanation == "so.\n\n" and answer.explanation_tokens == 1
    assert answer.program.source == "y = 1\n"
    assert answer.program.token_spans == (None, None, (0, 1), (1, 6))


def test_a_first_answer_continues_its_head():
    answer = read("  return 1\n```\n", TASK)
    assert answer.program.source == f"{TASK.head}  return 1\n"
    assert answer[1:] == ("", 0, False)


def test_another_fence():
    assert read("```\na\n```\n~~~\nb\n~~~", fence="~~~").program.source == "b\n"


@given(st.text("`\npyxé \r", max_size=60), st.binary(max_size=8))
def test_any_bytes_are_an_answer(text, odd):
    data = text.encode() + odd
    answer = answers.read(AFTER, list(data), TABLE, "```")
    assert 0 <= answer.explanation_tokens <= len(data)
    if answer.program is not None:
        source = answer.program.source.encode()
        for span, byte in zip(answer.program.token_spans, data):
            if span is not None:
                assert (
                    source[slice(*span)] in (bytes([byte]), "\ufffd".encode()) or byte > 127
                )
        assert "\n```" not in answer.program.source
