"""Runs programs in a clean environment, and stops them by their process id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parent.parent
# Settings for clients of the local AWS, where these credentials are an administrator's.
AWS_CLIENT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
START_SECONDS = 30
STOP_SECONDS = 5


class ProcessFailed(Exception):
    """A local program failed. The text ends with the last lines of the program's output."""

    def __init__(self, what: str, output: str) -> None:
        said = "\n".join(output.splitlines()[-40:])
        super().__init__(f"{what}\n{said}" if said else what)


def clean_environment(**variables: str) -> dict[str, str]:
    """An environment of PATH and the given variables, so that no profile, CA bundle or other setting applies."""
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **variables}


def interrupt_once() -> None:
    """Let the first Ctrl-C or SIGTERM raise KeyboardInterrupt. Later ones are ignored, so that cleanup can finish."""

    def interrupt(*_: object) -> None:
        for stopping in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stopping, signal.SIG_IGN)
        raise KeyboardInterrupt

    for stopping in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stopping, interrupt)


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def run(command: Sequence[object], environment: Mapping[str, str]) -> None:
    """Run a program in the project's folder until it ends. Raises ProcessFailed, with its output, if it fails."""
    # In its own session, so that Ctrl-C reaches only this process, which then stops the program.
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate()
    finally:
        stop(process)
    if process.returncode:
        raise ProcessFailed(f"{Path(str(command[0])).name} {command[1]} failed:", output)


@contextmanager
def serving(
    command: Sequence[object], environment: Mapping[str, str], folder: Path, log: Path, port: int
) -> Iterator[None]:
    """Run a server, with its output in the file `log`. Yields once it listens on `port` of 127.0.0.1."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _await_port(process, port, log)
        yield
    finally:
        stop(process)


def stop(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Stop a process that leads its own session, and everything that it started."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise ProcessFailed(f"Nothing listens on port {port}:", log.read_text(errors="replace"))
