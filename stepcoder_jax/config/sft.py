"""Supervised fine-tuning."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from stepcoder_jax.config.ranges import (
    COUNT,
    NATURAL,
    POSITIVE,
    SHARE,
    Ranges,
    Rules,
    divides,
)
from stepcoder_jax.config.section import Section

if TYPE_CHECKING:
    from stepcoder_jax.config.whole import Config


@dataclasses.dataclass
class SFTConfig(Section):
    """Supervised fine-tuning: linear warm-up, then linear decay to zero.

    The paper's (section 4.2): 3 epochs, 64 examples per update, 2e-5, warm-up over 0.3
    epoch, which is 0.1 of all updates. It gives no weight decay; the rest is ours.
    """

    split: Literal["sft", "train"] = "train"  # "sft": that part of the generated benchmark
    # judged samples, as `stepcoder evaluate --out` and `stepcoder judge` write them, to
    # learn those that passed (RAFT) in place of the split's canonical solutions
    samples: tuple[str, ...] = ()
    per_problem: int = 0  # most samples of one problem, drawn by the seed; 0: no cap
    # records of `stepcoder refine`, to learn right refinements as well, each with and
    # without its explanation, and of first programs those of the same problems alone
    records: tuple[str, ...] = ()
    # most right refinements of one wrong program, drawn by the seed; 0: no cap; the paper
    # (arXiv:2405.18649) cannot have had more than one
    per_wrong: int = 1
    blank_wrong: float = (
        0.0  # share of a wrong program's tokens in place of which "_" stands
    )
    # "first": the first programs alone, as many rows and updates as with the refinements
    control: Literal["none", "first"] = "none"
    epochs: float = 3.0
    batch_size: int = 64  # rows; with packing a row holds several examples
    packing: int = 0  # tokens of a packed row; 0: one example per row
    num_micro_batches: int = 1  # gradient accumulation inside a batch
    learning_rate: float = 2e-5
    warmup_fraction: float = 0.1  # of all updates
    weight_decay: float = 0.0
    minutes: float = 0.0  # stop after this much wall time; 0: no limit

    ranges: ClassVar[Ranges] = {
        **dict.fromkeys(("per_problem", "per_wrong", "packing"), NATURAL),
        **dict.fromkeys(("batch_size", "num_micro_batches"), COUNT),
        **dict.fromkeys(("learning_rate", "weight_decay", "minutes"), NATURAL),
        "epochs": POSITIVE,
        **dict.fromkeys(("warmup_fraction", "blank_wrong"), SHARE),
    }


_NO_RECORDS = {
    "control": "none, since there are no sft.records to be the control of",
    "blank_wrong": "0, since there are no sft.records with wrong programs",
}


def rules(config: Config) -> Rules:
    """Of judged samples, of records, and of the parts of a batch."""
    sft = config.sft
    yield (
        "sft.per_problem",
        bool(sft.samples) or not sft.per_problem,
        "0, since there is no sft.samples to cap",
    )
    for name, is_default in (
        ("control", sft.control == "none"),
        ("blank_wrong", not sft.blank_wrong),
    ):
        yield f"sft.{name}", bool(sft.records) or is_default, _NO_RECORDS[name]
    yield "sft.num_micro_batches", *divides(sft.num_micro_batches, sft.batch_size)
