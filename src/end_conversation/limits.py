"""Limits: a schedule for each conversation sends its session timeout."""

from __future__ import annotations

import re
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from end_conversation.conversation import format_utc
from end_conversation.errors import AwsCallFailed
from end_conversation.http import RETRY_AFTER_SECONDS, success

if TYPE_CHECKING:
    from datetime import datetime

    from end_conversation.conversation import Conversation
    from end_conversation.deadline import Clock, Deadline
    from end_conversation.http import Request
    from end_conversation.telemetry import Telemetry, Trigger

MIN_SECONDS = 60  # a shorter limit could be late by a quarter of itself
# Where a caller may have put a limit by mistake. It must not become the maximum.
_OTHER_PLACES = ("body", "rawQueryString", "queryStringParameters", "multiValueQueryStringParameters")


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
        try:
            seconds = _seconds(request.event, self._max_session_seconds)
        except ValueError as error:
            self._telemetry.invalid(self.trigger, "invalid_seconds")
            return request.problem(HTTPStatus.BAD_REQUEST, "invalid_seconds", str(error))
        ends_at = self._clock.now().replace(microsecond=0) + timedelta(seconds=seconds)
        try:
            ends_at = self._schedule_timeout(conversation, ends_at, deadline)
        except AwsCallFailed as error:
            self._telemetry.timer_failed(conversation, error.kind, deadline)
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            detail = "AWS did not confirm the limit. Try again later."
            return request.problem(HTTPStatus.SERVICE_UNAVAILABLE, "timer_unavailable", detail, headers)
        text = format_utc(ends_at)
        self._telemetry.armed(conversation, text, deadline)
        return success(HTTPStatus.OK, {"conversation_id": conversation.conversation_id, "ends_at": text})


def _seconds(event: dict[str, Any], max_seconds: int) -> int:
    """Return `seconds` of the query, reduced to the maximum. Raises ValueError, which says what is wrong.

    If it is repeated, a REST API lists all values, and an HTTP API or a Function URL joins them with commas.
    """
    invalid = ValueError(f"seconds must be one whole number, {MIN_SECONDS} or more, such as ?seconds=600.")
    match event:
        case {"multiValueQueryStringParameters": {"seconds": [value]}}:
            pass
        case {"multiValueQueryStringParameters": {"seconds": _}}:
            raise invalid  # repeated
        case {"queryStringParameters": {"seconds": value}}:
            pass
        case _ if any(event.get(member) for member in _OTHER_PLACES):
            raise ValueError("Set the limit with seconds in the query, such as ?seconds=600. Send nothing else.")
        case _:
            return max_seconds
    if not isinstance(value, str) or not re.fullmatch("[1-9][0-9]*", value):
        raise invalid
    # Nine digits exceed every maximum. int() refuses more than 4,300.
    seconds = min(int(value[:9]), max_seconds)
    if seconds < MIN_SECONDS:
        raise invalid
    return seconds
