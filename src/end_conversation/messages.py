"""The message door: takes session timeouts from the queue, and decides when each one comes back."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Protocol

from end_conversation.errors import AwsCallFailed, InvalidEvent, TryLater, UnsupportedEvent
from end_conversation.events import invocation_deadline

if TYPE_CHECKING:
    from collections.abc import Callable

    from aws_lambda_powertools.utilities.typing import LambdaContext

    from end_conversation.deadline import Clock, Deadline
    from end_conversation.events import EventDoor, SessionTimeout
    from end_conversation.telemetry import Telemetry

# The pause after each failed try. Together with maxReceiveCount in the template: nine tries in about an hour.
FIRST_RETRY_SECONDS = 30
MAX_RETRY_SECONDS = 15 * 60
JITTER = 0.1
# SQS postpones by whole seconds, so the wait is rounded. The function itself waits for the rest, at most this long.
MAX_SLEEP_SECONDS = 0.5


class Queue(Protocol):
    """The queue of session timeouts and the queue of failed ones. Both methods raise AwsCallFailed."""

    def postpone(self, receipt_handle: str, seconds: int, deadline: Deadline) -> None:
        """Make a received message visible again in this many seconds."""

    def send_to_failed(self, message: dict[str, Any], deadline: Deadline) -> None:
        """Copy a whole message to the queue of failed ones."""


class MessageDoor:
    """Handles the messages of an SQS event source mapping with ReportBatchItemFailures.

    Lambda deletes the messages that were handled. Those reported as failed stay in the queue. Nothing is raised.
    """

    def __init__(
        self,
        event_door: EventDoor,
        queue: Queue,
        telemetry: Telemetry,
        clock: Clock,
        jitter: Callable[[float, float], float],
    ) -> None:
        self._event_door = event_door
        self._queue = queue
        self._telemetry = telemetry
        self._clock = clock
        self._jitter = jitter

    def __call__(self, event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        """Handle each message. Returns the ids of those that stay in the queue, as Lambda expects them."""
        kept = [message["messageId"] for message in event["Records"] if not self._handle(message, context)]
        return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in kept]}

    def _handle(self, message: dict[str, Any], context: LambdaContext) -> bool:
        """Handle one message. Returns whether it can leave the queue."""
        deadline = invocation_deadline(context, self._clock)
        try:
            timeout = self._event_door.parse(_event(message["body"]), message["messageId"])
        except (InvalidEvent, UnsupportedEvent) as error:
            return self._give_up(message, error, deadline)
        if (seconds := self._event_door.seconds_until_end(timeout)) > MAX_SLEEP_SECONDS:
            self._postpone(message, round(seconds), deadline)
            return False
        if seconds > 0:
            self._clock.sleep(seconds)
        try:
            self._event_door.end(timeout, deadline)
        except TryLater as error:
            self._retry(message, timeout, min(error.retry_after or 0, MAX_RETRY_SECONDS), deadline)
            return False
        return True

    def _retry(self, message: dict[str, Any], timeout: SessionTimeout, min_seconds: float, deadline: Deadline) -> None:
        seconds = max(self._pause_seconds(message, timeout), min_seconds)
        # An alarm watches how late the next try is. SQS' own metric leaves out messages that were received three times.
        self._telemetry.late(seconds + self._seconds_late(message, timeout))
        self._postpone(message, seconds, deadline)

    def _seconds_late(self, message: dict[str, Any], timeout: SessionTimeout) -> float:
        """Seconds since the message was sent or, if that is later, since its `ends_at`."""
        now = self._clock.now().timestamp()
        sent = float(message.get("attributes", {}).get("SentTimestamp", now * 1000)) / 1000
        return now - max(sent, timeout.ends_at.timestamp() if timeout.ends_at else 0)

    def _give_up(self, message: dict[str, Any], error: InvalidEvent | UnsupportedEvent, deadline: Deadline) -> bool:
        """Send a message that can never succeed to the failed queue. Returns whether it can leave this one."""
        reason = "invalid_event" if isinstance(error, InvalidEvent) else "unsupported_event"
        self._telemetry.invalid("event", reason, str(error))
        try:
            self._queue.send_to_failed(message, deadline)
        except AwsCallFailed as failure:
            self._telemetry.queue_failed("the message was not sent to the failed queue", failure.kind)
            return False
        return True

    def _postpone(self, message: dict[str, Any], seconds: float, deadline: Deadline) -> None:
        try:
            self._queue.postpone(message["receiptHandle"], math.ceil(seconds), deadline)
        except AwsCallFailed as error:
            # The message comes back after the queue's own visibility timeout.
            self._telemetry.queue_failed("the message was not postponed", error.kind)

    def _pause_seconds(self, message: dict[str, Any], timeout: SessionTimeout) -> float:
        attributes = message.get("attributes", {})
        tries = int(attributes.get("ApproximateReceiveCount", 1))
        first_received = attributes.get("ApproximateFirstReceiveTimestamp")
        if timeout.ends_at and first_received and float(first_received) / 1000 < timeout.ends_at.timestamp():
            tries -= 1  # the first receive only postponed the message until that second
        seconds: int = min(FIRST_RETRY_SECONDS * 2 ** max(tries - 1, 0), MAX_RETRY_SECONDS)
        return seconds * self._jitter(1 - JITTER, 1 + JITTER)


def _event(body: str) -> Any:
    """Return the event in the body of a message. Raises UnsupportedEvent.

    A dead letter of a schedule can be the event, or the request to SQS that was refused.
    """
    try:
        event = json.loads(body)
        match event:
            case {"MessageBody": str(inner), "QueueUrl": _}:
                event = json.loads(inner)
    except (ValueError, RecursionError):
        raise UnsupportedEvent("the body of the message is not JSON") from None
    return event
