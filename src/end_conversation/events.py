"""The event door: a session-timeout event from EventBridge in, a result event onto the bus out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from end_conversation.conversation import Conversation, InvalidId
from end_conversation.deadline import Deadline
from end_conversation.errors import InvalidEvent, ResultNotPublished, TavusUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from aws_lambda_powertools.utilities.typing import LambdaContext

    from end_conversation.conversation import End, Result
    from end_conversation.deadline import Clock
    from end_conversation.telemetry import Telemetry

RESULT_DETAIL_TYPE = "Conversation End Result"
# Kept from Tavus for asking the table, writing it and publishing; then for logging.
RESERVE_SECONDS = 9
EXIT_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Trigger:
    """The event that asked for an end. `id` is the consumer's deduplication key."""

    id: str
    source: str | None
    detail_type: str | None
    time: str | None


class EventDoor:
    """Ends the conversation that an event names, and publishes the result.

    Raises InvalidEvent, TavusUnavailable or ResultNotPublished; Lambda's retries and the failure queue take over.
    """

    def __init__(
        self,
        end: End,
        publish: Callable[[dict[str, Any], Deadline], None],
        telemetry: Telemetry,
        clock: Clock,
    ) -> None:
        self._end = end
        self._publish = publish
        self._telemetry = telemetry
        self._clock = clock

    def __call__(self, event: dict[str, Any], context: LambdaContext) -> None:
        """End one conversation and publish the result."""
        seconds = context.get_remaining_time_in_millis() / 1000 - EXIT_SECONDS
        deadline = Deadline(self._clock, seconds, RESERVE_SECONDS)
        try:
            conversation = _named(event)
        except InvalidEvent:
            self._telemetry.invalid("event", "invalid_event")
            raise
        try:
            result = self._end(conversation, deadline)
        except TavusUnavailable as unavailable:
            self._telemetry.outcome("event", conversation, unavailable, deadline)
            raise
        self._telemetry.outcome("event", conversation, result, deadline)
        try:
            self._publish(_detail(conversation, result, _trigger(event, context)), deadline)
        except ResultNotPublished as error:
            self._telemetry.publish_failed(error)
            raise


def _named(event: dict[str, Any]) -> Conversation:
    if event["detail-type"] == RESULT_DETAIL_TYPE:
        raise InvalidEvent("the event is a result of ours: let the rule match session timeouts alone")
    match event.get("detail"):
        case {"deployment_id": deployment_id, "conversation_id": conversation_id}:
            try:
                return Conversation(deployment_id, conversation_id)
            except InvalidId as error:
                raise InvalidEvent(f"detail.{error}") from None
    raise InvalidEvent("detail must have a deployment_id and a conversation_id")


def _trigger(event: dict[str, Any], context: LambdaContext) -> Trigger:
    def text(member: str) -> str | None:
        value = event.get(member)
        return value if isinstance(value, str) and value else None

    return Trigger(text("id") or context.aws_request_id, text("source"), text("detail-type"), text("time"))


def _detail(conversation: Conversation, result: Result, trigger: Trigger) -> dict[str, Any]:
    """What is published; `version` changes only when a member is removed or changes its meaning."""
    return {
        "version": "1",
        **asdict(conversation),
        **result.told(),
        "decided_at": result.decided_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "trigger": asdict(trigger),
    }
