"""One request to a SandboxFusion-compatible service: files in, files out.

POST URL/run_code, as in https://bytedance.github.io/SandboxFusion/docs/api/: {"code",
"language", "run_timeout", "compile_timeout", "files": {name: base64}, "fetch_files"} ->
{"status", "message", "run_result": {"status", "execution_time", "return_code", "stdout",
"stderr"}, "files": {name: base64}}.
"""

from __future__ import annotations

import base64
import dataclasses
import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any

from stepcoder_jax.execution.judging.verdicts import InfraError

_ATTEMPTS = 2
_BACKOFF_SECONDS = 1.0
_GRACE_SECONDS = 60.0  # beyond a run's limit, for its place in the service's queue
_CHUNK = 1 << 16
_ENVELOPE = 8 << 20  # bytes of an answer beside its files: two streams of 1 MB, escaped
_SHELL_SIGNAL = 128  # a shell says 128 + N where a program died of signal N


@dataclasses.dataclass(frozen=True)
class Ran:
    """What became of one run."""

    timed_out: bool
    exit: int  # -N: died of signal N; 0 where it timed out
    seconds: float  # by the clock
    stdout: str
    stderr: str
    files: dict[str, bytes]


class Service:
    """A service's address, and how to ask it."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def run(
        self,
        code: str,
        files: dict[str, bytes],
        fetch: list[str],
        *,
        seconds: float,
        largest: int,
    ) -> Ran:
        """Run `code` beside `files` for at most `seconds`; bring the `fetch` files back.

        `largest` is what each of them can measure, in bytes. InfraError when a second
        attempt gave no answer either; an HTTP error that says our request is wrong (4xx,
        but for 429) is not tried again.
        """
        body = {
            "code": code,
            "language": "python",
            "run_timeout": seconds,
            "compile_timeout": seconds,
            "files": {n: base64.b64encode(d).decode() for n, d in files.items()},
            "fetch_files": fetch,
        }
        request = urllib.request.Request(
            f"{self.url}/run_code",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        most = _ENVELOPE + 2 * len(fetch) * largest
        for attempt in range(_ATTEMPTS):
            time.sleep(_BACKOFF_SECONDS * attempt)
            try:
                return _read_answer(_ask(request, seconds + _GRACE_SECONDS, most))
            except urllib.error.HTTPError as error:
                error.close()
                message = f"HTTP {error.code} {error.reason}"
                if error.code < 500 and error.code != http.client.TOO_MANY_REQUESTS:
                    break
            except (OSError, http.client.HTTPException, InfraError) as error:
                message = f"{type(error).__name__}: {error}"
        raise InfraError(f"{self.url}/run_code: {message}")


def _ask(request: urllib.request.Request, patience: float, most: int) -> bytes:
    """The answer's bytes, at most `most` of them within `patience` seconds."""
    deadline = time.monotonic() + patience
    parts: list[bytes] = []
    with urllib.request.urlopen(request, timeout=patience) as response:
        while part := response.read1(_CHUNK):
            parts.append(part)
            most -= len(part)
            if most < 0:
                raise InfraError("an answer larger than what was asked for")
            if time.monotonic() > deadline:
                raise InfraError(f"no whole answer in {patience:.0f} seconds")
    return b"".join(parts)


def _read_answer(data: bytes) -> Ran:
    try:
        answer = json.loads(data)
        if answer["status"] == "SandboxError":
            raise InfraError(f"SandboxError: {str(answer.get('message'))[:200]}")
        return _read_run(answer["run_result"], answer["files"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InfraError(
            f"not an answer of SandboxFusion ({type(error).__name__}): {data[:80]!r}"
        ) from None


def _read_run(result: dict[str, Any], files: dict[str, str]) -> Ran:
    if result["status"] not in ("Finished", "TimeLimitExceeded"):
        raise InfraError(f"run {result['status']}: {str(result.get('stderr'))[:200]}")
    timed_out = result["status"] == "TimeLimitExceeded"
    code = 0 if timed_out else int(result["return_code"])
    if _SHELL_SIGNAL < code <= _SHELL_SIGNAL + 64:
        code = _SHELL_SIGNAL - code
    return Ran(
        timed_out=timed_out,
        exit=code,
        seconds=float(result["execution_time"] or 0.0),
        stdout=str(result["stdout"] or ""),
        stderr=str(result["stderr"] or ""),
        files={name: base64.b64decode(text) for name, text in files.items()},
    )
