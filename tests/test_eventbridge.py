"""The event bus: what is put on it, what is put again, and what is given up."""

import json
import ssl
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from end_conversation import aws
from end_conversation.deadline import Clock, Deadline
from end_conversation.errors import ResultNotPublished
from end_conversation.eventbridge import EventBus
from tests.fakes import FakeClock, let_aws_answer

ENTRY = {
    "EventBusName": "bus",
    "Source": "tavus.conversations",
    "DetailType": "Conversation End Result",
    "Detail": '{"status": "ended"}',
}
TAKEN = {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]}


def refused(code: str) -> dict[str, Any]:
    return {"FailedEntryCount": 1, "Entries": [{"ErrorCode": code, "ErrorMessage": "told by AWS"}]}


@pytest.fixture
def client() -> Any:
    return aws.client("events", ssl.create_default_context())


@pytest.fixture
def stub(client: Any) -> Iterator[Stubber]:
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def publish(client: Any, trace_header: str | None = None) -> None:
    clock = FakeClock()
    bus = EventBus(client, "bus", "tavus.conversations", lambda: trace_header, clock)
    bus.publish({"status": "ended"}, Deadline(clock, 10, 5))


def test_a_result_is_one_entry(client: Any, stub: Stubber) -> None:
    """Bus, source, detail-type and detail are as the contract names them."""
    stub.add_response("put_events", TAKEN, {"Entries": [ENTRY]})

    publish(client)


def test_the_trace_goes_with_the_event(client: Any, stub: Stubber) -> None:
    """Who receives the result can follow it back to the invocation."""
    stub.add_response("put_events", TAKEN, {"Entries": [{**ENTRY, "TraceHeader": "Root=1-2-3"}]})

    publish(client, "Root=1-2-3")


@pytest.mark.parametrize("code", ["InternalFailure", "InternalException", "ThrottlingException"])
def test_an_entry_that_may_pass_is_sent_once_more(client: Any, stub: Stubber, code: str) -> None:
    """FailedEntryCount inside a 200 is read, and what AWS calls retryable is retried."""
    stub.add_response("put_events", refused(code))
    stub.add_response("put_events", TAKEN)

    publish(client)


@pytest.mark.parametrize("answer", [{}, {"Entries": [{"EventId": "1"}]}, {"FailedEntryCount": 1, "Entries": []}])
def test_an_answer_cut_short_is_no_success(client: Any, stub: Stubber, answer: dict[str, Any]) -> None:
    """Only a FailedEntryCount of 0 says that the event was taken."""
    stub.add_response("put_events", answer)
    stub.add_response("put_events", answer)

    with pytest.raises(ResultNotPublished):
        publish(client)


@pytest.mark.parametrize("code", ["NotAuthorizedForSourceException", "MalformedDetail", "InvalidArgument"])
def test_a_permanent_refusal_is_not_sent_again(client: Any, stub: Stubber, code: str) -> None:
    """It would be refused again; the error names AWS' code and not its text."""
    stub.add_response("put_events", refused(code))

    with pytest.raises(ResultNotPublished, match=f"^{code}$"):
        publish(client)


@pytest.mark.parametrize(
    ("code", "http_status"), [("ThrottlingException", 400), ("InternalException", 500), ("Odd", 503)]
)
def test_a_failed_call_is_made_once_more(client: Any, stub: Stubber, code: str, http_status: int) -> None:
    """One retry in all, and it is ours."""
    stub.add_client_error("put_events", code, http_status_code=http_status)
    stub.add_client_error("put_events", code, http_status_code=http_status)

    with pytest.raises(ResultNotPublished, match=f"^{code}$"):
        publish(client)


def test_a_denied_call_is_not_made_again(client: Any, stub: Stubber) -> None:
    """Permissions do not come back within an invocation."""
    stub.add_client_error("put_events", "AccessDeniedException", "told by AWS", http_status_code=400)

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
def test_what_is_no_answer_of_eventbridge_is_no_success(client: Any, answer: tuple[int, bytes]) -> None:
    """Whatever botocore makes of it, the result counts as not published."""
    let_aws_answer(client, answer, answer)

    with pytest.raises(ResultNotPublished):
        publish(client)


def test_a_bus_that_hangs_is_given_up_in_time() -> None:
    """Whatever the client's own timeouts, both sends end within the deadline."""

    class Hanging:
        calls = 0

        def put_events(self, **_: Any) -> None:
            self.calls += 1
            time.sleep(5)

    client: Any = Hanging()
    clock = Clock()
    bus = EventBus(client, "bus", "tavus.conversations", lambda: None, clock)
    deadline = Deadline(clock, 0.6, 0.3)

    with pytest.raises(ResultNotPublished, match="^TimeoutError$"):
        bus.publish({}, deadline)

    assert client.calls == 2
    assert deadline.elapsed() < 1.5


@mock_aws
def test_a_rule_on_the_bus_hands_the_result_to_its_target() -> None:
    """A consumer that matches our source and detail-type finds the detail on its queue."""
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
