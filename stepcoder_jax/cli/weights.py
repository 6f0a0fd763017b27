"""Commands that take a run's weights: export, replay and head."""

from __future__ import annotations

from stepcoder_jax.cli.experiment import start_devices
from stepcoder_jax.cli.parser import Parser


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
