"""The record as a DynamoDB table: key `conversation`, expiring at `expires_at` after 30 days."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from end_conversation.aws import AwsRefused, ask
from end_conversation.conversation import Reason, Result, Status
from end_conversation.errors import RecordUnavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from end_conversation.conversation import Conversation
    from end_conversation.deadline import Clock, Deadline

MAX_SECONDS = 2
TIME_TO_LIVE = timedelta(days=30)

_serialize = TypeSerializer().serialize
_deserialize = TypeDeserializer().deserialize


class EndedTable:
    """The table of conversations known, or suspected, to be over: an item each, made of a result's members."""

    def __init__(self, client: DynamoDBClient, name: str, clock: Clock) -> None:
        self._client = client
        self._name = name
        self._clock = clock

    def recall(self, conversation: Conversation, deadline: Deadline) -> Result | None:
        """Give the result kept of a conversation, read consistently. Raises RecordUnavailable."""
        key = {"conversation": _serialize(_key(conversation))}
        try:
            response = ask(
                lambda: self._client.get_item(TableName=self._name, Key=key, ConsistentRead=True),
                _seconds(deadline),
                self._clock,
            )
        except AwsRefused as refused:
            raise RecordUnavailable(str(refused)) from None
        return _result(response["Item"]) if "Item" in response else None

    def keep(self, conversation: Conversation, result: Result, deadline: Deadline) -> None:
        """Write a result down unless a stronger one stands there. Raises RecordUnavailable."""
        members = {
            "conversation": _key(conversation),
            **result.told(),
            "decided_at": result.decided_at.isoformat(),
            "expires_at": int((result.decided_at + TIME_TO_LIVE).timestamp()),
        }
        item = {name: _serialize(value) for name, value in members.items()}
        request: dict[str, Any] = {"TableName": self._name, "Item": item}
        if result.status is not Status.ENDED:
            request["ConditionExpression"] = "attribute_not_exists(conversation)"
            if result.settled:
                request["ConditionExpression"] += " OR #status <> :ended"
                request["ExpressionAttributeNames"] = {"#status": "status"}
                request["ExpressionAttributeValues"] = {":ended": _serialize(Status.ENDED)}
        try:
            ask(lambda: self._client.put_item(**request), _seconds(deadline), self._clock)
        except AwsRefused as refused:
            if str(refused) != "ConditionalCheckFailedException":
                raise RecordUnavailable(str(refused)) from None


def _key(conversation: Conversation) -> str:
    return f"{conversation.deployment_id}/{conversation.conversation_id}"


def _seconds(deadline: Deadline) -> float:
    # A quarter at most, so that a slow table leaves the time to publish.
    return min(deadline.left() / 4, MAX_SECONDS)


def _result(item: dict[str, Any]) -> Result:
    """Read an item of ours. Raises RecordUnavailable for one that is not."""
    try:
        kept = {name: _deserialize(value) for name, value in item.items()}
        return Result(
            Status(kept["status"]),
            kept["reason"] and Reason(kept["reason"]),
            datetime.fromisoformat(kept["decided_at"]),
            int(kept["attempts"]),
            kept["tavus_status_code"] and int(kept["tavus_status_code"]),
            kept["tavus_request_id"],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordUnavailable(f"an item of another form: {type(error).__name__}") from None
