"""Tasks to tokens, and completion tokens back to programs with byte-exact spans.

Spans come from the generated ids' own bytes; nothing is ever tokenised twice. The
tokenizer is an argument: any object with the few members of `Tokenizer`.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from stepcoder_jax import syntax
from stepcoder_jax.config import ConfigError, PromptConfig
from stepcoder_jax.feedback.turns import describe_test, exchanges, part_words
from stepcoder_jax.pytrees import PromptBatch
from stepcoder_jax.records import Problem, Program, Span, Task

# arXiv:2402.01391, appendix D; the backbone's own instruction format.
SYSTEM = (
    "You are an AI programming assistant, utilizing the Deepseek Coder model, developed by "
    "Deepseek Company, and you only answer questions related to computer science. For "
    "politically sensitive questions, security and privacy issues, and other non-computer "
    "science questions, you will refuse to answer."
)
REQUEST = "write an algorithm in python:\n{statement}"
TEMPLATES = {
    "deepseek": f"{SYSTEM}\n### Instruction:\n{REQUEST}\n### Response:\n",
    "plain": "{statement}\n",
    "chat": "",  # the tokenizer's own
}

# Behind a program, in the place of the statement's template.
FOLLOWING = {
    "deepseek": "### Instruction:\n{message}\n### Response:\n",
    "plain": "{message}\n",
}


class Tokenizer(Protocol):
    """What is asked of a tokenizer; those of Hugging Face have it all."""

    bos_token_id: int | None
    all_special_ids: list[int]
    added_tokens_decoder: dict[int, Any]  # id -> object with .content and .special
    chat_template: Any  # None where it has none

    def apply_chat_template(
        self,
        conversation: list[dict[str, str]],
        tokenize: bool,
        add_generation_prompt: bool,
    ) -> Any: ...

    def encode(self, text: str, add_special_tokens: bool) -> list[int]: ...

    def get_vocab(self) -> dict[str, int]: ...


def render(task: Task, tokenizer: Tokenizer, config: PromptConfig) -> str:
    """Return the text put before the model: statement, opened code fence, head.

    The authors' later release opens the response with the fence and the starter code in
    the same way; the prefix of a later stage takes the starter code's place. Template
    "chat" is the tokenizer's own, with the paper's request as the user's message. A task
    with attempts before it is a conversation, up to the next response, without a fence.
    """
    if config.template not in TEMPLATES:
        raise ConfigError(
            f"prompt.template: expected one of {sorted(TEMPLATES)}, got {config.template!r}"
        )
    # str.replace, since a statement may hold braces.
    statement = _statement_of(task.problem, config)
    if task.before:
        return _render_turns(task, statement, tokenizer, config)
    if config.template == "chat":
        opening = chat_opening(tokenizer, REQUEST.replace("{statement}", statement))
    else:
        opening = TEMPLATES[config.template].replace("{statement}", statement)
    fence = f"{config.fence}python\n"
    # the template of an exported run opens the fence itself (chat_template)
    return f"{opening.removesuffix(fence)}{fence}{task.head}"


def _statement_of(problem: Problem, config: PromptConfig) -> str:
    """The statement, with `config.show_visible` and those visible tests that it lacks."""
    statement = problem.statement.rstrip()
    if not config.show_visible:
        return statement
    tests = [describe_test(problem, test) for test in problem.visible_tests]
    lacking = [text for text in tests if text not in statement]
    return "\n".join([statement, "It must pass:", *lacking]) if lacking else statement


def _render_turns(
    task: Task, statement: str, tokenizer: Tokenizer, config: PromptConfig
) -> str:
    """Return the statement, and of each attempt the program and the next message."""
    pairs = exchanges(task.before, task.variant, config.fence)
    if config.template == "chat":
        request = REQUEST.replace("{statement}", statement)
        return _chat_turns(tokenizer, [request, *itertools.chain.from_iterable(pairs)])
    opening = TEMPLATES[config.template].replace("{statement}", statement)
    parts = [
        f"{program}\n{FOLLOWING[config.template].replace('{message}', message)}"
        for program, message in pairs
    ]
    return "".join([opening, *parts])


def _chat_turns(tokenizer: Tokenizer, turns: Sequence[str]) -> str:
    """Return turns, the user's first, in the chat template, up to the next response."""
    _require_chat_template(tokenizer)
    roles = itertools.cycle(["user", "assistant"])
    conversation = [{"role": role, "content": text} for role, text in zip(roles, turns)]
    mend = "set the template to deepseek or plain"
    try:
        text: str = tokenizer.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # the template's own, of a library that is not known here
        said = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"prompt.template: the tokenizer's chat template refuses {len(turns)} turns "
            f"({type(error).__name__}: {said}); {mend}"
        ) from error
    if not all(turn.strip() in text for turn in turns):
        raise ConfigError(
            f"prompt.template: the tokenizer's chat template leaves out or changes some of "
            f"{len(turns)} turns; {mend}"
        )
    return text


def chat_opening(tokenizer: Tokenizer, message: str) -> str:
    """Return a user's message in the tokenizer's chat template, up to the response."""
    _require_chat_template(tokenizer)
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
    )


def _require_chat_template(tokenizer: Tokenizer) -> None:
    if tokenizer.chat_template is None:
        raise ConfigError(
            "prompt.template: expected a tokenizer with a chat template for 'chat', this "
            "one has none; set --prompt.template deepseek or plain"
        )


def chat_template(tokenizer: Tokenizer, config: PromptConfig) -> str:
    """Return a chat template (Jinja) that renders the last message as `render` does.

    With it `apply_chat_template` gives a program that loads the model the prompt that the
    model was trained on, for problems without starter code.
    """
    before, after = TEMPLATES[config.template].split("{statement}")
    bos = "bos_token + " if opening_ids(tokenizer) else ""
    fence = json.dumps(f"{after}{config.fence}python\n")
    return (
        f"{{{{ {bos}{json.dumps(before)} + messages[-1]['content'].rstrip() + {fence} }}}}"
    )


def opening_ids(tokenizer: Tokenizer) -> list[int]:
    """Return the beginning-of-sequence id where the tokenizer opens a text with one."""
    marks = tokenizer.encode("", add_special_tokens=True)
    return [marks[0]] if marks and marks[0] == tokenizer.bos_token_id else []


def prompt_ids(task: Task, tokenizer: Tokenizer, config: PromptConfig) -> list[int]:
    """Return the tokens of `render`.

    What a program or its feedback spells is text, whatever it spells: a model that writes
    the mark of a turn, or of the end, closes nothing.
    """
    if not task.before:
        return _ids_of([render(task, tokenizer, config)], tokenizer, config)
    added = tokenizer.added_tokens_decoder.values()
    special = [token.content for token in added if token.special]
    before, mark = part_words(task.before, special)
    text = render(dataclasses.replace(task, before=before), tokenizer, config)
    return _ids_of(text.split(mark) if mark else [text], tokenizer, config)


def _ids_of(parts: Sequence[str], tokenizer: Tokenizer, config: PromptConfig) -> list[int]:
    """Return the tokens of texts behind each other; a chat template has its own opening."""
    ids = tokenizer.encode(parts[0], add_special_tokens=False)
    for part in parts[1:]:
        ids += _ids_behind(part, tokenizer)
    return ids if config.template == "chat" else opening_ids(tokenizer) + ids


def _ids_behind(text: str, tokenizer: Tokenizer) -> list[int]:
    """Return the tokens of a text that stands behind others, without a space before it."""
    lead = tokenizer.encode("\n", add_special_tokens=False)
    ids = tokenizer.encode("\n" + text, add_special_tokens=False)
    if ids[: len(lead)] == lead:
        return ids[len(lead) :]
    return tokenizer.encode(text, add_special_tokens=False)


def completion_ids(text: str, tokenizer: Tokenizer, table: list[bytes]) -> list[int]:
    """Return the tokens of a text that stands behind others, such as a solution.

    Llama's tokenizers put a space before every text. So the text is encoded behind a
    newline, and the newline's tokens, which hold that space, are taken off again.
    """
    lead = tokenizer.encode("\n", add_special_tokens=False)
    if not b"".join(pieces_of(lead, table)).startswith(b" "):
        return tokenizer.encode(text, add_special_tokens=False)
    ids = tokenizer.encode("\n" + text, add_special_tokens=False)
    if ids[: len(lead)] != lead:
        raise ConfigError(
            "model.tokenizer: expected newlines to be tokens of their own, since this one "
            "puts a space before every text; give another --model.tokenizer"
        )
    return ids[len(lead) :]


def encode(
    tasks: Sequence[Task], tokenizer: Tokenizer, config: PromptConfig, index: np.ndarray
) -> PromptBatch:
    """Return the tasks as a batch of prompts, packed from the left.

    The width is always `config.max_prompt_length`, so that no step compiles twice. `index`
    is the global rollout index of each row. A longer prompt is an error, never cut.
    """
    width = config.max_prompt_length
    known: dict[str, list[int]] = {}
    tokens = np.zeros((len(tasks), width), np.int32)
    lengths = np.zeros(len(tasks), np.int32)
    for row, task in enumerate(tasks):
        text = render(task, tokenizer, config)
        if text not in known:
            known[text] = prompt_ids(task, tokenizer, config)
        ids = known[text]
        if len(ids) > width:
            raise ConfigError(
                f"problem {task.problem.id}: the prompt has {len(ids)} tokens "
                f"{_place_of(task)}, more than prompt.max_prompt_length={width}; raise "
                "that field or drop the problem"
            )
        tokens[row, : len(ids)] = ids
        lengths[row] = len(ids)
    return PromptBatch(tokens, lengths, np.asarray(index, np.int32))


def _place_of(task: Task) -> str:
    """Which of its problem's prompts a task's is, in words."""
    if task.before:
        return f"after {len(task.before)} attempts"
    return f"at stage {task.stage}"


def lengths_over(
    tasks: Sequence[Task], tokenizer: Tokenizer, config: PromptConfig
) -> dict[str, tuple[int, int]]:
    """Tokens and stage of each problem's longest prompt over `max_prompt_length`, by id."""
    found: dict[str, tuple[int, int]] = {}
    for task in tasks:
        size, name = len(prompt_ids(task, tokenizer, config)), task.problem.id
        if size > max(config.max_prompt_length, found.get(name, (0, 0))[0]):
            found[name] = size, task.stage
    return found


def byte_alphabet() -> dict[str, int]:
    """Return the characters in which byte-level BPE writes bytes (GPT-2, encoder.py).

    Printable Latin-1 bytes stand for themselves, the other 68 for U+0100 onwards.
    """
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    alphabet = {chr(byte): byte for byte in shown}
    alphabet.update((chr(256 + place), byte) for place, byte in enumerate(hidden))
    return alphabet


def sentencepiece_bytes(token: str) -> bytes:
    """Return the bytes of a SentencePiece token: `<0x0A>` is one byte, `▁` a space."""
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """Return the bytes that each id stands for; nothing for special tokens.

    Knows byte-level BPE and SentencePiece vocabularies with byte fall-back; any other is
    an error, since spans from guessed bytes would silently be wrong.
    """
    vocabulary = tokenizer.get_vocab()
    added = tokenizer.added_tokens_decoder
    special = set(tokenizer.all_special_ids)
    special.update(token_id for token_id, token in added.items() if token.special)
    table = [b""] * (max(vocabulary.values()) + 1)
    alphabet = byte_alphabet()
    plain = {token: i for token, i in vocabulary.items() if i not in special | added.keys()}
    is_byte_level = all(alphabet.keys() >= set(token) for token in plain)
    if not is_byte_level and not any("▁" in token or token == "<0x0A>" for token in plain):
        strange = next(token for token in plain if not alphabet.keys() >= set(token))
        raise ConfigError(
            "model.tokenizer: expected a byte-level BPE or a SentencePiece vocabulary, got "
            f"one with the token {strange!r}; its tokens cannot be turned into bytes"
        )
    for token, token_id in plain.items():
        if is_byte_level:
            table[token_id] = bytes(alphabet[char] for char in token)
        else:
            table[token_id] = sentencepiece_bytes(token)
    for token_id, token in added.items():
        if token_id not in special:  # added words are stored as they read
            table[token_id] = token.content.encode()
    return table


def closing_fence(code: bytes, fence: bytes) -> int | None:
    """Return where the fence first opens a line of `code`, or None."""
    if code.startswith(fence):
        return 0
    place = code.find(b"\n" + fence)
    return None if place < 0 else place + 1


def pieces_of(ids: Sequence[int], table: list[bytes]) -> list[bytes]:
    """Return the bytes of each id; none for ids that only pad the vocabulary."""
    return [table[token_id] if token_id < len(table) else b"" for token_id in ids]


def stop_finder(tokenizer: Tokenizer, fence: str) -> Callable[[list[int]], int | None]:
    """Return a function: completion ids -> tokens to keep once the closing fence is whole.

    It answers None while the fence is not complete. The token that completes the fence is
    kept: it carries the reward.
    """
    table = token_bytes(tokenizer)
    mark = fence.encode()

    def find_stop(ids: list[int]) -> int | None:
        pieces = pieces_of(ids, table)
        place = closing_fence(b"".join(pieces), mark)
        if place is None:
            return None
        ends = itertools.accumulate(len(piece) for piece in pieces)
        return 1 + next(i for i, end in enumerate(ends) if end >= place + len(mark))

    return find_stop


def program_of(task: Task, pieces: Sequence[bytes], fence: bytes) -> Program:
    """Return the program that a completion makes, with the span of each of its tokens.

    The code ends before the closing fence, else with the completion. A token that is
    partly code has the span of its part; one wholly outside, or without bytes, has None.
    """
    completion = b"".join(pieces)
    end = closing_fence(completion, fence)
    return part_of(task, pieces, 0, len(completion) if end is None else end)


def part_of(task: Task, pieces: Sequence[bytes], first: int, end: int) -> Program:
    """Return the program whose code, behind the head, is these bytes of the pieces."""
    text, ranges = syntax.decode_lossy(b"".join(pieces)[first:end])
    base = len(task.head.encode())
    spans: list[Span | None] = []
    begin = -first  # of the piece, in the code
    for piece in pieces:
        start, stop = max(begin, 0), min(begin + len(piece), end - first)
        if start < stop:
            spans.append((base + ranges[start][0], base + ranges[stop - 1][1]))
        else:
            spans.append(None)
        begin += len(piece)
    return Program(
        problem=task.problem,
        source=task.head + text,
        generated_from=base,
        token_spans=tuple(spans),
    )


def decode(task: Task, ids: Sequence[int], table: list[bytes], fence: str) -> Program:
    """Return the program of a completion's ids; `table` is `token_bytes(tokenizer)`.

    `token_spans` has one entry for each id.
    """
    return program_of(task, pieces_of(ids, table), fence.encode())
