"""The event bus: what is put on it, what is put a second time, and what is given up."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

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


@pytest.mark.parametrize("code", ["InternalFailure", "InternalException", "ThrottlingException"])
def test_an_entry_refused_for_a_moment_is_put_again(client: Any, stub: Stubber, code: str) -> None:
    """PutEvents reports a refused entry within a 200."""
    stub.add_response("put_events", refused(code))
    stub.add_response("put_events", ACCEPTED, {"Entries": [ENTRY]})

    publish(client)


@pytest.mark.parametrize("code", ["NotAuthorizedForSourceException", "MalformedDetail", "InvalidArgument"])
def test_an_entry_refused_for_good_is_not_put_again(client: Any, stub: Stubber, code: str) -> None:
    """The error has AWS' code and not its text."""
    stub.add_response("put_events", refused(code))

    with pytest.raises(ResultNotPublished, match=f"^{code}$"):
        publish(client)


@pytest.mark.parametrize("answer", [{}, {"Entries": [{"EventId": "1"}]}, {"FailedEntryCount": 1, "Entries": []}])
def test_only_a_failed_entry_count_of_0_is_a_success(client: Any, stub: Stubber, answer: dict[str, Any]) -> None:
    stub.add_response("put_events", answer)
    stub.add_response("put_events", answer)

    with pytest.raises(ResultNotPublished, match="^IncompleteAnswer$"):
        publish(client)


@pytest.mark.parametrize(
    ("code", "http_status"), [("ThrottlingException", 400), ("InternalException", 500), ("Odd", 503)]
)
def test_a_call_that_fails_for_a_moment_is_made_twice(client: Any, stub: Stubber, code: str, http_status: int) -> None:
    stub.add_client_error("put_events", code, http_status_code=http_status)
    stub.add_client_error("put_events", code, http_status_code=http_status)

    with pytest.raises(ResultNotPublished, match=f"^{code}$"):
        publish(client)


def test_a_denied_call_is_made_once(client: Any, stub: Stubber) -> None:
    stub.add_client_error("put_events", "AccessDeniedException", "from AWS", http_status_code=400)

    with pytest.raises(ResultNotPublished, match="^AccessDeniedException$"):
        publish(client)


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"null"),
        (200, b"[]"),
        (200, b"5"),
        (200, b"\xff"),
        (200, b"<html>"),
        (200, b'{"FailedEntryCount": 1, "Entries": 5}'),
        (400, b"[]"),
        (500, b"\xff"),
    ],
)
def test_an_answer_that_is_not_eventbridge_s_is_no_success(client: Any, answer: tuple[int, bytes]) -> None:
    """The parser of botocore raises almost anything on such answers."""
    let_aws_answer(client, answer, answer)

    with pytest.raises(ResultNotPublished):
        publish(client)


@mock_aws
def test_a_rule_on_the_bus_passes_the_event_to_its_target() -> None:
    """A consumer that matches source and detail-type finds the detail in its queue."""
    events = boto3.client("events")
    sqs = boto3.client("sqs")
    queue = sqs.create_queue(QueueName="results")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.create_event_bus(Name="bus")
    pattern = {"source": ["tavus.conversations"], "detail-type": ["Conversation End Result"]}
    events.put_rule(Name="results", EventBusName="bus", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="results", EventBusName="bus", Targets=[{"Id": "queue", "Arn": arn}])

    publish(events)

    [message] = sqs.receive_message(QueueUrl=queue)["Messages"]
    assert json.loads(message["Body"])["detail"] == {"status": "ended"}
