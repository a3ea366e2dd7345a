"""One contestant under Lambda's own Python runtime: the runtime API that gives it events, and what it uses."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import parse_headers
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from local.process import AWS_CLIENT, ProcessFailed, clean_environment
from local.runtime import LAMBDA_RUNTIME
from local.session import DEPLOYMENT_ID

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from io import BufferedRWPair

    from bench.build import Contestant

WAIT_SECONDS = 120
_VALGRIND = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
_ENVIRONMENT = AWS_CLIENT | {
    "ALLOWED_DEPLOYMENT_IDS": DEPLOYMENT_ID,
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
    "AWS_LAMBDA_FUNCTION_NAME": "bench",
    "AWS_REGION": AWS_CLIENT["AWS_DEFAULT_REGION"],
    "POWERTOOLS_METRICS_NAMESPACE": "Bench",
    "POWERTOOLS_SERVICE_NAME": "bench",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
}
_EVENT = """HTTP/1.1 200 OK
Content-Type: application/json
Content-Length: {length}
Lambda-Runtime-Aws-Request-Id: 8f507e5b-6d1c-4c5e-9a53-0f8d3c1b2a47
Lambda-Runtime-Deadline-Ms: {deadline}
Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:us-east-1:000000000000:function:bench
Lambda-Runtime-Trace-Id: Root=1-6b034d08-c8f4af6151bd0505b5d504cc;Parent=53995c3f42cd8ad8;Sampled=1

"""


@contextmanager
def sandbox(contestant: Contestant, world: Mapping[str, str], *, valgrind: bool) -> Iterator[Sandbox]:
    """Start a contestant, and wait until it asks for its first event. Raises ProcessFailed."""
    with TemporaryDirectory() as scratch, socket.create_server(("127.0.0.1", 0)) as server:
        log = Path(scratch) / "log"
        environment = {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.getsockname()[1]}",
            "LAMBDA_TASK_ROOT": str(contestant.code),
            "_HANDLER": contestant.handler,
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*(_VALGRIND if valgrind else ()), *LAMBDA_RUNTIME, contestant.handler],
                cwd=contestant.code,
                env=clean_environment(**_ENVIRONMENT, **world, **contestant.settings, **environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            server.settimeout(WAIT_SECONDS)
            # The runtime sends all its requests over one connection.
            connection, _ = server.accept()
            with connection:
                connection.settimeout(WAIT_SECONDS)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                stream = connection.makefile("rwb")
                running = Sandbox(contestant, process.pid, stream, log, valgrind)
                running.receive("next")
                yield running
        except TimeoutError:
            raise ProcessFailed(f"{contestant.name} does not answer:", log.read_text()) from None
        finally:
            # It leads a session of its own, with all that it started.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass(frozen=True)
class Sandbox:
    """A running contestant."""

    contestant: Contestant
    process_id: int
    stream: BufferedRWPair
    log: Path
    valgrind: bool

    def call(self, conversation_id: str) -> None:
        """Make one call. Raises ProcessFailed unless the answer is right."""
        event = json.dumps(self.contestant.event(conversation_id)).encode()
        self._send(_EVENT.format(length=len(event), deadline=round(time.time() * 1000) + 300_000), event)
        answer = self.receive("response")
        if self.contestant.answer not in answer:
            raise ProcessFailed(f"{self.contestant.name} gave a wrong answer:", answer.decode())
        self._send("HTTP/1.1 202 Accepted\nContent-Length: 0\n\n")
        self.receive("next")

    def memory(self) -> float:
        """Resident memory in MiB."""
        status = Path(f"/proc/{self.process_id}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def work(self) -> float:
        """Millions of instructions since the start or, without Valgrind, milliseconds of processor time."""
        if not self.valgrind:
            # Python lacks clock_getcpuclockid(3). This is its formula on Linux.
            return time.clock_gettime(~self.process_id << 3 | 2) * 1000
        # Quicker than a dump: a slow one would let our connection to Tavus get too old for the next call.
        command = ["/usr/bin/env", "vgdb", f"--pid={self.process_id}", "status", "internal"]
        status = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        threads = re.findall(r"^events-\d+: (\d+)$", status, re.MULTILINE)
        if not threads:
            raise ProcessFailed("Valgrind reported no instructions:", status)
        return sum(map(int, threads)) / 1e6

    def receive(self, expected: str) -> bytes:
        """Read one request. `expected` is the last part of its path: "next" or "response"."""
        path = self.stream.readline().decode().partition(" HTTP/")[0]
        body = self.stream.read(int(parse_headers(self.stream).get("Content-Length", 0)))
        if not path.endswith(f"/{expected}"):
            raise ProcessFailed(f"Expected {expected}, got {path}: {body.decode()}", self.log.read_text())
        return body

    def _send(self, head: str, body: bytes = b"") -> None:
        self.stream.write(head.replace("\n", "\r\n").encode() + body)
        self.stream.flush()
