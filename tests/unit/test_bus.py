"""The event bus: what is put on it, what is put a second time, and what is given up."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from end_conversation.aws.bus import EventBus
from end_conversation.deadline import Deadline
from end_conversation.errors import ResultNotPublished
from tests.unit.fakes import FakeClock, let_aws_answer

ENTRY = {
    "EventBusName": "bus",
    "Source": "tavus.conversations",
    "DetailType": "Conversation End Result",
    "Detail": '{"status": "ended"}',
}
ACCEPTED = {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]}


def refused(code: str) -> dict[str, Any]:
    return {"FailedEntryCount": 1, "Entries": [{"ErrorCode": code, "ErrorMessage": "from AWS"}]}


@pytest.fixture
def client() -> Any:
    """It validates requests by the service model, as ours does not."""
    return boto3.client("events")


@pytest.fixture
def stub(client: Any) -> Iterator[Stubber]:
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def publish(client: Any, trace_header: str | None = None) -> None:
    clock = FakeClock()
    bus = EventBus(client, "bus", "tavus.conversations", lambda: trace_header, clock)
    bus.publish("Conversation End Result", {"status": "ended"}, Deadline(clock, 10, 5))


@pytest.mark.parametrize("trace_header", [None, "Root=1-2-3"])
def test_an_event_is_one_entry(client: Any, stub: Stubber, trace_header: str | None) -> None:
    """Consumers can follow the X-Ray trace header back to the invocation."""
    entry = ENTRY if trace_header is None else {**ENTRY, "TraceHeader": trace_header}
    stub.add_response("put_events", ACCEPTED, {"Entries": [entry]})

    publish(client, trace_header)


@pytest.mark.parametrize(("length", "sent"), [(500, True), (501, False)])
def test_a_long_trace_header_is_left_out(client: Any, stub: Stubber, length: int, sent: bool) -> None:
    """AWS would refuse the result because of it."""
    header = "R" * length
    stub.add_response("put_events", ACCEPTED, {"Entries": [ENTRY | ({"TraceHeader": header} if sent else {})]})

    publish(client, header)


@pytest.mark.parametrize(
    ("code", "named"),
    [("A" * 100_000, "A" * 64), ("Denied: d1 <b>", "Denied"), ("<html>", "Unknown"), ("", "Unknown"), ("A.b9", "A.b9")],
)
def test_an_error_code_is_named_as_far_as_it_looks_like_one(client: Any, stub: Stubber, code: str, named: str) -> None:
    """In the answer to the whole call and to an entry."""
    stub.add_response("put_events", refused(code))
    with pytest.raises(ResultNotPublished, match=f"^{named}$"):
        publish(client)
    stub.add_client_error("put_events", code)
    with pytest.raises(ResultNotPublished, match=f"^{named}$"):
        publish(client)


@pytest.mark.parametrize("code", ["InternalFailure", "InternalException", "ThrottlingException"])
def test_temporary_refusals_are_retried(client: Any, stub: Stubber, code: str) -> None:
    """PutEvents reports a refused entry within a 200."""
    stub.add_response("put_events", refused(code))
    stub.add_response("put_events", ACCEPTED, {"Entries": [ENTRY]})

    publish(client)


@pytest.mark.parametrize("code", ["NotAuthorizedForSourceException", "MalformedDetail", "InvalidArgument"])
def test_permanent_refusals_are_not_retried(client: Any, stub: Stubber, code: str) -> None:
    """The error has AWS' code and not its text."""
    stub.add_response("put_events", refused(code))

    with pytest.raises(ResultNotPublished, match=f"^{code}$"):
        publish(client)


@pytest.mark.parametrize("answer", [{}, {"Entries": [{"EventId": "1"}]}, {"FailedEntryCount": 1, "Entries": []}])
def test_only_a_failed_entry_count_of_0_is_a_success(client: Any, stub: Stubber, answer: dict[str, Any]) -> None:
    for _ in range(2):
        stub.add_response("put_events", answer)

    with pytest.raises(ResultNotPublished, match="^IncompleteAnswer$"):
        publish(client)


@pytest.mark.parametrize(
    ("code", "http_status", "calls"),
    [
        ("ThrottlingException", 400, 2),
        ("InternalException", 500, 2),
        ("Odd", 503, 2),
        ("AccessDeniedException", 400, 1),
    ],
)
def test_temporary_errors_are_retried_once(client: Any, stub: Stubber, code: str, http_status: int, calls: int) -> None:
    for _ in range(calls):
        stub.add_client_error("put_events", code, "from AWS", http_status_code=http_status)

    with pytest.raises(ResultNotPublished, match=f"^{code}$"):
        publish(client)


@pytest.mark.parametrize(
    "answer",
    [
        *((200, body) for body in (b"null", b"[]", b"5", b"\xff", b"<html>")),
        (200, b'{"FailedEntryCount": 1, "Entries": 5}'),
        (400, b"[]"),
        (500, b"\xff"),
    ],
)
def test_a_malformed_answer_is_no_success(client: Any, answer: tuple[int, bytes]) -> None:
    """The parser of botocore raises almost anything on such answers."""
    let_aws_answer(client, answer, answer)

    with pytest.raises(ResultNotPublished):
        publish(client)
