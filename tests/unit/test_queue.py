"""The requests that postpone and refuse messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.stub import Stubber

from end_conversation.aws.client import TRY_SECONDS
from end_conversation.aws.queue import Queues
from end_conversation.deadline import Deadline
from end_conversation.errors import AwsCallFailed
from tests.unit.fakes import FakeClock

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

POSTPONE = {"QueueUrl": "https://sqs/timeouts", "ReceiptHandle": "h1", "VisibilityTimeout": 30}
MESSAGE = {"body": "{junk", "messageAttributes": {}}
REFUSE = {"QueueUrl": "https://sqs/failed", "MessageBody": "{junk"}


class Sqs:
    """A queue with a stubbed client."""

    def __init__(self) -> None:
        self.client: SQSClient = boto3.client(
            "sqs",
            region_name="eu-west-1",
            aws_access_key_id="a",
            aws_secret_access_key="b",  # noqa: S106 - signs for a stub
        )
        self.stub = Stubber(self.client)
        self.stub.activate()
        self.made = 0
        self.queue = Queues(self._make, "https://sqs/timeouts", "https://sqs/failed", FakeClock())

    def _make(self) -> SQSClient:
        self.made += 1
        return self.client

    def postpone(self, seconds: float = 10) -> None:
        self.queue.postpone("h1", 30, Deadline(FakeClock(), seconds, 0))

    def send_to_failed(self, message: dict[str, Any], seconds: float = 10) -> None:
        self.queue.send_to_failed(message, Deadline(FakeClock(), seconds, 0))


@pytest.fixture
def sqs() -> Sqs:
    return Sqs()


def test_a_message_is_postponed(sqs: Sqs) -> None:
    sqs.stub.add_response("change_message_visibility", {}, POSTPONE)
    sqs.stub.add_response("change_message_visibility", {}, POSTPONE)

    sqs.postpone()
    sqs.postpone()

    sqs.stub.assert_no_pending_responses()
    assert sqs.made == 1


def test_the_client_is_made_when_it_is_first_needed(sqs: Sqs) -> None:
    assert sqs.made == 0


def test_a_message_is_refused_as_it_is(sqs: Sqs) -> None:
    sqs.stub.add_response("send_message", {"MessageId": "m2"}, REFUSE)

    sqs.send_to_failed(MESSAGE)

    sqs.stub.assert_no_pending_responses()


def test_attributes_are_copied(sqs: Sqs) -> None:
    """The dead letter of a schedule has attributes that say why it failed."""
    attributes = {
        "ERROR_CODE": {"stringValue": "AccessDenied", "dataType": "String", "stringListValues": []},
        "data": {"binaryValue": "AAH/", "dataType": "Binary", "binaryListValues": []},
    }
    copied = {
        "ERROR_CODE": {"StringValue": "AccessDenied", "DataType": "String"},
        "data": {"BinaryValue": b"\x00\x01\xff", "DataType": "Binary"},
    }
    sqs.stub.add_response("send_message", {"MessageId": "m2"}, REFUSE | {"MessageAttributes": copied})

    sqs.send_to_failed(MESSAGE | {"messageAttributes": attributes})

    sqs.stub.assert_no_pending_responses()


def test_a_failed_call_is_tried_once_more(sqs: Sqs) -> None:
    sqs.stub.add_client_error("change_message_visibility", "InternalError", http_status_code=500)
    sqs.stub.add_response("change_message_visibility", {}, POSTPONE)

    sqs.postpone()

    sqs.stub.assert_no_pending_responses()


@pytest.mark.parametrize("code", ["ReceiptHandleIsInvalid", "AccessDenied"])
def test_a_permanent_error_is_not_retried(sqs: Sqs, code: str) -> None:
    sqs.stub.add_client_error("change_message_visibility", code, http_status_code=400)

    with pytest.raises(AwsCallFailed, match=f"^{code}$"):
        sqs.postpone()


def test_a_truncated_answer_does_not_count(sqs: Sqs) -> None:
    sqs.stub.add_response("send_message", {}, REFUSE)
    sqs.stub.add_response("send_message", {}, REFUSE)

    with pytest.raises(AwsCallFailed, match="IncompleteAnswer"):
        sqs.send_to_failed(MESSAGE)

    sqs.stub.assert_no_pending_responses()


def test_no_call_begins_too_late(sqs: Sqs) -> None:
    for call in (sqs.postpone, lambda seconds: sqs.send_to_failed(MESSAGE, seconds)):
        with pytest.raises(AwsCallFailed, match="NoTimeLeft"):
            call(TRY_SECONDS - 0.1)
