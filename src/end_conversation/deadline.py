"""Time: the clock, the deadline of one invocation, and work that may take too long."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """The only code that reads the time. Tests replace it."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment. Never goes back."""
        return time.monotonic()

    def now(self) -> datetime:
        """The current date and time in UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Wait for this many seconds."""
        time.sleep(seconds)


class Deadline:
    """The time that one invocation has left.

    The invocation must finish within `seconds`. Its last `reserve` seconds are kept for recording and publishing the
    result, but never more than two thirds of the time.
    """

    def __init__(self, clock: Clock, seconds: float, reserve: float) -> None:
        self._clock = clock
        self._start = clock.monotonic()
        self._expires_at = self._start + seconds
        self._reserve = min(reserve, max(seconds, 0) * 2 / 3)

    def elapsed(self) -> float:
        """Seconds since the start of the invocation."""
        return self._clock.monotonic() - self._start

    def left_for_tavus(self) -> float:
        """Seconds left for calling Tavus. Never negative."""
        return max(self._expires_at - self._reserve - self._clock.monotonic(), 0)

    def left(self) -> float:
        """Seconds left until the deadline. Never negative."""
        return max(self._expires_at - self._clock.monotonic(), 0)


class ThreadNotStarted(OSError):
    """The operating system could not start another thread."""


def run_with_timeout[T](work: Callable[[], T], seconds: float) -> T:
    """Run `work` in a daemon thread and return or raise what it does. Raises TimeoutError and ThreadNotStarted."""
    outcomes: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            outcomes.put((work(), None))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            outcomes.put((None, error))

    try:
        Thread(target=run, daemon=True).start()
    except RuntimeError:
        raise ThreadNotStarted from None
    try:
        value, error = outcomes.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value]  # without an error it is a T
