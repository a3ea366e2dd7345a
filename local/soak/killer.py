"""Kills sandboxes, as Lambda does when a host fails or memory runs out."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from threading import Event, Thread, Timer
from typing import TYPE_CHECKING, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

MEAN_PAUSE_SECONDS = 8
# About as long as a sandbox takes from Tavus' answer to its return, so that kills hit every step in between.
MAX_DELAY_SECONDS = 0.06


class Killer:
    """Kills a sandbox on demand and, inside a `with` block, also at random moments. `kills` holds the times."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - must be reproducible
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="killer")
        self.kills: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def kill_sender(self, port: int) -> None:
        """Kill the sandbox with this TCP port a few milliseconds from now."""
        for sandbox, ports in _busy_sandboxes():
            if port in ports:
                Timer(self._rng.uniform(0, MAX_DELAY_SECONDS), self._kill, [sandbox]).start()
                return

    def _run(self) -> None:
        while not self._stopped.wait(self._rng.expovariate(1 / MEAN_PAUSE_SECONDS)):
            if sandboxes := [sandbox for sandbox, _ in _busy_sandboxes()]:
                self._kill(self._rng.choice(sandboxes))

    def _kill(self, sandbox: psutil.Process) -> None:
        now = time.monotonic()
        with suppress(psutil.NoSuchProcess):
            sandbox.kill()
            self.kills.append(now)


def _busy_sandboxes() -> Iterator[tuple[psutil.Process, set[int]]]:
    """Find the sandboxes that have connections, with their TCP ports.

    One without connections is still starting. When that fails, ministack kills all others too, which Lambda does not.
    """
    (supervisor,) = psutil.Process().children()  # the soak test keeps no other process running
    (local_aws,) = supervisor.children()
    for sandbox in local_aws.children():
        with suppress(psutil.Error):
            if ports := {connection.laddr[1] for connection in sandbox.net_connections("tcp4")}:
                yield sandbox, ports
