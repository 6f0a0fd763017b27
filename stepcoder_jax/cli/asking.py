"""Commands that ask a model for programs: evaluate, sample and refine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepcoder_jax.cli.experiment import start_devices
from stepcoder_jax.cli.flags import parse_flags
from stepcoder_jax.cli.parser import Parser

if TYPE_CHECKING:
    import argparse


def run_parser(command: str, splits: tuple[str, ...], split: str) -> Parser:
    """What the commands that ask a model have in common."""
    parser = Parser(prog=f"stepcoder {command}")
    parser.add_argument(
        "run", help="a run folder of `stepcoder train` or `sft`, or any model folder"
    )
    parser.add_argument(
        "--problems", default="", help="a problem file to use in place of the run's split"
    )
    parser.add_argument("--split", choices=splits, default=split)
    for part in ("prompt", "completion"):
        parser.add_argument(
            f"--max-{part}-length", type=int, help="tokens; default: the run's own"
        )
    parser.add_argument(
        "--template",
        choices=("deepseek", "plain", "chat"),
        help="of the prompt; default: the run's own, or the tokenizer's chat template",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="stop at a bad row or a prompt that is too long, instead of leaving it out",
    )
    parser.add_argument(
        "--step", type=int, help="checkpoint; default: the best, else the last"
    )
    parser.add_argument(
        "--before", action="store_true", help="the model the run began with"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=0,
        help="how often the model may mend a program that fails a visible test; default: 0",
    )
    parser.add_argument(
        "--variant",
        choices=("direct", "explain", "both"),
        default="direct",
        help="whether it is asked to explain first what is wrong; both: it answers in both "
        "ways, and the better one by the visible tests is taken",
    )
    parser.add_argument(
        "--feedback",
        choices=("test", "verdict", "none", "random"),
        default="test",
        help="what it reads: a failing test; or, as controls, the verdict, nothing, or at "
        "random what was said of a program for another problem",
    )
    parser.add_argument(
        "--refine-all",
        action="store_true",
        help="programs that pass the visible tests, too, for all rounds: what is spoilt?",
    )
    return parser


def take_asked(given: argparse.Namespace) -> dict[str, Any]:
    """The flags as keywords, those of `restore.Asked` as one of them."""
    from stepcoder_jax.records import Told
    from stepcoder_jax.runs.restore import Asked

    flags = vars(given)
    flags["feedback"] = Told(flags["feedback"])
    asked = Asked(**{name: flags.pop(name) for name in Asked._fields})
    return flags | {"asked": asked}


def run_evaluate(argv: list[str]) -> int:
    parser = run_parser("evaluate", ("validation", "test"), "test")
    parser.add_argument(
        "--samples-per-problem",
        type=int,
        default=1,
        metavar="N",
        dest="samples",
        help="default: 1, the greedy one",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        help="default: 0 (greedy) for one sample, else the run's own",
    )
    parser.add_argument("--top-p", type=float, help="default: the run's own")
    parser.add_argument(
        "--k",
        type=int,
        nargs="+",
        default=[],
        help="which pass@k; default: 1, 5, 10, 100 as far as the samples go",
    )
    parser.add_argument("--seed", type=int, default=0, help="of samples and intervals")
    parser.add_argument(
        "--critic",
        default="",
        metavar="DIR",
        help="critic sampling, by an outcome head of `stepcoder head RUN`: as many samples "
        "again, which go on from the best parts of those that pass the visible tests, or "
        "mend the best that fails",
    )
    parser.add_argument(
        "--out",
        default="",
        help="a new or empty folder for results.md, results.json, results.jsonl (a row per "
        "sample) and samples.jsonl (task_id and completion, for other graders)",
    )
    given = parser.parse_args(argv)
    start_devices()
    from stepcoder_jax.commands import evaluate

    return evaluate.evaluate_run(evaluate.Wanted(**take_asked(given)))


def run_sample(argv: list[str]) -> int:
    parser = run_parser("sample", ("train", "validation", "test"), "validation")
    parser.add_argument("--count", type=int, default=4, help="how many problems")
    given = parser.parse_args(argv)
    start_devices()
    from stepcoder_jax.commands import sample

    return sample.sample_run(sample.Wanted(**take_asked(given)))


def run_refine(argv: list[str]) -> int:
    from stepcoder_jax.commands import refine

    options = parse_flags(refine.RefineOptions, argv, "stepcoder refine", None)
    return refine.refine(options)
