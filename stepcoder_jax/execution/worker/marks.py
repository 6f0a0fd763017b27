"""What a child leaves for the judge: where, and the first bytes by which it is known."""

from __future__ import annotations

import os
from typing import NoReturn

RESULT_FD = 3
EXIT_OK, EXIT_ERROR, EXIT_MEMORY = 0, 1, 94
NO_VALUE, TOO_LARGE = b"!", b"#"  # first bytes of a result that is no encoded value
# first bytes of `head`: how far the child came before the program's first line
IN_SANDBOX, COMPILED, KEPT, REFUSED = b"S", b"C", b"K", b"E"


def leave_result(data: bytes) -> NoReturn:
    """Write the result and leave the process: no hook of a program's has a say in it."""
    os.ftruncate(RESULT_FD, 0)
    offset = 0
    while offset < len(data):
        offset += os.pwrite(RESULT_FD, data[offset:], offset)
    os._exit(EXIT_OK)
