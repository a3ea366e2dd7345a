"""The event bus: what is put on it, and which answers are a success. test_aws_calls.py has what all calls share."""

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


@pytest.fixture
def stub() -> Iterator[Any]:
    """It validates requests by the service model, as our client does not."""
    with Stubber(boto3.client("events")) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def publish(client: Any, trace_header: str | None = None) -> None:
    clock = FakeClock()
    bus = EventBus(client, "bus", "tavus.conversations", lambda: trace_header, clock)
    bus.publish("Conversation End Result", {"status": "ended"}, Deadline(clock, 10, 5))


@pytest.mark.parametrize(
    ("trace_header", "sent"),
    [(None, {}), *((header, {"TraceHeader": header}) for header in ("Root=1-2-3", "R" * 500)), ("R" * 501, {})],
)
def test_an_event_is_one_entry(stub: Any, trace_header: str | None, sent: dict[str, str]) -> None:
    """Consumers can follow the trace header to the invocation. AWS would refuse the result because of a long one."""
    stub.add_response("put_events", ACCEPTED, {"Entries": [ENTRY | sent]})

    publish(stub.client, trace_header)


@pytest.mark.parametrize(
    ("code", "named"),
    [
        *((code, code) for code in ("NotAuthorizedForSourceException", "MalformedDetail", "InvalidArgument", "A.b9")),
        *(("A" * 100_000, "A" * 64), ("Denied: d1 <b>", "Denied"), ("<html>", "Unknown"), ("", "Unknown")),
    ],
)
def test_refusals_are_named_and_not_retried(stub: Any, code: str, named: str) -> None:
    """By the code as far as it looks like one, in the answer to the whole call and to an entry. AWS' text is not."""
    entry = {"ErrorCode": code, "ErrorMessage": "from AWS"}
    stub.add_response("put_events", {"FailedEntryCount": 1, "Entries": [entry]})
    with pytest.raises(ResultNotPublished, match=f"^{named}$"):
        publish(stub.client)
    stub.add_client_error("put_events", code)
    with pytest.raises(ResultNotPublished, match=f"^{named}$"):
        publish(stub.client)


@pytest.mark.parametrize("code", ["InternalFailure", "InternalException", "ThrottlingException"])
def test_temporary_refusals_are_retried(stub: Any, code: str) -> None:
    """PutEvents reports a refused entry within a 200."""
    stub.add_response("put_events", {"FailedEntryCount": 1, "Entries": [{"ErrorCode": code}]})
    stub.add_response("put_events", ACCEPTED)

    publish(stub.client)


@pytest.mark.parametrize("answer", [{}, {"Entries": [{"EventId": "1"}]}, {"FailedEntryCount": 1, "Entries": []}])
def test_only_a_failed_entry_count_of_0_is_a_success(stub: Any, answer: dict[str, Any]) -> None:
    for _ in range(2):
        stub.add_response("put_events", answer)

    with pytest.raises(ResultNotPublished, match="^IncompleteAnswer$"):
        publish(stub.client)


def test_entries_that_are_no_list_are_failures() -> None:
    client = boto3.client("events")
    answer = 200, b'{"FailedEntryCount": 1, "Entries": 5}'
    let_aws_answer(client, answer, answer)

    with pytest.raises(ResultNotPublished):
        publish(client)
