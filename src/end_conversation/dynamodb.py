"""The record as a DynamoDB table: key `conversation`, expiring at `expires_at` after 30 days."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import BotoCoreError, ClientError

from end_conversation.conversation import Reason, RecordUnavailable, Result, Status
from end_conversation.deadline import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_dynamodb import DynamoDBClient

    from end_conversation.conversation import Conversation
    from end_conversation.deadline import Deadline

MAX_SECONDS = 1
TIME_TO_LIVE = timedelta(days=30)

_serialize = TypeSerializer().serialize
_deserialize = TypeDeserializer().deserialize


class EndedTable:
    """The table of conversations known, or thought, to be over: an item each, made of a result's members."""

    def __init__(self, client: DynamoDBClient, name: str) -> None:
        self._client = client
        self._name = name

    def recall(self, conversation: Conversation, deadline: Deadline) -> Result | None:
        """Give the result kept of a conversation, read consistently. Raises RecordUnavailable."""
        key = {"conversation": _serialize(_key(conversation))}
        response = _call(deadline, lambda: self._client.get_item(TableName=self._name, Key=key, ConsistentRead=True))
        return _result(response["Item"]) if "Item" in response else None

    def keep(self, conversation: Conversation, result: Result, deadline: Deadline) -> None:
        """Write a result down; any but `ended` only where nothing stands yet. Raises RecordUnavailable."""
        members = {
            "conversation": _key(conversation),
            **asdict(result),
            "decided_at": result.decided_at.isoformat(),
            "expires_at": int((result.decided_at + TIME_TO_LIVE).timestamp()),
        }
        item = {name: _serialize(value) for name, value in members.items()}
        condition = (
            {} if result.status is Status.ENDED else {"ConditionExpression": "attribute_not_exists(conversation)"}
        )

        def put() -> None:
            with suppress(self._client.exceptions.ConditionalCheckFailedException):
                self._client.put_item(TableName=self._name, Item=item, **condition)  # type: ignore[arg-type] # a str

        _call(deadline, put)


def _key(conversation: Conversation) -> str:
    return f"{conversation.deployment_id}/{conversation.conversation_id}"


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
    except (KeyError, TypeError, ValueError) as error:
        raise RecordUnavailable(f"an item of another form: {type(error).__name__}") from None


def _call[T](deadline: Deadline, work: Callable[[], T]) -> T:
    # A quarter at most, so that a slow table leaves the time to publish.
    seconds = min(MAX_SECONDS, deadline.left_with_reserve() / 4)
    try:
        return within(seconds, work)
    except ClientError as error:
        raise RecordUnavailable(error.response["Error"]["Code"]) from None
    except (BotoCoreError, TimeoutError) as error:
        raise RecordUnavailable(type(error).__name__) from None
