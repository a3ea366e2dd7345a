"""Time: the clock, the deadline of one invocation, and work that is given up when its time is over."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """The one place that reads the time; tests put one of their own in its stead."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment, never running back."""
        return time.monotonic()

    def now(self) -> datetime:
        """The date and time, in UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        time.sleep(seconds)


class Deadline:
    """When one invocation must be over, and how much of its end is kept for telling the result.

    `seconds` is all there is from now; `reserve` of it is not Tavus'. Of a short time the reserve takes half at most.
    """

    def __init__(self, clock: Clock, seconds: float, reserve: float) -> None:
        self._clock = clock
        self._begun = clock.monotonic()
        self._over = self._begun + seconds
        self._reserve = min(reserve, max(seconds, 0) / 2)

    def elapsed(self) -> float:
        """Seconds since the deadline was set."""
        return self._clock.monotonic() - self._begun

    def left_for_tavus(self) -> float:
        """Seconds left until the reserve begins; never negative."""
        return max(self._over - self._reserve - self._clock.monotonic(), 0)

    def left(self) -> float:
        """Seconds left until the invocation must be over; never negative."""
        return max(self._over - self._clock.monotonic(), 0)


def within[T](seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns or raises, or TimeoutError once so many seconds are over.

    It runs in a thread of its own: nothing else bounds a resolver that hangs or a server that drips its answer.
    A thread that was given up ends by itself; it keeps neither the caller nor the process waiting.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again where the caller waits
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(seconds)
