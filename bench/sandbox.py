"""One contestant under Lambda's own Python runtime, and the runtime API that gives it events."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import contextmanager
from http.client import parse_headers
from pathlib import Path
from typing import TYPE_CHECKING

from local.process import ProcessFailed, stop
from local.runtime import LAMBDA_RUNTIME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

WAIT_SECONDS = 120
_EVENT = """HTTP/1.1 200 OK
Content-Type: application/json
Content-Length: {length}
Lambda-Runtime-Aws-Request-Id: 8f507e5b-6d1c-4c5e-9a53-0f8d3c1b2a47
Lambda-Runtime-Deadline-Ms: {deadline}
Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:us-east-1:000000000000:function:bench
Lambda-Runtime-Trace-Id: Root=1-6b034d08-c8f4af6151bd0505b5d504cc;Parent=53995c3f42cd8ad8;Sampled=1

"""


@contextmanager
def sandbox(command: Sequence[str], code: Path, environment: Mapping[str, str], log: Path) -> Iterator[Sandbox]:
    """Run the contestant in `code`. `command` is a tool to run it under, or empty. Raises ProcessFailed."""
    with socket.create_server(("127.0.0.1", 0)) as server, log.open("wb") as output:
        server.settimeout(WAIT_SECONDS)
        begun = time.perf_counter()
        process = subprocess.Popen(
            [*command, *LAMBDA_RUNTIME, environment["_HANDLER"]],
            cwd=code,
            env={**environment, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.getsockname()[1]}"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield Sandbox(server, process.pid, log, begun)
        finally:
            # SIGTERM ends Python at once, so an orderly exit adds no instructions to the count.
            stop(process)


class Sandbox:
    """A running contestant. `start_ms` is the time until it asked for its first event."""

    def __init__(self, server: socket.socket, process_id: int, log: Path, begun: float) -> None:
        self._process_id, self._log = process_id, log
        try:
            connection, _ = server.accept()
        except TimeoutError:
            raise ProcessFailed("The runtime did not start:", log.read_text()) from None
        connection.settimeout(WAIT_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The runtime sends all its requests over this one connection.
        with connection:
            self._stream = connection.makefile("rwb")
        self._receive("next")
        self.start_ms = (time.perf_counter() - begun) * 1000

    def call(self, event: bytes) -> tuple[bytes, float]:
        """Send one event. Return the answer and the milliseconds until it came. Raises ProcessFailed."""
        begun = time.perf_counter()
        head = _EVENT.format(length=len(event), deadline=round(time.time() * 1000) + 300_000)
        self._send(head, event)
        answer = self._receive("response")
        milliseconds = (time.perf_counter() - begun) * 1000
        self._send("HTTP/1.1 202 Accepted\nContent-Length: 0\n\n")
        self._receive("next")
        return answer, milliseconds

    def memory(self, kind: str) -> float:
        """Resident memory in MiB: "VmRSS" is the current value, "VmHWM" the peak."""
        status = Path(f"/proc/{self._process_id}/status").read_text()
        return int(status.split(f"{kind}:")[1].split()[0]) / 1024

    def processor_time(self) -> float:
        """Milliseconds of processor time that the process has used."""
        # Python lacks clock_getcpuclockid(3). This is its formula on Linux.
        return time.clock_gettime(~self._process_id << 3 | 2) * 1000

    def _send(self, head: str, body: bytes = b"") -> None:
        self._stream.write(head.replace("\n", "\r\n").encode() + body)
        self._stream.flush()

    def _receive(self, expected: str) -> bytes:
        """Read one request. `expected` is the last part of its path: "next" or "response"."""
        try:
            path = self._stream.readline().decode().partition(" HTTP/")[0]
            body = self._stream.read(int(parse_headers(self._stream).get("Content-Length", 0)))
        except OSError as error:  # a timeout, or a contestant that died
            path, body = str(error), b""
        if not path.endswith(f"/{expected}"):
            raise ProcessFailed(f"Expected {expected}, got {path}: {body.decode()}", self._log.read_text())
        return body
