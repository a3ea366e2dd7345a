"""Session timeouts: parses their events, ends their conversations, and publishes the results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from end_conversation.conversation import (
    LIMIT_DETAIL_TYPE,
    LIMIT_SOURCE,
    MAX_SECONDS_AHEAD,
    Conversation,
    Status,
    parse_utc,
)
from end_conversation.deadline import Deadline
from end_conversation.ending import deployment_not_allowed
from end_conversation.errors import InvalidEvent, InvalidId, ResultNotPublished, TavusUnavailable, UnsupportedEvent

if TYPE_CHECKING:
    from collections.abc import Container
    from datetime import datetime

    from aws_lambda_powertools.utilities.typing import LambdaContext

    from end_conversation.conversation import Result
    from end_conversation.deadline import Clock
    from end_conversation.ending import EndConversation
    from end_conversation.telemetry import Telemetry

RESULT_DETAIL_TYPE = "Conversation End Result"
# Kept for four calls to AWS (write the record, read it, publish, postpone the message), two of them with a second try.
RESERVE_SECONDS = 20
# Kept for returning to Lambda.
EXIT_SECONDS = 0.25


class SessionTimeout(NamedTuple):
    """A valid session timeout. `trigger` describes its event: consumers of the result recognize duplicates by its `id`.

    `ends_at` (UTC, whole seconds) is when the conversation must end. None means now.
    """

    conversation: Conversation
    ends_at: datetime | None
    trigger: dict[str, str | None]


class Publish(Protocol):
    """Publishes one event before the deadline. Raises ResultNotPublished."""

    def __call__(self, detail_type: str, detail: dict[str, Any], deadline: Deadline) -> None: ...


class EventDoor:
    """Parses session timeouts, ends their conversations, and publishes the results.

    The message door uses it for each message. A rule can also invoke it directly, without the queue. Then it raises
    InvalidEvent, TavusUnavailable or ResultNotPublished, and Lambda tries again.
    """

    def __init__(
        self,
        end_conversation: EndConversation,
        allowed_deployment_ids: Container[str],
        publish: Publish,
        telemetry: Telemetry,
        clock: Clock,
    ) -> None:
        self._end_conversation = end_conversation
        self._allowed = allowed_deployment_ids
        self._publish = publish
        self._telemetry = telemetry
        self._clock = clock

    def __call__(self, event: dict[str, Any], context: LambdaContext) -> None:
        """End one conversation and publish the result."""
        try:
            timeout = self._parse_due(event, context.aws_request_id)
        except InvalidEvent as error:
            self._telemetry.invalid("event", "invalid_event", str(error))
            raise
        self.end(timeout, invocation_deadline(context, self._clock))

    def _parse_due(self, event: dict[str, Any], default_id: str) -> SessionTimeout:
        timeout = self.parse(event, default_id)
        if self.seconds_until_end(timeout) > 0:
            raise InvalidEvent("detail.ends_at is in the future: send the event through the queue, which can wait")
        return timeout

    def parse(self, event: Any, default_id: str) -> SessionTimeout:
        """Parse an EventBridge event. `default_id` names it if it has no id. Raises UnsupportedEvent, InvalidEvent."""
        if not isinstance(event, dict) or "detail-type" not in event:
            raise UnsupportedEvent("the event has no detail-type")
        if event["detail-type"] == RESULT_DETAIL_TYPE:
            raise InvalidEvent("the event is a result of this function: the rule must match session timeouts only")
        match event.get("detail"):
            case {"deployment_id": deployment_id, "conversation_id": conversation_id, **others}:
                try:
                    conversation = Conversation(deployment_id, conversation_id)
                except InvalidId as error:
                    raise InvalidEvent(f"detail.{error}") from None
                ends_at = self._ends_at(others["ends_at"]) if "ends_at" in others else None
                return SessionTimeout(conversation, ends_at, _trigger(event, default_id))
        raise InvalidEvent("detail must have a deployment_id and a conversation_id")

    def _ends_at(self, value: object) -> datetime:
        try:
            ends_at = parse_utc(value)
        except ValueError:
            raise InvalidEvent("detail.ends_at must be a time in UTC such as 2026-11-29T08:37:41Z") from None
        if (ends_at - self._clock.now()).total_seconds() > MAX_SECONDS_AHEAD:
            raise InvalidEvent("detail.ends_at must be at most 15 minutes ahead: set a limit for a later time")
        return ends_at

    def seconds_until_end(self, timeout: SessionTimeout) -> float:
        """Seconds until the conversation must end. Zero or less means now."""
        return 0.0 if timeout.ends_at is None else (timeout.ends_at - self._clock.now()).total_seconds()

    def end(self, timeout: SessionTimeout, deadline: Deadline) -> None:
        """End the conversation and publish the result. Raises TavusUnavailable or ResultNotPublished.

        An unavailable result is counted at once, and any other result when it is published.
        """
        conversation, started_at = timeout.conversation, self._clock.now()
        if conversation.deployment_id in self._allowed:
            result = self._end_conversation(conversation, deadline)
        else:
            result = deployment_not_allowed(self._clock)
            self._telemetry.log_result("event", conversation, result, deadline)
        if result.status is Status.UNAVAILABLE:
            self._telemetry.count_result("event", result)
            text = f"{result.reason}: {result.failure} (attempts: {result.attempts})"
            raise TavusUnavailable(text, retry_after=result.retry_after)
        try:
            self._publish(RESULT_DETAIL_TYPE, _detail(conversation, result, timeout.trigger), deadline)
        except ResultNotPublished as error:
            self._telemetry.publish_failed(str(error))
            raise
        self._telemetry.count_result("event", result)
        is_limit = (timeout.trigger["source"], timeout.trigger["detail_type"]) == (LIMIT_SOURCE, LIMIT_DETAIL_TYPE)
        if is_limit and result.decided_at >= started_at:  # a result decided earlier comes from the record
            self._telemetry.limit_reached(result)


def invocation_deadline(context: LambdaContext, clock: Clock) -> Deadline:
    """The deadline of an invocation that handles session timeouts."""
    return Deadline(clock, context.get_remaining_time_in_millis() / 1000 - EXIT_SECONDS, RESERVE_SECONDS)


def _trigger(event: dict[str, Any], default_id: str) -> dict[str, str | None]:
    def text(member: str) -> str | None:
        value = event.get(member)
        return value if isinstance(value, str) and value else None

    return {
        "id": text("id") or default_id,
        "source": text("source"),
        "detail_type": text("detail-type"),
        "time": text("time"),
    }


def _detail(conversation: Conversation, result: Result, trigger: dict[str, str | None]) -> dict[str, Any]:
    """Build what is published. `version` changes when a member is removed or changes its meaning."""
    return {
        "version": "1",
        "deployment_id": conversation.deployment_id,
        "conversation_id": conversation.conversation_id,
        "status": result.status,
        "reason": result.reason,
        "decided_at": result.decided_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "attempts": result.attempts,
        "tavus_status_code": result.tavus_status_code,
        "tavus_request_id": result.tavus_request_id,
        "trigger": trigger,
    }
