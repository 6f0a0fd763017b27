"""Chips and the slices of them, with the figures that their makers publish.

  TPU       docs.cloud.google.com/tpu/docs/v4, v5e, v5p and v6e (read in December 2026):
            peaks in bfloat16, bandwidths; of v6e both 1,638 and 1,640 GB/s are found
  ICI       the same pages give bytes per second of a chip in both directions over all its
            links: 400 GB/s of v5e (4 links), 1,200 of v5p (6), 800 of v6e (4). A ring over
            one axis of the torus receives by two links: 100, 200, 200 GB/s. `link` is a
            tenth lower, after "How to scale your model", part 2 (one link in one direction
            has 45, 90, 90 GB/s); for v4 we know of that book alone
  H100 SXM  NVIDIA's datasheet: 989 TFLOP/s dense, 3.35 TB/s, NVLink 900 GB/s of both ways
  A100 SXM  NVIDIA's datasheet, 80 GB: 312 TFLOP/s dense, 2,039 GB/s, NVLink 600 of both

A second source is the table of JAX's TPU kernels (get_tpu_info_for_chip of
jax.experimental.pallas.tpu, jax 0.10.2): peaks within 1 % and bandwidths within 3 % of
these, but for v5p, of which it has 2,460 GB/s.

`memory` of a TPU is what its compiler gives to a program (libtpu 0.0.42 says so where a
program needs more), but for v4, whose two cores it describes as chips of their own; a GPU's
is what its driver shows. The datasheets of GPUs were read as others quote them.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from stepcoder_jax.records import InputError

GIB = 2**30


class PlanError(InputError):
    """What was asked of a plan cannot be planned; the message names the mend."""


class Chip(NamedTuple):
    """One chip, by what bounds a program on it."""

    name: str
    memory: int  # bytes that a program may use
    bandwidth: float  # of that memory, bytes per second
    flops: float  # bfloat16 products, peak per second
    link: float  # bytes per second that it receives in a collective
    per_host: int  # chips of one host of a slice
    dims: int  # of the torus; 0: not a TPU, and only the analytic part is known


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", int(30.75 * GIB), 1200e9, 275e12, 90e9, 4, 3),
        Chip("v5e", int(15.75 * GIB), 819e9, 197e12, 90e9, 4, 2),
        Chip("v5p", int(95.74 * GIB), 2765e9, 459e12, 180e9, 4, 3),
        Chip("v6e", int(31.25 * GIB), 1640e9, 918e12, 180e9, 4, 2),
        Chip("h100", int(79.6 * GIB), 3350e9, 989e12, 450e9, 8, 0),
        Chip("a100", int(79.6 * GIB), 2039e9, 312e12, 300e9, 8, 0),
    )
}
# of a slice with two dimensions; those with three are any multiples of 2 (and 2x2x1)
FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")


class Topology(NamedTuple):
    """A slice of TPUs, or a number of GPUs."""

    name: str  # v5e:8x8
    chip: Chip
    size: int  # chips in all

    @property
    def hosts(self) -> int:
        return -(-self.size // self.chip.per_host)


def known() -> str:
    """The topologies there are, in words."""
    tpus = (
        f"{chip.name}:{{{','.join(FLAT if chip.dims == 2 else CUBES)}}}"
        for chip in CHIPS.values()
        if chip.dims
    )
    gpus = (f"{chip.name}:N" for chip in CHIPS.values() if not chip.dims)
    return ", ".join((*tpus, *gpus))


def parse(name: str) -> Topology:
    """A topology by its name; PlanError, with those there are, for another."""
    kind, _, shape = name.partition(":")
    chip = CHIPS.get(kind)
    if chip is not None and chip.dims == 0 and re.fullmatch(r"[1-9]\d{0,4}", shape):
        return Topology(name, chip, int(shape))
    if chip is not None and shape in (FLAT if chip.dims == 2 else CUBES):
        return Topology(name, chip, math.prod(int(n) for n in shape.split("x")))
    raise PlanError(f"--topology: there is no {name!r}; there are {known()}")
