"""A contestant under Lambda's own Python runtime, and the runtime API that hands it one event after the other."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Self

from local.process import stop
from local.runtime import LAMBDA_RUNTIME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

WAIT_SECONDS = 120
# Lambda's share of a processor at 128 MB, and the seconds that a slice of it lasts here. Lambda's own come every 20 ms
# or so; with them a short call's time would tell little but when in a slice it had begun.
SHARE, SLICE = 128 / 1769, 0.0005


class Sandbox:
    """A running contestant. `start` is how many milliseconds it took to ask for its first event.

    `command` is a tool to run it under, which counts its instructions.
    """

    def __init__(self, command: Sequence[str], code: Path, environment: Mapping[str, str], log: Path) -> None:
        self._api = _Api(("127.0.0.1", 0), _Handler)
        Thread(target=self._api.serve_forever, args=(0.05,), daemon=True).start()
        runtime = [*LAMBDA_RUNTIME, environment["_HANDLER"]]
        address = {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._api.server_port}"}
        self._log = log
        begun = time.perf_counter()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, *runtime],
                cwd=code,
                env={**environment, **address},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            self._take(self._api.idle)
        except BaseException:
            self._close()
            raise
        self.start = (time.perf_counter() - begun) * 1000
        # A tool may be the contestant's parent, as perf is, or its very process, as Valgrind is.
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._pid = int(children[0]) if children else self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # By a signal, so that no instruction is spent on leaving; then wait for the tool, and its count.
        os.kill(self._pid, signal.SIGTERM)
        self._process.wait(WAIT_SECONDS)
        self._close()

    def call(self, event: bytes) -> tuple[bytes, float]:
        """Hand over one event. Returns the answer, and in how many milliseconds. Raises RuntimeError on failure."""
        begun = time.perf_counter()
        self._api.events.put(event)
        answer = self._take(self._api.answers)
        wall = time.perf_counter() - begun
        self._take(self._api.idle)
        return answer, wall * 1000

    @contextmanager
    def throttled(self) -> Iterator[None]:
        """Leave the process the share of a processor that Lambda gives at 128 MB: it pays for each slice by a pause."""
        over = Event()

        def deal() -> None:
            begun, worked = time.perf_counter(), self.processor()
            while not over.wait(SLICE):
                os.kill(self._pid, signal.SIGSTOP)
                # What is still done while the signal is on its way counts in the next slice.
                before, worked = worked, self.processor()
                over.wait(max((worked - before) / 1000 / SHARE - (time.perf_counter() - begun), 0))
                begun = time.perf_counter()
                os.kill(self._pid, signal.SIGCONT)

        dealer = Thread(target=deal)
        dealer.start()
        try:
            yield
        finally:
            over.set()
            dealer.join()

    def memory(self, kind: str) -> float:
        """MiB resident: VmRSS now, VmHWM at the peak."""
        status = Path(f"/proc/{self._pid}/status").read_text()
        return int(status.split(f"{kind}:")[1].split()[0]) / 1024

    def processor(self) -> float:
        """Milliseconds of processor time so far."""
        # Linux' number of another process' clock (clock_getcpuclockid).
        return time.clock_gettime(~self._pid << 3 | 2) * 1000

    def _close(self) -> None:
        stop(self._process)
        self._api.events.put(b"")
        self._api.shutdown()
        self._api.server_close()

    def _take(self, queue: SimpleQueue[bytes]) -> bytes:
        try:
            taken = queue.get(timeout=WAIT_SECONDS)
        except Empty:
            taken = b"error: no word in time"
        if taken.startswith(b"error"):
            raise RuntimeError(taken.decode() + self._log.read_text()[-2000:])
        return taken


class _Api(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.idle: SimpleQueue[bytes] = SimpleQueue()
        self.events: SimpleQueue[bytes] = SimpleQueue()
        self.answers: SimpleQueue[bytes] = SimpleQueue()


class _Handler(BaseHTTPRequestHandler):
    server: _Api
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.server.idle.put(b"")
        event = self.server.events.get()
        if not event:  # stopped
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(event)))
        self.send_header("Lambda-Runtime-Aws-Request-Id", "8f507e5b-6d1c-4c5e-9a53-0f8d3c1b2a47")
        self.send_header("Lambda-Runtime-Deadline-Ms", str(round(time.time() * 1000) + 300_000))
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:000000000000:function:bench")
        self.send_header(
            "Lambda-Runtime-Trace-Id", "Root=1-6b034d08-c8f4af6151bd0505b5d504cc;Parent=53995c3f42cd8ad8;Sampled=1"
        )
        self.end_headers()
        self.wfile.write(event)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.answers.put(b"error: " + body if self.path.endswith("/error") else body)
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the console for the table."""
