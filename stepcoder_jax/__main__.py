"""The command line: `stepcoder COMMAND ...`, the only place where flags exist."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

from stepcoder_jax.cli import asking, files, learning, weights
from stepcoder_jax.cli.usage import USAGE

if TYPE_CHECKING:
    from collections.abc import Callable

# What a file system says of a path that a user named: no fault of the program.
_OF_THE_DISK = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
)

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": learning.run_train,
    "plan": learning.run_plan,
    "sft": learning.run_sft,
    "evaluate": asking.run_evaluate,
    "sample": asking.run_sample,
    "refine": asking.run_refine,
    "export": weights.run_export,
    "replay": weights.run_replay,
    "head": weights.run_head,
    "judge": files.run_judge,
    "compare": files.run_compare,
    "report": files.run_report,
    "data": files.run_data,
    "doctor": files.run_doctor,
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
