"""One contestant under Lambda's own Python runtime: the runtime API that gives it events, and what it uses."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import parse_headers
from io import BufferedRWPair

import psutil

from bench.build import CODE, Contestant
from local.process import AWS_CLIENT, ProcessFailed, Program, clean_environment, running
from local.runtime import LAMBDA_RUNTIME
from local.session import DEPLOYMENT_ID

WAIT_SECONDS = 120
_PIPES = f"--vgdb-prefix={CODE / 'vgdb'}"  # vgdb does not know the temporary folder of the contestant
_VALGRIND = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", _PIPES)
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
    with socket.create_server(("127.0.0.1", 0)) as server:
        environment = {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.getsockname()[1]}",
            "LAMBDA_TASK_ROOT": str(contestant.code),
            "_HANDLER": contestant.handler,
        }
        environment = clean_environment(**_ENVIRONMENT, **world, **contestant.settings, **environment)
        command = [*(_VALGRIND if valgrind else ()), *LAMBDA_RUNTIME, contestant.handler]
        with running(command, environment, contestant.code) as program:
            try:
                server.settimeout(WAIT_SECONDS)
                # The runtime sends all its requests over one connection.
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(WAIT_SECONDS)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    [process] = psutil.Process(program.process.pid).children()  # of the supervisor
                    started = Sandbox(contestant, process, connection.makefile("rwb"), program, valgrind)
                    started.receive("next")
                    yield started
            except TimeoutError:
                raise ProcessFailed(f"{contestant.name} does not answer:", program.log()) from None


@dataclass(frozen=True)
class Sandbox:
    """A running contestant."""

    contestant: Contestant
    process: psutil.Process
    stream: BufferedRWPair
    program: Program
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
        return self.process.memory_info().rss / 2**20

    def work(self) -> float:
        """Millions of instructions since the start or, without Valgrind, milliseconds of processor time."""
        if not self.valgrind:
            # Python lacks clock_getcpuclockid(3). This is its formula on Linux.
            return time.clock_gettime(~self.process.pid << 3 | 2) * 1000
        # Quicker than a dump: a slow one would let our connection to Tavus get too old for the next call.
        command = ["/usr/bin/env", "vgdb", _PIPES, f"--pid={self.process.pid}", "status", "internal"]
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
            raise ProcessFailed(f"Expected {expected}, got {path}: {body.decode()}", self.program.log())
        return body

    def _send(self, head: str, body: bytes = b"") -> None:
        self.stream.write(head.replace("\n", "\r\n").encode() + body)
        self.stream.flush()
