"""The one HTML file: the files of page/ with the data between them.

The page may run its own script alone, by its digest, and may load nothing (a content
security policy says so to the browser).
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepcoder_jax.report.packing import pack

_PAGE = Path(__file__).parent / "page"
_STYLES = ("page.css", "code.css")
# In their order: a later one may use what stands in an earlier one.
_SCRIPTS = ("data.js", "charts.js", "heat.js", "table.js", "sample.js", "main.js")
_STYLE, _SCRIPT, _DATA, _POLICY = (
    f"<!-- {name} -->" for name in ("style", "script", "data", "policy")
)


def render(
    head: Mapping[str, Any], index: Mapping[str, Any], chunks: Sequence[str]
) -> Iterator[str]:
    """The file in pieces: `head` is small and opened first, then the table, then rollouts.

    All data is base64: nothing in it can end a tag or begin one.
    """
    style, script = (_join(names) for names in (_STYLES, _SCRIPTS))
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    page = (_PAGE / "page.html").read_text(encoding="utf-8")
    page = page.replace(_POLICY, policy).replace(_STYLE, style)
    before, after = page.split(_DATA)
    yield before
    names = ["head", "index", *(f"chunk{number}" for number in range(len(chunks)))]
    for name, data in zip(names, itertools.chain([pack(head), pack(index)], chunks)):
        yield f'<script type="text/plain" id="{name}">{data}</script>\n'
    yield after.replace(_SCRIPT, script)


def _join(names: Sequence[str]) -> str:
    texts = ((_PAGE / name).read_text(encoding="utf-8").rstrip("\n") for name in names)
    return "\n" + "\n".join(texts) + "\n"


def _digest(text: str) -> str:
    data = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(data).decode()}'"
