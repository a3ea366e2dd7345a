"""The requests that postpone and refuse messages. test_aws_calls.py has what all calls to AWS share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import boto3
import pytest
from botocore.stub import Stubber

from end_conversation.aws.queue import Queues
from end_conversation.deadline import Deadline
from tests.unit.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

POSTPONE = {"QueueUrl": "https://sqs/timeouts", "ReceiptHandle": "h1", "VisibilityTimeout": 30}
MESSAGE = {"body": "{junk", "messageAttributes": {}}
REFUSE = {"QueueUrl": "https://sqs/failed", "MessageBody": "{junk"}
DEADLINE = Deadline(FakeClock(), 10, 0)


@pytest.fixture
def stub() -> Iterator[Any]:
    with Stubber(boto3.client("sqs")) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.fixture
def make_client(stub: Any) -> Mock:
    return Mock(return_value=stub.client)


@pytest.fixture
def queue(make_client: Mock) -> Queues:
    return Queues(make_client, "https://sqs/timeouts", "https://sqs/failed", FakeClock())


def test_a_message_is_postponed(stub: Any, queue: Queues, make_client: Mock) -> None:
    """The client is made when it is first needed, and once."""
    assert make_client.call_count == 0
    for _ in range(2):
        stub.add_response("change_message_visibility", {}, POSTPONE)
        queue.postpone("h1", 30, DEADLINE)

    assert make_client.call_count == 1


def test_a_message_is_copied_unchanged(stub: Any, queue: Queues) -> None:
    stub.add_response("send_message", {"MessageId": "m2"}, REFUSE)

    queue.send_to_failed(MESSAGE, DEADLINE)


def test_attributes_are_copied(stub: Any, queue: Queues) -> None:
    """The dead letter of a schedule has attributes that say why it failed."""
    attributes = {
        "ERROR_CODE": {"stringValue": "AccessDenied", "dataType": "String", "stringListValues": []},
        "data": {"binaryValue": "AAH/", "dataType": "Binary", "binaryListValues": []},
    }
    copied = {
        "ERROR_CODE": {"StringValue": "AccessDenied", "DataType": "String"},
        "data": {"BinaryValue": b"\x00\x01\xff", "DataType": "Binary"},
    }
    stub.add_response("send_message", {"MessageId": "m2"}, REFUSE | {"MessageAttributes": copied})

    queue.send_to_failed(MESSAGE | {"messageAttributes": attributes}, DEADLINE)
