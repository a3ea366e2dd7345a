"""Runs programs in a clean environment. They end when this process stops them, or dies."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO

ROOT = Path(__file__).parent.parent
# Settings for clients of the local AWS, where these credentials are an administrator's.
AWS_CLIENT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
START_SECONDS = 30


class ProcessFailed(Exception):
    """A local program failed. The text ends with the last lines of the program's output."""

    def __init__(self, what: str, output: str) -> None:
        said = "\n".join(output.splitlines()[-40:])
        super().__init__(f"{what}\n{said}" if said else what)


def clean_environment(**variables: str) -> dict[str, str]:
    """An environment of PATH and the given variables, so that no profile, CA bundle or other setting applies."""
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **variables}


def interrupt_once() -> None:
    """Let the first SIGINT (Ctrl-C), SIGTERM or SIGHUP (a closed terminal) raise KeyboardInterrupt.

    Later ones are ignored, so that cleanup can finish.
    """
    stopping = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup sets it
        stopping.append(signal.SIGHUP)

    def interrupt(*_: object) -> None:
        for number in stopping:
            signal.signal(number, signal.SIG_IGN)
        with suppress(OSError):  # the terminal may be gone
            os.write(1, "\nStopping …\n".encode())
        raise KeyboardInterrupt

    for number in stopping:
        signal.signal(number, interrupt)


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@dataclass(frozen=True)
class Program:
    """A program that was started."""

    process: subprocess.Popen[bytes]
    output: IO[bytes]

    def log(self) -> str:
        """Return what it has written so far."""
        file = self.output.fileno()
        # Unlike a read, this leaves the position at which the program writes.
        return os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")


@contextmanager
def running(command: Sequence[object], environment: Mapping[str, str], folder: Path | None = None) -> Iterator[Program]:
    """Run a program in `folder`, or in its own temporary folder. It is stopped at the end, with all that it started."""
    # A session of its own, so that Ctrl-C reaches only this process.
    with TemporaryFile() as output:
        supervisor = [sys.executable, "-IS", ROOT / "local/supervisor.py", folder or "", *command]
        process = subprocess.Popen(
            list(map(str, supervisor)),
            env={**environment, "TMPDIR": gettempdir()},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield Program(process, output)
        finally:
            if process.stdin:
                process.stdin.close()  # which the supervisor waits for
            process.wait()


def run(command: Sequence[object], environment: Mapping[str, str]) -> None:
    """Run a program in the project's folder until it ends. Raises ProcessFailed, with its output, if it fails."""
    with running(command, environment, ROOT) as program:
        if program.process.wait():
            raise ProcessFailed(f"{Path(str(command[0])).name} {command[1]} failed:", program.log())


@contextmanager
def serving(
    command: Sequence[object], environment: Mapping[str, str], port: int, folder: Path | None = None
) -> Iterator[Program]:
    """Run a server. Yields once it listens on `port` of 127.0.0.1. Raises ProcessFailed if it does not."""
    with running(command, environment, folder) as program:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and program.process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.02)
        else:
            raise ProcessFailed(f"Nothing listens on port {port}:", program.log())
        yield program
