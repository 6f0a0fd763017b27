"""A run's folder and length, and the devices that it runs on."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from stepcoder_jax.config.ranges import COUNT, NATURAL, POSITIVE, Range, Ranges
from stepcoder_jax.config.section import Section


@dataclasses.dataclass
class RunConfig(Section):
    """One run and its folder."""

    folder: str = "runs/run"
    # the run ends after so many iterations, or after the first at whose end it has
    # generated so many completion tokens (0: any number), whichever comes first
    total_steps: int = 1000
    total_tokens: int = 0
    seed: int = 0
    save_every: int = 50  # iterations (of SFT: updates) between checkpoints
    # checkpoints kept beside the best one; 1 leaves none to go back to from a damaged one
    keep: int = 2
    # go on with the run in the folder; auto: if there is one, else begin it
    resume: Literal["no", "yes", "auto"] = "no"
    step: int = -1  # the checkpoint to go on from; -1: the newest
    # iterations in a row without a row that the judge could judge, after which a run stops
    max_empty: int = 10
    join_minutes: float = 5.0  # of waiting, at the start, for the other hosts
    # seconds without a word of a host after which it is lost; minutes that a part of an
    # iteration may take on several hosts in any case, else ten times its median
    lost_seconds: float = 30.0
    stall_minutes: float = 15.0
    # of the allocation, from its start, before whose end the run saves and ends; 0: as
    # Slurm says, else none
    walltime: float = 0.0  # minutes
    rollouts_every: int = 1  # iterations between rollouts/STEP.jsonl files; 0: none
    # who is told of the metrics, beside metrics.jsonl, which is always there; jsonl: nobody
    track: Literal["tensorboard", "wandb", "jsonl"] = "tensorboard"
    compilation_cache: str = ""  # folder of XLA's persistent cache; "": none

    ranges: ClassVar[Ranges] = {
        **dict.fromkeys(("total_steps", "save_every", "keep", "max_empty"), COUNT),
        **dict.fromkeys(("total_tokens", "seed", "rollouts_every"), NATURAL),
        **dict.fromkeys(("join_minutes", "lost_seconds", "stall_minutes"), POSITIVE),
        "step": Range(-1),
        "walltime": NATURAL,
    }


@dataclasses.dataclass
class MeshConfig(Section):
    """Devices along each axis; -1 takes what is left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    ranges: ClassVar[Ranges] = dict.fromkeys(("data", "fsdp", "tensor"), Range(-1))
