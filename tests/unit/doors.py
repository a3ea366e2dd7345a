"""The doors, with fakes of all that they use, and the ids that none of them accepts."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator

from end_conversation.conversation import Result, Status
from end_conversation.events import EventDoor
from end_conversation.http import EndNow, HttpDoor
from end_conversation.limits import SetLimit
from end_conversation.messages import MessageDoor
from tests.unit.fakes import Context, FakeClock, FakeQueue, FakeTelemetry, sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from end_conversation.conversation import Conversation
    from end_conversation.deadline import Deadline
    from end_conversation.errors import AwsCallFailed
    from end_conversation.http import Operation

NOW = FakeClock().now()
ENDED = Result(Status.ENDED, None, NOW, 1, 200, "9a1e")
ALLOWED = {"d1", "d2", "d1234567890abcdef"}
ID_RULE = (
    "must be 1 to 128 letters, digits, hyphens or underscores, the first a letter or digit, "
    "and not undefined, null, NaN or None"
)
# test_conversation.py has all that ids are made of.
MALFORMED_IDS: list[Any] = [
    *("", "..", "%2e%2e", "../a", "a/b", "a?b", "a\r\nHost: b", "\ud800", "undefined", "a" * 129),
    *(None, True, 7, 1.5, ["a"], {"a": "b"}),
]


def at(seconds: float) -> str:
    """Return the time this many seconds after NOW, in the format of `ends_at`."""
    return f"{NOW + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


class Http:
    """The HTTP door with both operations."""

    def __init__(self, result: Result = ENDED, max_session_seconds: int = 3600) -> None:
        self.result = result
        self.failure: AwsCallFailed | None = None
        self.standing: datetime | None = None
        self.ended: list[Conversation] = []
        self.scheduled: list[tuple[Conversation, datetime]] = []
        self.seconds: list[float] = []
        self.telemetry = FakeTelemetry()
        clock = FakeClock()
        set_limit = SetLimit(self._schedule, max_session_seconds, self.telemetry, clock)
        operations: dict[str, Operation] = {"end": EndNow(self._end, self.telemetry), "timeout": set_limit}
        self._door = HttpDoor(operations, ALLOWED, "http", self.telemetry, clock)

    def __call__(self, event: dict[str, Any], remaining_ms: int = 10_000) -> dict[str, Any]:
        return self._door(event, Context(remaining_ms, request_id="r1"))

    def _end(self, conversation: Conversation, deadline: Deadline) -> Result:
        self.ended.append(conversation)
        self.seconds.append(deadline.left())
        return self.result

    def _schedule(self, conversation: Conversation, ends_at: datetime, deadline: Deadline) -> datetime:
        self.scheduled.append((conversation, ends_at))
        self.seconds.append(deadline.left())
        if self.failure is not None:
            raise self.failure
        return self.standing or ends_at


class Events:
    """The event door, and the message door in front of it. Every published event is validated."""

    def __init__(
        self, result: Result = ENDED, jitter: Callable[[float, float], float] = lambda low, high: (low + high) / 2
    ) -> None:
        self.result = result
        self.publish_error: Exception | None = None
        self.ended: list[Conversation] = []
        self.seconds: list[tuple[float, float]] = []
        self.published: list[dict[str, Any]] = []
        self.queue = FakeQueue()
        self.telemetry = FakeTelemetry()
        self.clock = FakeClock()
        self._event_door = EventDoor(self._end, ALLOWED, self._publish, self.telemetry, self.clock)
        self._message_door = MessageDoor(self._event_door, self.queue, self.telemetry, self.clock, jitter)

    def __call__(self, event: dict[str, Any], remaining_ms: int = 60_000) -> None:
        """Handle an event without the queue."""
        self._event_door(event, Context(remaining_ms, request_id="r1"))

    def receive(self, *messages: dict[str, Any]) -> list[str]:
        """Handle messages. Returns the ids of those that stay in the queue."""
        answer = self._message_door({"Records": list(messages)}, Context(30_000, request_id="r1"))
        assert answer.keys() == {"batchItemFailures"}
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    def _end(self, conversation: Conversation, deadline: Deadline) -> Result:
        self.ended.append(conversation)
        self.seconds.append((deadline.left_for_tavus(), deadline.left()))
        return self.result

    def _publish(self, detail_type: str, detail: dict[str, Any], deadline: Deadline) -> None:
        if self.publish_error is not None:
            raise self.publish_error
        event = {"source": "tavus.conversations", "detail-type": detail_type, "detail": detail}
        event = json.loads(json.dumps(event))
        schema = sample("conversation-end-result.schema")
        Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(event)
        self.published.append(event["detail"])
