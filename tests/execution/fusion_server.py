"""A small local service that speaks SandboxFusion's API, and can be told to misbehave."""

import http.server
import json
import pathlib
import queue
import subprocess
import sys
import threading
from collections.abc import Callable

HERE = pathlib.Path(__file__).resolve().parent
_START = (
    "import runpy, sys; sys.path.insert(0, {root!r}); sys.argv[1:] = [{slot!r}]; "
    "from stepcoder_jax.execution.sandbox import landlock, layout; "
    "sys.path.remove({root!r}); "
    "runpy.run_path({script!r}, run_name='__main__')"
)
# An answer's status and body, or None: go on as usual. Gets the request's body.
Fault = Callable[[dict], tuple[int, bytes] | None]


class Server(http.server.ThreadingHTTPServer):
    """Says nothing of clients that went away, which tests of killed pools leave behind."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class FusionServer:
    """Serves /run_code on `url` with two sandboxed runners while its `with` lasts.

    `requests` holds the bodies that came; each entry of `faults` is used for one request.
    """

    def __init__(self, python: str = "") -> None:
        self.requests: list[dict] = []
        self.faults: list[Fault] = []
        self.alter: Callable[[dict], dict] = lambda answer: answer
        self.runners: queue.SimpleQueue[subprocess.Popen] = queue.SimpleQueue()
        for slot in ("990", "991"):
            code = _START.format(
                root=str(HERE.parents[1]), slot=slot, script=str(HERE / "fusion_runner.py")
            )
            command = [python or sys.executable, "-s", "-P", "-S", "-c", code]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self.runners.put(subprocess.Popen(command, text=True, bufsize=1, **pipes))
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status, body = owner.respond(self)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))

    def respond(self, handler: http.server.BaseHTTPRequestHandler) -> tuple[int, bytes]:
        size = int(handler.headers["Content-Length"])
        request = json.loads(handler.rfile.read(size))
        self.requests.append(request)
        if handler.path != "/run_code":
            return 404, b"{}"
        if self.faults:
            said = self.faults.pop(0)(request)
            if said is not None:
                return said
        runner = self.runners.get()
        try:
            runner.stdin.write(json.dumps(request) + "\n")
            answer = json.loads(runner.stdout.readline())
        finally:
            self.runners.put(runner)
        return 200, json.dumps(self.alter(answer)).encode()

    def __enter__(self) -> "FusionServer":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        while not self.runners.empty():
            runner = self.runners.get()
            runner.stdin.close()
            runner.wait()
            runner.stdout.close()

    def stop(self) -> None:
        """Stop listening; harmless when already stopped."""
        self.server.shutdown()
        self.server.server_close()
