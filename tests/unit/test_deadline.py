"""The time that an invocation has. test_faults.py has work that takes too long."""

from datetime import UTC

import pytest

from end_conversation.deadline import Clock, Deadline
from tests.unit.fakes import FakeClock


@pytest.mark.parametrize(
    ("seconds", "reserve", "for_tavus"),
    [(30, 20, 10), (60, 20, 40), (12, 20, 4), (0.3, 20, 0.1), (0, 20, 0), (-1, 20, 0)],
)
def test_the_reserve_is_at_most_two_thirds(seconds: float, reserve: float, for_tavus: float) -> None:
    deadline = Deadline(FakeClock(), seconds, reserve)

    assert deadline.left_for_tavus() == pytest.approx(for_tavus)
    assert deadline.left() == max(seconds, 0)


def test_time_passes() -> None:
    """What is left is never negative."""
    clock = FakeClock()
    deadline = Deadline(clock, 30, 20)
    clock.sleep(5)

    assert (deadline.elapsed(), deadline.left(), deadline.left_for_tavus()) == (5, 25, 5)

    clock.sleep(95)

    assert (deadline.elapsed(), deadline.left(), deadline.left_for_tavus()) == (100, 0, 0)


def test_the_clock_is_in_utc() -> None:
    assert Clock().now().tzinfo is UTC
