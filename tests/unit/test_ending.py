"""What is recorded and read around the call to Tavus."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from end_conversation.conversation import Conversation, Reason, Result, Status
from end_conversation.deadline import Deadline
from end_conversation.ending import EndRecorded
from tests.unit.fakes import FakeClock, FakeRecord

if TYPE_CHECKING:
    from end_conversation.ending import EndConversation, Log

CONVERSATION = Conversation("d1", "c1")
CLOCK = FakeClock()
NOW = datetime(2026, 11, 22, tzinfo=UTC)
ENDED = Result(Status.ENDED, None, NOW, 1, 200)
UNEXPECTED = Result(Status.UNCONFIRMED, Reason.UNEXPECTED_ANSWER, NOW, 1, 200)
EARLIER = Result(Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT, NOW, 2, 404)
NOT_FOUND = Result(Status.NOT_FOUND, None, NOW, 1, 404)
REJECTED = Result(Status.REJECTED, Reason.TAVUS_REJECTED, NOW, 1, 400)
MAY_HAVE_ENDED = Result(Status.UNAVAILABLE, Reason.TAVUS_ERROR, NOW, 3, 503, failure="HTTP 503", may_have_ended=True)
THROTTLED = Result(Status.UNAVAILABLE, Reason.TAVUS_THROTTLED, NOW, 3, 429, failure="HTTP 429")


def answering(result: Result) -> EndConversation:
    return lambda conversation, deadline: result


def run(result: Result, record: FakeRecord | None, logged: list[tuple[str, Result]] | None = None) -> Result:
    def log(kind: str) -> Log:
        return lambda conversation, result, deadline: None if logged is None else logged.append((kind, result))

    return EndRecorded(answering(result), record, log("answer"), log("result"))(CONVERSATION, Deadline(CLOCK, 10, 5))


@pytest.mark.parametrize(
    ("result", "recorded"),
    [
        (ENDED, [ENDED]),
        (UNEXPECTED, [UNEXPECTED]),
        (EARLIER, [EARLIER]),
        (MAY_HAVE_ENDED, [Result(Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT, NOW, attempts=3)]),
        *((result, []) for result in (NOT_FOUND, REJECTED, THROTTLED)),
    ],
)
def test_what_may_have_ended_the_conversation_is_recorded(result: Result, recorded: list[Result]) -> None:
    """Nothing outranks `ended`, so the usual call reads nothing."""
    record = FakeRecord()

    assert run(result, record) == result
    assert record.puts == recorded
    assert record.gets == (0 if result is ENDED else 1)


@pytest.mark.parametrize("first", [UNEXPECTED, MAY_HAVE_ENDED])
def test_a_second_delivery_that_is_refused_is_unconfirmed(first: Result) -> None:
    """And not `not_found`. It keeps what it knows itself."""
    record = FakeRecord()
    run(first, record)

    assert run(NOT_FOUND, record) == NOT_FOUND._replace(status=Status.UNCONFIRMED, reason=Reason.EARLIER_ATTEMPT)


@pytest.mark.parametrize("result", [UNEXPECTED, EARLIER, NOT_FOUND, REJECTED, MAY_HAVE_ENDED, THROTTLED])
def test_a_second_delivery_returns_the_recorded_ended(result: Result) -> None:
    """So the result is correct even if an invocation was killed between Tavus' 200 and PutEvents."""
    record = FakeRecord(ENDED)
    logged: list[tuple[str, Result]] = []

    assert run(result, record, logged) is ENDED
    assert record.known is ENDED
    assert logged == [("answer", result), ("result", ENDED)]


def test_ended_written_by_a_concurrent_invocation_is_found() -> None:
    """The record is read after it is written, so the weaker of two runs finds the result of the stronger."""

    class Raced(FakeRecord):
        def put(self, conversation: Conversation, result: Result, deadline: Deadline) -> None:
            self.known = ENDED
            super().put(conversation, result, deadline)

    assert run(UNEXPECTED, Raced()) is ENDED


@pytest.mark.parametrize("result", [ENDED, UNEXPECTED, MAY_HAVE_ENDED, NOT_FOUND, REJECTED])
def test_unreadable_record_makes_refusals_unconfirmed(result: Result) -> None:
    """So a refusal is not certain. Nothing else changes."""
    unconfirmed = result._replace(status=Status.UNCONFIRMED, reason=Reason.EARLIER_ATTEMPT)

    outcome = run(result, FakeRecord(ENDED, down=True))

    assert outcome == (unconfirmed if result in (NOT_FOUND, REJECTED) else result)


@pytest.mark.parametrize("result", [ENDED, UNEXPECTED, NOT_FOUND, REJECTED, THROTTLED, MAY_HAVE_ENDED])
def test_answer_is_logged_before_the_record_is_used(result: Result) -> None:
    """Lambda may kill the run while the table hangs. The result itself is logged once."""
    logged: list[tuple[str, Result]] = []

    class Hanging(FakeRecord):
        def put(self, conversation: Conversation, result: Result, deadline: Deadline) -> None:
            assert logged

        def get(self, conversation: Conversation, deadline: Deadline) -> Result | None:
            assert logged
            return None

    run(result, Hanging(), logged)

    assert logged == ([("result", ENDED)] if result is ENDED else [("answer", result), ("result", result)])


@pytest.mark.parametrize("result", [ENDED, UNEXPECTED, NOT_FOUND, MAY_HAVE_ENDED])
def test_without_a_record_the_result_is_final(result: Result) -> None:
    logged: list[tuple[str, Result]] = []

    assert run(result, None, logged) is result
    assert logged == [("result", result)]
