"""What each field of a config may hold by itself: its type, its choices, its range.

Which fields go together is said in `config`. A number is finite, whatever its range.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple


class Range(NamedTuple):
    """Numbers from `low` to `high`; an end that is open does not belong to them."""

    low: float = -math.inf
    high: float = math.inf
    is_open: str = ""  # "(" for the low end, ")" for the high one

    def holds(self, number: float) -> bool:
        above = number > self.low if "(" in self.is_open else number >= self.low
        below = number < self.high if ")" in self.is_open else number <= self.high
        return math.isfinite(number) and above and below

    def __str__(self) -> str:
        if self.high < math.inf:
            left = "(" if "(" in self.is_open else "["
            right = ")" if ")" in self.is_open else "]"
            return f"a number in {left}{self.low:g}, {self.high:g}{right}"
        if self.low == -math.inf:
            return "a finite number"
        return f"{'more than' if '(' in self.is_open else 'at least'} {self.low:g}"


FINITE = Range()
POSITIVE = Range(0, is_open="(")
NATURAL = Range(0)  # 0 is off, or all
COUNT = Range(1)
SHARE = Range(0, 1)
BELOW_ONE = Range(0, 1, is_open=")")  # 0 is off
WITHIN = Range(0, 1, is_open="()")
ABOVE_ZERO = Range(0, 1, is_open="(")

OPTIMIZER = {
    "learning_rate": NATURAL,
    "warmup_steps": NATURAL,
    "b1": BELOW_ONE,
    "b2": BELOW_ONE,
    "eps": POSITIVE,
    "weight_decay": NATURAL,
    "max_grad_norm": POSITIVE,
}
# Every number of the config.
RANGES: dict[str, dict[str, Range]] = {
    "run": {
        **dict.fromkeys(("total_steps", "save_every", "keep", "max_empty"), COUNT),
        **dict.fromkeys(("seed", "rollouts_every"), NATURAL),
        "step": Range(-1),
    },
    "model": {
        **dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size"), COUNT),
        **dict.fromkeys(("num_layers", "num_heads", "num_kv_heads", "head_dim"), COUNT),
        **dict.fromkeys(("max_positions", "rope_context", "unroll"), COUNT),
        **dict.fromkeys(("rope_theta", "rope_factor", "rope_amplitude"), POSITIVE),
        **dict.fromkeys(("rope_slow", "rope_fast"), POSITIVE),
        **dict.fromkeys(("norm_eps", "lora_alpha"), POSITIVE),
        **dict.fromkeys(("sliding_window", "lora_rank"), NATURAL),
    },
    "prompt": {"max_prompt_length": COUNT},
    "sampling": {
        **dict.fromkeys(("problems_per_step", "rollouts_per_problem"), COUNT),
        **dict.fromkeys(("max_completion_length", "chunk"), COUNT),
        **dict.fromkeys(("top_k", "slots"), NATURAL),
        "temperature": POSITIVE,  # PPO explores
        "top_p": ABOVE_ZERO,
        "min_p": BELOW_ONE,
    },
    "ppo": {
        **dict.fromkeys(("num_epochs", "num_minibatches", "num_micro_batches"), COUNT),
        **dict.fromkeys(("value_coef", "entropy_coef", "kl_coef"), NATURAL),
        "widths": COUNT,
        "clip_eps": WITHIN,
        "value_clip_eps": POSITIVE,
        **dict.fromkeys(("gamma", "gae_lambda"), SHARE),
        "critic_warmup_steps": NATURAL,
    },
    "ppo.actor": OPTIMIZER,
    "ppo.critic": OPTIMIZER,
    "grpo": {"clip_low": WITHIN, "clip_high": POSITIVE, "kl_coef": NATURAL},
    "cccs": {"alpha": ABOVE_ZERO, "threshold": BELOW_ONE, "full_fraction": SHARE},
    "reward": dict.fromkeys(("passed", "wrong", "runtime", "compile"), FINITE),
    "execution": {
        **dict.fromkeys(("workers", "cache_size"), NATURAL),
        **dict.fromkeys(("memory_mb", "output_mb"), COUNT),
        "cpu_seconds": POSITIVE,
        "min_level": Range(0, 3),
    },
    "data": {"pool_size": NATURAL},
    "mesh": dict.fromkeys(("data", "fsdp", "tensor"), Range(-1)),
    "evaluation": {
        **dict.fromkeys(("every", "validation_problems", "test_problems"), NATURAL),
        "batch_size": COUNT,
    },
    "sft": {
        **dict.fromkeys(("per_problem", "packing"), NATURAL),
        **dict.fromkeys(("batch_size", "num_micro_batches"), COUNT),
        **dict.fromkeys(("learning_rate", "weight_decay", "minutes"), NATURAL),
        "epochs": POSITIVE,
        "warmup_fraction": SHARE,
    },
}


class Field(NamedTuple):
    """A field of a config, by its dotted name."""

    name: str
    kind: Any  # its annotation
    value: Any


def fields_of(config: Any, prefix: str = "") -> Iterator[Field]:
    """All fields of a config and of the dataclasses in it."""
    kinds = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            yield from fields_of(value, f"{name}.")
        else:
            yield Field(name, kinds[field.name], value)


def check_field(field: Field) -> str:
    """What the field was expected to hold, where it does not; "" where it does."""
    kind = field.kind
    if typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        known = [x for x in choices if type(x) is type(field.value) and x == field.value]
        return "" if known else f"one of {', '.join(map(str, choices))}"
    if typing.get_origin(kind) is tuple:
        each = typing.get_args(kind)[0]
        if not isinstance(field.value, (tuple, list)):
            return f"a tuple of {each.__name__}"
        return next(filter(None, (_check(field.name, each, x) for x in field.value)), "")
    return _check(field.name, kind, field.value)


def _check(name: str, kind: Any, value: Any) -> str:
    if kind in (int, float):
        wanted = range_of(name)
        is_number = type(value) is int or (kind is float and isinstance(value, float))
        said = "a whole number, " if kind is int else ""
        return "" if is_number and wanted.holds(value) else f"{said}{wanted}"
    return "" if isinstance(value, kind) else f"a value of type {kind.__name__}"


def range_of(name: str) -> Range:
    """The range of a number by the field's dotted name."""
    section, _, field = name.rpartition(".")
    return RANGES.get(section, {}).get(field, FINITE)
