"""Prompts in, programs out: byte-exact spans, fences, EOS, odd bytes, real tokenizers."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepcoder_jax.config import ConfigError, ModelConfig, PromptConfig
from stepcoder_jax.feedback import prompts, turns
from stepcoder_jax.records import (
    Attempt,
    Mode,
    Problem,
    Task,
    TestCase,
    Variant,
    Verdict,
)
from stepcoder_jax.runs.disk import sources

PROBLEM = Problem("p7", "Add {x} two.\n", "def f(a):", "", "f", Mode.CALL, (), "interview")
TASK = Task(PROBLEM, 0, 0, "def f(a):\n")
EOS = 256


@dataclasses.dataclass
class Added:
    content: str
    special: bool


class ByteTokenizer:
    """Ids 0..255 are bytes, then EOS, then words of several bytes."""

    def __init__(self, words=(), bos=False):
        letters = {byte: char for char, byte in prompts.byte_alphabet().items()}
        spelled = ["".join(letters[byte] for byte in word) for word in words]
        names = [letters[byte] for byte in range(256)] + ["<eos>", *spelled]
        self.vocabulary = {name: i for i, name in enumerate(names)}
        self.added_tokens_decoder = {EOS: Added("<eos>", True)}
        self.all_special_ids = [EOS]
        self.bos_token_id = EOS if bos else None
        self.chat_template = None

    def get_vocab(self):
        return self.vocabulary

    def encode(self, text, add_special_tokens):
        opening = [EOS] if add_special_tokens and self.bos_token_id is not None else []
        return opening + list(text.encode())


CUT = f"{'x' * 247} ... {'x' * 247}"
TABLE = prompts.token_bytes(ByteTokenizer())


def config(**fields):
    return PromptConfig(template="plain", max_prompt_length=64, **fields)


def test_templates():
    assert (
        prompts.render(TASK, ByteTokenizer(), config())
        == "Add {x} two.\n```python\ndef f(a):\n"
    )
    text = prompts.render(TASK, ByteTokenizer(), PromptConfig(template="deepseek"))
    assert text.startswith(
        "You are an AI programming assistant, utilizing the Deepseek Coder"
    )
    assert text.endswith(
        "\n### Instruction:\nwrite an algorithm in python:\nAdd {x} two.\n"
        "### Response:\n```python\ndef f(a):\n"
    )
    bare = dataclasses.replace(TASK, head="")
    assert (
        prompts.render(bare, ByteTokenizer(), config(fence="~~~"))
        == "Add {x} two.\n~~~python\n"
    )
    with pytest.raises(ValueError, match=r"prompt.template: expected one of .* got 'talk'"):
        prompts.render(TASK, ByteTokenizer(), PromptConfig(template="talk"))


def test_visible_tests_are_shown_where_asked_for_and_lacking():
    shown = (TestCase(("a", [1]), {2}), TestCase((), None))
    problem = dataclasses.replace(PROBLEM, visible_tests=shown)
    task = dataclasses.replace(TASK, problem=problem)
    first = prompts.render(TASK, ByteTokenizer(), config())
    assert prompts.render(task, ByteTokenizer(), config()) == first
    text = prompts.render(task, ByteTokenizer(), config(show_visible=True))
    assert text == (
        "Add {x} two.\nIt must pass:\nf('a', [1]) == {2}\nf() == None\n"
        "```python\ndef f(a):\n"
    )
    assert prompts.render(TASK, ByteTokenizer(), config(show_visible=True)) == first
    told = dataclasses.replace(problem, statement="Add {x} two: f() == None\n")
    task = dataclasses.replace(TASK, problem=told)
    text = prompts.render(task, ByteTokenizer(), config(show_visible=True))
    assert text.startswith(
        "Add {x} two: f() == None\nIt must pass:\nf('a', [1]) == {2}\n```"
    )
    wide = dataclasses.replace(config(show_visible=True), max_prompt_length=99)
    batch = prompts.encode([task, TASK], ByteTokenizer(), wide, np.array([0, 1]))
    assert batch.prompt_length.tolist() == [len(text), len(first)]


@pytest.mark.parametrize(
    ("mode", "test", "text"),
    [
        (Mode.STDIN_MAIN, TestCase("1\n2\n", "3\n"), "Input:\n1\n2\nOutput: 3"),
        (Mode.STDIN_FN, TestCase("a\x1b[0m", ""), "Input: a\ufffd[0m\nOutput:"),
        (
            Mode.ASSERT_PROXY,
            TestCase("import a\nassert f()\n", None),
            "import a\nassert f()",
        ),
        (Mode.CALL, TestCase(("x" * 2000,), 1), f"f('{'x' * 497}... == 1"),
        (Mode.STDIN_MAIN, TestCase("x" * 999, "y"), f"Input: {CUT}\nOutput: y"),
    ],
)
def test_a_test_in_words(mode, test, text):
    problem = dataclasses.replace(PROBLEM, mode=mode)
    assert turns.describe_test(problem, test) == text


def test_encode_packs_from_the_left_with_a_fixed_width():
    other = dataclasses.replace(TASK, head="")
    batch = prompts.encode([TASK, other], ByteTokenizer(), config(), np.array([5, 9]))
    for row, task in enumerate((TASK, other)):
        ids = list(prompts.render(task, ByteTokenizer(), config()).encode())
        assert batch.prompt_length[row] == len(ids)
        assert batch.tokens[row].tolist() == ids + [0] * (64 - len(ids))
    assert batch.index.tolist() == [5, 9]
    assert {array.dtype for array in batch} == {np.dtype(np.int32)}


def test_encode_opens_with_bos_where_the_tokenizer_does():
    batch = prompts.encode([TASK], ByteTokenizer(bos=True), config(), np.array([0]))
    assert batch.tokens[0, :4].tolist() == [EOS, *b"Add"]


def test_a_prompt_too_long_names_problem_length_and_field():
    text = prompts.render(TASK, ByteTokenizer(), config())
    tight = dataclasses.replace(config(), max_prompt_length=len(text) - 1)
    message = (
        f"problem p7: .* {len(text)} tokens .* prompt.max_prompt_length={len(text) - 1}"
    )
    with pytest.raises(ValueError, match=message):
        prompts.encode([TASK], ByteTokenizer(), tight, np.array([0]))
    exact = dataclasses.replace(config(), max_prompt_length=len(text))
    assert prompts.encode([TASK], ByteTokenizer(), exact, np.array([0])).tokens[0, -1] == 10


def made(pieces, head="", fence="```"):
    task = dataclasses.replace(TASK, head=head)
    return prompts.program_of(task, pieces, fence.encode())


def test_spans_count_from_the_head_in_bytes():
    program = made([b"x", b" = ", "'é'".encode(), b"\n"], head="# é\n")
    assert program.source == "# é\nx = 'é'\n"
    assert program.generated_from == 5  # é is two bytes
    assert program.token_spans == ((5, 6), (6, 9), (9, 13), (13, 14))


def test_the_code_ends_before_the_closing_fence():
    # The token `1\n``` ` is partly code: it has the span of its part.
    program = made([b"x =", b" 1\n``", b"`\n", b"y"])
    assert program.source == "x = 1\n"
    assert program.token_spans == ((0, 3), (3, 6), None, None)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("```\n", ""),
        ("a\n```", "a\n"),
        ("a ``` b\n", "a ``` b\n"),  # not at the start of a line
        ("a = '''\n ```'''\n", "a = '''\n ```'''\n"),
        ("a\n``\n", "a\n``\n"),
    ],
)
def test_fence_opens_a_line(text, source):
    assert made([text.encode()]).source == source


def test_eos_and_other_special_tokens_have_no_bytes():
    program = made([b"a\n", b"", b"b\n", b""])
    assert program.source == "a\nb\n"
    assert program.token_spans == ((0, 2), None, (2, 4), None)


def test_a_character_split_over_tokens_keeps_each_token_its_bytes():
    day = "日".encode()
    assert made([day[:1], day[1:]]).token_spans == ((0, 1), (1, 3))


def test_bytes_that_are_no_utf8():
    program = made([b"a", b"\xff", b"b\n", b"\xe6\x97", b"c"], head="h\n")
    assert program.source == "h\na\ufffdb\n\ufffdc"
    assert program.token_spans == ((2, 3), (3, 6), (6, 8), (8, 11), (11, 12))
    # Two tokens of one replaced character share its range.
    assert made([b"\xe6", b"\x97", b"c"]).token_spans == ((0, 3), (0, 3), (3, 4))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=4), max_size=12))
def test_spans_are_in_order_inside_the_source_and_cover_the_code(pieces):
    program = made(pieces, head="# é\n")
    data = program.source.encode()
    code = b"".join(pieces)
    end = prompts.closing_fence(code, b"```")
    assert program.source == "# é\n" + code[:end].decode(errors="replace")
    spans = [span for span in program.token_spans if span is not None]
    covered = set()
    for first, second in itertools.pairwise(spans):
        assert first[0] <= second[0] and first[1] <= second[1]
    for start, stop in spans:
        assert program.generated_from <= start < stop <= len(data)
        covered.update(range(start, stop))
    assert covered == set(range(program.generated_from, len(data)))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(alphabet="ab`\né", max_size=3).map(str.encode), max_size=12))
def test_valid_text_has_exact_bytes(pieces):
    program = made(pieces)
    data = program.source.encode()
    for piece, span in zip(pieces, program.token_spans):
        if span is not None:
            assert piece.startswith(data[slice(*span)])


def test_decode_reads_ids():
    program = prompts.decode(TASK, [*b"a=1", EOS], TABLE, "```")
    assert program.source == "def f(a):\na=1"
    assert program.token_spans == ((10, 11), (11, 12), (12, 13), None)
    assert prompts.decode(TASK, [], TABLE, "```").source == "def f(a):\n"
    # An id that pads the model's vocabulary stands for nothing.
    padded = prompts.decode(TASK, [97, 300, 98], TABLE, "```")
    assert padded.token_spans == ((10, 11), None, (11, 12))


def test_stop_finder_keeps_the_token_that_completes_the_fence():
    find = prompts.stop_finder(ByteTokenizer(words=[b"\n```\n", b"``"]), "```")
    fence, ticks = 257, 258
    tick, line = ord("`"), ord("\n")
    assert find([*b"a\n"]) is None
    assert find([97, fence]) == 2
    assert find([97, line, tick, tick]) is None
    assert find([97, line, tick, ticks, 98]) == 4
    assert find([tick, ticks, 98]) == 2, "a completion begins at the start of a line"
    assert find([97, tick, ticks, line]) is None
    assert find([]) is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([97, 10, 96, 257, 258, EOS]), max_size=12))
def test_stop_finder_agrees_with_decode(ids):
    tokenizer = ByteTokenizer(words=[b"\n```\n", b"``"])
    table = prompts.token_bytes(tokenizer)
    keep = prompts.stop_finder(tokenizer, "```")(ids)
    pieces = prompts.pieces_of(ids, table)
    whole = made(pieces)
    if keep is None:
        assert whole.source.encode() == b"".join(pieces)
    else:
        assert made(pieces[:keep]).source == whole.source
        assert prompts.closing_fence(b"".join(pieces[: keep - 1]), b"```") is None


def test_byte_alphabet_is_a_bijection():
    alphabet = prompts.byte_alphabet()
    assert sorted(alphabet.values()) == list(range(256)) and len(alphabet) == 256
    assert alphabet["Ġ"] == 0x20 and alphabet["Ċ"] == 0x0A and alphabet["a"] == ord("a")


def test_added_words_read_as_they_are_and_special_ones_are_empty():
    tokenizer = ByteTokenizer()
    tokenizer.vocabulary["ü!"] = 257
    tokenizer.added_tokens_decoder[257] = Added("ü!", False)
    table = prompts.token_bytes(tokenizer)
    assert table[257] == "ü!".encode() and table[EOS] == b"" and table[10] == b"\n"


def test_unknown_kind_of_vocabulary_is_refused():
    tokenizer = ByteTokenizer()
    tokenizer.vocabulary["日本"] = 257
    with pytest.raises(
        ValueError, match=r"model.tokenizer: expected a byte-level .*'日本'"
    ):
        prompts.token_bytes(tokenizer)


TEXTS = [
    "def f(a):\n    return a + 1  # é ✓ 日本\n",
    "for i in range(10):\n\tprint(i)\r\n",
] * 8


def test_real_byte_level_tokenizer():
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    raw = tokenizers.Tokenizer(tokenizers.models.BPE())
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.train_from_iterator(
        TEXTS,
        tokenizers.trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<eos>"],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>")
    table = prompts.token_bytes(fast)
    text = TEXTS[0] + TEXTS[1] + "never seen: Ω\x00"
    ids = fast.encode(text, add_special_tokens=False)
    assert len(ids) < len(text.encode()), "merges were learnt"
    assert b"".join(table[i] for i in ids) == text.encode()
    assert table[fast.eos_token_id] == b"" and prompts.opening_ids(fast) == []


def test_real_sentencepiece_tokenizer():
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary += ["▁", "a", "b", "▁a", "ab", "é"]
    raw = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab={token: i for i, token in enumerate(vocabulary)},
            merges=[("▁", "a"), ("a", "b")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    raw.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    raw.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    table = prompts.token_bytes(fast)
    text = " ab a\n é✓b"
    ids = fast.encode(text, add_special_tokens=False)
    assert b"".join(table[i] for i in ids) == text.encode()
    assert table[1] == table[2] == b"" and prompts.opening_ids(fast) == [1]


LLAMA = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
LLAMA += ["▁", "d", "e", "f", "▁d", "▁de", "▁def", "de", "def", "x", "é", "▁▁", "▁▁▁▁"]
MERGES = [("▁", "d"), ("d", "e"), ("▁d", "e"), ("▁de", "f"), ("de", "f")]
MERGES += [("▁", "▁"), ("▁▁", "▁▁")]
CODE = "def x():\n    é = 'Ω日'  # ✓\n\tdef\r\n"


def llama_tokenizer(style):
    """A Llama-like tokenizer that puts a space before every text, in either style."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    vocabulary = {token: i for i, token in enumerate(LLAMA)}
    raw = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocabulary, MERGES, unk_token="<unk>", byte_fallback=True)
    )
    normalizers = tokenizers.normalizers
    if style == "normalizer":
        raw.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        raw.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(
            prepend_scheme="first", split=False
        )
    raw.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.mark.parametrize("style", ["normalizer", "metaspace"])
def test_a_completion_has_no_space_that_its_text_has_not(style):
    tokenizer = llama_tokenizer(style)
    table = prompts.token_bytes(tokenizer)
    alone = tokenizer.encode(CODE, add_special_tokens=False)
    assert b"".join(table[i] for i in alone) == b" " + CODE.encode()
    for text in (CODE, " x", "x", "é"):
        ids = prompts.completion_ids(text, tokenizer, table)
        assert b"".join(table[i] for i in ids) == text.encode()
    assert prompts.completion_ids("def", tokenizer, table) == [LLAMA.index("def")]


@pytest.mark.parametrize("style", ["normalizer", "metaspace"])
def test_spans_where_tokens_split_a_character(style):
    tokenizer = llama_tokenizer(style)
    table = prompts.token_bytes(tokenizer)
    ids = prompts.completion_ids(CODE, tokenizer, table)
    pieces = prompts.pieces_of(ids, table)
    assert bytes([0xE6]) in pieces  # of 日, one token per byte
    program = made(pieces)
    assert program.source == CODE
    data = program.source.encode()
    for piece, span in zip(pieces, program.token_spans, strict=True):
        assert data[slice(*span)] == piece
    ends = itertools.accumulate(len(piece) for piece in pieces)
    assert [stop for _, stop in program.token_spans] == list(ends)


def test_a_byte_level_completion_is_its_text():
    tokenizer = ByteTokenizer(words=[b"\n```\n"])
    assert prompts.completion_ids(CODE, tokenizer, TABLE) == list(CODE.encode())


def test_the_tokenizers_own_chat_template():
    tokenizer = llama_tokenizer("normalizer")
    chat = PromptConfig(template="chat", max_prompt_length=400)
    with pytest.raises(ValueError, match="expected a tokenizer with a chat template"):
        prompts.render(TASK, tokenizer, chat)
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    text = prompts.render(TASK, tokenizer, chat)
    assert text == (
        "<s>[user]write an algorithm in python:\nAdd {x} two.[assistant]"
        "```python\ndef f(a):\n"
    )
    batch = prompts.encode([TASK], tokenizer, chat, np.array([0]))
    assert (batch.tokens[0] == tokenizer.bos_token_id).sum() == 1  # not opened twice
    assert batch.tokens[0, 0] == tokenizer.bos_token_id


def test_equal_places_of_different_problems_are_different_prompts():
    other = dataclasses.replace(TASK, problem=dataclasses.replace(PROBLEM, statement="No"))
    batch = prompts.encode([TASK, other], ByteTokenizer(), config(), np.arange(2))
    assert bytes(batch.tokens[1, :2].tolist()) == b"No"


WRONG = (
    Attempt("def f(a):\n    return 1\n", Verdict.WRONG, 0, "It fails.\nGot: 1"),
    Attempt("x", Verdict.COMPILE, None, "It does not compile."),
)
AFTER = dataclasses.replace(TASK, head="", before=WRONG)


class ChatTokenizer(ByteTokenizer):
    """Writes turns between marks; `refuse` and `forget` are templates that cannot."""

    def __init__(self, manner=""):
        super().__init__()
        self.chat_template = "yes"
        self.manner = manner

    def apply_chat_template(self, conversation, tokenize, add_generation_prompt):
        assert not tokenize and add_generation_prompt
        if self.manner == "refuse" and len(conversation) > 1:
            raise ValueError("Only one\nturn is supported")
        turns = conversation[-1:] if self.manner == "forget" else conversation
        return (
            "".join(f"<{x['role']}>{x['content'].strip()}" for x in turns) + "<assistant>"
        )


def test_attempts_are_turns_in_the_plain_form():
    text = prompts.render(AFTER, ByteTokenizer(), config())
    assert text == (
        "Add {x} two.\n```python\ndef f(a):\n    return 1\n```\n"
        "It fails.\nGot: 1\nMend the program.\n"
        "```python\nx\n```\nIt does not compile.\nMend the program.\n"
    )
    explain = dataclasses.replace(AFTER, variant=Variant.EXPLAIN)
    text = prompts.render(explain, ByteTokenizer(), PromptConfig(template="deepseek"))
    request = "Explain what is wrong with the program, then mend it."
    assert text.endswith(
        "### Response:\n```python\nx\n```\n### Instruction:\nIt does not compile.\n"
        f"{request}\n### Response:\n"
    )


def test_without_feedback_the_request_stands_alone():
    silent = dataclasses.replace(WRONG[1], feedback="")
    task = dataclasses.replace(AFTER, before=(silent,))
    text = prompts.render(task, ByteTokenizer(), config())
    assert text == "Add {x} two.\n```python\nx\n```\nMend the program.\n"


def test_attempts_are_turns_of_the_chat_template():
    chat = dataclasses.replace(config(), template="chat")
    assert prompts.render(AFTER, ChatTokenizer(), chat) == (
        "<user>write an algorithm in python:\nAdd {x} two."
        "<assistant>```python\ndef f(a):\n    return 1\n```"
        "<user>It fails.\nGot: 1\nMend the program."
        "<assistant>```python\nx\n```"
        "<user>It does not compile.\nMend the program.<assistant>"
    )


@pytest.mark.parametrize(
    ("manner", "words"),
    [
        ("refuse", "refuses 5 turns (ValueError: Only one turn is supported); set the"),
        ("forget", "leaves out or changes some of 5 turns; set the template to deepseek"),
    ],
)
def test_a_template_that_does_not_take_several_turns_is_refused(manner, words):
    chat = dataclasses.replace(config(), template="chat")
    tokenizer = ChatTokenizer(manner)
    assert prompts.render(TASK, tokenizer, chat).endswith("```python\ndef f(a):\n")
    with pytest.raises(ConfigError) as refused:
        prompts.render(AFTER, tokenizer, chat)
    assert words in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match="expected a tokenizer with a chat template"):
        prompts.render(AFTER, ByteTokenizer(), chat)


class ParsingTokenizer(ChatTokenizer):
    """Reads the text of a special token as that token, as Hugging Face's do."""

    def encode(self, text, add_special_tokens):
        ids = []
        for number, part in enumerate(text.split("<eos>")):
            ids += ([EOS] if number else []) + list(part.encode())
        return ids


@pytest.mark.parametrize("template", ["plain", "chat"])
def test_what_a_program_spells_is_text_whatever_it_spells(template):
    """No program or feedback closes a turn, or ends the text."""
    hostile = (
        Attempt("x = '<eos>' # \ue000\n", Verdict.WRONG, 0, "Got: <eos><eos>"),
        Attempt("y", Verdict.WRONG, 0, "It fails."),
    )
    task, tokenizer = dataclasses.replace(AFTER, before=hostile), ParsingTokenizer()
    chosen = dataclasses.replace(config(), template=template, max_prompt_length=300)
    text = prompts.render(task, tokenizer, chosen)
    assert tokenizer.encode(text, False).count(EOS) == 3
    ids = prompts.prompt_ids(task, tokenizer, chosen)
    assert bytes(ids).decode() == text and "\ue000" in text
    (row,) = prompts.encode([task], tokenizer, chosen, [0]).tokens
    assert row[: len(ids)].tolist() == ids
    # a turn of the template's own, and the statement of the data, are as they were
    problem = dataclasses.replace(PROBLEM, statement="Print <eos>.")
    trusted = dataclasses.replace(task, problem=problem)
    assert prompts.prompt_ids(trusted, tokenizer, chosen).count(EOS) == 1


def test_a_shipped_tokenizer_reads_its_own_end_in_a_program_as_text():
    tokenizer = sources.load_tokenizer(ModelConfig(tokenizer="builtin"))
    mark = tokenizer.eos_token
    attempt = Attempt(f"print('{mark}')\n", Verdict.WRONG, 0, f"Got: {mark}")
    task = dataclasses.replace(AFTER, before=(attempt,))
    ids = prompts.prompt_ids(task, tokenizer, config())
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids) == prompts.render(task, tokenizer, config())


def test_a_context_too_long_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"problem p7: .* tokens after 2 attempts, more"):
        prompts.encode([AFTER], ByteTokenizer(), config(), np.array([0]))
