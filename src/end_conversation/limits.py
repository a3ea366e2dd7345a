"""Limits: a schedule for each conversation sends its session timeout."""

from __future__ import annotations

import re
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from end_conversation.errors import AwsCallFailed
from end_conversation.http import RETRY_AFTER_SECONDS, success

if TYPE_CHECKING:
    from datetime import datetime

    from end_conversation.conversation import Conversation
    from end_conversation.deadline import Clock, Deadline
    from end_conversation.http import Request
    from end_conversation.telemetry import Telemetry, Trigger

MIN_SECONDS = 60  # EventBridge Scheduler is precise to a minute


class ScheduleTimeout(Protocol):
    """Schedules a session timeout at `ends_at` (UTC, whole seconds), unless the conversation has an earlier one.

    Returns the time that stands. Raises AwsCallFailed.
    """

    def __call__(self, conversation: Conversation, ends_at: datetime, deadline: Deadline) -> datetime: ...


class SetLimit:
    """Answers PUT …/timeout. Invalid input gets an error answer and never raises."""

    trigger: Trigger = "timer"
    method = "PUT"
    max_seconds: float = 4.5  # with the rest of an invocation, the caller has an answer within 5 s

    def __init__(
        self, schedule_timeout: ScheduleTimeout, max_session_seconds: int, telemetry: Telemetry, clock: Clock
    ) -> None:
        self._schedule_timeout = schedule_timeout
        self._max_session_seconds = max_session_seconds
        self._telemetry = telemetry
        self._clock = clock

    def __call__(self, request: Request) -> dict[str, Any]:
        """Set the limit of one conversation. Without `seconds` in the query, it is the maximum."""
        conversation, deadline = request.conversation, request.deadline
        seconds = _seconds(request.event, self._max_session_seconds)
        if seconds is None:
            self._telemetry.invalid(self.trigger, "invalid_seconds")
            detail = f"seconds must be one whole number, {MIN_SECONDS} or more."
            return request.problem(HTTPStatus.BAD_REQUEST, "invalid_seconds", detail)
        ends_at = self._clock.now().replace(microsecond=0) + timedelta(seconds=seconds)
        try:
            ends_at = self._schedule_timeout(conversation, ends_at, deadline)
        except AwsCallFailed as error:
            self._telemetry.timer_failed(conversation, error.kind, deadline)
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            detail = "AWS did not confirm the limit. Try again later."
            return request.problem(HTTPStatus.SERVICE_UNAVAILABLE, "timer_unavailable", detail, headers)
        text = f"{ends_at:%Y-%m-%dT%H:%M:%SZ}"
        self._telemetry.armed(conversation, text, deadline)
        return success(HTTPStatus.OK, {"conversation_id": conversation.conversation_id, "ends_at": text})


def _seconds(event: dict[str, Any], max_seconds: int) -> int | None:
    """Return `seconds` of the query, reduced to the maximum. None if it is invalid.

    If it is repeated, a REST API lists all values, and an HTTP API or a Function URL joins them with commas.
    """
    match event:
        case {"multiValueQueryStringParameters": {"seconds": [value]}}:
            pass
        case {"multiValueQueryStringParameters": {"seconds": _}}:
            return None
        case {"queryStringParameters": {"seconds": value}}:
            pass
        case _:
            return max_seconds
    if not isinstance(value, str) or not re.fullmatch("[1-9][0-9]*", value):
        return None
    # A number of more than 4,300 digits cannot be converted.
    seconds = max_seconds if len(value) > len(str(max_seconds)) else min(int(value), max_seconds)
    return seconds if seconds >= MIN_SECONDS else None
