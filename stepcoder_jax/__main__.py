"""The command line: `stepcoder COMMAND ...`, the only place where flags exist."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import io
import os
import re
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepcoder_jax.config import Config

USAGE = """stepcoder: a code model learns from running its own programs (arXiv:2402.01391)

  stepcoder train EXPERIMENT[:ARG] [--section.field VALUE ...]   PPO or GRPO, CCCS, FGO
  stepcoder plan EXPERIMENT[:ARG] --topology v5e:4x4 [...]       what chips it would take
  stepcoder sft EXPERIMENT[:ARG] [--section.field VALUE ...]     supervised fine-tuning
  stepcoder evaluate RUN [--samples-per-problem 10] [--k 1 10]   pass@k of a run
  stepcoder evaluate MODEL --problems FILE [...]                 pass@k of any model folder
  stepcoder evaluate RUN [...] --rounds 3 [--variant both]       and after mending failures
  stepcoder sample RUN [--problems FILE] [--count 4]             programs in colour
  stepcoder sample RUN [...] --rounds 1 [--variant explain]      what it reads of a failure
  stepcoder refine RUN --problems FILE ... --out DIR [...]       records of self-debugging
  stepcoder export RUN [--step N] --out DIR                      a folder for transformers
  stepcoder replay RUN/nonfinite/STEP                            rerun a non-finite update
  stepcoder head RUN --kind outcome --out DIR                    a head on judged programs
  stepcoder judge FILE --solutions canonical                     run canonical solutions
  stepcoder judge FILE --write-limits                            measure CPU limits
  stepcoder judge SAMPLES --problems FILE [--out FILE]           run samples of a model
  stepcoder compare RESULTS_A RESULTS_B [--k 1 10] [--out NAME]  paired differences
  stepcoder report RUN [RUN ...] --out FILE.html                 see it all in a browser
  stepcoder data generate FILE [--tier guarded] [--split train]  write the benchmark
  stepcoder data stats FILE [--tokenizer T] [--coverage]         what a problem set is like
  stepcoder data check TRAIN [--test FILE] [--against FILE ...]  curate it, with a report
  stepcoder data build FOLDER --train FILE [--report FILE]       one ArrayRecord data set
  stepcoder data profile RUN [--samples 8] [--out FILE]          pass rates, to draw by
  stepcoder doctor [--hosts]                                     versions, devices, sandbox

EXPERIMENT is a Python file with get_config(arg="") -> Config; every field of the config
is a flag: `stepcoder train experiments/quickstart.py --help` lists them with defaults.
`stepcoder COMMAND --help` has the flags of each command, `stepcoder --version` the version.
"""

# What a file system says of a path that a user named: no fault of the program.
_OF_THE_DISK = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
)


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line, like every other complaint."""

    def error(self, message: str) -> NoReturn:
        from stepcoder_jax.config import ConfigError

        raise ConfigError(f"{message}; see {self.prog} --help")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse; --top_p is --top-p, as it is in the other commands."""
        words = sys.argv[1:] if args is None else args
        return super().parse_args(
            [hyphenate(word) if word.startswith("--") else word for word in words],
            namespace,
        )


def hyphenate(word: str) -> str:
    """`--a_b=c_d` -> `--a-b=c_d`."""
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value


def parse_flags(kind: type, argv: list[str], prog: str, default: Any) -> Any:
    """An instance of the dataclass `kind`: `default` with the flags' values."""
    import tyro

    from stepcoder_jax.config import ConfigError

    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                kind, default=default, args=argv, prog=prog, use_underscores=True
            )
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise ConfigError(unbox(complaint.getvalue())) from None


def unbox(text: str) -> str:
    """The sections of tyro's boxed complaint in one line, without its closing advice."""
    sections = re.split(r"─{3,}", re.sub(r"╭[^╮]*╮|╰[^╯]*╯|│", " ", text))
    said = [" ".join(section.split()) for section in sections[: max(1, len(sections) - 1)]]
    return "; ".join([*said, "--help lists all flags"])


def fill_in(argv: list[str], flag: str, value: str) -> list[str]:
    """The flags, with `value` after each `flag` that stands without one."""
    filled = []
    for word, follower in zip(argv, [*argv[1:], "--"]):
        filled.append(word)
        if word == flag and follower.startswith("-"):
            filled.append(value)
    return filled


def parse_config(command: str, argv: list[str]) -> Config:
    """EXPERIMENT and its overrides -> a validated Config."""
    from stepcoder_jax.config import Config, ConfigError
    from stepcoder_jax.models import hf_config
    from stepcoder_jax.runs.experiment import load_experiment

    if not argv or argv[0].startswith("-"):
        if {"-h", "--help"} & set(argv):  # the flags with the config's own defaults
            parse_flags(Config, ["--help"], f"stepcoder {command} EXPERIMENT", Config())
        raise ConfigError(
            f"EXPERIMENT: expected a Python file first, as in `stepcoder {command} "
            "experiments/quickstart.py`"
        )
    prog = f"stepcoder {command} {argv[0]}"
    flags = fill_in(argv[1:], "--run.resume", "yes")
    config: Config = parse_flags(Config, flags, prog, load_experiment(argv[0], command))
    if config.model.checkpoint:  # its context length, before lengths are compared with it
        folder = hf_config.checkpoint_folder(config.model.checkpoint)
        if (folder / hf_config.FILE).is_file():  # the checks to come name what is missing
            shape = hf_config.read_shape(folder)
            config.model = dataclasses.replace(config.model, **shape)
    config.validate()
    return config


def prepare(command: str, argv: list[str]) -> Config:
    """As `parse_config`; hosts compare it, its files are looked at, and JAX starts."""
    from stepcoder_jax.runs.disk import common, preflight

    config = parse_config(command, argv)
    common.agree(config)
    preflight.check_config(config)
    start_devices(minutes=config.run.join_minutes)
    return config


def start_devices(**join: float) -> None:
    """Load JAX, find the other hosts, and refuse a machine without the devices that were
    asked for; see `join_hosts`."""
    from stepcoder_jax.devices import joining

    joining.join_hosts(**join)


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


def run_export(argv: list[str]) -> int:
    parser = Parser(prog="stepcoder export")
    parser.add_argument("run", help="a run folder of `stepcoder train`")
    parser.add_argument(
        "--step", type=int, help="checkpoint; default: the best, else the last"
    )
    parser.add_argument(
        *("--out", "--to"), dest="to", required=True, help="a new or an empty folder"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of the weights"
    )
    given = parser.parse_args(argv)
    start_devices()
    from stepcoder_jax.commands import export

    return export.export_run(given.run, given.step, given.to, given.dtype)


def run_replay(argv: list[str]) -> int:
    parser = Parser(prog="stepcoder replay")
    parser.add_argument("folder", help="RUN/nonfinite/STEP, as a run that stopped names it")
    given = parser.parse_args(argv)
    start_devices()
    from stepcoder_jax.commands import replay

    return replay.replay_update(given.folder)


def run_head(argv: list[str]) -> int:
    parser = Parser(prog="stepcoder head")
    parser.add_argument("run", help="a run folder of `stepcoder train`, with rollouts/")
    parser.add_argument(
        "--kind",
        choices=("outcome", "pair"),
        required=True,
        help="what is said of a program: CodeRL's error class, or which of two is written",
    )
    parser.add_argument("--out", required=True, help="a new or an empty folder")
    parser.add_argument(
        "--pool",
        choices=("logits", "hidden"),
        default="logits",
        help="of outcomes, what the maximum over tokens is taken of",
    )
    parser.add_argument("--epochs", type=int, default=3, help="over the judged programs")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of Adam")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    start_devices()
    from stepcoder_jax.heads import run
    from stepcoder_jax.heads.training import Learning

    how = (given.kind, given.pool, given.epochs, given.learning_rate, given.seed)
    return run.learn_head(given.run, given.out, Learning(*how))


def run_judge(argv: list[str]) -> int:
    from stepcoder_jax.commands import judge, judge_samples

    options = parse_flags(judge.JudgeOptions, argv, "stepcoder judge", None)
    run = judge_samples.judge_samples if options.problems else judge.judge_file
    return run(options)


def run_compare(argv: list[str]) -> int:
    from stepcoder_jax.commands import compare

    return compare.compare(
        parse_flags(compare.CompareOptions, argv, "stepcoder compare", None)
    )


def run_report(argv: list[str]) -> int:
    from stepcoder_jax.commands import report

    return report.report(parse_flags(report.ReportOptions, argv, "stepcoder report", None))


def run_data(argv: list[str]) -> int:
    from stepcoder_jax.commands import data
    from stepcoder_jax.config import ConfigError

    verb = argv[0] if argv else ""
    if verb in ("-h", "--help"):
        lines = USAGE.splitlines()
        print("\n".join(line for line in lines if line.startswith("  stepcoder data ")))
        print("\n`stepcoder data VERB --help` has all flags of each")
        raise SystemExit(0)
    if verb not in data.VERBS:
        raise ConfigError(
            f"expected one of {', '.join(data.VERBS)} first, as in `stepcoder "
            f"data stats FILE`; got {verb!r}"
        )
    kind, run = data.VERBS[verb]
    return run(parse_flags(kind, argv[1:], f"stepcoder data {verb}", None))


def run_doctor(argv: list[str]) -> int:
    from stepcoder_jax.config import RunConfig

    parser = Parser(prog="stepcoder doctor")
    parser.add_argument(
        "--hosts",
        action="store_true",
        help="join the other hosts of a run, and say who is there and who differs",
    )
    usual = RunConfig()
    parser.add_argument(
        "--run.folder", default=usual.folder, help="with --hosts: that all are to see"
    )
    parser.add_argument(
        "--run.join-minutes",
        type=float,
        default=usual.join_minutes,
        help="with --hosts: of waiting for the others",
    )
    given = vars(parser.parse_args(argv))
    from stepcoder_jax.commands import doctor

    if given["hosts"]:
        return doctor.doctor_hosts(given["run.folder"], given["run.join_minutes"])
    return doctor.doctor()


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": run_train,
    "plan": run_plan,
    "sft": run_sft,
    "evaluate": run_evaluate,
    "sample": run_sample,
    "refine": run_refine,
    "export": run_export,
    "replay": run_replay,
    "head": run_head,
    "judge": run_judge,
    "compare": run_compare,
    "report": run_report,
    "data": run_data,
    "doctor": run_doctor,
}
# those that several hosts run together
SHARED = ("train", "sft", "evaluate", "sample", "refine", "export")


def print_version() -> None:
    from importlib.metadata import version

    print(f"stepcoder {version('stepcoder_jax')}")


def main(argv: list[str] | None = None) -> int:
    """Run one command; bad input is one line on standard error and exit code 2."""
    argv = sys.argv[1:] if argv is None else argv
    if argv == ["--version"]:
        print_version()
        return 0
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        print(
            f"stepcoder: no command {argv[0]!r}; there are: {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    from stepcoder_jax.runs.hosts import channel

    hosts = channel.adopt()
    if hosts is not None:
        return hosts.conduct(lambda: run_command(argv))
    is_shared = argv[0] in SHARED or (argv[0] == "doctor" and "--hosts" in argv)
    code, line = watch_hosts(argv) if is_shared else (None, "")
    if code is None:
        code, line = run_command(argv)
    if line:
        print(f"stepcoder {argv[0]}: {line}", file=sys.stderr)
    return code


def watch_hosts(argv: list[str]) -> tuple[int | None, str]:
    """Where this is one of several hosts, the exit code of all; None where it is alone."""
    from stepcoder_jax.records import InputError
    from stepcoder_jax.runs.hosts import place, search, watching

    try:
        found = place.find(os.environ)
        return (None, "") if found is None else (watching.watch(found, argv), "")
    except InputError as error:
        if isinstance(error, place.MisplacedError):
            search.tell_misplaced(error.place)
        return 2, str(error)


def run_command(argv: list[str]) -> tuple[int, str]:
    """Run one command: the exit code, and for what is no bug the line that says why."""
    from stepcoder_jax.records import InputError
    from stepcoder_jax.runs.disk.preflight import refuse_urls

    try:
        refuse_urls(argv[1:])
        return COMMANDS[argv[0]](argv[1:]), ""
    except InputError as error:
        return 2, str(error)
    except OSError as error:
        if error.errno not in _OF_THE_DISK or error.filename is None:
            raise
        return 2, f"{error.filename}: {error.strerror}"
    except KeyboardInterrupt:
        return 130, "stopped at once; nothing was saved"


if __name__ == "__main__":
    sys.exit(main())
