"""The messages of a failure queue: taken without losing one, and read for the events that they are about."""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import batched
from typing import TYPE_CHECKING, Any, Self

from botocore.exceptions import BotoCoreError, ClientError

from end_conversation.conversation import is_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

BATCH = 10  # SQS' most in one call
WAIT_SECONDS = 2  # any wait makes SQS ask all its servers; without, it may find nothing where there is something
HIDDEN_SECONDS = 300  # the longest that a run which is killed outright keeps messages from the next one


def count(sqs: SQSClient, url: str) -> tuple[int, int]:
    """How many messages there are to take, and how many are hidden; SQS is right within about a minute."""
    counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return int(counts["ApproximateNumberOfMessages"]), int(counts["ApproximateNumberOfMessagesNotVisible"])


@contextmanager
def taken(sqs: SQSClient, url: str, most: int) -> Iterator[Iterator[Failure]]:
    """So many messages at most. Each is hidden from other runs until the `with` block ends, and then shown again."""
    receipts: dict[str, str] = {}

    def take() -> Iterator[Failure]:
        left = most
        while left > 0:
            messages = sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=min(left, BATCH),
                MessageAttributeNames=["ERROR_CODE"],
                MessageSystemAttributeNames=["SentTimestamp"],
                VisibilityTimeout=HIDDEN_SECONDS,
                WaitTimeSeconds=WAIT_SECONDS,
            ).get("Messages", [])
            if not messages:
                return
            left -= len(messages)
            receipts.update({message["MessageId"]: message["ReceiptHandle"] for message in messages})
            yield from map(Failure.read, messages)

    try:
        yield take()
    finally:
        # SQS skips what was deleted; what can't be shown now shows by itself, HIDDEN_SECONDS after it was taken.
        for batch in batched(receipts.items(), BATCH, strict=False):
            with suppress(BotoCoreError, ClientError):
                sqs.change_message_visibility_batch(
                    QueueUrl=url,
                    Entries=[{"Id": name, "ReceiptHandle": handle, "VisibilityTimeout": 0} for name, handle in batch],
                )


@dataclass(frozen=True, slots=True)
class Failure:
    """A message: the event it is about, as JSON, and a line on it; no event where the body is of neither form."""

    receipt: str
    event: str | None
    line: str

    @classmethod
    def read(cls, message: MessageTypeDef) -> Self:
        """Read a message of either queue."""
        when = f"{datetime.fromtimestamp(int(message['Attributes']['SentTimestamp']) / 1000, UTC):%Y-%m-%d %H:%M:%SZ}"
        receipt = message["ReceiptHandle"]
        match body := _json(message["Body"]):
            # Lambda's record of an invocation. It leaves out a payload that is too large for the queue.
            case {"requestContext": {"condition": condition}, "requestPayload": event} if event is not None:
                answer = body.get("responsePayload")
                error = _error(answer) if isinstance(answer, dict) else "no answer"
                return cls(receipt, json.dumps(event), f"{when}  {_named(event)}  {error}, {condition}")
            # The event that EventBridge could not deliver.
            case {"detail-type": _, "detail": _}:
                code = message.get("MessageAttributes", {}).get("ERROR_CODE", {"StringValue": "no reason given"})
                return cls(receipt, message["Body"], f"{when}  {_named(body)}  {code['StringValue']}")
        return cls(receipt, None, f"{when}  cannot be read: neither an event nor Lambda's record of one")


def _error(answer: dict[str, Any]) -> str:
    match answer:
        # What was wrong in the event, in the function's own words.
        case {"errorType": "InvalidEvent" | "UnsupportedEvent" as kind, "errorMessage": message}:
            return f"{kind}: {message}"
        case {"errorType": kind}:
            return str(kind)
    return "no answer"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _named(event: Any) -> str:
    match event:
        case {"detail": {"deployment_id": deployment_id, "conversation_id": conversation_id}}:
            if is_id(deployment_id) and is_id(conversation_id):
                return f"{deployment_id}/{conversation_id}"
    return "names no conversation"
