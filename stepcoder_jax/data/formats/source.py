"""Python source in the fields of a data set, checked and parsed; never run here."""

from __future__ import annotations

import ast
import warnings

from stepcoder_jax.data.formats.rows import DataError


def parse(field: str, source: str) -> ast.Module:
    """The syntax tree of source that compiles; DataError, naming the field, if not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes, in other people's strings
            tree = ast.parse(source)
            compile(tree, field, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise DataError(
            f"field {field}: expected Python source, got {type(error).__name__}: {error}"
        ) from None
    return tree
