"""Commands that need no device: judge, compare, report, data and doctor."""

from __future__ import annotations

from stepcoder_jax.cli.flags import parse_flags
from stepcoder_jax.cli.parser import Parser
from stepcoder_jax.cli.usage import USAGE


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
