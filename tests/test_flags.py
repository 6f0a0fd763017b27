"""One name per meaning and one meaning per name, over the flags of all commands."""

import argparse
import dataclasses
import typing

import pytest

from stepcoder_jax import __main__
from stepcoder_jax.__main__ import COMMANDS
from stepcoder_jax.cli.parser import Parser, hyphenate
from stepcoder_jax.commands import compare, data, judge, refine, report
from stepcoder_jax.config import Config

# What every flag means, whichever command has it: its kind, and its one meaning. Dotted
# flags are fields of the config, in train, sft and wherever `execution` is an option.
FLAGS = {
    "split": ("text", "which problems of a run, or of the generated benchmark"),
    "tier": ("text", "which tier of the generated benchmark"),
    "step": ("number", "which checkpoint"),
    "before": ("switch", "the model that a run began with"),
    "problems": ("text", "a problem file"),
    "wrong": ("texts", "files of results whose failed programs are mended"),
    "teacher": ("text", "who mends them"),
    "answers": ("number", "how many answers a teacher gives to a program"),
    "teacher-temperature": ("number", "of sampling these answers"),
    "resume": ("switch", "go on with what was begun, as run.resume"),
    "samples-per-problem": ("number", "how many programs are drawn for each problem"),
    "count": ("number", "how many problems are shown"),
    "rounds": ("number", "how often a model may mend a program that fails a visible test"),
    "variant": ("text", "what it is asked for then"),
    "feedback": ("text", "what it is told then"),
    "refine-all": ("switch", "whether it answers again to a program that passes, too"),
    "temperature": ("number", "of sampling, as in sampling.temperature"),
    "top-p": ("number", "of sampling, as in sampling.top_p"),
    "template": ("text", "of the prompt, as in prompt.template"),
    "max-prompt-length": ("number", "tokens, as in prompt.max_prompt_length"),
    "max-completion-length": ("number", "tokens, as in sampling.max_completion_length"),
    "k": ("numbers", "which pass@k"),
    "kind": ("text", "what a head says of a program"),
    "critic": ("text", "the folder of a head, of critic sampling"),
    "pool": ("text", "of outcomes, what the maximum over tokens is taken of"),
    "epochs": ("number", "over the judged programs that a head learns from"),
    "learning-rate": ("number", "of a head"),
    "seed": ("number", "of what is drawn at random"),
    "out": ("text", "where results go"),
    "dtype": ("text", "of the weights that are written"),
    "force": ("switch", "overwrite what is there"),
    "strict": ("switch", "stop at the first bad row, as in data.strict"),
    "solutions": ("text", "which programs of a problem file are run"),
    "write-limits": ("switch", "measure CPU limits and keep them"),
    "jobs": ("number", "short for execution.workers"),
    "timeout": ("number", "short for execution.cpu_seconds, whatever was measured"),
    "min-level": ("number", "short for execution.min_level"),
    "unlike": ("switch", "compare what was decoded in different ways"),
    "common": ("switch", "compare on the problems that all have"),
    "tokenizer": ("text", "a tokenizer's folder, as in model.tokenizer"),
    "coverage": ("switch", "run canonical solutions and note what tests execute"),
    "json": ("switch", "print JSON"),
    "train": ("text", "problem file of the train split"),
    "validation": ("text", "problem file of the validation split, as in data.validation"),
    "test": ("text", "problem file of the test split, as in data.test"),
    "against": ("texts", "benchmark files that train should have nothing of"),
    "drop": ("texts", "reasons that drop a problem"),
    "duplicate": ("number", "similarity from which on statements are near duplicates"),
    "report": ("text", "the report of a curation"),
    "hosts": ("switch", "whether the other hosts of a run are looked at as well"),
    "run.folder": ("text", "the folder of a run, as run.folder"),
    "run.join-minutes": ("number", "of waiting for other hosts, as run.join_minutes"),
    "rollouts": ("number", "how many rollouts are kept in a report"),
    "topology": ("texts", "slices of TPUs or numbers of GPUs that are planned for"),
    "analytic": ("switch", "plan by shapes and formulas alone"),
    "search": ("switch", "plan for other meshes, micro-batches and slots as well"),
    "judge-ms": ("number", "CPU time that the judge takes for a program"),
}
OPTIONS = {
    "judge": judge.JudgeOptions,
    "refine": refine.RefineOptions,
    "compare": compare.CompareOptions,
    "report": report.ReportOptions,
    **{f"data {verb}": kind for verb, (kind, _) in data.VERBS.items()},
}
PARSED = ("evaluate", "sample", "export", "replay", "head", "doctor", "plan")


class Found(Exception):
    """The parser that a command made."""


def parser_of(command, monkeypatch):
    def stop(self, args=None, namespace=None):
        raise Found(self)

    for name in ("parse_args", "parse_known_args"):  # some flags are the config's
        monkeypatch.setattr(Parser, name, stop)
    with pytest.raises(Found) as found:
        COMMANDS[command]([])
    return found.value.args[0]


def kind_of_action(action):
    if isinstance(action, argparse._StoreTrueAction):
        return "switch"
    word = "number" if action.type in (int, float) else "text"
    return word + "s" * (action.nargs == "+")


def kind_of_field(hint):
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    parts = [part for part in typing.get_args(hint) if part not in (type(None), ...)]
    if typing.get_origin(hint) is tuple:
        return kind_of_field(parts[0]) + "s"
    hint = parts[0] if parts and typing.get_origin(hint) is not typing.Literal else hint
    return {bool: "switch", int: "number", float: "number"}.get(hint, "text")


def flags_of(command, monkeypatch):
    """(flag, kind) of a command's own flags, without dashes."""
    if command in PARSED:
        actions = parser_of(command, monkeypatch)._actions
        named = [action for action in actions if action.option_strings]
        return [
            (action.option_strings[0].lstrip("-"), kind_of_action(action))
            for action in named
            if action.dest != "help"
        ]
    kind = OPTIONS[command]
    hints = typing.get_type_hints(kind, include_extras=True)
    return [
        (hyphenate(name), kind_of_field(hint))
        for name, hint in hints.items()
        if not dataclasses.is_dataclass(hint) and "Positional" not in str(hint)
    ]


@pytest.mark.parametrize("command", [*PARSED, *OPTIONS])
def test_a_flag_means_the_same_in_every_command(command, monkeypatch):
    found = flags_of(command, monkeypatch)
    assert found or command in ("replay", "doctor")  # which have none
    for name, kind in found:
        assert name in FLAGS, f"--{name} of {command}: say in FLAGS what it means"
        # where one command takes one of a kind another may take some
        wanted = FLAGS[name][0]
        assert kind in (wanted, f"{wanted}s"), f"--{name} of {command} is another kind"


def test_a_meaning_has_one_flag():
    meanings = [meaning for _, meaning in FLAGS.values()]
    assert len(set(meanings)) == len(meanings)
    assert set(OPTIONS) | set(PARSED) | {"train", "sft", "data"} == {*COMMANDS, *OPTIONS}


def test_what_is_said_to_be_a_field_of_the_config_is_one():
    words = [word for _, text in FLAGS.values() for word in text.replace(",", "").split()]
    fields = [word for word in words if "." in word]
    assert len(fields) >= 8
    for field in fields:
        value = Config()
        for part in field.split("."):
            value = getattr(value, part)


def test_hyphens_and_underscores_are_alike(capsys):
    assert hyphenate("--top_p=a_b") == "--top-p=a_b"
    for word in ("--top_p", "--top-p"):
        assert __main__.main(["evaluate", "nowhere", word, "x"]) == 2
        assert "invalid float value: 'x'" in capsys.readouterr().err
