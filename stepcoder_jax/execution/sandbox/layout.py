"""Where the sandbox's interpreter keeps its files.

A file of its own, loaded before the worker proper starts: `sysconfig` loads `threading`,
whose hook in every forked child costs half a millisecond.
"""

from __future__ import annotations

import os
import sys
import sysconfig

from stepcoder_jax.execution.sandbox.confinement import Layout


def find_layout() -> Layout:
    """The layout of this interpreter."""
    prefix = os.path.dirname(os.path.dirname(sys.executable))
    if not os.path.exists(os.path.join(prefix, "pyvenv.cfg")):
        prefix = sys.base_prefix
    names = {"base": prefix, "platbase": prefix}
    third_party = {sysconfig.get_path(key, vars=names) for key in ("purelib", "platlib")}
    return Layout(
        sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), sorted(third_party)
    )
