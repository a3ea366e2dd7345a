"""How a conversation is ended: check the allow-list, call Tavus, combine the answer with the record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from end_conversation.conversation import Reason, Result, Status
from end_conversation.decision import combine, to_record

if TYPE_CHECKING:
    from collections.abc import Container

    from end_conversation.conversation import Conversation
    from end_conversation.deadline import Clock, Deadline


class End(Protocol):
    """Ends a conversation before the deadline."""

    def __call__(self, conversation: Conversation, deadline: Deadline) -> Result: ...


class Record(Protocol):
    """What is known about conversations from earlier deliveries. Reports its own failures and never raises."""

    def get(self, conversation: Conversation, deadline: Deadline) -> Result | None:
        """Return an `ended` or `unconfirmed` result, or None if nothing is known."""

    def put(self, conversation: Conversation, result: Result, deadline: Deadline) -> None:
        """Store an `ended` or `unconfirmed` result. Never replaces `ended` with `unconfirmed`."""


class EndAllowed:
    """Ends conversations of the deployments on the allow-list."""

    def __init__(self, end: End, allowed_deployment_ids: Container[str], clock: Clock) -> None:
        self._end = end
        self._allowed = allowed_deployment_ids
        self._clock = clock

    def __call__(self, conversation: Conversation, deadline: Deadline) -> Result:
        if conversation.deployment_id in self._allowed:
            return self._end(conversation, deadline)
        return refuse_deployment(self._clock)


def refuse_deployment(clock: Clock) -> Result:
    """Return the result for a deployment that is not on the allow-list."""
    return Result(Status.REJECTED, Reason.DEPLOYMENT_NOT_ALLOWED, clock.now(), attempts=0)


class EndRecorded:
    """Ends conversations and records the results, so that a second delivery after a crash reports the right one."""

    def __init__(self, end: End, record: Record) -> None:
        self._end = end
        self._record = record

    def __call__(self, conversation: Conversation, deadline: Deadline) -> Result:
        result = self._end(conversation, deadline)
        # Written before it is read: if another run has just written `ended`, the read below finds it.
        if (recorded := to_record(result)) is not None:
            self._record.put(conversation, recorded, deadline)
        if result.status is Status.ENDED:
            return result
        return combine(result, self._record.get(conversation, deadline))
