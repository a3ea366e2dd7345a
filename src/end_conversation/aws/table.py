"""The DynamoDB table of ended conversations, which stores results for later invocations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from end_conversation.aws.client import TRY_SECONDS, call_with_retry
from end_conversation.conversation import Reason, Result, Status
from end_conversation.errors import AwsCallFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_dynamodb import DynamoDBClient

    from end_conversation.conversation import Conversation
    from end_conversation.deadline import Clock, Deadline

TIME_TO_LIVE = timedelta(days=30)

_serialize = TypeSerializer().serialize
_deserialize = TypeDeserializer().deserialize


class EndedTable:
    """Keeps one item per conversation: an `ended` or `unconfirmed` result, which expires after 30 days.

    No method raises: a table failure must not prevent an end. `report_failure` gets the kind of each failure.
    """

    def __init__(self, client: DynamoDBClient, name: str, report_failure: Callable[[str], None], clock: Clock) -> None:
        self._client = client
        self._name = name
        self._report_failure = report_failure
        self._clock = clock

    def get(self, conversation: Conversation, deadline: Deadline) -> Result | None:
        """Return what is recorded about a conversation, with a consistent read. None if nothing is.

        What cannot be read may say that the conversation has ended, so the answer is then `unconfirmed`.
        """
        response = self._call(
            lambda: self._client.get_item(
                TableName=self._name,
                Key={"conversation": _serialize(conversation.key)},
                ConsistentRead=True,
                ReturnConsumedCapacity="TOTAL",
            ),
            deadline,
        )
        unread = Result(Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT, self._clock.now(), attempts=1)
        if response is None:
            return unread
        # botocore treats a truncated 200 as an empty answer. A whole one has the capacity, even without an item.
        if "ConsumedCapacity" not in response:
            self._report_failure("IncompleteAnswer")
            return unread
        if "Item" not in response:
            return None
        try:
            return _result(response["Item"])
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
            self._report_failure("MalformedItem")
            return unread

    def put(self, conversation: Conversation, result: Result, deadline: Deadline) -> None:
        """Store an `ended` or `unconfirmed` result. Never replaces `ended` with `unconfirmed`."""
        attributes = {
            "conversation": conversation.key,
            "status": result.status,
            "reason": result.reason,
            "decided_at": result.decided_at.isoformat(),
            "attempts": result.attempts,
            "tavus_status_code": result.tavus_status_code,
            "tavus_request_id": result.tavus_request_id,
            "expires_at": int((result.decided_at + TIME_TO_LIVE).timestamp()),
        }
        request: dict[str, Any] = {
            "TableName": self._name,
            "Item": {name: _serialize(value) for name, value in attributes.items()},
        }
        if result.status is not Status.ENDED:
            request["ConditionExpression"] = "attribute_not_exists(conversation) OR #status <> :ended"
            request["ExpressionAttributeNames"] = {"#status": "status"}
            request["ExpressionAttributeValues"] = {":ended": _serialize(Status.ENDED)}
        self._call(lambda: self._client.put_item(**request), deadline)

    def _call(self, call: Callable[[], Any], deadline: Deadline) -> Any:
        try:
            # The time that is kept is needed to publish the result.
            return call_with_retry(call, deadline, self._clock, keep_seconds=TRY_SECONDS)
        except AwsCallFailed as error:
            if error.kind != "ConditionalCheckFailedException":
                self._report_failure(error.kind)
            return None


def _result(item: dict[str, Any]) -> Result:
    kept = {name: _deserialize(value) for name, value in item.items()}
    status, decided_at = Status(kept["status"]), datetime.fromisoformat(kept["decided_at"])
    request_id = kept["tavus_request_id"]
    may_be_recorded = status in (Status.ENDED, Status.UNCONFIRMED)
    if not may_be_recorded or decided_at.tzinfo is None or not isinstance(request_id, str | None):
        raise ValueError
    return Result(
        status,
        kept["reason"] and Reason(kept["reason"]),
        decided_at.astimezone(UTC),
        int(kept["attempts"]),
        kept["tavus_status_code"] and int(kept["tavus_status_code"]),
        request_id,
    )
