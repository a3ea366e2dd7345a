"""The two SQS queues: of session timeouts, and of failed ones."""

from __future__ import annotations

import base64
from functools import cache
from typing import TYPE_CHECKING, Any

from end_conversation.aws.client import call_with_retry, expect_member

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageAttributeValueTypeDef

    from end_conversation.deadline import Clock, Deadline


class Queues:
    """Postpones messages of the first queue, and copies messages to the second."""

    def __init__(
        self, make_client: Callable[[], SQSClient], timeout_queue_url: str, failed_queue_url: str, clock: Clock
    ) -> None:
        self._client = cache(make_client)  # most invocations need none
        self._timeout_queue_url = timeout_queue_url
        self._failed_queue_url = failed_queue_url
        self._clock = clock

    def postpone(self, receipt_handle: str, seconds: int, deadline: Deadline) -> None:
        """Make a received message visible again in this many seconds. Raises AwsCallFailed."""
        call_with_retry(
            lambda: self._client().change_message_visibility(
                QueueUrl=self._timeout_queue_url, ReceiptHandle=receipt_handle, VisibilityTimeout=seconds
            ),
            deadline,
            self._clock,
        )

    def send_to_failed(self, message: dict[str, Any], deadline: Deadline) -> None:
        """Copy a message of a Lambda event to the queue of failed ones. Raises AwsCallFailed."""
        request: dict[str, Any] = {"QueueUrl": self._failed_queue_url, "MessageBody": message["body"]}
        if attributes := message.get("messageAttributes"):
            request["MessageAttributes"] = {name: _attribute(value) for name, value in attributes.items()}
        call_with_retry(
            lambda: expect_member("MessageId", self._client().send_message(**request)), deadline, self._clock
        )


def _attribute(value: dict[str, Any]) -> MessageAttributeValueTypeDef:
    if "stringValue" in value:
        return {"DataType": value["dataType"], "StringValue": value["stringValue"]}
    return {"DataType": value["dataType"], "BinaryValue": base64.b64decode(value["binaryValue"])}
