"""The two tables of the contract, cell by cell."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from end_conversation.conversation import Conversation, Reason, Result, Status
from end_conversation.decision import Answer, NoAnswer, combine, decide, may_have_ended

CONVERSATION = Conversation("d1", "c1")
ENDED_BODY = b'{"conversation_id": "c1", "status": "ended"}'
NOW = datetime(2026, 11, 22, tzinfo=UTC)

SERVER_FAILURES = {408, *range(500, 600)} - {501, 505}
REFUSALS = {*range(300, 500), 501, 505} - {404, 410, 408, 423, 425, 429}


def row(status_code: int, body: bytes | None) -> tuple[str, str]:
    """Table 1, as the contract states it: the cells without and with an earlier attempt that may have ended it."""
    if status_code < 300:
        cell = "ended" if body == ENDED_BODY else "unconfirmed/unexpected_answer"
        return cell, cell
    if status_code in {404, 410}:
        return "not_found", "unconfirmed/earlier_attempt"
    if status_code in REFUSALS:
        return "rejected/tavus_rejected", "unconfirmed/earlier_attempt"
    cell = "unavailable/tavus_throttled" if status_code in {423, 429} else "unavailable/tavus_error"
    return cell, cell


def cell(answer: Answer | NoAnswer, *, earlier: bool) -> str:
    return "/".join(filter(None, decide(answer, CONVERSATION, earlier_may_have_ended=earlier)))


@pytest.mark.parametrize("body", [ENDED_BODY, b"", b"{}", b'{"conversation_id": "c2", "status": "ended"}', None])
def test_every_status_code_means_what_table_1_says(body: bytes | None) -> None:
    """All final status codes of HTTP, in both columns."""
    for status_code in range(200, 600):
        answer = Answer(status_code, {}, body)
        assert (cell(answer, earlier=False), cell(answer, earlier=True)) == row(status_code, body), status_code


@pytest.mark.parametrize("earlier", [False, True])
def test_403_with_retry_after_is_throttling(earlier: bool) -> None:
    """Some gateways throttle with 403. It did not end the conversation."""
    answer = Answer(403, {"Retry-After": "7"}, b"")

    assert cell(answer, earlier=earlier) == "unavailable/tavus_throttled"
    assert not may_have_ended(answer)


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("reason", [Reason.TAVUS_TIMEOUT, Reason.TAVUS_UNREACHABLE])
def test_no_answer_is_unavailable_in_both_columns(reason: Reason, sent: bool, earlier: bool) -> None:
    assert cell(NoAnswer(reason, "Failure", sent=sent), earlier=earlier) == f"unavailable/{reason}"


def test_server_failures_may_have_ended_it() -> None:
    """408 and every 5xx, but not 501 and 505."""
    found = {status_code for status_code in range(200, 600) if may_have_ended(Answer(status_code, {}, b""))}
    assert found == SERVER_FAILURES


@pytest.mark.parametrize("sent", [False, True])
def test_unanswered_attempt_may_have_ended_it_if_sent(sent: bool) -> None:
    assert may_have_ended(NoAnswer(Reason.TAVUS_UNREACHABLE, "Failure", sent=sent)) is sent


def result(status: Status, reason: Reason | None = None, attempts: int = 1) -> Result:
    return Result(status, reason, NOW, attempts, 200 if status is Status.ENDED else None)


KNOWN_MAY_HAVE_ENDED = result(Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT, attempts=3)
KNOWN_ENDED = result(Status.ENDED, attempts=2)

ENDED = result(Status.ENDED)
UNEXPECTED = result(Status.UNCONFIRMED, Reason.UNEXPECTED_ANSWER)
EARLIER = result(Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT)
NOT_FOUND = result(Status.NOT_FOUND)
REJECTED = result(Status.REJECTED, Reason.TAVUS_REJECTED)
UNAVAILABLE = result(Status.UNAVAILABLE, Reason.TAVUS_ERROR)


@pytest.mark.parametrize(
    ("answered", "nothing_known", "may_have_ended_known", "ended_known"),
    [
        (ENDED, ENDED, ENDED, ENDED),
        (UNEXPECTED, UNEXPECTED, UNEXPECTED, KNOWN_ENDED),
        (EARLIER, EARLIER, EARLIER, KNOWN_ENDED),
        (NOT_FOUND, NOT_FOUND, EARLIER, KNOWN_ENDED),
        (REJECTED, REJECTED, EARLIER, KNOWN_ENDED),
        (UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, KNOWN_ENDED),
    ],
    ids=lambda value: f"{value.status}/{value.reason}",
)
def test_every_cell_of_table_2(
    answered: Result, nothing_known: Result, may_have_ended_known: Result, ended_known: Result
) -> None:
    """A known `ended` is published unchanged, with its own attempts. Every other cell keeps those of this delivery."""
    assert combine(answered, None) == nothing_known
    assert combine(answered, KNOWN_MAY_HAVE_ENDED) == may_have_ended_known
    assert combine(answered, KNOWN_ENDED) == ended_known
