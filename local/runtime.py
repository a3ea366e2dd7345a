"""AWS Lambda's own Python runtime around a built function, under AWS' Runtime Interface Emulator."""

from __future__ import annotations

import platform
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Any

import urllib3

from local.build import BUILT
from local.process import AWS_CLIENT, ROOT, clean_environment, free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

LAMBDA_RUNTIME = (str(ROOT / ".venv-runtime/bin/python"), "-m", "awslambdaric")
ARCHITECTURE = "arm64" if platform.machine().lower() in {"arm64", "aarch64"} else "x86_64"
EMULATOR = ROOT / f".venv-sam/lib/python3.13/site-packages/samcli/local/rapid/aws-lambda-rie-{ARCHITECTURE}"

_INVOKE = "/2015-03-31/functions/function/invocations"


@dataclass(frozen=True)
class Sandbox:
    """One sandbox. The first call creates it. It stays warm between calls, and takes one call at a time."""

    url: str
    log_file: Path

    def invoke(self, event: object) -> Any:
        """What the function returns, or the error that Lambda reports."""
        return urllib3.request("POST", self.url + _INVOKE, json=event, retries=False, timeout=90).json()

    def log(self) -> str:
        """All that the function and its runtime wrote so far."""
        return self.log_file.read_text(errors="replace")


@contextmanager
def sandbox(
    function: str, timeout_seconds: int, trace_header: str | None = None, **environment: str
) -> Iterator[Sandbox]:
    """Run a sandbox of a built function.

    `function` is its name in the template, and `trace_header` is the X-Ray trace header of every call.
    """
    code = BUILT / function
    port, runtime_api = free_port(), f"127.0.0.1:{free_port()}"
    variables = clean_environment(
        **AWS_CLIENT,
        AWS_LAMBDA_FUNCTION_MEMORY_SIZE="512",
        AWS_LAMBDA_FUNCTION_NAME=function,
        AWS_LAMBDA_FUNCTION_TIMEOUT=str(timeout_seconds),
        AWS_REGION=AWS_CLIENT["AWS_DEFAULT_REGION"],
        LAMBDA_TASK_ROOT=str(code),
        **environment,
    )
    emulator = [EMULATOR, "--runtime-interface-emulator-address", f"127.0.0.1:{port}", "--runtime-api-address"]
    runtime = [*LAMBDA_RUNTIME, "end_conversation.handler.handler"]
    tracing = nullcontext(runtime_api) if trace_header is None else _tracing(runtime_api, trace_header)
    with TemporaryDirectory(prefix="end-conversation-") as scratch, tracing as traced_api:
        log = Path(scratch) / "log"
        command = [*emulator, runtime_api, "/usr/bin/env", f"AWS_LAMBDA_RUNTIME_API={traced_api}", *runtime]
        with serving(command, variables, code, log, port):
            yield Sandbox(f"http://127.0.0.1:{port}", log)


@contextmanager
def _tracing(runtime_api: str, trace_header: str) -> Iterator[str]:
    """Put a proxy between the runtime and the emulator. It adds the trace header, which the emulator leaves out."""

    class PassOn(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self.pass_on()

        def do_POST(self) -> None:
            self.pass_on()

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            # When the emulator stops, the request for the next call ends without an answer.
            with suppress(urllib3.exceptions.HTTPError):
                answer = urllib3.request(
                    self.command, f"http://{runtime_api}{self.path}", body=body, headers=headers, retries=False
                )
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in {"content-length", "date", "transfer-encoding"}:
                        self.send_header(name, value)
                self.send_header("Lambda-Runtime-Trace-Id", trace_header)
                self.send_header("Content-Length", str(len(answer.data)))
                self.end_headers()
                self.wfile.write(answer.data)

        def log_message(self, *_: object) -> None:
            """Keep the console clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), PassOn) as server:
        Thread(target=server.serve_forever, args=(0.05,)).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
