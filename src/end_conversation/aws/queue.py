"""The SQS queues of session timeouts: those to handle, and those that failed."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from end_conversation.aws.client import call_with_retry
from end_conversation.errors import AwsCallFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageAttributeValueTypeDef

    from end_conversation.deadline import Clock, Deadline


class TimeoutQueue:
    """Postpones messages of one queue, and copies messages to the other.

    Most invocations do neither, so the client is made when it is first needed.
    """

    def __init__(
        self, make_client: Callable[[], SQSClient], timeout_queue_url: str, failed_queue_url: str, clock: Clock
    ) -> None:
        self._make_client = make_client
        self._made: SQSClient | None = None
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

    def refuse(self, message: dict[str, Any], deadline: Deadline) -> None:
        """Copy a message of a Lambda event to the queue of failed ones. Raises AwsCallFailed."""
        request: dict[str, Any] = {"QueueUrl": self._failed_queue_url, "MessageBody": message["body"]}
        if attributes := message.get("messageAttributes"):
            request["MessageAttributes"] = {name: _attribute(value) for name, value in attributes.items()}
        call_with_retry(lambda: self._send(request), deadline, self._clock)

    def _send(self, request: dict[str, Any]) -> None:
        # botocore treats a truncated 200 as an empty answer.
        if "MessageId" not in self._client().send_message(**request):
            raise AwsCallFailed("IncompleteAnswer", retryable=True)

    def _client(self) -> SQSClient:
        if self._made is None:
            self._made = self._make_client()
        return self._made


def _attribute(value: dict[str, Any]) -> MessageAttributeValueTypeDef:
    if "stringValue" in value:
        return {"DataType": value["dataType"], "StringValue": value["stringValue"]}
    return {"DataType": value["dataType"], "BinaryValue": base64.b64decode(value["binaryValue"])}
