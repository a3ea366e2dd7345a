"""The record: what we know outlives a crash, and outranks what Tavus says next."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from end_conversation.conversation import Conversation, Reason, Result, Status
from end_conversation.deadline import Deadline
from end_conversation.errors import RecordUnavailable, TavusUnavailable
from end_conversation.record import EndRecorded
from tests.fakes import FakeClock, FakeRecord

CONVERSATION = Conversation("d1", "c1")
NOW = datetime(2026, 11, 22, tzinfo=UTC)
ENDED = Result(Status.ENDED, None, NOW, 1, 200)
UNEXPECTED = Result(Status.UNCONFIRMED, Reason.UNEXPECTED_ANSWER, NOW, 1, 200)
REFUSED = Result(Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT, NOW, 2, 404)
SUSPECTED = Result(Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT, NOW, 3)
NOT_FOUND = Result(Status.NOT_FOUND, None, NOW, 1, 404)
REJECTED = Result(Status.REJECTED, Reason.TAVUS_REJECTED, NOW, 1, 400)
NOT_ALLOWED = Result(Status.REJECTED, Reason.DEPLOYMENT_NOT_ALLOWED, NOW, 0)
MAYBE = TavusUnavailable(Reason.TAVUS_UNREACHABLE, "ConnectionResetError", 3, may_have_ended=True)
NEVER = TavusUnavailable(Reason.TAVUS_THROTTLED, "HTTP 429", 3)


def record_of(kept: Result | None = None, *, down: bool = False) -> FakeRecord:
    return FakeRecord(FakeClock(), kept, down=down)


def end(outcome: Result | TavusUnavailable, record: FakeRecord) -> tuple[Result, list[RecordUnavailable]]:
    failures: list[RecordUnavailable] = []

    def ask(conversation: Conversation, deadline: Deadline) -> Result:
        if isinstance(outcome, TavusUnavailable):
            raise outcome
        return outcome

    clock = FakeClock()
    result = EndRecorded(ask, record, failures.append, clock)(CONVERSATION, Deadline(clock, 10, 5))
    return result, failures


def test_ended_is_written_down_and_nothing_is_asked() -> None:
    """Nothing outranks it, so the table is not read on the way that most calls go."""
    record = record_of()

    assert end(ENDED, record) == (ENDED, [])
    assert record.keeps == [ENDED]
    assert record.recalls == 0


def test_unconfirmed_is_written_down() -> None:
    """A 2xx that nobody understood is more than the 404 that may come next."""
    record = record_of()

    assert end(UNEXPECTED, record) == (UNEXPECTED, [])
    assert record.keeps == [UNEXPECTED]


@pytest.mark.parametrize("outcome", [NOT_FOUND, REJECTED])
def test_a_weak_result_is_not_written_down(outcome: Result) -> None:
    """Only what may have ended a conversation is worth remembering."""
    record = record_of()

    assert end(outcome, record) == (outcome, [])
    assert record.keeps == []


@pytest.mark.parametrize("kept", [ENDED, UNEXPECTED, REFUSED])
@pytest.mark.parametrize("outcome", [NOT_FOUND, REJECTED])
def test_a_redelivery_after_a_crash_tells_the_stronger_truth(outcome: Result, kept: Result) -> None:
    """Killed between Tavus' answer and PutEvents, the next run meets a 404 or a 400 and still says what was known."""
    assert end(outcome, record_of(kept)) == (kept, [])


@pytest.mark.parametrize("outcome", [NOT_FOUND, REJECTED, replace(REJECTED, may_have_ended=True)])
def test_a_suspicion_makes_a_refusal_unconfirmed(outcome: Result) -> None:
    """Three resets, raised, redelivered with 404: an earlier attempt may have done it, and now an answer settled it."""
    record = record_of(SUSPECTED)
    settled = Result(Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT, NOW, 1, outcome.tavus_status_code)

    assert end(outcome, record) == (settled, [])
    assert record.keeps == [settled]


def test_ended_outranks_an_unconfirmed_redelivery() -> None:
    """What was known before is not weakened by a redelivery."""
    assert end(UNEXPECTED, record_of(ENDED)) == (ENDED, [])


def test_ended_outranks_an_unconfirmed_run_beside_it() -> None:
    """Whoever comes second to write learns what the first wrote."""

    class Raced(FakeRecord):
        def keep(self, conversation: Conversation, result: Result, deadline: Deadline) -> None:
            self.kept = ENDED
            super().keep(conversation, result, deadline)

    assert end(UNEXPECTED, Raced(FakeClock())) == (ENDED, [])


@pytest.mark.parametrize("outcome", [MAYBE, NEVER])
@pytest.mark.parametrize("kept", [ENDED, UNEXPECTED, REFUSED])
def test_what_an_answer_once_settled_is_told_while_tavus_is_down(outcome: TavusUnavailable, kept: Result) -> None:
    """A redelivery does not need Tavus to repeat itself."""
    assert end(outcome, record_of(kept)) == (kept, [])


@pytest.mark.parametrize("kept", [None, SUSPECTED])
def test_a_suspicion_is_worth_another_try(kept: Result | None) -> None:
    """While all that is known is that an attempt may have done it, the invocation raises and Lambda tries again."""
    with pytest.raises(TavusUnavailable):
        end(NEVER, record_of(kept))


def test_a_suspicion_is_written_down_before_raising() -> None:
    """Three resets, raised, redelivered with 404 will then say unconfirmed and not not_found."""
    record = record_of()

    with pytest.raises(TavusUnavailable):
        end(MAYBE, record)

    [kept] = record.keeps
    assert (kept.status, kept.reason, kept.attempts) == (Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT, 3)


def test_a_suspicion_is_written_down_before_a_refusal_is_told() -> None:
    """A 500 and then a 403 is a refusal; redelivered with 404, it will say unconfirmed and not not_found."""
    record = record_of()
    refused = replace(REJECTED, attempts=2, may_have_ended=True)

    assert end(refused, record) == (refused, [])

    [kept] = record.keeps
    assert (kept.status, kept.reason, kept.attempts) == (Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT, 2)
    assert not kept.settled
    assert end(NOT_FOUND, record)[0].status is Status.UNCONFIRMED


def test_a_suspicion_outlives_the_allow_list() -> None:
    """Tavus was not asked again, so the suspicion is told as it was."""
    record = record_of(SUSPECTED)

    assert end(NOT_ALLOWED, record) == (SUSPECTED, [])
    assert record.keeps == []


def test_an_attempt_that_ended_nothing_leaves_no_suspicion() -> None:
    """A throttled request was never carried out."""
    record = record_of()

    with pytest.raises(TavusUnavailable):
        end(NEVER, record)

    assert record.keeps == []


@pytest.mark.parametrize(("outcome", "failures"), [(ENDED, 1), (UNEXPECTED, 2), (NOT_FOUND, 1)])
def test_a_broken_table_never_stops_an_end(outcome: Result, failures: int) -> None:
    """Each failure is told to the operator, and the run goes on with what Tavus said."""
    result, told = end(outcome, record_of(down=True))

    assert result == outcome
    assert len(told) == failures


def test_a_broken_table_does_not_hide_that_tavus_is_down() -> None:
    """The error that is raised is the one that Lambda should retry for."""
    with pytest.raises(TavusUnavailable):
        end(MAYBE, record_of(down=True))
