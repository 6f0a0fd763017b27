"""Commands that take an EXPERIMENT: train, sft, and plan, which runs nothing of it."""

from __future__ import annotations

import os

from stepcoder_jax.cli.experiment import parse_config, prepare
from stepcoder_jax.cli.parser import Parser


def run_train(argv: list[str]) -> int:
    config = prepare("train", [word for word in argv if word != "--plan"])
    if "--plan" in argv:
        from stepcoder_jax.commands import plan

        if code := plan.of_this_machine(config):
            return code
    from stepcoder_jax import train

    return train.train(config)


def run_plan(argv: list[str]) -> int:
    parser = Parser(prog="stepcoder plan EXPERIMENT", allow_abbrev=False)
    parser.add_argument(
        "--topology",
        nargs="+",
        required=True,
        metavar="NAME",
        help="slices of TPUs, such as v5e:8x8, or numbers of GPUs, such as h100:8",
    )
    parser.add_argument(
        "--analytic",
        action="store_true",
        help="count by shapes and formulas alone; nothing is compiled",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="try meshes, micro-batches, slots, attention and optimizers by count, and "
        "compile the best three",
    )
    parser.add_argument(
        "--judge-ms",
        type=float,
        default=30.0,
        help="CPU ms that the judge takes for a program; default: 30, ten short tests",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    given, rest = parser.parse_known_args(argv)
    os.environ["JAX_PLATFORMS"] = "cpu"  # the chips are not here
    config = parse_config("plan", rest)
    from stepcoder_jax.commands import plan

    return plan.run(config, given)


def run_sft(argv: list[str]) -> int:
    config = prepare("sft", argv)
    from stepcoder_jax.commands import sft

    return sft.run(config)
