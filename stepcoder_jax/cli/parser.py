"""A parser of words whose complaint is one line."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn


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
