"""Time: the clock, and the deadline of one invocation."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """The only reader of the time. Tests replace it."""

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
    result, but never more than half of the time.
    """

    def __init__(self, clock: Clock, seconds: float, reserve: float) -> None:
        self._clock = clock
        self._start = clock.monotonic()
        self._end = self._start + seconds
        self._reserve = min(reserve, max(seconds, 0) / 2)

    def elapsed(self) -> float:
        """Seconds since the start of the invocation."""
        return self._clock.monotonic() - self._start

    def left_for_tavus(self) -> float:
        """Seconds left for calling Tavus. Never negative."""
        return max(self._end - self._reserve - self._clock.monotonic(), 0)

    def left(self) -> float:
        """Seconds left until the deadline. Never negative."""
        return max(self._end - self._clock.monotonic(), 0)
