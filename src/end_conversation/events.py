"""The event door: ends the conversation that a session-timeout event names, and publishes the result."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from end_conversation.conversation import Conversation, Status
from end_conversation.deadline import Deadline
from end_conversation.ending import refuse_deployment
from end_conversation.errors import InvalidEvent, InvalidId, ResultNotPublished, TavusUnavailable, UnsupportedEvent

if TYPE_CHECKING:
    from collections.abc import Container

    from aws_lambda_powertools.utilities.typing import LambdaContext

    from end_conversation.conversation import Result
    from end_conversation.deadline import Clock
    from end_conversation.ending import EndConversation
    from end_conversation.telemetry import Telemetry

RESULT_DETAIL_TYPE = "Conversation End Result"
# Kept for three calls to AWS, with two tries each: write the record, read it, publish. Part of it is a margin for
# hosts with dead addresses.
RESERVE_SECONDS = 20
# Kept for returning to Lambda.
EXIT_SECONDS = 0.25


class Publish(Protocol):
    """Publishes one event before the deadline. Raises ResultNotPublished."""

    def __call__(self, detail_type: str, detail: dict[str, Any], deadline: Deadline) -> None: ...


class EventDoor:
    """Handles a session timeout, from the rule or from the retry queue.

    Raises UnsupportedEvent, InvalidEvent, TavusUnavailable or ResultNotPublished. Lambda then tries again.
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
        seconds = context.get_remaining_time_in_millis() / 1000 - EXIT_SECONDS
        deadline = Deadline(self._clock, seconds, RESERVE_SECONDS)
        try:
            event, request_id = _unwrap(event, context.aws_request_id)
            conversation = _conversation(event)
        except UnsupportedEvent:
            self._telemetry.invalid("event", "unsupported_event")
            raise
        except InvalidEvent:
            self._telemetry.invalid("event", "invalid_event")
            raise
        if conversation.deployment_id in self._allowed:
            result = self._end_conversation(conversation, deadline)
        else:
            result = refuse_deployment(self._clock)
        self._telemetry.result("event", conversation, result, deadline)
        if result.status is Status.UNAVAILABLE:
            raise TavusUnavailable(f"{result.reason}: {result.failure} (attempts: {result.attempts})")
        try:
            self._publish(RESULT_DETAIL_TYPE, _detail(conversation, result, _trigger(event, request_id)), deadline)
        except ResultNotPublished as error:
            self._telemetry.publish_failed(str(error))
            raise


def _unwrap(event: dict[str, Any], request_id: str) -> tuple[dict[str, Any], str]:
    """Return the EventBridge event, and the request id of its first invocation as far as it is known.

    A message of the retry queue holds the event itself, if the rule could not deliver it; Lambda's record of the
    asynchronous invocations that failed; or only the detail, if a schedule could not put the event on the bus. Raises
    UnsupportedEvent for any other message.
    """
    match event:
        case {"detail-type": _}:
            return event, request_id
        case {"Records": [{"body": str(body)} as message]}:
            with suppress(ValueError, RecursionError):
                match json.loads(body):
                    case {"detail-type": _} as undelivered:
                        return undelivered, request_id
                    case {"requestPayload": {"detail-type": _} as failed, **record}:
                        return failed, _request_id(record) or request_id
                    case {"deployment_id": _} as detail if (execution_id := _execution_id(message)) is not None:
                        return {"id": execution_id, "detail-type": None, "detail": detail}, request_id
    raise UnsupportedEvent("the SQS message holds no event, no Lambda record and no dead letter of a schedule")


def _request_id(record: Any) -> str | None:
    match record:
        case {"requestContext": {"requestId": str(request_id)}}:
            return request_id
    return None


def _execution_id(message: Any) -> str | None:
    """Return the id of the execution whose dead letter a message is. None if no schedule sent it."""
    match message:
        case {"messageAttributes": {"SCHEDULE_ARN": _, "EXECUTION_ID": {"stringValue": str(execution_id)}}}:
            return execution_id
    return None


def _conversation(event: dict[str, Any]) -> Conversation:
    if event["detail-type"] == RESULT_DETAIL_TYPE:
        raise InvalidEvent("the event is a result of this function: the rule must match session timeouts only")
    match event.get("detail"):
        case {"deployment_id": deployment_id, "conversation_id": conversation_id}:
            try:
                return Conversation(deployment_id, conversation_id)
            except InvalidId as error:
                raise InvalidEvent(f"detail.{error}") from None
    raise InvalidEvent("detail must have a deployment_id and a conversation_id")


def _trigger(event: dict[str, Any], request_id: str) -> dict[str, str | None]:
    """Describe the event that asked for the end. Consumers recognize duplicates by its `id`."""

    def text(member: str) -> str | None:
        value = event.get(member)
        return value if isinstance(value, str) and value else None

    return {
        "id": text("id") or request_id,
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
